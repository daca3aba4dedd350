//! Objects that are fields of other objects.

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use std::fmt;
use std::marker::PhantomData;

/// Reads an object or null. What serde derives for a struct would also take an array for the fields in their order, which
/// the API's document does not say.
pub(crate) fn deserialize<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer.deserialize_any(ObjectOrNull(PhantomData))
}

struct ObjectOrNull<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectOrNull<T> {
    type Value = Option<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or null")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use crate::sandbox::CreateSandbox;

    #[test]
    fn x02_an_array_is_no_object() {
        let read = serde_json::from_str::<CreateSandbox>;
        assert_eq!(read(r#"{"limits": {"pids": 7}}"#).unwrap().limits.unwrap().pids, Some(7));
        assert_eq!(read(r#"{"limits": null}"#).unwrap().limits, None);
        assert_eq!(read("{}").unwrap().limits, None);
        let error = read(r#"{"limits": [null, 1, null, 7]}"#).unwrap_err().to_string();
        assert!(error.contains("expected an object or null"), "{error}");
    }
}

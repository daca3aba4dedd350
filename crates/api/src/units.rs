//! Quantities that people write in two ways: a number, or a number with a unit.

use serde::{Deserialize, Serialize};
use std::time::Duration;
use utoipa::ToSchema;

/// A number of bytes: `536870912`, `"512m"`, `"512MiB"`, `"1.5g"`. Units are powers of 1024; case does not matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct ByteSize(pub u64);

/// How long a sandbox may be idle: seconds as a number, or `"30s"`, `"5m"`, `"1h"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IdleTime(pub Duration);

/// A quantity that could not be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{value:?} is not {expected}")]
pub struct UnitError {
    value: String,
    expected: &'static str,
}

fn split_unit(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    (&text[..end], text[end..].trim())
}

fn scaled(number: f64, factor: f64) -> Option<u64> {
    let value = number * factor;
    // 2^53 is the largest range in which every JSON number is exact.
    (value.is_finite() && (0.0..=9_007_199_254_740_992.0).contains(&value)).then_some(value as u64)
}

impl std::str::FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let error = || UnitError {
            value: text.to_owned(),
            expected: "a size such as 512m, 1.5g or a number of bytes",
        };
        let (number, unit) = split_unit(text.trim());
        let power = match unit.to_ascii_lowercase().trim_end_matches('b').trim_end_matches('i') {
            "" => 0,
            "k" => 1,
            "m" => 2,
            "g" => 3,
            "t" => 4,
            _ => return Err(error()),
        };
        let number: f64 = number.parse().map_err(|_| error())?;
        scaled(number, 1024f64.powi(power)).map(Self).ok_or_else(error)
    }
}

impl std::str::FromStr for IdleTime {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let error = || UnitError {
            value: text.to_owned(),
            expected: "a time such as 30s, 5m, 1h or a number of seconds",
        };
        let (number, unit) = split_unit(text.trim());
        let seconds = match unit {
            "" | "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86400.0,
            _ => return Err(error()),
        };
        let number: f64 = number.parse().map_err(|_| error())?;
        let millis = scaled(number, seconds * 1000.0).ok_or_else(error)?;
        Ok(Self(Duration::from_millis(millis)))
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOrText {
    Number(f64),
    Text(String),
}

impl NumberOrText {
    fn parse<T: std::str::FromStr<Err = UnitError>, E: serde::de::Error>(self) -> Result<T, E> {
        let text = match self {
            Self::Number(number) => number.to_string(),
            Self::Text(text) => text,
        };
        text.parse().map_err(E::custom)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        NumberOrText::deserialize(d)?.parse()
    }
}

impl<'de> Deserialize<'de> for IdleTime {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        NumberOrText::deserialize(d)?.parse()
    }
}

impl Serialize for IdleTime {
    /// Seconds, so that every client can compute with it.
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_f64(self.0.as_secs_f64())
    }
}

/// The schema shared by quantities: a number, or text.
fn number_or_text(description: &str, pattern: &str) -> utoipa::openapi::schema::Schema {
    use utoipa::openapi::schema::{ObjectBuilder, OneOfBuilder, Type};
    OneOfBuilder::new()
        .item(ObjectBuilder::new().schema_type(Type::Number).minimum(Some(0)).build())
        .item(ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern)).build())
        .description(Some(description))
        .build()
        .into()
}

macro_rules! quantity_schema {
    ($type:ty, $name:literal, $description:literal, $pattern:literal) => {
        impl utoipa::PartialSchema for $type {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                number_or_text($description, $pattern).into()
            }
        }
        impl ToSchema for $type {
            fn name() -> std::borrow::Cow<'static, str> {
                $name.into()
            }
        }
    };
}

quantity_schema!(
    ByteSize,
    "ByteSize",
    "Bytes as a number, or text such as `512m`, `1.5g`.",
    r"^[0-9]+(\.[0-9]+)?\s*([kKmMgGtT]?[iI]?[bB]?)$"
);
quantity_schema!(
    IdleTime,
    "IdleTime",
    "Seconds as a number, or text such as `30s`, `5m`, `1h`.",
    r"^[0-9]+(\.[0-9]+)?[smhd]?$"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_and_without_unit() {
        for (text, bytes) in
            [("0", 0), ("512", 512), ("1k", 1024), ("512MiB", 536_870_912), ("1.5g", 1_610_612_736)]
        {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for bad in ["", "-1", "1x", "m", "1e400", "9999999999t"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
        assert_eq!(serde_json::from_str::<ByteSize>("1024").unwrap(), ByteSize(1024));
    }

    #[test]
    fn idle_times_are_seconds_or_have_a_unit() {
        for (json, seconds) in [("30", 30), ("\"30s\"", 30), ("\"5m\"", 300), ("\"1h\"", 3600)] {
            assert_eq!(
                serde_json::from_str::<IdleTime>(json).unwrap(),
                IdleTime(Duration::from_secs(seconds)),
                "{json}"
            );
        }
        assert!(serde_json::from_str::<IdleTime>("\"5 parsecs\"").is_err());
        assert!(serde_json::from_str::<IdleTime>("-3").is_err());
    }
}

//! Paths and queries of requests.

use std::fmt::Write as _;

/// Writes `text` so that it is one literal part of a URL's path or query (RFC 3986: all but the unreserved characters).
pub(crate) fn encode(into: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                into.push(char::from(byte))
            }
            // Writing to a String cannot fail.
            _ => _ = write!(into, "%{byte:02X}"),
        }
    }
}

/// `base` with one more literal part.
pub(crate) fn join(base: &str, part: &str) -> String {
    let mut path = String::with_capacity(base.len() + 1 + part.len());
    path += base;
    path.push('/');
    encode(&mut path, part);
    path
}

/// A query in the making.
pub(crate) struct Query {
    path: String,
    separator: char,
}

impl Query {
    pub(crate) fn new(path: String) -> Self {
        Self { path, separator: '?' }
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.path.push(self.separator);
        self.separator = '&';
        self.path += name;
        self.path.push('=');
        encode(&mut self.path, value);
        self
    }

    pub(crate) fn maybe(self, name: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    pub(crate) fn finish(self) -> String {
        self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b09_names_are_literal_in_urls() {
        assert_eq!(join("/s", "a b/?#%&é"), "/s/a%20b%2F%3F%23%25%26%C3%A9");
        let query = Query::new("/p".into()).with("path", "/a&b=c").maybe("no", None).with("x", "+").finish();
        assert_eq!(query, "/p?path=%2Fa%26b%3Dc&x=%2B");
    }
}

//! Bytes as JSON text, piece by piece: a character is never split, and invalid bytes become U+FFFD (contract S02).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sandcrab_api::exec::OutputEncoding;

/// Turns a stream of bytes into text. What cannot be decided yet (half a character, a third of a base64 group) waits
/// for the next piece.
#[derive(Debug, Clone)]
pub(crate) struct Encoder {
    encoding: OutputEncoding,
    /// At most three bytes.
    pending: Vec<u8>,
    invalid: bool,
}

impl Encoder {
    pub(crate) fn new(encoding: OutputEncoding) -> Self {
        Self { encoding, pending: Vec::new(), invalid: false }
    }

    /// Whether bytes were replaced so far.
    pub(crate) fn invalid_utf8(&self) -> bool {
        self.invalid
    }

    /// Bytes that wait for the rest of their character or group.
    pub(crate) fn waiting(&self) -> usize {
        self.pending.len()
    }

    /// What follows is not what came next: half a character stays half a one. Base64 goes on, as padding may only
    /// stand at the end.
    pub(crate) fn gap(&mut self, out: &mut Vec<u8>) {
        if self.encoding == OutputEncoding::Utf8 {
            self.push_json(&[], true, out);
        }
    }

    /// Begins another stream.
    pub(crate) fn reset(&mut self) {
        self.pending.clear();
        self.invalid = false;
    }

    /// Adds the text of `bytes` to `out`. `last` says that nothing follows.
    pub(crate) fn push(&mut self, bytes: &[u8], last: bool, out: &mut String) {
        self.take(bytes, |this, input| match this.encoding {
            OutputEncoding::Utf8 => this.push_text(input, last, out),
            OutputEncoding::Base64 => {
                let (whole, rest) = groups(input, last);
                STANDARD.encode_string(whole, out);
                rest
            }
        });
    }

    /// As [`Encoder::push`], as the inside of a JSON string.
    pub(crate) fn push_json(&mut self, bytes: &[u8], last: bool, out: &mut Vec<u8>) {
        if self.encoding == OutputEncoding::Utf8 {
            let mut text = String::new();
            self.push(bytes, last, &mut text);
            return escape_json(&text, out);
        }
        self.take(bytes, |_, input| {
            let (whole, rest) = groups(input, last);
            let start = out.len();
            out.resize(start + whole.len().div_ceil(3) * 4, 0);
            // There is room for exactly this, and nothing in it needs an escape.
            let _ = STANDARD.encode_slice(whole, &mut out[start..]);
            rest
        });
    }

    /// Gives `work` what is pending with `bytes` behind it; what it returns waits for the next piece.
    fn take(&mut self, bytes: &[u8], work: impl for<'a> FnOnce(&mut Self, &'a [u8]) -> &'a [u8]) {
        let joined;
        let input = if self.pending.is_empty() {
            bytes
        } else {
            joined = [&self.pending[..], bytes].concat();
            self.pending.clear();
            &joined[..]
        };
        let rest = work(self, input);
        self.pending.extend_from_slice(rest);
    }

    /// Returns the bytes of a character that is not complete yet.
    fn push_text<'a>(&mut self, mut input: &'a [u8], last: bool, out: &mut String) -> &'a [u8] {
        loop {
            let error = match std::str::from_utf8(input) {
                Ok(text) => {
                    out.push_str(text);
                    return &[];
                }
                Err(error) => error,
            };
            let (valid, rest) = input.split_at(error.valid_up_to());
            out.push_str(&String::from_utf8_lossy(valid));
            match error.error_len() {
                None if !last => return rest,
                length => {
                    self.invalid = true;
                    out.push('\u{fffd}');
                    input = &rest[length.unwrap_or(rest.len())..];
                }
            }
        }
    }
}

/// The groups of three bytes that can be written as base64 now, and the rest.
fn groups(input: &[u8], last: bool) -> (&[u8], &[u8]) {
    input.split_at(if last { input.len() } else { input.len() - input.len() % 3 })
}

/// Appends `text` to `out` as the inside of a JSON string.
pub(crate) fn escape_json(text: &str, out: &mut Vec<u8>) {
    let start = out.len();
    // Writing a str into a Vec cannot fail; the quotes that serde_json adds are taken off again.
    if serde_json::to_writer(&mut *out, text).is_ok() {
        out.copy_within(start + 1.., start);
        out.truncate(out.len() - 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn in_pieces(bytes: &[u8], step: usize, encoding: OutputEncoding) -> (String, bool) {
        let mut encoder = Encoder::new(encoding);
        let mut out = String::new();
        for piece in bytes.chunks(step) {
            encoder.push(piece, false, &mut out);
        }
        encoder.push(&[], true, &mut out);
        (out, encoder.invalid_utf8())
    }

    proptest! {
        #[test]
        fn s02_pieces_read_as_the_whole(bytes in prop::collection::vec(any::<u8>(), 0..200), step in 1usize..9) {
            let (text, invalid) = in_pieces(&bytes, step, OutputEncoding::Utf8);
            prop_assert_eq!(&text, &String::from_utf8_lossy(&bytes));
            prop_assert_eq!(invalid, std::str::from_utf8(&bytes).is_err());
            let (text, _) = in_pieces(&bytes, step, OutputEncoding::Base64);
            prop_assert_eq!(&STANDARD.decode(text).unwrap(), &bytes);
            for encoding in [OutputEncoding::Utf8, OutputEncoding::Base64] {
                let mut encoder = Encoder::new(encoding);
                let mut out = b"\"".to_vec();
                for piece in bytes.chunks(step) {
                    encoder.push_json(piece, false, &mut out);
                }
                encoder.push_json(&[], true, &mut out);
                out.push(b'"');
                let read = serde_json::from_slice::<String>(&out).unwrap();
                prop_assert_eq!(read, in_pieces(&bytes, step, encoding).0);
            }
        }

        #[test]
        fn s02_no_character_is_split(text in "\\PC{0,60}", step in 1usize..5) {
            let mut encoder = Encoder::new(OutputEncoding::Utf8);
            let mut all = String::new();
            for piece in text.as_bytes().chunks(step) {
                let mut out = String::new();
                encoder.push(piece, false, &mut out);
                let replaced = out.contains('\u{fffd}') && !text.contains('\u{fffd}');
                prop_assert!(!replaced, "a character was split");
                all.push_str(&out);
            }
            prop_assert_eq!(all, text);
        }

        #[test]
        fn escaped_text_reads_back(text in any::<String>()) {
            let mut out = b"\"".to_vec();
            escape_json(&text, &mut out);
            out.push(b'"');
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
    }
}

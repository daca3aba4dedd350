//! Passwords taken out of what git writes, before anything else sees it (contract G01).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use memchr::memmem::Finder;
use sandcrab_api::git::Credentials;

/// What stands where a secret stood.
const MASK: &[u8] = b"***";

/// Replaces every form in which a secret travels. Works piece by piece, wherever the pieces are cut.
#[derive(Debug, Default)]
pub(super) struct Redactor {
    secrets: Vec<Finder<'static>>,
    longest: usize,
    /// The end of what came: it may be the beginning of a secret.
    held: Vec<u8>,
}

impl Redactor {
    pub(super) fn new(credentials: Option<&Credentials>) -> Self {
        let Some(Credentials { username, password }) = credentials else { return Self::default() };
        // Where there is no password, the user name is the token.
        let secret = if password.is_empty() { username } else { password };
        let mut forms = vec![
            secret.clone().into_bytes(),
            // As in a URL.
            percent_encoded(secret).into_bytes(),
            // As git shows what a host says without naming its encoding: each byte taken for a letter of Latin-1.
            secret.bytes().map(char::from).collect::<String>().into_bytes(),
            // As in the header `Authorization: Basic`.
            STANDARD.encode(format!("{username}:{password}")).into_bytes(),
        ];
        forms.retain(|form| !form.is_empty());
        let longest = forms.iter().map(Vec::len).max().unwrap_or(0);
        Self {
            secrets: forms.iter().map(|form| Finder::new(form).into_owned()).collect(),
            longest,
            held: Vec::new(),
        }
    }

    /// Takes the next piece; what can be told for certain to hold no secret any more goes to `out`.
    pub(super) fn push(&mut self, piece: &[u8], out: &mut Vec<u8>) {
        self.held.extend_from_slice(piece);
        // A secret that begins before this is wholly there.
        let decided = (self.held.len() + 1).saturating_sub(self.longest.max(1));
        let done = self.replace(decided, out);
        self.held.drain(..done);
    }

    /// Nothing more comes.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        self.replace(self.held.len(), out);
        self.held.clear();
    }

    /// Writes what begins before `end`; returns how much of it is done with.
    fn replace(&self, end: usize, out: &mut Vec<u8>) -> usize {
        let mut at = 0;
        while at < end {
            let next = self
                .secrets
                .iter()
                .filter_map(|secret| Some((at + secret.find(&self.held[at..])?, secret.needle().len())))
                .min_by_key(|&(start, length)| (start, std::cmp::Reverse(length)));
            match next {
                Some((start, length)) if start < end => {
                    out.extend_from_slice(&self.held[at..start]);
                    out.extend_from_slice(MASK);
                    at = start + length;
                }
                _ => {
                    out.extend_from_slice(&self.held[at..end]);
                    at = end;
                }
            }
        }
        at
    }

    /// A whole text without its secrets.
    pub(super) fn whole(&self, text: &str) -> String {
        let mut out = Vec::with_capacity(text.len());
        let mut all =
            Self { secrets: self.secrets.clone(), longest: self.longest, held: text.as_bytes().to_vec() };
        all.finish(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }
}

fn percent_encoded(text: &str) -> String {
    use std::fmt::Write as _;
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ok = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn redactor(username: &str, password: &str) -> Redactor {
        Redactor::new(Some(&Credentials { username: username.into(), password: password.into() }))
    }

    #[test]
    fn g01_a_password_in_the_wrong_encoding_is_replaced() {
        assert_eq!(redactor("me", "wörd").whole("wörd wÃ¶rd"), "*** ***");
    }

    #[test]
    fn g01_every_form_of_a_password_is_replaced() {
        let redactor = redactor("me", "p@ss");
        let text = "p@ss p%40ss bWU6cEBzcw== pass p@s";
        assert_eq!(redactor.whole(text), "*** *** *** pass p@s");
        assert_eq!(Redactor::default().whole(text), text);
        // A token given as a user name.
        assert_eq!(self::redactor("token", "").whole("https://token@h"), "https://***@h");
    }

    proptest! {
        #[test]
        fn g01_no_cut_lets_a_password_through(
            parts in prop::collection::vec(prop_oneof![Just("abcab"), Just("a"), Just("ab"), Just("-")], 0..20),
            cuts in prop::collection::vec(1usize..7, 0..60),
        ) {
            let text = parts.concat();
            let mut redactor = redactor("u", "abcab");
            let expected = redactor.whole(&text);
            prop_assert!(!expected.contains("abcab"));
            let (mut rest, mut out) = (text.as_bytes(), Vec::new());
            for cut in cuts {
                let (piece, after) = rest.split_at(cut.min(rest.len()));
                redactor.push(piece, &mut out);
                rest = after;
            }
            redactor.push(rest, &mut out);
            redactor.finish(&mut out);
            prop_assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}

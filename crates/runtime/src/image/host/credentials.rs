//! Tells files that hold secrets from files that do not.

use std::ffi::OsStr;

/// Configuration of programs that keep passwords and tokens in it.
const NAMES: [&str; 11] = [
    ".dockercfg",
    ".git-credentials",
    ".gitconfig",
    ".my.cnf",
    ".netrc",
    ".npmrc",
    ".pgpass",
    ".pypirc",
    "auth.conf",
    "gitconfig",
    "npmrc",
];

/// Whether a file of this name is one that people write passwords into.
pub(super) fn named(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| NAMES.contains(&name))
}

/// Whether the content holds a private key or a URL with a user or password in it.
pub(super) fn held_by(content: &[u8]) -> bool {
    let text = String::from_utf8_lossy(content);
    text.contains("PRIVATE KEY-----") || authorities(&text).any(|authority| authority.contains('@'))
}

/// Whether the text holds a URL with a user or password in it.
pub(super) fn in_url(text: &str) -> bool {
    authorities(text).any(|authority| authority.contains('@'))
}

/// What follows `://`, up to the end of the URL's authority, for every URL in the text.
pub(super) fn authorities(text: &str) -> impl Iterator<Item = &str> {
    text.split("://").skip(1).map(|rest| {
        let end = rest.find(|c: char| c.is_whitespace() || "/?#\"'<>()[]{}|\\,;".contains(c));
        &rest[..end.unwrap_or(rest.len())]
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_with_a_password_are_found_wherever_they_stand() {
        for text in [
            "deb https://user:secret@repo.example/debian stable main",
            "export http_proxy=\"http://u:p@10.0.0.1:3128\"",
            "// Acquire::http::Proxy \"http://token@proxy/\";",
            "a http://plain.example/ b ftp://x:y@z",
            "-----BEGIN RSA PRIVATE KEY-----",
        ] {
            assert!(held_by(text.as_bytes()), "{text}");
        }
        for text in [
            "deb http://deb.debian.org/debian bookworm main",
            "mail root@example.org, see https://example.org/@user",
            "https://example.org?to=a@b",
            "-----BEGIN CERTIFICATE-----",
        ] {
            assert!(!held_by(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn files_of_passwords_are_known_by_name() {
        assert!(named(OsStr::new("npmrc")) && named(OsStr::new(".netrc")));
        assert!(!named(OsStr::new("npm")) && !named(OsStr::new("netrc.5.gz")));
    }
}

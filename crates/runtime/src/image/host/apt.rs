//! apt's configuration without what only the host's owner may know: proxies, passwords, private repositories.

use std::collections::BTreeSet;

use super::credentials::{authorities, in_url};

/// Deeper nesting than any real configuration has.
const MAX_DEPTH: usize = 32;

/// The hosts that `auth.conf` holds a login for. A repository there is of no use without it, and one that answers 401
/// makes every `apt-get update` fail.
pub(super) fn hosts_with_login(auth: &str) -> BTreeSet<String> {
    let mut words = auth.split_whitespace();
    let mut hosts = BTreeSet::new();
    while let Some(word) = words.next() {
        if word == "machine"
            && let Some(machine) = words.next()
        {
            let machine = machine.split_once("://").map_or(machine, |(_, rest)| rest);
            hosts.insert(machine.split(['/', ':']).next().unwrap_or(machine).to_ascii_lowercase());
        }
    }
    hosts
}

/// A one-line-style `sources.list`, without comments and without entries that need a login.
pub(super) fn clean_list(text: &str, with_login: &BTreeSet<String>) -> String {
    text.lines()
        .filter(|line| !line.trim_start().starts_with('#') && !needs_login(line, with_login))
        .map(|line| format!("{line}\n"))
        .collect()
}

/// A deb822-style `.sources` file, without comments and without stanzas that need a login.
pub(super) fn clean_sources(text: &str, with_login: &BTreeSet<String>) -> String {
    let mut stanzas = vec![String::new()];
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if line.trim().is_empty() {
            stanzas.push(String::new());
        } else if let Some(stanza) = stanzas.last_mut() {
            stanza.push_str(line);
            stanza.push('\n');
        }
    }
    stanzas.retain(|stanza| !stanza.is_empty() && !needs_login(stanza, with_login));
    stanzas.join("\n")
}

fn needs_login(text: &str, with_login: &BTreeSet<String>) -> bool {
    let host = |authority: &str| authority.split(':').next().unwrap_or_default().to_ascii_lowercase();
    in_url(text) || authorities(text).any(|authority| with_login.contains(&host(authority)))
}

/// An `apt.conf` written out flat, as `apt-config dump` does, without comments, proxies and secrets.
///
/// None if it is not understood: what cannot be read cannot be cleaned.
pub(super) fn clean_conf(text: &str) -> Option<String> {
    let tokens = tokens(text)?;
    let mut lines = String::new();
    let mut rest = tokens.as_slice();
    statements(&mut rest, "", 0, &mut lines)?;
    rest.is_empty().then_some(lines)
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Open,
    Close,
    End,
    /// A word; true if it was quoted.
    Word(String, bool),
}

/// Statements up to a closing brace or the end, each as a line of the whole key and the value.
fn statements(rest: &mut &[Token], prefix: &str, depth: usize, lines: &mut String) -> Option<()> {
    if depth > MAX_DEPTH {
        return None;
    }
    while let Some(token) = rest.first() {
        match token {
            Token::Close => return Some(()),
            Token::End => *rest = &rest[1..],
            Token::Open => return None,
            Token::Word(..) => {
                let count = rest.iter().take_while(|token| matches!(token, Token::Word(..))).count();
                let (words, after) = rest.split_at(count);
                *rest = after;
                let (key, values) = match words {
                    // A value without a key is one more element of the list that the block names.
                    [Token::Word(_, true), ..] => (format!("{prefix}::"), words),
                    [Token::Word(name, false), values @ ..] if prefix.is_empty() => (name.clone(), values),
                    [Token::Word(name, false), values @ ..] => (format!("{prefix}::{name}"), values),
                    _ => return None,
                };
                match rest.first()? {
                    Token::End => statement(&key, values, lines),
                    Token::Open => {
                        if !values.is_empty() {
                            statement(&key, values, lines);
                        }
                        *rest = &rest[1..];
                        statements(rest, &key, depth + 1, lines)?;
                        match rest.first()? {
                            Token::Close => *rest = &rest[1..],
                            _ => return None,
                        }
                    }
                    // The last statement of a block may lack its semicolon.
                    Token::Close => statement(&key, values, lines),
                    Token::Word(..) => return None,
                }
            }
        }
    }
    (depth == 0).then_some(())
}

fn statement(key: &str, values: &[Token], lines: &mut String) {
    let lower = key.to_ascii_lowercase();
    let private = ["proxy", "password", "secret", "token", "netrc"].iter().any(|word| lower.contains(word));
    let value: Vec<&str> = values
        .iter()
        .filter_map(|token| if let Token::Word(word, _) = token { Some(word.as_str()) } else { None })
        .collect();
    let value = value.join(" ");
    if private || in_url(&value) {
        return;
    }
    lines.push_str(&format!("{key} \"{value}\";\n"));
}

/// Splits into tokens; none at an unfinished string or comment.
fn tokens(text: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        rest = match first {
            '{' | '}' | ';' => {
                tokens.push(match first {
                    '{' => Token::Open,
                    '}' => Token::Close,
                    _ => Token::End,
                });
                &rest[1..]
            }
            // Comments, and `#clear` and `#include`, which act on what is not carried over.
            '#' => rest.split_once('\n').map_or("", |(_, after)| after),
            '/' if rest.starts_with("//") => rest.split_once('\n').map_or("", |(_, after)| after),
            '/' if rest.starts_with("/*") => rest.split_once("*/")?.1,
            '"' => {
                let (word, after) = rest[1..].split_once('"')?;
                tokens.push(Token::Word(word.to_owned(), true));
                after
            }
            _ => {
                let end = rest.find(|c: char| c.is_whitespace() || "{};\"".contains(c)).unwrap_or(rest.len());
                tokens.push(Token::Word(rest[..end].to_owned(), false));
                &rest[end..]
            }
        }
        .trim_start();
    }
    Some(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_and_passwords_go_and_the_rest_stays() {
        let conf = r#"
            // Acquire::http::Proxy "http://old:secret@proxy/";
            # a comment with secret
            Acquire { Retries "3"; http { Proxy "http://user:secret@proxy:3128/"; Timeout "9"; }; };
            Acquire::https::Proxy::repo.example "DIRECT";
            Acquire::http::Proxy-Auto-Detect "/root/bin/secret";
            DPkg::Post-Invoke { "rm -f /var/cache/apt/*.bin || true"; "echo two"; };
            /* Dir::Etc::netrc "secret"; */
            Mirror::Url "https://user:secret@mirror/";
            APT::Install-Recommends false;
            APT { NeverAutoRemove { "^linux-.*" } }
            Acquire::IndexTargets { deb::DEP-11 { KeepCompressed "true"; }; };
        "#;
        let cleaned = clean_conf(conf).unwrap();
        assert!(!cleaned.contains("secret") && !cleaned.to_lowercase().contains("proxy"), "{cleaned}");
        assert_eq!(
            cleaned.lines().collect::<Vec<_>>(),
            [
                r#"Acquire::Retries "3";"#,
                r#"Acquire::http::Timeout "9";"#,
                r#"DPkg::Post-Invoke:: "rm -f /var/cache/apt/*.bin || true";"#,
                r#"DPkg::Post-Invoke:: "echo two";"#,
                r#"APT::Install-Recommends "false";"#,
                r#"APT::NeverAutoRemove:: "^linux-.*";"#,
                r#"Acquire::IndexTargets::deb::DEP-11::KeepCompressed "true";"#,
            ]
        );
    }

    #[test]
    fn a_configuration_that_is_not_understood_is_refused() {
        for conf in ["A { B \"1\";", "A \"unfinished;", "/* open", "};", "{ a; }", "A B"] {
            assert_eq!(clean_conf(conf), None, "{conf}");
        }
        assert_eq!(clean_conf(&"A {".repeat(10_000)), None);
        assert_eq!(clean_conf("").unwrap(), "");
    }

    #[test]
    fn repositories_that_need_a_login_are_left_out() {
        let with_login = hosts_with_login(
            "machine private.example/debian login me password secret\nmachine https://tls.example login a\npassword b",
        );
        assert_eq!(with_login.iter().collect::<Vec<_>>(), ["private.example", "tls.example"]);
        let list = "# deb http://u:secret@x y z\ndeb http://deb.debian.org/debian bookworm main\n\
                    deb https://u:secret@repo.example/ stable main\ndeb [signed-by=/k] https://Private.example/debian s m\n";
        assert_eq!(clean_list(list, &with_login), "deb http://deb.debian.org/debian bookworm main\n");
        let sources = "Types: deb\n# http://u:secret@x\nURIs: http://deb.debian.org/debian\nSuites: bookworm\n\n\n\
                       Types: deb\nURIs: https://token@repo.example/\nSuites: s\n\n\
                       Types: deb\nURIs: https://tls.example:8443/x\nSuites: s\n";
        assert_eq!(
            clean_sources(sources, &with_login),
            "Types: deb\nURIs: http://deb.debian.org/debian\nSuites: bookworm\n"
        );
    }
}

//! URLs of repositories: only what git, curl and ssh all read in the same way passes (attack B08).

use crate::error::{ApiError, ErrorCode};
use crate::limits;
use std::fmt;

/// How a repository is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheme {
    Http,
    Https,
    Git,
    Ssh,
}

/// A repository's URL, without a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitUrl {
    text: String,
    scheme: Scheme,
    /// `scheme://host[:port]` for http and https.
    origin: String,
    name: String,
}

/// Who to be for a repository's host. Its `Debug` form shows nothing of it.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// User name.
    pub username: String,
    /// Password or token; empty where only a name was given.
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

impl GitUrl {
    /// Reads a URL, or ssh's short form `user@host:path`. User name and password of an http(s) URL come apart from it.
    ///
    /// # Errors
    /// `INVALID_GIT_URL`, whose message does not quote the URL: it may hold a password.
    pub fn parse(text: &str) -> Result<(Self, Option<Credentials>), ApiError> {
        if text.is_empty() || text.len() > limits::MAX_GIT_URL_BYTES {
            return Err(invalid(format!("must have 1 to {} bytes", limits::MAX_GIT_URL_BYTES)));
        }
        if text.contains(|c: char| c.is_control() || c.is_whitespace() || "\\\"'<>`^{|}".contains(c)) {
            return Err(invalid("must not hold blanks, control characters, quotes or any of \\<>`^{|}"));
        }
        match text.split_once("://") {
            Some((scheme, rest)) => Self::from_parts(scheme, rest),
            None => Self::from_short(text),
        }
    }

    fn from_parts(scheme: &str, rest: &str) -> Result<(Self, Option<Credentials>), ApiError> {
        let scheme = match scheme {
            "https" => Scheme::Https,
            "http" => Scheme::Http,
            "git" => Scheme::Git,
            "ssh" => Scheme::Ssh,
            _ => return Err(invalid("must begin with https://, http://, git:// or ssh://")),
        };
        if rest.contains(['?', '#']) {
            return Err(invalid(
                "must have neither query nor fragment: they are no part of a repository's URL",
            ));
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (userinfo, host) = match authority.rsplit_once('@') {
            Some((userinfo, host)) => (Some(userinfo), host),
            None => (None, authority),
        };
        if userinfo.is_some_and(|info| info.contains('@')) {
            return Err(invalid("must write an @ in a user name or password as %40"));
        }
        check_host(host)?;
        let path = format!("/{path}");
        let decoded = decode(&path).ok_or_else(|| invalid("has a broken percent escape in its path"))?;
        check_path(&decoded)?;
        let (user, credentials) = match (scheme, userinfo) {
            (_, None) => (String::new(), None),
            (Scheme::Http | Scheme::Https, Some(info)) => (String::new(), credentials(info)?),
            (Scheme::Ssh, Some(user)) if is_ssh_user(user) => (format!("{user}@"), None),
            (Scheme::Ssh, Some(_)) => {
                return Err(invalid(
                    "must have a plain user name and no password: ssh takes the sandbox's own keys",
                ));
            }
            (Scheme::Git, Some(_)) => {
                return Err(invalid("must have no user name: the git protocol knows none"));
            }
        };
        let word = scheme.word();
        let url = Self {
            text: format!("{word}://{user}{host}{path}"),
            scheme,
            origin: format!("{word}://{host}"),
            name: name_of(&path),
        };
        Ok((url, credentials))
    }

    /// `[user@]host:path`.
    fn from_short(text: &str) -> Result<(Self, Option<Credentials>), ApiError> {
        let form = || invalid("must be an https, http, git or ssh URL, or user@host:path");
        let (authority, path) = text.split_once(':').ok_or_else(form)?;
        let (user, host) = match authority.split_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        // `ext::…` and its like are no host and path but programs to run.
        if path.is_empty() || path.starts_with(':') || authority.contains(['/', '[', ':']) {
            return Err(form());
        }
        if !user.is_none_or(is_ssh_user) {
            return Err(invalid("must have a plain user name before the @"));
        }
        check_host(host)?;
        check_path(path.as_bytes())?;
        let (scheme, name) = (Scheme::Ssh, name_of(path));
        Ok((Self { text: text.to_owned(), scheme, origin: String::new(), name }, None))
    }

    /// The URL, without a user name and password where they are secret.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is one that takes a user name and password.
    pub fn is_http(&self) -> bool {
        matches!(self.scheme, Scheme::Http | Scheme::Https)
    }

    /// `scheme://host[:port]`: what credentials are for. Empty for ssh's short form.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// What a working tree is called by default: the last name of the path, without `.git`.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Scheme {
    fn word(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
            Self::Git => "git",
            Self::Ssh => "ssh",
        }
    }
}

fn invalid(fault: impl fmt::Display) -> ApiError {
    let message = fault.to_string();
    let fields = serde_json::json!([{ "field": "repoUrl", "message": message }]);
    ApiError::new(ErrorCode::InvalidGitUrl, format!("repoUrl: {message}")).with("validationErrors", fields)
}

/// A name or address with an optional port. A host that begins with `-` would be an option to ssh.
fn check_host(host: &str) -> Result<(), ApiError> {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => {
            let (address, after) = rest.split_once(']').unwrap_or(("", rest));
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return Err(invalid("has no IPv6 address between its brackets"));
            }
            ("v6", after.strip_prefix(':').or((!after.is_empty()).then_some("none")))
        }
        None => match host.split_once(':') {
            Some((name, port)) => (name, Some(port)),
            None => (host, None),
        },
    };
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    if name.is_empty() || name.len() > 253 || !plain || name.starts_with(['-', '.']) {
        return Err(invalid(
            "must name a host by letters, digits, '.', '-' and '_'; others in their xn-- form",
        ));
    }
    match port {
        Some(port)
            if !matches!(port.parse::<u16>(), Ok(1..)) || !port.bytes().all(|b| b.is_ascii_digit()) =>
        {
            Err(invalid("has a port that is no number from 1 to 65535"))
        }
        _ => Ok(()),
    }
}

/// A path that names something and that no line of a protocol breaks off at.
fn check_path(path: &[u8]) -> Result<(), ApiError> {
    if path.iter().any(u8::is_ascii_control) {
        return Err(invalid("must not hold escaped control characters"));
    }
    if path.starts_with(b"-") || path.iter().all(|&byte| byte == b'/') {
        return Err(invalid("must name a repository"));
    }
    Ok(())
}

fn is_ssh_user(user: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    !user.is_empty() && user.len() <= 255 && user.bytes().all(plain) && !user.starts_with('-')
}

/// `user[:password]`; none if both are empty.
fn credentials(userinfo: &str) -> Result<Option<Credentials>, ApiError> {
    let (username, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
    let text = |part: &str| {
        let text = decode(part).and_then(|bytes| String::from_utf8(bytes).ok());
        text.filter(|text| !text.contains(char::is_control))
            .ok_or_else(|| invalid("has a user name or password that is no escaped text of one line"))
    };
    let found = Credentials { username: text(username)?, password: text(password)? };
    Ok((!found.username.is_empty() || !found.password.is_empty()).then_some(found))
}

fn name_of(path: &str) -> String {
    let last = path.trim_end_matches('/').rsplit(['/', ':']).next().unwrap_or_default();
    let name = last.strip_suffix(".git").unwrap_or(last);
    if matches!(name, "" | "." | "..") { "repository".to_owned() } else { name.to_owned() }
}

/// Percent-decoding; none if an escape is broken.
fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16);
                u8::try_from(digit()? << 4 | digit()?).ok()?
            }
            byte => byte,
        });
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b08_only_urls_that_everybody_reads_alike_pass() {
        for bad in [
            "",
            "repo",
            "/srv/git/repo.git",
            "./repo",
            "-uhttps://h/r",
            "--upload-pack=touch /tmp/evil",
            "file:///etc",
            "ext::sh -c 'touch /tmp/evil'",
            "ext::sh",
            "fd::17/repo",
            "ftp://h/r",
            "HTTPS://h/r",
            "https:///r",
            "https://h",
            "https://h/",
            "https://h//",
            "https://-oProxyCommand=x/r",
            "ssh://-oProxyCommand=touch%20x/r",
            "-oProxyCommand=x:r",
            "git@-oProxyCommand=x:r",
            "git@h:-x",
            "-g@h:r",
            "ssh://git:pw@h/r",
            "ssh://-l@h/r",
            "git://u@h/r",
            "https://h/a b",
            "https://h/a\nb",
            "https://h/a%0ahost=evil",
            "https://h/a%00",
            "https://h/a%zz",
            "https://a@b@h/r",
            "https://good\\@evil/r",
            "https://h:0/r",
            "https://h:99999/r",
            "https://h:+80/r",
            "https://h:80:80/r",
            "https://[::1/r",
            "https://[evil]/r",
            "https://u:a%0Ab@h/r",
            "https://ünï.example/r",
            "https://h/r?x=1",
            "https://h/r#main",
            "https://h/$(id)`id`",
            "c:",
            ":r",
        ] {
            let error = GitUrl::parse(bad).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidGitUrl, "{bad}");
            assert_eq!(error.context["validationErrors"][0]["field"], "repoUrl");
        }
    }

    #[test]
    fn b08_good_urls_pass_as_they_are() {
        for (url, name) in [
            ("https://github.com/user/repo.git", "repo"),
            ("https://github.com/user/repo", "repo"),
            ("https://github.com/user/repo/", "repo"),
            ("http://127.0.0.1:8080/a/b/c.git/", "c"),
            ("https://[::1]:8443/r.git", "r"),
            ("git://localhost/~me/r", "r"),
            ("ssh://git@example.com:2222/srv/r.git", "r"),
            ("git@github.com:user/repo.git", "repo"),
            ("host:repo", "repo"),
            ("https://h/ünï", "ünï"),
            ("https://h/.git", "repository"),
            ("https://h/a/..", "repository"),
            ("https://h/a%20b", "a%20b"),
            ("https://h/$HOME;id", "$HOME;id"),
        ] {
            let (parsed, credentials) = GitUrl::parse(url).unwrap();
            assert_eq!((parsed.as_str(), parsed.name()), (url, name));
            assert_eq!(credentials, None);
        }
    }

    #[test]
    fn g01_credentials_come_out_of_the_url_and_are_never_quoted() {
        let (url, found) = GitUrl::parse("https://me:p%40ss%3Aw@example.com:8443/r.git").unwrap();
        assert_eq!(url.as_str(), "https://example.com:8443/r.git");
        assert_eq!(url.origin(), "https://example.com:8443");
        let found = found.unwrap();
        assert_eq!((&*found.username, &*found.password), ("me", "p@ss:w"));
        let (url, found) = GitUrl::parse("http://token@h/r").unwrap();
        assert_eq!((url.as_str(), found.unwrap().username.as_str()), ("http://h/r", "token"));
        assert_eq!(GitUrl::parse("https://:@h/r").unwrap().1, None);
        for bad in [
            "https://me:hidden@-h/r",
            "https://me:hidden@x@h/r",
            "ssh://me:hidden@h/r",
            "https://me:hidden@h",
        ] {
            let error = GitUrl::parse(bad).unwrap_err();
            assert!(!serde_json::to_string(&error).unwrap().contains("hidden"), "{bad}");
        }
    }
}

//! Exposed ports: which port of which sandbox can be reached under which name.
//!
//! A preview's host is `{port}-{id}-{token}` and a domain. The token has no hyphen, so the label is split at its first
//! and its last one.

use crate::error::{ApiError, ErrorCode};
use crate::ids::SandboxId;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use utoipa::ToSchema;

/// The lowest port that can be exposed: those below are the system's (RFC 6335, section 6).
pub const MIN_PORT: u16 = 1024;
/// Characters of a token that is made up: 16 of 37 are 83 bits.
pub const TOKEN_LENGTH: usize = 16;
/// What a token is made of.
pub const TOKEN_CHARACTERS: &[u8; 37] = b"abcdefghijklmnopqrstuvwxyz0123456789_";
/// The longest label of a host name (RFC 1035, section 2.3.4).
pub const MAX_LABEL: usize = 63;
/// The longest name of an exposed port, in bytes.
pub const MAX_PORT_NAME_BYTES: usize = 128;
/// Ports that one sandbox may have exposed.
pub const MAX_EXPOSED_PORTS: usize = 64;

/// Which port to expose, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExposePort {
    /// The port, 1024 to 65535.
    #[schema(value_type = u16, minimum = 1024, maximum = 65535)]
    pub port: i64,
    /// The domain of the URL, with its port where it is not the usual one. Default: the server's preview domain, or the
    /// name by which it was called if that is `localhost`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 259, pattern = r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?$")]
    pub hostname: Option<String>,
    /// A label for people; it has no effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 128, pattern = r"^[^\u0000-\u001f\u007f-\u009f]*$")]
    pub name: Option<String>,
    /// 1-16 characters of `a-z 0-9 _`, used as they are. It is all that keeps strangers out: who tries many is slowed
    /// down, but a short one is guessed in a few tries. No other port of the sandbox may have it. Random characters are
    /// appended only where another account has the same id, port and token. Default: 16 random characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 16, pattern = "^[a-z0-9_]*$")]
    pub token: Option<String>,
    /// What to do if the port is exposed already. False, which is the default: refuse. True: it keeps its URL and gets
    /// the `name` that is given; with another `token` it gets a new URL, and the old one is dead at once.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replace: bool,
}

/// A port that is exposed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExposedPort {
    /// The port.
    pub port: u16,
    /// Where it can be reached, by everyone who knows this.
    pub url: String,
    /// The secret in `url`.
    pub token: String,
    /// The label given when it was exposed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether the URL is in force.
    pub status: PortStatus,
    /// When it was exposed.
    pub created_at: Timestamp,
}

/// How an exposed port stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PortStatus {
    /// Requests to its URL reach the sandbox, which is started for them where needed.
    Active,
}

/// The exposed ports of a sandbox, by number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExposedPorts {
    /// The ports.
    pub ports: Vec<ExposedPort>,
}

/// The answer to taking a port back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PortUnexposed {
    /// Always true: failures are errors.
    pub success: bool,
    /// The port.
    pub port: u16,
    /// When it was done.
    pub timestamp: Timestamp,
}

/// A token to compare.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ValidatePortToken {
    /// What came in a URL.
    pub token: String,
}

/// Whether a token is a port's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PortTokenValidity {
    /// True only if the port is exposed and has this token.
    pub valid: bool,
}

/// The first label of a preview's host, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PreviewLabel<'a> {
    /// The port.
    pub port: u16,
    /// The sandbox's id, as far as its form goes.
    pub id: &'a str,
    /// The secret.
    pub token: &'a str,
}

impl<'a> PreviewLabel<'a> {
    /// Reads `{port}-{id}-{token}` in lower case; none if it has another form. The secret may be any text without a
    /// hyphen: whether it is right shows when it is compared.
    pub fn parse(label: &'a str) -> Option<Self> {
        let (port, rest) = label.split_once('-')?;
        let (id, token) = rest.rsplit_once('-')?;
        // In one form only: 08080 would be another origin for the same port.
        let canonical = !port.starts_with('0') && port.bytes().all(|byte| byte.is_ascii_digit());
        let port = port.parse().ok().filter(|port| canonical && *port >= MIN_PORT)?;
        (is_label(id) && !token.is_empty()).then_some(Self { port, id, token })
    }
}

impl std::fmt::Display for PreviewLabel<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}-{}", self.port, self.id, self.token)
    }
}

/// Whether an id can be a part of a host's label without being taken for another one.
fn is_label(id: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !id.is_empty() && id.bytes().all(inner) && !id.starts_with('-') && !id.ends_with('-')
}

/// What was given as a port is none that can be used. The message begins as programs look for it.
pub fn invalid_port(port: serde_json::Value, reason: &str) -> ApiError {
    ApiError::new(ErrorCode::InvalidPortNumber, format!("Invalid port number: {port} {reason}"))
        .with("port", port)
        .with("reason", reason)
}

/// A port that can be exposed.
pub fn port(port: i64) -> Result<u16, ApiError> {
    u16::try_from(port).ok().filter(|port| *port >= MIN_PORT).ok_or_else(|| {
        invalid_port(
            port.into(),
            &format!("must be an integer from {MIN_PORT} to 65535; the lower ones are reserved"),
        )
    })
}

/// A name that a list can show.
pub fn name(name: Option<&str>) -> Result<(), ApiError> {
    match name {
        Some(name) if name.len() > MAX_PORT_NAME_BYTES || name.chars().any(char::is_control) => {
            let rule = format!("has at most {MAX_PORT_NAME_BYTES} bytes and no control characters");
            Err(ApiError::invalid("name", rule))
        }
        _ => Ok(()),
    }
}

/// A token that a caller may choose.
pub fn token(token: &str) -> Result<(), ApiError> {
    let fits = (1..=TOKEN_LENGTH).contains(&token.len())
        && token.bytes().all(|byte| TOKEN_CHARACTERS.contains(&byte));
    if fits { Ok(()) } else { Err(ApiError::invalid("token", "has 1 to 16 characters of a-z, 0-9 and _")) }
}

/// Checks that a sandbox's id can stand in a host name beside a port and a token of full length.
pub fn previewable(id: &SandboxId, port: u16) -> Result<(), ApiError> {
    let text = id.as_str();
    if !is_label(text) {
        let rule = "can have no preview: only ids of a-z, 0-9 and - can stand in a host name";
        return Err(ApiError::invalid("id", format!("{text:?} {rule}"))
            .suggest("Use another id, or getSandbox's normalizeId if only the case is at fault."));
    }
    let length = port.to_string().len() + text.len() + TOKEN_LENGTH + 2;
    if length > MAX_LABEL {
        let longest = MAX_LABEL - (length - text.len());
        let rule = format!("{text:?} is too long for a preview of port {port}: at most {longest} characters");
        return Err(ApiError::invalid("id", rule));
    }
    Ok(())
}

/// The domain that previews hang below, with the scheme that it is reached by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PreviewDomain {
    scheme: &'static str,
    /// Lower case, with a port where one was given.
    host: String,
}

impl PreviewDomain {
    /// Reads `NAME[:PORT]`. Names of this machine (`localhost`, names below it, loopback addresses, which become
    /// `localhost`) are reached by http, all others by https.
    ///
    /// # Errors
    /// `VALIDATION_FAILED` that names `hostname`; `CUSTOM_DOMAIN_REQUIRED` for names below which nobody can have a
    /// wildcard: addresses and shared domains.
    pub fn parse(text: &str) -> Result<Self, ApiError> {
        let invalid = || ApiError::invalid("hostname", "must be NAME or NAME:PORT");
        let lower = text.to_ascii_lowercase();
        let (name, port) = match lower.rsplit_once(':') {
            Some((name, port)) if !port.contains(']') && (!name.contains(':') || name.starts_with('[')) => {
                (name, Some(port))
            }
            _ => (lower.as_str(), None),
        };
        let port = match port {
            Some(port) if port.len() > 5 || !port.bytes().all(|byte| byte.is_ascii_digit()) => {
                return Err(invalid());
            }
            Some(port) => Some(port.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(invalid)?),
            None => None,
        };
        let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
        let address = bare.parse::<IpAddr>().ok();
        let name = match address {
            Some(address) if address.is_loopback() || address.is_unspecified() => "localhost",
            Some(_) => return Err(domain_required(text, "an address has no names below it")),
            None => name.trim_end_matches('.'),
        };
        if !is_domain(name) {
            return Err(invalid());
        }
        if name == "workers.dev" || name.ends_with(".workers.dev") {
            return Err(domain_required(text, "it has no wildcard below it"));
        }
        let is_local = name == "localhost" || name.ends_with(".localhost");
        let scheme = if is_local { "http" } else { "https" };
        let usual = if is_local { 80 } else { 443 };
        let host = match port.filter(|port| *port != usual) {
            Some(port) => format!("{name}:{port}"),
            None => name.to_owned(),
        };
        Ok(Self { scheme, host })
    }

    /// The domain's name, without its port.
    pub fn name(&self) -> &str {
        self.host.split(':').next().unwrap_or_default()
    }

    /// Whether it is one of this machine's own names.
    pub fn is_local(&self) -> bool {
        self.scheme == "http"
    }

    /// The URL of a preview below this domain.
    pub fn url(&self, label: &PreviewLabel<'_>) -> String {
        format!("{}://{label}.{}/", self.scheme, self.host)
    }
}

fn is_domain(name: &str) -> bool {
    let label = |label: &str| {
        (1..=MAX_LABEL).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    // With the preview's own label and its dot, a name has at most 253 characters.
    name.len() + MAX_LABEL < 253 && name.split('.').all(label)
}

/// Previews need a domain that this one is not.
pub fn domain_required(hostname: &str, why: &str) -> ApiError {
    ApiError::new(ErrorCode::CustomDomainRequired, format!("{hostname:?} cannot carry previews: {why}"))
        .with("hostname", hostname)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c02_a_label_is_split_at_its_first_and_last_hyphen() {
        let label = PreviewLabel::parse("8080-my-own-box-abc_9").unwrap();
        assert_eq!(label, PreviewLabel { port: 8080, id: "my-own-box", token: "abc_9" });
        assert_eq!(label.to_string(), "8080-my-own-box-abc_9");
        for bad in [
            "",
            "8080",
            "8080-a",
            "8080--t",
            "8080-a-",
            "x-a-t",
            "80-a-t",
            "08080-a-t",
            "+8080-a-t",
            "65536-a-t",
            "8080-A-t",
            "8080-a.b-t",
            "8080--a-t",
            "8080-a--t",
            "8080-ä-t",
        ] {
            assert_eq!(PreviewLabel::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn only_ids_that_fit_a_host_name_have_previews() {
        let check = |id: &str, port| previewable(&SandboxId::parse(id).unwrap(), port);
        assert!(check("user-123", 65535).is_ok());
        assert!(check(&"a".repeat(63 - 18 - 4), 3000).is_ok());
        for (id, port) in
            [("User", 3000), ("a.b", 3000), ("a_b", 3000), (&"a".repeat(63 - 18 - 3) as &str, 3000)]
        {
            let error = check(id, port).unwrap_err();
            assert_eq!(error.context["validationErrors"][0]["field"], "id", "{id}");
        }
    }

    #[test]
    fn x02_ports_and_tokens_keep_their_rules() {
        assert!((1024..=1030).chain([3000, 65535]).all(|number| port(number).is_ok()));
        for bad in [0, -1, 80, 1023, 65536, i64::MAX] {
            let error = port(bad).unwrap_err();
            assert_eq!(
                (error.code, error.context["port"].as_i64()),
                (ErrorCode::InvalidPortNumber, Some(bad))
            );
        }
        assert!(["a", "abc_9", "0123456789abcdef"].into_iter().all(|text| token(text).is_ok()));
        assert!(
            ["", "A", "a-b", "0123456789abcdefg", "ä", "a b"].into_iter().all(|text| token(text).is_err())
        );
    }

    #[test]
    fn a_domain_gives_the_url() {
        let label = PreviewLabel { port: 3000, id: "a", token: "t" };
        for (hostname, url) in [
            ("localhost:8787", "http://3000-a-t.localhost:8787/"),
            ("LOCALHOST", "http://3000-a-t.localhost/"),
            ("localhost:80", "http://3000-a-t.localhost/"),
            ("127.0.0.1:8787", "http://3000-a-t.localhost:8787/"),
            ("[::1]:8787", "http://3000-a-t.localhost:8787/"),
            ("::1", "http://3000-a-t.localhost/"),
            ("dev.localhost:1", "http://3000-a-t.dev.localhost:1/"),
            ("Preview.Example.com", "https://3000-a-t.preview.example.com/"),
            ("example.com.", "https://3000-a-t.example.com/"),
            ("example.com:8443", "https://3000-a-t.example.com:8443/"),
            ("example.com:443", "https://3000-a-t.example.com/"),
        ] {
            assert_eq!(PreviewDomain::parse(hostname).unwrap().url(&label), url, "{hostname}");
        }
        for bad in
            ["", "a b", "http://a", "a/b", "user@a", "a:0", "a:x", "a:99999", "a..b", "é", ":80", "a?b"]
        {
            let error = PreviewDomain::parse(bad).unwrap_err();
            assert_eq!(error.code, ErrorCode::ValidationFailed, "{bad}");
        }
        for bad in ["192.0.2.1", "[2001:db8::1]:80", "x.workers.dev"] {
            assert_eq!(PreviewDomain::parse(bad).unwrap_err().code, ErrorCode::CustomDomainRequired, "{bad}");
        }
    }
}

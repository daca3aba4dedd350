//! By which names the server may be called (attack C06): a page that makes its own name point to this machine sends
//! that name as `Host`, and is refused.

use http::Uri;
use http::uri::Authority;
use http::{HeaderMap, header};
use sandcrab_api::{ApiError, ErrorCode};
use std::net::IpAddr;

/// Names beside the loopback ones and the address that a connection came to.
#[derive(Debug, Default)]
pub(crate) struct Hosts {
    allowed: Vec<String>,
}

impl Hosts {
    pub(crate) fn new(allowed: &[String]) -> Self {
        Self { allowed: allowed.iter().map(|name| name.trim_end_matches('.').to_ascii_lowercase()).collect() }
    }

    /// Checks the name that a request calls the server by. `local` is the address that its connection came to.
    pub(crate) fn check(&self, uri: &Uri, headers: &HeaderMap, local: IpAddr) -> Result<(), ApiError> {
        let mut named = headers.get_all(header::HOST).iter();
        let (Some(host), None) = (named.next(), named.next()) else {
            return Err(ApiError::invalid("Host", "a request has exactly one Host header").during("route"));
        };
        let host = host.to_str().unwrap_or_default();
        let refused = if !host.parse::<Authority>().is_ok_and(|host| self.allows(&host, local)) {
            host
        } else if let Some(absolute) = uri.authority().filter(|absolute| !self.allows(absolute, local)) {
            absolute.as_str()
        } else {
            return Ok(());
        };
        let refused = refused.escape_default().to_string();
        let text = format!("this server does not answer to the host name {refused:?}");
        Err(ApiError::new(ErrorCode::Forbidden, text)
            .during("route")
            .suggest("Call it by a name that it knows, or start it with --allow-host NAME."))
    }

    fn allows(&self, authority: &Authority, local: IpAddr) -> bool {
        if authority.as_str().contains('@') {
            return false;
        }
        let name = authority.host();
        let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
        if let Ok(address) = bare.parse::<IpAddr>() {
            let address = address.to_canonical();
            return address.is_loopback() || address == local.to_canonical() || self.names(bare);
        }
        let name = name.trim_end_matches('.');
        name.eq_ignore_ascii_case("localhost") || self.names(name)
    }

    fn names(&self, name: &str) -> bool {
        self.allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(host: &str) -> bool {
        let hosts = Hosts::new(&["crab.example".to_owned(), "192.0.2.9".to_owned()]);
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        hosts.check(&Uri::from_static("/health"), &headers, "10.1.2.3".parse().unwrap()).is_ok()
    }

    #[test]
    fn c06_only_names_of_this_server_are_answered_to() {
        for good in [
            "localhost",
            "LocalHost:8787",
            "localhost.",
            "127.0.0.1:1",
            "127.9.9.9",
            "[::1]:80",
            "10.1.2.3:8787",
            "crab.example",
            "Crab.Example.:443",
            "192.0.2.9",
            "[::ffff:10.1.2.3]",
        ] {
            assert!(allows(good), "{good}");
        }
        for bad in [
            "",
            "evil.example",
            "localhost.evil.example",
            "10.1.2.4",
            "user@localhost",
            "[::2]",
            "crab.example.evil",
            "0.0.0.0",
            "localhost/../evil",
            "127.0.0.1.evil.example",
        ] {
            assert!(!allows(bad), "{bad}");
        }
    }

    #[test]
    fn c07_absolute_uris_and_doubled_hosts_are_held_to_the_same_names() {
        let hosts = Hosts::default();
        let local = "127.0.0.1".parse().unwrap();
        let mut headers = HeaderMap::new();
        assert_eq!(hosts.check(&Uri::from_static("/"), &headers, local).unwrap_err().http_status, 400);
        headers.append(header::HOST, "localhost".parse().unwrap());
        assert!(hosts.check(&Uri::from_static("http://localhost/"), &headers, local).is_ok());
        let foreign = hosts.check(&Uri::from_static("http://evil.example/"), &headers, local);
        let foreign = foreign.unwrap_err();
        assert!(
            foreign.code == ErrorCode::Forbidden && foreign.message.contains("evil.example"),
            "{foreign}"
        );
        headers.append(header::HOST, "localhost".parse().unwrap());
        assert_eq!(hosts.check(&Uri::from_static("/"), &headers, local).unwrap_err().http_status, 400);
    }
}

//! Proxies in front of the server (`--trusted-proxy`): what they say of where a request came from is believed.

use http::HeaderMap;
use http::header::HeaderName;
use std::net::IpAddr;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// A proxy that is none.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("--trusted-proxy {0:?} is not an address or a network: use ADDRESS or ADDRESS/BITS")]
pub struct ProxyError(String);

/// Addresses of proxies.
#[derive(Clone, Debug, Default)]
pub(crate) struct Proxies {
    networks: Vec<(u128, u128)>,
}

impl Proxies {
    pub(crate) fn new(typed: &[String]) -> Result<Self, ProxyError> {
        let networks = typed.iter().map(|text| parse(text).ok_or_else(|| ProxyError(text.clone())));
        Ok(Self { networks: networks.collect::<Result<_, _>>()? })
    }

    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        let bits = bits(address);
        self.networks.iter().any(|(network, mask)| bits & mask == *network)
    }

    /// Whose request it is: the peer's, or the last address that proxies we believe have written down.
    pub(crate) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        if !self.contains(peer) {
            return peer;
        }
        let values = headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok());
        let said: Vec<_> = values.flat_map(|value| value.split(',')).map(str::trim).collect();
        let mut client = peer;
        for text in said.into_iter().rev() {
            // What is no address was written by none of them.
            let Ok(address) = text.parse::<IpAddr>() else { break };
            client = address;
            if !self.contains(address) {
                break;
            }
        }
        client
    }
}

/// An address in the space of IPv6, IPv4 mapped into it.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

fn parse(text: &str) -> Option<(u128, u128)> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length.parse::<u32>().ok()?)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let whole = if address.is_ipv4() { 32 } else { 128 };
    let length = length.unwrap_or(whole);
    if length > whole {
        return None;
    }
    let mask = u128::MAX.checked_shl(whole - length).unwrap_or(0);
    Some((bits(address) & mask, mask))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c02_only_named_proxies_are_believed() {
        let proxies = Proxies::new(&["10.0.0.0/8".into(), "2001:db8::1".into()]).unwrap();
        let client = |peer: &str, said: &[&str]| {
            let mut headers = HeaderMap::new();
            for value in said {
                headers.append(FORWARDED_FOR, value.parse().unwrap());
            }
            proxies.client(peer.parse().unwrap(), &headers).to_string()
        };
        assert_eq!(client("192.0.2.1", &["198.51.100.1"]), "192.0.2.1");
        assert_eq!(client("10.1.2.3", &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(client("::ffff:10.1.2.3", &["198.51.100.1"]), "198.51.100.1");
        assert_eq!(client("2001:db8::1", &["6.6.6.6, 198.51.100.1, 10.9.9.9"]), "198.51.100.1");
        assert_eq!(client("10.1.2.3", &["6.6.6.6", "198.51.100.1"]), "198.51.100.1");
        assert_eq!(client("10.1.2.3", &["198.51.100.1, nonsense"]), "10.1.2.3");
        assert_eq!(client("10.1.2.3", &[]), "10.1.2.3");
        for bad in ["", "10.0.0.0/33", "2001:db8::/129", "example.com", "10.0.0.0/x", "10.0.0.0/-1"] {
            assert_eq!(Proxies::new(&[bad.into()]).unwrap_err(), ProxyError(bad.into()));
        }
        assert!(Proxies::new(&["::/0".into()]).unwrap().contains("192.0.2.1".parse().unwrap()));
        assert!(!Proxies::default().contains("127.0.0.1".parse().unwrap()));
    }
}

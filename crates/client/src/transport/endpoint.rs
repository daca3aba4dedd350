//! One server's address, and the way to a byte stream to it.

use crate::error::{ClientError, ConnectError};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs};

/// A connection's bytes, plain or TLS.
pub(crate) trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A peer that has vanished without a word is noticed after 15 + 3 * 5 seconds of silence.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_PROBES: u32 = 3;

/// Where a server is.
pub(crate) struct Endpoint {
    host: String,
    port: u16,
    /// Host and port as they stand in the `Host` header and in messages.
    pub authority: String,
    /// What stands before `/v1`; empty or beginning with a slash, without one at the end.
    pub prefix: String,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    timeout: Duration,
}

impl Endpoint {
    pub(crate) fn parse(url: &str, ca_file: Option<&Path>, timeout: Duration) -> Result<Self, ClientError> {
        let wrong = |reason| ClientError::Url { url: url.to_owned(), reason };
        let uri: http::Uri = url.parse().map_err(|_| wrong("is no URL"))?;
        let secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong("must begin with http:// or https://")),
        };
        let authority = uri.authority().ok_or_else(|| wrong("names no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("must not hold a user name; the API key has an option of its own"));
        }
        if uri.query().is_some() {
            return Err(wrong("must not have a query"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(wrong("names no host"));
        }
        let tls = match secure {
            true => {
                let name = ServerName::try_from(host.clone())
                    .map_err(|_| wrong("has a host that TLS cannot name"))?;
                Some((connector(authority.as_str(), ca_file)?, name))
            }
            false => None,
        };
        let port = match (uri.port(), secure) {
            (Some(port), _) => port.as_u16(),
            (None, true) => 443,
            (None, false) => 80,
        };
        Ok(Self {
            host,
            port,
            authority: authority.as_str().to_owned(),
            prefix: uri.path().trim_end_matches('/').to_owned(),
            tls,
            timeout,
        })
    }

    /// A new connection.
    pub(crate) async fn connect(&self) -> Result<Box<dyn Io>, ConnectError> {
        tokio::time::timeout(self.timeout, self.dial())
            .await
            .unwrap_or_else(|_| Err(ConnectError::Timeout(self.timeout)))
    }

    async fn dial(&self) -> Result<Box<dyn Io>, ConnectError> {
        let addresses = resolve(&self.host).await?;
        // One address that does not answer must not use up the time of the others.
        let share = self.timeout / u32::try_from(addresses.len()).unwrap_or(1).max(1);
        let mut failure = ConnectError::Timeout(share);
        for address in addresses {
            match tokio::time::timeout(share, TcpStream::connect(SocketAddr::new(address, self.port))).await {
                Ok(Ok(stream)) => return self.secure(tune(stream)?).await,
                Ok(Err(error)) => failure = error.into(),
                Err(_) => failure = ConnectError::Timeout(share),
            }
        }
        Err(failure)
    }

    async fn secure(&self, stream: TcpStream) -> Result<Box<dyn Io>, ConnectError> {
        match &self.tls {
            None => Ok(Box::new(stream)),
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), stream).await.map_err(ConnectError::Tls)?;
                Ok(Box::new(stream))
            }
        }
    }
}

/// Small requests leave at once; a dead peer is noticed.
fn tune(stream: TcpStream) -> std::io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_PROBES);
    socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
    Ok(stream)
}

/// The addresses of a host. A statically linked glibc has no name service of its own, so names are looked up here:
/// `localhost` is known (RFC 6761), the rest is found in /etc/hosts and by the name servers of /etc/resolv.conf.
async fn resolve(host: &str) -> Result<Vec<IpAddr>, ConnectError> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    if host.eq_ignore_ascii_case("localhost") {
        return Ok(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    let failed = |source| ConnectError::Resolve { host: host.to_owned(), source };
    let resolver = hickory_resolver::TokioResolver::builder_tokio()
        .and_then(hickory_resolver::ResolverBuilder::build)
        .map_err(|error| failed(error.into()))?;
    let found = resolver.lookup_ip(host).await.map_err(|error| failed(error.into()))?;
    Ok(found.iter().collect())
}

/// TLS by the certificates of `ca_file`, else by the machine's own (or those that `SSL_CERT_FILE` or `SSL_CERT_DIR` name).
fn connector(authority: &str, ca_file: Option<&Path>) -> Result<TlsConnector, ClientError> {
    let failed = |source| ClientError::Connect { authority: authority.to_owned(), source };
    let found = match ca_file {
        Some(file) => rustls_native_certs::load_certs_from_paths(Some(file), None),
        None => rustls_native_certs::load_native_certs(),
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err(failed(ConnectError::NoCertificates(found.errors.into_iter().next())));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(ConnectError::Tls(std::io::Error::other(error))))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> Result<Endpoint, ClientError> {
        Endpoint::parse(url, None, Duration::from_secs(1))
    }

    #[test]
    fn an_address_is_read_in_its_parts() {
        let endpoint = parse("http://[::1]:8787/base/").unwrap();
        assert_eq!((endpoint.host.as_str(), endpoint.port), ("::1", 8787));
        assert_eq!((endpoint.authority.as_str(), endpoint.prefix.as_str()), ("[::1]:8787", "/base"));
        let endpoint = parse("http://localhost").unwrap();
        assert_eq!((endpoint.port, endpoint.prefix.as_str()), (80, ""));
    }

    #[test]
    fn x02_a_wrong_address_says_what_is_wrong() {
        for (url, part) in [
            ("", "no URL"),
            ("127.0.0.1:8787", "http://"),
            ("ftp://h", "http://"),
            ("/v1", "http://"),
            ("http://user:pw@h", "user name"),
            ("http://h/?q=1", "query"),
        ] {
            let message = parse(url).err().expect(url).to_string();
            assert!(message.contains(part), "{url}: {message}");
        }
    }

    #[tokio::test]
    async fn localhost_is_known_without_a_name_service() {
        let addresses = resolve("LocalHost").await.unwrap();
        assert_eq!(addresses, [IpAddr::from([127, 0, 0, 1]), IpAddr::from(Ipv6Addr::LOCALHOST)]);
    }
}

//! The encrypted listener, with the operator's own certificate.

use crate::options::TlsOptions;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};
use tokio_rustls::server::TlsStream;

/// How long a caller may take over the handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Why there can be no encrypted listener.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// Not an address.
    #[error("--tls-listen {text:?} is not ADDRESS:PORT")]
    Address {
        /// What was typed.
        text: String,
        /// Why not.
        source: std::net::AddrParseError,
    },
    /// A file has no certificate or no key.
    #[error("read PEM from {path:?}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::pki_types::pem::Error,
    },
    /// Certificate and key do not fit together, or are of a kind that is not supported.
    #[error("use the certificate {path:?}")]
    Certificate {
        /// The certificate's file.
        path: PathBuf,
        /// Why not.
        source: rustls::Error,
    },
    /// The address could not be listened on.
    #[error("listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why it failed.
        source: std::io::Error,
    },
}

/// A listener and the certificate that it shows.
pub(crate) struct Tls {
    options: TlsOptions,
    pub(crate) listener: TcpListener,
    pub(crate) address: SocketAddr,
    config: RwLock<Arc<ServerConfig>>,
}

impl Tls {
    pub(crate) async fn listen(options: TlsOptions) -> Result<Arc<Self>, TlsError> {
        let address: SocketAddr = options
            .listen
            .parse()
            .map_err(|source| TlsError::Address { text: options.listen.clone(), source })?;
        let config = RwLock::new(Arc::new(config(&options.cert, &options.key)?));
        let failed = |source| TlsError::Listen { address, source };
        let listener = crate::connection::listen(address).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Arc::new(Self { options, listener, address, config }))
    }

    /// Reads the certificate again: one that was renewed is shown from the next connection on, and one that cannot be
    /// used changes nothing.
    pub(crate) fn reload(&self) -> Result<(), TlsError> {
        let fresh = Arc::new(config(&self.options.cert, &self.options.key)?);
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        Ok(())
    }

    /// Encrypts a connection; none if the caller did not do its part.
    pub(crate) async fn accept(&self, stream: TcpStream) -> Option<TlsStream<TcpStream>> {
        let config = self.config.read().unwrap_or_else(PoisonError::into_inner).clone();
        match tokio::time::timeout(HANDSHAKE, TlsAcceptor::from(config).accept(stream)).await {
            Ok(Ok(stream)) => Some(stream),
            Ok(Err(error)) => {
                tracing::debug!(%error, "a handshake failed");
                None
            }
            Err(_slow) => None,
        }
    }
}

fn config(cert: &Path, key: &Path) -> Result<ServerConfig, TlsError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| TlsError::Pem { path, source }
    };
    let chain = CertificateDer::pem_file_iter(cert)
        .and_then(|chain| chain.collect::<Result<Vec<_>, _>>())
        .map_err(failed(cert))?;
    let key = PrivateKeyDer::from_pem_file(key).map_err(failed(key))?;
    let refused = |source| TlsError::Certificate { path: cert.to_owned(), source };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(refused)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(refused)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

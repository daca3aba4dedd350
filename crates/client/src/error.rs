//! How a call can fail.

use sandcrab_api::ids::IdError;
use sandcrab_api::{ApiError, ErrorCode, ExecId, ProcessId, SandboxId};
use std::path::PathBuf;
use std::time::Duration;

/// Why a call did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The server answered with an error of the API's table.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The server's address cannot be used.
    #[error("server address {url:?}: {reason}")]
    Url {
        /// The address as given.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An id breaks the rule of its kind.
    #[error(transparent)]
    Id(#[from] IdError),
    /// The API key has characters that no HTTP header can carry.
    #[error("the API key holds characters that no HTTP header can carry")]
    ApiKey,
    /// The local server's key could not be read.
    #[error("read the local server's key from {}", path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No connection to the server: nothing was sent.
    #[error("connect to {authority}")]
    Connect {
        /// Host and port.
        authority: String,
        /// Why.
        source: ConnectError,
    },
    /// The connection broke before the whole answer had come. Whether the server did what it was asked is unknown.
    #[error("{operation}: the connection to {authority} was lost")]
    Lost {
        /// The operation, as in [`ApiError::operation`].
        operation: &'static str,
        /// Host and port.
        authority: String,
        /// Why.
        source: hyper::Error,
    },
    /// A command's stream broke off and could not be resumed in [`ClientOptions::reconnect_for`]. The command runs on.
    ///
    /// [`ClientOptions::reconnect_for`]: crate::ClientOptions::reconnect_for
    #[error("the stream of command {exec_id} was lost and could not be resumed within {tried_for:?}")]
    StreamLost {
        /// The command; attach to it again by this id.
        exec_id: ExecId,
        /// How long it was tried.
        tried_for: Duration,
        /// What the last attempt met; none when the server kept ending the stream without an end of the command.
        source: Option<Box<ClientError>>,
    },
    /// A process's log broke off and could not be resumed in [`ClientOptions::reconnect_for`]. The process runs on.
    ///
    /// [`ClientOptions::reconnect_for`]: crate::ClientOptions::reconnect_for
    #[error("the log of process {process_id} was lost and could not be resumed within {tried_for:?}")]
    LogLost {
        /// The process; follow it again by this id.
        process_id: ProcessId,
        /// How long it was tried.
        tried_for: Duration,
        /// What the last attempt met; none when the server kept ending the stream without an end of the process.
        source: Option<Box<ClientError>>,
    },
    /// The connection of a caller who talked with a process broke. What was sent last may not have arrived; the process
    /// runs on, and can be attached to again.
    #[error("the connection to process {process_id} was lost")]
    Detached {
        /// The process.
        process_id: ProcessId,
        /// Why; none when it was closed before the process's end.
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// A sandbox's event log broke off and could not be resumed in [`ClientOptions::reconnect_for`].
    ///
    /// [`ClientOptions::reconnect_for`]: crate::ClientOptions::reconnect_for
    #[error("the events of sandbox {sandbox_id} were lost and could not be resumed within {tried_for:?}")]
    EventsLost {
        /// The sandbox.
        sandbox_id: SandboxId,
        /// How long it was tried.
        tried_for: Duration,
        /// What the last attempt met; none when the server kept ending the stream.
        source: Option<Box<ClientError>>,
    },
    /// No answer in time. Whether the server did what it was asked is unknown.
    #[error("{operation}: no answer from {authority} within {after:?}")]
    Timeout {
        /// The operation.
        operation: &'static str,
        /// Host and port.
        authority: String,
        /// The bound.
        after: Duration,
    },
    /// What answered does not speak this API, or speaks it wrongly.
    #[error("{operation}: {authority} answered with status {status}, {reason}")]
    Unexpected {
        /// The operation.
        operation: &'static str,
        /// Host and port.
        authority: String,
        /// The HTTP status.
        status: u16,
        /// What is wrong with the answer, with its beginning if it is text.
        reason: String,
    },
    /// The answer is larger than any right answer to this call.
    #[error("{operation}: the answer is larger than {limit} bytes")]
    TooLarge {
        /// The operation.
        operation: &'static str,
        /// The bound in bytes.
        limit: usize,
    },
    /// The caller's own reader or writer failed during a transfer.
    #[error("{operation}: the local side of the transfer failed")]
    Local {
        /// The operation.
        operation: &'static str,
        /// Why.
        source: std::io::Error,
    },
}

/// Why no connection came about.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The name has no address.
    #[error("resolve {host:?}")]
    Resolve {
        /// The name.
        host: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The machine refused or was not reached.
    #[error(transparent)]
    Tcp(#[from] std::io::Error),
    /// It took too long.
    #[error("no connection within {0:?}")]
    Timeout(Duration),
    /// There are no CA certificates that could vouch for the server.
    #[error("no CA certificates; install them or name a PEM file in SSL_CERT_FILE")]
    NoCertificates(#[source] Option<rustls_native_certs::Error>),
    /// The TLS handshake failed.
    #[error("TLS handshake")]
    Tls(#[source] std::io::Error),
    /// The other side does not speak HTTP.
    #[error("HTTP handshake")]
    Http(#[source] hyper::Error),
}

impl ClientError {
    /// The API's error code, when the server answered with one.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Api(error) => Some(error.code),
            _ => None,
        }
    }

    /// Whether no server was reached at all, so that nothing can have happened.
    pub fn is_connect(&self) -> bool {
        matches!(self, Self::Connect { .. })
    }

    /// Whether the connection failed before an answer, so that asking again about the same thing can succeed.
    pub(crate) fn is_lost(&self) -> bool {
        matches!(
            self,
            Self::Connect { source: ConnectError::Tcp(_) | ConnectError::Timeout(_), .. } | Self::Lost { .. }
        )
    }
}

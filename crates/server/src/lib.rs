//! The server: HTTP API, accounts, life cycle of sandboxes, and the proxy to their agents.
//!
//! [`serve`] is the persona's whole work. [`Server::start`] is the same without process-wide settings, for tests and
//! for embedding.

mod app;
mod auth;
mod bodies;
mod connection;
mod cors;
mod gate;
mod hosts;
mod http;
mod images;
mod lifecycle;
mod metrics;
mod options;
mod ports;
mod preview;
mod proxies;
mod proxy;
mod received;
mod serve;
mod store;
mod throttle;
mod tickets;
mod tls;
mod wire;

pub use auth::{KeyError, KeySource};
pub use cors::OriginError;
pub use http::DocumentError;
pub use lifecycle::ReconcileError;
pub use options::{DriverKind, Options, OptionsError, ServeOptions, TlsOptions};
pub use proxies::ProxyError;
pub use proxy::RoutesError;
pub use serve::{ServeError, Server, Started, serve};
pub use store::StoreError;
pub use tls::TlsError;

/// The API's document (OpenAPI 3.1), as `GET /v1/openapi.json` answers it.
///
/// # Errors
/// If the routes' annotations contradict each other, which a test excludes.
pub fn openapi() -> Result<utoipa::openapi::OpenApi, DocumentError> {
    http::document().map(|(document, _routes)| document)
}

/// An error with all its causes, for one line of a log.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // A transparent error shows its cause as itself.
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

//! The agent's side of HTTP: one task per connection of the server.

use axum::body::Body;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use sandcrab_socket::{Listener, Stream};
use std::convert::Infallible;
use std::time::Duration;
use tower::Service as _;

/// What hyper reads at once at most; large reads are what makes uploads fast.
const BUFFER: usize = 256 << 10;
/// How long accepting rests when the agent is out of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Answers for as long as the agent lives.
pub(crate) async fn serve(listener: Listener, app: axum::Router) -> Infallible {
    loop {
        match listener.accept().await {
            Ok(stream) => drop(tokio::spawn(connection(stream, app.clone()))),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(stream: Stream, app: axum::Router) {
    let service = service_fn(move |request: Request<Incoming>| app.clone().call(request.map(Body::new)));
    let served = http1::Builder::new()
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection broke");
    }
}

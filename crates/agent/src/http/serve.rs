//! The agent's side of HTTP: one task per connection of the server.

use crate::room::{Holding, Room};
use axum::body::Body;
use http::Request;
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use sandcrab_socket::{Listener, Stream};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tower::Service as _;

/// What hyper reads at once at most; large reads are what makes uploads fast.
const BUFFER: usize = 256 << 10;
/// Bodies up to this many bytes are not counted.
const SHORT: u64 = 16 << 10;
/// How long accepting rests when the agent is out of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long, and how many bytes of it, the rest of a refused request is read after the answer.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: u64 = 256 << 20;

/// Answers for as long as the agent lives.
pub(crate) async fn serve(listener: Listener, app: axum::Router, room: Arc<Room>) -> Infallible {
    loop {
        match listener.accept().await {
            Ok(stream) => drop(tokio::spawn(connection(stream, app.clone(), Arc::clone(&room)))),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(stream: Stream, app: axum::Router, room: Arc<Room>) {
    let service = service_fn(move |mut request: Request<Incoming>| {
        // What is short costs less than a connection does.
        let is_long = request.body().size_hint().upper().is_none_or(|length| length > SHORT);
        let holding = is_long.then(|| Holding::new(&room));
        if let Some(holding) = &holding {
            request.extensions_mut().insert(holding.clone());
        }
        let answer = app.clone().call(request.map(Body::new));
        async move {
            let answer = answer.await;
            drop(holding);
            answer
        }
    });
    let mut connection = http1::Builder::new()
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    if let Err(error) = (&mut connection).await {
        tracing::debug!(%error, "a connection broke");
    }
    // There are none if the connection was given away by an upgrade.
    if let Some(parts) = connection.into_parts() {
        linger(parts.io.into_inner()).await;
    }
}

/// Closes a connection so that its last answer arrives, although its caller may still send: a TCP connection that is closed
/// with bytes unread takes the answer back, and on a Unix socket the caller fails at its next write, before it reads. The
/// rest of a refused body is read and dropped, for a while.
pub async fn linger(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let drop_the_rest = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(LINGER_BYTES), &mut tokio::io::sink()).await
    };
    // Whoever is still sending after that is cut off, which is all that an error here would say.
    let _cut = tokio::time::timeout(LINGER, drop_the_rest).await;
}

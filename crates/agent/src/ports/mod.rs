//! The way to servers inside the sandbox: one connection of the server's becomes one byte stream to a port.
//!
//! The agent runs in the sandbox's own network namespace and connects to its loopback addresses only, so nothing but
//! what listens in this sandbox can be reached, whatever is asked for (attack C08).

pub mod relay;

use crate::http::error::{Answer, Refusal};
use crate::http::extract::Path;
use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{self, HeaderValue};
use http::{HeaderMap, StatusCode};
use hyper_util::rt::TokioIo;
use relay::relay;
use sandcrab_api::{ApiError, ErrorCode};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::net::TcpStream;

/// What an agent says of itself that can do this.
pub const FEATURE: &str = "ports";
/// The protocol that a connection is switched to: the port's bytes, as they are.
pub const PROTOCOL: &str = "sandcrab-port";
/// How long a server whose queue of connections is full may take to accept one.
const CONNECT: Duration = Duration::from_secs(5);

/// The route for the server alone: it is in no document.
pub fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new().route("/agent/ports/{port}", get(open))
}

async fn open(Path(port): Path<u16>, mut request: Request) -> Answer<Response> {
    const OPERATION: &str = "openPort";
    if !asks_for_it(request.headers()) {
        let message = format!("must be `{PROTOCOL}`");
        return Err(Refusal(ApiError::invalid("Upgrade", message).during(OPERATION)));
    }
    let stream = connect(port).await.map_err(|error| {
        let message = format!("nothing answers on port {port} of the sandbox: {error}");
        ApiError::new(ErrorCode::ServiceNotResponding, message).during(OPERATION).with("port", port)
    })?;
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let carried = match upgrade.await {
            Ok(upgraded) => relay(TokioIo::new(upgraded), stream).await,
            Err(error) => Err(io::Error::other(error)),
        };
        if let Err(error) = carried {
            tracing::debug!(port, %error, "a connection to a port broke");
        }
    });
    let headers = [
        (header::CONNECTION, HeaderValue::from_static("upgrade")),
        (header::UPGRADE, HeaderValue::from_static(PROTOCOL)),
    ];
    Ok((StatusCode::SWITCHING_PROTOCOLS, headers).into_response())
}

fn asks_for_it(headers: &HeaderMap) -> bool {
    headers
        .get(header::UPGRADE)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(PROTOCOL.as_bytes()))
}

/// Connects to what listens on a port: a server that is bound to IPv6's loopback alone is found too.
async fn connect(port: u16) -> io::Result<TcpStream> {
    let connect = async {
        match TcpStream::connect(loopback(Ipv4Addr::LOCALHOST, port)).await {
            Ok(stream) => Ok(stream),
            // The second error says no more than the first where there is no IPv6.
            Err(error) => TcpStream::connect(loopback(Ipv6Addr::LOCALHOST, port)).await.map_err(|_| error),
        }
    };
    let stream = tokio::time::timeout(CONNECT, connect).await.unwrap_or_else(|_| {
        Err(io::Error::new(io::ErrorKind::TimedOut, "it did not accept the connection"))
    })?;
    // Whole messages arrive here: Nagle's algorithm would only hold their last bytes back.
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn loopback(address: impl Into<IpAddr>, port: u16) -> SocketAddr {
    SocketAddr::new(address.into(), port)
}

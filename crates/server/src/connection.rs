//! One caller's connection: HTTP/1.1, or HTTP/2 where its first bytes say so.

use crate::http::Front;
use crate::wire::Prefixed;
use axum::body::Body;
use bytes::BytesMut;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use sandcrab_agent::http::linger;
use std::convert::Infallible;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;

/// How long a connection may take to send a request's head, and how long it may be idle before one.
const HEAD_TIME: Duration = Duration::from_secs(60);
/// The longest head of a request. A longer one is answered 431.
const HEAD_BYTES: usize = 32 << 10;
/// What is read at once at most.
const BUFFER: usize = 256 << 10;

/// How an HTTP/2 connection begins (RFC 9113, section 3.4), and the length and type of the frame that follows.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const FRAME_HEAD: usize = 9;
const FRAME_TYPE: usize = 3;
const SETTINGS: u8 = 4;
/// How long a connection that begins like HTTP/2 may take over it.
const PREFACE_TIME: Duration = Duration::from_secs(5);
/// Requests at once over one HTTP/2 connection.
const STREAMS: u32 = 200;
/// What may be under way in one stream, and in all of one connection, towards the server.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// What is held of one answer until the caller takes it.
const SEND_BUFFER: usize = 256 << 10;
/// A caller that answers no ping is gone.
const PING_EVERY: Duration = Duration::from_secs(30);

/// Connections that may wait to be accepted; the kernel holds this to `net.core.somaxconn`, 4096 as it comes. Past it
/// the kernel drops a caller's SYN, who tries again after a second.
const BACKLOG: u32 = 4096;

/// How a request came in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    /// The address that the connection came to.
    pub(crate) local: IpAddr,
    /// Where it came from.
    pub(crate) peer: IpAddr,
    /// Whether it is encrypted.
    pub(crate) is_tls: bool,
}

/// Listens for callers, of whom a thousand may come at once.
pub(crate) fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A server that starts again does not wait for the last one's connections to be forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

enum Version {
    Http1,
    Http2,
}

/// Serves a connection until it ends, or until `ended` says so: then what is under way is finished first.
pub(crate) async fn serve<S>(mut stream: S, arrival: Arrival, front: Front, mut ended: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut begun = BytesMut::with_capacity(PREFACE.len() + FRAME_HEAD);
    let version = tokio::select! {
        version = version(&mut stream, &mut begun) => version,
        _ = ended.wait_for(|ended| *ended) => None,
    };
    let stream = Prefixed::new(begun.freeze(), stream);
    match version {
        Some(Version::Http1) => serve_http1(stream, arrival, front, ended).await,
        Some(Version::Http2) => serve_http2(stream, arrival, front, ended).await,
        None => {}
    }
}

/// Which protocol the first bytes are of; they stay in `begun`. None if nothing sensible came in time.
async fn version(stream: &mut (impl AsyncRead + Unpin), begun: &mut BytesMut) -> Option<Version> {
    let first = tokio::time::timeout(HEAD_TIME, stream.read_buf(begun)).await;
    first.ok()?.ok().filter(|read| *read > 0)?;
    let rest = async {
        loop {
            let common = begun.len().min(PREFACE.len());
            if begun[..common] != PREFACE[..common] {
                return Some(Version::Http1);
            }
            if let Some(frame) = begun.get(PREFACE.len()..).filter(|rest| rest.len() >= FRAME_HEAD) {
                return (frame[FRAME_TYPE] == SETTINGS).then_some(Version::Http2);
            }
            stream.read_buf(begun).await.ok().filter(|read| *read > 0)?;
        }
    };
    tokio::time::timeout(PREFACE_TIME, rest).await.ok()?
}

async fn serve_http1<S>(stream: S, arrival: Arrival, front: Front, mut ended: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut ended = pin!(ended.wait_for(|ended| *ended));
    let service = service_fn(move |request: Request<Incoming>| {
        let front = front.clone();
        Box::pin(async move { Ok::<_, Infallible>(front.answer(request.map(Body::new), arrival).await) })
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_header_size(HEAD_BYTES)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut told = false;
    let served = poll_fn(|cx| {
        let mut connection = Pin::new(&mut connection);
        if !told && ended.as_mut().poll(cx).is_ready() {
            told = true;
            connection.as_mut().graceful_shutdown();
        }
        connection.poll(cx)
    })
    .await;
    if let Err(error) = served {
        tracing::debug!(error = crate::chain(&error), "a connection broke");
    }
    // There are none if the connection was given away by an upgrade.
    if let Some(parts) = connection.into_parts() {
        linger(parts.io.into_inner()).await;
    }
}

async fn serve_http2<S>(stream: S, arrival: Arrival, front: Front, mut ended: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut ended = pin!(ended.wait_for(|ended| *ended));
    let service = service_fn(move |request: Request<Incoming>| {
        let front = front.clone();
        Box::pin(async move { Ok::<_, Infallible>(front.answer(request.map(Body::new), arrival).await) })
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .enable_connect_protocol()
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEAD_BYTES as u32)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(PING_EVERY)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let mut told = false;
    let served = poll_fn(|cx| {
        if !told && ended.as_mut().poll(cx).is_ready() {
            told = true;
            connection.as_mut().graceful_shutdown();
        }
        connection.as_mut().poll(cx)
    })
    .await;
    if let Err(error) = served {
        tracing::debug!(error = crate::chain(&error), "a connection broke");
    }
}

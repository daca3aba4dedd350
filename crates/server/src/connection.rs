//! One caller's connection: HTTP/1.1, or HTTP/2 where its first bytes say so.

use crate::gate::{Busy, Connection};
use crate::http::Front;
use crate::received;
use crate::wire::Prefixed;
use axum::BoxError;
use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderValue};
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use sandcrab_agent::http::linger;
use std::convert::Infallible;
use std::future::poll_fn;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;

/// How long a connection that is to end may take to say so.
const CLOSING: Duration = Duration::from_secs(1);
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
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    /// The address that the connection came to.
    pub(crate) local: IpAddr,
    /// Where it came from.
    pub(crate) peer: IpAddr,
    /// Whose request it is: another address than the peer's behind a proxy that is believed.
    pub(crate) client: IpAddr,
    /// Whether it is encrypted.
    pub(crate) is_tls: bool,
    /// What it came over.
    pub(crate) connection: Connection,
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

/// Serves a connection until it ends, or until `ended` says so: then what is under way is finished first. One that is idle
/// for too long ends.
pub(crate) async fn serve<S>(mut stream: S, arrival: Arrival, front: Front, mut ended: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut begun = BytesMut::with_capacity(PREFACE.len() + FRAME_HEAD);
    let version = tokio::select! {
        version = version(&mut stream, &mut begun) => version,
        () = arrival.connection.expired() => None,
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
    stream.read_buf(begun).await.ok().filter(|read| *read > 0)?;
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

/// Drives a connection to its end; `shut_down` asks it to end after what is under way. Whether it ended by itself.
async fn drive<E: std::error::Error + 'static>(
    mut poll: impl FnMut(&mut Context<'_>, bool) -> Poll<Result<(), E>>,
    connection: &Connection,
    mut ended: watch::Receiver<bool>,
) -> bool {
    let log = |served: Result<(), E>| {
        if let Err(error) = served {
            tracing::debug!(error = crate::chain(&error), "a connection broke");
        }
    };
    let over = async {
        tokio::select! {
            _ = ended.wait_for(|ended| *ended) => false,
            () = connection.expired() => true,
        }
    };
    let has_expired = tokio::select! {
        biased;
        served = poll_fn(|cx| poll(cx, false)) => {
            log(served);
            return true;
        }
        has_expired = over => has_expired,
    };
    let mut rest = pin!(poll_fn(|cx| poll(cx, true)));
    if !has_expired {
        log(rest.await);
        return true;
    }
    loop {
        match tokio::time::timeout(CLOSING, &mut rest).await {
            Ok(served) => {
                log(served);
                return true;
            }
            // A request that came at the last moment is answered.
            Err(_late) if connection.is_idle() => return false,
            Err(_late) => {}
        }
    }
}

async fn serve_http1<S>(stream: S, arrival: Arrival, front: Front, ended: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let connection = arrival.connection.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (front, arrival) = (front.clone(), arrival.clone());
        Box::pin(async move {
            let (head, body) = request.into_parts();
            let (body, home) = received::lend(&head.headers, body);
            let connection = arrival.connection.clone();
            let mut response = front.answer(Request::from_parts(head, body), arrival).await;
            let is_used_again = match home {
                Some(home) => home.settle().await,
                None => true,
            };
            if !is_used_again || connection.is_over() {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(Counted::of(response))
        })
    });
    let mut http = http1::Builder::new()
        .timer(TokioTimer::new())
        // The connection's own time is less.
        .header_read_timeout(None)
        .max_header_size(HEAD_BYTES)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut told = false;
    let poll = |cx: &mut Context<'_>, is_over: bool| {
        let mut http = Pin::new(&mut http);
        if is_over && !std::mem::replace(&mut told, true) {
            http.as_mut().graceful_shutdown();
        }
        http.poll(cx)
    };
    let has_ended = drive(poll, &connection, ended).await;
    // There are no parts if the connection was given away by an upgrade.
    if has_ended && let Some(parts) = http.into_parts() {
        linger(parts.io.into_inner()).await;
    }
}

async fn serve_http2<S>(stream: S, arrival: Arrival, front: Front, ended: watch::Receiver<bool>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let connection = arrival.connection.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (front, arrival) = (front.clone(), arrival.clone());
        Box::pin(async move {
            let response = front.answer(request.map(Body::new), arrival).await;
            Ok::<_, Infallible>(Counted::of(response))
        })
    });
    let http = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .enable_connect_protocol()
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEAD_BYTES as u32)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(PING_EVERY)
        .serve_connection(TokioIo::new(stream), service);
    let mut http = pin!(http);
    let mut told = false;
    let poll = |cx: &mut Context<'_>, is_over: bool| {
        if is_over && !std::mem::replace(&mut told, true) {
            http.as_mut().graceful_shutdown();
        }
        http.as_mut().poll(cx)
    };
    drive(poll, &connection, ended).await;
}

/// The body of an answer, which keeps its connection busy until it has been sent.
struct Counted {
    body: Body,
    _busy: Option<Arc<Busy>>,
}

impl Counted {
    /// What keeps the connection busy comes as an extension of the answer.
    fn of(mut response: Response<Body>) -> Response<Self> {
        let busy = response.extensions_mut().remove();
        response.map(|body| Self { body, _busy: busy })
    }
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.body).poll_frame(cx).map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

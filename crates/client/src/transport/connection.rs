//! One HTTP/1.1 connection, driven by whoever waits for its answer.
//!
//! hyper's usual way is a task per connection, which costs two wake-ups between threads per call. Here the caller's own
//! task polls the connection while it waits for the head and reads the body, and nobody polls it while it is idle: a
//! connection that the server has closed meanwhile is found when it is next taken out of the pool.

use super::body::RequestBody;
use super::endpoint::{Endpoint, Io};
use crate::error::ConnectError;
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// The longest head of an answer. Ours have a few hundred bytes.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// Servers and what stands before them close idle connections after a minute or more.
const IDLE_FOR: Duration = Duration::from_secs(50);

type Driver = http1::Connection<TokioIo<Box<dyn Io>>, RequestBody>;

pub(crate) struct Connection {
    sender: http1::SendRequest<RequestBody>,
    /// None once it has ended.
    driver: Option<Driver>,
}

impl Connection {
    pub(crate) async fn open(endpoint: &Endpoint) -> Result<Self, ConnectError> {
        let io = TokioIo::new(endpoint.connect().await?);
        let (sender, driver) = http1::Builder::new()
            .max_header_size(MAX_HEAD_BYTES)
            .handshake(io)
            .await
            .map_err(ConnectError::Http)?;
        Ok(Self { sender, driver: Some(driver) })
    }

    /// A connection that can become another protocol's, and what does its I/O.
    pub(crate) async fn upgradable(
        endpoint: &Endpoint,
    ) -> Result<
        (http1::SendRequest<RequestBody>, impl Future<Output = hyper::Result<()>> + use<>),
        ConnectError,
    > {
        let io = TokioIo::new(endpoint.connect().await?);
        let (sender, driver) = http1::Builder::new()
            .max_header_size(MAX_HEAD_BYTES)
            .handshake(io)
            .await
            .map_err(ConnectError::Http)?;
        Ok((sender, driver.with_upgrades()))
    }

    fn drive(driver: &mut Option<Driver>, cx: &mut Context<'_>) {
        if let Some(running) = driver {
            // Its failure is told by the answer or the body that breaks off with it.
            if Pin::new(running).poll(cx).is_ready() {
                *driver = None;
            }
        }
    }

    /// Whether a request can be sent now.
    fn poll_usable(&mut self, cx: &mut Context<'_>) -> bool {
        Self::drive(&mut self.driver, cx);
        self.driver.is_some() && matches!(self.sender.poll_ready(cx), Poll::Ready(Ok(())))
    }

    /// Sends a request and waits for the head of its answer.
    pub(crate) async fn exchange(
        &mut self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, TrySendError<Request<RequestBody>>> {
        let mut answer = pin!(self.sender.try_send_request(request));
        let driver = &mut self.driver;
        std::future::poll_fn(|cx| {
            if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
                return Poll::Ready(answer);
            }
            Self::drive(driver, cx);
            answer.as_mut().poll(cx)
        })
        .await
    }
}

/// Idle connections, the last used on top.
pub(crate) struct Pool {
    idle: Mutex<Vec<(Instant, Connection)>>,
    capacity: usize,
}

impl Pool {
    pub(crate) fn new(capacity: usize) -> Arc<Self> {
        Arc::new(Self { idle: Mutex::default(), capacity })
    }

    /// A connection that stands as far as this side can know.
    pub(crate) async fn take(&self) -> Option<Connection> {
        std::future::poll_fn(|cx| {
            while let Some(mut connection) = self.pop() {
                if connection.poll_usable(cx) {
                    return Poll::Ready(Some(connection));
                }
            }
            Poll::Ready(None)
        })
        .await
    }

    fn pop(&self) -> Option<Connection> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, connection) = idle.pop()?;
        if since.elapsed() > IDLE_FOR {
            // All below it have waited longer still.
            idle.clear();
            return None;
        }
        Some(connection)
    }

    fn put(&self, connection: Connection) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let expired = idle.partition_point(|(since, _)| since.elapsed() > IDLE_FOR);
        idle.drain(..expired);
        if idle.len() < self.capacity {
            idle.push((Instant::now(), connection));
        }
    }
}

/// The body of an answer, with the connection that brings it. Read to its end it gives the connection back to the pool;
/// dropped before, it closes it.
pub(crate) struct AnswerBody {
    incoming: Incoming,
    connection: Option<Connection>,
    pool: Arc<Pool>,
}

impl AnswerBody {
    pub(crate) fn new(incoming: Incoming, connection: Connection, pool: Arc<Pool>) -> Self {
        Self { incoming, connection: Some(connection), pool }
    }

    /// How many bytes are to come, if the answer's head says so.
    pub(crate) fn length(&self) -> Option<u64> {
        self.incoming.size_hint().exact()
    }

    pub(crate) async fn chunk(&mut self) -> Option<Result<Bytes, hyper::Error>> {
        std::future::poll_fn(|cx| self.poll_chunk(cx)).await
    }

    pub(crate) fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, hyper::Error>>> {
        let mut driven = false;
        loop {
            match Pin::new(&mut self.incoming).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(bytes) = frame.into_data() {
                        return Poll::Ready(Some(Ok(bytes)));
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    self.connection = None;
                    return Poll::Ready(Some(Err(error)));
                }
                Poll::Ready(None) => {
                    if let Some(mut connection) = self.connection.take()
                        && connection.poll_usable(cx)
                    {
                        self.pool.put(connection);
                    }
                    return Poll::Ready(None);
                }
                Poll::Pending if driven => return Poll::Pending,
                Poll::Pending => {
                    if let Some(connection) = &mut self.connection {
                        Connection::drive(&mut connection.driver, cx);
                    }
                    driven = true;
                }
            }
        }
    }
}

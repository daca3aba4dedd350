//! One HTTP/1.1 connection to an agent, or through it to what listens in its sandbox, driven by whoever uses it.
//!
//! hyper splits a client connection into a sender and a future that does the I/O. That future is not spawned here but
//! polled by the task that waits for the answer: a task of its own would cost a wake-up, on another CPU at worst, per
//! read. An idle link is polled by nobody; whoever takes it from the pool looks first whether it still lives.

use super::body::Upload;
use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, SendRequest};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use sandcrab_runtime::driver::BoxStream;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The longest head that an agent may send, and the longest trailers.
const HEAD: usize = 16 << 10;
/// What hyper reads at once at most; large reads are what makes streams fast.
const BUFFER: usize = 256 << 10;
/// What may arrive before an answer's head is complete: one read that also holds the body's beginning, and heads of
/// informational answers, of which an agent could otherwise send an endless row.
const BEFORE_HEAD: u64 = 2 * BUFFER as u64;

/// A connection's I/O; hyper does not name the type.
type Driving = Pin<Box<dyn Future<Output = hyper::Result<()>> + Send>>;

/// A connection.
pub(crate) struct Link {
    sender: SendRequest<Upload>,
    /// None once it has ended.
    connection: Option<Driving>,
    allowance: Arc<AtomicU64>,
}

/// Why an exchange failed.
pub(crate) enum Broken {
    /// Nothing of the request was sent; here it is.
    Unsent(Box<Request<Upload>>, hyper::Error),
    /// It may have been sent.
    Sent(hyper::Error),
}

impl Link {
    /// Begins HTTP on a fresh connection.
    pub(crate) async fn new(stream: BoxStream) -> hyper::Result<Self> {
        let allowance = Arc::new(AtomicU64::new(BEFORE_HEAD));
        let io = TokioIo::new(Metered { stream, allowance: allowance.clone() });
        let (sender, connection) =
            Builder::new().max_header_size(HEAD).max_buf_size(BUFFER).handshake(io).await?;
        Ok(Self { sender, connection: Some(Box::pin(connection.with_upgrades())), allowance })
    }

    /// Does the connection's I/O; wakes the current task when there is more to do.
    pub(crate) fn drive(&mut self, cx: &mut Context<'_>) {
        if let Some(connection) = &mut self.connection
            && let Poll::Ready(ended) = connection.as_mut().poll(cx)
        {
            if let Err(error) = ended {
                tracing::debug!(error = crate::chain(&error), "a connection to an agent broke");
            }
            self.connection = None;
        }
    }

    /// Whether the link can take a request now. One whose answer came before its upload had ended cannot, ever.
    pub(crate) fn is_usable(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        self.drive(&mut cx);
        matches!(self.sender.poll_ready(&mut cx), Poll::Ready(Ok(()))) && self.connection.is_some()
    }

    /// Sends a request and waits for the head of its answer.
    pub(crate) async fn exchange(&mut self, request: Request<Upload>) -> Result<Response<Incoming>, Broken> {
        self.allowance.store(BEFORE_HEAD, Ordering::Relaxed);
        let mut answer = std::pin::pin!(self.sender.try_send_request(request));
        let connection = &mut self.connection;
        let answer = poll_fn(|cx| {
            if let Some(running) = connection
                && running.as_mut().poll(cx).is_ready()
            {
                // The reason goes to `answer`.
                *connection = None;
            }
            answer.as_mut().poll(cx)
        })
        .await;
        self.allowance.store(u64::MAX, Ordering::Relaxed);
        answer.map_err(|mut failed| match failed.take_message() {
            Some(request) => Broken::Unsent(Box::new(request), failed.into_error()),
            None => Broken::Sent(failed.into_error()),
        })
    }

    /// The bare stream behind an answer that switches protocols, and what was read of it already.
    pub(crate) async fn switch(mut self, mut upgrade: OnUpgrade) -> hyper::Result<(BoxStream, Bytes)> {
        let upgraded = poll_fn(|cx| {
            self.drive(cx);
            Pin::new(&mut upgrade).poll(cx)
        });
        Ok(match upgraded.await?.downcast::<TokioIo<Metered>>() {
            Ok(parts) => (parts.io.into_inner().stream, parts.read_buf),
            // Never: this is what the link was made of.
            Err(upgraded) => (Box::new(TokioIo::new(upgraded)), Bytes::new()),
        })
    }
}

/// A stream that stops being read when more came than is allowed.
struct Metered {
    stream: BoxStream,
    allowance: Arc<AtomicU64>,
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        let read = (buffer.filled().len() - before) as u64;
        let left = self.allowance.load(Ordering::Relaxed);
        match left.checked_sub(read) {
            Some(_) if left == u64::MAX => {}
            Some(rest) => self.allowance.store(rest, Ordering::Relaxed),
            None => return Poll::Ready(Err(io::Error::other("no answer's head within its bound"))),
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Metered {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

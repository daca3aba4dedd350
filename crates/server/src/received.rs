//! A request's body over HTTP/1, which comes back to its connection when whoever reads it has had enough: only who has
//! read it to its end can use the connection again.

use axum::body::Body;
use bytes::Bytes;
use http::header::{self, HeaderMap};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

/// How much of what nobody wanted is read after the answer is known, and for how long: small bodies of refused requests.
const REST: usize = 64 << 10;
const REST_TIME: Duration = Duration::from_millis(100);

/// What became of a body.
#[derive(Debug)]
enum Stand {
    /// Somebody reads it.
    Lent,
    /// It was read to its end.
    Ended,
    /// It was dropped before.
    Left(Incoming),
}

/// The connection's side of a body.
#[derive(Debug)]
pub(crate) struct Home {
    stand: Arc<Mutex<Stand>>,
    /// The caller waits to be asked for the body.
    waits: bool,
}

/// The reader's side.
#[derive(Debug)]
struct Lent {
    body: Option<Incoming>,
    stand: Arc<Mutex<Stand>>,
}

/// Splits a body; there is no home where there is no body.
pub(crate) fn lend(headers: &HeaderMap, body: Incoming) -> (Body, Option<Home>) {
    if body.is_end_stream() {
        return (Body::empty(), None);
    }
    let stand = Arc::new(Mutex::new(Stand::Lent));
    let lent = Lent { body: Some(body), stand: stand.clone() };
    (Body::new(lent), Some(Home { stand, waits: headers.contains_key(header::EXPECT) }))
}

impl Home {
    /// Whether the body has ended, or does at once now that the answer is known: another request can follow it.
    pub(crate) async fn settle(self) -> bool {
        let stand = std::mem::replace(&mut *lock(&self.stand), Stand::Lent);
        match stand {
            Stand::Ended => true,
            // Read on while the answer is under way, or never.
            Stand::Lent => false,
            // Reading would ask for it.
            Stand::Left(_) if self.waits => false,
            Stand::Left(rest) => tokio::time::timeout(REST_TIME, drop_rest(rest)).await == Ok(true),
        }
    }
}

/// Reads what is left; whether that was to the end.
async fn drop_rest(mut body: Incoming) -> bool {
    let mut left = REST;
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        let Ok(frame) = frame else { return false };
        match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
            Some(rest) => left = rest,
            None => return false,
        }
    }
    true
}

fn lock(stand: &Mutex<Stand>) -> std::sync::MutexGuard<'_, Stand> {
    stand.lock().unwrap_or_else(PoisonError::into_inner)
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = Pin::new(body).poll_frame(cx);
        if let Poll::Ready(None) = frame {
            self.body = None;
            *lock(&self.stand) = Stand::Ended;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(body) = self.body.take() {
            let has_ended = body.is_end_stream();
            *lock(&self.stand) = if has_ended { Stand::Ended } else { Stand::Left(body) };
        }
    }
}

//! The body of a preview's answer on its way to the caller.

use super::apps::{Apps, Lease};
use crate::lifecycle::Use;
use crate::proxy::Joined;
use axum::BoxError;
use bytes::Bytes;
use http::header;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// It drives the connection that it comes from, gives it back when it has been read to its end, keeps the sandbox
/// active as long as it is open, and is cut when its port is taken back.
pub(super) struct Answer {
    body: Joined,
    lease: Option<Lease>,
    apps: Apps,
    revoked: CancellationToken,
    told: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    _used: Use,
}

/// The port is no longer exposed.
#[derive(Debug, thiserror::Error)]
#[error("the port is no longer exposed")]
struct Revoked;

impl Answer {
    pub(super) fn new(body: Incoming, lease: Lease, revoked: CancellationToken, used: Use) -> Self {
        let apps = used.live.apps.clone();
        let body = Joined::new(body, apps.crumbs());
        Self { body, lease: Some(lease), apps, revoked, told: None, _used: used }
    }

    fn give_back(&mut self) {
        if let Some(lease) = self.lease.take() {
            self.apps.put(lease);
        }
    }

    fn poll_revoked(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let told = self.told.get_or_insert_with(|| Box::pin(self.revoked.clone().cancelled_owned()));
        told.as_mut().poll(cx)
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if this.revoked.is_cancelled() {
            return Poll::Ready(Some(Err(Revoked.into())));
        }
        let link = this.lease.as_mut().map(|lease| &mut lease.link);
        match this.body.poll(link, cx) {
            Poll::Ready(Some(Ok(frame))) => Poll::Ready(Some(Ok(passed(frame)))),
            Poll::Ready(Some(Err(error))) => {
                this.lease = None;
                Poll::Ready(Some(Err(error.into())))
            }
            Poll::Ready(None) => {
                this.give_back();
                Poll::Ready(None)
            }
            Poll::Pending if this.poll_revoked(cx).is_ready() => {
                this.lease = None;
                Poll::Ready(Some(Err(Revoked.into())))
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // A body of known length is not polled past its last byte.
        if self.body.is_end_stream() {
            self.give_back();
        }
    }
}

/// Trailers without what belongs into a head alone.
fn passed(frame: Frame<Bytes>) -> Frame<Bytes> {
    match frame.into_trailers() {
        Ok(mut trailers) => {
            trailers.remove(header::SET_COOKIE);
            Frame::trailers(trailers)
        }
        Err(data) => data,
    }
}

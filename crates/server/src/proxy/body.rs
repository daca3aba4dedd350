//! Bodies in both directions: streamed, not gathered.

use super::joined::Joined;
use super::pool::{Lease, Pool};
use crate::lifecycle::Use;
use axum::BoxError;
use axum::body::Body;
use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use sandcrab_api::ApiError;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::Sleep;

/// How long a caller may be silent in the middle of a body: one that is for the API, and one that is for what runs in a
/// sandbox, which may be a conversation.
const SILENCE: Duration = Duration::from_secs(30);
const SILENCE_OF_VISITS: Duration = Duration::from_secs(120);
/// How long a body may take in all that the server gathers itself. It is short.
const GATHERING: Duration = Duration::from_secs(60);

/// A request's body on its way to the agent.
#[derive(Debug)]
pub(crate) struct Upload {
    body: Body,
    silence: Option<Pin<Box<Sleep>>>,
    patience: Duration,
    /// By when it must be there as a whole.
    due: Option<Pin<Box<Sleep>>>,
    /// To an agent trailers mean nothing; what runs in a sandbox may want them.
    with_trailers: bool,
}

/// The caller stopped sending, or takes too long.
#[derive(Debug, thiserror::Error)]
enum Slow {
    #[error("no byte of it came for {} s", .0.as_secs())]
    Silent(Duration),
    #[error("it took longer than {} s", GATHERING.as_secs())]
    Late,
}

impl Upload {
    /// To an agent.
    pub(crate) fn new(body: Body) -> Self {
        Self { body, silence: None, patience: SILENCE, due: None, with_trailers: false }
    }

    /// To the server itself.
    pub(crate) fn gathered(body: Body) -> Self {
        Self { due: Some(Box::pin(tokio::time::sleep(GATHERING))), ..Self::new(body) }
    }

    /// To what runs in a sandbox: everything.
    pub(crate) fn whole(body: Body) -> Self {
        Self { patience: SILENCE_OF_VISITS, with_trailers: true, ..Self::new(body) }
    }

    pub(crate) fn empty() -> Self {
        Self::new(Body::empty())
    }
}

impl HttpBody for Upload {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(frame) => {
                self.silence = None;
                let passes = |frame: &Result<Frame<Bytes>, _>| match frame {
                    Ok(frame) => self.with_trailers || !frame.is_trailers(),
                    Err(_) => true,
                };
                let frame = frame.filter(passes);
                Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
            }
            Poll::Pending => {
                let this = &mut *self;
                if let Some(due) = &mut this.due
                    && due.as_mut().poll(cx).is_ready()
                {
                    return Poll::Ready(Some(Err(Slow::Late.into())));
                }
                let patience = this.patience;
                let silence = this.silence.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
                ready!(silence.as_mut().poll(cx));
                Poll::Ready(Some(Err(Slow::Silent(patience).into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// An answer's body on its way to the caller. It drives the connection that it comes from, gives it back when it has
/// been read to its end, and keeps the sandbox active as long as it is open.
pub(super) struct Download {
    body: Joined,
    lease: Option<Lease>,
    pool: Pool,
    used: Arc<Use>,
    events: Option<Events>,
}

/// What is known of an event stream: whether the last bytes ended a message.
struct Events {
    between: bool,
    verdict: Option<Pin<Box<dyn Future<Output = Option<ApiError>> + Send>>>,
}

impl Download {
    pub(super) fn new(body: Incoming, lease: Lease, used: Arc<Use>, is_event_stream: bool) -> Self {
        let events = is_event_stream.then_some(Events { between: true, verdict: None });
        let pool = used.live.pool.clone();
        let body = Joined::new(body, pool.crumbs());
        Self { body, lease: Some(lease), pool, used, events }
    }

    fn give_back(&mut self) {
        if let Some(lease) = self.lease.take() {
            self.pool.put(lease);
        }
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, hyper::Error>>> {
        let link = self.lease.as_mut().map(|lease| &mut lease.link);
        match ready!(self.body.poll(link, cx)) {
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => Poll::Ready(Some(Ok(data))),
                // Trailers: the end.
                Err(_) => Poll::Ready(None),
            },
            Some(Err(error)) => Poll::Ready(Some(Err(error))),
            None => Poll::Ready(None),
        }
    }

    /// The stream broke. Between two messages of an event stream there is room to say why the sandbox is gone; where
    /// the sandbox lives on the connection is cut instead, and the caller resumes (contract S12).
    fn poll_last_word(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Some(Events { verdict: Some(verdict), .. }) = &mut self.events else { return Poll::Ready(None) };
        let verdict = ready!(verdict.as_mut().poll(cx));
        self.events = None;
        let Some(error) = verdict else { return Poll::Ready(Some(Err(Cut.into()))) };
        let event = serde_json::json!({
            "type": "error",
            "error": &error.message,
            "timestamp": &error.timestamp,
            "detail": &error,
        });
        Poll::Ready(Some(Ok(Frame::data(format!("data: {event}\n\n").into()))))
    }
}

/// The agent's answer ended before its end.
#[derive(Debug, thiserror::Error)]
#[error("the sandbox broke off its answer")]
struct Cut;

impl HttpBody for Download {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if matches!(&this.events, Some(Events { verdict: Some(_), .. })) {
            return this.poll_last_word(cx);
        }
        match ready!(this.poll_data(cx)) {
            Some(Ok(data)) => {
                if let Some(events) = &mut this.events {
                    events.between = data.ends_with(b"\n\n") || (data.is_empty() && events.between);
                }
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Some(Err(error)) => {
                this.lease = None;
                match &mut this.events {
                    Some(events) if events.between => {
                        let used = this.used.clone();
                        events.verdict =
                            Some(Box::pin(async move { used.sandbox.verdict(&used.live).await }));
                        this.poll_last_word(cx)
                    }
                    _ => Poll::Ready(Some(Err(error.into()))),
                }
            }
            None => {
                this.give_back();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream() && self.events.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Download {
    fn drop(&mut self) {
        // A body of known length is not polled past its last byte.
        if self.body.is_end_stream() {
            self.give_back();
        }
    }
}

//! A sandbox's event log, read as it is written.

use crate::path::Query;
use crate::resume::{self, Events, Source};
use crate::sse::Message;
use crate::transport::{Call, Transport};
use crate::{ClientError, Sandbox};
use futures_util::Stream;
use sandcrab_api::sandbox::SandboxEvent;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// The longest event: the server bounds its reason and detail to a few thousand bytes.
const MAX_EVENT_BYTES: usize = 1 << 20;

/// What happens to a sandbox, without a gap and without a repeat. When the connection is lost it goes on where it broke
/// off. It has no end but an error, also past the sandbox's own: a destroyed id may be used again.
#[must_use = "streams do nothing unless polled"]
pub struct EventStream {
    events: Events<SandboxEvent>,
}

impl EventStream {
    pub(crate) async fn open(sandbox: Sandbox, after: u64) -> Result<Self, ClientError> {
        let source = Follow { sandbox, after };
        let call = source.rest();
        Ok(Self { events: resume::open(source, &call).await? })
    }

    /// The next event.
    ///
    /// # Errors
    /// [`ClientError::EventsLost`].
    pub async fn next(&mut self) -> Option<Result<SandboxEvent, ClientError>> {
        std::future::poll_fn(|cx| self.events.as_mut().poll_next(cx)).await
    }
}

impl Stream for EventStream {
    type Item = Result<SandboxEvent, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.events.as_mut().poll_next(cx)
    }
}

impl std::fmt::Debug for EventStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventStream").finish_non_exhaustive()
    }
}

struct Follow {
    sandbox: Sandbox,
    /// The number of the last event that the caller has.
    after: u64,
}

impl Source for Follow {
    type Event = SandboxEvent;
    const OPERATION: &'static str = "followEvents";
    const MAX_EVENT_BYTES: usize = MAX_EVENT_BYTES;

    fn transport(&self) -> &Transport {
        &self.sandbox.target().transport
    }

    fn rest(&self) -> Call {
        let query = Query::new(self.sandbox.target().path("/events/stream"));
        Call::get(Self::OPERATION, query.with("after", &self.after.to_string()).finish()).unbounded()
    }

    fn has_ended(&self) -> bool {
        false
    }

    fn lost(
        &self,
        tried_for: Duration,
        source: Option<Box<ClientError>>,
    ) -> Result<ClientError, ClientError> {
        Ok(ClientError::EventsLost { sandbox_id: self.sandbox.id().clone(), tried_for, source })
    }

    fn accept(&mut self, message: &Message) -> Result<Option<SandboxEvent>, ClientError> {
        let event: SandboxEvent = serde_json::from_slice(&message.data)
            .map_err(|_| self.unexpected("an event that is not as documented"))?;
        let is_new = event.seq > self.after;
        self.after = self.after.max(event.seq);
        Ok(is_new.then_some(event))
    }
}

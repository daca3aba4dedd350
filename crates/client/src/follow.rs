//! Commands whose output is read as it comes.

use crate::ClientError;
use crate::exec::decode;
use crate::path::Query;
use crate::resume::{self, Events, Source};
use crate::sandbox::Target;
use crate::sse::Message;
use crate::transport::{Call, Transport};
use bytes::Bytes;
use futures_util::Stream;
use sandcrab_api::exec::{ExecEvent as WireEvent, ExecOutcome, ExecRequest, OutputEncoding, StreamName};
use sandcrab_api::limits::MAX_COMMAND_BYTES;
use sandcrab_api::time::Timestamp;
use sandcrab_api::{ExecId, SessionId};
use serde::Deserialize;
use std::borrow::Cow;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// The longest event: one that names the longest command, whose bytes may take six in JSON.
const MAX_EVENT_BYTES: usize = 6 * MAX_COMMAND_BYTES + (1 << 20);

/// What a command's stream tells.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum ExecEvent {
    /// It has started.
    Start {
        /// The text that runs.
        command: String,
        /// The session that runs it; none for a fresh shell.
        session_id: Option<SessionId>,
        /// When it started.
        timestamp: Timestamp,
    },
    /// It wrote this to stdout.
    Stdout(Bytes),
    /// It wrote this to stderr.
    Stderr(Bytes),
    /// Bytes that should stand here are no longer kept.
    Dropped {
        /// Whose bytes.
        stream: StreamName,
        /// How many.
        bytes: u64,
    },
    /// It has ended; the last event.
    Complete(ExecOutcome),
}

/// A command's events, without a gap and without a repeat. When the connection is lost it goes on where it broke off
/// (contract S12). Dropping it leaves the command running.
///
/// The stream ends after [`ExecEvent::Complete`] or after an error.
#[must_use = "streams do nothing unless polled"]
pub struct ExecStream {
    exec_id: ExecId,
    events: Events<ExecEvent>,
}

impl ExecStream {
    pub(crate) async fn start(
        target: Arc<Target>,
        exec_id: ExecId,
        request: &ExecRequest,
    ) -> Result<Self, ClientError> {
        let call = Call::post("execStream", target.path("/exec/stream")).json(request).unbounded();
        Self::open(target, exec_id, [0, 0], &call).await
    }

    pub(crate) async fn attach(
        target: Arc<Target>,
        exec_id: ExecId,
        offsets: [u64; 2],
    ) -> Result<Self, ClientError> {
        let call = resume_call(&target, &exec_id, offsets);
        Self::open(target, exec_id, offsets, &call).await
    }

    async fn open(
        target: Arc<Target>,
        exec_id: ExecId,
        offsets: [u64; 2],
        call: &Call,
    ) -> Result<Self, ClientError> {
        let source = Follow {
            target,
            exec_id: exec_id.clone(),
            offsets: Offsets(offsets),
            started: false,
            ended: false,
        };
        Ok(Self { exec_id, events: resume::open(source, call).await? })
    }

    /// The command's id, to cancel it by or to attach to it again.
    pub fn exec_id(&self) -> &ExecId {
        &self.exec_id
    }

    /// The next event; `None` after the last.
    ///
    /// # Errors
    /// What the command failed with (`COMMAND_TIMEOUT`, `OPERATION_INTERRUPTED`, …), or [`ClientError::StreamLost`].
    pub async fn next(&mut self) -> Option<Result<ExecEvent, ClientError>> {
        std::future::poll_fn(|cx| self.events.as_mut().poll_next(cx)).await
    }
}

impl Stream for ExecStream {
    type Item = Result<ExecEvent, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.events.as_mut().poll_next(cx)
    }
}

impl std::fmt::Debug for ExecStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ExecStream").field("exec_id", &self.exec_id).finish_non_exhaustive()
    }
}

fn resume_call(target: &Target, id: &ExecId, [stdout, stderr]: [u64; 2]) -> Call {
    let query = Query::new(target.exec_path(id, "/stream"))
        .with("stdoutOffset", &stdout.to_string())
        .with("stderrOffset", &stderr.to_string())
        .with("encoding", "base64");
    Call::get("execStream", query.finish()).unbounded()
}

/// The fields by which events are told apart; the data of the common ones is not copied.
#[derive(Deserialize)]
struct Peek<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(default, borrow)]
    data: Cow<'a, str>,
}

/// A stream in the middle.
struct Follow {
    target: Arc<Target>,
    exec_id: ExecId,
    offsets: Offsets,
    started: bool,
    ended: bool,
}

impl Source for Follow {
    type Event = ExecEvent;
    const OPERATION: &'static str = "execStream";
    const MAX_EVENT_BYTES: usize = MAX_EVENT_BYTES;

    fn transport(&self) -> &Transport {
        &self.target.transport
    }

    fn rest(&self) -> Call {
        resume_call(&self.target, &self.exec_id, self.offsets.0)
    }

    fn has_ended(&self) -> bool {
        self.ended
    }

    fn lost(
        &self,
        tried_for: Duration,
        source: Option<Box<ClientError>>,
    ) -> Result<ClientError, ClientError> {
        Ok(ClientError::StreamLost { exec_id: self.exec_id.clone(), tried_for, source })
    }

    fn accept(&mut self, message: &Message) -> Result<Option<ExecEvent>, ClientError> {
        let wrong = |error: serde_json::Error| {
            self.unexpected(&format!("an event that is not as documented ({error})"))
        };
        let peek: Peek<'_> = serde_json::from_slice(&message.data).map_err(wrong)?;
        let stream = match &*peek.kind {
            "stdout" => StreamName::Stdout,
            "stderr" => StreamName::Stderr,
            "start" | "dropped" | "complete" | "error" => {
                let event = serde_json::from_slice(&message.data).map_err(wrong)?;
                return self.milestone(event, message);
            }
            // A later release may tell more.
            _ => return Ok(None),
        };
        let Some(mut bytes) = decode(OutputEncoding::Base64, peek.data) else {
            return Err(self.unexpected("output that is no base64"));
        };
        let fresh = self.advance(stream, bytes.len() as u64, message)?;
        if fresh == 0 {
            return Ok(None);
        }
        // The rest of the event was delivered before the connection was lost.
        let bytes = bytes.split_off(bytes.len() - usize::try_from(fresh).unwrap_or(bytes.len()));
        Ok(Some(match stream {
            StreamName::Stdout => ExecEvent::Stdout(bytes),
            StreamName::Stderr => ExecEvent::Stderr(bytes),
        }))
    }
}

impl Follow {
    fn milestone(&mut self, event: WireEvent, message: &Message) -> Result<Option<ExecEvent>, ClientError> {
        Ok(match event {
            WireEvent::Start { command, session_id, timestamp, .. } => {
                let first = !std::mem::replace(&mut self.started, true);
                first.then_some(ExecEvent::Start { command, session_id, timestamp })
            }
            WireEvent::Dropped { stream, bytes, .. } => {
                let bytes = self.advance(stream, bytes, message)?;
                (bytes > 0).then_some(ExecEvent::Dropped { stream, bytes })
            }
            WireEvent::Complete { outcome, .. } => {
                self.ended = true;
                Some(ExecEvent::Complete(outcome))
            }
            WireEvent::Error { detail, .. } => return Err((*detail).into()),
            WireEvent::Stdout { .. } | WireEvent::Stderr { .. } => None,
        })
    }

    fn advance(&mut self, stream: StreamName, length: u64, message: &Message) -> Result<u64, ClientError> {
        self.offsets.advance(stream, length, message).map_err(|reason| self.unexpected(reason))
    }
}

/// Raw bytes of stdout and stderr that the caller has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Offsets(pub(crate) [u64; 2]);

impl Offsets {
    /// Moves past an event of `length` raw bytes, which ends where its id says, and gives how many of them, counted from
    /// its end, are new; an error says what is wrong with the event.
    pub(crate) fn advance(
        &mut self,
        stream: StreamName,
        length: u64,
        message: &Message,
    ) -> Result<u64, &'static str> {
        let index = match stream {
            StreamName::Stdout => 0,
            StreamName::Stderr => 1,
        };
        let have = self.0[index];
        let end = match &message.id {
            Some(id) => parse_id(id).ok_or("an event whose id is no pair of offsets")?[index],
            None => have.saturating_add(length),
        };
        if end <= have {
            return Ok(0);
        }
        if end - have > length {
            return Err("a stream with a gap that it does not tell of");
        }
        self.0[index] = end;
        Ok(end - have)
    }
}

/// `OUT-ERR`: up to where stdout and stderr have been sent.
fn parse_id(id: &[u8]) -> Option<[u64; 2]> {
    let (stdout, stderr) = std::str::from_utf8(id).ok()?.split_once('-')?;
    Some([stdout.parse().ok()?, stderr.parse().ok()?])
}

//! A process's log, read as it is written.

use crate::ClientError;
use crate::exec::decode;
use crate::follow::Offsets;
use crate::path::Query;
use crate::processes::Process;
use crate::resume::{self, Events, Source};
use crate::sse::Message;
use crate::transport::{Call, Transport};
use bytes::Bytes;
use futures_util::Stream;
use sandcrab_api::exec::{OutputEncoding, StreamName};
use sandcrab_api::limits::MAX_COMMAND_BYTES;
use sandcrab_api::process::{ProcessExit, ProcessLogEvent, ProcessStatus};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

/// The longest event: one that names the longest command, whose bytes may take six in JSON.
pub(crate) const MAX_EVENT_BYTES: usize = 6 * MAX_COMMAND_BYTES + (1 << 20);

/// What a process's log tells.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LogEvent {
    /// The process as it stood when the log was opened; the first event.
    Info {
        /// The text that runs.
        command: String,
        /// Where it stood.
        status: ProcessStatus,
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
    Exit(ProcessExit),
}

/// A process's log, without a gap that it does not tell of and without a repeat. When the connection is lost it goes on
/// where it broke off. Dropping it leaves the process running.
///
/// The stream ends after [`LogEvent::Exit`] or after an error.
#[must_use = "streams do nothing unless polled"]
pub struct LogStream {
    events: Events<LogEvent>,
}

impl LogStream {
    pub(crate) async fn open(process: Process, offsets: [u64; 2]) -> Result<Self, ClientError> {
        let call = call(&process, offsets);
        let source = Follow { process, offsets: Offsets(offsets), begun: false, ended: false };
        Ok(Self { events: resume::open(source, &call).await? })
    }

    /// The next event; `None` after the last.
    ///
    /// # Errors
    /// What the process failed with (`PROCESS_ERROR`), or [`ClientError::LogLost`].
    pub async fn next(&mut self) -> Option<Result<LogEvent, ClientError>> {
        std::future::poll_fn(|cx| self.events.as_mut().poll_next(cx)).await
    }
}

impl Stream for LogStream {
    type Item = Result<LogEvent, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.events.as_mut().poll_next(cx)
    }
}

impl std::fmt::Debug for LogStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogStream").finish_non_exhaustive()
    }
}

fn call(process: &Process, [stdout, stderr]: [u64; 2]) -> Call {
    let query = Query::new(process.path("/logs/stream"))
        .with("stdoutOffset", &stdout.to_string())
        .with("stderrOffset", &stderr.to_string())
        .with("encoding", "base64");
    Call::get("streamProcessLogs", query.finish()).unbounded()
}

/// A log in the middle.
struct Follow {
    process: Process,
    offsets: Offsets,
    begun: bool,
    ended: bool,
}

impl Source for Follow {
    type Event = LogEvent;
    const OPERATION: &'static str = "streamProcessLogs";
    const MAX_EVENT_BYTES: usize = MAX_EVENT_BYTES;

    fn transport(&self) -> &Transport {
        &self.process.target.transport
    }

    fn rest(&self) -> Call {
        call(&self.process, self.offsets.0)
    }

    fn has_ended(&self) -> bool {
        self.ended
    }

    fn lost(
        &self,
        tried_for: Duration,
        source: Option<Box<ClientError>>,
    ) -> Result<ClientError, ClientError> {
        Ok(ClientError::LogLost { process_id: self.process.id.clone(), tried_for, source })
    }

    fn accept(&mut self, message: &Message) -> Result<Option<LogEvent>, ClientError> {
        let Ok(event) = serde_json::from_slice::<ProcessLogEvent>(&message.data) else {
            // A later release may tell more.
            let known = serde_json::from_slice::<serde_json::Value>(&message.data).is_ok();
            return if known { Ok(None) } else { Err(self.unexpected("an event that is no JSON")) };
        };
        Ok(match event {
            ProcessLogEvent::ProcessInfo { command, status, .. } => {
                let first = !std::mem::replace(&mut self.begun, true);
                first.then_some(LogEvent::Info { command, status })
            }
            ProcessLogEvent::Stdout { data, .. } => {
                self.data(StreamName::Stdout, data, message)?.map(LogEvent::Stdout)
            }
            ProcessLogEvent::Stderr { data, .. } => {
                self.data(StreamName::Stderr, data, message)?.map(LogEvent::Stderr)
            }
            ProcessLogEvent::Dropped { stream, bytes, .. } => {
                let bytes = self.advance(stream, bytes, message)?;
                (bytes > 0).then_some(LogEvent::Dropped { stream, bytes })
            }
            ProcessLogEvent::Exit { exit_code, status, .. } => {
                self.ended = true;
                Some(LogEvent::Exit(ProcessExit { exit_code, status }))
            }
            ProcessLogEvent::Error { detail, .. } => return Err((*detail).into()),
        })
    }
}

impl Follow {
    fn data(
        &mut self,
        stream: StreamName,
        data: String,
        message: &Message,
    ) -> Result<Option<Bytes>, ClientError> {
        let Some(mut bytes) = decode(OutputEncoding::Base64, data.into()) else {
            return Err(self.unexpected("output that is no base64"));
        };
        let fresh = self.advance(stream, bytes.len() as u64, message)?;
        // The rest of the event was delivered before the connection was lost.
        let fresh = bytes.split_off(bytes.len() - usize::try_from(fresh).unwrap_or(bytes.len()));
        Ok((!fresh.is_empty()).then_some(fresh))
    }

    fn advance(&mut self, stream: StreamName, length: u64, message: &Message) -> Result<u64, ClientError> {
        self.offsets.advance(stream, length, message).map_err(|reason| self.unexpected(reason))
    }
}

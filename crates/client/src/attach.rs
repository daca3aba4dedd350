//! A process that is talked with over a WebSocket.

use crate::ClientError;
use crate::exec::decode;
use crate::log::{LogEvent, MAX_EVENT_BYTES};
use crate::path::Query;
use crate::processes::Process;
use crate::transport::{Call, WebSocket};
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, Stream, StreamExt as _};
use sandcrab_api::exec::OutputEncoding;
use sandcrab_api::process::{AttachCommand, ProcessExit, ProcessLogEvent};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio_tungstenite::tungstenite::{Error, Message};

const OPERATION: &str = "attachProcess";
/// The longest piece of stdin in one message: well below what a message may have, and little to hold.
const PIECE: usize = 64 << 10;

/// A conversation with a process. Dropping it leaves the process running.
#[derive(Debug)]
pub struct Attached {
    input: AttachedInput,
    output: AttachedOutput,
}

/// What the process reads.
pub struct AttachedInput {
    process: Process,
    socket: SplitSink<WebSocket, Message>,
}

/// What the process writes, and its end. Also a stream.
#[must_use = "a process that writes waits for its reader"]
pub struct AttachedOutput {
    process: Process,
    socket: SplitStream<WebSocket>,
    ended: bool,
}

impl Attached {
    pub(crate) async fn open(process: &Process, [stdout, stderr]: [u64; 2]) -> Result<Self, ClientError> {
        let query = Query::new(process.path("/attach"))
            .with("stdoutOffset", &stdout.to_string())
            .with("stderrOffset", &stderr.to_string())
            .with("encoding", "base64");
        let call = Call::get(OPERATION, query.finish()).limit(MAX_EVENT_BYTES);
        let (sink, stream) = process.target.transport.websocket(&call).await?.split();
        Ok(Self {
            input: AttachedInput { process: process.clone(), socket: sink },
            output: AttachedOutput { process: process.clone(), socket: stream, ended: false },
        })
    }

    /// Writes to its stdin; see [`AttachedInput::write`].
    ///
    /// # Errors
    /// As there.
    pub async fn write(&mut self, bytes: impl Into<Bytes>) -> Result<(), ClientError> {
        self.input.write(bytes).await
    }

    /// Closes its stdin; see [`AttachedInput::end`].
    ///
    /// # Errors
    /// As there.
    pub async fn end(&mut self) -> Result<(), ClientError> {
        self.input.end().await
    }

    /// The next event; see [`AttachedOutput::next`].
    ///
    /// # Errors
    /// As there.
    pub async fn next(&mut self) -> Option<Result<LogEvent, ClientError>> {
        self.output.next().await
    }

    /// Both directions apart, for tasks of their own. The connection closes when both are dropped.
    pub fn split(self) -> (AttachedInput, AttachedOutput) {
        (self.input, self.output)
    }
}

impl AttachedInput {
    /// Writes to its stdin. Waits while the process does not read what was sent before, as soon as the buffers on the way
    /// are full. What cannot be written, to a process that is not interactive for one, is told by the output.
    ///
    /// # Errors
    /// [`ClientError::Detached`].
    pub async fn write(&mut self, bytes: impl Into<Bytes>) -> Result<(), ClientError> {
        let mut bytes = bytes.into();
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(PIECE));
            self.send(Message::Binary(piece)).await?;
        }
        Ok(())
    }

    /// Closes its stdin: it reads what was written, and then the end.
    ///
    /// # Errors
    /// [`ClientError::Detached`].
    pub async fn end(&mut self) -> Result<(), ClientError> {
        // Of a word alone: this cannot fail.
        let text = serde_json::to_string(&AttachCommand::End).unwrap_or_default();
        self.send(Message::text(text)).await
    }

    async fn send(&mut self, message: Message) -> Result<(), ClientError> {
        self.socket.send(message).await.map_err(|error| detached(&self.process, Some(error)))
    }
}

impl AttachedOutput {
    /// The next event; `None` after the last, which is [`LogEvent::Exit`] or an error.
    ///
    /// # Errors
    /// What the process failed with (`PROCESS_ERROR`), `VALIDATION_FAILED` if something was written to a process that is
    /// not interactive, [`ClientError::Detached`].
    pub async fn next(&mut self) -> Option<Result<LogEvent, ClientError>> {
        std::future::poll_fn(|cx| self.poll_event(cx)).await
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<LogEvent, ClientError>>> {
        while !self.ended {
            let message = match std::task::ready!(self.socket.poll_next_unpin(cx)) {
                Some(Ok(Message::Text(text))) => self.event(text.as_bytes()),
                Some(Ok(Message::Close(_)) | Err(Error::ConnectionClosed)) | None => {
                    Err(detached(&self.process, None))
                }
                Some(Ok(_)) => Ok(None),
                Some(Err(error)) => Err(detached(&self.process, Some(error))),
            };
            self.ended = matches!(message, Ok(Some(LogEvent::Exit(_))) | Err(_));
            if let Some(event) = message.transpose() {
                return Poll::Ready(Some(event));
            }
        }
        Poll::Ready(None)
    }

    fn event(&self, json: &[u8]) -> Result<Option<LogEvent>, ClientError> {
        let unexpected =
            |reason: &str| self.process.target.transport.unexpected(OPERATION, 101, reason.to_owned());
        let Ok(event) = serde_json::from_slice::<ProcessLogEvent>(json) else {
            // A later release may tell more.
            let known = serde_json::from_slice::<serde_json::Value>(json).is_ok();
            return if known { Ok(None) } else { Err(unexpected("and then an event that is no JSON")) };
        };
        let bytes = |data: String| {
            decode(OutputEncoding::Base64, data.into())
                .ok_or_else(|| unexpected("and then output that is no base64"))
        };
        Ok(Some(match event {
            ProcessLogEvent::ProcessInfo { command, status, .. } => LogEvent::Info { command, status },
            ProcessLogEvent::Stdout { data, .. } => LogEvent::Stdout(bytes(data)?),
            ProcessLogEvent::Stderr { data, .. } => LogEvent::Stderr(bytes(data)?),
            ProcessLogEvent::Dropped { stream, bytes, .. } => LogEvent::Dropped { stream, bytes },
            ProcessLogEvent::Exit { exit_code, status, .. } => {
                LogEvent::Exit(ProcessExit { exit_code, status })
            }
            ProcessLogEvent::Error { detail, .. } => return Err((*detail).into()),
        }))
    }
}

impl Stream for AttachedOutput {
    type Item = Result<LogEvent, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_event(cx)
    }
}

impl std::fmt::Debug for AttachedInput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AttachedInput").field("process", &self.process).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for AttachedOutput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AttachedOutput").field("process", &self.process).finish_non_exhaustive()
    }
}

fn detached(process: &Process, source: Option<Error>) -> ClientError {
    ClientError::Detached { process_id: process.id.clone(), source: source.map(Into::into) }
}

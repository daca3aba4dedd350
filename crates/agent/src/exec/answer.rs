//! A command's result and its stream as bytes on the wire.
//!
//! Short output goes out in one piece. Long output is read from the disk, encoded and sent in pieces, so that neither
//! agent nor server ever holds it whole.

use super::execution::{Execution, Finish, Reader, Step};
use super::spool::Piece;
use super::text::Encoder;
use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use sandcrab_api::exec::{ExecEvent, ExecOutcome, OutputEncoding, StreamName};
use sandcrab_api::time::Timestamp;
use sandcrab_api::{ApiError, ErrorCode};
use serde::Serialize;
use std::sync::Arc;

/// Output up to this many bytes is sent in one piece, with its length.
const WHOLE: u64 = 256 << 10;
/// Bytes of output in one piece of a longer answer: whole groups of three, so that base64 holds nothing back.
const PIECE: usize = 192 << 10;
/// Bytes of output in one event of a stream: long enough to be cheap, short enough for a reader to see it move.
const EVENT: usize = 64 << 10;
/// Bytes of each stream that an error carries.
const IN_ERROR: usize = 64 << 10;

/// The fields before the output. Order is free in JSON: `invalidUtf8` is known only behind the output.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Head<'a> {
    success: bool,
    #[serde(flatten)]
    outcome: &'a ExecOutcome,
    command: &'a str,
    exec_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<&'a str>,
    timestamp: Timestamp,
    encoding: OutputEncoding,
}

/// The answer to `exec`: the whole result, as soon as there is one.
pub(crate) async fn result(
    execution: Arc<Execution>,
    encoding: OutputEncoding,
) -> Result<Response, ApiError> {
    let outcome = match execution.finished().await {
        // Counted now: output may have been given up since the command ended.
        Finish::Outcome(outcome) => ExecOutcome { truncated: execution.truncated(), ..outcome },
        Finish::Failed(error) => return Err(*error),
    };
    let head = Head {
        success: outcome.exit_code == 0,
        outcome: &outcome,
        command: &execution.command,
        exec_id: execution.id.as_str(),
        session_id: execution.session_id.as_ref().map(|id| id.as_str()),
        timestamp: execution.started().unwrap_or_else(Timestamp::now),
        encoding,
    };
    let mut start = serde_json::to_vec(&head).map_err(|error| broken(&execution, &error))?;
    start.pop();
    let body = with_output(Arc::clone(&execution), start, encoding, [u64::MAX; 2]);
    let body = body.map_err(|error| broken(&execution, &error))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

fn broken(execution: &Execution, error: &dyn std::error::Error) -> ApiError {
    let message = format!("the output of command {} could not be read back: {error}", execution.id);
    ApiError::new(ErrorCode::FilesystemError, message).during("exec").with("execId", execution.id.as_str())
}

/// Both streams of something's output.
pub(crate) trait Output: Send + Sync + 'static {
    /// Reads one stream at a raw byte offset.
    fn read_at(&self, stream: StreamName, offset: u64, buffer: &mut [u8]) -> std::io::Result<Piece>;

    /// Bytes of both streams that are kept now.
    fn kept(&self) -> u64;
}

/// A JSON object that begins with `start`, which lacks its `}`, and goes on with `invalidUtf8`, `stdout` and `stderr`, each
/// up to the offset in `until`.
pub(crate) fn with_output(
    source: Arc<impl Output>,
    mut start: Vec<u8>,
    encoding: OutputEncoding,
    until: [u64; 2],
) -> std::io::Result<Body> {
    start.extend_from_slice(b",\"stdout\":\"");
    let mut writer = ResultWriter {
        at: 0,
        until,
        stream: StreamName::Stdout,
        encoder: Encoder::new(encoding),
        buffer: Vec::new(),
        invalid: false,
        done: false,
    };
    if source.kept() <= WHOLE {
        while !writer.done {
            writer.write(&*source, &mut start)?;
        }
        return Ok(Body::from(start));
    }
    let state = (source, writer, Some(start));
    Ok(Body::from_stream(stream::try_unfold(state, |(source, mut writer, start)| async move {
        if writer.done {
            return Ok::<_, std::io::Error>(None);
        }
        let mut out = start.unwrap_or_default();
        writer.write(&*source, &mut out)?;
        // Other sessions of this sandbox are served between two pieces.
        tokio::task::yield_now().await;
        Ok(Some((Bytes::from(out), (source, writer, None))))
    })))
}

/// Writes `STDOUT","stderr":"STDERR"}` piece by piece.
struct ResultWriter {
    at: u64,
    until: [u64; 2],
    stream: StreamName,
    encoder: Encoder,
    buffer: Vec<u8>,
    invalid: bool,
    done: bool,
}

impl ResultWriter {
    fn write(&mut self, source: &impl Output, out: &mut Vec<u8>) -> std::io::Result<()> {
        self.buffer.resize(PIECE.min(source.kept() as usize + 1), 0);
        loop {
            let left = self.until[self.stream as usize].saturating_sub(self.at);
            let room = left.min(self.buffer.len() as u64) as usize;
            let piece = match room {
                0 => Piece::End,
                _ => source.read_at(self.stream, self.at, &mut self.buffer[..room])?,
            };
            match piece {
                Piece::Bytes(count) => {
                    self.at += count as u64;
                    self.encoder.push_json(&self.buffer[..count], false, out);
                    if count < self.buffer.len() && out.len() < PIECE {
                        continue;
                    }
                    return Ok(());
                }
                // A character that is cut by the hole cannot be completed behind it; base64 goes on without padding.
                Piece::Dropped(count) => {
                    self.at += count;
                    self.encoder.gap(out);
                }
                Piece::End => break,
            }
        }
        self.encoder.push_json(&[], true, out);
        self.invalid |= self.encoder.invalid_utf8();
        match self.stream {
            StreamName::Stdout => {
                self.stream = StreamName::Stderr;
                self.at = 0;
                self.encoder.reset();
                out.extend_from_slice(b"\",\"stderr\":\"");
            }
            StreamName::Stderr => {
                self.done = true;
                out.extend_from_slice(if self.invalid { b"\",\"invalidUtf8\":true}" } else { b"\"}" });
            }
        }
        Ok(())
    }
}

/// The beginning of what a stream holds, for an error's context.
pub(crate) fn excerpt(execution: &Execution, stream: StreamName) -> String {
    let mut buffer = vec![0; IN_ERROR];
    let mut filled = 0;
    while filled < buffer.len() {
        match execution.read_at(stream, filled as u64, &mut buffer[filled..]) {
            Ok(Piece::Bytes(count)) => filled += count,
            _ => break,
        }
    }
    String::from_utf8_lossy(&buffer[..filled]).into_owned()
}

struct Events {
    reader: Reader,
    encoding: OutputEncoding,
    encoders: [Encoder; 2],
    buffer: Vec<u8>,
    begun: bool,
    done: bool,
}

/// The answer to `execStream`: events from raw byte offsets on, to the command's end.
pub(crate) fn events(execution: &Arc<Execution>, encoding: OutputEncoding, offsets: [u64; 2]) -> Response {
    let state = Events {
        reader: execution.reader(offsets),
        encoding,
        encoders: [Encoder::new(encoding), Encoder::new(encoding)],
        buffer: vec![0; EVENT],
        begun: false,
        done: false,
    };
    let body = Body::from_stream(stream::unfold(state, |mut state| async move {
        if state.done {
            return None;
        }
        let bytes = state.next().await;
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(bytes)), state))
    }));
    ([(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")], body).into_response()
}

impl Events {
    async fn next(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        if !self.begun {
            self.begun = true;
            if let Some(timestamp) = self.reader.execution().left_queue().await {
                let execution = self.reader.execution();
                let start = ExecEvent::Start {
                    command: execution.command.clone(),
                    exec_id: execution.id.clone(),
                    session_id: execution.session_id.clone(),
                    timestamp,
                };
                self.write(&start, &mut out);
                return out;
            }
        }
        while out.is_empty() {
            let mut buffer = std::mem::take(&mut self.buffer);
            let step = self.reader.next(&mut buffer).await;
            match step {
                Ok(Step::Bytes(stream, count)) => self.data(stream, &buffer[..count], false, &mut out),
                Ok(Step::Dropped(stream, bytes)) => {
                    self.data(stream, &[], true, &mut out);
                    self.write(&ExecEvent::Dropped { stream, bytes, timestamp: Timestamp::now() }, &mut out);
                }
                Ok(Step::End(timestamp, finish)) => {
                    self.data(StreamName::Stdout, &[], true, &mut out);
                    self.data(StreamName::Stderr, &[], true, &mut out);
                    let last = match finish {
                        Finish::Outcome(outcome) => ExecEvent::Complete { outcome, timestamp },
                        Finish::Failed(error) => {
                            ExecEvent::Error { error: error.message.clone(), detail: error, timestamp }
                        }
                    };
                    self.write(&last, &mut out);
                    self.done = true;
                }
                Err(error) => {
                    let error = broken(self.reader.execution(), &error);
                    let last = ExecEvent::Error {
                        error: error.message.clone(),
                        detail: Box::new(error),
                        timestamp: Timestamp::now(),
                    };
                    self.write(&last, &mut out);
                    self.done = true;
                }
            }
            self.buffer = buffer;
        }
        out
    }

    /// One event of output; none while all that came is a part of a character.
    fn data(&mut self, stream: StreamName, bytes: &[u8], last: bool, out: &mut Vec<u8>) {
        let mut text = Vec::new();
        let encoder = &mut self.encoders[stream as usize];
        // Each event is base64 of its own, so that no byte waits for two more to be written.
        encoder.push_json(bytes, last || self.encoding == OutputEncoding::Base64, &mut text);
        if text.is_empty() {
            return;
        }
        let name = if stream == StreamName::Stdout { "stdout" } else { "stderr" };
        self.begin(out);
        out.extend_from_slice(b"{\"type\":\"");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\",\"data\":\"");
        out.extend_from_slice(&text);
        out.extend_from_slice(format!("\",\"timestamp\":\"{}\"}}\n\n", Timestamp::now()).as_bytes());
    }

    /// The id says how far the reader has come, less what still waits for the rest of its character: a client that
    /// resumes there gets those bytes again.
    fn begin(&self, out: &mut Vec<u8>) {
        let [stdout, stderr] = self.reader.offsets();
        let stdout = stdout - self.encoders[0].waiting() as u64;
        let stderr = stderr - self.encoders[1].waiting() as u64;
        out.extend_from_slice(format!("id: {stdout}-{stderr}\ndata: ").as_bytes());
    }

    fn write(&self, event: &ExecEvent, out: &mut Vec<u8>) {
        self.begin(out);
        // Writing to a Vec cannot fail, and the type has no keys that are not text.
        let _ = serde_json::to_writer(&mut *out, event);
        out.extend_from_slice(b"\n\n");
    }
}

//! A process's log on the wire: as one answer, and as a stream of events that replays and then follows.

use super::log::{Reader, Step};
use super::process::{Process, Waiter};
use crate::exec::answer::with_output;
use crate::exec::text::Encoder;
use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use sandcrab_api::exec::{OutputEncoding, StreamName, Truncated};
use sandcrab_api::process::ProcessLogEvent;
use sandcrab_api::time::Timestamp;
use sandcrab_api::{ApiError, ErrorCode};
use serde::Serialize;
use std::sync::Arc;

/// Bytes of output in one event.
const EVENT: usize = 64 << 10;

fn broken(process: &Process, error: &dyn std::error::Error) -> ApiError {
    let message = format!("the log of process {:?} could not be read back: {error}", process.id);
    ApiError::new(ErrorCode::FilesystemError, message).with("processId", process.id.as_str())
}

/// The fields before the output.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Head<'a> {
    process_id: &'a str,
    encoding: OutputEncoding,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated: Option<Truncated>,
}

/// All that is kept at this moment.
pub(super) fn logs(process: &Process, encoding: OutputEncoding) -> Result<Response, ApiError> {
    let head = Head { process_id: process.id.as_str(), encoding, truncated: process.log.truncated() };
    let mut start = serde_json::to_vec(&head).map_err(|error| broken(process, &error))?;
    start.pop();
    // Bounded by what is written now: a process may write faster than anyone reads.
    let body = with_output(Arc::clone(&process.log), start, encoding, process.log.written());
    let body = body.map_err(|error| broken(process, &error))?;
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// A log's events, one after the other.
pub(super) struct Events {
    process: Arc<Process>,
    reader: Reader,
    encoding: OutputEncoding,
    encoders: [Encoder; 2],
    buffer: Vec<u8>,
    begun: bool,
    done: bool,
    _waiter: Waiter,
}

impl Events {
    /// Events from raw byte offsets on.
    ///
    /// # Errors
    /// `QUOTA_EXCEEDED` when too many follow already.
    pub(super) fn new(
        process: Arc<Process>,
        encoding: OutputEncoding,
        offsets: [u64; 2],
    ) -> Result<Self, ApiError> {
        let waiter = process.waiter()?;
        Ok(Self {
            reader: process.log.reader(offsets),
            process,
            encoding,
            encoders: [Encoder::new(encoding), Encoder::new(encoding)],
            buffer: vec![0; EVENT],
            begun: false,
            done: false,
            _waiter: waiter,
        })
    }

    /// As server-sent events.
    pub(super) fn response(self) -> Response {
        let body = Body::from_stream(stream::unfold(self, |mut events| async move {
            let mut out = Vec::new();
            while out.is_empty() {
                let (id, json) = events.next().await?;
                for part in [b"id: ", id.as_bytes(), b"\ndata: ", &json, b"\n\n"] {
                    out.extend_from_slice(part);
                }
            }
            Some((Ok::<_, std::convert::Infallible>(Bytes::from(out)), events))
        }));
        let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
        (headers, body).into_response()
    }

    /// The next event, as its id and its JSON; none after the last. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<(String, Vec<u8>)> {
        if self.done {
            return None;
        }
        if !self.begun {
            self.begun = true;
            let event = ProcessLogEvent::ProcessInfo {
                process_id: self.process.id.clone(),
                command: self.process.command.clone(),
                status: self.process.info().status,
                timestamp: Timestamp::now(),
            };
            return Some(self.event(&event));
        }
        loop {
            let json = match self.reader.next(&mut self.buffer).await {
                Ok(Step::Bytes(stream, count)) => self.data(stream, Some(count)),
                Ok(Step::Dropped(stream, bytes)) => {
                    // Half a character before the hole stays half a one.
                    let mut half = Vec::new();
                    self.encoders[stream as usize].gap(&mut half);
                    let process_id = self.process.id.clone();
                    let timestamp = Timestamp::now();
                    return Some(self.event(&ProcessLogEvent::Dropped {
                        stream,
                        bytes,
                        process_id,
                        timestamp,
                    }));
                }
                Ok(Step::End) => match self.rest() {
                    Some(json) => Some(json),
                    None => {
                        let last = self.last().await;
                        self.done = true;
                        return Some(self.event(&last));
                    }
                },
                Err(error) => {
                    self.done = true;
                    let error = broken(&self.process, &error);
                    return Some(self.event(&self.error(error, Timestamp::now())));
                }
            };
            if let Some(json) = json {
                return Some((self.id(), json));
            }
        }
    }

    /// The log has ended before the process has, by a moment.
    async fn last(&self) -> ProcessLogEvent {
        let exit = self.process.ended().await;
        let timestamp = self.process.exit().map_or_else(Timestamp::now, |(at, _)| at);
        match exit {
            Ok(exit) => ProcessLogEvent::Exit {
                exit_code: exit.exit_code,
                process_id: self.process.id.clone(),
                status: exit.status,
                timestamp,
            },
            Err(error) => self.error(error, timestamp),
        }
    }

    fn error(&self, error: ApiError, timestamp: Timestamp) -> ProcessLogEvent {
        let process_id = self.process.id.clone();
        ProcessLogEvent::Error {
            error: error.message.clone(),
            detail: Box::new(error),
            process_id,
            timestamp,
        }
    }

    /// What still waits for the rest of a character that never comes.
    fn rest(&mut self) -> Option<Vec<u8>> {
        [StreamName::Stdout, StreamName::Stderr].into_iter().find_map(|stream| self.data(stream, None))
    }

    /// An event of the first bytes in the buffer, or of what is pending at the end; none while all that came is a part of
    /// a character.
    fn data(&mut self, stream: StreamName, count: Option<usize>) -> Option<Vec<u8>> {
        let mut text = Vec::new();
        // Each event is base64 of its own, so that no byte waits for two more to be written.
        let last = count.is_none() || self.encoding == OutputEncoding::Base64;
        self.encoders[stream as usize].push_json(&self.buffer[..count.unwrap_or(0)], last, &mut text);
        if text.is_empty() {
            return None;
        }
        let name = if stream == StreamName::Stdout { "stdout" } else { "stderr" };
        let mut out = Vec::with_capacity(text.len() + 128);
        out.extend_from_slice(format!("{{\"type\":\"{name}\",\"data\":\"").as_bytes());
        out.extend_from_slice(&text);
        let (id, now) = (&self.process.id, Timestamp::now());
        out.extend_from_slice(format!("\",\"processId\":\"{id}\",\"timestamp\":\"{now}\"}}").as_bytes());
        Some(out)
    }

    fn event(&self, event: &ProcessLogEvent) -> (String, Vec<u8>) {
        // The type has no keys that are not text.
        (self.id(), serde_json::to_vec(event).unwrap_or_default())
    }

    /// How far the reader has come, less what still waits for the rest of its character: a client that resumes there gets
    /// those bytes again.
    fn id(&self) -> String {
        let [stdout, stderr] = self.reader.offsets();
        let [out, err] = self.encoders.each_ref().map(|encoder| encoder.waiting() as u64);
        format!("{}-{}", stdout - out, stderr - err)
    }
}

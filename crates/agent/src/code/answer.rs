//! A run's result and its stream as bytes on the wire. Long output is read from the disk and sent record by record, so
//! that neither agent nor server ever holds it whole.

use super::journal::{Kind, Record};
use super::run::{Finish, Run};
use crate::exec::text::escape_json;
use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use sandcrab_api::code::{CodeEvent, RunOutcome};
use sandcrab_api::time::Timestamp;
use sandcrab_api::{ApiError, ErrorCode};
use serde::Serialize;
use std::sync::Arc;

/// A result up to this many bytes is sent in one piece, with its length.
const WHOLE: u64 = 256 << 10;
/// Bytes of a longer one in one piece.
const PIECE: usize = 256 << 10;
/// Bytes of output in one string of a result's `logs`: what is shorter comes as one, however it was written.
const STRING: usize = 1 << 20;

/// The fields before the output.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Head<'a> {
    code: &'a str,
    run_id: &'a str,
    context_id: &'a str,
    timestamp: Timestamp,
    #[serde(flatten)]
    outcome: &'a RunOutcome,
}

/// The answer to `runCode`: the whole result, as soon as there is one.
pub(super) async fn result(run: Arc<Run>) -> Result<Response, ApiError> {
    let outcome = match run.finished().await {
        Finish::Outcome(outcome) => outcome,
        Finish::Failed(error) => return Err(*error),
    };
    let head = Head {
        code: &run.request.code,
        run_id: run.id.as_str(),
        context_id: run.context.as_str(),
        timestamp: run.started().unwrap_or_else(Timestamp::now),
        outcome: &outcome,
    };
    let mut out = serde_json::to_vec(&head).map_err(|error| broken(&run, &error))?;
    out.pop();
    let mut writer = Writer::default();
    let body = if run.length() <= WHOLE {
        while writer.part < PARTS.len() {
            writer.write(&run, &mut out).map_err(|error| broken(&run, &error))?;
        }
        Body::from(out)
    } else {
        let state = (run, writer, Some(out));
        Body::from_stream(stream::try_unfold(state, |(run, mut writer, out)| async move {
            if writer.part == PARTS.len() {
                return Ok::<_, std::io::Error>(None);
            }
            let mut out = out.unwrap_or_default();
            writer.write(&run, &mut out)?;
            // Others of this sandbox are served between two pieces.
            tokio::task::yield_now().await;
            Ok(Some((Bytes::from(out), (run, writer, None))))
        }))
    };
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

fn broken(run: &Run, error: &dyn std::error::Error) -> ApiError {
    let message = format!("the output of run {} could not be read back: {error}", run.id);
    ApiError::new(ErrorCode::FilesystemError, message).with("runId", run.id.as_str())
}

/// What comes before each kind of record, in the order of the result's fields.
const PARTS: [(Kind, &str); 3] = [
    (Kind::Stdout, ",\"logs\":{\"stdout\":["),
    (Kind::Stderr, "],\"stderr\":["),
    (Kind::Result, "]},\"results\":["),
];

/// Writes `logs` and `results`, going through the records once for each kind.
#[derive(Default)]
struct Writer {
    at: u64,
    part: usize,
    /// Elements of this part's array that have begun.
    elements: usize,
    /// Bytes in the string that is open; none is.
    string: Option<usize>,
    opened: bool,
}

impl Writer {
    /// The next piece.
    fn write(&mut self, run: &Run, out: &mut Vec<u8>) -> std::io::Result<()> {
        let (kind, opening) = PARTS[self.part];
        if !std::mem::replace(&mut self.opened, true) {
            out.extend_from_slice(opening.as_bytes());
        }
        while out.len() < PIECE {
            let Some(record) = run.read(self.at)? else {
                self.close_string(out);
                *self = Self { part: self.part + 1, ..Self::default() };
                if self.part == PARTS.len() {
                    out.extend_from_slice(b"]}");
                }
                return Ok(());
            };
            self.at = record.next;
            if record.kind == kind {
                self.record(&record, out);
            }
        }
        Ok(())
    }

    fn record(&mut self, record: &Record, out: &mut Vec<u8>) {
        if self.string.is_none_or(|length| length >= STRING) {
            self.close_string(out);
            if self.elements > 0 {
                out.push(b',');
            }
            self.elements += 1;
            if record.kind == Kind::Result {
                out.extend_from_slice(&record.content);
                return;
            }
            out.push(b'"');
            self.string = Some(0);
        }
        // Written as text, and read back as it was.
        escape_json(&String::from_utf8_lossy(&record.content), out);
        self.string = self.string.map(|length| length + record.content.len());
    }

    fn close_string(&mut self, out: &mut Vec<u8>) {
        if self.string.take().is_some() {
            out.push(b'"');
        }
    }
}

/// The answer to `runCodeStream`: events from a position on, to the run's end.
pub(super) fn events(run: Arc<Run>, from: u64) -> Response {
    let state = Events { run, at: from, begun: false, done: false };
    let body = Body::from_stream(stream::unfold(state, |mut state| async move {
        if state.done {
            return None;
        }
        let mut out = Vec::new();
        state.next(&mut out).await;
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(out)), state))
    }));
    ([(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")], body).into_response()
}

struct Events {
    run: Arc<Run>,
    at: u64,
    begun: bool,
    done: bool,
}

impl Events {
    async fn next(&mut self, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.begun, true)
            && let Some(timestamp) = self.run.left_queue().await
        {
            let (run_id, context_id) = (self.run.id.clone(), self.run.context.clone());
            return self.event(&CodeEvent::Start { run_id, context_id, timestamp }, out);
        }
        match self.run.next(self.at).await {
            Ok(Ok(record)) => {
                self.record(&record, out);
                // What else is there already goes along.
                while out.len() < PIECE
                    && let Ok(Some(record)) = self.run.read(self.at)
                {
                    self.record(&record, out);
                }
            }
            Ok(Err(finish)) => self.end(finish, out),
            Err(error) => self.end(Finish::Failed(Box::new(broken(&self.run, &error))), out),
        }
    }

    fn record(&mut self, record: &Record, out: &mut Vec<u8>) {
        self.at = record.next;
        self.begin(out);
        let name = match record.kind {
            Kind::Stdout => "stdout",
            Kind::Stderr => "stderr",
            Kind::Result => {
                out.extend_from_slice(b"{\"type\":\"result\"");
                // What follows the opening brace: nothing but the closing one, or fields.
                let rest = record.content.get(1..).unwrap_or(b"}");
                out.extend_from_slice(if rest == b"}" { b"" } else { b"," });
                out.extend_from_slice(rest);
                return out.extend_from_slice(b"\n\n");
            }
        };
        out.extend_from_slice(format!("{{\"type\":\"{name}\",\"text\":\"").as_bytes());
        escape_json(&String::from_utf8_lossy(&record.content), out);
        out.extend_from_slice(b"\"}\n\n");
    }

    fn end(&mut self, finish: Finish, out: &mut Vec<u8>) {
        self.done = true;
        let event = match finish {
            Finish::Outcome(outcome) => match &outcome.error {
                None => CodeEvent::ExecutionComplete {
                    execution_count: outcome.execution_count,
                    outcome: *outcome,
                },
                Some(error) => CodeEvent::Error {
                    ename: error.name.clone(),
                    evalue: error.value.clone(),
                    traceback: error.traceback.clone(),
                    outcome: Some(*outcome),
                    detail: None,
                },
            },
            Finish::Failed(error) => CodeEvent::Error {
                ename: error.code.as_str().to_owned(),
                evalue: error.message.clone(),
                traceback: Vec::new(),
                outcome: None,
                detail: Some(error),
            },
        };
        self.event(&event, out);
    }

    /// The id says how far the reader has come.
    fn begin(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("id: {}\ndata: ", self.at).as_bytes());
    }

    fn event(&self, event: &CodeEvent, out: &mut Vec<u8>) {
        self.begin(out);
        // Writing to a Vec cannot fail, and the type has no keys that are not text.
        let _ = serde_json::to_writer(&mut *out, event);
        out.extend_from_slice(b"\n\n");
    }
}

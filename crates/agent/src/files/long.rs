//! Long answers in JSON: made in pieces, within the room that the sandbox's memory limit leaves (attack B14).

use super::error::{FileError, Reason};
use super::read::{Description, complete_text};
use super::root::{Access, FilePath};
use super::stream::Content;
use super::{Files, joined};
use crate::exec::text::escape_json;
use crate::room::{Held, Room};
use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use futures_util::stream::{iter, once, unfold};
use futures_util::{Stream, StreamExt};
use sandcrab_api::files::{FileEncoding, ListFiles, ReadFileResult};
use sandcrab_api::limits;
use sandcrab_api::time::Timestamp;
use sandcrab_api::{ApiError, ErrorCode};
use serde::Serialize;
use std::sync::Arc;

/// Bytes of one piece.
const PIECE: usize = 64 << 10;
/// A file up to this many bytes is read and written as JSON in one go.
const SHORT: u64 = 256 << 10;
/// What reading a longer one holds: two pieces of the file, one of them as JSON.
const READER: usize = 1 << 20;

/// JSON that is gathered in pieces, so that it is neither moved as it grows nor held after it was sent.
pub(super) struct Gathered {
    pieces: Vec<Bytes>,
    current: Vec<u8>,
    length: usize,
    /// What else is held for it, in bytes.
    beside: usize,
    held: Held,
}

impl Gathered {
    pub(super) fn new(room: &Arc<Room>) -> Self {
        Self { pieces: Vec::new(), current: Vec::new(), length: 0, beside: 0, held: room.nothing() }
    }

    /// Adds a value, or bytes of JSON around values.
    pub(super) fn push<T: Serialize>(&mut self, before: &[u8], value: &T) -> Result<(), Reason> {
        self.current.extend_from_slice(before);
        // Writing to a Vec cannot fail, and no type here has keys that are not text.
        let _ = serde_json::to_writer(&mut self.current, value);
        if self.current.len() >= PIECE {
            let full = std::mem::replace(&mut self.current, Vec::with_capacity(PIECE + (PIECE >> 2)));
            self.length += full.capacity();
            self.pieces.push(Bytes::from(full));
            self.hold()?;
        }
        Ok(())
    }

    /// Counts what is held beside the JSON.
    pub(super) fn beside(&mut self, bytes: usize) -> Result<(), Reason> {
        self.beside = bytes;
        self.hold()
    }

    fn hold(&mut self) -> Result<(), Reason> {
        self.held.resize(self.length + self.beside).map_err(|error| match error.code {
            ErrorCode::QuotaExceeded => Reason::NoRoom,
            _ => Reason::TooMuch,
        })
    }

    /// The body of an answer; what it holds is given back when it has been sent.
    fn into_body(mut self, end: &[u8]) -> Body {
        self.current.extend_from_slice(end);
        if self.pieces.is_empty() {
            return Body::from(self.current);
        }
        let Self { mut pieces, current, held, .. } = self;
        pieces.push(Bytes::from(current));
        Body::from_stream(iter(pieces).map(move |piece| {
            let _held = &held;
            Ok::<_, std::convert::Infallible>(piece)
        }))
    }
}

/// The fields around the entries.
#[derive(Serialize)]
struct Listed<'a> {
    success: bool,
    path: &'a str,
    timestamp: Timestamp,
}

/// The fields before the content.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Head<'a> {
    success: bool,
    path: &'a str,
    encoding: FileEncoding,
    is_binary: bool,
    mime_type: &'a str,
    size: u64,
    timestamp: Timestamp,
}

/// A file that is read for one answer.
enum Whole {
    Short(Box<ReadFileResult>),
    Long(Content, Vec<u8>, FileEncoding),
}

impl Access<'_> {
    fn whole(
        &self,
        files: &Files,
        path: &FilePath,
        encoding: Option<FileEncoding>,
    ) -> Result<Whole, FileError> {
        let mut file = self.open_file(path)?;
        if file.size <= SHORT {
            return Ok(Whole::Short(Box::new(self.read_file(path, encoding)?)));
        }
        if file.size > limits::MAX_READ_BYTES {
            return Err(path.fail(Reason::TooLarge { size: file.size }));
        }
        let size = file.size;
        let first = file.next(super::stream::PIECE)?;
        let (Description { is_binary, mime_type }, is_utf8) = file.look_through(&first)?;
        let wanted = encoding.unwrap_or(if is_binary { FileEncoding::Base64 } else { FileEncoding::Utf8 });
        let encoding = if is_utf8 { wanted } else { FileEncoding::Base64 };
        let timestamp = Timestamp::now();
        let head = Head { success: true, path: &path.asked, encoding, is_binary, mime_type, size, timestamp };
        let mut json = serde_json::to_vec(&head).unwrap_or_default();
        json.pop();
        json.extend_from_slice(b",\"content\":\"");
        let description = Description { is_binary, mime_type };
        Ok(Whole::Long(Content::new(description, first, file, files.clone(), "readFile"), json, encoding))
    }
}

impl Files {
    /// Reads a whole file as the answer to `readFile`. A long one is read a second time as the answer is sent; where it has
    /// changed so that it is no text any more, or is shorter, the answer breaks off.
    pub(super) async fn read_answer(
        &self,
        path: FilePath,
        encoding: Option<FileEncoding>,
    ) -> Result<Body, ApiError> {
        const OPERATION: &str = "readFile";
        let files = self.clone();
        let whole = self.run(OPERATION, move |access| access.whole(&files, &path, encoding)).await?;
        let (content, head, encoding) = match whole {
            Whole::Short(result) => {
                // Up to six bytes for one: not on the agent's own thread.
                let json = self.blocking(move || serde_json::to_vec(&result)).await;
                let json = joined(OPERATION, json).await?;
                return Ok(Body::from(json.map_err(|error| super::broken_off(OPERATION, &error))?));
            }
            Whole::Long(content, head, encoding) => (content, head, encoding),
        };
        let held = self.room().take(READER).map_err(|error| error.during(OPERATION))?;
        let content = written(content.into_pieces(), encoding).map(move |piece| {
            let _held = &held;
            piece
        });
        let head = once(async { Ok(Bytes::from(head)) });
        Ok(Body::from_stream(head.chain(content)))
    }

    /// Lists a directory as the answer to `listFiles`.
    pub(super) async fn list_answer(&self, path: FilePath, request: ListFiles) -> Result<Body, ApiError> {
        let room = Arc::clone(self.room());
        self.run("listFiles", move |access| {
            let listed = Listed { success: true, path: &request.path, timestamp: Timestamp::now() };
            let mut json = Gathered::new(&room);
            // Cannot fail: it is one piece.
            let _ = json.push(b"", &listed);
            json.current.pop();
            json.current.extend_from_slice(b",\"files\":[");
            let mut count = 0;
            access.list(&path, request.recursive, request.include_hidden, |entry, waiting| {
                json.beside(waiting)?;
                json.push(if count == 0 { b"" } else { b"," }, &entry)?;
                count += 1;
                Ok(())
            })?;
            Ok(json.into_body(format!("],\"count\":{count}}}").as_bytes()))
        })
        .await
    }
}

/// Content as the rest of a string in JSON, and the end of its object.
fn written<S>(pieces: S, encoding: FileEncoding) -> impl Stream<Item = Result<Bytes, ApiError>> + Send
where
    S: Stream<Item = Result<Bytes, ApiError>> + Send + 'static,
{
    // Bytes of a character whose end is in the next piece.
    let start = Some((Box::pin(pieces), Vec::new()));
    unfold(start, move |state| async move {
        let (mut pieces, mut rest): (_, Vec<u8>) = state?;
        let changed = || {
            ApiError::new(ErrorCode::FilesystemError, "the file changed while it was read").during("readFile")
        };
        match (pieces.next().await, encoding) {
            (Some(Err(error)), _) => Some((Err(error), None)),
            (Some(Ok(piece)), FileEncoding::Base64) => {
                Some((Ok(Bytes::from(BASE64.encode(&piece))), Some((pieces, rest))))
            }
            (Some(Ok(piece)), FileEncoding::Utf8) => {
                rest.extend_from_slice(&piece);
                let Ok(whole) = complete_text(&rest) else { return Some((Err(changed()), None)) };
                let cut = rest.split_off(whole);
                let mut json = Vec::with_capacity(rest.len() + rest.len() / 8);
                escape_json(std::str::from_utf8(&rest).unwrap_or_default(), &mut json);
                Some((Ok(Bytes::from(json)), Some((pieces, cut))))
            }
            (None, _) if !rest.is_empty() => Some((Err(changed()), None)),
            (None, _) => Some((Ok(Bytes::from_static(b"\"}")), None)),
        }
    })
}

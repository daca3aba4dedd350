//! Reading a file of any length piece by piece, with flat memory: the next piece is read while one is sent.

use super::error::{FileError, Reason};
use super::read::{CHUNK, Description, Opened, complete_text};
use super::{FilePath, Files, joined};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use futures_util::stream::{once, try_unfold, unfold};
use futures_util::{Stream, StreamExt};
use sandcrab_api::ApiError;
use sandcrab_api::files::{FileEncoding, FileEvent};
use tokio::task::JoinHandle;

/// Bytes of one piece of a file that does not fit one. A multiple of 3, so that base64 pieces can be joined.
pub(super) const PIECE: usize = 192 << 10;

/// A file's content, about to be read.
#[derive(Debug)]
pub struct Content {
    /// Bytes that will come.
    pub size: u64,
    /// Whether it is no text: not UTF-8, or with NUL. Files over 16 MiB are judged by their beginning.
    pub is_binary: bool,
    /// Media type by content and name.
    pub mime_type: &'static str,
    first: Vec<u8>,
    file: Opened,
    files: Files,
    /// What the caller calls this, for errors.
    operation: &'static str,
}

/// What comes next of a file.
enum Next {
    Here(Opened, Vec<u8>),
    Coming(JoinHandle<Result<(Opened, Vec<u8>), FileError>>),
    Nothing,
}

impl Files {
    /// Opens a file for its content as a stream; `operation` names the call in errors.
    pub async fn content(&self, operation: &'static str, path: FilePath) -> Result<Content, ApiError> {
        let files = self.clone();
        self.run(operation, move |access| {
            let mut file = access.open_file(&path)?;
            let first = file.next(if file.size <= CHUNK as u64 { CHUNK } else { PIECE })?;
            let description = file.describe(&first)?;
            Ok(Content::new(description, first, file, files.clone(), operation))
        })
        .await
    }
}

impl Content {
    pub(super) fn new(
        description: Description,
        first: Vec<u8>,
        file: Opened,
        files: Files,
        operation: &'static str,
    ) -> Self {
        let Description { is_binary, mime_type } = description;
        Self { size: file.size, is_binary, mime_type, first, file, files, operation }
    }

    /// Whether all bytes are here already, as for a short file.
    pub fn is_complete(&self) -> bool {
        self.file.done == self.size
    }

    /// The bytes as they are, in pieces. It fails rather than end early where the file becomes shorter meanwhile.
    pub fn into_pieces(self) -> impl Stream<Item = Result<Bytes, ApiError>> + Send + 'static {
        let Self { first, file, files, operation, .. } = self;
        try_unfold((files, Next::Here(file, first)), move |(files, next)| async move {
            let (mut file, bytes) = match next {
                Next::Here(file, bytes) => (file, bytes),
                Next::Coming(piece) => {
                    joined(operation, piece).await?.map_err(|error| error.into_api(operation))?
                }
                Next::Nothing => return Ok(None),
            };
            if bytes.is_empty() {
                return Ok(None);
            }
            let next = if file.done < file.size {
                Next::Coming(files.blocking(move || file.next(PIECE).map(|bytes| (file, bytes))).await)
            } else {
                Next::Nothing
            };
            Ok(Some((Bytes::from(bytes), (files, next))))
        })
    }

    /// The content as events: metadata, chunks of whole characters or of base64, and the end or an error.
    pub fn into_events(self) -> impl Stream<Item = FileEvent> + Send + 'static {
        let (size, is_binary, operation) = (self.size, self.is_binary, self.operation);
        let path = self.file.path.clone();
        let encoding = if is_binary { FileEncoding::Base64 } else { FileEncoding::Utf8 };
        let mime_type = self.mime_type.to_owned();
        let metadata = FileEvent::Metadata { mime_type, size, is_binary, encoding };
        let failed =
            |error: ApiError| FileEvent::Error { error: error.message.clone(), detail: Box::new(error) };
        // Bytes of a character whose end is in the next piece, and how many bytes were sent before them.
        let start = Some((Box::pin(self.into_pieces()), Vec::new(), 0));
        let content = unfold(start, move |state| {
            let path = path.clone();
            async move {
                let (mut pieces, mut rest, sent): (_, Vec<u8>, u64) = state?;
                let no_text = |at| failed(path.fail(Reason::NotText(at)).into_api(operation));
                match pieces.next().await {
                    Some(Ok(piece)) if is_binary => {
                        let data = BASE64.encode(&piece);
                        let sent = sent + piece.len() as u64;
                        Some((FileEvent::Chunk { data }, Some((pieces, rest, sent))))
                    }
                    Some(Ok(piece)) => {
                        rest.extend_from_slice(&piece);
                        let whole = match complete_text(&rest) {
                            Ok(whole) => whole,
                            Err(at) => return Some((no_text(sent + at as u64), None)),
                        };
                        let cut = rest.split_off(whole);
                        let data = String::from_utf8(rest).unwrap_or_default();
                        Some((FileEvent::Chunk { data }, Some((pieces, cut, sent + whole as u64))))
                    }
                    Some(Err(error)) => Some((failed(error), None)),
                    None if !rest.is_empty() => Some((no_text(sent), None)),
                    None => Some((FileEvent::Complete { bytes_read: sent }, None)),
                }
            }
        });
        once(async { metadata }).chain(content)
    }
}

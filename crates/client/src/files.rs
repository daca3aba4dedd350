//! Files of a sandbox.

use crate::ClientError;
use crate::path::Query;
use crate::sandbox::Target;
use crate::transport::{AnswerBody, Call, RequestBody};
use bytes::{Buf, Bytes, BytesMut};
use http::Method;
use sandcrab_api::SessionId;
use sandcrab_api::files::{
    ExistsResult, FileChanged, FileEncoding, FileInfo, ListFiles, ListFilesResult, Mkdir, MoveFile,
    PathRequest, ReadFile, ReadFileResult,
};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};

/// Bytes that an upload reads at a time.
const UPLOAD_CHUNK: usize = 64 << 10;

/// How to write a file.
#[derive(Clone, Copy, Debug, Default)]
pub struct WriteOptions {
    /// Permission bits, 0 to 0o777. Default: an existing file keeps its own, a new one gets 0o644.
    pub mode: Option<u32>,
    /// How many bytes the reader will give, if known: then a reader that gives fewer or more fails the write.
    pub length: Option<u64>,
}

/// How to make a directory.
#[derive(Clone, Copy, Debug, Default)]
pub struct MkdirOptions {
    /// Make missing parents too, and accept that it exists.
    pub recursive: bool,
    /// Permission bits, 0 to 0o777. Default 0o755.
    pub mode: Option<u32>,
}

/// How to list a directory.
#[derive(Clone, Copy, Debug, Default)]
pub struct ListOptions {
    /// Descend into directories; links are listed, not followed.
    pub recursive: bool,
    /// Also names that begin with a dot.
    pub include_hidden: bool,
}

/// Files as a sandbox or one of its sessions sees them. Content is bytes, streamed without a bound on size.
#[derive(Clone)]
pub struct Files {
    target: Arc<Target>,
    session_id: Option<SessionId>,
}

impl Files {
    pub(crate) fn new(target: Arc<Target>, session_id: Option<SessionId>) -> Self {
        Self { target, session_id }
    }

    fn content(&self, path: &str) -> Query {
        Query::new(self.target.path("/files/content"))
            .with("path", path)
            .maybe("sessionId", self.session_id.as_ref().map(SessionId::as_str))
    }

    fn post(&self, operation: &'static str, route: &str) -> Call {
        Call::post(operation, self.target.path(route))
    }

    fn path(&self, path: impl Into<String>) -> PathRequest {
        PathRequest { path: path.into(), session_id: self.session_id.clone() }
    }

    /// A file's content.
    ///
    /// # Errors
    /// `FILE_NOT_FOUND`, `IS_DIRECTORY`, `PERMISSION_DENIED`, …
    pub async fn read(&self, path: &str) -> Result<Bytes, ClientError> {
        let mut reader = self.open(path).await?;
        let mut content = BytesMut::new();
        while let Some(chunk) = reader.body.chunk().await {
            let chunk = chunk.map_err(|error| self.target.transport.lost("readFile", error))?;
            if content.is_empty() {
                // A length that a stranger names is believed only so far.
                content.reserve(usize::try_from(reader.length.unwrap_or(0).min(16 << 20)).unwrap_or(0));
            }
            content.extend_from_slice(&chunk);
        }
        Ok(content.freeze())
    }

    /// A file's content with what is known about it; text where it is UTF-8, else base64, unless `encoding` says.
    ///
    /// # Errors
    /// As [`Files::read`], and `FILE_TOO_LARGE`.
    pub async fn describe(
        &self,
        path: &str,
        encoding: Option<FileEncoding>,
    ) -> Result<ReadFileResult, ClientError> {
        let request = ReadFile { path: path.to_owned(), encoding, session_id: self.session_id.clone() };
        self.target.json(&self.post("readFile", "/files/read").json(&request).repeatable()).await
    }

    /// A file's content as it comes.
    ///
    /// # Errors
    /// As [`Files::read`], for what is known before the first byte.
    pub async fn open(&self, path: &str) -> Result<FileReader, ClientError> {
        self.target.declare().await?;
        let answer =
            self.target.transport.stream(&Call::get("readFile", self.content(path).finish())).await?;
        let header = |name: &str| answer.headers.get(name).and_then(|value| value.to_str().ok());
        Ok(FileReader {
            mime_type: header("x-sandcrab-mime-type").map(str::to_owned),
            is_binary: header("x-sandcrab-is-binary").map(|value| value == "true"),
            length: answer.body.length(),
            body: answer.body,
            chunk: Bytes::new(),
        })
    }

    /// Copies a file's content into `writer` and gives its length.
    ///
    /// # Errors
    /// As [`Files::read`]; [`ClientError::Local`] when `writer` fails.
    pub async fn read_to(
        &self,
        path: &str,
        writer: &mut (impl AsyncWrite + Unpin),
    ) -> Result<u64, ClientError> {
        let local = |source| ClientError::Local { operation: "readFile", source };
        let mut reader = self.open(path).await?;
        let mut total = 0;
        while let Some(chunk) = reader.body.chunk().await {
            let chunk = chunk.map_err(|error| self.target.transport.lost("readFile", error))?;
            writer.write_all(&chunk).await.map_err(local)?;
            total += chunk.len() as u64;
        }
        writer.flush().await.map_err(local)?;
        Ok(total)
    }

    /// Writes a whole file: all or nothing (contract F01). A file that is there stays the same file; missing parent directories are made.
    ///
    /// # Errors
    /// `IS_DIRECTORY`, `PERMISSION_DENIED`, `NO_SPACE`, …
    pub async fn write(&self, path: &str, content: impl Into<Bytes>) -> Result<FileChanged, ClientError> {
        self.write_with(path, content, WriteOptions::default()).await
    }

    /// As [`Files::write`], with options.
    ///
    /// # Errors
    /// As [`Files::write`].
    pub async fn write_with(
        &self,
        path: &str,
        content: impl Into<Bytes>,
        options: WriteOptions,
    ) -> Result<FileChanged, ClientError> {
        self.put(path, RequestBody::Bytes(content.into()), options).await
    }

    /// Writes a whole file from `reader`. A reader that fails, or a connection that is lost, leaves the file as it was.
    ///
    /// # Errors
    /// As [`Files::write`]; [`ClientError::Local`] when `reader` fails.
    pub async fn write_from(
        &self,
        path: &str,
        reader: impl AsyncRead + Send + 'static,
        options: WriteOptions,
    ) -> Result<FileChanged, ClientError> {
        let chunks = Box::pin(tokio_util::io::ReaderStream::with_capacity(reader, UPLOAD_CHUNK));
        self.put(path, RequestBody::Stream { chunks, length: options.length }, options).await
    }

    async fn put(
        &self,
        path: &str,
        body: RequestBody,
        options: WriteOptions,
    ) -> Result<FileChanged, ClientError> {
        self.target.declare().await?;
        let mode = options.mode.map(|mode| mode.to_string());
        let call =
            Call::new("writeFile", Method::PUT, self.content(path).maybe("mode", mode.as_deref()).finish());
        self.target.transport.upload(&call, body).await
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// `FILE_EXISTS`, `FILE_NOT_FOUND` (its parent), …
    pub async fn mkdir(&self, path: &str, options: MkdirOptions) -> Result<FileChanged, ClientError> {
        let MkdirOptions { recursive, mode } = options;
        let request = Mkdir { path: path.to_owned(), recursive, mode, session_id: self.session_id.clone() };
        self.target.json(&self.post("mkdir", "/files/mkdir").json(&request)).await
    }

    /// Deletes a file.
    ///
    /// # Errors
    /// `FILE_NOT_FOUND`, `IS_DIRECTORY`, …
    pub async fn delete(&self, path: &str) -> Result<FileChanged, ClientError> {
        self.target.json(&self.post("deleteFile", "/files/delete").json(&self.path(path))).await
    }

    /// Gives a file or directory another name.
    ///
    /// # Errors
    /// `FILE_NOT_FOUND`, …
    pub async fn rename(&self, path: &str, new_path: &str) -> Result<FileChanged, ClientError> {
        self.relocate("renameFile", "/files/rename", path, new_path).await
    }

    /// Moves a file or directory; into `new_path` if that is a directory.
    ///
    /// # Errors
    /// `FILE_NOT_FOUND`, …
    pub async fn move_to(&self, path: &str, new_path: &str) -> Result<FileChanged, ClientError> {
        self.relocate("moveFile", "/files/move", path, new_path).await
    }

    async fn relocate(
        &self,
        operation: &'static str,
        route: &str,
        path: &str,
        new_path: &str,
    ) -> Result<FileChanged, ClientError> {
        let (path, new_path) = (path.to_owned(), new_path.to_owned());
        let request = MoveFile { path, new_path, session_id: self.session_id.clone() };
        self.target.json(&self.post(operation, route).json(&request)).await
    }

    /// A directory's entries by name.
    ///
    /// # Errors
    /// `FILE_NOT_FOUND`, `NOT_DIRECTORY`, …
    pub async fn list(&self, path: &str, options: ListOptions) -> Result<Vec<FileInfo>, ClientError> {
        let ListOptions { recursive, include_hidden } = options;
        let request = ListFiles {
            path: path.to_owned(),
            recursive,
            include_hidden,
            session_id: self.session_id.clone(),
        };
        let call = self.post("listFiles", "/files/list").json(&request).repeatable();
        self.target.json::<ListFilesResult>(&call).await.map(|list| list.files)
    }

    /// Whether something stands at a path; a link counts by what it points to.
    ///
    /// # Errors
    /// `PERMISSION_DENIED`, …
    pub async fn exists(&self, path: &str) -> Result<bool, ClientError> {
        let call = self.post("exists", "/files/exists").json(&self.path(path)).repeatable();
        self.target.json::<ExistsResult>(&call).await.map(|answer| answer.exists)
    }
}

impl std::fmt::Debug for Files {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Files")
            .field("sandbox", &self.target.id)
            .field("session_id", &self.session_id)
            .finish_non_exhaustive()
    }
}

/// A file's content as it comes.
pub struct FileReader {
    mime_type: Option<String>,
    is_binary: Option<bool>,
    length: Option<u64>,
    body: AnswerBody,
    chunk: Bytes,
}

impl FileReader {
    /// Media type by content and name, where the server said it.
    pub fn mime_type(&self) -> Option<&str> {
        self.mime_type.as_deref()
    }

    /// Whether the content is no UTF-8 text, where the server said it.
    pub fn is_binary(&self) -> Option<bool> {
        self.is_binary
    }

    /// The file's length in bytes, where it is known before the end.
    pub fn length(&self) -> Option<u64> {
        self.length
    }
}

impl AsyncRead for FileReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        while self.chunk.is_empty() {
            match ready!(self.body.poll_chunk(cx)) {
                Some(Ok(chunk)) => self.chunk = chunk,
                Some(Err(error)) => return Poll::Ready(Err(std::io::Error::other(error))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let count = self.chunk.len().min(into.remaining());
        into.put_slice(&self.chunk[..count]);
        self.chunk.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl std::fmt::Debug for FileReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileReader").field("length", &self.length).finish_non_exhaustive()
    }
}

//! The routes of the file API.

use super::{FilePath, Files, joined};
use crate::http::check::not_base64;
use crate::http::error::{Answer, Errors};
use crate::http::extract::{Json, Query};
use crate::http::{Api, routes};
use axum::body::Body;
use axum::extract::{FromRef, State};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{StreamExt, stream};
use sandcrab_api::files::{
    ExistsResult, FileChanged, FileEncoding, FileEvent, ListFiles, ListFilesResult, Mkdir, MoveFile,
    PathRequest, ReadFile, ReadFileResult, UploadQuery, WriteFile,
};
use sandcrab_api::time::Timestamp;
use sandcrab_api::{ApiError, SessionId, validate};
use std::path::PathBuf;
use std::sync::Arc;

/// Says where relative paths of a session start: its working directory as of its last completed command, or the
/// workspace where no session is named (contract S14).
pub type CwdOf =
    Arc<dyn Fn(Option<SessionId>) -> BoxFuture<'static, Result<PathBuf, ApiError>> + Send + Sync>;

/// Makes a session that does not exist yet.
pub type EnterSession = Arc<dyn Fn(&SessionId) -> Result<(), ApiError> + Send + Sync>;

/// What the file routes need.
#[derive(Clone)]
pub struct FilesState {
    /// The files themselves.
    pub files: Files,
    /// Where relative paths start. Asked only for them.
    pub cwd: CwdOf,
    /// Called with the session of each call that names one.
    pub enter: EnterSession,
}

/// The routes of the file API.
pub fn router<S>() -> Api<S>
where
    FilesState: FromRef<S>,
    S: Clone + Send + Sync + 'static,
{
    Api::new()
        .routes(routes!(read_file))
        .routes(routes!(write_file))
        .routes(routes!(get_content, put_content))
        .routes(routes!(stream_file))
        .routes(routes!(mkdir))
        .routes(routes!(delete_file))
        .routes(routes!(rename_file))
        .routes(routes!(move_file))
        .routes(routes!(list_files))
        .routes(routes!(exists))
}

impl FilesState {
    async fn path(
        &self,
        operation: &'static str,
        asked: &str,
        session: Option<&SessionId>,
    ) -> Answer<FilePath> {
        Ok(self.field(operation, "path", asked, session).await?)
    }

    async fn field(
        &self,
        operation: &'static str,
        field: &str,
        asked: &str,
        session: Option<&SessionId>,
    ) -> Result<FilePath, ApiError> {
        validate::path(field, asked).map_err(|error| error.during(operation))?;
        session.map_or(Ok(()), |id| (self.enter)(id)).map_err(|error| error.during(operation))?;
        let cwd = if asked.starts_with('/') {
            PathBuf::new()
        } else {
            (self.cwd)(session.cloned()).await.map_err(|error| error.during(operation))?
        };
        Ok(FilePath::new(&cwd, asked))
    }
}

fn json(body: Body) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

fn changed(path: String, new_path: Option<String>) -> axum::Json<FileChanged> {
    axum::Json(FileChanged { success: true, path, new_path, timestamp: Timestamp::now() })
}

/// Read a whole file.
///
/// At most 32 MiB; longer files are read through `/files/content` or `/files/stream`.
#[utoipa::path(post, path = "/files/read", tag = "files", operation_id = "readFile", request_body = ReadFile,
    responses((status = 200, description = "Its content", body = ReadFileResult), Errors))]
async fn read_file(State(state): State<FilesState>, Json(request): Json<ReadFile>) -> Answer<Response> {
    let path = state.path("readFile", &request.path, request.session_id.as_ref()).await?;
    Ok(json(state.files.read_answer(path, request.encoding).await?))
}

/// Write a whole file.
///
/// It has its old content until all of the new has come, whatever interrupts this, and stays the same file, so that watchers see the
/// write; one that can be executed is replaced. Missing parent directories are made.
#[utoipa::path(post, path = "/files/write", tag = "files", operation_id = "writeFile", request_body = WriteFile,
    responses((status = 200, description = "Written and visible", body = FileChanged), Errors))]
async fn write_file(
    State(state): State<FilesState>,
    Json(request): Json<WriteFile>,
) -> Answer<axum::Json<FileChanged>> {
    let path = state.path("writeFile", &request.path, request.session_id.as_ref()).await?;
    validate::mode(request.mode).map_err(|error| error.during("writeFile"))?;
    let content = match request.encoding {
        FileEncoding::Utf8 => request.content.into_bytes(),
        FileEncoding::Base64 => {
            let decode = move || BASE64.decode(request.content);
            joined("writeFile", state.files.blocking(decode).await)
                .await?
                .map_err(|error| not_base64(&error).during("writeFile"))?
        }
    };
    let content = stream::iter([Ok::<_, ApiError>(Bytes::from(content))]);
    state.files.write(path, request.mode, content).await?;
    Ok(changed(request.path, None))
}

/// A file's bytes as they are.
#[utoipa::path(get, path = "/files/content", tag = "files", operation_id = "readFileContent", params(PathRequest),
    responses((status = 200, description = "Its bytes", content_type = "application/octet-stream",
        body = inline(RawBytes), headers(
            ("x-sandcrab-mime-type" = String, description = "Media type by content and name"),
            ("x-sandcrab-is-binary" = bool, description = "Whether it is no text"))), Errors))]
async fn get_content(
    State(state): State<FilesState>,
    Query(request): Query<PathRequest>,
) -> Answer<Response> {
    let path = state.path("readFileContent", &request.path, request.session_id.as_ref()).await?;
    let content = state.files.content("readFileContent", path).await?;
    let (size, mime_type, is_binary) = (content.size, content.mime_type, content.is_binary);
    let mut response = Body::from_stream(content.into_pieces()).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_LENGTH, size.into());
    headers.insert("x-sandcrab-mime-type", HeaderValue::from_static(mime_type));
    headers
        .insert("x-sandcrab-is-binary", HeaderValue::from_static(if is_binary { "true" } else { "false" }));
    Ok(response)
}

/// Write a file from the bytes of the body, of any length.
///
/// It has its old content until all of the new has come, whatever interrupts this, and stays the same file, so that watchers see the
/// write; one that can be executed is replaced. Missing parent directories are made.
#[utoipa::path(put, path = "/files/content", tag = "files", operation_id = "writeFileContent", params(UploadQuery),
    request_body(content = inline(RawBytes), content_type = "application/octet-stream"),
    responses((status = 200, description = "Written and visible", body = FileChanged), Errors))]
async fn put_content(
    State(state): State<FilesState>,
    Query(request): Query<UploadQuery>,
    body: Body,
) -> Answer<axum::Json<FileChanged>> {
    let path = state.path("writeFileContent", &request.path, request.session_id.as_ref()).await?;
    validate::mode(request.mode).map_err(|error| error.during("writeFileContent"))?;
    let content = body.into_data_stream().map(|part| {
        part.map_err(|error| ApiError::invalid("body", format!("could not be read to its end: {error}")))
    });
    let written = state.files.write(path, request.mode, content).await;
    written.map_err(|error| error.during("writeFileContent"))?;
    Ok(changed(request.path, None))
}

/// Read a file as server-sent events.
///
/// Each event's data is one JSON document. Text comes in whole characters, anything else in base64.
#[utoipa::path(get, path = "/files/stream", tag = "files", operation_id = "readFileStream", params(PathRequest),
    responses((status = 200, description = "Metadata, chunks, and the end", content_type = "text/event-stream",
        body = FileEvent), Errors))]
async fn stream_file(
    State(state): State<FilesState>,
    Query(request): Query<PathRequest>,
) -> Answer<Response> {
    let path = state.path("readFileStream", &request.path, request.session_id.as_ref()).await?;
    let events = state.files.content("readFileStream", path).await?.into_events().map(|event| {
        let mut message = b"data: ".to_vec();
        serde_json::to_writer(&mut message, &event)?;
        message.extend_from_slice(b"\n\n");
        Ok::<_, serde_json::Error>(Bytes::from(message))
    });
    let mut response = Body::from_stream(events).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(response)
}

/// Make a directory.
#[utoipa::path(post, path = "/files/mkdir", tag = "files", operation_id = "mkdir", request_body = Mkdir,
    responses((status = 200, description = "It is there", body = FileChanged), Errors))]
async fn mkdir(
    State(state): State<FilesState>,
    Json(request): Json<Mkdir>,
) -> Answer<axum::Json<FileChanged>> {
    let path = state.path("mkdir", &request.path, request.session_id.as_ref()).await?;
    validate::mode(request.mode).map_err(|error| error.during("mkdir"))?;
    state.files.mkdir(path, request.recursive, request.mode).await?;
    Ok(changed(request.path, None))
}

/// Delete a file or a symbolic link.
///
/// A directory is refused with IS_DIRECTORY.
#[utoipa::path(post, path = "/files/delete", tag = "files", operation_id = "deleteFile", request_body = PathRequest,
    responses((status = 200, description = "It is gone", body = FileChanged), Errors))]
async fn delete_file(
    State(state): State<FilesState>,
    Json(request): Json<PathRequest>,
) -> Answer<axum::Json<FileChanged>> {
    let path = state.path("deleteFile", &request.path, request.session_id.as_ref()).await?;
    state.files.delete(path).await?;
    Ok(changed(request.path, None))
}

/// Give a file, link or directory another path.
///
/// A file or link at the new path is replaced, a directory there is refused with FILE_EXISTS.
#[utoipa::path(post, path = "/files/rename", tag = "files", operation_id = "renameFile", request_body = MoveFile,
    responses((status = 200, description = "It has its new path", body = FileChanged), Errors))]
async fn rename_file(
    State(state): State<FilesState>,
    Json(request): Json<MoveFile>,
) -> Answer<axum::Json<FileChanged>> {
    let (from, to) = state.both("renameFile", &request).await?;
    state.files.rename(from, to).await?;
    Ok(changed(request.path, Some(request.new_path)))
}

/// Move a file, link or directory to another path, or into a directory under its old name.
#[utoipa::path(post, path = "/files/move", tag = "files", operation_id = "moveFile", request_body = MoveFile,
    responses((status = 200, description = "It has its new path", body = FileChanged), Errors))]
async fn move_file(
    State(state): State<FilesState>,
    Json(request): Json<MoveFile>,
) -> Answer<axum::Json<FileChanged>> {
    let (from, to) = state.both("moveFile", &request).await?;
    state.files.move_to(from, to).await?;
    Ok(changed(request.path, Some(request.new_path)))
}

impl FilesState {
    async fn both(&self, operation: &'static str, request: &MoveFile) -> Answer<(FilePath, FilePath)> {
        let session = request.session_id.as_ref();
        let from = self.field(operation, "path", &request.path, session).await?;
        let to = self.field(operation, "newPath", &request.new_path, session).await?;
        Ok((from, to))
    }
}

/// List a directory.
///
/// At most 100,000 entries, and as many as a quarter of the sandbox's memory limit has room for. With `recursive`,
/// the entries of a directory come right after it; links are not followed.
#[utoipa::path(post, path = "/files/list", tag = "files", operation_id = "listFiles", request_body = ListFiles,
    responses((status = 200, description = "Its entries by name", body = ListFilesResult), Errors))]
async fn list_files(State(state): State<FilesState>, Json(request): Json<ListFiles>) -> Answer<Response> {
    let path = state.path("listFiles", &request.path, request.session_id.as_ref()).await?;
    Ok(json(state.files.list_answer(path, request).await?))
}

/// Ask whether something stands at a path.
#[utoipa::path(post, path = "/files/exists", tag = "files", operation_id = "exists", request_body = PathRequest,
    responses((status = 200, description = "Whether it does", body = ExistsResult), Errors))]
async fn exists(
    State(state): State<FilesState>,
    Json(request): Json<PathRequest>,
) -> Answer<axum::Json<ExistsResult>> {
    let path = state.path("exists", &request.path, request.session_id.as_ref()).await?;
    let exists = state.files.exists(path).await?;
    Ok(axum::Json(ExistsResult { success: true, path: request.path, exists, timestamp: Timestamp::now() }))
}

/// Any bytes.
#[derive(utoipa::ToSchema)]
#[schema(value_type = String, format = Binary)]
struct RawBytes(#[expect(dead_code, reason = "only its schema is used")] String);

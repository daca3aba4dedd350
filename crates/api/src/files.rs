//! Files of a sandbox. Paths are resolved inside its root; relative ones start at `/workspace`, or at the session's
//! working directory when `sessionId` is given.

use crate::ids::SessionId;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// How a file's content is written into JSON by the caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum FileEncoding {
    /// Text.
    #[default]
    #[serde(rename = "utf-8", alias = "utf8")]
    Utf8,
    /// Base64 of the bytes.
    #[serde(rename = "base64")]
    Base64,
}

/// A path alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PathRequest {
    /// The file or directory.
    #[schema(min_length = 1, max_length = 4095, pattern = r"^[^\u0000]*$")]
    pub path: String,
    /// The session whose working directory a relative path starts from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<SessionId>,
}

/// Read a whole file into one answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ReadFile {
    /// The file.
    #[schema(min_length = 1, max_length = 4095, pattern = r"^[^\u0000]*$")]
    pub path: String,
    /// Default: text where the content is UTF-8 without NUL, else base64. Text asked of what is no UTF-8 is base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<FileEncoding>,
    /// The session whose working directory a relative path starts from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<SessionId>,
}

/// A file's content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReadFileResult {
    /// Always true: failures are errors.
    pub success: bool,
    /// The path as asked.
    pub path: String,
    /// How `content` is written.
    pub encoding: FileEncoding,
    /// Whether the content is no text: not UTF-8, or with NUL.
    pub is_binary: bool,
    /// Media type by content and name.
    pub mime_type: String,
    /// Bytes.
    pub size: u64,
    /// When it was read.
    pub timestamp: Timestamp,
    /// The content.
    pub content: String,
}

/// Write a whole file from one request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WriteFile {
    /// The file; missing parent directories are created.
    #[schema(min_length = 1, max_length = 4095, pattern = r"^[^\u0000]*$")]
    pub path: String,
    /// The content.
    pub content: String,
    /// How `content` is written.
    #[serde(default)]
    pub encoding: FileEncoding,
    /// Permission bits, 0 to 0o777 as a number. Default: an existing file keeps its own, a new one gets 0o644.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 511)]
    pub mode: Option<u32>,
    /// The session whose working directory a relative path starts from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<SessionId>,
}

/// Where the raw body of an upload goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct UploadQuery {
    /// The file; missing parent directories are created.
    #[param(min_length = 1, max_length = 4095, pattern = r"^[^\u0000]*$")]
    pub path: String,
    /// Permission bits, 0 to 511. Default: an existing file keeps its own, a new one gets 0o644.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(maximum = 511)]
    pub mode: Option<u32>,
    /// The session whose working directory a relative path starts from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<SessionId>,
}

/// The answer to a change of one path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FileChanged {
    /// Always true: failures are errors.
    pub success: bool,
    /// The path as asked.
    pub path: String,
    /// Where it is now, after a rename or move.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_path: Option<String>,
    /// When it was done.
    pub timestamp: Timestamp,
}

/// Make a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Mkdir {
    /// The directory.
    #[schema(min_length = 1, max_length = 4095, pattern = r"^[^\u0000]*$")]
    pub path: String,
    /// Make missing parents too, and accept that it exists.
    #[serde(default)]
    pub recursive: bool,
    /// Permission bits, 0 to 0o777 as a number. Default 0o755.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 511)]
    pub mode: Option<u32>,
    /// The session whose working directory a relative path starts from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<SessionId>,
}

/// Rename or move a file or directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MoveFile {
    /// What is moved.
    #[schema(min_length = 1, max_length = 4095, pattern = r"^[^\u0000]*$")]
    pub path: String,
    /// Where it goes. `move` into an existing directory keeps the name; `rename` refuses a directory there.
    #[schema(min_length = 1, max_length = 4095, pattern = r"^[^\u0000]*$")]
    pub new_path: String,
    /// The session whose working directory relative paths start from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<SessionId>,
}

/// List a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ListFiles {
    /// The directory.
    #[schema(min_length = 1, max_length = 4095, pattern = r"^[^\u0000]*$")]
    pub path: String,
    /// Descend into directories; links are listed, not followed.
    #[serde(default)]
    pub recursive: bool,
    /// Also names that begin with a dot.
    #[serde(default)]
    pub include_hidden: bool,
    /// The session whose working directory a relative path starts from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<SessionId>,
}

/// What a directory entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum FileType {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A device, FIFO or socket.
    Other,
}

/// What the sandbox's user may do with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Permissions {
    /// May read it.
    pub readable: bool,
    /// May write it.
    pub writable: bool,
    /// May execute it, or enter the directory.
    pub executable: bool,
}

/// One entry of a listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FileInfo {
    /// Its name. Bytes that are no UTF-8 are replaced.
    pub name: String,
    /// The relative path's bytes in base64, where they are no UTF-8: no call can name it then, a command can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_bytes: Option<String>,
    /// Its path from the root.
    pub absolute_path: String,
    /// Its path from the listed directory.
    pub relative_path: String,
    /// What it is.
    #[serde(rename = "type")]
    pub kind: FileType,
    /// Bytes.
    pub size: u64,
    /// When its content last changed.
    pub modified_at: Timestamp,
    /// Permissions as `ls` writes them, without the type: `rw-r--r--`.
    pub mode: String,
    /// What the sandbox's user may do.
    pub permissions: Permissions,
}

/// A directory's entries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListFilesResult {
    /// Always true: failures are errors.
    pub success: bool,
    /// The path as asked.
    pub path: String,
    /// The entries by name.
    pub files: Vec<FileInfo>,
    /// How many.
    pub count: usize,
    /// When it was listed.
    pub timestamp: Timestamp,
}

/// Whether something stands at a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExistsResult {
    /// Always true: failures are errors.
    pub success: bool,
    /// The path as asked.
    pub path: String,
    /// Whether it exists; a link counts by what it points to.
    pub exists: bool,
    /// When it was asked.
    pub timestamp: Timestamp,
}

/// One event of a file's stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
// Fields are renamed variant by variant: utoipa overlooks `rename_all_fields`.
#[serde(tag = "type", rename_all = "lowercase")]
pub enum FileEvent {
    /// What is about to come; the first event.
    #[serde(rename_all = "camelCase")]
    Metadata {
        /// Media type by content and name.
        mime_type: String,
        /// Bytes.
        size: u64,
        /// Whether the content is no text: not UTF-8, or with NUL. Files over 16 MiB are judged by their beginning.
        is_binary: bool,
        /// How the chunks are written.
        encoding: FileEncoding,
    },
    /// The next bytes.
    Chunk {
        /// Content.
        data: String,
    },
    /// All was sent; the last event.
    #[serde(rename_all = "camelCase")]
    Complete {
        /// Bytes of the file that were sent.
        bytes_read: u64,
    },
    /// It could not be read to its end; the last event.
    Error {
        /// What went wrong, for a person.
        error: String,
        /// The whole error as any other route would have answered it.
        detail: Box<crate::error::ApiError>,
    },
}

//! The one table of errors that a caller can meet (contract X01).

use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use utoipa::ToSchema;

macro_rules! codes {
    ($($code:ident $name:literal $status:literal $suggestion:literal;)*) => {
        /// What went wrong, as a word that programs compare.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum ErrorCode {
            $(
                #[doc = concat!("`", $name, "`, HTTP ", stringify!($status), ". ", $suggestion)]
                #[serde(rename = $name)]
                $code,
            )*
        }

        impl ErrorCode {
            /// Every code, in the table's order.
            pub const ALL: &'static [ErrorCode] = &[$(ErrorCode::$code),*];

            /// The word on the wire.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$code => $name),* }
            }

            /// The HTTP status of answers with this code.
            pub fn status(self) -> u16 {
                match self { $(Self::$code => $status),* }
            }

            /// What a person can do about it.
            pub fn suggestion(self) -> &'static str {
                match self { $(Self::$code => $suggestion),* }
            }
        }
    };
}

codes! {
    // 400: the request cannot be right.
    IsDirectory "IS_DIRECTORY" 400 "Name a file, or use a method for directories.";
    NotDirectory "NOT_DIRECTORY" 400 "Name a directory; a part of this path is a file.";
    NameTooLong "NAME_TOO_LONG" 400 "Use names of at most 255 bytes and paths of at most 4095.";
    InvalidCommand "INVALID_COMMAND" 400 "Give a command that is not empty.";
    InvalidPortNumber "INVALID_PORT_NUMBER" 400 "Use an integer from 1024 to 65535.";
    InvalidPort "INVALID_PORT" 400 "Use an integer from 1024 to 65535.";
    InvalidGitUrl "INVALID_GIT_URL" 400 "Use an https, http, git or ssh URL of a repository.";
    ValidationFailed "VALIDATION_FAILED" 400 "Mend the fields named in context.validationErrors.";
    CustomDomainRequired "CUSTOM_DOMAIN_REQUIRED" 400 "Start the server with a wildcard domain for previews.";
    InvalidBackupConfig "INVALID_BACKUP_CONFIG" 400 "Check the backup's options.";
    InvalidMountConfig "INVALID_MOUNT_CONFIG" 400 "Check the mount's options.";
    MissingCredentials "MISSING_CREDENTIALS" 400 "Give the credentials that this call needs.";
    BackupExpired "BACKUP_EXPIRED" 400 "Make a new backup, with a longer ttl if needed.";
    // 401, 403: who is asking.
    GitAuthFailed "GIT_AUTH_FAILED" 401 "Check the user name and the token for this repository.";
    Unauthorized "UNAUTHORIZED" 401 "Send `Authorization: Bearer KEY` with a key of this server.";
    PermissionDenied "PERMISSION_DENIED" 403 "The sandbox's user may not do this to this path.";
    CommandPermissionDenied "COMMAND_PERMISSION_DENIED" 403 "Make the file executable.";
    ReadOnly "READ_ONLY" 403 "This place cannot be written; use another path.";
    Forbidden "FORBIDDEN" 403 "Call the server by a host name that it was told to answer to.";
    // 404: it is not there.
    FileNotFound "FILE_NOT_FOUND" 404 "Check the path; relative ones start at /workspace or the session's cwd.";
    CommandNotFound "COMMAND_NOT_FOUND" 404 "Install the program or check its name.";
    ProcessNotFound "PROCESS_NOT_FOUND" 404 "It has ended or never was; list the processes.";
    PortNotExposed "PORT_NOT_EXPOSED" 404 "Expose the port first.";
    InvalidToken "INVALID_TOKEN" 404 "Use the URL that exposePort returned.";
    GitRepositoryNotFound "GIT_REPOSITORY_NOT_FOUND" 404 "Check the repository's URL; a private one needs credentials.";
    GitBranchNotFound "GIT_BRANCH_NOT_FOUND" 404 "Check the branch's name.";
    ContextNotFound "CONTEXT_NOT_FOUND" 404 "Create a code context first.";
    BackupNotFound "BACKUP_NOT_FOUND" 404 "Check the backup's id.";
    SandboxNotFound "SANDBOX_NOT_FOUND" 404 "Check the sandbox's id; the first operation on an id creates it.";
    SessionNotFound "SESSION_NOT_FOUND" 404 "Check the session's id; its first command creates it.";
    ExecNotFound "EXEC_NOT_FOUND" 404 "Results are kept for 5 minutes after a command's end.";
    RouteNotFound "ROUTE_NOT_FOUND" 404 "Check the method and path against /v1/openapi.json.";
    // 405, 408: how and when.
    MethodNotAllowed "METHOD_NOT_ALLOWED" 405 "Check the method against /v1/openapi.json.";
    ProcessReadyTimeout "PROCESS_READY_TIMEOUT" 408 "Give it more time or read its logs.";
    CommandTimeout "COMMAND_TIMEOUT" 408 "Give a longer timeout, or start it as a process.";
    // 409, 410: it clashes with what is.
    FileExists "FILE_EXISTS" 409 "Choose another path or delete the old one first.";
    PortAlreadyExposed "PORT_ALREADY_EXPOSED" 409 "Unexpose it first, or use the URL that it has.";
    PortInUse "PORT_IN_USE" 409 "Choose another port.";
    ResourceBusy "RESOURCE_BUSY" 409 "Try again after Retry-After, or use another session.";
    SessionAlreadyExists "SESSION_ALREADY_EXISTS" 409 "Use getSession for a session that exists.";
    SandboxAlreadyExists "SANDBOX_ALREADY_EXISTS" 409 "What is fixed at creation cannot change; destroy the sandbox first.";
    ProcessAlreadyExists "PROCESS_ALREADY_EXISTS" 409 "Use another processId, or clean up the process that has it.";
    ExecAlreadyExists "EXEC_ALREADY_EXISTS" 409 "Use a new execId for another command.";
    OperationInterrupted "OPERATION_INTERRUPTED" 409 "It was cancelled; run it again if that was not meant.";
    SessionTerminated "SESSION_TERMINATED" 410 "The session could not be brought back; create it anew.";
    ExecStdinClosed "EXEC_STDIN_CLOSED" 410 "The command has ended, or its stdin was closed: it reads no more.";
    SessionDestroyed "SESSION_DESTROYED" 410 "The session was deleted while this waited.";
    // 413, 429: too much.
    FileTooLarge "FILE_TOO_LARGE" 413 "Use the streaming method.";
    PayloadTooLarge "PAYLOAD_TOO_LARGE" 413 "Send large content through the raw file route.";
    UnsupportedMediaType "UNSUPPORTED_MEDIA_TYPE" 415 "Send Content-Type: application/json.";
    QuotaExceeded "QUOTA_EXCEEDED" 429 "Free what is not needed, or have the limit raised.";
    // 500: it failed.
    FilesystemError "FILESYSTEM_ERROR" 500 "The file system refused; the message has its reason.";
    CommandExecutionError "COMMAND_EXECUTION_ERROR" 500 "The shell could not run the command; the message has its reason.";
    ProcessError "PROCESS_ERROR" 500 "The process could not be handled; the message has its reason.";
    ProcessExitedBeforeReady "PROCESS_EXITED_BEFORE_READY" 500 "Read its logs: it ended before it was ready.";
    PortOperationError "PORT_OPERATION_ERROR" 500 "The port could not be handled; the message has its reason.";
    GitCloneFailed "GIT_CLONE_FAILED" 500 "The message has what git said.";
    GitCheckoutFailed "GIT_CHECKOUT_FAILED" 500 "The message has what git said.";
    GitOperationFailed "GIT_OPERATION_FAILED" 500 "The message has what git said.";
    CodeExecutionError "CODE_EXECUTION_ERROR" 500 "The interpreter failed; the message has its reason.";
    WatchStartError "WATCH_START_ERROR" 500 "The path cannot be watched; the message has its reason.";
    BackupCreateFailed "BACKUP_CREATE_FAILED" 500 "The message has its reason.";
    BackupRestoreFailed "BACKUP_RESTORE_FAILED" 500 "The message has its reason.";
    BucketMountError "BUCKET_MOUNT_ERROR" 500 "The message has its reason.";
    InternalError "INTERNAL_ERROR" 500 "A fault of the server: look for context.errorId in its log.";
    OomKilled "OOM_KILLED" 500 "Give the sandbox more memory.";
    // 501-507: it cannot.
    UnsupportedTransferCoding "UNSUPPORTED_TRANSFER_CODING" 501 "Send the body with Content-Length, or as chunked alone.";
    PythonNotAvailable "PYTHON_NOT_AVAILABLE" 501 "Use an image that has python3.";
    JavascriptNotAvailable "JAVASCRIPT_NOT_AVAILABLE" 501 "Use an image that has node.";
    ServiceNotResponding "SERVICE_NOT_RESPONDING" 502 "What runs inside the sandbox did not answer as it should.";
    GitNetworkError "GIT_NETWORK_ERROR" 502 "The host could not be reached from inside the sandbox.";
    InterpreterNotReady "INTERPRETER_NOT_READY" 503 "Try again after Retry-After.";
    ContainerUnavailable "CONTAINER_UNAVAILABLE" 503 "The sandbox could not be started; the message has its reason.";
    NoSpace "NO_SPACE" 507 "Delete files or give the sandbox more disk.";
}

// By hand: the derive does not see through a macro's `rename = $name`.
impl utoipa::PartialSchema for ErrorCode {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        use utoipa::openapi::schema::{ObjectBuilder, Type};
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some("What went wrong, as a word that programs compare."))
            .enum_values(Some(Self::ALL.iter().map(|code| code.as_str())))
            .build()
            .into()
    }
}

impl ToSchema for ErrorCode {
    fn name() -> Cow<'static, str> {
        "ErrorCode".into()
    }
}

impl std::fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A failure as it goes over the wire.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema, thiserror::Error)]
#[serde(rename_all = "camelCase")]
#[error("{code}: {message}")]
pub struct ApiError {
    /// What went wrong, for programs.
    pub code: ErrorCode,
    /// What went wrong, for people; names the thing at fault.
    pub message: String,
    /// The operation that failed: `exec`, `readFile`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<Cow<'static, str>>,
    /// Facts by code: `{path}`, `{sessionId}`, `{validationErrors}`, …
    #[serde(default)]
    #[schema(value_type = Object)]
    pub context: serde_json::Map<String, serde_json::Value>,
    /// The HTTP status of this answer.
    pub http_status: u16,
    /// When it happened.
    pub timestamp: Timestamp,
    /// What a person can do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<Cow<'static, str>>,
    /// Where to read more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub documentation: Option<Cow<'static, str>>,
}

impl ApiError {
    /// An error with the code's own status and suggestion.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            operation: None,
            context: serde_json::Map::new(),
            http_status: code.status(),
            timestamp: Timestamp::now(),
            suggestion: Some(code.suggestion().into()),
            documentation: None,
        }
    }

    /// Names the operation that failed.
    #[must_use]
    pub fn during(mut self, operation: &'static str) -> Self {
        self.operation = Some(operation.into());
        self
    }

    /// Adds one fact to the context.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<serde_json::Value>) -> Self {
        self.context.insert(key.to_owned(), value.into());
        self
    }

    /// A better suggestion than the code's own.
    #[must_use]
    pub fn suggest(mut self, suggestion: impl Into<Cow<'static, str>>) -> Self {
        self.suggestion = Some(suggestion.into());
        self
    }

    /// Says after how many seconds a retry makes sense; becomes the `Retry-After` header (contract X04).
    #[must_use]
    pub fn retry_after(self, seconds: u64) -> Self {
        self.with("retryAfter", seconds)
    }

    /// Bad input: 400 that names the field (contract X02).
    pub fn invalid(field: &str, message: impl Into<String>) -> Self {
        let message = message.into();
        let error = serde_json::json!([{ "field": field, "message": message }]);
        Self::new(ErrorCode::ValidationFailed, format!("{field}: {message}")).with("validationErrors", error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x01_every_code_has_a_status_and_a_suggestion() {
        for code in ErrorCode::ALL {
            assert!((400..=599).contains(&code.status()), "{code}");
            assert!(code.suggestion().ends_with('.'), "{code}");
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
        }
    }

    #[test]
    fn x01_an_error_has_every_field_of_the_contract() {
        let error =
            ApiError::new(ErrorCode::FileNotFound, "no file /a").during("readFile").with("path", "/a");
        let json = serde_json::to_value(&error).unwrap();
        for field in ["code", "message", "operation", "context", "suggestion", "httpStatus", "timestamp"] {
            assert!(json.get(field).is_some(), "{field}");
        }
        assert_eq!(serde_json::from_value::<ApiError>(json).unwrap(), error);
    }

    #[test]
    fn x01_the_document_has_the_words_of_the_wire() {
        let schema = serde_json::to_value(<ErrorCode as utoipa::PartialSchema>::schema()).unwrap();
        let words: Vec<_> = ErrorCode::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(schema["enum"], serde_json::json!(words));
    }

    #[test]
    fn x02_bad_input_names_its_field() {
        let error = ApiError::invalid("env.A=B", "must not hold '='");
        assert_eq!(error.http_status, 400);
        assert_eq!(error.context["validationErrors"][0]["field"], "env.A=B");
    }
}

//! Processes: programs that a sandbox runs in the background (contract P01-P04).

use crate::exec::{Oom, OutputEncoding, StreamName};
use crate::ids::{ProcessId, SessionId};
use crate::session::{EnvChanges, EnvironmentChanges};
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Whether a process is started again after its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Restart {
    /// Its end is the end.
    #[default]
    Never,
    /// After every end but a kill or its timeout, later and later if it keeps ending (0.1 s up to 30 s).
    Always,
}

/// A process to start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StartProcess {
    /// The text, as a shell reads it: it is run by `bash -c`. Not empty, no NUL, at most 8 MiB.
    #[schema(min_length = 1, max_length = 8_388_608, pattern = r"^[^\u0000]*[^\s\u0000][^\u0000]*$")]
    pub command: String,
    /// The session whose exported variables and working directory it starts with (contract S14). Default `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<SessionId>,
    /// The process's name; no other process of the sandbox may have it. One is made up if it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process_id: Option<ProcessId>,
    /// Milliseconds after its start when the process and all that it started are killed. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 604_800_000, minimum = 1)]
    pub timeout: Option<u64>,
    /// Variables for this process only; `null` unsets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = EnvironmentChanges)]
    pub env: EnvChanges,
    /// Its working directory, relative to the session's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 4095, pattern = r"^[^\u0000]*$")]
    pub cwd: Option<String>,
    /// What it reads on stdin. Default: nothing. Each restart reads it from the beginning.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 16_777_216)]
    pub stdin: Option<String>,
    /// Its stdin stays open and takes what is written to it later. Not together with `stdin` and `restart`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub interactive: bool,
    /// Forget the process 5 minutes after its end; else it is kept until it is cleaned up, or crowded out by younger
    /// ones. Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_cleanup: Option<bool>,
    /// Whether it is started again after its end.
    #[serde(default)]
    pub restart: Restart,
    /// Bytes kept of each output stream: the last ones. At least 128 KiB. Default 16 MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 1_073_741_824, minimum = 131_072)]
    pub max_log_bytes: Option<u64>,
}

/// Where a process stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ProcessStatus {
    /// It is about to run: for the first time, or again.
    Starting,
    /// It runs.
    Running,
    /// It ended with exit code 0.
    Completed,
    /// It ended with another exit code, or by a signal that was not asked for here.
    Failed,
    /// It was ended by `killProcess` or its timeout.
    Killed,
    /// It could not be run, or not be run again.
    Error,
}

impl ProcessStatus {
    /// Whether this is its last status.
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Starting | Self::Running)
    }

    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Killed => "killed",
            Self::Error => "error",
        }
    }
}

/// A process as it stands now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProcessInfo {
    /// Its name.
    pub id: ProcessId,
    /// The process id of its shell, as the sandbox counts; that of the last run after its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The text that runs.
    pub command: String,
    /// Where it stands.
    pub status: ProcessStatus,
    /// When it was started, the last time.
    pub start_time: Timestamp,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_time: Option<Timestamp>,
    /// Its exit code, once it has ended; 128+n when signal n ended it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The session that it was started in, if one was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<SessionId>,
    /// Its timeout ended it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub timed_out: bool,
    /// Set when the memory limit killed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom: Option<Oom>,
    /// Why it could not be run, when the status is `error`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Whether it is started again after its end.
    #[serde(default)]
    pub restart: Restart,
    /// How often it was started again.
    #[serde(default)]
    pub restarts: u64,
    /// Bytes written to stdout so far.
    pub stdout_bytes: u64,
    /// Bytes written to stderr so far.
    pub stderr_bytes: u64,
}

/// The processes of a sandbox, by age.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProcessList {
    /// The processes.
    pub processes: Vec<ProcessInfo>,
}

/// How a process is to end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct KillProcess {
    /// A name as in signal(7), `SIGTERM` or `TERM`, in either case. Default `SIGTERM`.
    ///
    /// TERM, INT, QUIT, ABRT and KILL end the process: what has not ended 5 s later is killed, and the answer comes
    /// when nothing is left. Any other signal is only sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(
        pattern = r"^(SIG)?(TERM|KILL|INT|QUIT|ABRT|HUP|USR1|USR2|STOP|CONT|TSTP|ALRM|PIPE|WINCH|CHLD|URG|IO|TTIN|TTOU|VTALRM)$"
    )]
    pub signal: Option<String>,
}

/// How many processes something was done to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProcessCount {
    /// Always true: failures are errors.
    pub success: bool,
    /// How many.
    pub count: u64,
    /// When it was done.
    pub timestamp: Timestamp,
}

/// What a process has written and what of it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProcessLogs {
    /// The process.
    pub process_id: ProcessId,
    /// How `stdout` and `stderr` are written.
    pub encoding: OutputEncoding,
    /// Some bytes were no UTF-8 and were replaced.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub invalid_utf8: bool,
    /// Bytes that are no longer kept, per stream: those before the ones in this answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truncated: Option<crate::exec::Truncated>,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
}

/// One event of a process's log. Its SSE `id` is `STDOUT-STDERR`: the raw byte offsets up to which the streams have been
/// sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
// Fields are renamed variant by variant: utoipa overlooks `rename_all_fields`.
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ProcessLogEvent {
    /// The process as it stood when the stream began; the first event.
    #[serde(rename_all = "camelCase")]
    ProcessInfo {
        /// The process.
        process_id: ProcessId,
        /// The text that runs.
        command: String,
        /// Where it stood.
        status: ProcessStatus,
        /// When this was sent.
        timestamp: Timestamp,
    },
    /// It wrote to stdout.
    #[serde(rename_all = "camelCase")]
    Stdout {
        /// The bytes in the encoding asked for.
        data: String,
        /// The process.
        process_id: ProcessId,
        /// When this was sent.
        timestamp: Timestamp,
    },
    /// It wrote to stderr.
    #[serde(rename_all = "camelCase")]
    Stderr {
        /// The bytes in the encoding asked for.
        data: String,
        /// The process.
        process_id: ProcessId,
        /// When this was sent.
        timestamp: Timestamp,
    },
    /// Bytes that should stand here are no longer kept.
    #[serde(rename_all = "camelCase")]
    Dropped {
        /// Whose bytes.
        stream: StreamName,
        /// How many.
        bytes: u64,
        /// The process.
        process_id: ProcessId,
        /// When this was found.
        timestamp: Timestamp,
    },
    /// It has ended; the last event.
    #[serde(rename_all = "camelCase")]
    Exit {
        /// Its exit code; 128+n when signal n ended it.
        exit_code: i32,
        /// The process.
        process_id: ProcessId,
        /// How it ended.
        status: ProcessStatus,
        /// When it ended.
        timestamp: Timestamp,
    },
    /// It could not be run, or its log not be read; the last event.
    #[serde(rename_all = "camelCase")]
    Error {
        /// What went wrong, for a person.
        error: String,
        /// The whole error as any other route would have answered it.
        detail: Box<crate::error::ApiError>,
        /// The process.
        process_id: ProcessId,
        /// When it went wrong.
        timestamp: Timestamp,
    },
}

/// A text message to a process that is attached to over a WebSocket; a binary message is stdin as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "lowercase", deny_unknown_fields)]
pub enum AttachCommand {
    /// Write this to its stdin.
    Stdin {
        /// The text.
        data: String,
    },
    /// Close its stdin: it reads the end.
    End,
}

/// Waiting for a process's end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WaitForExit {
    /// Milliseconds to wait. Default: no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 604_800_000)]
    pub timeout: Option<u64>,
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProcessExit {
    /// Its exit code; 128+n when signal n ended it.
    pub exit_code: i32,
    /// How it ended.
    pub status: ProcessStatus,
}

/// Waiting for a text in a process's output.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WaitForLog {
    /// What a line must contain, within one line. Not empty, at most 4096 bytes.
    #[schema(min_length = 1, max_length = 4096, pattern = r"^[^\n]*$")]
    pub text: String,
    /// Milliseconds to wait. Default: no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 604_800_000)]
    pub timeout: Option<u64>,
}

/// The line that was waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogLine {
    /// The line without its end; at most 64 KiB around the text.
    pub line: String,
    /// Where it was written.
    pub stream: StreamName,
}

/// What an open port must do to count as ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum PortMode {
    /// Answer `GET path` over HTTP with a status in the range.
    #[default]
    Http,
    /// Listen.
    Tcp,
}

/// HTTP statuses, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct StatusRange {
    /// The lowest.
    #[schema(minimum = 100, maximum = 599)]
    pub min: u16,
    /// The highest.
    #[schema(minimum = 100, maximum = 599)]
    pub max: u16,
}

impl Default for StatusRange {
    fn default() -> Self {
        Self { min: 200, max: 399 }
    }
}

/// Waiting for a port of the sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WaitForPort {
    /// The port on the sandbox's loopback.
    #[schema(minimum = 1, maximum = 65535)]
    pub port: u16,
    /// When it counts as ready. Default `http`.
    #[serde(default)]
    pub mode: PortMode,
    /// For `http`: what is asked for. Default `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 4096, pattern = r"^/[!-~]*$")]
    pub path: Option<String>,
    /// For `http`: the statuses that count. Default 200 to 399.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<StatusRange>,
    /// Milliseconds to wait. Default: no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 604_800_000)]
    pub timeout: Option<u64>,
    /// For `http`: the most milliseconds between two attempts. Default 500.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 604_800_000)]
    pub interval: Option<u64>,
}

/// The port is ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PortReady {
    /// The port.
    pub port: u16,
    /// For `http`: what it answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
}

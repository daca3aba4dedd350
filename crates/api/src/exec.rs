//! Commands: one text run by a session's shell.

use crate::ids::{ExecId, SessionId};
use crate::session::{EnvChanges, EnvironmentChanges};
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// How bytes of a command's output are written into JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum OutputEncoding {
    /// Text; bytes that are no UTF-8 become U+FFFD and the answer says `invalidUtf8: true`.
    #[default]
    #[serde(alias = "utf-8")]
    Utf8,
    /// Base64 of the bytes as they are.
    Base64,
}

/// A command to run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExecRequest {
    /// The text, as a shell reads it. Not empty, no NUL, at most 8 MiB.
    #[schema(min_length = 1, max_length = 8_388_608, pattern = r"^[^\u0000]*[^\s\u0000][^\u0000]*$")]
    pub command: String,
    /// The session whose shell runs it; created with defaults if it does not exist. Default `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<SessionId>,
    /// The client's name for this command. Sending the same id again attaches to the command that has it instead
    /// of running it twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec_id: Option<ExecId>,
    /// Run in a shell of its own (`bash -c`) that no session keeps. What it leaves in the background lives on, until the
    /// sandbox ends, and belongs to no session: a program to be found again is one for `startProcess`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fresh: bool,
    /// Milliseconds after its start when the command and all its processes are killed. Default: the session's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 604_800_000, minimum = 1)]
    pub timeout: Option<u64>,
    /// Milliseconds that it may wait for earlier commands of its session. Default: no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 604_800_000)]
    pub queue_timeout: Option<u64>,
    /// Variables for this command only; `null` unsets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = EnvironmentChanges)]
    pub env: EnvChanges,
    /// Working directory for this command only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 4095, pattern = r"^[^\u0000]*$")]
    pub cwd: Option<String>,
    /// What the command reads on stdin. Default: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 16_777_216)]
    pub stdin: Option<String>,
    /// Its stdin stays open and takes what `writeExecStdin` brings, until that or the command ends it. Not together with
    /// `stdin`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub interactive: bool,
    /// How output is written into the answer.
    #[serde(default)]
    pub encoding: OutputEncoding,
    /// Bytes kept of each output stream: the first and the last half of it. Default 64 MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 1_073_741_824)]
    pub max_output_bytes: Option<u64>,
}

/// Bytes that did not fit `maxOutputBytes`, per stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Truncated {
    /// Bytes dropped from the middle of stdout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout: Option<u64>,
    /// Bytes dropped from the middle of stderr.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr: Option<u64>,
    /// Why bytes are gone that were within the bound; none if all are gone because of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<LostReason>,
}

/// Why output could not be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub enum LostReason {
    /// The sandbox's disk was full.
    DiskFull,
    /// The sandbox's disk, or the agent, failed otherwise; the sandbox's event `outputLost` has the reason.
    DiskFailed,
}

/// The memory limit that the command ran into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Oom {
    /// The sandbox's memory limit in bytes.
    pub limit: u64,
    /// The most that the sandbox had used, in bytes.
    pub peak: u64,
}

/// How a command ended, apart from its output.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExecOutcome {
    /// The shell's own status; 128+n when signal n ended it.
    pub exit_code: i32,
    /// Milliseconds from its start to its end.
    pub duration: f64,
    /// The shell that ran it is gone (`exit`, `exec`, a crash, a kill) and the next command starts a new one with the session's state.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shell_restarted: bool,
    /// The end of the command was not seen: its shell broke off without a status.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub interrupted: bool,
    /// Set when the memory limit killed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom: Option<Oom>,
    /// Set when output was dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truncated: Option<Truncated>,
}

/// A command's whole result. Field order matters to no one, but output comes last on the wire because it is streamed from disk.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExecResult {
    /// Whether the exit code is 0.
    pub success: bool,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: ExecOutcome,
    /// The text that ran.
    pub command: String,
    /// The command's id.
    pub exec_id: ExecId,
    /// The session that ran it; none for `fresh`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<SessionId>,
    /// When it started.
    pub timestamp: Timestamp,
    /// How `stdout` and `stderr` are written.
    pub encoding: OutputEncoding,
    /// Some bytes were no UTF-8 and were replaced.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub invalid_utf8: bool,
    /// What it wrote to stdout.
    pub stdout: String,
    /// What it wrote to stderr.
    pub stderr: String,
}

/// One of a command's output streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum StreamName {
    /// File descriptor 1.
    Stdout,
    /// File descriptor 2.
    Stderr,
}

/// One event of a command's stream. Its SSE `id` is `STDOUT-STDERR`: the raw byte offsets up to which the streams have been sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
// Fields are renamed variant by variant: utoipa overlooks `rename_all_fields`.
#[serde(tag = "type", rename_all = "lowercase")]
pub enum ExecEvent {
    /// The command has started.
    #[serde(rename_all = "camelCase")]
    Start {
        /// The text that runs.
        command: String,
        /// The command's id, to resume or cancel it by.
        exec_id: ExecId,
        /// The session that runs it; none for `fresh`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        session_id: Option<SessionId>,
        /// When it started.
        timestamp: Timestamp,
    },
    /// It wrote to stdout.
    Stdout {
        /// The bytes in the encoding asked for.
        data: String,
        /// When they were read.
        timestamp: Timestamp,
    },
    /// It wrote to stderr.
    Stderr {
        /// The bytes in the encoding asked for.
        data: String,
        /// When they were read.
        timestamp: Timestamp,
    },
    /// Bytes that were asked for are no longer kept.
    Dropped {
        /// Whose bytes.
        stream: StreamName,
        /// How many.
        bytes: u64,
        /// When this was found.
        timestamp: Timestamp,
    },
    /// It has ended; the last event.
    Complete {
        /// How it ended.
        #[serde(flatten)]
        outcome: ExecOutcome,
        /// When it ended.
        timestamp: Timestamp,
    },
    /// It could not be run, or was stopped; the last event.
    Error {
        /// What went wrong, for a person.
        error: String,
        /// The whole error as any other route would have answered it.
        detail: Box<crate::error::ApiError>,
        /// When it went wrong.
        timestamp: Timestamp,
    },
}

/// Where a command stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ExecState {
    /// Waits for earlier commands of its session.
    Queued,
    /// Runs.
    Running,
    /// Has a result or an error.
    Finished,
}

/// A command as it stands now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExecInfo {
    /// The command's id.
    pub exec_id: ExecId,
    /// The session that runs it; none for `fresh`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<SessionId>,
    /// The text.
    pub command: String,
    /// Where it stands.
    pub state: ExecState,
    /// How it ended, once it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<ExecOutcome>,
    /// Bytes written to stdout so far.
    pub stdout_bytes: u64,
    /// Bytes written to stderr so far.
    pub stderr_bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::{FileEncoding, FileEvent};
    use serde_json::Value;
    use utoipa::PartialSchema;

    /// Every field that `event` has on the wire is one of the document's.
    fn is_described<T: Serialize + PartialSchema>(event: &T) {
        let schema = serde_json::to_string(&T::schema()).unwrap();
        let Value::Object(fields) = serde_json::to_value(event).unwrap() else {
            panic!("an event is an object")
        };
        for name in fields.keys() {
            assert!(schema.contains(&format!("\"{name}\":")), "{name} is not in {schema}");
        }
    }

    #[test]
    fn events_are_described_as_they_are_on_the_wire() {
        is_described(&ExecEvent::Start {
            command: "true".to_owned(),
            exec_id: ExecId::parse("a").unwrap(),
            session_id: Some(SessionId::default_session()),
            timestamp: Timestamp::now(),
        });
        is_described(&FileEvent::Metadata {
            mime_type: "text/plain".to_owned(),
            size: 1,
            is_binary: false,
            encoding: FileEncoding::Utf8,
        });
        is_described(&FileEvent::Complete { bytes_read: 1 });
    }
}

//! Code contexts: interpreters that keep what each run leaves behind (contracts K01, K02).

use crate::exec::{Oom, Truncated};
use crate::ids::{ContextId, RunId, SessionId};
use crate::session::{EnvChanges, EnvironmentChanges};
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// What a context speaks.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum CodeLanguage {
    /// Python 3; also `python3`.
    #[default]
    #[serde(alias = "python3")]
    Python,
    /// JavaScript in Node; also `js` and `node`.
    #[serde(alias = "js", alias = "node")]
    Javascript,
    /// TypeScript in Node, its types stripped and not checked; also `ts`.
    #[serde(alias = "ts")]
    Typescript,
}

impl CodeLanguage {
    /// The word on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Python => "python",
            Self::Javascript => "javascript",
            Self::Typescript => "typescript",
        }
    }
}

impl std::fmt::Display for CodeLanguage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a new context starts with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateCodeContext {
    /// Default `python`.
    #[serde(default)]
    pub language: CodeLanguage,
    /// The session whose exported variables and working directory it starts with (contract S14). Default: none, the
    /// sandbox's variables in `/workspace`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<SessionId>,
    /// Working directory, made if it is missing. Default: the session's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 4095, pattern = r"^[^\u0000]*$")]
    pub cwd: Option<String>,
    /// Variables of this context alone; they win over the session's and the sandbox's. `null` unsets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = EnvironmentChanges)]
    pub env_vars: EnvChanges,
    /// `timeout` in milliseconds of each run that names none itself. Default 60,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 604_800_000, minimum = 1)]
    pub timeout: Option<u64>,
}

/// A context as it stands now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CodeContext {
    /// Its id.
    pub id: ContextId,
    /// What it speaks.
    pub language: CodeLanguage,
    /// The working directory that it started in.
    pub cwd: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When a run last began in it, at first when it was made.
    pub last_used: Timestamp,
}

/// All contexts of a sandbox, by age; also those that runs without a context have made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CodeContextList {
    /// The contexts.
    pub contexts: Vec<CodeContext>,
}

/// The answer to deleting a context.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CodeContextDeleted {
    /// Always true: failures are errors.
    pub success: bool,
    /// The id that names nothing any more.
    pub context_id: ContextId,
    /// When it was done.
    pub timestamp: Timestamp,
}

/// Code to run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RunCodeRequest {
    /// The code, at most 8 MiB.
    #[schema(max_length = 8_388_608)]
    pub code: String,
    /// The context that runs it. Default: the language's own of the session, or of the sandbox where no session is named;
    /// its first run makes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_id: Option<ContextId>,
    /// Default `python`. With a context it may be left out, and must be the context's if it is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<CodeLanguage>,
    /// The session whose context this is without `contextId`: it follows the session's exported variables and working
    /// directory (contract S14).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<SessionId>,
    /// Variables for this run only; `null` unsets.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = EnvironmentChanges)]
    pub env_vars: EnvChanges,
    /// Milliseconds from its start until it is interrupted. Default: the context's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 604_800_000, minimum = 1)]
    pub timeout: Option<u64>,
    /// The client's name for this run. Sending the same id again attaches to the run that has it instead of running the
    /// code twice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<RunId>,
}

/// Something that code shows: the value of its last expression, or what it displays. A field for each form in which the
/// value offers itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct CodeResult {
    /// `text/plain`: what the language's own console would print.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// `text/html`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub html: Option<String>,
    /// `image/png`, base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub png: Option<String>,
    /// `image/jpeg`, base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jpeg: Option<String>,
    /// `image/svg+xml`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub svg: Option<String>,
    /// `text/latex`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latex: Option<String>,
    /// `text/markdown`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub markdown: Option<String>,
    /// `application/javascript`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub javascript: Option<String>,
    /// The value as JSON: of plain lists and objects, and of what offers `application/json`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub json: Option<Value>,
    /// The data of a chart, where the object offers it (plotly, altair) or is a figure of matplotlib: `type`, `title`, `data`,
    /// `layout`, `config`, `library`. Of matplotlib, `data` has the series, each with its `type` and the number of its
    /// axes, and `layout.axes` their titles, labels and scales.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub chart: Option<Value>,
    /// Forms that have no field of their own, by media type.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub data: Option<Value>,
    /// Forms that were too long to be kept, with their length. `text` is cut instead, and says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub omitted: Option<BTreeMap<String, u64>>,
}

/// Why code ended before its end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CodeError {
    /// The exception's class. `TimeoutError` when the run's time was over, `InterpreterExited` when the interpreter is
    /// gone.
    pub name: String,
    /// What it says.
    pub value: String,
    /// The traceback, line by line.
    pub traceback: Vec<String>,
    /// The line of this run's code at which it happened, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line_number: Option<u64>,
}

/// How a run ended, apart from its output.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunOutcome {
    /// How many runs have begun in the context, this one included.
    pub execution_count: u64,
    /// Milliseconds from its start to its end.
    pub duration: f64,
    /// Why the code ended before its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<CodeError>,
    /// The context's interpreter was, or will be, started anew: what earlier runs left in it is lost.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub context_restarted: bool,
    /// Set when the memory limit killed the interpreter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oom: Option<Oom>,
    /// Bytes of output that were dropped: of each stream the first 64 MiB are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub truncated: Option<Truncated>,
    /// Results that were dropped: of all together the first 64 MiB are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub results_dropped: Option<u64>,
    /// What code of earlier runs in the context wrote since the last run's end, as a thread or a timer does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late_output: Option<LateOutput>,
}

/// Output that came between two runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LateOutput {
    /// The last 16 KiB to stdout, as text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stdout: String,
    /// The last 16 KiB to stderr, as text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stderr: String,
    /// Bytes before these that were dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dropped: Option<u64>,
}

/// A run's whole result.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunCodeResult {
    /// The code that ran.
    pub code: String,
    /// The run's id.
    pub run_id: RunId,
    /// The context that ran it.
    pub context_id: ContextId,
    /// When it started.
    pub timestamp: Timestamp,
    /// How it ended.
    #[serde(flatten)]
    pub outcome: RunOutcome,
    /// What it wrote.
    pub logs: CodeLogs,
    /// What it shows, in order.
    pub results: Vec<CodeResult>,
}

/// What a run wrote, as text; bytes that are no UTF-8 are U+FFFD. Long output comes in several pieces.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CodeLogs {
    /// Pieces of stdout.
    pub stdout: Vec<String>,
    /// Pieces of stderr.
    pub stderr: Vec<String>,
}

/// One event of a run's stream. Its SSE `id` is where the stream can be resumed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum CodeEvent {
    /// The run has started.
    #[serde(rename_all = "camelCase")]
    Start {
        /// The run's id, to resume or cancel it by.
        run_id: RunId,
        /// The context that runs it.
        context_id: ContextId,
        /// When it started.
        timestamp: Timestamp,
    },
    /// It wrote to stdout.
    Stdout {
        /// What.
        text: String,
    },
    /// It wrote to stderr.
    Stderr {
        /// What.
        text: String,
    },
    /// It shows something.
    Result(Box<CodeResult>),
    /// It has come to its end; the last event.
    ExecutionComplete {
        /// How many runs have begun in the context.
        execution_count: u64,
        /// How it ended.
        outcome: RunOutcome,
    },
    /// It ended before its end; the last event.
    Error {
        /// The exception's class, or the code of `detail`.
        ename: String,
        /// What it says.
        evalue: String,
        /// The traceback, line by line.
        traceback: Vec<String>,
        /// How it ended; missing where `detail` stands.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        outcome: Option<RunOutcome>,
        /// The whole error where the code could not be run, or was cancelled, as any other route would have answered it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<Box<crate::error::ApiError>>,
    },
}

/// Where a run stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunInfo {
    /// The run's id.
    pub run_id: RunId,
    /// The context that runs it.
    pub context_id: ContextId,
    /// Whether it has ended.
    pub finished: bool,
    /// How it ended; missing while it runs, and where it ended with an error of the API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<RunOutcome>,
}

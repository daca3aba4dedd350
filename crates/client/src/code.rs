//! Code contexts: interpreters that keep what each run leaves behind.

use crate::ClientError;
use crate::path;
use crate::path::Query;
use crate::resume::{self, Events, Source};
use crate::sandbox::Target;
use crate::sse::Message;
use crate::transport::{Call, Transport};
use futures_util::Stream;
use http::Method;
use sandcrab_api::code::{
    CodeContext, CodeContextDeleted, CodeContextList, CodeEvent, CodeLanguage, CreateCodeContext,
    RunCodeRequest, RunCodeResult, RunInfo,
};
use sandcrab_api::limits::{MAX_CODE_BYTES, MAX_EXECUTOR_MESSAGE_BYTES, MAX_RUN_OUTPUT_BYTES};
use sandcrab_api::{ContextId, ExecId, RunId, SessionId};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

/// The longest event: a result, or an error with its traceback.
const MAX_EVENT_BYTES: usize = 2 * MAX_EXECUTOR_MESSAGE_BYTES;
/// The longest result. In JSON one byte takes at most six.
const MAX_RESULT_BYTES: usize = 6 * (2 * MAX_RUN_OUTPUT_BYTES as usize + MAX_CODE_BYTES) + (128 << 20);

/// Code to be run. Awaiting it runs it and gives its whole result; [`RunCode::stream`] gives what it writes and shows as
/// it comes.
///
/// Dropping the future leaves the code running; [`Sandbox::cancel_run`](crate::Sandbox::cancel_run) with [`RunCode::id`]
/// interrupts it.
#[must_use = "code runs when it is awaited or streamed"]
pub struct RunCode {
    target: Arc<Target>,
    request: RunCodeRequest,
    id: RunId,
}

impl RunCode {
    pub(crate) fn new(target: Arc<Target>, session_id: Option<SessionId>, code: String) -> Self {
        let text = format!("{:032x}", rand::random::<u128>());
        // 32 hexadecimal digits are within the rule of these ids.
        let id = RunId::parse(&text).unwrap_or_else(|_| unreachable!("{text} is a run id"));
        let request = RunCodeRequest { code, session_id, run_id: Some(id.clone()), ..Default::default() };
        Self { target, request, id }
    }

    /// The id that this client made up for the run.
    pub fn id(&self) -> &RunId {
        &self.id
    }

    /// Names the run: one id runs once, whoever asks.
    pub fn with_id(mut self, id: RunId) -> Self {
        self.request.run_id = Some(id.clone());
        self.id = id;
        self
    }

    /// What the code is written in, where no context says so. Default Python.
    pub fn language(mut self, language: CodeLanguage) -> Self {
        self.request.language = Some(language);
        self
    }

    /// The context that runs it. Default: the language's own of the sandbox, or of the session.
    pub fn context(mut self, id: ContextId) -> Self {
        self.request.context_id = Some(id);
        self
    }

    /// Interrupts it this long after its start. At least a millisecond; default: the context's, else a minute.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.request.timeout = Some(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).max(1));
        self
    }

    /// Sets a variable for this run only.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.request.env_vars.insert(name.into(), Some(value.into()));
        self
    }

    /// Unsets a variable for this run only.
    pub fn env_remove(mut self, name: impl Into<String>) -> Self {
        self.request.env_vars.insert(name.into(), None);
        self
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// As any call, and `CONTEXT_NOT_FOUND`, `PYTHON_NOT_AVAILABLE`, `JAVASCRIPT_NOT_AVAILABLE`, `RESOURCE_BUSY`,
    /// `OPERATION_INTERRUPTED` (cancelled). What the code raises, its timeout too, is no error but a part of the result.
    pub async fn run(self) -> Result<RunCodeResult, ClientError> {
        let call = Call::post("runCode", self.target.path("/code/run")).json(&self.request);
        let call = call.repeatable().unbounded().limit(MAX_RESULT_BYTES);
        self.target.json(&call).await
    }

    /// Runs it and gives what it writes and shows as it comes.
    ///
    /// # Errors
    /// As [`RunCode::run`], for what is known before it starts; what comes later is an item of the stream.
    pub async fn stream(self) -> Result<CodeStream, ClientError> {
        self.target.declare().await?;
        let call = Call::post("runCodeStream", self.target.path("/code/run/stream")).json(&self.request);
        CodeStream::open(self.target, self.id, &call.unbounded()).await
    }
}

impl IntoFuture for RunCode {
    type Output = Result<RunCodeResult, ClientError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

/// A run's events, without a gap and without a repeat. When the connection is lost it goes on where it broke off
/// (contract S12). Dropping it leaves the code running.
///
/// The stream ends after [`CodeEvent::ExecutionComplete`], [`CodeEvent::Error`] or an error.
#[must_use = "streams do nothing unless polled"]
pub struct CodeStream {
    run_id: RunId,
    events: Events<CodeEvent>,
}

impl CodeStream {
    async fn open(target: Arc<Target>, run_id: RunId, call: &Call) -> Result<Self, ClientError> {
        let source = Follow { target, run_id: run_id.clone(), at: 0, started: false, ended: false };
        Ok(Self { run_id, events: resume::open(source, call).await? })
    }

    /// The run's id, to cancel it by.
    pub fn run_id(&self) -> &RunId {
        &self.run_id
    }

    /// The next event; `None` after the last.
    ///
    /// # Errors
    /// `OPERATION_INTERRUPTED` when it was cancelled, or [`ClientError::StreamLost`].
    pub async fn next(&mut self) -> Option<Result<CodeEvent, ClientError>> {
        std::future::poll_fn(|cx| self.events.as_mut().poll_next(cx)).await
    }
}

impl Stream for CodeStream {
    type Item = Result<CodeEvent, ClientError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.events.as_mut().poll_next(cx)
    }
}

impl std::fmt::Debug for CodeStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CodeStream").field("run_id", &self.run_id).finish_non_exhaustive()
    }
}

/// A stream in the middle.
struct Follow {
    target: Arc<Target>,
    run_id: RunId,
    /// The id of the last event that came.
    at: u64,
    started: bool,
    ended: bool,
}

impl Source for Follow {
    type Event = CodeEvent;
    const OPERATION: &'static str = "runCodeStream";
    const MAX_EVENT_BYTES: usize = MAX_EVENT_BYTES;

    fn transport(&self) -> &Transport {
        &self.target.transport
    }

    fn rest(&self) -> Call {
        let query = Query::new(run_path(&self.target, &self.run_id, "/stream"));
        Call::get("runCodeStream", query.with("offset", &self.at.to_string()).finish()).unbounded()
    }

    fn has_ended(&self) -> bool {
        self.ended
    }

    fn lost(
        &self,
        tried_for: Duration,
        source: Option<Box<ClientError>>,
    ) -> Result<ClientError, ClientError> {
        // Both ids have one rule.
        Ok(ClientError::StreamLost { exec_id: ExecId::parse(self.run_id.as_str())?, tried_for, source })
    }

    fn accept(&mut self, message: &Message) -> Result<Option<CodeEvent>, ClientError> {
        let event: CodeEvent = serde_json::from_slice(&message.data)
            .map_err(|error| self.unexpected(&format!("an event that is not as documented ({error})")))?;
        let id = message.id.as_deref().and_then(|id| std::str::from_utf8(id).ok()?.parse().ok());
        self.at = id.unwrap_or(self.at);
        match event {
            CodeEvent::Start { .. } if std::mem::replace(&mut self.started, true) => Ok(None),
            CodeEvent::Error { detail: Some(detail), .. } => Err((*detail).into()),
            CodeEvent::Error { .. } | CodeEvent::ExecutionComplete { .. } => {
                self.ended = true;
                Ok(Some(event))
            }
            event => Ok(Some(event)),
        }
    }
}

fn run_path(target: &Target, id: &RunId, rest: &str) -> String {
    target.path(&format!("/code/runs/{id}{rest}"))
}

pub(crate) async fn create(target: &Target, options: &CreateCodeContext) -> Result<CodeContext, ClientError> {
    target.json(&Call::post("createCodeContext", target.path("/code/contexts")).json(options)).await
}

pub(crate) async fn list(target: &Target) -> Result<Vec<CodeContext>, ClientError> {
    let call = Call::get("listCodeContexts", target.path("/code/contexts"));
    let list: CodeContextList = target.json(&call).await?;
    Ok(list.contexts)
}

pub(crate) async fn delete(target: &Target, id: &ContextId) -> Result<CodeContextDeleted, ClientError> {
    let path = path::join(&target.path("/code/contexts"), id.as_str());
    target.json(&Call::new("deleteCodeContext", Method::DELETE, path)).await
}

pub(crate) async fn cancel(target: &Target, id: &RunId) -> Result<RunInfo, ClientError> {
    target.transport.json(&Call::post("cancelRun", run_path(target, id, "/cancel")).repeatable()).await
}

//! One sandbox.

use crate::code::RunCode;
use crate::events::EventStream;
use crate::exec::{Exec, ExecInput, ExecOutput};
use crate::files::Files;
use crate::follow::ExecStream;
use crate::git::Checkout;
use crate::processes::{self, Process, Start};
use crate::session::Session;
use crate::transport::{Call, Transport};
use crate::{ClientError, SandboxOptions, code, path};
use http::Method;
use sandcrab_api::code::{CodeContext, CodeContextDeleted, CreateCodeContext, RunInfo};
use sandcrab_api::exec::ExecInfo;
use sandcrab_api::process::ProcessInfo;
use sandcrab_api::sandbox::{
    SandboxDestroyed, SandboxEvent, SandboxEvents, SandboxInfo, SandboxStopped, StopSandbox, StopSignal,
};
use sandcrab_api::session::{CreateSession, Done, EnvChanges, SessionInfo, SessionList, SetEnv};
use sandcrab_api::{ContextId, ExecId, ProcessId, RunId, SandboxId, SessionId};
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// What all handles of one sandbox share.
pub(crate) struct Target {
    pub transport: Arc<Transport>,
    pub id: SandboxId,
    /// `/v1/sandboxes/ID`
    pub base: String,
    options: SandboxOptions,
    /// Whether `options` have reached the server, so that the first use can create the sandbox.
    declared: tokio::sync::Mutex<bool>,
    plain: bool,
}

impl Target {
    pub(crate) fn new(transport: Arc<Transport>, id: SandboxId, options: SandboxOptions) -> Arc<Self> {
        let base = path::join("/v1/sandboxes", id.as_str());
        let plain = options == SandboxOptions::default();
        Arc::new(Self { transport, id, base, options, declared: tokio::sync::Mutex::new(plain), plain })
    }

    pub(crate) fn path(&self, rest: &str) -> String {
        format!("{}{rest}", self.base)
    }

    pub(crate) fn process_path(&self, id: &ProcessId, rest: &str) -> String {
        format!("{}/processes/{id}{rest}", self.base)
    }

    pub(crate) fn exec_path(&self, id: &ExecId, rest: &str) -> String {
        format!("{}/execs/{id}{rest}", self.base)
    }

    /// Tells the server the sandbox's options before its first use; concurrent callers share one request.
    pub(crate) async fn declare(&self) -> Result<(), ClientError> {
        if self.plain {
            return Ok(());
        }
        let mut declared = self.declared.lock().await;
        if !*declared {
            self.put().await?;
            *declared = true;
        }
        Ok(())
    }

    async fn put(&self) -> Result<SandboxInfo, ClientError> {
        let call = Call::new("createSandbox", Method::PUT, self.base.clone()).json(&self.options);
        // An image may have to be built first, which the server bounds.
        let call = if self.options.image.is_some() { call.unbounded() } else { call };
        self.transport.json(&call).await
    }

    pub(crate) async fn json<T: DeserializeOwned>(&self, call: &Call) -> Result<T, ClientError> {
        self.declare().await?;
        self.transport.json(call).await
    }
}

/// A sandbox: a computer of its own. Cheap to clone.
#[derive(Clone)]
pub struct Sandbox {
    target: Arc<Target>,
}

impl Sandbox {
    pub(crate) fn new(target: Arc<Target>) -> Self {
        Self { target }
    }

    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    /// Its id.
    pub fn id(&self) -> &SandboxId {
        &self.target.id
    }

    /// Makes the sandbox now, or applies to one that exists what may change.
    ///
    /// # Errors
    /// `SANDBOX_ALREADY_EXISTS` when it exists with other options than these.
    pub async fn create(&self) -> Result<SandboxInfo, ClientError> {
        let mut declared = self.target.declared.lock().await;
        let info = self.target.put().await?;
        *declared = true;
        Ok(info)
    }

    /// The sandbox as it stands now. Does not create it.
    ///
    /// # Errors
    /// `SANDBOX_NOT_FOUND`.
    pub async fn info(&self) -> Result<SandboxInfo, ClientError> {
        self.target.transport.json(&Call::get("getSandbox", self.target.base.clone())).await
    }

    /// What has happened to it, oldest first (contract L08).
    ///
    /// # Errors
    /// `SANDBOX_NOT_FOUND`.
    pub async fn events(&self) -> Result<Vec<SandboxEvent>, ClientError> {
        let events: SandboxEvents =
            self.target.transport.json(&Call::get("listEvents", self.target.path("/events"))).await?;
        Ok(events.events)
    }

    /// The events after number `after`, those that are there and those to come. Does not create the sandbox, and does not
    /// keep it awake.
    ///
    /// # Errors
    /// `SANDBOX_NOT_FOUND` for an id that was never used.
    pub async fn follow_events(&self, after: u64) -> Result<EventStream, ClientError> {
        EventStream::open(self.clone(), after).await
    }

    /// Frees everything at once (contract L06). A later use of the id is a new, empty sandbox.
    ///
    /// # Errors
    /// `SANDBOX_NOT_FOUND`.
    pub async fn destroy(&self) -> Result<SandboxDestroyed, ClientError> {
        let mut declared = self.target.declared.lock().await;
        let call = Call::new("destroySandbox", Method::DELETE, self.target.base.clone());
        let destroyed = self.target.transport.json(&call).await?;
        *declared = self.target.plain;
        Ok(destroyed)
    }

    /// Ends all that runs in it and keeps its files and exposed ports: its next use starts it again on them.
    ///
    /// # Errors
    /// `SANDBOX_NOT_FOUND`.
    pub async fn stop(&self, signal: StopSignal) -> Result<SandboxStopped, ClientError> {
        let body = StopSandbox { signal: Some(signal) };
        let call = Call::post("stopSandbox", self.target.path("/stop")).json(&body);
        self.target.transport.json(&call).await
    }

    /// The session with this id. Sends nothing: its first command creates it.
    ///
    /// # Errors
    /// [`ClientError::Id`].
    pub fn session(&self, id: impl AsRef<str>) -> Result<Session, ClientError> {
        Ok(Session::new(Arc::clone(&self.target), SessionId::parse(id.as_ref())?))
    }

    /// Makes a session (contract S10).
    ///
    /// # Errors
    /// `SESSION_ALREADY_EXISTS`.
    pub async fn create_session(&self, options: &CreateSession) -> Result<Session, ClientError> {
        let call = Call::post("createSession", self.target.path("/sessions")).json(options);
        let info: SessionInfo = self.target.json(&call).await?;
        Ok(Session::new(Arc::clone(&self.target), info.id))
    }

    /// Its sessions, oldest first.
    ///
    /// # Errors
    /// As any call.
    pub async fn sessions(&self) -> Result<Vec<SessionInfo>, ClientError> {
        let list: SessionList =
            self.target.json(&Call::get("listSessions", self.target.path("/sessions"))).await?;
        Ok(list.sessions)
    }

    /// Sets variables of the sandbox; they reach every session from its next command (contract S11).
    ///
    /// # Errors
    /// `VALIDATION_FAILED` naming the variable.
    pub async fn set_env_vars<K: Into<String>, V: Into<String>>(
        &self,
        vars: impl IntoIterator<Item = (K, V)>,
    ) -> Result<(), ClientError> {
        self.change_env(vars.into_iter().map(|(name, value)| (name.into(), Some(value.into()))).collect())
            .await
    }

    /// Sets (`Some`) and unsets (`None`) variables of the sandbox.
    ///
    /// # Errors
    /// `VALIDATION_FAILED` naming the variable.
    pub async fn change_env(&self, env: EnvChanges) -> Result<(), ClientError> {
        let call = Call::new("setEnvVars", Method::PATCH, self.target.path("/env")).json(&SetEnv { env });
        self.target.json::<Done>(&call).await.map(drop)
    }

    /// A command for the default session. Runs when it is awaited or streamed.
    pub fn exec(&self, command: impl Into<String>) -> Exec {
        Exec::new(Arc::clone(&self.target), None, command.into())
    }

    /// The commands that wait or run now, in no order.
    ///
    /// # Errors
    /// As any call.
    pub async fn execs(&self) -> Result<Vec<ExecInfo>, ClientError> {
        #[derive(serde::Deserialize)]
        struct ExecList {
            execs: Vec<ExecInfo>,
        }
        let list: ExecList = self.target.json(&Call::get("listExecs", self.target.path("/execs"))).await?;
        Ok(list.execs)
    }

    /// A command by its id, as it stands now.
    ///
    /// # Errors
    /// `EXEC_NOT_FOUND`, also when it ended more than 5 minutes ago.
    pub async fn exec_info(&self, id: &ExecId) -> Result<ExecInfo, ClientError> {
        self.target.transport.json(&Call::get("getExec", self.target.exec_path(id, ""))).await
    }

    /// The result of a command by its id; waits for its end.
    ///
    /// # Errors
    /// As [`Sandbox::exec_info`], and what the command itself failed with.
    pub async fn exec_result(&self, id: &ExecId) -> Result<ExecOutput, ClientError> {
        crate::exec::result(&self.target, id).await
    }

    /// Writes to the stdin of a command that was sent [`interactive`](crate::Exec::interactive), from its first byte on.
    pub fn exec_input(&self, id: &ExecId) -> ExecInput {
        ExecInput::new(Arc::clone(&self.target), id.clone())
    }

    /// The stream of a command by its id, from its first byte or from the given byte offsets of stdout and stderr.
    ///
    /// # Errors
    /// As [`Sandbox::exec_info`].
    pub async fn attach(&self, id: &ExecId, stdout: u64, stderr: u64) -> Result<ExecStream, ClientError> {
        ExecStream::attach(Arc::clone(&self.target), id.clone(), [stdout, stderr]).await
    }

    /// Kills a command with its whole process tree and waits until it is dead (contracts S06, S12). One that has ended
    /// already is left as it is.
    ///
    /// # Errors
    /// `EXEC_NOT_FOUND`.
    pub async fn cancel(&self, id: &ExecId) -> Result<ExecInfo, ClientError> {
        let call = Call::post("cancelExec", self.target.exec_path(id, "/cancel")).repeatable();
        self.target.transport.json(&call).await
    }

    /// A repository to be cloned by the sandbox's own git, by default below `/workspace`. Begins when it is awaited.
    pub fn git_checkout(&self, repo_url: impl Into<String>) -> Checkout {
        Checkout::new(Arc::clone(&self.target), None, repo_url.into())
    }

    /// A process to start; it starts when this is awaited. Begins with the variables and the directory of the default
    /// session as of its last command (contract S14).
    pub fn start(&self, command: impl Into<String>) -> Start {
        Start::new(Arc::clone(&self.target), None, command.into())
    }

    /// The process with this id. Sends nothing.
    ///
    /// # Errors
    /// [`ClientError::Id`].
    pub fn process(&self, id: impl AsRef<str>) -> Result<Process, ClientError> {
        Ok(Process::new(Arc::clone(&self.target), ProcessId::parse(id.as_ref())?))
    }

    /// Its processes, oldest first, with those that ended lately.
    ///
    /// # Errors
    /// As any call.
    pub async fn processes(&self) -> Result<Vec<ProcessInfo>, ClientError> {
        processes::list(&self.target).await
    }

    /// Ends every process with all that it started (contract P02), and says how many there were.
    ///
    /// # Errors
    /// `PROCESS_ERROR` if one of them does not end.
    pub async fn kill_all_processes(&self) -> Result<u64, ClientError> {
        processes::kill_all(&self.target).await
    }

    /// Forgets every process that has ended, and says how many there were.
    ///
    /// # Errors
    /// As any call.
    pub async fn cleanup_completed_processes(&self) -> Result<u64, ClientError> {
        processes::clean_up(&self.target).await
    }

    /// Code to run: in the language's own context of the sandbox unless told otherwise. Runs when it is awaited or
    /// streamed.
    pub fn run_code(&self, code: impl Into<String>) -> RunCode {
        RunCode::new(Arc::clone(&self.target), None, code.into())
    }

    /// Makes a code context: an interpreter of its own (contract K01).
    ///
    /// # Errors
    /// `PYTHON_NOT_AVAILABLE`, `JAVASCRIPT_NOT_AVAILABLE`; `QUOTA_EXCEEDED` past 64 contexts.
    pub async fn create_code_context(&self, options: &CreateCodeContext) -> Result<CodeContext, ClientError> {
        code::create(&self.target, options).await
    }

    /// Its code contexts, oldest first.
    ///
    /// # Errors
    /// As any call.
    pub async fn code_contexts(&self) -> Result<Vec<CodeContext>, ClientError> {
        code::list(&self.target).await
    }

    /// Ends a code context with everything that its code has started.
    ///
    /// # Errors
    /// `CONTEXT_NOT_FOUND`.
    pub async fn delete_code_context(&self, id: &ContextId) -> Result<CodeContextDeleted, ClientError> {
        code::delete(&self.target, id).await
    }

    /// Interrupts a run and waits for its end. One that has ended already is left as it is.
    ///
    /// # Errors
    /// `EXEC_NOT_FOUND`.
    pub async fn cancel_run(&self, id: &RunId) -> Result<RunInfo, ClientError> {
        code::cancel(&self.target, id).await
    }

    /// Its files; relative paths start at `/workspace`.
    pub fn files(&self) -> Files {
        Files::new(Arc::clone(&self.target), None)
    }
}

impl std::fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sandbox").field("id", &self.target.id).finish_non_exhaustive()
    }
}

//! One session.

use crate::code::RunCode;
use crate::exec::Exec;
use crate::files::Files;
use crate::git::Checkout;
use crate::processes::Start;
use crate::sandbox::Target;
use crate::transport::Call;
use crate::{ClientError, code, path};
use http::Method;
use sandcrab_api::SessionId;
use sandcrab_api::code::{CodeContext, CreateCodeContext};
use sandcrab_api::session::{Done, EnvChanges, SessionDeleted, SessionInfo, SetEnv};
use std::sync::Arc;

/// A session: a shell of a sandbox that stays alive. Cheap to clone.
#[derive(Clone)]
pub struct Session {
    target: Arc<Target>,
    id: SessionId,
}

impl Session {
    pub(crate) fn new(target: Arc<Target>, id: SessionId) -> Self {
        Self { target, id }
    }

    /// Its id.
    pub fn id(&self) -> &SessionId {
        &self.id
    }

    fn path(&self) -> String {
        path::join(&self.target.path("/sessions"), self.id.as_str())
    }

    /// A command for this session. Runs when it is awaited or streamed.
    pub fn exec(&self, command: impl Into<String>) -> Exec {
        Exec::new(Arc::clone(&self.target), Some(self.id.clone()), command.into())
    }

    /// Sets variables of this session alone (contract S11).
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

    /// Sets (`Some`) and unsets (`None`) variables of this session alone.
    ///
    /// # Errors
    /// `VALIDATION_FAILED` naming the variable.
    pub async fn change_env(&self, env: EnvChanges) -> Result<(), ClientError> {
        let call = Call::new("setEnvVars", Method::PATCH, self.path() + "/env").json(&SetEnv { env });
        self.target.json::<Done>(&call).await.map(drop)
    }

    /// The session as it stands now. Does not create it.
    ///
    /// # Errors
    /// `SESSION_NOT_FOUND`.
    pub async fn info(&self) -> Result<SessionInfo, ClientError> {
        self.target.json(&Call::get("getSession", self.path())).await
    }

    /// Ends the session and frees its id (contract S10).
    ///
    /// # Errors
    /// `SESSION_NOT_FOUND`; `VALIDATION_FAILED` for the default session, which stays.
    pub async fn delete(&self) -> Result<SessionDeleted, ClientError> {
        self.target.json(&Call::new("deleteSession", Method::DELETE, self.path())).await
    }

    /// A repository to be cloned with this session's exported variables, by default below its working directory. Begins
    /// when it is awaited, and waits for no command of the session.
    pub fn git_checkout(&self, repo_url: impl Into<String>) -> Checkout {
        Checkout::new(Arc::clone(&self.target), Some(self.id.clone()), repo_url.into())
    }

    /// A process to start; it starts when this is awaited. Begins with the exported variables and the directory of this
    /// session as of its last command (contract S14), and belongs to the sandbox.
    pub fn start(&self, command: impl Into<String>) -> Start {
        Start::new(Arc::clone(&self.target), Some(self.id.clone()), command.into())
    }

    /// Code to run: in the language's own context of this session, which follows the session's exported variables and
    /// working directory (contract S14). Runs when it is awaited or streamed.
    pub fn run_code(&self, code: impl Into<String>) -> RunCode {
        RunCode::new(Arc::clone(&self.target), Some(self.id.clone()), code.into())
    }

    /// Makes a code context that starts with this session's exported variables in its working directory.
    ///
    /// # Errors
    /// As [`Sandbox::create_code_context`](crate::Sandbox::create_code_context).
    pub async fn create_code_context(&self, options: &CreateCodeContext) -> Result<CodeContext, ClientError> {
        let options = CreateCodeContext { session_id: Some(self.id.clone()), ..options.clone() };
        code::create(&self.target, &options).await
    }

    /// The sandbox's files; relative paths start at this session's working directory.
    pub fn files(&self) -> Files {
        Files::new(Arc::clone(&self.target), Some(self.id.clone()))
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("sandbox", &self.target.id)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

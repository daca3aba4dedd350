//! Repositories that are cloned inside a sandbox.

use crate::ClientError;
use crate::exec::{millis, new_id};
use crate::sandbox::Target;
use crate::transport::Call;
use sandcrab_api::git::{GitAuth, GitCheckout, GitCheckoutResult};
use sandcrab_api::{ExecId, SessionId};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// A repository to be cloned by the sandbox's own git (contract G01). Awaiting it does so.
///
/// Dropping the future leaves it running; [`Sandbox::cancel`](crate::Sandbox::cancel) with [`Checkout::id`] ends it. One
/// that fails leaves nothing behind.
#[must_use = "a checkout begins when it is awaited"]
pub struct Checkout {
    target: Arc<Target>,
    request: GitCheckout,
    id: ExecId,
}

impl Checkout {
    pub(crate) fn new(target: Arc<Target>, session_id: Option<SessionId>, repo_url: String) -> Self {
        let id = new_id();
        let request =
            GitCheckout { repo_url, session_id, exec_id: Some(id.clone()), ..GitCheckout::default() };
        Self { target, request, id }
    }

    /// The id that this client made up for the call, which is a command like others.
    pub fn id(&self) -> &ExecId {
        &self.id
    }

    /// Names the call: one id runs once, whoever asks.
    pub fn with_id(mut self, id: ExecId) -> Self {
        self.request.exec_id = Some(id.clone());
        self.id = id;
        self
    }

    /// The branch or tag to check out. Default: the remote's own.
    pub fn branch(mut self, branch: impl Into<String>) -> Self {
        self.request.branch = Some(branch.into());
        self
    }

    /// Where the working tree goes: an empty directory or a new one. Default: the repository's name, below `/workspace`
    /// or the session's working directory.
    pub fn target_dir(mut self, directory: impl Into<String>) -> Self {
        self.request.target_dir = Some(directory.into());
        self
    }

    /// Fetches only so many of the newest commits. At least one.
    pub fn depth(mut self, commits: u32) -> Self {
        self.request.depth = Some(commits);
        self
    }

    /// Leaves objects out until they are needed, as git's `--filter`: `blob:none`, `blob:limit=1m`, `tree:0`.
    pub fn filter(mut self, filter: impl Into<String>) -> Self {
        self.request.filter = Some(filter.into());
        self
    }

    /// Ends it this long after its start and removes what it had made. At least a millisecond; default 10 minutes.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.request.clone_timeout_ms = Some(millis(timeout).max(1));
        self
    }

    /// Who to be for the repository's host, by http and https. It is written nowhere.
    pub fn auth(mut self, username: impl Into<String>, password: impl Into<String>) -> Self {
        self.request.auth = Some(GitAuth { username: Some(username.into()), password: password.into() });
        self
    }

    /// As [`Checkout::auth`], with a token that needs no user name of its own.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.request.auth = Some(GitAuth { username: None, password: token.into() });
        self
    }

    /// Clones it.
    ///
    /// # Errors
    /// `INVALID_GIT_URL`, `GIT_AUTH_FAILED`, `GIT_REPOSITORY_NOT_FOUND`, `GIT_BRANCH_NOT_FOUND`, `GIT_NETWORK_ERROR`,
    /// `FILE_EXISTS` (the target is not empty), `COMMAND_TIMEOUT`, `OPERATION_INTERRUPTED` (cancelled), `NO_SPACE`,
    /// `COMMAND_NOT_FOUND` (the image has no git), and what else git meets as `GIT_CLONE_FAILED`.
    pub async fn run(self) -> Result<GitCheckoutResult, ClientError> {
        let call = Call::post("gitCheckout", self.target.path("/git/checkout")).json(&self.request);
        self.target.json(&call.repeatable().unbounded()).await
    }
}

impl IntoFuture for Checkout {
    type Output = Result<GitCheckoutResult, ClientError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl std::fmt::Debug for Checkout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checkout").field("id", &self.id).finish_non_exhaustive()
    }
}

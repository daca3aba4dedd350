//! Cloning repositories with the sandbox's own git (contract G01).
//!
//! A checkout is a command like others to its callers: it has an `execId`, stands in the list of commands, outlives the
//! connection that asked for it, can be followed, cancelled and asked for again (contract S12). It has no shell and no
//! place in a session's queue: git runs as the sandbox's user, in a group of processes of its own, from the session's
//! exported variables and working directory (contract S14). What git writes to stderr is the command's, passwords taken
//! out; its stdout is the result, as JSON.
//!
//! A checkout that fails, times out or is cancelled leaves its place as it found it.

mod command;
mod credentials;
pub(crate) mod http;
mod redact;
mod report;
mod running;

use crate::agent::{Agent, random_id};
use crate::exec::execution::{Execution, Finish, StopReason};
use crate::files::{FilePath, Vacancy};
use crate::fingerprint::Fingerprint;
use crate::memory::{Kills, MemoryCgroup};
use crate::session::registry::StartPoint;
use crate::session::task::cancelled;
use crate::spawn::Exit;
use credentials::Lent;
use redact::Redactor;
use report::{Failure, LOOKED_AT};
use running::{Call, Ended, Output, RunError};
use sandcrab_api::exec::{ExecOutcome, StreamName};
use sandcrab_api::git::{Credentials, GitCheckout, GitCheckoutResult, GitUrl};
use sandcrab_api::limits::{DEFAULT_CLONE_TIMEOUT_MS, MAX_GIT_CHECKOUTS};
use sandcrab_api::sandbox::AgentEventKind;
use sandcrab_api::time::Timestamp;
use sandcrab_api::{ApiError, ErrorCode, validate};
use std::collections::BTreeSet;
use std::ffi::CString;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const OPERATION: &str = "gitCheckout";
/// Bytes kept of what git writes: without a terminal it shows no progress, so more comes only from those who chatter.
const KEPT: u64 = 256 << 10;

/// The places at which checkouts are being made.
#[derive(Clone, Debug, Default)]
pub(crate) struct Checkouts(Arc<Mutex<BTreeSet<Vec<u8>>>>);

/// One of the places, until this is dropped.
struct Turn {
    checkouts: Checkouts,
    place: Vec<u8>,
}

impl Checkouts {
    /// Keeps others from `path` meanwhile.
    fn enter(&self, path: &FilePath) -> Result<Turn, ApiError> {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let value = places.len();
        if value >= MAX_GIT_CHECKOUTS {
            let message = format!("the sandbox runs {value} checkouts, the most that it may at once");
            return Err(ApiError::new(ErrorCode::QuotaExceeded, message)
                .with("limit", MAX_GIT_CHECKOUTS)
                .with("value", value)
                .with("scope", "gitCheckouts")
                .retry_after(1));
        }
        let place = path.full.clone();
        if !places.insert(place.clone()) {
            let shown = String::from_utf8_lossy(&place).into_owned();
            let message = format!("another checkout is being made at {shown:?}");
            return Err(ApiError::new(ErrorCode::ResourceBusy, message)
                .with("path", shown)
                .suggest("Wait for the other one, or choose another targetDir.")
                .retry_after(1));
        }
        Ok(Turn { checkouts: self.clone(), place })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.checkouts.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.place);
    }
}

/// Why a checkout was ended before its end.
#[derive(Clone, Copy, Debug)]
enum Stopped {
    TimedOut(u64),
    Asked,
}

/// A checked request.
struct Wish {
    request: GitCheckout,
    url: GitUrl,
    credentials: Option<Credentials>,
}

impl Agent {
    /// Begins a checkout. The one that has the same id already is returned instead, so that a client may send a request
    /// again whose answer it did not see.
    pub(crate) fn git_checkout(self: &Arc<Self>, request: GitCheckout) -> Result<Arc<Execution>, ApiError> {
        let (url, credentials) = request.parse()?;
        let id = request.exec_id.clone().map_or_else(random_id, Ok)?;
        let shown = command::shown(&request, &url);
        let (session, print) = (request.session_id.clone(), Fingerprint::of_checkout(&request));
        let execution = Execution::new(id, shown, session, print, None, &self.context.spool, KEPT);
        if let Some(known) = self.context.executions.insert(&execution)? {
            return Ok(known);
        }
        execution.start();
        let (agent, wish) = (Arc::clone(self), Wish { request, url, credentials });
        let running = Arc::clone(&execution);
        tokio::spawn(async move {
            let begin = Instant::now();
            let finish = match wish.fulfil(&agent, &running).await {
                Ok(result) => {
                    // Of strings and a number: this cannot fail.
                    running.append(StreamName::Stdout, &serde_json::to_vec(&result).unwrap_or_default());
                    let duration = (begin.elapsed().as_secs_f64() * 1e6).round() / 1e3;
                    Finish::Outcome(ExecOutcome { duration, ..ExecOutcome::default() })
                }
                Err(error) => Finish::Failed(Box::new(error.during(OPERATION))),
            };
            agent.context.executions.finish(&running, finish);
        });
        Ok(execution)
    }
}

impl Wish {
    /// Makes the checkout, or leaves everything as it was.
    async fn fulfil(&self, agent: &Agent, execution: &Execution) -> Result<GitCheckoutResult, ApiError> {
        let limit = self.request.clone_timeout_ms.unwrap_or(DEFAULT_CLONE_TIMEOUT_MS);
        let until = tokio::time::Instant::now() + Duration::from_millis(limit);
        let stopped = || async {
            tokio::select! {
                // Checkouts belong to the sandbox: nothing but a call to cancel asks for this.
                _reason @ (StopReason::Cancelled | StopReason::SessionDeleted) = execution.stop_requested() => Stopped::Asked,
                () = tokio::time::sleep_until(until) => Stopped::TimedOut(limit),
            }
        };
        agent.enter_session(self.request.session_id.as_ref())?;
        let start = agent.start_point(self.request.session_id.as_ref()).await?;
        let asked = self.request.target_dir.as_deref().unwrap_or(self.url.name());
        validate::path("targetDir", asked)?;
        let target = tidy(FilePath::new(&start.cwd, asked));
        let shown = String::from_utf8_lossy(&target.full).into_owned();
        let _turn = agent.checkouts.enter(&target)?;
        let before = agent.files.vacancy(OPERATION, target.clone()).await?;
        if before == Vacancy::Taken {
            let message = format!("{shown:?} exists and is not an empty directory");
            return Err(ApiError::new(ErrorCode::FileExists, message)
                .with("path", shown)
                .suggest("Choose another targetDir, or delete what is there."));
        }
        let kills = agent.context.memory.as_ref().map(MemoryCgroup::kills);
        let attempt = Attempt {
            wish: self,
            agent,
            execution,
            start: &start,
            target: &target.full,
            shown: &shown,
            kills,
        };
        let failure = match attempt.make(stopped).await {
            Ok(branch) => {
                let (repo_url, timestamp) = (self.url.as_str().to_owned(), Timestamp::now());
                return Ok(GitCheckoutResult {
                    success: true,
                    repo_url,
                    branch,
                    target_dir: shown,
                    timestamp,
                });
            }
            Err(failure) => failure,
        };
        // What git found in its way is not what it made.
        if failure.code == ErrorCode::FileExists {
            return Err(failure);
        }
        match agent.files.vacate(OPERATION, target, before).await {
            Ok(()) => Err(failure),
            Err(error) => {
                tracing::warn!(%error, "a checkout that failed could not be removed");
                let left = format!(
                    "{}; what was made of it could not be removed: {}",
                    failure.message, error.message
                );
                Err(ApiError { message: left, ..failure })
            }
        }
    }
}

/// One try at a place that is free.
struct Attempt<'a> {
    wish: &'a Wish,
    agent: &'a Agent,
    execution: &'a Execution,
    start: &'a StartPoint,
    target: &'a [u8],
    shown: &'a str,
    kills: Option<Kills>,
}

impl Attempt<'_> {
    /// Clones, and says what is checked out.
    async fn make<S: Future<Output = Stopped>>(&self, stopped: impl Fn() -> S) -> Result<String, ApiError> {
        let Wish { request, url, credentials } = self.wish;
        let mut redactor = Redactor::new(credentials.as_ref());
        let (mut said, mut told) = (Vec::new(), Vec::new());
        let lent = credentials.as_ref().map(Lent::new).transpose();
        let lent = lent.map_err(|error| self.broken(&RunError::Agent("lending credentials", error)))?;
        let arguments = command::clone(request, url, credentials.as_ref(), self.target);
        let take = |piece: &[u8]| {
            said.extend_from_slice(piece);
            // Twice as much before anything is moved, so that each byte is moved once at the most.
            if said.len() > 2 * LOOKED_AT {
                said.drain(..said.len() - LOOKED_AT);
            }
            redactor.push(piece, &mut told);
            self.execution.append(StreamName::Stderr, &told);
            told.clear();
        };
        let ended =
            running::run(&self.call(&arguments, lent.as_ref(), Output::Stderr), stopped(), take).await;
        // The credentials are lent for the clone and no longer.
        drop(lent);
        redactor.finish(&mut told);
        self.execution.append(StreamName::Stderr, &told);
        match ended.map_err(|error| self.broken(&error))? {
            Ended::By(Exit::Code(0)) => {}
            Ended::By(exit) => {
                let said = String::from_utf8_lossy(&said[said.len().saturating_sub(LOOKED_AT)..]);
                return Err(self.failed(exit, &said, &redactor));
            }
            Ended::Stopped(why) => return Err(self.stopped(why)),
        }

        let (arguments, mut name) = (command::branch_of(self.target), Vec::new());
        let take = |piece: &[u8]| name.extend(piece.iter().take(LOOKED_AT.saturating_sub(name.len())));
        let ended = running::run(&self.call(&arguments, None, Output::Stdout), stopped(), take).await;
        match ended.map_err(|error| self.broken(&error))? {
            Ended::By(Exit::Code(0)) => Ok(String::from_utf8_lossy(name.trim_ascii_end()).into_owned()),
            // HEAD names no branch: a tag is checked out, or the remote's HEAD is a commit.
            Ended::By(_) => Ok(request.branch.clone().unwrap_or_else(|| "HEAD".to_owned())),
            Ended::Stopped(why) => Err(self.stopped(why)),
        }
    }

    fn call<'a>(&'a self, arguments: &'a [CString], lent: Option<&'a Lent>, output: Output) -> Call<'a> {
        Call { spawner: &self.agent.context.spawner, start: self.start, arguments, lent, output }
    }

    fn failed(&self, exit: Exit, said: &str, redactor: &Redactor) -> ApiError {
        let Wish { request, url, .. } = self.wish;
        let failure = Failure {
            stderr: said,
            exit_code: exit.code(),
            url: url.as_str(),
            branch: request.branch.as_deref(),
            target: self.shown,
        };
        let error = failure.into_api(redactor);
        let killed = exit.signal() == Some(libc::SIGKILL) || said.contains("died of signal 9");
        let memory = self.agent.context.memory.as_ref().filter(|_| killed).zip(self.kills);
        let Some(oom) = memory.and_then(|(memory, kills)| memory.killed_since(kills)) else { return error };
        let detail = serde_json::json!({ "execId": self.execution.id, "limit": oom.limit, "peak": oom.peak });
        let reason = "git was killed for want of memory".to_owned();
        self.agent.context.events.add(AgentEventKind::Oom, reason, detail);
        let oom = serde_json::json!({ "limit": oom.limit, "peak": oom.peak });
        ApiError { code: ErrorCode::GitCloneFailed, http_status: ErrorCode::GitCloneFailed.status(), ..error }
            .with("oom", oom)
            .suggest("Give the sandbox more memory, or fetch less with depth or filter.")
    }

    fn stopped(&self, why: Stopped) -> ApiError {
        let url = self.wish.url.as_str();
        match why {
            Stopped::Asked => cancelled(self.execution).with("repository", url).with("targetDir", self.shown),
            Stopped::TimedOut(ms) => {
                let message = format!("{url} was not cloned within its timeout of {ms} ms; git was killed");
                ApiError::new(ErrorCode::CommandTimeout, message)
                    .with("command", &*self.execution.command)
                    .with("repository", url)
                    .with("targetDir", self.shown)
                    .with("timeout", ms)
                    .suggest("Give a longer cloneTimeoutMs, or fetch less with depth or filter.")
            }
        }
    }

    /// git could not be run at all.
    fn broken(&self, error: &RunError) -> ApiError {
        let reason = crate::session::task::reasons(error);
        let api = match error {
            RunError::NoGit => {
                ApiError::new(ErrorCode::CommandNotFound, "git is not there: no directory of PATH has it")
                    .with("command", "git")
                    .suggest(
                        "Use an image that has git, or install it, for instance with `apt-get install git`.",
                    )
            }
            RunError::NoDirectory(cwd, error) => error
                .callers_error(cwd)
                .unwrap_or_else(|| ApiError::new(ErrorCode::FileNotFound, reason))
                .suggest("Change to a directory that exists in that session, or name none."),
            RunError::Spawn(error) => error
                .callers_error(c"/")
                .unwrap_or_else(|| ApiError::new(ErrorCode::GitOperationFailed, reason)),
            RunError::Agent(..) => ApiError::new(ErrorCode::GitOperationFailed, reason),
        };
        api.with("repository", self.wish.url.as_str())
    }
}

/// A path without `.` and doubled slashes. `..` stays: what it means depends on links.
fn tidy(path: FilePath) -> FilePath {
    let parts = path.full.split(|&byte| byte == b'/').filter(|part| !part.is_empty() && *part != b".");
    let full: Vec<u8> = parts.flat_map(|part| [b"/", part].concat()).collect();
    FilePath { full: if full.is_empty() { b"/".to_vec() } else { full }, ..path }
}

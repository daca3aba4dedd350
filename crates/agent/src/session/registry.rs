//! All sessions of the sandbox (contract S10), and the variables that they share (contract S11).

use super::queue::{Job, Queue};
use super::task::{self, Context};
use crate::faults;
use crate::shell::{self, SessionConfig, Snapshot, change};
use sandcrab_api::limits::{MAX_ENV_BYTES, MAX_SESSIONS};
use sandcrab_api::sandbox::AgentEventKind;
use sandcrab_api::session::{CreateSession, EnvChanges, SessionInfo};
use sandcrab_api::time::Timestamp;
use sandcrab_api::{ApiError, ErrorCode, SessionId};
use std::collections::{BTreeMap, HashMap};
use std::ffi::{CString, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// How long callers wait for a shell that has answered to hand over its state: milliseconds, unless the state is huge or
/// something keeps the shell from running.
const SETTLED_WITHIN: Duration = Duration::from_secs(2);

/// One session, as its callers see it. Its shell belongs to its task.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    name: Option<String>,
    created_at: Timestamp,
    command_timeout: Option<Duration>,
    /// Runs one command and ends.
    fresh: bool,
    /// Counts the sessions that live, with a name or without.
    _alive: Arc<()>,
    pub(crate) queue: Queue,
    /// Where it begins.
    first_cwd: String,
    /// What its shell said last of its state.
    snapshot: watch::Receiver<Snapshot>,
    /// Set when the session's task is gone, and with it the shell; else why something is left of it.
    pub(crate) ended: watch::Sender<Option<Result<usize, String>>>,
}

impl Session {
    /// It as it stands now.
    pub(crate) fn info(&self) -> SessionInfo {
        let (busy, waiting) = self.queue.load();
        SessionInfo {
            id: self.id.clone(),
            name: self.name.clone(),
            cwd: self.cwd_in(&self.snapshot.borrow()).to_string_lossy().into_owned(),
            created_at: self.created_at,
            busy,
            waiting,
        }
    }

    fn cwd_in(&self, snapshot: &Snapshot) -> PathBuf {
        let exported = snapshot.state.as_ref().and_then(|state| state.exported().ok());
        let cwd = exported.and_then(|exported| exported.cwd).map(into_path);
        cwd.unwrap_or_else(|| self.first_cwd.clone().into())
    }

    /// As [`Session::info`], with the state of the last completed command even if its shell has yet to hand it over.
    /// Never waits for a command (contract S08).
    pub(crate) async fn settled_info(&self) -> SessionInfo {
        self.settled(Instant::now() + SETTLED_WITHIN).await;
        self.info()
    }

    /// Its working directory as of its last completed command.
    async fn cwd(&self) -> PathBuf {
        self.settled(Instant::now() + SETTLED_WITHIN).await;
        self.cwd_in(&self.snapshot.borrow())
    }

    /// Where a program that it starts now begins.
    async fn start_point(&self, context: &Context) -> Result<StartPoint, ApiError> {
        self.settled(Instant::now() + SETTLED_WITHIN).await;
        let exported = self.snapshot.borrow().exported(&context.env, &self.queue.waiting_env());
        let exported = exported.map_err(|error| {
            let message = format!("the state of session {:?} cannot be read: {error}", self.id);
            ApiError::new(ErrorCode::CommandExecutionError, message).with("sessionId", self.id.as_str())
        })?;
        let cwd = exported.cwd.map_or_else(|| self.first_cwd.clone().into(), into_path);
        Ok(StartPoint { environment: exported.environment, cwd })
    }

    async fn settled(&self, deadline: Instant) {
        // An error says that the shell's owner is gone, or that the shell was stopped by its user between its answer and
        // its state: what it said last stands.
        let mut snapshot = self.snapshot.clone();
        let _ = tokio::time::timeout_at(deadline, snapshot.wait_for(|snapshot| snapshot.settled)).await;
    }

    /// Whether it ends with its first command.
    pub(crate) fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// Queues a command; the session's own timeout holds where the command names none.
    pub(crate) fn run(&self, mut job: Job) -> Result<(), ApiError> {
        job.timeout = job.timeout.or(self.command_timeout);
        self.queue.push(&self.id, job)
    }
}

#[derive(Debug, Default)]
struct Inner {
    sessions: HashMap<SessionId, Arc<Session>>,
}

/// What a program that belongs to a session starts with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartPoint {
    /// Its environment, as an exec takes it. Values are bytes: not every one is text.
    pub environment: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Its working directory.
    pub cwd: PathBuf,
}

impl StartPoint {
    /// Applies what the caller asked for explicitly, which wins: variables, and a directory, which is relative to the
    /// session's. Either must be checked already.
    #[must_use]
    pub fn with(mut self, env: &EnvChanges, cwd: Option<&str>) -> Self {
        change(&mut self.environment, env);
        if let Some(cwd) = cwd {
            self.cwd.push(cwd);
        }
        self
    }

    /// As `execve` takes it, `PWD` included; a value that no exec can take is left out.
    pub fn for_exec(&self) -> (Vec<CString>, CString) {
        let cwd = CString::new(self.cwd.as_os_str().as_bytes()).unwrap_or_else(|_| c"/".to_owned());
        let others = self.environment.iter().filter(|(name, _)| *name != b"PWD");
        let env = others.filter_map(|(name, value)| CString::new([name, &b"="[..], value].concat()).ok());
        let pwd = CString::new([b"PWD=", cwd.as_bytes()].concat()).ok();
        (env.chain(pwd).collect(), cwd)
    }
}

fn into_path(bytes: Vec<u8>) -> PathBuf {
    OsString::from_vec(bytes).into()
}

fn as_bytes(variables: BTreeMap<String, String>) -> BTreeMap<Vec<u8>, Vec<u8>> {
    variables.into_iter().map(|(name, value)| (name.into_bytes(), value.into_bytes())).collect()
}

/// The registry.
pub(crate) struct Sessions {
    context: Arc<Context>,
    alive: Arc<()>,
    inner: Arc<Mutex<Inner>>,
}

impl Sessions {
    pub(crate) fn new(context: Arc<Context>) -> Self {
        Self { context, alive: Arc::default(), inner: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session with this id, made with defaults if there is none.
    pub(crate) fn get_or_create(&self, id: &SessionId) -> Result<Arc<Session>, ApiError> {
        let mut inner = self.lock();
        match inner.sessions.get(id) {
            Some(session) => Ok(Arc::clone(session)),
            None => {
                let session = self.start(id.clone(), CreateSession::default(), None, false)?;
                inner.sessions.insert(id.clone(), Arc::clone(&session));
                Ok(session)
            }
        }
    }

    /// Something else than a command uses this session: it exists from now on, as one that a command made (contract S10).
    /// The default session stays without a shell until a command needs one: it cannot be deleted.
    ///
    /// # Errors
    /// `QUOTA_EXCEEDED` past the most sessions that a sandbox may hold.
    pub(crate) fn enter(&self, id: Option<&SessionId>) -> Result<(), ApiError> {
        match id {
            Some(id) if !id.is_default() => self.get_or_create(id).map(drop),
            _ => Ok(()),
        }
    }

    /// Makes a session; `cwd` exists already.
    ///
    /// # Errors
    /// `SESSION_ALREADY_EXISTS`; `QUOTA_EXCEEDED` past the most sessions that a sandbox may hold.
    pub(crate) fn create(&self, request: CreateSession, cwd: String) -> Result<Arc<Session>, ApiError> {
        let id = request.id.clone().map_or_else(random_id, Ok)?;
        let mut inner = self.lock();
        if inner.sessions.contains_key(&id) {
            return Err(already_exists(&id));
        }
        let session = self.start(id.clone(), request, Some(cwd), false)?;
        inner.sessions.insert(id, Arc::clone(&session));
        Ok(session)
    }

    /// Fails as [`Sessions::create`] would if the id is taken, before anything is done for it.
    pub(crate) fn require_free(&self, id: Option<&SessionId>) -> Result<(), ApiError> {
        match id {
            Some(id) if self.lock().sessions.contains_key(id) => Err(already_exists(id)),
            _ => Ok(()),
        }
    }

    /// Brings a session to life that no id names yet.
    fn start(
        &self,
        id: SessionId,
        request: CreateSession,
        cwd: Option<String>,
        fresh: bool,
    ) -> Result<Arc<Session>, ApiError> {
        let alive = Arc::strong_count(&self.alive) - 1;
        if alive >= MAX_SESSIONS {
            let message = format!("the sandbox has {MAX_SESSIONS} sessions, the most that it may hold");
            return Err(ApiError::new(ErrorCode::QuotaExceeded, message)
                .with("limit", MAX_SESSIONS)
                .with("value", alive)
                .with("scope", "sessions")
                .suggest("Delete sessions that are not needed."));
        }
        let cwd = cwd.unwrap_or_else(|| self.context.workspace.clone());
        let mut config =
            SessionConfig::new(cwd.clone(), self.context.env.clone(), self.context.shell.clone());
        config.env = request.env;
        let shell = match self.context.spares.take(&config, &self.context.files, &self.context.workspace) {
            Some(spare) => spare,
            None => shell::Session::new(config, self.context.spawner.clone()).map_err(|error| {
                let message = format!("session {id:?} could not be made: {error}");
                ApiError::new(ErrorCode::CommandExecutionError, message).with("sessionId", id.as_str())
            })?,
        };
        let session = Arc::new(Session {
            id,
            name: request.name,
            created_at: Timestamp::now(),
            command_timeout: request.command_timeout_ms.map(Duration::from_millis),
            fresh,
            _alive: Arc::clone(&self.alive),
            queue: Queue::default(),
            first_cwd: cwd,
            snapshot: shell.watch(),
            ended: watch::Sender::new(None),
        });
        let task = task::run(Arc::clone(&self.context), Arc::clone(&session), shell);
        let broken = Broken {
            context: Arc::clone(&self.context),
            inner: Arc::clone(&self.inner),
            session: Arc::clone(&session),
        };
        tokio::spawn(async move {
            if faults::panics(task).await {
                broken.give_up();
            }
        });
        Ok(session)
    }

    /// A shell of its own for one command, which no id names.
    pub(crate) fn fresh(&self) -> Result<Arc<Session>, ApiError> {
        self.start(random_id()?, CreateSession::default(), None, true)
    }

    /// The session with this id.
    ///
    /// # Errors
    /// `SESSION_NOT_FOUND`.
    pub(crate) fn get(&self, id: &SessionId) -> Result<Arc<Session>, ApiError> {
        self.lock().sessions.get(id).cloned().ok_or_else(|| {
            ApiError::new(ErrorCode::SessionNotFound, format!("there is no session {id:?}"))
                .with("sessionId", id.as_str())
        })
    }

    /// All sessions by age.
    pub(crate) async fn list(&self) -> Vec<SessionInfo> {
        let sessions: Vec<_> = self.lock().sessions.values().cloned().collect();
        let mut list = Vec::with_capacity(sessions.len());
        let deadline = Instant::now() + SETTLED_WITHIN;
        for session in sessions {
            session.settled(deadline).await;
            list.push(session.info());
        }
        list.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        list
    }

    /// Where a relative path of a caller begins.
    pub(crate) async fn cwd_of(&self, id: Option<&SessionId>) -> PathBuf {
        let session = id.and_then(|id| self.lock().sessions.get(id).cloned());
        match session {
            Some(session) => session.cwd().await,
            // A session that does not exist yet would start in the workspace.
            None => self.context.workspace.clone().into(),
        }
    }

    /// Where a program that belongs to a session begins: with the session's exported variables and working directory as
    /// of its last completed command (contract S14). Without a session, or in one that does not exist yet, with the
    /// sandbox's variables, in the workspace. Never waits for a command.
    ///
    /// # Errors
    /// `COMMAND_EXECUTION_ERROR` if the session's state cannot be read.
    pub(crate) async fn start_point(&self, id: Option<&SessionId>) -> Result<StartPoint, ApiError> {
        let session = id.and_then(|id| self.lock().sessions.get(id).cloned());
        match session {
            Some(session) => session.start_point(&self.context).await,
            None => Ok(StartPoint {
                environment: as_bytes(self.context.env.variables()),
                cwd: self.context.workspace.clone().into(),
            }),
        }
    }

    /// Deletes a session: its shell is gone when this returns, and its id is free.
    ///
    /// # Errors
    /// `SESSION_NOT_FOUND`; `VALIDATION_FAILED` for the default session.
    pub(crate) async fn delete(&self, id: &SessionId) -> Result<usize, ApiError> {
        if id.is_default() {
            return Err(ApiError::invalid(
                "sessionId",
                "the default session cannot be deleted; destroy the sandbox",
            ));
        }
        let session = self.get(id)?;
        session.queue.close(id, &self.context.executions);
        // The receiver cannot fail before the sender, which this handle holds.
        let ended = session.ended.subscribe().wait_for(Option::is_some).await.map(|ended| ended.clone());
        let mut inner = self.lock();
        if inner.sessions.get(id).is_some_and(|held| Arc::ptr_eq(held, &session)) {
            inner.sessions.remove(id);
        }
        drop(inner);
        match ended {
            Ok(Some(Err(left))) => {
                let message =
                    format!("session {id:?} is deleted, but processes of it are left behind: {left}");
                Err(ApiError::new(ErrorCode::ProcessError, message)
                    .with("sessionId", id.as_str())
                    .suggest("End what traces them; the sandbox's end ends them too."))
            }
            Ok(Some(Ok(count))) => Ok(count),
            Ok(None) | Err(_) => Ok(0),
        }
    }

    /// Changes variables of the sandbox: for every session from its next command on, and for sessions to come.
    ///
    /// # Errors
    /// `QUOTA_EXCEEDED` when all that was ever set exceeds what an environment may hold.
    pub(crate) fn set_env(&self, changes: &EnvChanges) -> Result<(), ApiError> {
        let bytes = |env: &EnvChanges| -> usize {
            env.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, String::len) + 2).sum()
        };
        let value = bytes(&self.context.env.changes()) + bytes(changes);
        if value > MAX_ENV_BYTES {
            let message =
                format!("the sandbox's variables would take {value} bytes; {MAX_ENV_BYTES} are the most");
            return Err(ApiError::new(ErrorCode::QuotaExceeded, message)
                .with("limit", MAX_ENV_BYTES)
                .with("value", value)
                .with("scope", "env"));
        }
        self.context.env.change(changes);
        Ok(())
    }

    /// Changes variables of one session, made with defaults if there is none.
    pub(crate) fn set_session_env(&self, id: &SessionId, changes: EnvChanges) -> Result<(), ApiError> {
        self.get_or_create(id)?.queue.change_env(changes);
        Ok(())
    }
}

/// A session whose task panicked. Its shell went with the task; its id is free, and the next use makes a new one.
struct Broken {
    context: Arc<Context>,
    inner: Arc<Mutex<Inner>>,
    session: Arc<Session>,
}

impl Broken {
    fn give_up(self) {
        let id = &self.session.id;
        let reason = format!("session {id:?} was ended by a fault of the agent");
        tracing::error!("{reason}");
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.sessions.get(id).is_some_and(|held| Arc::ptr_eq(held, &self.session)) {
            inner.sessions.remove(id);
        }
        drop(inner);
        let error = ApiError::new(ErrorCode::InternalError, reason.clone()).with("sessionId", id.as_str());
        self.session.queue.break_off(&self.context.executions, &error);
        self.session.ended.send_replace(Some(Ok(0)));
        let detail = serde_json::json!({ "sessionId": id });
        self.context.events.add(AgentEventKind::Fault, reason, detail);
    }
}

fn already_exists(id: &SessionId) -> ApiError {
    ApiError::new(ErrorCode::SessionAlreadyExists, format!("session {id:?} exists already"))
        .with("sessionId", id.as_str())
}

fn random_id() -> Result<SessionId, ApiError> {
    // Cannot fail: the text keeps the rule of ids.
    SessionId::parse(&format!("session-{:016x}", rand::random::<u64>()))
        .map_err(|error| ApiError::invalid("id", error.to_string()))
}

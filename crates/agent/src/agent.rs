//! The agent: what it owns, and how it comes to life.

use crate::code::CodeContexts;
use crate::events::Events;
use crate::exec::execution::Execution;
use crate::exec::registry::Registry;
use crate::exec::spool::SpoolDir;
use crate::files::http::{CwdOf, EnterSession, FilesState};
use crate::files::{FilePath, Files};
use crate::fingerprint::Fingerprint;
use crate::fitness::Fitness;
use crate::git::Checkouts;
use crate::memory::MemoryCgroup;
use crate::processes::{Ports, Processes};
use crate::room::Room;
use crate::session::queue::Job;
use crate::session::registry::{Session, Sessions, StartPoint};
use crate::session::spare::{self, Spares};
use crate::session::task::Context;
use crate::shell::SandboxEnv;
use crate::shell::image::ShellImage;
use crate::spawn::{Identity, Spawner};
use crate::stdin::Stdin;
use sandcrab_api::exec::ExecRequest;
use sandcrab_api::launch::AgentConfig;
use sandcrab_api::limits::DEFAULT_MAX_OUTPUT_BYTES;
use sandcrab_api::sandbox::AgentEventKind;
use sandcrab_api::session::CreateSession;
use sandcrab_api::{ApiError, ErrorCode, ExecId, SessionId, validate};
use std::convert::Infallible;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Bytes of each stream that are kept for a follower at the least, so that one who reads loses nothing: more than a
/// command may run ahead of its reader.
const STREAM_WINDOW: u64 = 16 << 20;

/// What a command that waits holds beside what was sent, about.
const JOB: usize = 1 << 10;

/// How much of a command's output is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Keep {
    /// For a result: as many bytes as the caller wants to see.
    AsAsked,
    /// For a stream, whose reader follows the command.
    ForAFollower,
}

/// Everything that one sandbox's agent holds; each part owns its own state.
pub struct Agent {
    pub(crate) context: Arc<Context>,
    pub(crate) sessions: Sessions,
    pub(crate) files: Files,
    pub(crate) checkouts: Checkouts,
    pub(crate) processes: Arc<Processes>,
    pub(crate) ports: Ports,
    pub(crate) code: CodeContexts,
    pub(crate) fitness: Fitness,
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Agent").finish_non_exhaustive()
    }
}

/// Why an agent could not begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The null device is not there.
    #[error("find the null device")]
    Null(#[source] std::io::Error),
    /// The identity of user code cannot be taken.
    #[error("prepare the identity of user code")]
    Identity(#[source] crate::spawn::IdentityError),
    /// The agent's threads cannot be told from user code.
    #[error("keep the agent's threads apart from user code")]
    Threads(#[source] std::io::Error),
    /// The image has no shell.
    #[error("find a shell")]
    Shell(#[source] std::io::Error),
    /// The sandbox's files cannot be reached.
    #[error("open the sandbox's root")]
    Files(#[source] rustix::io::Errno),
    /// A descriptor that the configuration names is not open.
    #[error("take descriptor {fd}")]
    Descriptor {
        /// Its number.
        fd: i32,
        /// Why.
        source: std::io::Error,
    },
    /// The listening socket cannot be used.
    #[error("listen on the socket that was handed over")]
    Listen(#[source] std::io::Error),
}

/// A descriptor that the configuration names, as one of our own.
pub(crate) fn take(fd: i32) -> Result<OwnedFd, StartError> {
    crate::sys::borrow(fd).try_clone_to_owned().map_err(|source| StartError::Descriptor { fd, source })
}

impl axum::extract::FromRef<Arc<Agent>> for FilesState {
    fn from_ref(agent: &Arc<Agent>) -> Self {
        let files = agent.files.clone();
        let agent = Arc::clone(agent);
        let sessions = Arc::clone(&agent);
        let enter: EnterSession = Arc::new(move |id| sessions.sessions.enter(Some(id)));
        let cwd: CwdOf = Arc::new(move |id| {
            let agent = Arc::clone(&agent);
            Box::pin(async move { Ok(agent.sessions.cwd_of(id.as_ref()).await) })
        });
        Self { files, cwd, enter }
    }
}

impl Agent {
    /// Brings an agent to life; needs a tokio runtime.
    ///
    /// # Errors
    /// If something that the configuration names cannot be had.
    pub fn start(config: &AgentConfig) -> Result<Arc<Self>, StartError> {
        crate::null::find().map_err(StartError::Null)?;
        let events = Arc::<Events>::default();
        let spool = take(config.spool_fd)?;
        let own = rustix::io::fcntl_dupfd_cloexec(&spool, 0).map_err(StartError::Files)?;
        let spool = SpoolDir::new(spool, Arc::clone(&events));
        let memory = config.memory_cgroup_fd.map(take).transpose()?.map(MemoryCgroup::new);
        let room = Room::new(memory.as_ref().and_then(MemoryCgroup::limit));
        let files =
            Files::in_room(&config.identity, Arc::clone(&room), Some(own)).map_err(StartError::Files)?;
        let identity = Identity::from_config(&config.identity).map_err(StartError::Identity)?;
        let context = Arc::new(Context {
            room: Arc::clone(&room),
            workspace: config.workspace.clone(),
            files: files.clone(),
            spool,
            executions: Registry::default(),
            spawner: Spawner::new(identity),
            shell: ShellImage::find(&files).map_err(StartError::Shell)?,
            events,
            spares: Spares::default(),
            env: SandboxEnv::new(config.env.clone()),
            memory,
        });
        for reason in &config.hindered {
            let detail = serde_json::Value::Null;
            context.events.add(AgentEventKind::StartHindered, reason.clone(), detail);
        }
        if !config.identity.can_switch && rustix::process::getpid().is_init() {
            context.spawner.keep_threads_apart().map_err(StartError::Threads)?;
        }
        // First: it comes up on another CPU while the agent does the rest.
        spare::prepare(&context);
        let this = Arc::new_cyclic(|agent| Self {
            sessions: Sessions::new(Arc::clone(&context)),
            code: CodeContexts::new(Arc::clone(&context), files.clone(), agent.clone()),
            context,
            files,
            checkouts: Checkouts::default(),
            processes: Arc::default(),
            ports: Ports::default(),
            fitness: Fitness::now(),
        });
        let agent = Arc::clone(&this);
        tokio::spawn(async move { agent.context.executions.expire_in_time().await });
        let agent = Arc::clone(&this);
        tokio::spawn(async move { agent.processes.expire_in_time().await });
        let context = Arc::clone(&this.context);
        tokio::spawn(async move {
            let why = context.shell.until_plain().await;
            context.events.add(AgentEventKind::PlainShell, why, serde_json::Value::Null);
        });
        if rustix::process::getpid().is_init() {
            let spawner = this.context.spawner.clone();
            tokio::spawn(async move {
                let Err(error) = spawner.reap_orphans().await;
                tracing::error!(%error, "orphans are no longer reaped");
            });
        }
        if let Some(bound) = config.socket_bound {
            tokio::spawn(crate::sockets::watch(bound, Arc::clone(&this.context.events)));
        }
        if let Some(fd) = config.ptrace_fd {
            let listener = take(fd)?;
            tokio::spawn(async move {
                let Err(error) = crate::ptrace::serve(listener).await;
                // Requests wait until their makers are killed, or fail once nothing of this process is left.
                tracing::error!(%error, "requests to trace exits are no longer answered");
            });
        }
        Ok(this)
    }

    /// Serves the agent's API; returns only if the socket cannot be used.
    ///
    /// # Errors
    /// If the socket is no listening Unix socket.
    pub async fn serve(self: Arc<Self>, listener: UnixListener) -> Result<Infallible, StartError> {
        let listener = sandcrab_socket::Listener::new(listener).map_err(StartError::Listen)?;
        let room = Arc::clone(&self.context.room);
        let app = crate::http::app(self);
        // The routes were made together with their document, which only the server publishes: megabytes.
        crate::sys::release_free_memory();
        Ok(crate::http::serve::serve(listener, app, room).await)
    }

    /// Makes a session, and its working directory.
    pub(crate) async fn create_session(&self, request: CreateSession) -> Result<Arc<Session>, ApiError> {
        validate::create_session(&request)?;
        self.sessions.require_free(request.id.as_ref())?;
        let workspace = Path::new(&self.context.workspace);
        let cwd = request.cwd.as_ref().map_or_else(|| workspace.to_owned(), |cwd| workspace.join(cwd));
        let cwd = cwd.to_string_lossy().into_owned();
        let directory = FilePath::new(workspace, cwd.clone());
        self.files.mkdir(directory, true, None).await.map_err(|error| error.with("field", "cwd"))?;
        self.sessions.create(request, cwd)
    }

    /// Something else than a command uses this session: see [`Sessions::enter`].
    pub(crate) fn enter_session(&self, session: Option<&SessionId>) -> Result<(), ApiError> {
        self.sessions.enter(session)
    }

    /// Where a program that belongs to a session begins (contract S14): see [`Sessions::start_point`].
    ///
    /// # Errors
    /// `COMMAND_EXECUTION_ERROR` if the session's state cannot be read.
    pub async fn start_point(&self, session: Option<&SessionId>) -> Result<StartPoint, ApiError> {
        self.sessions.start_point(session).await
    }

    /// Puts a command into its session's queue. The command that has the same id already is returned instead, so that
    /// a client may send a request again whose answer it did not see.
    pub(crate) fn exec(&self, request: ExecRequest, keep: Keep) -> Result<Arc<Execution>, ApiError> {
        validate::exec(&request)?;
        let fingerprint = Fingerprint::of_command(&request);
        let id = request.exec_id.map_or_else(random_id, Ok)?;
        let session_id =
            (!request.fresh).then(|| request.session_id.unwrap_or_else(SessionId::default_session));
        let limit = request.max_output_bytes.unwrap_or(DEFAULT_MAX_OUTPUT_BYTES);
        let limit = match keep {
            Keep::AsAsked => limit,
            Keep::ForAFollower => limit.max(STREAM_WINDOW),
        };
        let sent = request.command.len() + request.stdin.as_ref().map_or(0, String::len);
        let room = self.context.room.take(JOB + sent)?;
        let (command, spool) = (request.command, &self.context.spool);
        let stdin = request.interactive.then(Stdin::new);
        let execution = Execution::new(id, command, session_id.clone(), fingerprint, stdin, spool, limit);
        if let Some(known) = self.context.executions.insert(&execution)? {
            return Ok(known);
        }
        let job = Job {
            execution: Arc::clone(&execution),
            env: request.env,
            cwd: request.cwd,
            stdin: request.stdin,
            timeout: request.timeout.map(Duration::from_millis),
            room,
        };
        let queued = match &session_id {
            Some(id) => self.sessions.get_or_create(id),
            None => self.sessions.fresh(),
        }
        .and_then(|session| session.run(job));
        if let Err(error) = queued {
            self.context.executions.refuse(&execution, &error);
            return Err(error);
        }
        if let Some(wait) = request.queue_timeout {
            self.bound_the_wait(&execution, wait);
        }
        Ok(execution)
    }

    /// Fails a command that is still queued after `wait` milliseconds.
    fn bound_the_wait(&self, execution: &Arc<Execution>, wait: u64) {
        let (context, execution) = (Arc::clone(&self.context), Arc::clone(execution));
        tokio::spawn(async move {
            if tokio::time::timeout(Duration::from_millis(wait), execution.left_queue()).await.is_err() {
                context.executions.fail_if_queued(&execution, || {
                    let message = format!("the command waited {wait} ms for earlier ones of its session");
                    let session = execution.session_id.as_ref().map_or("", |id| id.as_str());
                    ApiError::new(ErrorCode::ResourceBusy, message)
                        .with("sessionId", session)
                        .with("queueTimeout", wait)
                        .retry_after(1)
                });
            }
        });
    }
}

/// A name for a command whose client gave it none.
pub(crate) fn random_id() -> Result<ExecId, ApiError> {
    // Cannot fail: the text keeps the rule of ids.
    ExecId::parse(&format!("{:032x}", rand::random::<u128>()))
        .map_err(|error| ApiError::invalid("execId", error.to_string()))
}

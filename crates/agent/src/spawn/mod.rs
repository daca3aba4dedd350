//! Starting and reaping processes.
//!
//! Everything that the agent starts goes through one [`Spawner`]. It owns `waitpid`: a child is entered in the table of
//! known children under the same lock under which it is cloned, so nothing can reap it before it is known, and its
//! status is taken exactly once, by whoever comes first of [`Child::wait`] and the reaper of orphans. A child is
//! identified by its pidfd, never by its number alone.
//!
//! A child ends with the agent: in a sandbox because its namespace does, elsewhere because the kernel kills it when the
//! thread that started it ends. That is why nothing is started from threads that come and go, as those of a pool do.
//!
//! As PID 1 the agent also inherits orphans; [`Spawner::reap_orphans`] runs for as long as the agent does and reaps
//! what is not in the table. A process that is not PID 1 does not run it and reaps only what it started.

pub(crate) mod group;
mod identity;
mod reaper;

pub use group::Group;
pub use identity::{Identity, IdentityError};
pub(crate) use reaper::Left;
pub use reaper::{Child, Exit};

use crate::sys::child::{MAX_FDS, Plan, Stack, Step, StepFailed, start};
use crate::sys::paths::NO_MAGICLINKS;
use rustix::fd::{AsRawFd, BorrowedFd};
use sandcrab_api::limits::MAX_ENV_ENTRY_BYTES;
use sandcrab_api::{ApiError, ErrorCode};
use std::ffi::{CStr, CString, c_char};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Directories of a `PATH` that are looked at: far more than any has that people use.
pub(crate) const PATH_ENTRIES: usize = 256;

/// A process could not be started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// A step between clone and exec failed.
    #[error("starting {program}: {step} failed")]
    Step {
        /// The program.
        program: String,
        /// The step's name.
        step: String,
        /// The reason.
        source: io::Error,
    },
    /// The program or the working directory is one that no user's process is started with.
    #[error("starting {program}: {what} {why}")]
    Refused {
        /// The program.
        program: String,
        /// Which of the two.
        what: Refused,
        /// Why.
        why: &'static str,
    },
    /// The kernel starts no program with so large an environment.
    #[error("starting {program}: its variables are too large, {name} with {bytes} bytes above all")]
    TooLarge {
        /// The program.
        program: String,
        /// The largest variable.
        name: String,
        /// Its length, name included.
        bytes: usize,
    },
    /// The agent lacks a resource of its own.
    #[error("starting {program}: {what}")]
    Agent {
        /// The program.
        program: String,
        /// What was being done.
        what: &'static str,
        /// The reason.
        source: io::Error,
    },
}

/// What a process is not started with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Its program, or the program's interpreter.
    Program,
    /// Its working directory.
    Directory,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Program => "the program",
            Self::Directory => "the working directory",
        })
    }
}

impl SpawnError {
    fn of_step(program: String, StepFailed { step, source }: StepFailed) -> Self {
        const LINK: &str =
            "leads through a link of /proc to an open file, a directory or a program of a process";
        let refused = |what, why| Self::Refused { program: program.clone(), what, why };
        match step {
            Step::DirectoryLink => refused(Refused::Directory, LINK),
            Step::DirectoryOutside => refused(Refused::Directory, "is removed, or not below the root"),
            Step::ExecLink => refused(Refused::Program, LINK),
            _ => Self::Step { program, step: format!("{step:?}"), source },
        }
    }

    fn too_large(program: String, env: &[CString]) -> Self {
        let largest =
            env.iter().map(|entry| entry.to_bytes()).max_by_key(|entry| entry.len()).unwrap_or_default();
        let name = largest.split(|byte| *byte == b'=').next().unwrap_or_default();
        let name = String::from_utf8_lossy(name).chars().take(80).collect();
        Self::TooLarge { program, name, bytes: largest.len() }
    }

    /// The reason alone, without what was being started.
    pub fn why(&self) -> String {
        match self {
            Self::Step { source, .. } | Self::Agent { source, .. } => source.to_string(),
            Self::Refused { what, why, .. } => format!("{what} {why}"),
            Self::TooLarge { name, bytes, .. } => format!("{name} has {bytes} bytes"),
        }
    }

    /// That no more processes may be made, as an error of the API; none for any other fault.
    pub(crate) fn quota_error(&self) -> Option<ApiError> {
        if !matches!(self, Self::Step { step, .. } if step == "Clone") || self.errno() != Some(libc::EAGAIN) {
            return None;
        }
        let message = "the sandbox has as many processes as its limits.pids allows";
        let error = ApiError::new(ErrorCode::QuotaExceeded, message).with("scope", "pids");
        Some(error.suggest(
            "End processes, as with `kill -9 -1` or killAllProcesses, or make a sandbox with a higher limit.",
        ))
    }

    /// An unusable working directory or environment as an error of the API that names the field; none for any other fault.
    pub(crate) fn callers_error(&self, cwd: &CStr) -> Option<ApiError> {
        if let Some(error) = self.quota_error() {
            return Some(error);
        }
        if let Self::TooLarge { name, bytes, .. } = self {
            let message = format!(
                "it has {bytes} bytes, and the kernel starts no program with one variable above {MAX_ENV_ENTRY_BYTES} bytes, \
                 or with all together above some 2 MB"
            );
            let error = ApiError::invalid(&format!("env.{name}"), message);
            return Some(error.suggest("Unset the variable in the session, or keep its value in a file."));
        }
        if !self.is_directory() {
            return None;
        }
        let cwd = cwd.to_string_lossy();
        let message = format!("{cwd:?} cannot be entered: {}", self.why());
        let code = match self.errno() {
            None => return Some(ApiError::invalid("cwd", message).with("path", &*cwd)),
            Some(libc::ENOTDIR) => ErrorCode::NotDirectory,
            Some(libc::EACCES) => ErrorCode::PermissionDenied,
            Some(_) => ErrorCode::FileNotFound,
        };
        Some(ApiError::new(code, format!("cwd: {message}")).with("path", &*cwd).with("field", "cwd"))
    }

    /// Whether the program or the working directory does not exist or cannot be used, as opposed to a fault of ours.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Step { source, .. } | Self::Agent { source, .. } => source.raw_os_error(),
            Self::Refused { .. } => None,
            Self::TooLarge { .. } => Some(libc::E2BIG),
        }
    }

    /// Whether the failed step was executing the program.
    pub fn is_exec(&self) -> bool {
        matches!(self, Self::Refused { what: Refused::Program, .. })
            || matches!(self, Self::Step { step, .. } if step == "Exec")
    }

    /// Whether the failed step was going to the working directory.
    pub fn is_directory(&self) -> bool {
        matches!(self, Self::Refused { what: Refused::Directory, .. })
            || matches!(self, Self::Step { step, .. } if step == "Directory")
    }
}

/// What to start.
#[derive(Clone, Copy, Debug)]
pub struct SpawnSpec<'a> {
    /// Path of the program; `PATH` is not searched.
    pub program: &'a CStr,
    /// Its arguments, the zeroth included.
    pub args: &'a [CString],
    /// Its whole environment, as `NAME=value`.
    pub env: &'a [CString],
    /// Its working directory; none keeps the agent's.
    pub cwd: Option<&'a CStr>,
    /// Descriptors it gets, with the number that each has there. All others are closed.
    pub fds: &'a [(BorrowedFd<'a>, i32)],
    /// The cgroup2 directory that it starts in.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Whether orphans below it become its children, as opposed to those of the next subreaper above.
    pub subreaper: bool,
}

/// Starts processes under one identity, and knows which of them still run.
#[derive(Clone)]
pub struct Spawner(Arc<Inner>);

struct Inner {
    identity: Identity,
    table: reaper::Table,
    stack: Mutex<Option<Stack>>,
    /// Whether each start first makes sure that the agent's threads cannot be taken for user code.
    apart: AtomicBool,
}

impl std::fmt::Debug for Spawner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Spawner").field(&self.0.identity).finish()
    }
}

impl Spawner {
    /// A spawner whose processes take `identity`.
    pub fn new(identity: Identity) -> Self {
        Self(Arc::new(Inner {
            table: reaper::Table::new(identity.cgroup.is_none()),
            identity,
            stack: Mutex::new(None),
            apart: AtomicBool::new(false),
        }))
    }

    /// Takes the ids that are the agent's alone where user code has its uid; no process is started any more once a thread
    /// of the agent has another one. For PID 1, before it has started anything.
    pub(crate) fn keep_threads_apart(&self) -> io::Result<()> {
        let mut stack = self.0.stack.lock().unwrap_or_else(PoisonError::into_inner);
        *stack = Some(Stack::new()?);
        crate::closing::start_all()?;
        crate::threads::use_up_ids()?;
        self.0.apart.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Who the processes are.
    pub fn identity(&self) -> &Identity {
        &self.0.identity
    }

    /// Starts a process. Blocks the thread for the time of clone and exec, about half a millisecond. Needs a tokio
    /// runtime, which will wake [`Child::wait`].
    pub fn spawn(&self, spec: &SpawnSpec<'_>) -> Result<Child, SpawnError> {
        let program = || spec.program.to_string_lossy().into_owned();
        let agent = |what| move |source| SpawnError::Agent { program: program(), what, source };
        if spec.fds.len() > MAX_FDS {
            return Err(agent("more descriptors than a process can be given")(
                io::ErrorKind::InvalidInput.into(),
            ));
        }
        if self.0.apart.load(Ordering::Relaxed) {
            crate::threads::check().map_err(agent("looking at the agent's own threads"))?;
        }
        let identity = &self.0.identity;
        let argv = pointers(spec.args);
        let envp = pointers(spec.env);
        // With PID 1 its whole namespace ends.
        let own = rustix::process::getpid();
        let fds: Vec<_> = spec.fds.iter().map(|(fd, to)| (fd.as_raw_fd(), *to)).collect();
        let closed = gaps(spec.fds.iter().map(|(_, to)| *to));
        let plan = Plan {
            program: spec.program,
            argv: &argv,
            envp: &envp,
            cwd: spec.cwd,
            fds: &fds,
            closed: &closed,
            resolve: NO_MAGICLINKS,
            cgroup: spec.cgroup.map(|fd| fd.as_raw_fd()),
            userns: identity.userns.as_ref().map(AsRawFd::as_raw_fd),
            ids: identity.ids,
            capabilities: identity.capabilities,
            rlimits: &identity.rlimits,
            oom_score_adj: identity.oom_score_adj.as_deref(),
            seccomp: &identity.seccomp,
            subreaper: spec.subreaper,
            leash: (!own.is_init()).then(|| own.as_raw_nonzero().get()),
        };
        let mut stack = self.0.stack.lock().unwrap_or_else(PoisonError::into_inner);
        let stack = match &mut *stack {
            Some(stack) => stack,
            none => none.insert(Stack::new().map_err(agent("mapping a stack"))?),
        };
        let (pid, pidfd, slot, left) = self.0.table.enter(|| start(stack, &plan)).map_err(|failed| {
            match failed.source.raw_os_error() {
                Some(libc::E2BIG) => SpawnError::too_large(program(), spec.env),
                _ => SpawnError::of_step(program(), failed),
            }
        })?;
        Child::new(pid, pidfd, slot, left, self.clone()).map_err(agent("watching the process"))
    }

    /// Reaps orphans for as long as the future runs. For PID 1 alone: it takes the status of every child that this
    /// spawner did not start.
    pub async fn reap_orphans(&self) -> io::Result<std::convert::Infallible> {
        self.0.table.reap_orphans().await
    }
}

/// All descriptors but these, as ranges of a first and a last.
fn gaps(kept: impl Iterator<Item = i32>) -> Vec<(u32, u32)> {
    let mut kept: Vec<u32> = kept.map(i32::cast_unsigned).collect();
    kept.sort_unstable();
    let mut gaps = Vec::new();
    let mut next = 0;
    for fd in kept {
        if fd > next {
            gaps.push((next, fd - 1));
        }
        next = next.max(fd + 1);
    }
    gaps.push((next, u32::MAX));
    gaps
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect()
}

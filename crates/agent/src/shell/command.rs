//! What is asked of a session's shell, and what comes back.

use super::live::StartError;
use bytes::Bytes;
use rustix::fd::OwnedFd;
use std::io;

/// One command.
#[derive(Debug)]
pub struct RunRequest {
    /// The command's text. It may hold anything but NUL bytes.
    pub text: Bytes,
    /// What the command reads.
    pub stdin: OwnedFd,
    /// What the command writes on stdout. The other end must be read while it runs, and for as long as anything holds
    /// this one: a background job that writes to a pipe which nobody reads dies of it.
    pub stdout: OwnedFd,
    /// What the command writes on stderr, likewise.
    pub stderr: OwnedFd,
    /// Variables for this command only (text sets, none unsets).
    ///
    /// They stand in place of the session's own while the command runs and vanish with it, whatever the command does to
    /// them; then the session's own are back exactly as they were, unset or not, exported or not.
    pub env: Vec<(String, Option<String>)>,
    /// Directory for this command only; a relative one is below the session's. Afterwards the session is where it was,
    /// also if the command went elsewhere.
    pub cwd: Option<String>,
}

/// Why a command is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// Its time is over.
    Timeout,
    /// Somebody asked for its end.
    Cancel,
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// The shell reported the status and lives on, or left for reasons of its own after it.
    Completed,
    /// The command ended the shell: `exit`, `exec`, `set -e`, a signal to the shell.
    ShellExited,
    /// It was stopped; nothing of it runs any more.
    Stopped(StopReason),
    /// Its end is not known: it was begun, but by a shell that the agent itself had given up and killed.
    Interrupted,
}

/// The result of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunOutcome {
    /// The exit code: the shell's own `$?`, or 128 + n if signal n ended the shell.
    pub exit_code: i32,
    /// The signal that ended the shell, if one did.
    pub signal: Option<i32>,
    /// How it ended.
    pub ended: Ended,
    /// The shell that ran this command is gone: what no text can carry (jobs, open files) is lost.
    pub shell_restarted: bool,
    /// Parts of the state that could not be restored into the shell that ran this command, or to be named since the
    /// command before: a whole "state" that could not be kept.
    pub dropped: Vec<Dropped>,
    /// What is known of processes that were killed and do not end, held by a tracer or by the kernel.
    pub unkillable: Vec<String>,
}

/// A part of the state that a new shell does not have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// What it is: "variable", "function", "working directory", ...
    pub kind: &'static str,
    /// Its name, where it has one.
    pub name: String,
    /// What the shell said about it, if anything.
    pub reason: String,
}

/// A command could not be run at all. Nothing of it was executed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A text for a shell cannot hold a NUL byte.
    #[error("{0} holds a NUL byte")]
    Nul(&'static str),
    /// A variable needs a name that a shell can have.
    #[error("{0:?} is not a name of a variable")]
    Name(String),
    /// No shell could be started.
    #[error("no shell could be started")]
    Start {
        /// The step that failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The shell did not start in time, or ended before it was ready.
    #[error("the session's shell {0}")]
    Broken(&'static str),
    /// The agent could not do its part.
    #[error("{what}")]
    Agent {
        /// What was being done.
        what: &'static str,
        /// The reason.
        source: io::Error,
    },
}

impl RunError {
    /// Why the shell's process could not be made, if that is what failed.
    pub(crate) fn spawn_error(&self) -> Option<&crate::spawn::SpawnError> {
        match self {
            Self::Start { source } => match source.downcast_ref()? {
                StartError::Spawn(error) => Some(error),
                StartError::Agent { .. } => None,
            },
            _ => None,
        }
    }
}

impl From<StartError> for RunError {
    fn from(e: StartError) -> Self {
        Self::Start { source: Box::new(e) }
    }
}

pub(super) fn failed(what: &'static str) -> impl FnOnce(io::Error) -> RunError {
    move |source| RunError::Agent { what, source }
}

/// Refuses what no shell can be told.
pub(super) fn check(request: &RunRequest) -> Result<(), RunError> {
    if memchr::memchr(0, &request.text).is_some() {
        return Err(RunError::Nul("the command"));
    }
    if request.cwd.as_deref().is_some_and(|cwd| cwd.contains('\0')) {
        return Err(RunError::Nul("the working directory"));
    }
    request.env.iter().try_for_each(|(name, value)| check_variable(name, value.as_deref()))
}

/// A name that `export` takes, and a value that an exec can carry.
pub(super) fn check_variable(name: &str, value: Option<&str>) -> Result<(), RunError> {
    let mut letters = name.bytes();
    let starts = letters.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    if !starts || !letters.all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err(RunError::Name(name.to_owned()));
    }
    if value.is_some_and(|value| value.contains('\0')) {
        return Err(RunError::Nul("the value of a variable"));
    }
    Ok(())
}

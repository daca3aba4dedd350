//! One run of a process: a shell in a group of its own, with pipes that the agent drains.

use crate::exec::drain::{self, Pipes};
use crate::session::registry::StartPoint;
use crate::session::task::Context;
use crate::spawn::{Child, Group, SpawnError, SpawnSpec};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{MemfdFlags, SeekFrom};
use sandcrab_api::process::StartProcess;
use sandcrab_api::{ApiError, ErrorCode};
use std::ffi::CString;
use std::io;
use tokio::net::unix::pipe;

/// The longest text that is an argument: the kernel's bound on one is 128 KiB (MAX_ARG_STRLEN, binfmts.h). A longer one
/// is read from a file.
const MAX_ARGUMENT: usize = 100 << 10;
/// The number that such a file has in the shell.
const TEXT_FD: i32 = 9;

/// Everything that a run needs, so that it can be repeated.
#[derive(Debug)]
pub(super) struct Launch {
    program: CString,
    args: Vec<CString>,
    env: Vec<CString>,
    cwd: CString,
    /// The text, where it is too long for an argument.
    text: Option<OwnedFd>,
    stdin: Option<String>,
    interactive: bool,
}

/// A run that has begun.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) group: Group,
    pub(super) child: Child,
    pub(super) pipes: Pipes,
    /// Where an interactive process reads from.
    pub(super) stdin: Option<pipe::Sender>,
}

/// Why a run could not begin.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    #[error("{what}: {source}")]
    Agent { what: &'static str, source: io::Error },
    #[error("{source}: {}", .source.why())]
    Spawn { cwd: CString, source: SpawnError },
}

fn agent(what: &'static str) -> impl FnOnce(io::Error) -> RunError {
    move |source| RunError::Agent { what, source }
}

impl RunError {
    /// As an error of the API: a directory or an environment that cannot be used is the caller's, the rest is ours.
    pub(super) fn into_api(self) -> ApiError {
        let Self::Spawn { cwd, source } = &self else {
            return ApiError::new(ErrorCode::ProcessError, self.to_string());
        };
        let directory = source.callers_error(cwd);
        directory.unwrap_or_else(|| ApiError::new(ErrorCode::ProcessError, self.to_string()))
    }
}

impl Launch {
    pub(super) fn new(context: &Context, request: StartProcess, point: StartPoint) -> Result<Self, RunError> {
        let program = context.shell.program();
        let (env, cwd) = point.with(&request.env, request.cwd.as_deref()).for_exec();
        let nul = |_| agent("the command holds a NUL byte")(io::ErrorKind::InvalidInput.into());
        let (line, text) = if request.command.len() > MAX_ARGUMENT {
            let file = text_file(&request.command).map_err(agent("keeping the command's text"))?;
            (CString::new(format!(". /proc/self/fd/{TEXT_FD}")).map_err(nul)?, Some(file))
        } else {
            (CString::new(request.command).map_err(nul)?, None)
        };
        // Every shell but bash answers to this name, busybox by nothing else.
        let name = if program.to_bytes().ends_with(b"/bash") { c"bash" } else { c"sh" };
        let args = vec![name.to_owned(), c"-c".to_owned(), line];
        let (stdin, interactive) = (request.stdin, request.interactive);
        Ok(Self { program, args, env, cwd, text, stdin, interactive })
    }

    /// Starts it.
    pub(super) fn start(&self, context: &Context) -> Result<Run, RunError> {
        let (stdin, sender) = if self.interactive {
            let (sender, reader) = crate::stdin::pipe().map_err(agent("making a pipe"))?;
            (reader, Some(sender))
        } else {
            (drain::stdin(self.stdin.as_deref()).map_err(agent("keeping its stdin"))?, None)
        };
        let (pipes, stdout, stderr) = Pipes::new().map_err(agent("making pipes"))?;
        if let Some(text) = &self.text {
            // The file's position is shared with every earlier run.
            rustix::fs::seek(text, SeekFrom::Start(0))
                .map_err(|e| agent("rewinding the command's text")(e.into()))?;
        }
        let mut fds: Vec<(BorrowedFd<'_>, i32)> =
            vec![(stdin.as_fd(), 0), (stdout.as_fd(), 1), (stderr.as_fd(), 2)];
        fds.extend(self.text.iter().map(|text| (text.as_fd(), TEXT_FD)));
        let spec = SpawnSpec {
            program: &self.program,
            args: &self.args,
            env: &self.env,
            cwd: Some(&self.cwd),
            fds: &fds,
            cgroup: None,
            subreaper: false,
        };
        let (group, child) = Group::start(&context.spawner, &spec)
            .map_err(|source| RunError::Spawn { cwd: self.cwd.clone(), source })?;
        Ok(Run { group, child, pipes, stdin: sender })
    }
}

fn text_file(text: &str) -> io::Result<OwnedFd> {
    let file = rustix::fs::memfd_create("sandcrab-command", MemfdFlags::CLOEXEC)?;
    // On the command's own first line, so that its line numbers are right.
    for mut rest in [format!("exec {TEXT_FD}<&-; ").as_bytes(), text.as_bytes()] {
        while !rest.is_empty() {
            let count = rustix::io::write(&file, rest)?;
            rest = &rest[count..];
        }
    }
    Ok(file)
}

//! One run of git, in a group of processes of its own.

use super::credentials::{self, Lent};
use crate::session::registry::StartPoint;
use crate::spawn::{Child, Exit, Group, SpawnError, SpawnSpec, Spawner};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::Signal;
use sandcrab_api::limits::KILL_GRACE_MS;
use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::time::Duration;
use tokio::net::unix::pipe::Receiver;
use tokio::task::coop::consume_budget;

/// Bytes read at once.
const PIECE: usize = 16 << 10;

/// What git is to do.
pub(super) struct Call<'a> {
    pub(super) spawner: &'a Spawner,
    pub(super) start: &'a StartPoint,
    pub(super) arguments: &'a [CString],
    pub(super) lent: Option<&'a Lent>,
    /// What of its output is wanted; the other stream goes nowhere.
    pub(super) output: Output,
}

/// An output of git.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Output {
    Stdout,
    Stderr,
}

/// git could not be run.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    #[error("no directory of PATH has a program git")]
    NoGit,
    #[error("the working directory {0:?} cannot be entered")]
    NoDirectory(CString, #[source] SpawnError),
    #[error("git could not be started")]
    Spawn(#[source] SpawnError),
    #[error("{0}")]
    Agent(&'static str, #[source] io::Error),
}

/// How a run ended.
pub(super) enum Ended<T> {
    By(Exit),
    /// It was stopped, and nothing of it is left.
    Stopped(T),
}

/// Runs git to its end, or until `stop` resolves: then all of its processes are ended. `take` gets the wanted output.
pub(super) async fn run<T>(
    call: &Call<'_>,
    stop: impl Future<Output = T>,
    mut take: impl FnMut(&[u8]),
) -> Result<Ended<T>, RunError> {
    let agent = |what| move |errno: Errno| RunError::Agent(what, errno.into());
    let (read, write) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(agent("making a pipe"))?;
    rustix::io::ioctl_fionbio(&read, true).map_err(agent("making a pipe"))?;
    let mut output = Some(
        Receiver::from_owned_fd_unchecked(read).map_err(|error| RunError::Agent("watching a pipe", error))?,
    );
    let (group, child) = start(call, &write)?;
    drop(write);
    let mut buffer = vec![0; PIECE];
    tokio::pin!(stop);
    let ended = loop {
        tokio::select! {
            biased;
            why = &mut stop => {
                let grace = Duration::from_millis(KILL_GRACE_MS);
                group.stop(Signal::TERM, grace).await.map_err(|error| RunError::Agent("ending git", error))?;
                break Ended::Stopped(why);
            }
            exit = child.wait() => break Ended::By(exit.map_err(|error| RunError::Agent("waiting for git", error))?),
            // Whoever writes without end leaves room for everything else, the timeout above all.
            () = async { consume_budget().await; readable(output.as_ref()).await } => {
                if let Some(pipe) = &output && !goes_on(&read_piece(pipe, &mut buffer, &mut take)) {
                    output = None;
                }
            }
        }
    };
    if let Some(pipe) = output {
        finish(pipe, &mut buffer, &mut take);
    }
    Ok(ended)
}

/// Starts the first `git` of the session's `PATH` that there is.
fn start(call: &Call<'_>, write: &OwnedFd) -> Result<(Group, Child), RunError> {
    let null =
        crate::null::open(OFlags::RDWR).map_err(|error| RunError::Agent("opening /dev/null", error))?;
    let StartPoint { environment, cwd } = call.start;
    let env = super::command::environment(environment);
    let directory = CString::new(cwd.as_os_str().as_bytes())
        .map_err(|error| RunError::Agent("naming the working directory", error.into()))?;
    let (stdout, stderr) = match call.output {
        Output::Stdout => (write.as_fd(), null.as_fd()),
        Output::Stderr => (null.as_fd(), write.as_fd()),
    };
    let mut fds: Vec<(BorrowedFd<'_>, i32)> = vec![(null.as_fd(), 0), (stdout, 1), (stderr, 2)];
    fds.extend(call.lent.map(|lent| (lent.as_fd(), credentials::FD)));
    for program in super::command::candidates(environment, cwd) {
        let started = Group::start(
            call.spawner,
            &SpawnSpec {
                program: &program,
                args: call.arguments,
                env: &env,
                cwd: Some(&directory),
                fds: &fds,
                cgroup: None,
                subreaper: false,
            },
        );
        match started {
            Ok(started) => return Ok(started),
            // As execvp(3) goes on along PATH.
            Err(error) if error.is_exec() && is_elsewhere(&error) => {}
            Err(error) if error.is_directory() => return Err(RunError::NoDirectory(directory, error)),
            Err(error) => return Err(RunError::Spawn(error)),
        }
    }
    Err(RunError::NoGit)
}

fn is_elsewhere(error: &SpawnError) -> bool {
    [Errno::NOENT, Errno::NOTDIR, Errno::ACCESS]
        .iter()
        .any(|errno| error.errno() == Some(errno.raw_os_error()))
}

async fn readable(pipe: Option<&Receiver>) {
    match pipe {
        // An error shows when it is read.
        Some(pipe) => drop(pipe.readable().await),
        // All that could write has closed it; git's end is what is left to wait for.
        None => std::future::pending().await,
    }
}

fn read_piece(pipe: &Receiver, buffer: &mut [u8], take: &mut impl FnMut(&[u8])) -> io::Result<usize> {
    let count = pipe.try_read(buffer)?;
    take(&buffer[..count]);
    Ok(count)
}

/// Whether more may come after this read.
fn goes_on(read: &io::Result<usize>) -> bool {
    match read {
        Ok(count) => *count > 0,
        Err(error) => matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
    }
}

/// Takes what is in the pipe now. What a hook of the user's own left running may write on, to nobody: it must neither
/// block nor die of SIGPIPE.
fn finish(pipe: Receiver, buffer: &mut [u8], take: &mut impl FnMut(&[u8])) {
    let mut left = rustix::io::ioctl_fionread(&pipe).unwrap_or(0) as usize;
    while left > 0 {
        match rustix::io::read(&pipe, &mut buffer[..left.min(PIECE)]) {
            Ok(0) => return,
            Ok(count) => {
                take(&buffer[..count]);
                left -= count;
            }
            Err(Errno::INTR) => {}
            Err(_) => break,
        }
    }
    tokio::spawn(async move {
        let mut buffer = vec![0; PIECE];
        while pipe.readable().await.is_ok() && goes_on(&pipe.try_read(&mut buffer)) {
            consume_budget().await;
        }
    });
}

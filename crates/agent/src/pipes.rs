//! Pipes between the agent and what people run.

use rustix::fd::OwnedFd;
use rustix::fs::{Mode, fchmod};
use rustix::pipe::{PipeFlags, pipe_with};
use std::io;

/// A pipe of which one end is a program's stdin, stdout or stderr: the end to read, and the end to write.
///
/// Programs open these again by name, as `echo failed >/dev/stderr` does, and a pipe belongs to who made it, the agent, whom
/// nobody in the sandbox is. So everyone may open it; who cannot look into a process does not reach its pipes.
pub(crate) fn of_a_program() -> io::Result<(OwnedFd, OwnedFd)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    fchmod(&write, Mode::from_raw_mode(0o666))?;
    Ok((read, write))
}

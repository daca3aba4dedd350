//! The first process of an instance: found again, waited for, ended. Its identity is its id with its start time.

use crate::driver::{DriverError, Exit, InstanceId, Result};
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// How long a killed sandbox may take to be gone. Killing 4,096 processes takes milliseconds; a process in
/// uninterruptible sleep can take for ever.
const GONE_TIMEOUT: rustix::time::Timespec = rustix::time::Timespec { tv_sec: 30, tv_nsec: 0 };

/// How often a process is looked at that the kernel does not tell of.
const UNWATCHED: std::time::Duration = std::time::Duration::from_secs(1);

/// A running or ended first process.
#[derive(Debug)]
pub(super) struct Process {
    pidfd: OwnedFd,
}

/// When a process started, in clock ticks since the boot: field 22 of /proc/PID/stat (proc_pid_stat(5)).
fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in parentheses, which may hold anything.
    stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}

/// What the pid file says of a process that exists.
pub(crate) fn identity(pid: i32) -> io::Result<String> {
    let start = start_time(pid).ok_or(io::ErrorKind::NotFound)?;
    Ok(format!("{pid} {start}"))
}

/// Finds the process that a pid file names, if it still runs.
pub(super) fn find(pid_file: &Path) -> Result<Option<Process>> {
    let text = match fs::read_to_string(pid_file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(DriverError::io("read", pid_file.display())(error)),
    };
    let Some((pid, start)) = text.split_once(' ') else { return Ok(None) };
    let (Ok(pid), Ok(start)) = (pid.parse::<i32>(), start.parse::<u64>()) else { return Ok(None) };
    let Some(rustix_pid) = Pid::from_raw(pid) else { return Ok(None) };
    let pidfd = match rustix::process::pidfd_open(rustix_pid, PidfdFlags::NONBLOCK) {
        Ok(pidfd) => pidfd,
        Err(rustix::io::Errno::SRCH) => return Ok(None),
        Err(error) => return Err(DriverError::io("open process", pid)(error)),
    };
    // Read after the pidfd holds the process: the id cannot pass to another one in between.
    if start_time(pid) != Some(start) {
        return Ok(None);
    }
    let process = Process { pidfd };
    Ok((!process.has_ended()?).then_some(process))
}

/// Kills a process of a group that no first process answers for, and waits for its end. `is_meant` says whether the
/// group has a process of this id.
pub(super) fn kill_stray(pid: i32, id: &InstanceId, is_meant: impl FnOnce() -> bool) -> Result<()> {
    let Some(rustix_pid) = Pid::from_raw(pid) else { return Ok(()) };
    match rustix::process::pidfd_open(rustix_pid, PidfdFlags::NONBLOCK) {
        // Asked when the pidfd holds the process: the id may have passed to one of the host's since the group was read.
        Ok(pidfd) if is_meant() => Process { pidfd }.kill_and_wait(id),
        Ok(_) => Ok(()),
        Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(error) => Err(DriverError::io("open process", pid)(error)),
    }
}

impl Process {
    pub(super) fn new(pidfd: OwnedFd) -> Self {
        Self { pidfd }
    }

    /// Whether it has ended: also one whose parent, not this server, has not taken its status yet. It still has an id and
    /// a start time, and nobody listens at its socket any more.
    fn has_ended(&self) -> Result<bool> {
        use rustix::event::{PollFd, PollFlags};
        let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut poll = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let ended = rustix::io::retry_on_intr(|| rustix::event::poll(&mut poll, Some(&now)));
        ended.map(|count| count > 0).map_err(DriverError::io("look at", "a first process"))
    }

    /// Ends the process, and with it all of its pid namespace, and returns when none of it is left.
    pub(super) fn kill_and_wait(&self, id: &InstanceId) -> Result<()> {
        use rustix::event::{PollFd, PollFlags};
        match rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {}
            Err(error) => return Err(DriverError::io("kill the processes of", id)(error)),
        }
        let mut poll = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let ended = rustix::io::retry_on_intr(|| rustix::event::poll(&mut poll, Some(&GONE_TIMEOUT)));
        match ended {
            Ok(0) => Err(DriverError::Residue { id: id.clone(), what: "processes".into() }),
            Ok(_) => Ok(()),
            Err(error) => Err(DriverError::io("wait for the end of", id)(error)),
        }
    }

    /// Ends a child of this process that nothing waits for, and takes its status.
    pub(super) fn end(self) {
        use rustix::event::{PollFd, PollFlags};
        // Where it has ended already there is nothing to kill; the rest is the same.
        let _ended = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
        let mut poll = [PollFd::new(&self.pidfd, PollFlags::IN)];
        let waited = rustix::io::retry_on_intr(|| rustix::event::poll(&mut poll, Some(&GONE_TIMEOUT)));
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let taken = rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), options);
        if !matches!((waited, &taken), (Ok(1), Ok(Some(_)))) {
            tracing::error!(?waited, ?taken, "the first process of a launch that failed did not end");
        }
    }

    /// Waits for the process's end and takes its status, if it is ours to take.
    pub(super) async fn wait(self) -> Exit {
        let pidfd = match crate::sys::process::watch(self.pidfd) {
            Ok(watched) => match watched.readable().await {
                Ok(_) => watched.into_inner(),
                Err(_runtime_ends) => return Exit::Unknown,
            },
            // The kernel's memory or its bound on watches was used up. That it runs is known all the same.
            Err((pidfd, error)) => {
                tracing::warn!(%error, "a first process is looked at now and then, because it cannot be watched");
                let process = Self { pidfd };
                while matches!(process.has_ended(), Ok(false)) {
                    tokio::time::sleep(UNWATCHED).await;
                }
                process.pidfd
            }
        };
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        match rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), options) {
            Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Exit::Code(code),
                (_, Some(signal)) => Exit::Signal(signal),
                _ => Exit::Unknown,
            },
            // Not our child: an earlier server started it.
            _ => Exit::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a process to find")]
    fn l05_one_that_has_ended_is_not_found_though_nobody_took_its_status() {
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("pid");
        let pid = i32::try_from(child.id()).unwrap();
        fs::write(&file, identity(pid).unwrap()).unwrap();
        assert!(find(&file).unwrap().is_some());
        // Waits for its end without taking its status.
        find(&file).unwrap().unwrap().kill_and_wait(&InstanceId::random()).unwrap();
        assert_eq!(start_time(pid).map(|start| format!("{pid} {start}")), fs::read_to_string(&file).ok());
        assert!(find(&file).unwrap().is_none());
        child.wait().unwrap();
        assert!(find(&file).unwrap().is_none());
    }
}

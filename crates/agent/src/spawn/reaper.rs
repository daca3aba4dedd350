//! Children: who is known, and who takes whose status.

use super::Spawner;
use super::group::descent::{Identity, living};
use super::group::{KILLED_WITHIN, unkillable};
use crate::sys::child::StepFailed;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus, pidfd_send_signal, waitid};
use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It exited with this code.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
}

impl Exit {
    /// For a sentence.
    pub(crate) fn in_words(self) -> String {
        match self {
            Self::Code(code) => format!("exit code {code}"),
            Self::Signal(signal) => format!("signal {signal}"),
        }
    }

    /// The exit code as a shell reports it: 128 + n for signal n.
    pub fn code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }

    /// The signal that ended it, if one did.
    pub fn signal(self) -> Option<i32> {
        match self {
            Self::Code(_) => None,
            Self::Signal(signal) => Some(signal),
        }
    }

    fn from_wait(status: &WaitIdStatus) -> Self {
        match status.exit_status() {
            Some(code) => Self::Code(code),
            None => Self::Signal(status.terminating_signal().unwrap_or(libc::SIGKILL)),
        }
    }
}

/// Where a child's status is put once somebody took it from the kernel.
pub(super) type Slot = Arc<Mutex<Option<Exit>>>;

/// What a child has left running at its end. Its own children become those of process 1 then, as do theirs when they end:
/// so the ones that process 1 has not started, and that are nobody's yet, are of the child whose status is taken.
#[derive(Clone, Debug, Default)]
pub(crate) struct Left(Arc<Mutex<HashSet<Identity>>>);

impl Left {
    fn lock(&self) -> MutexGuard<'_, HashSet<Identity>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it has left nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// All that ever were; they may have ended.
    pub(crate) fn identities(&self) -> Vec<Identity> {
        self.lock().iter().copied().collect()
    }
}

/// The children that were started and not yet reaped, by pid.
pub(super) struct Table {
    children: Mutex<Children>,
    /// Whether what children leave behind is kept apart here. With control groups the kernel does that.
    keeps_left: bool,
}

#[derive(Default)]
struct Children {
    started: HashMap<i32, (Slot, Left)>,
    adopted: HashMap<i32, Left>,
}

impl Children {
    /// Finds what the child of `left` has left behind, which has ended and whose status is about to be taken.
    fn adopt(&mut self, left: &Left) {
        let own = rustix::process::getpid();
        if !own.is_init() {
            return;
        }
        // A list that cannot be had now is looked through at the next end.
        let all = living().unwrap_or_default();
        for (pid, stat) in all.into_iter().filter(|(_, stat)| stat.parent == own.as_raw_nonzero().get()) {
            if !self.started.contains_key(&pid) && !self.adopted.contains_key(&pid) {
                left.lock().insert((pid, stat.start));
                self.adopted.insert(pid, left.clone());
            }
        }
    }
}

impl Table {
    pub(super) fn new(keeps_left: bool) -> Self {
        Self { children: Mutex::default(), keeps_left }
    }

    fn lock(&self) -> MutexGuard<'_, Children> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `start` and enters its child, while no one else can reap.
    pub(super) fn enter(
        &self,
        start: impl FnOnce() -> Result<(i32, OwnedFd), StepFailed>,
    ) -> Result<(i32, OwnedFd, Slot, Left), StepFailed> {
        let mut table = self.lock();
        let (pid, pidfd) = start()?;
        let (slot, left) = (Slot::default(), Left::default());
        table.started.insert(pid, (Arc::clone(&slot), left.clone()));
        Ok((pid, pidfd, slot, left))
    }

    /// Takes the status of a known child if it has ended.
    fn collect(&self, pid: i32, pidfd: BorrowedFd<'_>, slot: &Slot) -> Option<Exit> {
        let mut table = self.lock();
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.is_none()
            && let Ok(Some(status)) =
                waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED | WaitIdOptions::NOHANG)
        {
            if let Some((_, left)) = table.started.remove(&pid)
                && self.keeps_left
            {
                table.adopt(&left);
            }
            *slot = Some(Exit::from_wait(&status));
        }
        *slot
    }

    pub(super) async fn reap_orphans(&self) -> io::Result<std::convert::Infallible> {
        let mut child = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::child())?;
        loop {
            self.reap_all();
            if child.recv().await.is_none() {
                return Err(io::Error::other("the runtime no longer delivers SIGCHLD"));
            }
        }
    }

    /// Takes the status of everything that has ended: a known child's for its owner, an orphan's for nobody.
    fn reap_all(&self) {
        let mut table = self.lock();
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        while let Some(pid) = crate::sys::any_ended_child() {
            let Ok(Some(status)) = waitid(WaitId::Pid(pid), options) else { return };
            let pid = pid.as_raw_nonzero().get();
            let left = match table.started.remove(&pid) {
                Some((slot, left)) => {
                    *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(Exit::from_wait(&status));
                    Some(left)
                }
                None => table.adopted.remove(&pid),
            };
            if let Some(left) = left.filter(|_| self.keeps_left) {
                table.adopt(&left);
            }
        }
    }
}

/// A process that was started here.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    pidfd: AsyncFd<OwnedFd>,
    slot: Slot,
    left: Left,
    spawner: Spawner,
}

impl Child {
    pub(super) fn new(
        pid: i32,
        pidfd: OwnedFd,
        slot: Slot,
        left: Left,
        spawner: Spawner,
    ) -> io::Result<Self> {
        let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidData)?;
        // A pidfd becomes readable when its process ends.
        let pidfd = crate::sys::watch(pidfd, Interest::READABLE)?;
        Ok(Self { pid, pidfd, slot, left, spawner })
    }

    /// What it leaves running, once it has ended; nothing where control groups keep that.
    pub(crate) fn left(&self) -> Left {
        self.left.clone()
    }

    /// Its process id, as the agent sees it.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// Its pidfd.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.get_ref().as_fd()
    }

    /// How it ended, if it did.
    pub fn try_wait(&self) -> Option<Exit> {
        self.spawner.0.table.collect(self.pid.as_raw_nonzero().get(), self.pidfd(), &self.slot)
    }

    /// Waits for its end. May be called again, and dropped at any time.
    pub async fn wait(&self) -> io::Result<Exit> {
        loop {
            // Asked only when the kernel has told of an end: this is polled with every command.
            let mut ended = self.pidfd.readable().await?;
            if let Some(exit) = self.try_wait() {
                return Ok(exit);
            }
            ended.clear_ready();
        }
    }

    /// Waits for the end of what was killed. A tracer, or the kernel, can hold it back: then it is given up.
    ///
    /// # Errors
    /// `TimedOut`, with its id.
    pub async fn wait_killed(&self) -> io::Result<Exit> {
        let waited = tokio::time::timeout(KILLED_WITHIN, self.wait()).await;
        waited.unwrap_or_else(|_| Err(unkillable([self.pid])))
    }

    /// Sends a signal. One that has ended is no error.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(self.pidfd(), signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}

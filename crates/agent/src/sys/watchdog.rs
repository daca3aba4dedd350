//! Ends a child that does not get from clone to exec.
//!
//! Until its exec a child holds up the thread that made it, and once it has entered the user's namespace the user can
//! stop it by a signal. So somebody else must hold a clock.

use rustix::fd::{BorrowedFd, RawFd};
use rustix::process::{Signal, pidfd_send_signal};
use std::io;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a child may take to its exec: half a millisecond is usual, but a machine can be busy. It has this time twice:
/// where the whole sandbox stood still meanwhile, this clock did too, and the first time is over when both go on.
const EXEC_WITHIN: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Clock {
    /// When the child that is being started is ended; none while there is none.
    due: Option<Instant>,
    /// The time has been over once.
    is_late: bool,
    /// The thread will look at `due` without being told.
    awake: bool,
    quit: bool,
}

#[derive(Default)]
struct Shared {
    clock: Mutex<Clock>,
    news: Condvar,
    /// Where the kernel puts the child's pidfd, before the child runs.
    pidfd: AtomicI32,
}

/// A thread that watches one start at a time.
pub(super) struct Watchdog(Arc<Shared>);

impl Watchdog {
    pub(super) fn new() -> io::Result<Self> {
        let shared = Arc::<Shared>::default();
        let watched = Arc::clone(&shared);
        std::thread::Builder::new().name("starts".into()).spawn(move || watched.watch())?;
        Ok(Self(shared))
    }

    /// Starts the clock. The clone that follows is to put the pidfd where this says.
    pub(super) fn arm(&self) -> *mut RawFd {
        let mut clock = self.0.lock();
        self.0.pidfd.store(-1, Ordering::Relaxed);
        clock.due = Some(Instant::now() + EXEC_WITHIN);
        clock.is_late = false;
        if !std::mem::replace(&mut clock.awake, true) {
            self.0.news.notify_one();
        }
        self.0.pidfd.as_ptr()
    }

    /// Stops the clock. Returns the pidfd, which nobody here uses from now on.
    pub(super) fn disarm(&self) -> RawFd {
        let mut clock = self.0.lock();
        clock.due = None;
        self.0.pidfd.swap(-1, Ordering::Relaxed)
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.0.lock().quit = true;
        self.0.news.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Clock> {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self) {
        let mut clock = self.lock();
        while !clock.quit {
            let Some(due) = clock.due else {
                clock.awake = false;
                clock = self.news.wait(clock).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                if std::mem::replace(&mut clock.is_late, true) {
                    self.end_child();
                }
                clock.due = Some(Instant::now() + EXEC_WITHIN);
            } else {
                clock = self.news.wait_timeout(clock, left).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }

    /// Called with the clock's lock held and running, so that the pidfd stays open.
    fn end_child(&self) {
        let pidfd = self.pidfd.load(Ordering::Relaxed);
        if pidfd < 0 {
            return;
        }
        // SAFETY: the kernel stored an open descriptor, which stays open until `disarm`, which needs the lock.
        let pidfd = unsafe { BorrowedFd::borrow_raw(pidfd) };
        let sent = pidfd_send_signal(pidfd, Signal::KILL);
        tracing::warn!(?sent, "a process was held up before its program ran, and is killed");
    }
}

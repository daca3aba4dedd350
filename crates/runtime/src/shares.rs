//! What the kernel counts per user id, and how much of it one sandbox may have.
//!
//! A user namespace is charged to the user who made it: whatever is counted for any id inside counts for that user too.
//! A server that is root has a user for each sandbox, so each has a count of its own and a fixed bound on it. All
//! sandboxes of a rootless server count for the server's one user. There each gets a part of what is left, so that all
//! of them together, with a reserve for the server and its user's other programs, stay below what that user may have.

use crate::driver::{DriverError, InstanceId, Result};
use rustix::process::Resource;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// An amount of each thing that the kernel counts per user id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// inotify(7): `fs.inotify.max_user_instances`.
    pub inotify_instances: u64,
    /// inotify(7): `fs.inotify.max_user_watches`.
    pub inotify_watches: u64,
    /// Queued signals and POSIX timers: RLIMIT_SIGPENDING.
    pub signals: u64,
    /// Bytes of POSIX message queues: RLIMIT_MSGQUEUE.
    pub queue_bytes: u64,
    /// Processes and threads: RLIMIT_NPROC.
    pub processes: u64,
    /// Bytes locked in memory: RLIMIT_MEMLOCK.
    pub locked_bytes: u64,
}

impl Share {
    /// What one sandbox gets where there is enough: plenty for file watchers and language servers, and little enough
    /// for the kernel's memory. Message queues and locked memory are as the kernel has them by default.
    const FULL: Self = Self {
        inotify_instances: 128,
        inotify_watches: 65_536,
        signals: 16_384,
        queue_bytes: 819_200,
        processes: u64::MAX,
        locked_bytes: 8 << 20,
    };

    const NONE: Self = Self {
        inotify_instances: 0,
        inotify_watches: 0,
        signals: 0,
        queue_bytes: 0,
        processes: 0,
        locked_bytes: 0,
    };

    /// What the kernel lets this process's user have. A kernel that does not count something has no bound on it.
    fn of_the_user() -> Result<Self> {
        let bound = |name: &str| {
            let path = Path::new("/proc/sys/user").join(name);
            match fs::read_to_string(&path) {
                Ok(text) => Ok(text.trim().parse().unwrap_or(u64::MAX)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(u64::MAX),
                Err(error) => Err(DriverError::io("read", path.display())(error)),
            }
        };
        let limit = |resource| rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
        Ok(Self {
            inotify_instances: bound("max_inotify_instances")?,
            inotify_watches: bound("max_inotify_watches")?,
            signals: limit(Resource::Sigpending),
            queue_bytes: limit(Resource::Msgqueue),
            processes: limit(Resource::Nproc),
            locked_bytes: limit(Resource::Memlock),
        })
    }

    fn each(self, other: Self, f: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            inotify_instances: f(self.inotify_instances, other.inotify_instances),
            inotify_watches: f(self.inotify_watches, other.inotify_watches),
            signals: f(self.signals, other.signals),
            queue_bytes: f(self.queue_bytes, other.queue_bytes),
            processes: f(self.processes, other.processes),
            locked_bytes: f(self.locked_bytes, other.locked_bytes),
        }
    }
}

/// A rootless server's sandbox gets this part of what is left, so that however many there are there is something left.
const PART: u64 = 8;
/// What no sandbox gets: this part of what the user may have, for the server and the user's other programs.
const RESERVE: u64 = 8;
/// An agent, its helpers and some shells; with fewer processes and threads nothing useful runs.
const LEAST_PROCESSES: u64 = 64;

/// The shares of a server's sandboxes.
#[derive(Debug)]
pub(crate) struct Shares {
    /// What one user may have here.
    user: Share,
    /// Whether each sandbox is a user of its own.
    apart: bool,
    /// What the sandboxes of a rootless server have.
    given: Mutex<HashMap<InstanceId, Share>>,
}

impl Shares {
    /// Looks at what this process's user may have.
    pub(crate) fn examine(apart: bool) -> Result<Self> {
        Ok(Self { user: Share::of_the_user()?, apart, given: Mutex::default() })
    }

    /// Takes a share for an instance that may have so many processes.
    pub(crate) fn take(&self, id: &InstanceId, processes: Option<u64>) -> Result<Share> {
        let full = Share { processes: processes.unwrap_or(u64::MAX), ..Share::FULL };
        if self.apart {
            return Ok(full.each(self.user, u64::min));
        }
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = given.values().fold(Share::NONE, |sum, share| sum.each(*share, u64::saturating_add));
        let left = self.user.each(taken, |user, taken| (user - user / RESERVE).saturating_sub(taken));
        let share = full.each(left, |full, left| full.min(left.div_ceil(PART)));
        if share.processes < LEAST_PROCESSES.min(full.processes) {
            let reason = format!(
                "the server's user may have {} processes (RLIMIT_NPROC), of which {} sandboxes have {}",
                self.user.processes,
                given.len(),
                taken.processes
            );
            return Err(DriverError::NoRoom { what: "processes", reason });
        }
        given.insert(id.clone(), share);
        Ok(share)
    }

    /// Notes the share of an instance that an earlier server made.
    pub(crate) fn found(&self, id: &InstanceId, share: Share) {
        if !self.apart {
            self.given.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), share);
        }
    }

    /// Takes an instance's share back, when nothing of it is left.
    pub(crate) fn give_back(&self, id: &InstanceId) {
        self.given.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: Share = Share {
        inotify_instances: 128,
        inotify_watches: 100_000,
        signals: 96_000,
        queue_bytes: 819_200,
        processes: 96_000,
        locked_bytes: 8 << 20,
    };

    fn shares(apart: bool) -> Shares {
        Shares { user: USER, apart, given: Mutex::default() }
    }

    #[test]
    fn e11_shares_of_one_user_stay_below_what_it_may_have_however_many_there_are() {
        let shares = shares(false);
        let mut sum = Share::NONE;
        let mut count = 0;
        let refused = loop {
            match shares.take(&InstanceId::random(), Some(4096)) {
                Ok(share) => sum = sum.each(share, |a, b| a + b),
                Err(error) => break error,
            }
            count += 1;
            assert!(count < 10_000, "each takes something");
        };
        assert!(matches!(refused, DriverError::NoRoom { what: "processes", .. }), "{refused}");
        assert!(count > 20, "{count}");
        assert!(sum.inotify_instances <= 112, "{sum:?}");
        for (sum, user) in [
            (sum.inotify_watches, USER.inotify_watches),
            (sum.signals, USER.signals),
            (sum.queue_bytes, USER.queue_bytes),
            (sum.processes, USER.processes),
            (sum.locked_bytes, USER.locked_bytes),
        ] {
            assert!(sum <= user - user / RESERVE, "{sum} of {user}");
        }
    }

    #[test]
    fn e11_a_share_that_is_given_back_or_found_counts() {
        let shares = shares(false);
        let (one, two) = (InstanceId::random(), InstanceId::random());
        let first = shares.take(&one, Some(100)).unwrap();
        assert_eq!((first.inotify_instances, first.processes), (14, 100));
        let second = shares.take(&two, Some(100)).unwrap();
        assert!(second.inotify_instances < first.inotify_instances, "{second:?}");
        shares.give_back(&one);
        shares.give_back(&two);
        shares.found(&two, first);
        assert_eq!(shares.take(&one, Some(100)).unwrap(), second);
    }

    #[test]
    fn e11_users_of_their_own_have_full_shares_that_no_other_diminishes() {
        let shares = shares(true);
        for _ in 0..1000 {
            let share = shares.take(&InstanceId::random(), Some(4096)).unwrap();
            assert_eq!((share.inotify_instances, share.processes), (128, 4096));
            assert_eq!(share.signals, Share::FULL.signals);
        }
    }
}

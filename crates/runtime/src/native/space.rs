//! The room on the host's disk, which sandboxes' disks share with everything else.
//!
//! A sandbox's disk is sparse: its file system says yes to a write for which the host may have no room when the kernel
//! writes it out, and what was said yes to would be lost. So the server looks ahead. What is left is counted without what
//! the kernel has yet to write for the sandboxes; what others write has its room already. Below a floor, no sandbox is made or started, and those that write are held, the one with
//! the most first: nothing in them runs, so nothing more is promised, and what was promised fits into what is left. When
//! there is room again they go on as if nothing had happened. See docs/decisions/0027-a-full-disk.md.

use super::{Live, Shared};
use crate::disk;
use crate::driver::{Condition, DriverError, InstanceId, Result};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// The floor is this part of the disk, within these bounds.
const PART: u64 = 20;
const LEAST: u64 = 64 << 20;
const MOST: u64 = 2 << 30;
/// The most that a machine is taken to dirty in a second: how soon to look again follows from it.
const PACE: u64 = 8 << 30;
/// Looks are never closer nor further apart.
const CLOSEST: Duration = Duration::from_millis(10);
const FURTHEST: Duration = Duration::from_secs(1);
/// Below this share of the floor all are held, not only those that were seen to write.
const LAST_RESORT: u64 = 2;
/// Held ones go on when there is this many times the floor.
const ENOUGH: u64 = 2;
/// One that has written less than this since the last look does not count as one that writes.
const IDLE: u64 = 1 << 20;
/// How often the kernel is asked for errors of the sandboxes' disks.
const ERRORS: Duration = Duration::from_secs(2);

/// The disk that holds the data directory.
#[derive(Debug)]
pub(super) struct Space {
    at: File,
}

/// How things stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Room {
    /// What can still be promised: free bytes without those that the kernel has yet to write for sandboxes.
    left: u64,
    floor: u64,
}

impl Space {
    pub(super) fn open(data_dir: &Path) -> Result<Self> {
        Ok(Self { at: File::open(data_dir).map_err(DriverError::io("open", data_dir.display()))? })
    }

    /// `promised` is how much sandboxes have written that the kernel has not. It is asked only where it can matter.
    fn room(&self, promised: impl FnOnce() -> u64) -> Result<Room> {
        let failed = || DriverError::io::<io::Error, _>("look for room in", "the data directory");
        let disk = rustix::fs::fstatvfs(&self.at).map_err(|error| failed()(error.into()))?;
        let free = disk.f_bavail * disk.f_frsize;
        let floor = (disk.f_blocks * disk.f_frsize / PART).clamp(LEAST, MOST);
        // All that is unwritten on the machine, which takes one file to know.
        let meminfo = fs::read_to_string("/proc/meminfo").map_err(failed())?;
        let at_most = unwritten(&meminfo);
        let taken = if free.saturating_sub(at_most) >= floor * ENOUGH { at_most } else { promised() };
        Ok(Room { left: free.saturating_sub(taken), floor })
    }

    /// An error if no sandbox may be made or started now.
    pub(super) fn admit(&self, promised: impl FnOnce() -> u64) -> Result<()> {
        let Room { left, floor } = self.room(promised)?;
        if left >= floor {
            return Ok(());
        }
        let message = format!("{left} bytes are left and {floor} are kept for what runs already");
        let full = io::Error::new(io::ErrorKind::StorageFull, message);
        Err(DriverError::io("start a sandbox in", "the data directory")(full))
    }
}

/// An error if the disk of a directory has too little room for one more sandbox.
pub(crate) fn admit(at: &Path) -> Result<()> {
    Space::open(at)?.admit(|| 0)
}

/// What the kernel has taken and not written yet, in bytes.
fn unwritten(meminfo: &str) -> u64 {
    let field = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    };
    ["Dirty:", "Writeback:"].into_iter().filter_map(field).sum::<u64>() * 1024
}

impl Room {
    /// When it can have come to the floor at the earliest.
    fn look_again(self) -> Duration {
        let above = self.left.saturating_sub(self.floor) as f64 / PACE as f64;
        Duration::from_secs_f64(above).clamp(CLOSEST, FURTHEST)
    }
}

/// Looks after the room for as long as the driver lives.
pub(super) fn watch(shared: &Arc<Shared>) -> Result<()> {
    let mut watch = Watch { shared: Arc::downgrade(shared), written: HashMap::new(), errors: Instant::now() };
    let thread = std::thread::Builder::new().name("space".into());
    let started = thread.spawn(move || {
        while let Some(pause) = watch.look() {
            std::thread::sleep(pause);
        }
    });
    started.map(drop).map_err(DriverError::io("start", "the thread that looks for room"))
}

struct Watch {
    shared: Weak<Shared>,
    /// What each running instance had written when it was looked at last.
    written: HashMap<InstanceId, u64>,
    /// When errors were looked for last.
    errors: Instant,
}

impl Watch {
    /// How long to wait until the next look; none when the driver is gone.
    fn look(&mut self) -> Option<Duration> {
        let shared = self.shared.upgrade()?;
        if self.errors.elapsed() >= ERRORS {
            self.errors = Instant::now();
            shared.end_damaged();
        }
        let room = match shared.space.room(|| shared.promised()) {
            Ok(room) => room,
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "the room on the disk is not known"
                );
                return Some(FURTHEST);
            }
        };
        if room.left >= room.floor * ENOUGH {
            self.written.clear();
            shared.release_all();
        } else if room.left < room.floor {
            self.hold(&shared, room);
        }
        Some(room.look_again())
    }

    /// Holds the largest of those that write; near the end, all.
    fn hold(&mut self, shared: &Shared, room: Room) {
        let mut running = Vec::new();
        for (id, live) in shared.running(Condition::Sound) {
            let device = shared.files.image(&id);
            let written =
                disk::used(&device).unwrap_or_default() + shared.cgroups.group(id.as_str()).unwritten();
            let before = self.written.insert(id.clone(), written);
            let writes = before.is_none_or(|before| written > before + IDLE);
            running.push((written, writes, id, live));
        }
        let all = room.left < room.floor / LAST_RESORT;
        running.retain(|(_, writes, ..)| all || *writes);
        running.sort_by_key(|(written, ..)| std::cmp::Reverse(*written));
        let count = if all { running.len() } else { 1 };
        for (written, _, id, live) in running.into_iter().take(count) {
            shared.hold(&id, &live, written, room);
        }
    }
}

impl Shared {
    /// What sandboxes have written and the kernel has not, in bytes.
    pub(super) fn promised(&self) -> u64 {
        let running: Vec<InstanceId> = self.live().keys().cloned().collect();
        running.iter().map(|id| self.cgroups.group(id.as_str()).unwritten()).sum()
    }

    fn running(&self, condition: Condition) -> Vec<(InstanceId, Live)> {
        let is_one = |live: &Live| live.exit.borrow().is_none() && *live.condition.borrow() == condition;
        self.live()
            .iter()
            .filter(|(_, live)| is_one(live))
            .map(|(id, live)| (id.clone(), live.clone()))
            .collect()
    }

    fn hold(&self, id: &InstanceId, live: &Live, written: u64, room: Room) {
        let Room { left, floor } = room;
        if self.cgroups.group(id.as_str()).freeze(true) {
            tracing::warn!(instance = %id, written, left, floor, "the disk is about to be full: an instance is held");
            live.condition.send_replace(Condition::Held);
        } else if live.exit.borrow().is_none() {
            tracing::error!(instance = %id, left, floor, "the disk is about to be full, and an instance cannot be held");
        }
    }

    /// Has all go on that are held.
    fn release_all(&self) {
        for (id, live) in self.running(Condition::Held) {
            if self.cgroups.group(id.as_str()).freeze(false) {
                tracing::info!(instance = %id, "there is room on the disk again: an instance goes on");
                live.condition.send_replace(Condition::Sound);
            }
        }
    }

    /// Ends the instances whose disks failed: the kernel lets nothing be written there any more, and only a repair,
    /// which a start does, puts that right.
    fn end_damaged(&self) {
        let running = self.running(Condition::Sound).into_iter().chain(self.running(Condition::Held));
        for (id, live) in running {
            let device = self.files.device(&id).ok().flatten();
            let errors = device.map_or(0, |device| disk::errors(&device));
            if errors == 0 {
                continue;
            }
            tracing::error!(instance = %id, errors, "the disk of an instance failed: it is ended, to be repaired");
            live.condition.send_replace(Condition::Damaged);
            if !self.cgroups.group(id.as_str()).kill()
                && let Ok(Some(process)) = super::process::find(&self.files.pid(&id))
                && let Err(error) = process.kill_and_wait(&id)
            {
                tracing::error!(instance = %id, %error, "it could not be ended");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e13_what_is_not_written_yet_is_no_room() {
        let meminfo = "MemTotal:  100 kB\nDirty:             1204 kB\nWriteback:            20 kB\nWritebackTmp: 7 kB\n";
        assert_eq!(unwritten(meminfo), 1224 * 1024);
        assert_eq!(unwritten(""), 0);
        let dir = tempfile::tempdir().unwrap();
        let room = Space::open(dir.path()).unwrap().room(|| 0).unwrap();
        assert!(room.left > 0 && (LEAST..=MOST).contains(&room.floor), "{room:?}");
        let full = Space::open(dir.path()).unwrap().room(|| u64::MAX).unwrap();
        // Where there is plenty nobody asks what was promised.
        assert!(full.left == 0 || full.left >= full.floor * ENOUGH, "{full:?}");
    }

    #[test]
    fn e13_the_next_look_comes_before_the_floor_can_be_reached() {
        let at = |left| Room { left, floor: LEAST }.look_again();
        assert_eq!(at(LEAST), CLOSEST);
        assert_eq!(at(0), CLOSEST);
        assert_eq!(at(LEAST + PACE / 2), Duration::from_millis(500));
        assert_eq!(at(u64::MAX), FURTHEST);
    }
}

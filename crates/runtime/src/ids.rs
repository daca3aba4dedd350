//! Ranges of host ids, one per sandbox, so that no two sandboxes share a user.
//!
//! The table is a directory with one file per range in use, named by its number and holding the instance's id: making
//! the file is taking the range, in one atomic step. A range stays taken until everything of its instance is verified
//! gone, so ids that may still own something are never given out again (attack C09).
//!
//! Servers with other data directories on the same machine take from the same ids. Each range in use is therefore also
//! claimed in one place of the machine, `/run/sandcrab/ids`: a symbolic link named by the range that leads to the file in
//! the table of the one that has it. A link that leads nowhere is of a data directory that is gone, and claims nothing.
//! The place is empty after a reboot, when nothing runs; a server that starts claims again what its instances have.

use crate::driver::{DriverError, InstanceId, Result};
use crate::launch::plan::{ID_COUNT, Ids};
use rustix::fs::FlockOperation;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

/// The first id: systemd's table of uids (UIDS-GIDS.md) leaves 0x70000000 to 0x7ffcffff unused, past the ranges that
/// containers and subuid files take.
const FIRST: u32 = 0x7000_0000;
const END: u32 = 0x7ffd_0000;
/// The first 65,536 ids are the agents', one per range; the ranges follow.
const RANGES: u32 = (END - FIRST) / ID_COUNT - 1;

/// The table in a data directory.
#[derive(Debug)]
pub(crate) struct Table {
    /// Absolute: claims lead here.
    dir: PathBuf,
    claims: Claims,
    /// Where to look first: past the range taken last, so that a range is reused as late as possible.
    next: AtomicU32,
    /// Held while a range is being taken.
    taking: Mutex<()>,
}

impl Table {
    /// Opens or makes the table in `dir`, an absolute path; `machine` is where the servers of this machine make claims.
    pub(crate) fn open(dir: PathBuf, machine: &Path) -> Result<Self> {
        fs::create_dir_all(&dir).map_err(DriverError::io("create", dir.display()))?;
        let claims = Claims::open(machine.join("ids"))?;
        // Servers with different data directories on one machine begin at different places.
        let start = rand::random_range(0..RANGES);
        Ok(Self { dir, claims, next: AtomicU32::new(start), taking: Mutex::default() })
    }

    /// Takes a free range for an instance. A failure takes none.
    pub(crate) fn take(&self, instance: &InstanceId) -> Result<u32> {
        let _taking = self.taking.lock().unwrap_or_else(PoisonError::into_inner);
        let _machine = self.claims.lock()?;
        for _ in 0..RANGES {
            let range = self.next.fetch_add(1, Ordering::Relaxed) % RANGES;
            let path = self.path(range);
            match self.try_take(range, &path, instance) {
                Ok(true) => return Ok(range),
                Ok(false) => {}
                Err(error) => return Err(DriverError::io("take id range", path.display())(error)),
            }
        }
        Err(DriverError::NoIds { count: RANGES })
    }

    /// False if the range is in use, here or in another server. Called with the machine's lock held.
    fn try_take(&self, range: u32, path: &Path, instance: &InstanceId) -> io::Result<bool> {
        let mut file = match fs::File::create_new(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
            file => file?,
        };
        let taken = self.claims.claim(range, path).and_then(|claimed| match claimed {
            // A full disk has room for the file's name and none for what is in it.
            true => file.write_all(instance.as_str().as_bytes()).map(|()| true),
            false => Ok(false),
        });
        if !matches!(taken, Ok(true)) {
            fs::remove_file(path)?;
            self.claims.release(range, path)?;
        }
        taken
    }

    /// Claims the range that an instance has had since before this server. An error if another server has it by now.
    pub(crate) fn keep(&self, range: u32) -> Result<()> {
        let path = self.path(range);
        let _machine = self.claims.lock()?;
        let claimed =
            self.claims.claim(range, &path).map_err(DriverError::io("claim id range", path.display()))?;
        if claimed { Ok(()) } else { Err(DriverError::IdsClaimed { by: self.claims.holder(range) }) }
    }

    /// Gives back the ranges of instances of which nothing exists: a server that died right after taking one.
    pub(crate) fn give_back_orphans(&self, exists: impl Fn(&InstanceId) -> bool) -> Result<()> {
        let failed = || DriverError::io::<io::Error, _>("list id ranges in", self.dir.display().to_string());
        // While this is held no file is one that is not written yet: without an id it is of a server that was killed.
        let _taking = self.taking.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in fs::read_dir(&self.dir).map_err(failed())? {
            let path = entry.map_err(failed())?.path();
            // A name that is none of ours is left alone.
            let Some(range) = path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok()) else {
                continue;
            };
            let text = match fs::read_to_string(&path) {
                // Given back meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                text => text.map_err(DriverError::io("read", path.display()))?,
            };
            if !InstanceId::parse(&text).is_ok_and(|id| exists(&id)) {
                self.remove(range)?;
            }
        }
        Ok(())
    }

    /// Gives an instance's range back, if it is still the instance's. Only for when nothing is left that could bear its
    /// ids.
    pub(crate) fn give_back(&self, range: u32, instance: &InstanceId) -> Result<()> {
        let path = self.path(range);
        match fs::read_to_string(&path) {
            Ok(owner) if owner == instance.as_str() => self.remove(range),
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(DriverError::io("read", path.display())(error))
            }
            _ => Ok(()),
        }
    }

    fn remove(&self, range: u32) -> Result<()> {
        let path = self.path(range);
        let _machine = self.claims.lock()?;
        // From here on the claim leads nowhere: what fails now keeps the range from nothing.
        ignore_missing(fs::remove_file(&path))
            .and_then(|()| self.claims.release(range, &path))
            .map_err(DriverError::io("give back id range", path.display()))
    }

    fn path(&self, range: u32) -> PathBuf {
        self.dir.join(range.to_string())
    }
}

/// The ranges that the servers of this machine have.
#[derive(Debug)]
struct Claims {
    dir: PathBuf,
}

impl Claims {
    fn open(dir: PathBuf) -> Result<Self> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir);
        made.map_err(DriverError::io("create", dir.display()))?;
        Ok(Self { dir })
    }

    /// Held by one server at a time, for some system calls.
    fn lock(&self) -> Result<fs::File> {
        let path = self.dir.join("lock");
        let file = fs::File::options().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let file = file.map_err(DriverError::io("open", path.display()))?;
        rustix::io::retry_on_intr(|| rustix::fs::flock(&file, FlockOperation::LockExclusive))
            .map_err(DriverError::io("lock", path.display()))?;
        Ok(file)
    }

    fn link(&self, range: u32) -> PathBuf {
        self.dir.join(range.to_string())
    }

    /// Claims a range for the one whose table has `path`. False if another has it. Called with the lock held.
    fn claim(&self, range: u32, path: &Path) -> io::Result<bool> {
        let link = self.link(range);
        match std::os::unix::fs::symlink(path, &link) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made.map(|()| true),
        }
        let holder = fs::read_link(&link)?;
        if holder == path {
            return Ok(true);
        }
        if holder.try_exists()? {
            return Ok(false);
        }
        fs::remove_file(&link)?;
        std::os::unix::fs::symlink(path, &link).map(|()| true)
    }

    /// Takes back the claim of the one whose table has `path`; another's stays. Called with the lock held.
    fn release(&self, range: u32, path: &Path) -> io::Result<()> {
        let link = self.link(range);
        if fs::read_link(&link).is_ok_and(|holder| holder == path) {
            return ignore_missing(fs::remove_file(&link));
        }
        Ok(())
    }

    /// The file in the table of the one that has a range, for people.
    fn holder(&self, range: u32) -> PathBuf {
        fs::read_link(self.link(range)).unwrap_or_default()
    }
}

fn ignore_missing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// The ids of a range.
pub(crate) fn ids(range: u32) -> Ids {
    Ids::Range { first: FIRST + (range + 1) * ID_COUNT, agent: FIRST + range }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c09_ranges_do_not_overlap_and_stay_in_bounds() {
        const { assert!(RANGES <= ID_COUNT) };
        let all: Vec<(u32, u32)> = (0..RANGES)
            .map(|range| match ids(range) {
                Ids::Range { first, agent } => (first, agent),
                Ids::Single { .. } => unreachable!("a range has ids of its own"),
            })
            .collect();
        for pair in all.windows(2) {
            assert_eq!(pair[1].0 - pair[0].0, ID_COUNT);
            assert_eq!(pair[1].1 - pair[0].1, 1);
        }
        assert!(all[0].0 > all[all.len() - 1].1, "agents' ids lie below every range");
        assert!(all[all.len() - 1].0 + (ID_COUNT - 1) < END);
    }

    fn open(dir: &Path, name: &str) -> Table {
        Table::open(dir.join(name), &dir.join("run")).unwrap()
    }

    #[test]
    fn e09_ranges_of_what_does_not_exist_are_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let table = open(dir.path(), "ids");
        let (alive, gone) = (InstanceId::random(), InstanceId::random());
        let kept = table.take(&alive).unwrap();
        table.take(&gone).unwrap();
        // Killed between making the file and writing it.
        fs::write(table.dir.join(format!("{}", (kept + 5) % RANGES)), "").unwrap();
        table.give_back_orphans(|id| *id == alive).unwrap();
        let left: Vec<_> =
            fs::read_dir(&table.dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, [kept.to_string().as_str()]);
    }

    #[test]
    fn c09_a_range_is_not_given_twice() {
        let dir = tempfile::tempdir().unwrap();
        let table = open(dir.path(), "ids");
        let other = open(dir.path(), "ids");
        other.next.store(table.next.load(Ordering::Relaxed), Ordering::Relaxed);
        let (a, b) = (InstanceId::random(), InstanceId::random());
        let first = table.take(&a).unwrap();
        let second = other.take(&b).unwrap();
        assert_ne!(first, second);
        table.give_back(first, &b).unwrap();
        table.next.store(first, Ordering::Relaxed);
        assert_ne!(table.take(&b).unwrap(), first, "it is not given back by who does not have it");
        table.give_back(first, &a).unwrap();
        table.give_back(first, &a).unwrap();
        table.next.store(first, Ordering::Relaxed);
        assert_eq!(table.take(&b).unwrap(), first);
    }

    #[test]
    fn c09_servers_of_one_machine_share_no_range() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (open(dir.path(), "one"), open(dir.path(), "two"));
        let (a, b) = (InstanceId::random(), InstanceId::random());
        let first = one.take(&a).unwrap();
        two.next.store(first, Ordering::Relaxed);
        assert_ne!(two.take(&b).unwrap(), first);
        assert!(!two.path(first).exists(), "what was not taken leaves nothing");
        // A reboot forgets the claims: the one that comes first has the range, and the other is told.
        fs::remove_file(one.claims.link(first)).unwrap();
        two.next.store(first, Ordering::Relaxed);
        assert_eq!(two.take(&b).unwrap(), first);
        let error = one.keep(first).unwrap_err();
        assert!(matches!(&error, DriverError::IdsClaimed { by } if *by == two.path(first)), "{error}");
        // Giving back what another has claimed takes nothing from it.
        one.give_back(first, &a).unwrap();
        assert_eq!(fs::read_link(one.claims.link(first)).unwrap(), two.path(first));
        two.give_back(first, &b).unwrap();
        assert!(!one.claims.link(first).is_symlink());
        // A data directory that was removed holds no range.
        one.next.store(first, Ordering::Relaxed);
        assert_eq!(one.take(&a).unwrap(), first);
        fs::remove_dir_all(&one.dir).unwrap();
        two.next.store(first, Ordering::Relaxed);
        assert_eq!(two.take(&b).unwrap(), first);
    }

    #[test]
    fn e16_a_range_that_could_not_be_written_is_not_lost() {
        let dir = tempfile::tempdir().unwrap();
        let table = open(dir.path(), "ids");
        // Every claim fails, as every write does on a full disk.
        fs::remove_dir_all(&table.claims.dir).unwrap();
        fs::create_dir(&table.claims.dir).unwrap();
        let range = table.next.load(Ordering::Relaxed) % RANGES;
        fs::create_dir(table.claims.link(range)).unwrap();
        let error = table.take(&InstanceId::random()).unwrap_err();
        assert!(matches!(error, DriverError::Io { .. }), "{error}");
        assert_eq!(fs::read_dir(&table.dir).unwrap().count(), 0);
    }
}

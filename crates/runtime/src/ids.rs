//! Ranges of host ids, one per sandbox, so that no two sandboxes share a user.
//!
//! The table is a directory with one file per range in use, named by its number and holding the instance's id: making
//! the file is taking the range, in one atomic step. A range stays taken until everything of its instance is verified
//! gone, so ids that may still own something are never given out again (attack C09).

use crate::driver::{DriverError, InstanceId, Result};
use crate::launch::plan::{ID_COUNT, Ids};
use std::fs;
use std::io::{self, Write};
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
    dir: PathBuf,
    /// Where to look first: past the range taken last, so that a range is reused as late as possible.
    next: AtomicU32,
    /// Held while a range is being taken.
    taking: Mutex<()>,
}

impl Table {
    /// Opens or makes the table.
    pub(crate) fn open(dir: PathBuf) -> Result<Self> {
        fs::create_dir_all(&dir).map_err(DriverError::io("create", dir.display()))?;
        // Servers with different data directories on one machine begin at different places.
        let start = rand::random_range(0..RANGES);
        Ok(Self { dir, next: AtomicU32::new(start), taking: Mutex::default() })
    }

    /// Takes a free range for an instance.
    pub(crate) fn take(&self, instance: &InstanceId) -> Result<u32> {
        let _taking = self.taking.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in 0..RANGES {
            let range = self.next.fetch_add(1, Ordering::Relaxed) % RANGES;
            let path = self.dir.join(range.to_string());
            match fs::File::create_new(&path)
                .and_then(|mut file| file.write_all(instance.as_str().as_bytes()))
            {
                Ok(()) => return Ok(range),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(DriverError::io("take id range", path.display())(error)),
            }
        }
        Err(DriverError::NoIds { count: RANGES })
    }

    /// Gives back the ranges of instances of which nothing exists: a server that died right after taking one.
    pub(crate) fn give_back_orphans(&self, exists: impl Fn(&InstanceId) -> bool) -> Result<()> {
        let failed = || DriverError::io::<io::Error, _>("list id ranges in", self.dir.display().to_string());
        // While this is held no file is one that is not written yet: without an id it is of a server that was killed.
        let _taking = self.taking.lock().unwrap_or_else(PoisonError::into_inner);
        for entry in fs::read_dir(&self.dir).map_err(failed())? {
            let path = entry.map_err(failed())?.path();
            // A name that is none of ours is left alone.
            if path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok()).is_none() {
                continue;
            }
            let text = match fs::read_to_string(&path) {
                // Given back meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                text => text.map_err(DriverError::io("read", path.display()))?,
            };
            if !InstanceId::parse(&text).is_ok_and(|id| exists(&id)) {
                remove(&path)?;
            }
        }
        Ok(())
    }

    /// Gives an instance's range back, if it is still the instance's. Only for when nothing is left that could bear its
    /// ids.
    pub(crate) fn give_back(&self, range: u32, instance: &InstanceId) -> Result<()> {
        let path = self.dir.join(range.to_string());
        match fs::read_to_string(&path) {
            Ok(owner) if owner == instance.as_str() => remove(&path),
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(DriverError::io("read", path.display())(error))
            }
            _ => Ok(()),
        }
    }
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(DriverError::io("give back id range", path.display())(error))
        }
        _ => Ok(()),
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

    #[test]
    fn e09_ranges_of_what_does_not_exist_are_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let table = Table::open(dir.path().join("ids")).unwrap();
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
        let table = Table::open(dir.path().join("ids")).unwrap();
        let next = AtomicU32::new(table.next.load(Ordering::Relaxed));
        let other = Table { dir: table.dir.clone(), next, taking: Mutex::default() };
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
}

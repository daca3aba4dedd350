//! Room on the disk that is kept for the store: given up when there is none else, so that what frees room can be written.

use rustix::fs::FallocateFlags;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How much is kept.
const SIZE: u64 = 16 << 20;
/// With less than this left, the reserve is given up.
const LOW: u64 = 4 << 20;
/// With this much left, it is made again.
const PLENTY: u64 = 8 * SIZE;
/// How often it is looked for, where it is gone.
const AGAIN: Duration = Duration::from_secs(10);

/// The file `reserve` beside the database.
#[derive(Debug)]
pub(super) struct Reserve {
    dir: File,
    path: PathBuf,
    is_kept: bool,
    looked: Instant,
}

impl Reserve {
    /// In the directory of the database. To be opened before that is: it may need the room.
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        let path = dir.join("reserve");
        // A file that was made half, as on a disk that was full, keeps less than it says.
        let is_kept = fs::metadata(&path).is_ok_and(|metadata| metadata.blocks() * 512 >= SIZE);
        let mut this = Self { dir: File::open(dir)?, path, is_kept, looked: Instant::now() };
        this.look(true);
        Ok(this)
    }

    /// Gives the reserve up where there is next to no room, and makes it again where there is plenty.
    pub(super) fn attend(&mut self) {
        self.look(false);
    }

    fn look(&mut self, now: bool) {
        let left = match rustix::fs::fstatvfs(&self.dir) {
            Ok(disk) => disk.f_bavail * disk.f_frsize,
            Err(error) => return tracing::warn!(%error, "the room on the disk of the store is not known"),
        };
        if self.is_kept && left < LOW {
            self.give_up();
        } else if !self.is_kept && left >= PLENTY && (now || self.looked.elapsed() >= AGAIN) {
            self.looked = Instant::now();
            match self.make() {
                Ok(()) => self.is_kept = true,
                Err(error) => tracing::warn!(%error, "no room could be kept for the store"),
            }
        }
    }

    /// Whether there was one to give up.
    pub(super) fn give_up(&mut self) -> bool {
        let was_kept = std::mem::take(&mut self.is_kept);
        if was_kept {
            match fs::remove_file(&self.path) {
                Ok(()) => {
                    tracing::warn!("the disk is full: the room that was kept for the store is given up")
                }
                Err(error) => {
                    tracing::error!(%error, "the room that was kept for the store cannot be given up")
                }
            }
        }
        was_kept
    }

    fn make(&self) -> io::Result<()> {
        let file = File::options().create(true).truncate(true).write(true).mode(0o600).open(&self.path)?;
        match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, SIZE) {
            Ok(()) => Ok(()),
            Err(error) => {
                fs::remove_file(&self.path)?;
                Err(error.into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn e13_the_reserve_is_real_room_and_given_up_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut reserve = Reserve::open(dir.path()).unwrap();
        let file = dir.path().join("reserve");
        assert!(fs::metadata(&file).unwrap().blocks() * 512 >= SIZE);
        reserve.attend();
        assert!(reserve.give_up() && !file.exists());
        assert!(!reserve.give_up());
        // Not made again at once, and by the next server.
        reserve.attend();
        assert!(!file.exists());
        drop(reserve);
        File::create(&file).unwrap();
        Reserve::open(dir.path()).unwrap();
        assert!(fs::metadata(&file).unwrap().blocks() * 512 >= SIZE, "one that is empty is none");
    }
}

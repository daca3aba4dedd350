//! Content that takes the place of a file's content, in the file itself: whoever watches the file, has it open or has
//! another name for it sees every write, and owner, attributes and links stay (contract F01).
//!
//! ```text
//! content ──▶ a file in the agent's own directory ──record──▶ copied into the target ──▶ removed
//! ```
//!
//! The record, behind the content, says where it belongs. From then on the write is completed, by this agent or by the one
//! that follows it; before, the target was not touched. Only a full disk could stop a copy, so its room is taken first.

use super::error::{FileError, Reason};
use super::root::{Access, FilePath, Last, Need, Node, require_file};
use super::{Files, Inner};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{
    AtFlags, FallocateFlags, Mode, OFlags, Statx, fallocate, fchmod, fstat, ftruncate, openat, unlinkat,
};
use rustix::io::{Errno, pread, pwrite};
use serde::{Deserialize, Serialize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Behind a record: it is whole.
const MAGIC: &[u8; 8] = b"crabfile";
/// Bytes that are copied at once: a shorter file is written by one call.
const PIECE: usize = 256 << 10;
/// The longest record: a path of the longest length, whose bytes take up to four characters.
const LONGEST_RECORD: u64 = 32 << 10;
/// Files that are written to at the same time.
const TURNS: usize = 32;
/// Names of contents begin so.
const PREFIX: &str = "write-";

/// Where contents wait, and whose turn it is at a target.
#[derive(Debug)]
pub(crate) struct InPlace {
    /// The agent's own; no path of the sandbox leads there.
    directory: OwnedFd,
    /// By inode: two writers of one file must not mix.
    turns: [Mutex<()>; TURNS],
}

/// Content that waits; gone when this is dropped.
#[derive(Debug)]
pub(crate) struct Spooled {
    home: Arc<InPlace>,
    name: String,
    /// Whether its target is neither old nor new.
    is_kept: bool,
}

/// Where content belongs.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    path: Vec<u8>,
    inode: u64,
    size: u64,
    mode: Option<u32>,
}

impl InPlace {
    pub(crate) fn new(directory: OwnedFd) -> Arc<Self> {
        Arc::new(Self { directory, turns: Default::default() })
    }

    /// A file for content that is to come. To be called with the agent's own rights.
    pub(crate) fn spool(self: &Arc<Self>) -> Result<(Spooled, OwnedFd), Errno> {
        let name = format!("{PREFIX}{:016x}", rand::random::<u64>());
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = openat(&self.directory, &name, flags, Mode::RUSR | Mode::WUSR)?;
        Ok((Spooled { home: Arc::clone(self), name, is_kept: false }, file))
    }

    fn turn(&self, stat: &Statx) -> MutexGuard<'_, ()> {
        let turn = &self.turns[usize::try_from(stat.stx_ino).unwrap_or_default() % TURNS];
        turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Spooled {
    /// Its target is whole by other means: nothing is left to be completed.
    pub(crate) fn is_whole(&mut self) {
        self.is_kept = false;
    }
}

impl Drop for Spooled {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        if let Err(error) = unlinkat(&self.home.directory, self.name.as_str(), AtFlags::empty()) {
            tracing::warn!(%error, "content that was written is left over");
        }
    }
}

/// Whether a file is written to as it stands. A program that runs cannot be, and what is executed or mapped meanwhile must
/// not change: executable files are replaced.
pub(crate) fn is_for(stat: &Statx) -> bool {
    stat.stx_mode & 0o111 == 0
}

impl Access<'_> {
    /// Puts the content of `from` in the place of what the node holds. False if the node cannot be written to as it stands:
    /// it was not touched then.
    pub(crate) fn write_in_place(
        &self,
        spooled: &mut Spooled,
        (from, size): (&OwnedFd, u64),
        node: &Node,
        path: &FilePath,
        mode: Option<u32>,
    ) -> Result<bool, FileError> {
        let target = match self.open(node, OFlags::WRONLY, path) {
            Ok(target) => target,
            Err(error) => match error.reason {
                // It runs; somebody has a lease.
                Reason::Kernel(Errno::TXTBSY | Errno::AGAIN) => return Ok(false),
                _ => return Err(error),
            },
        };
        let kernel = |errno| path.fail(Reason::Kernel(errno));
        let home = Arc::clone(&spooled.home);
        let _turn = home.turn(&node.stat);
        let before = fstat(&target).map_err(kernel)?;
        if let Some(mode) = mode {
            fchmod(&target, Mode::from_raw_mode(mode)).map_err(kernel)?;
        }
        make_room(&target, before.st_size.unsigned_abs(), size).map_err(kernel)?;
        let record = Record { path: path.full.clone(), inode: node.stat.stx_ino, size, mode };
        record.append_to(from).map_err(kernel)?;
        // From here on it must be whole again, if not by this copy, then by a file in its place or by the next agent.
        spooled.is_kept = true;
        if let Err(error) = replace(from, &target, size) {
            tracing::error!(%error, path = path.asked, "a file could not be written to as it stands");
            return Ok(false);
        }
        spooled.is_kept = false;
        // A write takes setuid and setgid away.
        let wanted = mode.unwrap_or(before.st_mode & 0o7777);
        if fstat(&target).map_err(kernel)?.st_mode & 0o7777 != wanted {
            match fchmod(&target, Mode::from_raw_mode(wanted)) {
                // Another's file: it is as if any program of the user had written to it.
                Err(Errno::PERM) if mode.is_none() => {}
                done => done.map_err(kernel)?,
            }
        }
        Ok(true)
    }

    /// The same for content that an earlier agent has left.
    fn complete(&self, home: &InPlace, from: &OwnedFd, record: &Record) -> Result<(), FileError> {
        let path =
            FilePath { asked: String::from_utf8_lossy(&record.path).into_owned(), full: record.path.clone() };
        let place = self.place(&path, Last::Follow, Need::Search)?;
        self.vet_node(&place, &path)?;
        let Some(node) = place.node.filter(|node| node.stat.stx_ino == record.inode) else { return Ok(()) };
        require_file(&node.stat, &path)?;
        let _turn = home.turn(&node.stat);
        let target = self.open(&node, OFlags::WRONLY, &path)?;
        replace(from, &target, record.size).map_err(path.kernel())?;
        let Some(mode) = record.mode else { return Ok(()) };
        fchmod(&target, Mode::from_raw_mode(mode)).map_err(path.kernel())
    }
}

impl Files {
    /// Completes the writes that an earlier agent was ended in. To be called before anyone can write.
    pub(crate) fn complete_writes(&self) -> Result<(), Errno> {
        let Inner { in_place: Some(home), .. } = &*self.0 else { return Ok(()) };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let list = rustix::fs::Dir::new(openat(&home.directory, c".", flags, Mode::empty())?)?;
        for entry in list {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
            if !name.starts_with(PREFIX) {
                continue;
            }
            let file =
                openat(&home.directory, name.as_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
            let _spooled = Spooled { home: Arc::clone(home), name, is_kept: false };
            let Some(record) = Record::of(&file)? else { continue };
            if let Err(error) = self.call(|access| access.complete(home, &file, &record)) {
                tracing::error!(%error, "a write that was interrupted could not be completed");
            }
        }
        Ok(())
    }
}

impl Record {
    /// Puts it behind the content; it counts once its last bytes are there.
    fn append_to(&self, file: &OwnedFd) -> Result<(), Errno> {
        // Of bytes and numbers: this cannot fail.
        let mut text = serde_json::to_vec(self).unwrap_or_default();
        text.extend((text.len() as u64).to_le_bytes());
        text.extend(MAGIC);
        write_all_at(file, &text, self.size)
    }

    /// That of a content; none if it was not complete.
    fn of(file: &OwnedFd) -> Result<Option<Self>, Errno> {
        let end = fstat(file)?.st_size.unsigned_abs();
        let Some(tail) = end.checked_sub(16) else { return Ok(None) };
        let mut foot = [0; 16];
        read_exact_at(file, &mut foot, tail)?;
        let Some((length, magic)) = foot.split_first_chunk::<8>() else { return Ok(None) };
        let length = u64::from_le_bytes(*length);
        if magic != MAGIC || length > LONGEST_RECORD.min(tail) {
            return Ok(None);
        }
        let mut text = vec![0; usize::try_from(length).unwrap_or_default()];
        read_exact_at(file, &mut text, tail - length)?;
        let record = serde_json::from_slice::<Self>(&text).ok();
        Ok(record.filter(|record| record.size == tail - length))
    }
}

/// Takes the room that a file of `size` bytes needs, or says that there is none; its content stays as it is.
fn make_room(target: &OwnedFd, before: u64, size: u64) -> Result<(), Errno> {
    if size == 0 {
        return Ok(());
    }
    match fallocate(target, FallocateFlags::KEEP_SIZE, 0, size) {
        // Where a file system cannot promise room, it is told by the copy.
        Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        Err(errno) => {
            // What was taken is given back. That it cannot be says nothing more than that there is too little.
            let _kept = ftruncate(target, before);
            Err(errno)
        }
    }
}

/// Makes the first `size` bytes of one file the content of another.
fn replace(from: &OwnedFd, to: &OwnedFd, size: u64) -> Result<(), Errno> {
    copy(from, to, size)?;
    ftruncate(to, size)
}

/// Copies the first `size` bytes.
pub(crate) fn copy(from: &OwnedFd, to: &OwnedFd, size: u64) -> Result<(), Errno> {
    let mut buffer = vec![0; usize::try_from(size).unwrap_or(PIECE).min(PIECE)];
    let mut at = 0;
    while at < size {
        let piece = buffer.len().min(usize::try_from(size - at).unwrap_or(PIECE));
        read_exact_at(from, &mut buffer[..piece], at)?;
        write_all_at(to, &buffer[..piece], at)?;
        at += piece as u64;
    }
    Ok(())
}

fn read_exact_at(file: impl AsFd, mut buffer: &mut [u8], mut at: u64) -> Result<(), Errno> {
    while !buffer.is_empty() {
        match pread(&file, &mut *buffer, at) {
            Ok(0) => return Err(Errno::IO),
            Ok(count) => {
                buffer = &mut buffer[count..];
                at += count as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn write_all_at(file: impl AsFd, mut bytes: &[u8], mut at: u64) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match pwrite(&file, bytes, at) {
            Ok(0) => return Err(Errno::IO),
            Ok(count) => {
                bytes = &bytes[count..];
                at += count as u64;
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

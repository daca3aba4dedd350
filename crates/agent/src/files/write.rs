//! Writing whole files, so that a reader finds the old content or the new and nothing between (contract F01).
//!
//! The content goes into a file without a name in the target's folder (`O_TMPFILE`); a writer that dies or is given
//! up leaves nothing, since the kernel frees what has no name. When it is complete it gets the name in one step. File
//! systems without nameless files get one with a name of its own, which is removed on every way out but the death of
//! the agent. Nothing is synced: a confirmed file is complete and visible to everybody at once, and as durable as
//! what a command writes.
//!
//! A file that is there already gives its mode and owner to the new one. Access control lists and extended attributes
//! are not carried over, and other hard links keep the old content, as with every editor that replaces files.

use super::error::{FileError, Reason};
use super::root::{Access, FilePath, Last, Need, Place, is_mount_point, require_file};
use bytes::Bytes;
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid, fchmod, fchown, openat, renameat, unlinkat};
use rustix::io::{Errno, writev};
use std::io::IoSlice;

/// Mode of files that the API makes, unless it is told another.
const NEW_FILE: u32 = 0o644;

/// How many slices one writev takes (IOV_MAX).
const MAX_SLICES: usize = 1024;

/// A file that is being written and not yet to be seen.
#[derive(Debug)]
pub(crate) struct Pending {
    path: FilePath,
    place: Place,
    file: OwnedFd,
    /// Its name where it needs one: on file systems without nameless files, and for the moment of replacing.
    temporary: Option<Vec<u8>>,
    mode: u32,
    /// Whom it is given to, if not to its writer.
    owner: Option<(u32, u32)>,
}

impl Access<'_> {
    /// Prepares a write: finds the target, makes its folder, checks the user's rights.
    pub(crate) fn begin_write(&self, path: &FilePath, mode: Option<u32>) -> Result<Pending, FileError> {
        if path.full.ends_with(b"/") || path.split().is_none() {
            return Err(path.fail(Reason::IsDirectory));
        }
        let place = match self.place(path, Last::Follow, Need::Change) {
            Err(error) if error.reason == Reason::Kernel(Errno::NOENT) => {
                let (folder, _) = path.split().ok_or(error)?;
                self.make_directories(path, folder)?;
                self.place(path, Last::Follow, Need::Change)?
            }
            other => other?,
        };
        self.vet_node(&place, path)?;
        let mut keep = (NEW_FILE, None);
        if let Some(node) = &place.node {
            require_file(&node.stat, path)?;
            if is_mount_point(&node.stat) {
                return Err(path.fail(Reason::MountPoint));
            }
            self.may_write(node, path)?;
            keep = (u32::from(node.stat.stx_mode) & 0o7777, Some((node.stat.stx_uid, node.stat.stx_gid)));
        }
        Pending::new(self, path, place, mode.unwrap_or(keep.0), keep.1)
    }

    fn temporary_file(
        &self,
        place: &Place,
        path: &FilePath,
    ) -> Result<(OwnedFd, Option<Vec<u8>>), FileError> {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let private = Mode::from_raw_mode(0o600);
        match openat(&place.parent, c".", flags | OFlags::TMPFILE, private) {
            Ok(file) => return Ok((file, None)),
            // What file systems and kernels without nameless files answer (open(2)).
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {}
            Err(errno) => return Err(path.fail(Reason::Kernel(errno))),
        }
        let name = temporary_name();
        let file = openat(&place.parent, &name, flags | OFlags::CREATE | OFlags::EXCL, private);
        Ok((file.map_err(path.kernel())?, Some(name)))
    }

    /// Shows the file under its name. May be tried again with more rights.
    pub(crate) fn commit_write(&self, pending: &mut Pending) -> Result<(), FileError> {
        let path = pending.path.clone();
        let place = &pending.place;
        self.vet_place(place, &path)?;
        if let Some((uid, gid)) = pending.owner {
            let given = fchown(&pending.file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
            given.map_err(|errno| match errno {
                // With all rights that the user has: then it is not the rights of the file that are in the way.
                Errno::PERM if !self.may_more() => path.fail(Reason::OwnerNotKept),
                errno => path.fail(Reason::Kernel(errno)),
            })?;
        }
        // Last, because a change of owner and each write take setuid and setgid away.
        fchmod(&pending.file, Mode::from_raw_mode(pending.mode)).map_err(path.kernel())?;
        if pending.temporary.is_none() {
            if place.node.is_none() {
                match self.link(&pending.file, &place.parent, &place.name) {
                    // Somebody was faster: replace theirs.
                    Err(Errno::EXIST) => {}
                    other => return other.map_err(path.kernel()),
                }
            }
            let name = temporary_name();
            self.link(&pending.file, &place.parent, &name).map_err(path.kernel())?;
            pending.temporary = Some(name);
        }
        if let Some(name) = &pending.temporary {
            renameat(&place.parent, name, &place.parent, &place.name).map_err(path.kernel())?;
        }
        pending.temporary = None;
        Ok(())
    }

    /// Takes away what a write that is given up has left.
    pub(crate) fn abandon_write(&self, pending: &mut Pending) -> Result<(), FileError> {
        let Some(name) = &pending.temporary else { return Ok(()) };
        unlinkat(&pending.place.parent, name, AtFlags::empty()).map_err(pending.path.kernel())?;
        pending.temporary = None;
        Ok(())
    }
}

impl Pending {
    /// A new file that is to stand at `place` with this mode and owner; without an owner, the writer's.
    pub(crate) fn new(
        access: &Access<'_>,
        path: &FilePath,
        place: Place,
        mode: u32,
        owner: Option<(u32, u32)>,
    ) -> Result<Self, FileError> {
        let (file, temporary) = access.temporary_file(&place, path)?;
        let owner = owner.filter(|owner| *owner != (access.identity.uid, access.identity.gid));
        Ok(Self { path: path.clone(), place, file, temporary, mode, owner })
    }

    /// The file itself.
    pub(crate) fn file(&self) -> &OwnedFd {
        &self.file
    }

    /// Adds bytes to its end.
    pub(crate) fn append(&self, mut parts: &[Bytes]) -> Result<(), FileError> {
        let mut skip = 0;
        loop {
            while parts.first().is_some_and(|part| skip == part.len()) {
                (parts, skip) = (&parts[1..], 0);
            }
            let Some((first, rest)) = parts.split_first() else { return Ok(()) };
            let first = IoSlice::new(&first[skip..]);
            let rest = rest.iter().take(MAX_SLICES - 1).map(|part| IoSlice::new(part));
            let slices: Vec<_> = std::iter::once(first).chain(rest).collect();
            let mut written = match writev(&self.file, &slices) {
                Err(Errno::INTR) => continue,
                other => other.map_err(self.path.kernel())?,
            };
            while let Some(part) = parts.first() {
                let left = part.len() - skip;
                if written < left {
                    skip += written;
                    break;
                }
                written -= left;
                (parts, skip) = (&parts[1..], 0);
            }
        }
    }
}

/// A name that nobody else takes.
pub(crate) fn temporary_name() -> Vec<u8> {
    format!(".sandcrab-{:016x}", rand::random::<u64>()).into_bytes()
}

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
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid, fchmod, fchown, fstat, openat, renameat, unlinkat};
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
        named_file(place, path)
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
        // Its group may be the folder's (setgid), so what it has is asked, not guessed.
        let has = fstat(&file).map_err(path.kernel())?;
        let owner = owner.filter(|owner| *owner != (has.st_uid, has.st_gid));
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

/// A file with a name of its own, where the file system has no nameless ones.
fn named_file(place: &Place, path: &FilePath) -> Result<(OwnedFd, Option<Vec<u8>>), FileError> {
    let name = temporary_name();
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let file = openat(&place.parent, &name, flags, Mode::from_raw_mode(0o600)).map_err(path.kernel())?;
    Ok((file, Some(name)))
}

/// A name that nobody else takes.
pub(crate) fn temporary_name() -> Vec<u8> {
    format!(".sandcrab-{:016x}", rand::random::<u64>()).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::super::Files;
    use super::*;
    use rustix::fs::CWD;
    use sandcrab_api::launch::UserIdentity;

    #[test]
    fn f01_a_temporary_file_with_a_name_ends_as_the_file_or_as_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let root = openat(CWD, folder.path(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let files = Files::below(root, &UserIdentity::default()).unwrap();
        let path = FilePath::new("/".as_ref(), "file");
        let names = || std::fs::read_dir(folder.path()).unwrap().count();
        let begin = |access: &Access<'_>| {
            let place = access.place(&path, Last::Follow, Need::Change)?;
            let (file, temporary) = named_file(&place, &path)?;
            Ok(Pending { path: path.clone(), place, file, temporary, mode: NEW_FILE, owner: None })
        };
        for content in ["first", "second"] {
            let mut pending = files.call(begin).unwrap();
            pending.append(&[Bytes::from(content)]).unwrap();
            assert_eq!(names(), if content == "first" { 1 } else { 2 });
            files.call(|access| access.commit_write(&mut pending)).unwrap();
            assert_eq!(std::fs::read_to_string(folder.path().join("file")).unwrap(), content);
            assert_eq!(names(), 1);
        }
        let mut pending = files.call(begin).unwrap();
        files.call(|access| access.abandon_write(&mut pending)).unwrap();
        assert_eq!(names(), 1);
    }

    #[test]
    fn writes_in_many_parts_are_all_there_and_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let root = openat(CWD, folder.path(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let files = Files::below(root, &UserIdentity::default()).unwrap();
        let path = FilePath::new("/".as_ref(), "file");
        let mut pending = files.call(|access| access.begin_write(&path, None)).unwrap();
        // More parts than one writev takes, empty ones among them.
        let parts: Vec<Bytes> = (0..3000).map(|n| Bytes::from("x".repeat(n % 7) + &n.to_string())).collect();
        let parts: Vec<Bytes> = parts.into_iter().flat_map(|part| [Bytes::new(), part]).collect();
        pending.append(&parts).unwrap();
        pending.append(&[]).unwrap();
        files.call(|access| access.commit_write(&mut pending)).unwrap();
        assert!(std::fs::read(folder.path().join("file")).unwrap() == parts.concat());
    }
}

//! Writing whole files: a write that is interrupted anywhere leaves the old content or the new, whole (contract F01).
//!
//! What stands there already is written to as it stands ([`super::in_place`]), unless it can be executed. What is new, or is
//! replaced, is made beside its place. The content goes into a file without a name in the target's folder (`O_TMPFILE`); a writer that dies or is given
//! up leaves nothing, since the kernel frees what has no name. When it is complete it gets the name in one step. File
//! systems without nameless files get one with a name of its own, which is removed on every way out but the death of
//! the agent. Nothing is synced: a confirmed file is complete and visible to everybody at once, and as durable as
//! what a command writes.
//!
//! A file that is replaced gives its mode and owner to the new one. Access control lists and extended attributes are not
//! carried over, and other hard links keep the old content, as with every editor that replaces files.

use super::error::{FileError, Reason};
use super::in_place::{self, Spooled};
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
    /// Bytes so far.
    size: u64,
    /// Where it is to take the place of a file's content, not of the file: its way there, and the mode that was asked for.
    spooled: Option<(Spooled, Option<u32>)>,
}

/// Where a write goes.
#[derive(Debug)]
pub(crate) struct Target {
    path: FilePath,
    place: Place,
    asked: Option<u32>,
    /// Mode and owner of a file that takes the place.
    keep: (u32, Option<(u32, u32)>),
}

impl Target {
    /// Whether the file that is there is written to as it stands.
    pub(crate) fn is_written_to(&self) -> bool {
        self.place.node.as_ref().is_some_and(|node| in_place::is_for(&node.stat))
    }

    /// Content that waits apart from it.
    pub(crate) fn spooled(self, spooled: Spooled, file: OwnedFd) -> Pending {
        let Self { path, place, asked, keep: (mode, owner) } = self;
        let spooled = Some((spooled, asked));
        Pending { path, place, file, temporary: None, mode: asked.unwrap_or(mode), owner, size: 0, spooled }
    }

    /// A new file that is to take the place.
    pub(crate) fn beside(&self, access: &Access<'_>) -> Result<Pending, FileError> {
        let Self { path, place, asked, keep: (mode, owner) } = self;
        Pending::new(access, path, place.again(path)?, asked.unwrap_or(*mode), *owner)
    }
}

impl Access<'_> {
    /// Prepares a write: finds the target, makes its folder, checks the user's rights.
    pub(crate) fn target(&self, path: &FilePath, mode: Option<u32>) -> Result<Target, FileError> {
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
        Ok(Target { path: path.clone(), place, asked: mode, keep })
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
        if let (Some((spooled, mode)), Some(node)) = (&mut pending.spooled, &pending.place.node) {
            self.vet_place(&pending.place, &path)?;
            if self.write_in_place(spooled, (&pending.file, pending.size), node, &path, *mode)? {
                return Ok(());
            }
            let mut new = self.replacement(pending)?;
            self.commit_write(&mut new)?;
            if let Some((spooled, _)) = &mut pending.spooled {
                spooled.is_whole();
            }
            return Ok(());
        }
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

    /// The same content as a new file beside the one that cannot be written to.
    fn replacement(&self, pending: &Pending) -> Result<Pending, FileError> {
        let Pending { path, place, mode, owner, size, .. } = pending;
        let new = Pending::new(self, path, place.again(path)?, *mode, *owner)?;
        in_place::copy(&pending.file, &new.file, *size).map_err(path.kernel())?;
        Ok(Pending { size: *size, ..new })
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
        Ok(Self { path: path.clone(), place, file, temporary, mode, owner, size: 0, spooled: None })
    }

    /// The file itself.
    pub(crate) fn file(&self) -> &OwnedFd {
        &self.file
    }

    /// Adds bytes to its end.
    pub(crate) fn append(&mut self, mut parts: &[Bytes]) -> Result<(), FileError> {
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
            self.size += written as u64;
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
            Ok(Pending {
                path: path.clone(),
                place,
                file,
                temporary,
                mode: NEW_FILE,
                owner: None,
                size: 0,
                spooled: None,
            })
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
        let mut pending = files.call(|access| access.target(&path, None)?.beside(access)).unwrap();
        // More parts than one writev takes, empty ones among them.
        let parts: Vec<Bytes> = (0..3000).map(|n| Bytes::from("x".repeat(n % 7) + &n.to_string())).collect();
        let parts: Vec<Bytes> = parts.into_iter().flat_map(|part| [Bytes::new(), part]).collect();
        pending.append(&parts).unwrap();
        pending.append(&[]).unwrap();
        files.call(|access| access.commit_write(&mut pending)).unwrap();
        assert!(std::fs::read(folder.path().join("file")).unwrap() == parts.concat());
    }
}

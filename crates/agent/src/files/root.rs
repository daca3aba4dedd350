//! The way from a path to a file: everything below one directory, which is the sandbox's root.
//!
//! Every path is resolved by openat2 with `RESOLVE_IN_ROOT`, so that absolute links and `..` end inside, whatever is
//! swapped meanwhile (attacks B01-B03), and with `RESOLVE_NO_MAGICLINKS`, so that `/proc/N/fd`, `cwd` and `root`
//! lead nowhere. What is found is held as an `O_PATH` fd, which opens nothing: no FIFO blocks, no device acts. Only
//! after it has been looked at is it opened, by that fd and not by its path again.
//!
//! File systems whose content depends on who asks are refused in every method: procfs would answer as for the agent
//! (attack A17), and the rest of the list is the kernel's own, which a command can read as the user.

use super::error::{FileError, Reason};
use super::identity::{Identity, Rights};
use rustix::fd::OwnedFd;
use rustix::fs::{
    Access as AccessMode, AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Statx, StatxAttributes,
    StatxFlags, accessat, fstatfs, mkdirat, openat, openat2, readlinkat, statx,
};
use rustix::io::Errno;
use rustix::path::DecInt;
use std::path::Path;

/// How often a resolution is tried that the kernel broke off because something was renamed meanwhile (openat2(2),
/// EAGAIN). It happens only to paths with `..`; losing this often in a row means that somebody renames in a loop.
const RESOLVE_TRIES: u32 = 64;

/// How many symbolic links one path may lead through, as in the kernel (path_resolution(7)).
const MAX_LINKS: u32 = 40;

/// File systems of the kernel itself, by their number in statfs (magic.h and the sources of each).
const SPEAK_FOR_AGENT: [(u64, &str); 19] = [
    (0x0000_9fa0, "procfs"),
    (0x6265_6572, "sysfs"),
    (0x0027_e0eb, "a cgroup file system"),
    (0x6367_7270, "cgroup2"),
    (0x6e73_6673, "nsfs"),
    (0x5049_4446, "pidfs"),
    (0x6462_6720, "debugfs"),
    (0x7472_6163, "tracefs"),
    (0x7363_6673, "securityfs"),
    (0x4341_5d53, "smackfs"),
    (0x5a3c_69f0, "apparmorfs"),
    (0xf97c_ff8c, "selinuxfs"),
    (0xcafe_4a11, "bpffs"),
    (0x6265_6570, "configfs"),
    (0x4249_4e4d, "binfmt_misc"),
    (0x6165_676c, "pstore"),
    (0xde5e_81e4, "efivarfs"),
    (0x6573_5543, "fusectl"),
    (0x0000_1cd1, "devpts"),
];

/// A path of the sandbox.
#[derive(Clone, Debug)]
pub struct FilePath {
    /// As the caller gave it.
    pub(crate) asked: String,
    /// From the root on.
    pub(crate) full: Vec<u8>,
}

impl FilePath {
    /// `asked`, taken from `cwd` where it is relative.
    pub fn new(cwd: &Path, asked: impl Into<String>) -> Self {
        let asked = asked.into();
        let full = match asked.as_bytes() {
            absolute @ [b'/', ..] => absolute.to_vec(),
            relative => [cwd.as_os_str().as_encoded_bytes(), b"/", relative].concat(),
        };
        Self { asked, full }
    }

    /// Directory and name of the last component; none where that is no name (`/`, `.`, `..`).
    pub(crate) fn split(&self) -> Option<(&[u8], &[u8])> {
        let end = self.full.iter().rposition(|&byte| byte != b'/')? + 1;
        let start = self.full[..end].iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
        let name = &self.full[start..end];
        let directory: &[u8] = if start == 0 { b"/" } else { &self.full[..start] };
        (name != b"." && name != b"..").then_some((directory, name))
    }

    pub(crate) fn fail(&self, reason: Reason) -> FileError {
        FileError::new(&self.asked, &self.full, reason)
    }

    /// For `map_err` of system calls.
    pub(crate) fn kernel(&self) -> impl Fn(Errno) -> FileError {
        |errno| self.fail(Reason::Kernel(errno))
    }
}

/// The directory that is a sandbox's root, and the means to open what an `O_PATH` fd stands for.
#[derive(Debug)]
pub(crate) struct Root {
    directory: OwnedFd,
    /// `/proc/self/fd`: each entry is one of the agent's own fds.
    own_fds: OwnedFd,
}

/// Something that exists: held, looked at, not opened.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) fd: OwnedFd,
    pub(crate) stat: Statx,
}

/// A name in a directory, and what it stands for, if anything.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) parent: OwnedFd,
    pub(crate) name: Vec<u8>,
    pub(crate) node: Option<Node>,
}

impl Place {
    /// The same once more.
    pub(crate) fn again(&self, path: &FilePath) -> Result<Self, FileError> {
        let twice = |fd: &OwnedFd| rustix::io::fcntl_dupfd_cloexec(fd, 0).map_err(path.kernel());
        let node = match &self.node {
            Some(node) => Some(Node { fd: twice(&node.fd)?, stat: node.stat }),
            None => None,
        };
        Ok(Self { parent: twice(&self.parent)?, name: self.name.clone(), node })
    }
}

/// Whether a symbolic link at the end of a path stands for what it points to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Last {
    Follow,
    Keep,
}

/// For what a directory is needed; matters where it belongs to the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    Search,
    Change,
}

impl Root {
    /// The root is `directory`. To be called before any user code runs, because it looks up `/proc` by its name.
    pub(crate) fn new(directory: OwnedFd) -> Result<Self, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let own_fds = openat(CWD, c"/proc/self/fd", flags, Mode::empty())?;
        if kernel_file_system(&own_fds)? != Some("procfs") {
            return Err(Errno::NOTSUP);
        }
        Ok(Self { directory, own_fds })
    }

    fn resolve(&self, path: &FilePath, at: &[u8], flags: OFlags) -> Result<OwnedFd, FileError> {
        let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..RESOLVE_TRIES {
            match openat2(&self.directory, at, flags | OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), how) {
                Err(Errno::AGAIN) => std::thread::yield_now(),
                other => return other.map_err(|errno| path.fail(self.why_not(at, errno))),
            }
        }
        Err(path.fail(Reason::Unsteady))
    }

    /// Why a path cannot be resolved. One that leads onto one of the kernel's own file systems gets the same answer
    /// whatever is there: otherwise `/proc/self/fd/9` would tell which fds the agent has.
    fn why_not(&self, at: &[u8], errno: Errno) -> Reason {
        let find = |at: &[u8], flags: OFlags| {
            let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
            openat2(&self.directory, at, flags | OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), how)
        };
        let mut at = at.to_vec();
        // Each round takes the last component off, or follows it where it is a link that leads to nothing.
        let mut links = 0;
        loop {
            if let Ok(found) = find(&at, OFlags::empty()) {
                return match kernel_file_system(&found) {
                    Ok(Some(name)) => Reason::SpeaksForAgent(name),
                    _ => Reason::Kernel(errno),
                };
            }
            let held = find(&at, OFlags::NOFOLLOW);
            if let Some(name) = held.as_ref().ok().and_then(|fd| kernel_file_system(fd).ok().flatten()) {
                return Reason::SpeaksForAgent(name);
            }
            let link = held.and_then(|fd| readlinkat(&fd, c"", Vec::new()));
            let end = at.iter().rposition(|&byte| byte != b'/').map_or(0, |last| last + 1);
            let start = at[..end].iter().rposition(|&byte| byte == b'/').map_or(0, |slash| slash + 1);
            match link {
                Ok(text) if links < MAX_LINKS => {
                    links += 1;
                    if text.as_bytes().starts_with(b"/") {
                        at.clear();
                    } else {
                        at.truncate(start);
                    }
                    at.extend_from_slice(text.as_bytes());
                }
                _ if start == 0 => return Reason::Kernel(errno),
                _ => at.truncate(start - 1),
            }
        }
    }
}

/// One call's view: the root, with the rights that the thread acts with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access<'a> {
    pub(crate) root: &'a Root,
    pub(crate) identity: &'a Identity,
    pub(crate) rights: Rights,
}

impl Access<'_> {
    /// What stands at a path, links followed.
    pub(crate) fn node(&self, path: &FilePath) -> Result<Node, FileError> {
        if self.rights == Rights::Powers && path.split().is_some() {
            let place = self.place(path, Last::Follow, Need::Search)?;
            return place.node.ok_or_else(|| path.fail(Reason::Kernel(Errno::NOENT)));
        }
        let fd = self.root.resolve(path, &path.full, OFlags::empty())?;
        let node = look(fd, path)?;
        refuse_kernel_file_system(&node.fd, path)?;
        if self.rights == Rights::Powers {
            self.vet_directory(&node.fd, Need::Search, path)?;
        }
        Ok(node)
    }

    /// The directory at a path.
    pub(crate) fn directory(&self, path: &FilePath, at: &[u8], need: Need) -> Result<OwnedFd, FileError> {
        let fd = self.root.resolve(path, at, OFlags::DIRECTORY)?;
        refuse_kernel_file_system(&fd, path)?;
        self.vet_directory(&fd, need, path)?;
        Ok(fd)
    }

    /// The last name of a path and what stands there. With [`Last::Follow`], a link is followed to where it points,
    /// also if nothing is there yet. The path must have a last name ([`FilePath::split`]).
    pub(crate) fn place(&self, path: &FilePath, last: Last, need: Need) -> Result<Place, FileError> {
        let mut at = path.clone();
        for _ in 0..=MAX_LINKS {
            let (directory, name) = at.split().ok_or_else(|| path.fail(Reason::IsDirectory))?;
            let parent = self.directory(path, directory, need)?;
            // One name without slash, not followed: this cannot leave the parent.
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let node = match openat(&parent, name, flags, Mode::empty()) {
                Ok(fd) => look(fd, path)?,
                Err(Errno::NOENT) => return Ok(Place { parent, name: name.to_vec(), node: None }),
                Err(errno) => return Err(path.fail(Reason::Kernel(errno))),
            };
            if last == Last::Follow && kind(&node.stat) == FileType::Symlink {
                // The kernel's own opinion first: it may forbid this link (protected_symlinks) or see a loop.
                match self.root.resolve(path, &at.full, OFlags::empty()) {
                    Err(error) if error.reason != Reason::Kernel(Errno::NOENT) => return Err(error),
                    _ => {}
                }
                let text = readlinkat(&node.fd, c"", Vec::new()).map_err(path.kernel())?.into_bytes();
                at.full = match text.as_slice() {
                    [b'/', ..] => text,
                    relative => [directory, b"/", relative].concat(),
                };
                continue;
            }
            refuse_kernel_file_system(&node.fd, path)?;
            return Ok(Place { parent, name: name.to_vec(), node: Some(node) });
        }
        Err(path.fail(Reason::Kernel(Errno::LOOP)))
    }

    /// Makes what is missing of a directory's path; names the directories that it made none.
    pub(crate) fn make_directories(&self, path: &FilePath, at: &[u8]) -> Result<(), FileError> {
        // The ends of all components, then back to the longest prefix that exists, then forward.
        let is_end = |&end: &usize| at[end - 1] != b'/' && (end == at.len() || at[end] == b'/');
        let ends: Vec<usize> = (1..=at.len()).filter(is_end).collect();
        let mut existing = ends.len();
        while existing > 0 {
            match self.directory(path, &at[..ends[existing - 1]], Need::Search) {
                Ok(_) => break,
                Err(error) if error.reason == Reason::Kernel(Errno::NOENT) => existing -= 1,
                Err(error) => return Err(error),
            }
        }
        for &end in &ends[existing..] {
            let prefix = FilePath { asked: path.asked.clone(), full: at[..end].to_vec() };
            let Some((directory, name)) = prefix.split() else { continue };
            let parent = self.directory(path, directory, Need::Change)?;
            match mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(path.fail(Reason::Kernel(errno))),
            }
        }
        Ok(())
    }

    /// Opens a regular file or directory that is held. The inode is the one that was looked at.
    pub(crate) fn open(&self, node: &Node, flags: OFlags, path: &FilePath) -> Result<OwnedFd, FileError> {
        let bits = if kind(&node.stat) == FileType::Directory { 0o5 } else { 0o4 };
        if self.is_beyond_user(&node.stat) && node.stat.stx_mode & bits != bits {
            return Err(path.fail(Reason::Kernel(Errno::ACCESS)));
        }
        // NONBLOCK and NOCTTY are for the day that a caller forgets to look first.
        let flags = flags | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        openat(&self.root.own_fds, DecInt::from_fd(&node.fd), flags, Mode::empty()).map_err(path.kernel())
    }

    /// Whether the user may write to what is held.
    pub(crate) fn may_write(&self, node: &Node, path: &FilePath) -> Result<(), FileError> {
        let name = DecInt::from_fd(&node.fd);
        accessat(&self.root.own_fds, name, AccessMode::WRITE_OK, AtFlags::EACCESS).map_err(path.kernel())
    }

    /// Whether the user may run what is held.
    pub(crate) fn may_run(&self, node: &Node, path: &FilePath) -> Result<bool, FileError> {
        if self.is_beyond_user(&node.stat) && node.stat.stx_mode & 0o1 == 0 {
            return Err(path.fail(Reason::Kernel(Errno::ACCESS)));
        }
        let name = DecInt::from_fd(&node.fd);
        let may = accessat(&self.root.own_fds, name, AccessMode::EXEC_OK, AtFlags::EACCESS);
        may.map(|()| true).map_err(path.kernel())
    }

    /// Gives an open file without a name the name `name`, which must be free.
    pub(crate) fn link(&self, file: &OwnedFd, parent: &OwnedFd, name: &[u8]) -> Result<(), Errno> {
        let own = DecInt::from_fd(file);
        rustix::fs::linkat(&self.root.own_fds, own, parent, name, AtFlags::SYMLINK_FOLLOW)
    }

    /// The path that the kernel knows for a held directory, from the sandbox's root on.
    pub(crate) fn true_path(&self, fd: &OwnedFd, path: &FilePath) -> Result<Vec<u8>, FileError> {
        let of = |fd: &OwnedFd| readlinkat(&self.root.own_fds, DecInt::from_fd(fd), Vec::new());
        let whole = of(fd).map_err(path.kernel())?.into_bytes();
        let root = of(&self.root.directory).map_err(path.kernel())?.into_bytes();
        let root = root.strip_suffix(b"/").unwrap_or(&root);
        Ok(whole.strip_prefix(root).filter(|rest| !rest.is_empty()).unwrap_or(b"/").to_vec())
    }

    /// Whether the user has rights left that this call is made without.
    pub(crate) fn may_more(&self) -> bool {
        self.rights == Rights::Plain && self.identity.has_powers()
    }

    /// Whether a thing is within reach only because the agent may more than the user's root.
    pub(crate) fn is_beyond_user(&self, stat: &Statx) -> bool {
        self.rights == Rights::Powers && self.identity.is_foreign(stat)
    }

    /// Whether a directory is `ancestor` or lies below it.
    pub(crate) fn is_below(&self, directory: &OwnedFd, ancestor: &Statx) -> Result<bool, Errno> {
        let mut at = directory.try_clone().map_err(|_| Errno::MFILE)?;
        loop {
            let found = statx(&at, c"", AtFlags::EMPTY_PATH, WANTED)?;
            if is_same(&found, ancestor) {
                return Ok(true);
            }
            let above =
                openat(&at, c"..", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
            if is_same(&statx(&above, c"", AtFlags::EMPTY_PATH, WANTED)?, &found) {
                return Ok(false);
            }
            at = above;
        }
    }

    /// Checks a place again for rights that it was not found with.
    pub(crate) fn vet_place(&self, place: &Place, path: &FilePath) -> Result<(), FileError> {
        self.vet_directory(&place.parent, Need::Change, path)?;
        self.vet_node(place, path)
    }

    /// With [`Rights::Powers`]: refuses to replace or remove what belongs to the agent.
    pub(crate) fn vet_node(&self, place: &Place, path: &FilePath) -> Result<(), FileError> {
        match &place.node {
            Some(node) if self.is_beyond_user(&node.stat) => Err(path.fail(Reason::Kernel(Errno::ACCESS))),
            _ => Ok(()),
        }
    }

    /// With [`Rights::Powers`]: refuses a directory that is reached only because the agent may more than the user's
    /// root (see `identity.rs`).
    fn vet_directory(&self, directory: &OwnedFd, need: Need, path: &FilePath) -> Result<(), FileError> {
        if self.rights == Rights::Plain {
            return Ok(());
        }
        let denied = || path.fail(Reason::Kernel(Errno::ACCESS));
        let stat = |fd: &OwnedFd| statx(fd, c"", AtFlags::EMPTY_PATH, WANTED).map_err(path.kernel());
        let root = stat(&self.root.directory)?;
        let mut bits = if need == Need::Change { 0o3 } else { 0o1 };
        let mut at = directory.try_clone().map_err(|_| denied())?;
        loop {
            let found = stat(&at)?;
            if self.identity.is_foreign(&found) && found.stx_mode & bits != bits {
                return Err(denied());
            }
            if is_same(&found, &root) {
                return Ok(());
            }
            bits = 0o1;
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let above = openat(&at, c"..", flags, Mode::empty()).map_err(path.kernel())?;
            // The top of everything without meeting the root: it was moved out from under us.
            if is_same(&stat(&above)?, &found) {
                return Err(denied());
            }
            at = above;
        }
    }
}

fn is_same(a: &Statx, b: &Statx) -> bool {
    (a.stx_mnt_id, a.stx_ino, a.stx_dev_major, a.stx_dev_minor)
        == (b.stx_mnt_id, b.stx_ino, b.stx_dev_major, b.stx_dev_minor)
}

/// What is asked of statx.
pub(crate) const WANTED: StatxFlags = StatxFlags::BASIC_STATS.union(StatxFlags::MNT_ID);

fn look(fd: OwnedFd, path: &FilePath) -> Result<Node, FileError> {
    let stat = statx(&fd, c"", AtFlags::EMPTY_PATH, WANTED).map_err(path.kernel())?;
    Ok(Node { fd, stat })
}

/// What kind of thing it is.
pub(crate) fn kind(stat: &Statx) -> FileType {
    FileType::from_raw_mode(stat.stx_mode.into())
}

/// Whether something is mounted exactly there.
pub(crate) fn is_mount_point(stat: &Statx) -> bool {
    stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
}

/// Refuses all but regular files.
pub(crate) fn require_file(stat: &Statx, path: &FilePath) -> Result<(), FileError> {
    match kind(stat) {
        FileType::RegularFile => Ok(()),
        FileType::Directory => Err(path.fail(Reason::IsDirectory)),
        other => Err(path.fail(Reason::Special(name_of(other)))),
    }
}

/// A kind of special file, with its article.
pub(crate) fn name_of(kind: FileType) -> &'static str {
    match kind {
        FileType::Fifo => "a FIFO",
        FileType::Socket => "a socket",
        FileType::CharacterDevice => "a character device",
        FileType::BlockDevice => "a block device",
        FileType::Symlink => "a symbolic link",
        _ => "something else",
    }
}

/// The kernel's own file system on which a thing lies, if it does.
pub(crate) fn kernel_file_system(fd: &OwnedFd) -> Result<Option<&'static str>, Errno> {
    let number = fstatfs(fd)?.f_type.cast_unsigned() & 0xffff_ffff;
    Ok(SPEAK_FOR_AGENT.iter().find(|(magic, _)| *magic == number).map(|(_, name)| *name))
}

fn refuse_kernel_file_system(fd: &OwnedFd, path: &FilePath) -> Result<(), FileError> {
    match kernel_file_system(fd).map_err(path.kernel())? {
        Some(name) => Err(path.fail(Reason::SpeaksForAgent(name))),
        None => Ok(()),
    }
}

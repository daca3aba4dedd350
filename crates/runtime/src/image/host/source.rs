//! Looking at the host's files without ever following a link.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Statx, StatxAttributes, StatxFlags};

use super::plan::Meta;
use crate::image::ImageError;

/// The tree that an image is made from: the host's `/`, or in tests a directory that looks like one.
///
/// Every path given to its methods is relative to it and free of links, `.` and `..`.
#[derive(Debug)]
pub(super) struct Host {
    path: PathBuf,
    fd: OwnedFd,
}

/// What one path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Dir,
    File,
    Link,
    /// A device, FIFO or socket.
    Special,
}

/// One file's attributes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stat {
    pub(super) kind: Kind,
    pub(super) meta: Meta,
    pub(super) size: u64,
    /// Something is mounted here, or it lies on another file system than its parent.
    pub(super) mount_point: bool,
    /// Identity and times, for the state's key.
    pub(super) identity: [u64; 4],
    device: (u32, u32),
}

impl Stat {
    fn new(stat: &Statx) -> Self {
        let kind = match FileType::from_raw_mode(u32::from(stat.stx_mode)) {
            FileType::Directory => Kind::Dir,
            FileType::RegularFile => Kind::File,
            FileType::Symlink => Kind::Link,
            _ => Kind::Special,
        };
        let (changed, modified) = (stat.stx_ctime, stat.stx_mtime);
        Self {
            kind,
            meta: Meta {
                mode: u32::from(stat.stx_mode) & 0o1777,
                uid: stat.stx_uid,
                gid: stat.stx_gid,
                seconds: modified.tv_sec,
                nanoseconds: modified.tv_nsec,
            },
            size: stat.stx_size,
            mount_point: stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT),
            identity: [
                stat.stx_ino,
                stat.stx_size,
                changed.tv_sec.cast_unsigned() << 30 | u64::from(changed.tv_nsec),
                modified.tv_sec.cast_unsigned() << 30 | u64::from(modified.tv_nsec),
            ],
            device: (stat.stx_dev_major, stat.stx_dev_minor),
        }
    }

    /// Whether every user of the host may read it (and enter it, if it is a directory).
    pub(super) fn public(&self) -> bool {
        match self.kind {
            Kind::Dir => self.meta.mode & 0o005 == 0o005,
            Kind::File => self.meta.mode & 0o004 != 0,
            Kind::Link => true,
            Kind::Special => false,
        }
    }

    /// Whether it lies on the same file system as the other.
    pub(super) fn same_device(&self, other: &Self) -> bool {
        self.device == other.device
    }
}

impl Host {
    pub(super) fn open(path: &Path) -> Result<Self, ImageError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty()).map_err(ImageError::io("open", path))?;
        Ok(Self { path: path.to_owned(), fd })
    }

    /// The path that names `rel` outside.
    pub(super) fn absolute(&self, rel: &Path) -> PathBuf {
        self.path.join(rel)
    }

    /// What `rel` is; none if there is no such file.
    pub(super) fn stat(&self, rel: &Path) -> Result<Option<Stat>, ImageError> {
        let name = if rel.as_os_str().is_empty() { Path::new(".") } else { rel };
        match rustix::fs::statx(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS) {
            Ok(stat) => Ok(Some(Stat::new(&stat))),
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::ACCESS) => Ok(None),
            Err(error) => Err(ImageError::io("examine", self.absolute(rel))(error)),
        }
    }

    /// Where the link `rel` points to.
    pub(super) fn read_link(&self, rel: &Path) -> Result<PathBuf, ImageError> {
        let target = rustix::fs::readlinkat(&self.fd, rel, Vec::new())
            .map_err(ImageError::io("read the link", self.absolute(rel)))?;
        Ok(PathBuf::from(OsString::from_vec(target.into_bytes())))
    }

    /// The names in a directory, sorted.
    pub(super) fn names(&self, rel: &Path) -> Result<Vec<OsString>, ImageError> {
        Ok(self.entries(rel)?.into_iter().map(|(name, _)| name).collect())
    }

    /// The names in a directory, sorted, each with whether it may be a directory: most file systems tell, which saves a
    /// system call for each file.
    pub(super) fn entries(&self, rel: &Path) -> Result<Vec<(OsString, bool)>, ImageError> {
        let failed = |error: io::Error| ImageError::io("list", self.absolute(rel))(error);
        let fd = self.open_beneath(rel, OFlags::DIRECTORY).map_err(failed)?;
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::new(fd).map_err(|error| failed(error.into()))? {
            let entry = entry.map_err(|error| failed(error.into()))?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                let may_be_dir = matches!(entry.file_type(), FileType::Directory | FileType::Unknown);
                names.push((OsString::from_vec(name.to_vec()), may_be_dir));
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Opens a regular file for reading.
    pub(super) fn file(&self, rel: &Path) -> Result<File, ImageError> {
        // NONBLOCK: a FIFO put in the file's place must not hold the builder.
        let fd = self
            .open_beneath(rel, OFlags::NONBLOCK | OFlags::NOFOLLOW)
            .map_err(ImageError::io("open", self.absolute(rel)))?;
        Ok(File::from(fd))
    }

    /// The content of a file, which may have at most `bound` bytes.
    pub(super) fn read(&self, rel: &Path, bound: u64) -> Result<Vec<u8>, ImageError> {
        let mut content = Vec::new();
        self.file(rel)?
            .take(bound + 1)
            .read_to_end(&mut content)
            .map_err(ImageError::io("read", self.absolute(rel)))?;
        if content.len() as u64 > bound {
            return Err(ImageError::TooLarge { what: "bytes", bound, path: self.absolute(rel) });
        }
        Ok(content)
    }

    /// The text of a small file; empty if there is none.
    pub(super) fn text(&self, rel: &str) -> Result<String, ImageError> {
        let rel = Path::new(rel);
        match self.stat(rel)? {
            Some(stat) if stat.kind == Kind::File => {
                Ok(String::from_utf8_lossy(&self.read(rel, super::MAX_TEXT)?).into_owned())
            }
            _ => Ok(String::new()),
        }
    }

    fn open_beneath(&self, rel: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let name = if rel.as_os_str().is_empty() { Path::new(".") } else { rel };
        let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
        Ok(rustix::fs::openat2(
            &self.fd,
            name,
            OFlags::RDONLY | OFlags::CLOEXEC | flags,
            Mode::empty(),
            resolve,
        )?)
    }
}

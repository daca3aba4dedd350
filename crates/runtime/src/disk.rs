//! A disk of each sandbox's own: a sparse ext4 image on a loop device, which bounds bytes and inodes.
//!
//! Project quotas would do without an image, but many kernels are built without them, and they bound nothing on a file
//! system that the operator has not prepared. An empty image of any size has about 100 kB that are not zero; these are
//! kept in memory, so a new disk is made by writing them into a sparse file. There is no journal: what a crash of the
//! host leaves is put right by e2fsck before the disk is used again.

use crate::driver::{DriverError, Result};
use crate::sys;
use rustix::fs::SeekFrom;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use rustix::io::Errno;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Smaller disks have no room for an ext4 file system with something in it.
const SMALLEST: u64 = 16 << 20;
/// Sizes are rounded up to this, which bounds how many templates a caller can make the server keep.
const GRAIN: u64 = 16 << 20;
/// Templates that are kept; past that, all are made anew.
const KEPT: usize = 64;
/// One inode for this many bytes, as mke2fs has it by default.
const BYTES_PER_INODE: u64 = 16 << 10;
const MOST_INODES: u64 = 1 << 20;
/// How long the kernel may take to let go of a disk whose last user is gone: it writes out what is not written yet.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(60);
/// How often is looked where the kernel cannot be asked to tell.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// A directory of a disk with empty directories, each of which holds an inode and a block. Code in a sandbox can fill its
/// disk to the last; a start takes some of either for a moment, and a sandbox that cannot start cannot be tidied up.
pub(crate) const RESERVE: &str = "reserve";
const RESERVED: usize = 8;

fn fill_reserve(reserve: &Path) -> io::Result<()> {
    (0..RESERVED).try_for_each(|number| fs::create_dir(reserve.join(number.to_string())))
}

/// Does something while the reserve is given up.
pub(crate) fn without_reserve<T>(reserve: &Path, action: impl FnOnce() -> T) -> io::Result<T> {
    for entry in fs::read_dir(reserve)? {
        fs::remove_dir(entry?.path())?;
    }
    let result = action();
    match fill_reserve(reserve) {
        // What was done took a part of it for good.
        Err(error) if error.kind() != io::ErrorKind::StorageFull => Err(error),
        _ => Ok(result),
    }
}

/// An empty file system: its size and the parts of it that are not zero.
#[derive(Debug)]
pub(crate) struct Template {
    size: u64,
    parts: Vec<(u64, Vec<u8>)>,
}

impl Template {
    /// Has the kernel read a new disk's parts from its device: the mount would ask for them one by one, and wait for each.
    pub(crate) fn read_ahead(&self, disk: &Attached) {
        for (offset, part) in &self.parts {
            let length = NonZeroU64::new(part.len() as u64);
            let advised = rustix::fs::fadvise(&disk.device, *offset, length, rustix::fs::Advice::WillNeed);
            if let Err(error) = advised {
                // The mount reads them all the same, a little later.
                tracing::debug!(device = %disk.path.display(), %error, "no reading ahead");
            }
        }
    }
}

/// Makes disks.
#[derive(Debug, Default)]
pub(crate) struct Disks {
    templates: Mutex<HashMap<u64, Arc<Template>>>,
}

/// A disk that is attached. While this lives the device stays, used or not.
#[derive(Debug)]
pub(crate) struct Attached {
    device: File,
    /// The loop device.
    pub(crate) path: PathBuf,
}

impl Attached {
    /// Stops the host from caching what the sandbox's own file system caches already. Writes the empty file system out
    /// first: a mount must not wait for that, so this is for when the sandbox runs.
    pub(crate) fn settle(&self) {
        if let Err(error) = sys::loopdev::use_direct_io(&self.device) {
            // The data directory's file system may have no direct I/O. Then everything is cached twice, no more.
            tracing::debug!(device = %self.path.display(), %error, "no direct I/O");
        }
    }
}

impl Disks {
    /// Tries everything that a disk needs, but the mount. Says in words what is missing.
    pub(crate) fn examine(&self, size: u64) -> std::result::Result<(), String> {
        self.template(size).map_err(|error| match error {
            DriverError::Io { operation, subject, source } => format!("{operation} {subject}: {source}"),
            other => other.to_string(),
        })?;
        let listed = fs::read_to_string("/proc/filesystems").unwrap_or_default();
        // A module that is not loaded is not listed; mounting loads it.
        if !listed.contains("\text4") && !Path::new("/lib/modules").exists() {
            return Err("the kernel has no ext4".into());
        }
        File::options()
            .read(true)
            .write(true)
            .open("/dev/loop-control")
            .map_err(|e| format!("/dev/loop-control: {e}"))?;
        Ok(())
    }

    fn template(&self, size: u64) -> Result<Arc<Template>> {
        if size < SMALLEST {
            let reason = format!("{size} bytes are too few for a file system; the least is {SMALLEST}");
            return Err(DriverError::Limit { limit: "disk", reason });
        }
        let size = size.div_ceil(GRAIN) * GRAIN;
        let mut templates = self.templates.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(template) = templates.get(&size) {
            return Ok(template.clone());
        }
        let template = Arc::new(make_template(size)?);
        if templates.len() >= KEPT {
            templates.clear();
        }
        templates.insert(size, template.clone());
        Ok(template)
    }

    /// Makes an empty disk. The file must not exist.
    pub(crate) fn create(&self, image: &Path, size: u64) -> Result<Arc<Template>> {
        let template = self.template(size)?;
        let write = || -> io::Result<()> {
            let file = File::options().read(true).write(true).create_new(true).open(image)?;
            file.set_len(template.size)?;
            template.parts.iter().try_for_each(|(offset, part)| file.write_all_at(part, *offset))
        };
        write().map_err(DriverError::io("make disk", image.display()))?;
        Ok(template)
    }
}

/// Attaches a disk to a free loop device.
pub(crate) fn attach(image: &Path) -> Result<Attached> {
    let attach = || {
        let file = File::options().read(true).write(true).open(image)?;
        sys::loopdev::attach(file.as_fd())
    };
    let (device, path) = attach().map_err(DriverError::io("attach disk", image.display()))?;
    Ok(Attached { device, path })
}

/// Whether a disk was not unmounted, as after a crash of the host, or the kernel met errors in it: `s_state` of the
/// superblock (ext4: super.rst) is not plainly "clean".
fn is_unclean(image: &Path) -> io::Result<bool> {
    const STATE: u64 = 1024 + 0x3a;
    const CLEAN: u16 = 1;
    let mut state = [0; 2];
    File::open(image)?.read_exact_at(&mut state, STATE)?;
    Ok(u16::from_le_bytes(state) != CLEAN)
}

/// How many errors the kernel has met in the mounted file system of a loop device; 0 if none is mounted.
pub(crate) fn errors(device: &Path) -> u64 {
    let count = device
        .file_name()
        .map(|name| Path::new("/sys/fs/ext4").join(name).join("errors_count"))
        .and_then(|path| fs::read_to_string(path).ok());
    count.and_then(|text| text.trim().parse().ok()).unwrap_or_default()
}

/// Puts a disk right that was not unmounted.
pub(crate) fn repair(image: &Path) -> Result<()> {
    let failed = |error| DriverError::io("check disk", image.display())(error);
    if !is_unclean(image).map_err(failed)? {
        return Ok(());
    }
    #[expect(clippy::disallowed_methods, reason = "the driver is one of the places that start programs")]
    let status = Command::new("e2fsck")
        .args(["-f", "-y"])
        .arg(image)
        .env("PATH", SYSTEM_PATH)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .map_err(DriverError::io("check disk", image.display()))?;
    // Bits 0 and 1: errors corrected (e2fsck(8)).
    match status.code() {
        Some(code) if code & !3 == 0 => Ok(()),
        _ => Err(failed(io::Error::other(format!("e2fsck: {status}")))),
    }
}

/// Where the tools of the file system are; a service may have a shorter PATH.
const SYSTEM_PATH: &str = "/usr/sbin:/sbin:/usr/bin:/bin";

/// Where files take no room of the disk.
const IN_MEMORY: &str = "/dev/shm";

fn in_memory() -> io::Result<tempfile::TempDir> {
    let mut builder = tempfile::Builder::new();
    let builder = builder.prefix("sandcrab-template-");
    // Not every machine has it; then the disk has to do.
    builder.tempdir_in(IN_MEMORY).or_else(|_| builder.tempdir())
}

/// In memory: a server whose disk is full can still tell whether the machine can make disks.
fn make_template(size: u64) -> Result<Template> {
    let make = || -> io::Result<File> {
        let file = File::from(rustix::fs::memfd_create("template", rustix::fs::MemfdFlags::CLOEXEC)?);
        file.set_len(size)?;
        Ok(file)
    };
    let file = make().map_err(DriverError::io("make", "an empty disk in memory"))?;
    let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    let content = in_memory().map_err(DriverError::io("make a directory in", IN_MEMORY))?;
    let reserve = content.path().join(RESERVE);
    fs::create_dir(&reserve)
        .and_then(|()| fill_reserve(&reserve))
        .map_err(DriverError::io("make", reserve.display()))?;
    let inodes = (size / BYTES_PER_INODE).min(MOST_INODES);
    #[expect(clippy::disallowed_methods, reason = "the driver is one of the places that start programs")]
    let output = Command::new("mkfs.ext4")
        .args(["-q", "-F", "-b", "4096", "-m", "0", "-N", &inodes.to_string()])
        // No journal. Block groups count as unused until something is written there, so that their tables need not be.
        .args(["-O", "^has_journal,^resize_inode,^metadata_csum,uninit_bg,flex_bg,sparse_super2"])
        .args(["-E", "lazy_itable_init=1,nodiscard,num_backup_sb=0,packed_meta_blocks=1"])
        .arg("-d")
        .arg(content.path())
        .arg(path)
        .env("PATH", SYSTEM_PATH)
        .stdin(Stdio::null())
        .output()
        .map_err(DriverError::io("run", "mkfs.ext4 (package e2fsprogs)"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        return Err(DriverError::io("run", "mkfs.ext4")(io::Error::other(said)));
    }
    let parts = parts(&file, size).map_err(DriverError::io("read", "an empty disk in memory"))?;
    Ok(Template { size, parts })
}

/// The parts of a sparse file that hold something.
fn parts(file: &File, size: u64) -> io::Result<Vec<(u64, Vec<u8>)>> {
    let mut parts = Vec::new();
    let mut offset = 0;
    while offset < size {
        let start = match rustix::fs::seek(file, SeekFrom::Data(offset)) {
            Ok(start) => start,
            // No data from here on.
            Err(rustix::io::Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let end = rustix::fs::seek(file, SeekFrom::Hole(start))?;
        let mut part = vec![0; (end - start) as usize];
        file.read_exact_at(&mut part, start)?;
        parts.push((start, part));
        offset = end;
    }
    Ok(parts)
}

/// Bytes that a disk takes of the host's.
pub(crate) fn used(image: &Path) -> Option<u64> {
    fs::metadata(image).ok().map(|metadata| metadata.blocks() * 512)
}

/// Hears when the kernel lets go of a disk whose last user has been ended.
#[derive(Debug)]
pub(crate) struct Release {
    image: PathBuf,
    /// The loop device that the disk was attached to, if that is known.
    device: Option<PathBuf>,
}

impl Release {
    pub(crate) fn new(image: &Path, device: Option<&Path>) -> Self {
        Self { image: image.to_owned(), device: device.map(Path::to_owned) }
    }

    /// Waits until no loop device has the disk. Mostly none has it any more, and this needs nothing.
    pub(crate) fn wait(&self) -> Result<()> {
        let failed = |error: io::Error| DriverError::io("release disk", self.image.display())(error);
        let candidates = self.candidates().map_err(failed)?;
        if !self.is_attached(&candidates).map_err(failed)? {
            return Ok(());
        }
        let events = self.watch().map_err(|errno| failed(errno.into()))?;
        let deadline = Instant::now() + RELEASE_TIMEOUT;
        while self.is_attached(&candidates).map_err(failed)? {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(failed(io::ErrorKind::TimedOut.into()));
            }
            match &events {
                Some(events) => next_event(events, left).map_err(|errno| failed(errno.into()))?,
                None => std::thread::sleep(LOOK_AGAIN),
            }
        }
        Ok(())
    }

    /// The loop device has the file open for writing; closing it is the last thing that it does. None where this user has
    /// no watch left: the host's other programs may have taken them all, and a disk must be released all the same.
    fn watch(&self) -> rustix::io::Result<Option<OwnedFd>> {
        let watched = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).and_then(|events| {
            inotify::add_watch(&events, &self.image, WatchFlags::CLOSE_WRITE)?;
            Ok(events)
        });
        match watched {
            Ok(events) => Ok(Some(events)),
            Err(Errno::MFILE | Errno::NFILE | Errno::NOSPC | Errno::NOMEM) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Where the kernel tells what each loop device that may have the disk is attached to; none if there is no such disk.
    fn candidates(&self) -> io::Result<Vec<PathBuf>> {
        if !self.image.try_exists()? {
            return Ok(Vec::new());
        }
        let backing = |name: &std::ffi::OsStr| Path::new("/sys/block").join(name).join("loop/backing_file");
        match self.device.as_deref().and_then(Path::file_name) {
            Some(name) => Ok(vec![backing(name)]),
            None => fs::read_dir("/sys/block")?.map(|entry| Ok(backing(&entry?.file_name()))).collect(),
        }
    }

    fn is_attached(&self, candidates: &[PathBuf]) -> io::Result<bool> {
        for file in candidates {
            match fs::read_to_string(file) {
                Ok(text) if Path::new(text.trim_end_matches('\n')) == self.image => return Ok(true),
                Ok(_) => {}
                // No loop device, or one that was let go of while its name was read.
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
                Err(error) if Errno::from_io_error(&error) == Some(Errno::NXIO) => {}
                // Not known, as where the server has no descriptor left: one disk must not be mounted twice.
                Err(error) => return Err(error),
            }
        }
        Ok(false)
    }
}

/// Waits for an event, for so long at most, and takes what there is.
fn next_event(events: &OwnedFd, most: Duration) -> rustix::io::Result<()> {
    use rustix::event::{PollFd, PollFlags, Timespec};
    let most = Timespec { tv_sec: most.as_secs() as i64, tv_nsec: i64::from(most.subsec_nanos()) };
    let mut poll = [PollFd::new(events, PollFlags::IN)];
    rustix::io::retry_on_intr(|| rustix::event::poll(&mut poll, Some(&most)))?;
    match rustix::io::read(events, &mut [0; 512]) {
        Ok(_) | Err(rustix::io::Errno::AGAIN) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_sparse_and_of_the_size_that_was_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let disks = Disks::default();
        let image = dir.path().join("disk.img");
        disks.create(&image, 1 << 30).unwrap();
        assert_eq!(fs::metadata(&image).unwrap().len(), 1 << 30);
        assert!(used(&image).unwrap() < 1 << 20, "{:?}", used(&image));
        assert!(!is_unclean(&image).unwrap());
        assert!(matches!(disks.create(&image, 1 << 30), Err(DriverError::Io { .. })), "it exists");
    }

    #[test]
    fn a_disk_too_small_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let disks = Disks::default();
        let error = disks.create(&dir.path().join("disk.img"), 1 << 20).unwrap_err();
        assert!(matches!(error, DriverError::Limit { limit: "disk", .. }), "{error}");
    }

    #[test]
    fn an_unclean_disk_is_put_right() {
        let dir = tempfile::tempdir().unwrap();
        let disks = Disks::default();
        let image = dir.path().join("disk.img");
        disks.create(&image, SMALLEST).unwrap();
        File::options().write(true).open(&image).unwrap().write_all_at(&[0, 0], 1024 + 0x3a).unwrap();
        assert!(is_unclean(&image).unwrap());
        repair(&image).unwrap();
        assert!(!is_unclean(&image).unwrap());
    }
}

//! Unpacks a layer's archive: a plain ustar (POSIX.1-1988) that somebody who is not trusted may have written.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid};

use crate::image::ImageError;

/// Bounds on a layer: many times the data stack's 20,000 files of 500 MB.
const BOUNDS: Bounds = Bounds { entries: 500_000, bytes: 8 << 30 };
const MAX_DEPTH: usize = 64;

const BLOCK: usize = 512;
/// What a name begins with that says that the rest of it is gone from the layers below (OCI image specification).
const GONE: &[u8] = b".wh.";
/// Neither `..` nor a link leads out of the directory: the kernel refuses each such step.
const INSIDE: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);

/// One entry, as its header tells.
#[derive(Debug, PartialEq, Eq)]
struct Header {
    path: PathBuf,
    kind: Kind,
    mode: u32,
    modified: i64,
    size: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    File,
    Dir,
    Link(PathBuf),
}

/// How much an archive may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) entries: u64,
    pub(super) bytes: u64,
}

/// Unpacks into `dir`, one directory for each of `trees` that the archive has something for: those directories by tree,
/// and the bytes of all files.
pub(super) fn unpack(
    archive: &Path,
    dir: &Path,
    trees: &[&Path],
) -> Result<(BTreeMap<PathBuf, String>, u64), ImageError> {
    unpack_within(archive, dir, trees, BOUNDS)
}

pub(super) fn unpack_within(
    archive: &Path,
    dir: &Path,
    trees: &[&Path],
    bounds: Bounds,
) -> Result<(BTreeMap<PathBuf, String>, u64), ImageError> {
    let file = File::open(archive).map_err(ImageError::io("open", archive))?;
    let mut unpacker = Unpacker {
        archive,
        input: BufReader::with_capacity(1 << 20, file),
        dir,
        trees,
        bounds,
        roots: BTreeMap::new(),
        made: BTreeSet::new(),
        times: Vec::new(),
        root: rustix::process::geteuid().is_root(),
    };
    let size = unpacker.run()?;
    let names = unpacker.roots.into_iter().map(|(at, root)| (at, root.name)).collect();
    Ok((names, size))
}

/// The directory of one tree.
struct Root {
    name: String,
    fd: OwnedFd,
}

struct Unpacker<'a> {
    archive: &'a Path,
    input: BufReader<File>,
    dir: &'a Path,
    trees: &'a [&'a Path],
    bounds: Bounds,
    roots: BTreeMap<PathBuf, Root>,
    /// The directories that there are: what lies in another one is refused.
    made: BTreeSet<PathBuf>,
    /// The times of directories, which change with what is put into them.
    times: Vec<(PathBuf, PathBuf, i64)>,
    root: bool,
}

impl Unpacker<'_> {
    fn bad(&self, entry: &Path, reason: &'static str) -> ImageError {
        ImageError::Archive { archive: self.archive.to_owned(), entry: entry.to_owned(), reason }
    }

    fn run(&mut self) -> Result<u64, ImageError> {
        let (mut entries, mut bytes) = (0, 0_u64);
        let mut block = [0; BLOCK];
        loop {
            self.read(&mut block)?;
            if block.iter().all(|byte| *byte == 0) {
                break;
            }
            let header = header(&block).map_err(|reason| self.bad(Path::new(""), reason))?;
            entries += 1;
            bytes = bytes.saturating_add(header.size);
            if entries > self.bounds.entries || bytes > self.bounds.bytes {
                return Err(self.bad(&header.path, "the archive passes its bounds"));
            }
            self.entry(&header)?;
        }
        for (at, path, modified) in self.times.iter().rev() {
            let Some(root) = self.roots.get(at) else { continue };
            let times = times(*modified);
            rustix::fs::utimensat(&root.fd, path, &times, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(ImageError::io("set the times of", path))?;
        }
        Ok(bytes)
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<(), ImageError> {
        self.input.read_exact(buffer).map_err(ImageError::io("read", self.archive))
    }

    /// The tree that a path belongs to, its place, and the rest of the path.
    fn place(&mut self, path: &Path) -> Result<(PathBuf, PathBuf), ImageError> {
        let absolute = Path::new("/").join(path);
        let tree = self.trees.iter().filter(|at| absolute.starts_with(at));
        let Some(at) = tree.max_by_key(|at| at.components().count()).map(|at| at.to_path_buf()) else {
            return Err(self.bad(path, "no tree of the image holds it"));
        };
        if !self.roots.contains_key(&at) {
            let name = at.to_string_lossy().trim_start_matches('/').replace('/', "-");
            let name = if name.is_empty() { "root".to_owned() } else { name };
            let dir = self.dir.join(&name);
            rustix::fs::mkdir(&dir, Mode::from_raw_mode(0o755))
                .map_err(ImageError::io("make the directory", &dir))?;
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let fd = rustix::fs::open(&dir, flags, Mode::empty()).map_err(ImageError::io("open", &dir))?;
            self.made.insert(at.clone());
            self.roots.insert(at.clone(), Root { name, fd });
        }
        let rest = absolute.strip_prefix(&at).unwrap_or(&absolute).to_owned();
        Ok((at, rest))
    }

    fn entry(&mut self, header: &Header) -> Result<(), ImageError> {
        let (at, rest) = self.place(&header.path)?;
        let absolute = Path::new("/").join(&header.path);
        let Some(name) = rest.file_name() else {
            // The tree's own directory.
            return match header.kind {
                Kind::Dir => self.directory(&at, Path::new("."), header),
                _ => Err(self.bad(&header.path, "a tree of the image is a directory")),
            };
        };
        let parent = rest.parent().unwrap_or(Path::new(""));
        if !absolute.parent().is_some_and(|parent| self.made.contains(parent)) {
            return Err(self.bad(&header.path, "its directory does not precede it"));
        }
        let Some(root) = self.roots.get(&at) else { return Ok(()) };
        let failed = |operation| ImageError::io(operation, &header.path);
        let directory = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::openat2(&root.fd, directory, flags, Mode::empty(), INSIDE)
            .map_err(failed("enter the directory of"))?;
        let own = |name: &Path| match self.root {
            true => rustix::fs::chownat(
                &directory,
                name,
                Some(Uid::ROOT),
                Some(Gid::ROOT),
                AtFlags::SYMLINK_NOFOLLOW,
            ),
            false => Ok(()),
        };
        let name = Path::new(name);
        if let Some(gone) = name.as_os_str().as_bytes().strip_prefix(GONE) {
            // Signs of overlay tools that begin so twice are not ours: such a name would be a file beside them.
            if header.size != 0 || header.kind != Kind::File || gone.is_empty() || gone.starts_with(GONE) {
                return Err(self.bad(&header.path, "it says that something is gone, and is more than that"));
            }
            // Device 0:0 is overlayfs's sign for "nothing here", and the one device that needs no privilege.
            return rustix::fs::mknodat(&directory, gone, FileType::CharacterDevice, Mode::empty(), 0)
                .map_err(failed("make the whiteout"));
        }
        match &header.kind {
            Kind::Dir => {
                rustix::fs::mkdirat(&directory, name, Mode::from_raw_mode(0o755))
                    .map_err(failed("make the directory"))?;
                own(name).map_err(failed("give away"))?;
                self.made.insert(absolute);
                return self.directory(&at, &rest, header);
            }
            Kind::Link(target) => {
                rustix::fs::symlinkat(target, &directory, name).map_err(failed("make the link"))?;
            }
            Kind::File => {
                let flags =
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let fd = rustix::fs::openat(&directory, name, flags, Mode::from_raw_mode(0o600))
                    .map_err(failed("make"))?;
                let mut file = File::from(fd);
                let copied = io::copy(&mut (&mut self.input).take(header.size), &mut file);
                if copied.map_err(ImageError::io("write", &header.path))? != header.size {
                    return Err(self.bad(&header.path, "the archive ends within it"));
                }
                let padding = (BLOCK as u64 - header.size % BLOCK as u64) % BLOCK as u64;
                io::copy(&mut (&mut self.input).take(padding), &mut io::sink())
                    .map_err(ImageError::io("read", self.archive))?;
                rustix::fs::fchmod(&file, Mode::from_raw_mode(header.mode))
                    .map_err(failed("set the permissions of"))?;
            }
        }
        own(name).map_err(failed("give away"))?;
        rustix::fs::utimensat(&directory, name, &times(header.modified), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(failed("set the times of"))
    }

    /// Gives a directory that was made here its attributes.
    fn directory(&mut self, at: &Path, rest: &Path, header: &Header) -> Result<(), ImageError> {
        let Some(root) = self.roots.get(at) else { return Ok(()) };
        // Whoever publishes must be able to fill it, and everyone to enter it.
        let mode = Mode::from_raw_mode(header.mode | 0o700);
        rustix::fs::chmodat(&root.fd, rest, mode, AtFlags::empty())
            .map_err(ImageError::io("set the permissions of", &header.path))?;
        self.times.push((at.to_owned(), rest.to_owned(), header.modified));
        Ok(())
    }
}

fn times(modified: i64) -> Timestamps {
    let time = Timespec { tv_sec: modified, tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}

/// Reads an entry's header.
fn header(block: &[u8; BLOCK]) -> Result<Header, &'static str> {
    let sum: u64 = block
        .iter()
        .enumerate()
        .map(|(i, b)| u64::from(if (148..156).contains(&i) { b' ' } else { *b }))
        .sum();
    if number(&block[148..156])? != sum {
        return Err("a header's checksum is wrong");
    }
    if &block[257..262] != b"ustar" {
        return Err("it is no ustar archive");
    }
    let (name, prefix) = (text(&block[..100]), text(&block[345..500]));
    let path = if prefix.is_empty() { path(name)? } else { path(prefix)?.join(path(name)?) };
    if path.components().count() > MAX_DEPTH {
        return Err("a path is too deep");
    }
    let (kind, size) = match block[156] {
        b'0' | 0 => (Kind::File, number(&block[124..136])?),
        b'5' => (Kind::Dir, 0),
        b'2' => (Kind::Link(os_path(text(&block[157..257]))), 0),
        _ => return Err("an entry is neither a file nor a directory nor a symbolic link"),
    };
    // Neither set-user-id nor what lets others write comes along.
    let mode = u32::try_from(number(&block[100..108])?).unwrap_or(0) & 0o755;
    let modified = i64::try_from(number(&block[136..148])?).unwrap_or(0);
    Ok(Header { path, kind, mode, modified, size })
}

/// Octal digits up to a NUL or a blank.
fn number(field: &[u8]) -> Result<u64, &'static str> {
    let digits: Vec<u8> = field
        .iter()
        .copied()
        .skip_while(|byte| *byte == b' ')
        .take_while(|byte| !matches!(byte, 0 | b' '))
        .collect();
    if digits.is_empty() {
        return Ok(0);
    }
    let text = std::str::from_utf8(&digits).map_err(|_| "a number is not octal")?;
    u64::from_str_radix(text, 8).map_err(|_| "a number is not octal")
}

fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn os_path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(std::ffi::OsStr::from_bytes(bytes))
}

/// A relative path of names.
fn path(bytes: &[u8]) -> Result<PathBuf, &'static str> {
    let path = os_path(bytes.strip_suffix(b"/").unwrap_or(bytes));
    let plain = path.components().all(|part| matches!(part, Component::Normal(_)));
    if plain && !path.as_os_str().is_empty() { Ok(path) } else { Err("a path is not plain and relative") }
}

//! Writes a planned layer into a directory.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid};

use super::plan::{Layer, Meta, Node};
use super::source::Host;
use crate::image::ImageError;

/// Writes the layer into `dir`, which must not exist and whose parent no one else can write to.
///
/// Without root's rights every file belongs to the caller, whom the sandbox's root is mapped to.
pub(super) fn layer(host: &Host, layer: &Layer, dir: &Path) -> Result<(), ImageError> {
    let root = rustix::process::geteuid().is_root();
    for (path, node) in &layer.nodes {
        let to = dir.join(path);
        create(host, node, &to)?;
        if root && let Some(meta) = meta(node) {
            let (uid, gid) = (Uid::from_raw(meta.uid), Gid::from_raw(meta.gid));
            rustix::fs::chownat(CWD, &to, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(ImageError::io("give away", &to))?;
        }
    }
    // Children first: making a file changes the time of its directory, and a directory may not be writable.
    for (path, node) in layer.nodes.iter().rev() {
        if let Some(meta) = meta(node) {
            finish(node, meta, &dir.join(path))?;
        }
    }
    Ok(())
}

fn create(host: &Host, node: &Node, to: &Path) -> Result<(), ImageError> {
    match node {
        Node::Dir(_) => std::fs::create_dir(to).map_err(ImageError::io("make the directory", to)),
        Node::File(_, content) => {
            new_file(to).and_then(|mut file| file.write_all(content)).map_err(ImageError::io("write", to))
        }
        Node::Copy { from, size, .. } => {
            let source = host.file(from)?;
            let copied = new_file(to).and_then(|file| copy(source, file, *size));
            copied.map_err(ImageError::io("copy", host.absolute(from)))
        }
        Node::Link(_, target) => {
            std::os::unix::fs::symlink(target, to).map_err(ImageError::io("make the link", to))
        }
        // Device 0:0 is overlayfs's sign for "nothing here", and the one device that needs no privilege.
        Node::Whiteout => rustix::fs::mknodat(CWD, to, FileType::CharacterDevice, Mode::empty(), 0)
            .map_err(ImageError::io("make the whiteout", to)),
    }
}

fn new_file(path: &Path) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(path, flags, Mode::from_raw_mode(0o600))?))
}

/// Copies at most `size` bytes, what the file had when it was planned.
fn copy(source: File, mut to: File, size: u64) -> io::Result<()> {
    io::copy(&mut io::Read::take(source, size), &mut to)?;
    Ok(())
}

fn meta(node: &Node) -> Option<&Meta> {
    match node {
        Node::Dir(meta) | Node::File(meta, _) | Node::Copy { meta, .. } | Node::Link(meta, _) => Some(meta),
        Node::Whiteout => None,
    }
}

fn finish(node: &Node, meta: &Meta, path: &Path) -> Result<(), ImageError> {
    if !matches!(node, Node::Link(..)) {
        rustix::fs::chmodat(CWD, path, Mode::from_raw_mode(meta.mode), AtFlags::empty())
            .map_err(ImageError::io("set the permissions of", path))?;
    }
    let time = Timespec { tv_sec: meta.seconds, tv_nsec: i64::from(meta.nanoseconds) };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(ImageError::io("set the times of", path))
}

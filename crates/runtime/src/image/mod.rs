//! Images: what a sandbox's root is made of before anything is written to it.
//!
//! An [`Image`] is data. It says which read-only directories to stack where; a driver turns each [`Tree`] into one
//! overlay with an upper directory of the sandbox's own.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

pub mod error;
pub mod host;
pub mod identity;
pub mod layer;
pub mod python;

pub use error::ImageError;

/// A stack of read-only layers with the configuration that goes with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Names the content: two images with one key are the same. Safe as a file name.
    pub key: String,
    /// What is mounted where, parents before children; the first is always `/`.
    pub trees: Vec<Tree>,
    /// The environment that every process starts with, below what the caller sets.
    pub env: BTreeMap<String, String>,
}

impl Image {
    /// The directories that it needs, by their names: that of each image that it is made of among all those that its layers
    /// lie in.
    pub(crate) fn directories(&self) -> BTreeSet<String> {
        let layers = self.trees.iter().flat_map(|tree| &tree.layers);
        let above = layers.flat_map(|layer| layer.components());
        let above = above.map(|name| name.as_os_str().to_string_lossy().into_owned());
        above.chain(layer::parts(&self.key).map(str::to_owned)).collect()
    }
}

/// One overlay of an image.
///
/// An image from a registry has one tree. The host image has one more for `/usr`: overlayfs sees a lower directory
/// only as a whole, so the host's `/usr` cannot appear *inside* another layer, and the directory that does hold it,
/// the host's `/`, must not be a layer. Each tree needs an upper and a work directory of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tree {
    /// Where it is mounted inside the sandbox; an absolute path whose directory exists in the tree above it.
    pub at: PathBuf,
    /// The lower directories, topmost first: the order that overlayfs's `lowerdir=` takes.
    pub layers: Vec<PathBuf>,
}

/// Opens a file that is made if it is missing, and locks it until it is dropped. The kernel drops it with the process,
/// so no lock is ever stale.
fn lock(path: &Path, operation: FlockOperation) -> Result<File, ImageError> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC;
    let fd =
        rustix::fs::open(path, flags, Mode::from_raw_mode(0o600)).map_err(ImageError::io("open", path))?;
    rustix::io::retry_on_intr(|| rustix::fs::flock(&fd, operation)).map_err(ImageError::io("lock", path))?;
    Ok(File::from(fd))
}

/// Keeps [`put_away`] from an image's directory until the file is dropped.
fn hold(dir: &Path) -> Result<File, ImageError> {
    let file = File::open(dir).map_err(ImageError::io("open", dir))?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).map_err(ImageError::io("hold", dir))?;
    // It may have been put away in between: then its name leads nowhere.
    fs::symlink_metadata(dir).map_err(ImageError::io("hold", dir))?;
    Ok(file)
}

/// Gives an image's directory, unless a server holds it, another name, under which it is to be removed: half an image must
/// not be found under its key. None if it is held.
fn put_away(parent: &Path, name: &str) -> Result<Option<PathBuf>, ImageError> {
    let path = parent.join(name);
    let file = File::open(&path).map_err(ImageError::io("open", &path))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
        locked => locked.map_err(ImageError::io("lock", &path))?,
    }
    let old = parent.join(format!(".old-{name}-{:08x}", rand::random::<u32>()));
    fs::rename(&path, &old).map_err(ImageError::io("put away", &path))?;
    Ok(Some(old))
}

/// Removes directories that nothing uses; what a server that ends leaves of them, the next one removes.
fn discard(gone: Vec<PathBuf>) {
    if gone.is_empty() {
        return;
    }
    std::thread::spawn(move || {
        for path in gone {
            match crate::tree::remove(&path) {
                // Another server removes it as well.
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    tracing::warn!(path = %path.display(), %error, "an image that nothing uses was not removed");
                }
                _ => {}
            }
        }
    });
}

fn hex(hasher: Sha256) -> String {
    hasher.finalize()[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn entries(dir: &Path) -> Result<Vec<String>, ImageError> {
    let failed = || ImageError::io("list", dir);
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed())? {
        names.push(entry.map_err(failed())?.file_name().to_string_lossy().into_owned());
    }
    names.sort_unstable();
    Ok(names)
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, ImageError> {
    let text = fs::read(path).map_err(ImageError::io("read", path))?;
    serde_json::from_slice(&text).map_err(ImageError::io("parse", path))
}

fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), ImageError> {
    let text = serde_json::to_vec_pretty(value).map_err(ImageError::io("write", path))?;
    fs::write(path, text).map_err(ImageError::io("write", path))
}

//! Images that are built: another image with one more layer over it, made inside a sandbox of that image.
//!
//! ```text
//! DATA/images/layers/
//!   lock             one publisher at a time
//!   KEY/layer.json   what the layer is; KEY is a hash of the recipe and of what it stands on in its base
//!   KEY/root/        what lies over the tree at /
//!   KEY/usr/         what lies over the tree at /usr
//! ```
//! A directory `KEY` never changes: it is complete when it gets its name, and removed whole. What is being written or
//! removed has a name that begins with `.new-` or `.old-`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Image, ImageError, read_json, write_json};

mod archive;
#[cfg(test)]
mod tests;

/// What a built image is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// The image's name.
    pub name: String,
    /// The name of the image that it adds to.
    pub base: String,
    /// A hash of all that goes into it but the base; safe as a part of a file name.
    pub digest: String,
    /// What of the base must be as it was for the layer to fit.
    pub foundation: Foundation,
}

/// What a layer stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Foundation {
    /// All of the base: the layer fits one image.
    Base,
    /// Its Python, with what is installed beside it in `/usr/local`: the layer outlives every other change.
    Python,
}

impl Recipe {
    /// What it stands on in a base.
    pub fn foundation(&self, base: &Image) -> String {
        match self.foundation {
            Foundation::Base => base.key.clone(),
            // Without a Python it cannot be built; then nothing is to be said.
            Foundation::Python => super::python::foundation(base).unwrap_or_else(|| base.key.clone()),
        }
    }

    /// The key of what this recipe makes on a foundation.
    pub fn key(&self, foundation: &str) -> String {
        let mut hasher = Sha256::new();
        for part in [foundation, &self.digest] {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        format!("{}-{}", self.name, super::hex(hasher))
    }
}

/// A published layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layer {
    /// Its key, which is its directory's name.
    pub key: String,
    /// What it stands on, see [`Recipe::foundation`].
    pub foundation: String,
    /// Bytes of its files.
    pub size: u64,
    /// For a tree of the base, by its place, the directory of this layer that lies over it.
    trees: BTreeMap<PathBuf, String>,
}

/// The layers in a directory of images.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
}

const RECORD: &str = "layer.json";
/// Between the keys of a layer and of what lies below it.
const OVER: char = '+';

/// The keys of all that an image is made of, by its own.
pub fn parts(key: &str) -> impl Iterator<Item = &str> {
    key.split(OVER)
}

/// How the names begin of what is being written, and of what is being removed.
const NEW: &str = ".new-";
const OLD: &str = ".old-";

impl Store {
    /// Opens or makes the store in a directory of images.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn open(images: &Path) -> Result<Self, ImageError> {
        let dir = images.join("layers");
        fs::create_dir_all(&dir).map_err(ImageError::io("make the directory", &dir))?;
        let dir = dir.canonicalize().map_err(ImageError::io("find", &dir))?;
        Ok(Self { dir })
    }

    /// The layer with a key; none if it is not there, or is damaged, which building it again mends.
    pub fn find(&self, key: &str) -> Option<Layer> {
        read_json(&self.dir.join(key).join(RECORD)).ok().filter(|layer: &Layer| layer.key == key)
    }

    /// The latest layer that an earlier form of the recipe made on the same foundation: it serves until the new one is built.
    pub fn find_former(&self, recipe: &Recipe, foundation: &str) -> Option<Layer> {
        let prefix = format!("{}-", recipe.name);
        let names = super::entries(&self.dir).ok()?.into_iter().filter(|name| name.starts_with(&prefix));
        let fitting =
            names.filter_map(|name| self.find(&name)).filter(|layer| layer.foundation == foundation);
        let made = |layer: &Layer| fs::metadata(self.dir.join(&layer.key).join(RECORD)).ok()?.modified().ok();
        fitting.max_by_key(made)
    }

    /// The base with the layer over it. Its key names both.
    pub fn compose(&self, layer: &Layer, base: &Image) -> Image {
        let mut image = Image { key: format!("{}{OVER}{}", layer.key, base.key), ..base.clone() };
        for tree in &mut image.trees {
            if let Some(dir) = layer.trees.get(&tree.at) {
                tree.layers.insert(0, self.dir.join(&layer.key).join(dir));
            }
        }
        image
    }

    /// Unpacks an archive into the layer that `recipe` makes of `base`, and publishes it. A layer that is there already
    /// stays as it is.
    ///
    /// The archive is not trusted: it holds directories, files and links by relative paths below each other and nothing
    /// else, within bounds, and is refused at the first entry that is otherwise.
    ///
    /// # Errors
    /// [`ImageError::Archive`]; or the directory cannot be written. Nothing is left then.
    pub fn publish(&self, recipe: &Recipe, base: &Image, archive: &Path) -> Result<Layer, ImageError> {
        let foundation = recipe.foundation(base);
        let key = recipe.key(&foundation);
        let _lock = self.lock()?;
        if let Some(layer) = self.find(&key) {
            return Ok(layer);
        }
        self.remove_left_overs()?;
        let temporary = tempfile::Builder::new()
            .prefix(NEW)
            .tempdir_in(&self.dir)
            .map_err(ImageError::io("make a directory in", &self.dir))?;
        let dir = temporary.path();
        let trees: Vec<&Path> = base.trees.iter().map(|tree| tree.at.as_path()).collect();
        let (trees, size) = archive::unpack(archive, dir, &trees)?;
        let layer = Layer { key: key.clone(), foundation, size, trees };
        write_json(&dir.join(RECORD), &layer)?;
        rustix::fs::chmod(dir, Mode::from_raw_mode(0o755))
            .map_err(ImageError::io("set the permissions of", dir))?;
        // A name must not outlive the content that it promises, not even a power cut.
        let fd = File::open(dir).map_err(ImageError::io("open", dir))?;
        rustix::fs::syncfs(&fd).map_err(ImageError::io("sync", dir))?;
        let to = self.dir.join(&key);
        if to.exists() {
            // Without a record that can be read: nothing can use it.
            crate::tree::remove(&to).map_err(ImageError::io("remove", &to))?;
        }
        fs::rename(temporary.keep(), &to).map_err(ImageError::io("publish", &to))?;
        Ok(layer)
    }

    /// Keeps a layer from being collected by any server as long as the file is open.
    pub fn hold(&self, key: &str) -> Result<File, ImageError> {
        super::hold(&self.dir.join(key))
    }

    /// Takes away the layers that are neither in `keep` nor held, and left-overs of what was interrupted; returns their
    /// keys. Their files go in the background, which can take a minute where the disk is busy.
    ///
    /// # Errors
    /// The directory cannot be read or written.
    pub fn collect(&self, keep: &BTreeSet<String>) -> Result<Vec<String>, ImageError> {
        let _lock = self.lock()?;
        let (mut gone, mut removed) = (Vec::new(), Vec::new());
        for name in super::entries(&self.dir)? {
            if name.starts_with(OLD) {
                gone.push(self.dir.join(name));
            } else if name != "lock"
                && !keep.contains(&name)
                && let Some(old) = super::put_away(&self.dir, &name)?
            {
                gone.push(old);
                removed.push(name);
            }
        }
        removed.retain(|name| !name.starts_with(NEW));
        super::discard(gone);
        Ok(removed)
    }

    /// Takes away a layer; false if it is not there or somebody holds it. Its files go in the background.
    ///
    /// # Errors
    /// The directory cannot be written.
    pub fn remove(&self, key: &str) -> Result<bool, ImageError> {
        let _lock = self.lock()?;
        if !self.dir.join(key).exists() {
            return Ok(false);
        }
        let old = super::put_away(&self.dir, key)?;
        let removed = old.is_some();
        super::discard(old.into_iter().collect());
        Ok(removed)
    }

    /// Called with the lock held: who unpacks has it.
    fn remove_left_overs(&self) -> Result<(), ImageError> {
        for name in super::entries(&self.dir)?.into_iter().filter(|name| name.starts_with(NEW)) {
            let path = self.dir.join(name);
            crate::tree::remove(&path).map_err(ImageError::io("remove", &path))?;
        }
        Ok(())
    }

    fn lock(&self) -> Result<File, ImageError> {
        super::lock(&self.dir.join("lock"), FlockOperation::LockExclusive)
    }
}

//! The image `host`: this machine's own `/usr` with small layers over it, so that a first run downloads nothing.
//!
//! Making one takes four steps: [`survey`] walks `/usr` and decides what is hidden, [`root`] collects what lies outside
//! of it, [`links`] takes away the links that would dangle, and [`write`] puts the layers on disk. The first three
//! make a [`plan::Plan`], which is data; the image's key is its hash.
//!
//! ```text
//! DATA/images/host/
//!   lock                  one builder at a time
//!   states/STATE          the key of the image for a state of the machine
//!   KEY/image.json        the Image, layers relative to this directory
//!   KEY/left-out.json     what of the host is hidden, and why
//!   KEY/root/             the layer at /
//!   KEY/usr-add/          over /usr: `python`, an archive of locales, and empty directories in place of hidden ones
//!   KEY/usr-mask/         over /usr: whiteouts
//! ```
//!
//! A directory `KEY` never changes: it is complete when it gets its name, and removed whole.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{Image, ImageError};

mod accounts;
mod apt;
mod copies;
mod credentials;
mod links;
mod locale;
mod plan;
mod root;
mod source;
mod state;
mod store;
mod survey;
#[cfg(test)]
mod tests;
mod write;

use store::Store;

/// Configuration files up to this size (1 MiB) are read and searched for secrets.
const MAX_TEXT: u64 = 1 << 20;

/// Where a sandbox's programs are.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the operator may say about the host image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostOptions {
    /// More paths of the host that no sandbox shows, as `--host-image-exclude` gives them: absolute, without `..`.
    pub exclude: Vec<PathBuf>,
}

/// Why something of the host is not in the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// The operator said so.
    Excluded,
    /// It belongs to the machine's owner, not to packages: `/usr/local/etc`, `/usr/src`.
    Owner,
    /// Not every user of the host may read it.
    Private,
    /// It holds, or is of a kind that holds, passwords or keys.
    Credentials,
    /// Something is mounted there.
    Mount,
    /// A device, FIFO or socket.
    Special,
    /// A link that leads to something that is left out.
    Dangling,
}

/// One entry of [`left_out`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Hidden {
    /// Absolute, on the host; bytes that are not UTF-8 are replaced.
    pub path: String,
    /// Why it is hidden.
    pub why: Why,
}

/// The host image for the machine as it is now, made if there is none yet.
///
/// Costs about a millisecond when there is one, else up to a second. Whoever else asks meanwhile, in this process or
/// another, waits for the same build. Blocks, so not for an async thread.
///
/// # Errors
/// The host's files cannot be read, or the data directory not written; an exclude that is not an absolute path.
pub fn ensure(data_dir: &Path, options: &HostOptions) -> Result<Image, ImageError> {
    Store::new(Path::new("/"), data_dir, options)?.ensure()
}

/// The host image for the machine as it is now, if there is one.
///
/// # Errors
/// As for [`ensure`].
pub fn known(data_dir: &Path, options: &HostOptions) -> Result<Option<Image>, ImageError> {
    Store::new(Path::new("/"), data_dir, options)?.present()
}

/// Whether the machine has moved on from the state that this image shows, so that new sandboxes get another one.
///
/// Looks at every file of `/usr`: about half a second of one CPU. For a task in the background, at most every few
/// minutes; [`ensure`] on its own notices what package managers do, and what happens near the top of `/usr/local`, but
/// not, say, a `chmod` in the depth. After a `true`, [`ensure`] gives the new image.
///
/// # Errors
/// As for [`ensure`].
pub fn changed(data_dir: &Path, options: &HostOptions, image: &Image) -> Result<bool, ImageError> {
    let store = Store::new(Path::new("/"), data_dir, options)?;
    let key = store.refresh()?;
    Ok(key != image.key)
}

/// What of the host the image hides.
///
/// # Errors
/// The image does not exist or is not readable.
pub fn left_out(data_dir: &Path, image: &Image) -> Result<Vec<Hidden>, ImageError> {
    super::read_json(&data_dir.join("images/host").join(&image.key).join("left-out.json"))
}

/// Keeps an image from being collected by any server that shares the directory, until the file is dropped.
///
/// # Errors
/// The image is not there (any more): [`ensure`] makes it anew.
pub fn hold(data_dir: &Path, image: &Image) -> Result<std::fs::File, ImageError> {
    super::hold(&data_dir.join("images/host").join(&image.key))
}

/// Removes the host images that are neither in `keep` nor held nor the one for the machine as it is now, and left-overs of
/// interrupted builds; returns the removed keys.
///
/// `keep` holds the keys that sandboxes use. The caller sees to it that no sandbox of its own is between [`ensure`] and
/// its place in `keep`: its image could be removed before it is mounted. Others [`hold`] theirs.
///
/// # Errors
/// The data directory cannot be read or written.
pub fn collect(
    data_dir: &Path,
    options: &HostOptions,
    keep: &BTreeSet<String>,
) -> Result<Vec<String>, ImageError> {
    Store::new(Path::new("/"), data_dir, options)?.collect(keep)
}

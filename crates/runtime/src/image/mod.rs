//! Images: what a sandbox's root is made of before anything is written to it.
//!
//! An [`Image`] is data. It says which read-only directories to stack where; a driver turns each [`Tree`] into one
//! overlay with an upper directory of the sandbox's own.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub mod error;
pub mod host;
pub mod identity;

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

//! What an image will consist of, as data: nothing here touches the disk.

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Owner, permissions and modification time of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Meta {
    /// Permission bits and the sticky bit. Set-user-id and set-group-id never come along.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) seconds: i64,
    pub(super) nanoseconds: u32,
}

/// One file of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    Dir(Meta),
    /// A file with this content.
    File(Meta, Vec<u8>),
    /// A file that is too large to carry around: copied from this path of the host when the layer is written.
    Copy {
        meta: Meta,
        from: PathBuf,
        size: u64,
    },
    Link(Meta, PathBuf),
    /// Hides what lower layers have here.
    Whiteout,
}

/// A directory that becomes one layer. Keys are relative paths; the empty one is the layer's root. A parent sorts
/// before its children.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Layer {
    pub(super) nodes: BTreeMap<PathBuf, Node>,
}

/// A directory of the host that appears in the sandbox, below two small layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HostTree {
    /// Where, relative to the root, on the host and in the sandbox alike: `usr`.
    pub(super) at: PathBuf,
    /// What the sandbox has in addition, and the empty directories that stand for hidden ones.
    pub(super) add: Layer,
    /// What is hidden. A layer of its own, because one layer cannot both hide a directory and put an empty one there.
    pub(super) mask: Layer,
    /// The links of the host's directory that are not hidden, relative to the root, with their targets.
    pub(super) links: BTreeMap<PathBuf, PathBuf>,
}

/// Something of the host that the image does not show.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LeftOut {
    /// Relative to the root.
    pub(super) path: PathBuf,
    pub(super) why: super::Why,
}

/// The whole image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// The layer at `/`.
    pub(super) root: Layer,
    pub(super) trees: Vec<HostTree>,
    pub(super) left_out: Vec<LeftOut>,
}

impl Layer {
    pub(super) fn insert(&mut self, path: impl Into<PathBuf>, node: Node) {
        self.nodes.insert(path.into(), node);
    }

    pub(super) fn get(&self, path: &Path) -> Option<&Node> {
        self.nodes.get(path)
    }

    /// Takes out a file and what is below it.
    pub(super) fn remove(&mut self, path: &Path) {
        self.nodes.retain(|at, _| !at.starts_with(path));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    fn feed(&self, hasher: &mut Sha256) {
        for (path, node) in &self.nodes {
            field(hasher, path.as_os_str().as_bytes());
            node.feed(hasher);
        }
        field(hasher, b"end of layer");
    }
}

impl Node {
    fn feed(&self, hasher: &mut Sha256) {
        let (tag, meta, content): (&[u8], _, _) = match self {
            Self::Dir(meta) => (b"dir", Some(meta), &b""[..]),
            Self::File(meta, content) => (b"file", Some(meta), content.as_slice()),
            Self::Copy { meta, from, size } => {
                field(hasher, &size.to_le_bytes());
                (b"copy", Some(meta), from.as_os_str().as_bytes())
            }
            Self::Link(meta, target) => (b"link", Some(meta), target.as_os_str().as_bytes()),
            Self::Whiteout => (b"whiteout", None, &b""[..]),
        };
        field(hasher, tag);
        if let Some(meta) = meta {
            for number in [meta.mode, meta.uid, meta.gid, meta.nanoseconds] {
                hasher.update(number.to_le_bytes());
            }
            hasher.update(meta.seconds.to_le_bytes());
        }
        field(hasher, content);
    }
}

impl Plan {
    /// Feeds everything that the image's content depends on, the host's own directories aside.
    pub(super) fn feed(&self, hasher: &mut Sha256) {
        self.root.feed(hasher);
        for tree in &self.trees {
            field(hasher, tree.at.as_os_str().as_bytes());
            tree.add.feed(hasher);
            tree.mask.feed(hasher);
        }
    }
}

/// Feeds a value with its length, so that no two sequences of values feed the same bytes.
pub(super) fn field(hasher: &mut Sha256, value: &[u8]) {
    hasher.update((value.len() as u64).to_le_bytes());
    hasher.update(value);
}

//! Walks a directory of the host and decides what of it stays hidden.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::plan::{HostTree, Layer, LeftOut, Node};
use super::source::{Host, Kind, Stat};
use super::{Why, credentials};
use crate::image::ImageError;

/// Directories that hold what the machine's owner put there, not what packages bring: shown empty.
const EMPTIED: [&str; 3] = ["usr/etc", "usr/local/etc", "usr/src"];

/// More than any distribution installs; a tree that passes it is not a `/usr`.
const MAX_ENTRIES: u64 = 5_000_000;

/// What `at` of the host shows in a sandbox. `left_out` gains an entry for everything that is hidden. `excluded` is
/// asked about every path whose parents are shown.
pub(super) fn survey(
    host: &Host,
    at: &Path,
    excluded: impl Fn(&Path) -> bool,
    left_out: &mut Vec<LeftOut>,
) -> Result<HostTree, ImageError> {
    let mut tree =
        HostTree { at: at.to_owned(), add: Layer::default(), mask: Layer::default(), links: BTreeMap::new() };
    let Some(top) = host.stat(at)? else { return Ok(tree) };
    let mut entries = 0_u64;
    let mut pending = vec![at.to_owned()];
    while let Some(dir) = pending.pop() {
        for name in host.names(&dir)? {
            entries += 1;
            if entries > MAX_ENTRIES {
                return Err(ImageError::TooLarge {
                    what: "entries",
                    bound: MAX_ENTRIES,
                    path: host.absolute(&dir),
                });
            }
            let path = dir.join(&name);
            let Some(stat) = host.stat(&path)? else { continue };
            if let Some(why) = verdict(&path, &name, &stat, &top, &excluded) {
                let inside = path.strip_prefix(at).unwrap_or(&path).to_owned();
                tree.mask.insert(inside.clone(), Node::Whiteout);
                if stat.kind == Kind::Dir && matches!(why, Why::Owner | Why::Mount) {
                    tree.add.insert(inside, Node::Dir(stat.meta));
                }
                left_out.push(LeftOut { path, why });
            } else if stat.kind == Kind::Dir {
                pending.push(path);
            } else if stat.kind == Kind::Link {
                let target = host.read_link(&path)?;
                tree.links.insert(path, target);
            }
        }
    }
    Ok(tree)
}

/// Why a file is hidden; none if it is shown.
fn verdict(
    path: &Path,
    name: &OsStr,
    stat: &Stat,
    top: &Stat,
    excluded: impl Fn(&Path) -> bool,
) -> Option<Why> {
    if excluded(path) {
        Some(Why::Excluded)
    } else if EMPTIED.iter().any(|emptied| path.as_os_str() == *emptied) {
        Some(Why::Owner)
    } else if stat.mount_point || !stat.same_device(top) {
        // A layer shows what lies *below* a mount, which was covered for a reason.
        Some(Why::Mount)
    } else if stat.kind == Kind::Special {
        Some(Why::Special)
    } else if !stat.public() {
        Some(Why::Private)
    } else if stat.kind != Kind::Dir && credentials::named(name) {
        Some(Why::Credentials)
    } else {
        None
    }
}

impl HostTree {
    /// Gives both layers the directories that lead to their nodes, each with the attributes that the host's has: in an
    /// overlay the topmost layer's attributes are the ones that show.
    pub(super) fn complete(&mut self, host: &Host) -> Result<(), ImageError> {
        for layer in [&mut self.add, &mut self.mask] {
            let parents: Vec<PathBuf> =
                layer.nodes.keys().flat_map(|path| path.ancestors().skip(1)).map(Path::to_owned).collect();
            for parent in parents {
                if layer.get(&parent).is_none()
                    && let Some(stat) = host.stat(&self.at.join(&parent))?
                {
                    layer.insert(parent, Node::Dir(stat.meta));
                }
            }
        }
        Ok(())
    }
}

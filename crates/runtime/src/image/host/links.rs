//! No link in the image dangles that leads somewhere on the host.
//!
//! Links lead out of what is shown: from `/usr/local/bin` into someone's home, from `/etc/alternatives` into `/opt`. A
//! program that finds such a link believes that something is installed, so it is hidden, and then whatever led to it
//! alone.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use super::plan::{HostTree, LeftOut, Node, Plan};
use super::source::{Host, Kind};
use super::{MAX_TEXT, Why, credentials};
use crate::image::ImageError;

/// As many as the kernel follows.
const MAX_LINKS: u32 = 40;

/// Where a link to something left out is replaced by the file that it leads to: a store of certificates is
/// useless without them, and they are public by nature.
const REPLACED: [&str; 3] = ["etc/ssl/certs", "etc/pki", "etc/localtime"];

/// The entries of a sandbox's `/dev`.
const DEVICES: [&str; 12] =
    ["console", "fd", "full", "null", "ptmx", "pts", "random", "shm", "stdin", "tty", "urandom", "zero"];

/// What a path is, as far as following links goes.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    Missing,
    Dir,
    Other,
    Link(PathBuf),
}

/// The host as it is, remembered: links share most of their way.
struct HostView<'a> {
    host: &'a Host,
    seen: HashMap<PathBuf, Seen>,
}

impl HostView<'_> {
    fn look(&mut self, path: &Path) -> Result<Seen, ImageError> {
        if let Some(seen) = self.seen.get(path) {
            return Ok(seen.clone());
        }
        let seen = match self.host.stat(path)?.map(|stat| stat.kind) {
            None => Seen::Missing,
            Some(Kind::Dir) => Seen::Dir,
            Some(Kind::Link) => Seen::Link(self.host.read_link(path)?),
            Some(Kind::File | Kind::Special) => Seen::Other,
        };
        self.seen.insert(path.to_owned(), seen.clone());
        Ok(seen)
    }
}

/// Hides or replaces what would dangle.
pub(super) fn settle(host: &Host, plan: &mut Plan) -> Result<(), ImageError> {
    let mut view = HostView { host, seen: HashMap::new() };
    let in_trees = plan.trees.iter().flat_map(|tree| tree.links.keys().cloned());
    let in_root = plan.root.nodes.iter().filter(|(_, node)| matches!(node, Node::Link(..)));
    let all: Vec<PathBuf> = in_trees.chain(in_root.map(|(path, _)| path.clone())).collect();
    let mut alive = Vec::new();
    for link in all {
        if let Some(end) = resolve(&link, |path| view.look(path))? {
            alive.push((link, end));
        }
    }
    loop {
        let mut dangling = Vec::new();
        let mut kept = Vec::new();
        for (link, end) in alive {
            let inside = resolve(&link, |path| inside(plan, &mut view, path))?;
            if inside.is_some() { kept.push((link, end)) } else { dangling.push((link, end)) }
        }
        if dangling.is_empty() {
            return Ok(());
        }
        for (link, end) in dangling {
            remove(host, plan, link, &end)?;
        }
        alive = kept;
    }
}

/// What `path` is inside, its parents being directories.
fn inside(plan: &Plan, view: &mut HostView<'_>, path: &Path) -> Result<Seen, ImageError> {
    let of_node = |node: &Node| match node {
        Node::Dir(_) => Seen::Dir,
        Node::File(..) | Node::Copy { .. } => Seen::Other,
        Node::Link(_, target) => Seen::Link(target.clone()),
        Node::Whiteout => Seen::Missing,
    };
    if path.starts_with("proc") || path.starts_with("sys") {
        return view.look(path);
    }
    if let Ok(device) = path.strip_prefix("dev")
        && !device.as_os_str().is_empty()
    {
        return Ok(if DEVICES.iter().any(|name| device == Path::new(name)) {
            Seen::Other
        } else {
            Seen::Missing
        });
    }
    for HostTree { at, add, mask, .. } in &plan.trees {
        let Ok(below) = path.strip_prefix(at) else { continue };
        if below.as_os_str().is_empty() {
            return Ok(Seen::Dir);
        }
        if let Some(node) = add.get(below) {
            return Ok(of_node(node));
        }
        if below.ancestors().any(|path| matches!(mask.get(path), Some(Node::Whiteout))) {
            return Ok(Seen::Missing);
        }
        return view.look(path);
    }
    Ok(plan.root.get(path).map_or(Seen::Missing, of_node))
}

fn remove(host: &Host, plan: &mut Plan, link: PathBuf, end: &Path) -> Result<(), ImageError> {
    for tree in &mut plan.trees {
        if let Ok(below) = link.strip_prefix(&tree.at) {
            tree.mask.insert(below, Node::Whiteout);
            tree.links.remove(&link);
            plan.left_out.push(LeftOut { path: link, why: Why::Dangling });
            return Ok(());
        }
    }
    plan.root.remove(&link);
    if REPLACED.iter().any(|path| link.starts_with(path))
        && let Some(stat) = host.stat(end)?
        && stat.kind == Kind::File
        && stat.public()
        && stat.size <= MAX_TEXT
    {
        let content = host.read(end, MAX_TEXT)?;
        if !credentials::held_by(&content) {
            plan.root.insert(link, Node::File(super::plan::Meta { uid: 0, gid: 0, ..stat.meta }, content));
            return Ok(());
        }
    }
    plan.left_out.push(LeftOut { path: link, why: Why::Dangling });
    Ok(())
}

/// Where a path leads, by the kernel's rules; none if nowhere. `look` is asked about one component at a time, only
/// about paths whose parents are directories.
fn resolve(
    path: &Path,
    mut look: impl FnMut(&Path) -> Result<Seen, ImageError>,
) -> Result<Option<PathBuf>, ImageError> {
    let mut rest: VecDeque<OsString> = components(path).into();
    let mut done = PathBuf::new();
    let mut links = 0;
    while let Some(name) = rest.pop_front() {
        if name == ".." {
            done.pop();
            continue;
        }
        let next = done.join(&name);
        match look(&next)? {
            Seen::Missing => return Ok(None),
            Seen::Dir => done = next,
            Seen::Other if rest.is_empty() => return Ok(Some(next)),
            Seen::Other => return Ok(None),
            Seen::Link(target) => {
                links += 1;
                if links > MAX_LINKS {
                    return Ok(None);
                }
                if target.is_absolute() {
                    done = PathBuf::new();
                }
                for name in components(&target).into_iter().rev() {
                    rest.push_front(name);
                }
            }
        }
    }
    Ok(Some(done))
}

fn components(path: &Path) -> Vec<OsString> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some(OsString::from("..")),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect()
}

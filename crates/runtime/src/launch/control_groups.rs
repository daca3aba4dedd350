//! The sandbox's control groups, shown to it read-only: programs that size themselves by what they may use (JVMs, Node,
//! thread pools) look there, at the places that are usual on Linux.

use super::execute::StepResult;
use super::mounts::{attach_to, new_mount};
use super::ops::Attributes;
use super::place::Root;
use crate::sys;
use rustix::fs::{Mode, OFlags};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Replaces `/sys/fs` by a directory with nothing but `cgroup` in it. `v1` are the controllers of each hierarchy of
/// version 1; with none of these `cgroup` is the tree of version 2. What is seen begins at the group that is the root of
/// this process's cgroup namespace.
pub(super) fn show(root: &Root, v1: &[Vec<String>]) -> StepResult {
    let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Some(found) = root.place_if_any(Path::new("/sys/fs"))? else { return Ok(()) };
    let readable = Mode::from_raw_mode(0o555);
    let options = [("size".into(), Some("64k".into())), ("mode".into(), Some("555".into()))];
    let top = new_mount("tmpfs", &options, Attributes::DATA)?;
    attach_to(&top, found.as_fd())?;
    let make = |at: &Path| -> StepResult<OwnedFd> {
        rustix::fs::mkdirat(&top, at, readable)?;
        Ok(rustix::fs::openat(&top, at, directory, Mode::empty())?)
    };
    let root = make(Path::new("cgroup"))?;
    if v1.is_empty() {
        attach_to(&new_mount("cgroup2", &[], Attributes::READ_ONLY)?, root.as_fd())?;
    }
    for controllers in v1 {
        let name = controllers.join(",");
        let at = make(&Path::new("cgroup").join(&name))?;
        let options: Vec<_> = controllers.iter().map(|controller| (controller.clone(), None)).collect();
        attach_to(&new_mount("cgroup", &options, Attributes::READ_ONLY)?, at.as_fd())?;
        // Where several share a hierarchy, each is found by its own name too.
        for controller in controllers.iter().filter(|controller| **controller != name) {
            rustix::fs::symlinkat(&name, &root, controller.as_str())?;
        }
    }
    Ok(sys::mount::set_attributes(&top, Attributes::READ_ONLY.flags(), None)?)
}

//! Mounts that are made, copied and moved by descriptor.

use super::execute::{Reason, StepResult};
use super::ops::Attributes;
use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

pub(super) fn stop_propagation() -> StepResult {
    Ok(rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?)
}

/// A new mount of a new file system, attached nowhere yet.
pub(super) fn new_mount(
    fs: &str,
    options: &[(String, Option<String>)],
    attributes: Attributes,
) -> StepResult<OwnedFd> {
    let context = rustix::mount::fsopen(fs, FsOpenFlags::FSOPEN_CLOEXEC)?;
    configured_mount(&context, options, attributes)
}

/// Sets options, creates the file system and a mount of it. The kernel explains a refusal in the context's log.
fn configured_mount(
    context: &OwnedFd,
    options: &[(String, Option<String>)],
    attributes: Attributes,
) -> StepResult<OwnedFd> {
    let explain = |error: rustix::io::Errno, what: &str| {
        let mut log = [0; 512];
        match rustix::io::read(context, &mut log) {
            Ok(length) if length > 0 => {
                let log = String::from_utf8_lossy(&log[..length]);
                Reason::Words(format!("{}: {} ({what})", io::Error::from(error), log.trim()))
            }
            _ => Reason::Words(format!("{} ({what})", io::Error::from(error))),
        }
    };
    for (name, value) in options {
        match value {
            Some(value) => rustix::mount::fsconfig_set_string(context, name, value),
            None => rustix::mount::fsconfig_set_flag(context, name),
        }
        .map_err(|error| {
            explain(error, &format!("option {name}={}", value.as_deref().unwrap_or_default()))
        })?;
    }
    rustix::mount::fsconfig_create(context).map_err(|error| explain(error, "create"))?;
    let attributes = MountAttrFlags::from_bits_retain(attributes.flags() as u32);
    Ok(rustix::mount::fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// A stack of directories, topmost first, writable if there are directories for that.
pub(super) fn overlay(
    lower: &[PathBuf],
    writable: Option<(&Path, &Path)>,
    options: &[(String, Option<String>)],
    attributes: Attributes,
) -> StepResult<OwnedFd> {
    let text = |path: &Path| Some(path.to_string_lossy().into_owned());
    let lower: Vec<String> = lower.iter().filter_map(|path| text(path)).collect();
    let mut all = vec![
        ("source".to_owned(), Some("sandcrab".to_owned())),
        ("lowerdir".to_owned(), Some(lower.join(":"))),
    ];
    if let Some((upper, work)) = writable {
        all.push(("upperdir".to_owned(), text(upper)));
        all.push(("workdir".to_owned(), text(work)));
    }
    all.extend_from_slice(options);
    new_mount("overlay", &all, attributes)
}

/// A copy of the mount at a path, without what is mounted below it.
pub(super) fn copy_mount(path: &Path) -> StepResult<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    Ok(rustix::mount::open_tree(CWD, path, flags)?)
}

/// A copy of what a descriptor shows, as a mount.
pub(super) fn copy_of(place: impl AsFd) -> StepResult<OwnedFd> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    Ok(rustix::mount::open_tree(place, "", flags)?)
}

/// Attaches a mount at a path that this process trusts.
pub(super) fn move_to(mount: &OwnedFd, directory: BorrowedFd<'_>, path: &Path) -> StepResult {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(rustix::mount::move_mount(mount, "", directory, path, flags)?)
}

/// Attaches a mount to what a descriptor shows.
pub(super) fn attach_to(mount: &OwnedFd, target: BorrowedFd<'_>) -> StepResult {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(mount, "", target, "", flags)?)
}

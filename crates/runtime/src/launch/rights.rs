//! What the sandbox's first process may do: ids, capabilities, limits, and the proof that they are in force.

use super::execute::{Reason, StepResult};
use super::plan::Namespaces;
use crate::sys;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::thread::CapabilitySet;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The text of a map of ids.
pub(super) fn id_map(lines: &[(u32, u32, u32)]) -> String {
    lines.iter().map(|(inside, outside, count)| format!("{inside} {outside} {count}\n")).collect()
}

/// Maps the ids of a process that has just been made.
pub(super) fn map_ids(namespaces: &Namespaces, pid: i32) -> StepResult {
    let proc = PathBuf::from(format!("/proc/{pid}"));
    if namespaces.deny_setgroups {
        std::fs::write(proc.join("setgroups"), "deny")?;
    }
    std::fs::write(proc.join("gid_map"), id_map(&namespaces.gid_map))?;
    std::fs::write(proc.join("uid_map"), id_map(&namespaces.uid_map))?;
    Ok(())
}

/// A user namespace with one line of map, which lives as long as the returned descriptor.
pub(super) fn mapped_namespace(proc: impl AsFd, map: &str) -> StepResult<OwnedFd> {
    let (hold_read, hold_write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    match sys::process::fork_into(libc::CLONE_NEWUSER as u64, libc::SIGCHLD, None)? {
        sys::process::Forked::Child => {
            drop(hold_write);
            let _ = rustix::io::read(&hold_read, &mut [0]);
            sys::process::exit_now(0)
        }
        sys::process::Forked::Parent { pid, pidfd } => {
            drop(hold_read);
            let write = |name: &str| -> StepResult {
                let path = format!("{pid}/{name}");
                let file = rustix::fs::openat(&proc, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
                rustix::io::write(file, map.as_bytes())?;
                Ok(())
            };
            let namespace = write("gid_map").and_then(|()| write("uid_map")).and_then(|()| {
                let path = format!("{pid}/ns/user");
                Ok(rustix::fs::openat(&proc, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
            });
            drop(hold_write);
            let exited = rustix::process::WaitIdOptions::EXITED;
            rustix::process::waitid(rustix::process::WaitId::PidFd(pidfd.as_fd()), exited)?;
            namespace
        }
    }
}

pub(super) fn resource_of(number: u32) -> StepResult<rustix::process::Resource> {
    use rustix::process::Resource;
    match number {
        libc::RLIMIT_CORE => Ok(Resource::Core),
        libc::RLIMIT_NOFILE => Ok(Resource::Nofile),
        libc::RLIMIT_NICE => Ok(Resource::Nice),
        libc::RLIMIT_RTPRIO => Ok(Resource::Rtprio),
        libc::RLIMIT_NPROC => Ok(Resource::Nproc),
        libc::RLIMIT_SIGPENDING => Ok(Resource::Sigpending),
        libc::RLIMIT_MSGQUEUE => Ok(Resource::Msgqueue),
        libc::RLIMIT_MEMLOCK => Ok(Resource::Memlock),
        other => Err(Reason::Words(format!("no resource has the number {other} here"))),
    }
}

/// Leaves the process with the given capabilities: in the bounding set, so that no exec brings others back, and in
/// those that it has now.
pub(super) fn bound_capabilities(keep: u64) -> StepResult {
    for bit in 0..64 {
        let capability = CapabilitySet::from_bits_retain(1 << bit);
        if keep & (1 << bit) != 0 {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // Past the last one that this kernel knows.
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(error.into()),
        }
    }
    let keep = CapabilitySet::from_bits_retain(keep);
    rustix::thread::set_capabilities(
        None,
        rustix::thread::CapabilitySets {
            effective: keep,
            permitted: keep,
            inheritable: CapabilitySet::empty(),
        },
    )?;
    Ok(())
}

/// Opens a file of a procfs by its mount. What else may lie at its path, or over the file, is not reached.
fn open_in_proc(proc: impl AsFd, path: &Path, flags: OFlags) -> StepResult<std::fs::File> {
    let Ok(rest) = path.strip_prefix("/proc") else {
        return Err(Reason::Words(format!("{} is not below /proc", path.display())));
    };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    Ok(rustix::fs::openat2(proc, rest, flags | OFlags::CLOEXEC, Mode::empty(), resolve)?.into())
}

fn read_in_proc(proc: impl AsFd, path: &Path) -> StepResult<String> {
    let mut text = String::new();
    open_in_proc(proc, path, OFlags::RDONLY)?.read_to_string(&mut text)?;
    Ok(text)
}

/// Writes to a file of a procfs and reads back what is in force.
pub(super) fn write_in_proc(proc: impl AsFd, path: &Path, text: &str) -> StepResult {
    std::io::Write::write_all(&mut open_in_proc(&proc, path, OFlags::WRONLY)?, text.as_bytes())?;
    let found = read_in_proc(proc, path)?;
    if found.split_whitespace().eq(text.split_whitespace()) {
        return Ok(());
    }
    Err(Reason::Words(format!("it reads {:?} after {text:?} was written", found.trim())))
}

/// Reads back what this process may do; what is not as it was set is refused.
pub(super) fn confirm(proc: impl AsFd, capabilities: u64) -> StepResult {
    // Process 1 of its own namespace, whose procfs this is.
    let status = format!("/proc/{}/status", rustix::process::getpid().as_raw_nonzero());
    in_force(&read_in_proc(proc, Path::new(&status))?, capabilities).map_err(Reason::Words)
}

/// Compares the text of `/proc/PID/status` with what has to be in force.
fn in_force(status: &str, capabilities: u64) -> Result<(), String> {
    let keep = format!("{capabilities:016x}");
    let none = format!("{:016x}", 0);
    for (field, wanted) in [
        ("NoNewPrivs", "1"),
        ("CapBnd", &keep),
        ("CapPrm", &keep),
        ("CapEff", &keep),
        ("CapInh", &none),
        ("CapAmb", &none),
    ] {
        let value = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(":\t"));
        if value != Some(wanted) {
            return Err(format!("{field} is {} and not {wanted}", value.unwrap_or("not shown")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tx\nCapInh:\t0000000000000000\nCapPrm:\t00000000000000ff\nCapEff:\t00000000000000ff\n\
                          CapBnd:\t00000000000000ff\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t0\n";

    #[test]
    fn a06_what_is_not_in_force_is_refused() {
        in_force(STATUS, 0xff).unwrap();
        for (from, to) in [
            ("NoNewPrivs:\t1", "NoNewPrivs:\t0"),
            ("NoNewPrivs:\t1\n", ""),
            ("CapBnd:\t00000000000000ff", "CapBnd:\t000001ffffffffff"),
            ("CapEff:\t00000000000000ff", "CapEff:\t0000000000000000"),
            ("CapAmb:\t0000000000000000", "CapAmb:\t0000000000000001"),
        ] {
            assert!(STATUS.contains(from));
            in_force(&STATUS.replace(from, to), 0xff).unwrap_err();
        }
        in_force("", 0xff).unwrap_err();
    }

    #[test]
    fn a06_a_file_that_only_looks_like_procfs_is_not_reached() {
        let proc = rustix::fs::open("/proc", OFlags::PATH, Mode::empty()).unwrap();
        // By links, by a mount over it, and outside of it.
        let program = format!("/proc/{}/exe", std::process::id());
        for path in ["/proc/self/status", "/proc/net/dev", "/proc/../etc/passwd", "/etc/passwd", &program] {
            assert!(open_in_proc(&proc, Path::new(path), OFlags::RDONLY).is_err(), "{path}");
        }
        let own = format!("/proc/{}/status", std::process::id());
        assert!(read_in_proc(&proc, Path::new(&own)).unwrap().contains("NoNewPrivs:"));
        // This very process is bound by nothing, and its status says so.
        assert!(matches!(confirm(&proc, 0xff), Err(Reason::Words(_))));
    }
}

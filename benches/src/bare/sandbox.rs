//! The shortest way to a sandbox: all seven namespaces, an overlay, the usual mounts and devices, `pivot_root`, and a
//! bash in it. Nothing of it is a service: no agent, no limits, no filter.
//!
//! It runs in a process of its own (`sandcrab-bench bare-sandbox`), since only a process of one thread may clone like
//! this.

use crate::sys::{self, Side};
use anyhow::{Context as _, Result, bail, ensure};
use rustix::fs::{Mode, OFlags, open};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_change, unmount,
};
use rustix::process::{Pid, WaitOptions, chdir, pivot_root, waitpid};
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{chown, symlink};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The first host id of the sandbox's range.
const FIRST_ID: u32 = 1_900_000_000;
const IDS: u32 = 65_536;
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// What the bash in it does: end at once, or wait for its stdin to close.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Inside {
    True,
    Wait,
}

/// Makes `count` sandboxes one after the other; each time is from nothing to bash's end, reaped.
pub(crate) fn times(dir: &Path, count: usize) -> Result<Vec<Duration>> {
    prepare_layer(dir)?;
    (0..count)
        .map(|number| {
            let begun = Instant::now();
            let own = own_folders(dir, number)?;
            let child = start(dir, &own, Inside::True)?;
            wait(child)?;
            let took = begun.elapsed();
            fs::remove_dir_all(&own).context("remove a sandbox's folders")?;
            Ok(took)
        })
        .collect()
}

/// Makes one whose bash waits, charged to the memory group whose `cgroup.procs` is given, and returns what `measure`
/// says then.
pub(crate) fn held<T>(dir: &Path, procs: &Path, measure: impl FnOnce() -> Result<T>) -> Result<T> {
    prepare_layer(dir)?;
    let own = own_folders(dir, 0)?;
    // Who makes namespaces is charged for them, so this process itself moves into the group.
    let home = procs.parent().and_then(Path::parent).context("a group has a parent")?.join("cgroup.procs");
    fs::write(procs, "0").context("join the memory group")?;
    let (mut ours, stdin) = UnixStream::pair().context("make a pair of sockets")?;
    rustix::stdio::dup2_stdin(&stdin).context("put a socket on stdin")?;
    drop(stdin);
    let child = start(dir, &own, Inside::Wait)?;
    // This process's own pages are not the sandbox's.
    fs::write(home, "0").context("leave the memory group")?;
    ours.read_exact(&mut [0]).context("wait until bash waits")?;
    let measured = measure();
    ours.write_all(b"\n").context("let bash end")?;
    wait(child)?;
    measured
}

/// What all of them share: mount points over which the overlay lies.
fn prepare_layer(dir: &Path) -> Result<()> {
    let layer = dir.join("layer");
    for name in ["usr", "proc", "dev", "tmp", "run", "root"] {
        fs::create_dir_all(layer.join(name)).with_context(|| format!("make {name}"))?;
    }
    for name in ["bin", "lib", "lib64", "sbin"] {
        if !layer.join(name).is_symlink() {
            symlink(format!("usr/{name}"), layer.join(name)).with_context(|| format!("link {name}"))?;
        }
    }
    Ok(())
}

fn own_folders(dir: &Path, number: usize) -> Result<PathBuf> {
    let own = dir.join(number.to_string());
    for name in ["upper", "work", "root"] {
        let path = own.join(name);
        fs::create_dir_all(&path).context("make a sandbox's folders")?;
        chown(&path, Some(FIRST_ID), Some(FIRST_ID)).context("give a sandbox its folders")?;
    }
    Ok(own)
}

fn start(dir: &Path, own: &Path, inside: Inside) -> Result<Pid> {
    let flags = libc::CLONE_NEWUSER
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWCGROUP;
    let (mut mapped, mut map) = std::io::pipe().context("make a pipe")?;
    match sys::clone(flags).context("clone with all namespaces")? {
        Side::Child => {
            drop(map);
            let mut byte = [0];
            let error = match mapped.read_exact(&mut byte) {
                Ok(()) => enter(dir, own, inside),
                Err(error) => Err(error).context("wait for the id mapping"),
            };
            if let Err(error) = error {
                let _ = writeln!(std::io::stderr(), "bare sandbox: {error:#}");
            }
            sys::exit_child(70)
        }
        Side::Parent(child) => {
            let mapping = format!("0 {FIRST_ID} {IDS}");
            let proc = PathBuf::from(format!("/proc/{}", child.as_raw_nonzero()));
            fs::write(proc.join("uid_map"), &mapping).context("map user ids")?;
            fs::write(proc.join("gid_map"), &mapping).context("map group ids")?;
            map.write_all(&[1]).context("tell the child of its ids")?;
            Ok(child)
        }
    }
}

/// The child's way from its fresh namespaces to bash; returns only with an error.
fn enter(dir: &Path, own: &Path, inside: Inside) -> Result<()> {
    rustix::thread::set_thread_res_gid(rustix::fs::Gid::ROOT, rustix::fs::Gid::ROOT, rustix::fs::Gid::ROOT)
        .context("become group 0")?;
    rustix::thread::set_thread_res_uid(rustix::fs::Uid::ROOT, rustix::fs::Uid::ROOT, rustix::fs::Uid::ROOT)
        .context("become user 0")?;
    let root = own.join("root");
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .context("keep mounts private")?;
    let [lower, upper, work] = [dir.join("layer"), own.join("upper"), own.join("work")];
    let options = format!(
        "lowerdir={},upperdir={},workdir={},userxattr\0",
        lower.display(),
        upper.display(),
        work.display()
    );
    let options = std::ffi::CStr::from_bytes_with_nul(options.as_bytes()).context("overlay options")?;
    let safe = MountFlags::NOSUID | MountFlags::NODEV;
    mount("overlay", &root, "overlay", safe, options).context("mount the overlay")?;
    mount_bind("/usr", root.join("usr")).context("bind /usr")?;
    mount("proc", root.join("proc"), "proc", safe | MountFlags::NOEXEC, None).context("mount /proc")?;
    mount("tmpfs", root.join("dev"), "tmpfs", MountFlags::NOSUID, c"mode=755").context("mount /dev")?;
    mount("tmpfs", root.join("run"), "tmpfs", safe, c"mode=755").context("mount /run")?;
    for device in DEVICES {
        let place = root.join("dev").join(device);
        fs::write(&place, "").context("make a device's mount point")?;
        mount_bind(Path::new("/dev").join(device), &place).with_context(|| format!("bind /dev/{device}"))?;
    }
    let root =
        open(&root, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).context("open the new root")?;
    rustix::process::fchdir(&root).context("go to the new root")?;
    pivot_root(".", ".").context("pivot_root")?;
    unmount(".", UnmountFlags::DETACH).context("drop the old root")?;
    chdir("/").context("go to /")?;
    #[expect(clippy::disallowed_methods, reason = "the bare limit ends in a bash")]
    let mut bash = std::process::Command::new("/bin/bash");
    let script = if inside == Inside::True { "true" } else { "echo >&0; read -r _" };
    Err(bash.args(["--norc", "--noprofile", "-c", script]).env_clear().exec()).context("start bash")
}

fn wait(child: Pid) -> Result<()> {
    let Some((_, status)) = waitpid(Some(child), WaitOptions::empty()).context("wait for the sandbox")?
    else {
        bail!("the sandbox has no status");
    };
    ensure!(status.exit_status() == Some(0), "the bare sandbox ended with {status:?}");
    Ok(())
}

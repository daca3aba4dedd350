//! What is mounted inside beside the image, and what of it is hidden.

use super::super::ops::{Attributes, Node, Op};
use super::option;
use sandcrab_api::sandbox::Network;
use std::path::Path;

/// The devices of a sandbox and their numbers (admin-guide/devices.txt).
const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
/// The pseudo-terminals of a sandbox. All sandboxes of a machine have 3,072 together (`kernel.pty.max` less the reserve).
const TERMINALS: u32 = 32;

/// A directory in memory.
struct Folder {
    at: &'static str,
    size: u64,
    inodes: u32,
    mode: u32,
    attributes: Attributes,
}

impl Folder {
    fn bounds(&self) -> Vec<(String, Option<String>)> {
        vec![option("size", &self.size), option("nr_inodes", &self.inodes)]
    }
}

/// /dev, /dev/shm, /run.
fn folders(spec: &crate::SandboxSpec) -> [Folder; 3] {
    // Shared memory counts as the sandbox's memory: half of it, as the kernel's own default is half of the machine's.
    let shm = spec.limits.memory.map_or(256 << 20, |memory| memory.0 / 2);
    let folder = |at, size, inodes, mode, attributes| Folder { at, size, inodes, mode, attributes };
    [
        folder("/dev", 1 << 20, 512, 0o755, Attributes::DEVICES),
        folder("/dev/shm", shm, 65_536, 0o1777, Attributes::PROGRAMS),
        folder("/run", 64 << 20, 65_536, 0o755, Attributes::PROGRAMS),
    ]
}

/// Makes them outside, where device nodes can be made: those of the host would be seen and locked by every sandbox.
pub(super) fn outside(ops: &mut Vec<Op>, spec: &crate::SandboxSpec, first: u32, agent: u32) {
    for folder in folders(spec) {
        let nodes = DEVICES.map(|(name, major, minor)| Node { name: name.into(), major, minor });
        let (uid, mode, nodes) = match folder.at {
            // The people's root makes files here by its group; what is the agent's, the nodes above all, stays.
            "/dev" => (agent, 0o1775, nodes.to_vec()),
            _ => (first, folder.mode, Vec::new()),
        };
        ops.push(Op::Tmpfs {
            name: folder.at.into(),
            options: folder.bounds(),
            uid,
            gid: first,
            mode,
            nodes,
            attributes: folder.attributes,
        });
    }
}

/// The parts of /sys that a sandbox in the host's network is shown. A sysfs of its own shows the network of whoever mounts
/// it, and needs rights over that one; these are the host's. Without root only a directory with no other mount below it
/// can be copied, so that the whole of /sys cannot.
const SYS: [&str; 5] = ["bus", "class", "dev", "devices", "module"];

/// Keeps the host's /sys for a sandbox in its network.
pub(super) fn hold_sys(ops: &mut Vec<Op>, spec: &crate::SandboxSpec) {
    if spec.network == Network::Host {
        for part in SYS {
            ops.push(Op::HoldMount { name: format!("sys/{part}"), source: Path::new("/sys").join(part) });
        }
    }
}

/// /proc, /sys, /dev, /run.
pub(super) fn mounts(ops: &mut Vec<Op>, spec: &crate::SandboxSpec, user: u32) {
    let mount = |ops: &mut Vec<Op>, fs: &str, at: &str, options: Vec<_>, attributes| {
        ops.push(Op::FileSystem { fs: fs.into(), at: at.into(), options, attributes });
    };
    let root = user != 0;
    let tmpfs = |ops: &mut Vec<Op>, folder: &Folder| {
        ops.push(if root {
            Op::Attach { name: folder.at.into(), at: folder.at.into(), attributes: folder.attributes }
        } else {
            let mode = option("mode", &format!("{:o}", folder.mode));
            let options = [folder.bounds(), vec![mode]].concat();
            let attributes = folder.attributes;
            Op::FileSystem { fs: "tmpfs".into(), at: folder.at.into(), options, attributes }
        });
    };
    let [dev, shm, run] = folders(spec);

    mount(ops, "proc", "/proc", vec![], Attributes::DATA);
    if spec.network == Network::Loopback {
        mount(ops, "sysfs", "/sys", vec![], Attributes::READ_ONLY);
    }
    tmpfs(ops, &dev);
    // The tty group's number is 5 everywhere; `user` is the distance between the two namespaces.
    let tty = option("gid", &(5 + user));
    let pts = if user == 0 { vec![] } else { vec![tty] };
    let bounded = vec![option("ptmxmode", "666"), option("mode", "620"), option("max", &TERMINALS)];
    mount(ops, "devpts", "/dev/pts", [bounded, pts].concat(), Attributes::DEVICES);
    tmpfs(ops, &shm);
    tmpfs(ops, &run);
    mount(ops, "mqueue", "/dev/mqueue", vec![], Attributes::DATA);
    if spec.network == Network::Host {
        let bounds = vec![option("size", &"4k"), option("nr_inodes", &16), option("mode", &"555")];
        mount(ops, "tmpfs", "/sys", bounds, Attributes::DATA);
        for part in SYS.into_iter().chain(["fs", "fs/cgroup"]) {
            ops.push(Op::Directory { path: Path::new("/sys").join(part), uid: user, gid: user, mode: 0o555 });
        }
        for part in SYS {
            let (name, at) = (format!("sys/{part}"), Path::new("/sys").join(part));
            ops.push(Op::Attach { name, at, attributes: Attributes::READ_ONLY });
        }
    }
    if !root {
        // Only root can make nodes.
        for (name, ..) in DEVICES {
            let path = Path::new("/dev").join(name);
            ops.push(Op::Device { source: path.clone(), at: path });
        }
    }
    for (at, target) in [
        ("/dev/ptmx", "pts/ptmx"),
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
    ] {
        ops.push(Op::Link { target: target.into(), at: at.into() });
    }
    ops.push(Op::Directory { path: "/run/lock".into(), uid: user, gid: user, mode: 0o1777 });
}

/// What of /proc and /sys is hidden or read-only.
pub(super) fn covers(ops: &mut Vec<Op>) {
    for path in [
        "/proc/acpi",
        "/proc/asound",
        "/proc/cmdline",
        "/proc/config.gz",
        "/proc/diskstats",
        "/proc/interrupts",
        "/proc/kcore",
        "/proc/keys",
        "/proc/key-users",
        "/proc/kmsg",
        "/proc/kpagecgroup",
        "/proc/kpagecount",
        "/proc/kpageflags",
        "/proc/latency_stats",
        "/proc/partitions",
        "/proc/pressure",
        "/proc/sched_debug",
        "/proc/scsi",
        "/proc/softirqs",
        "/proc/sysrq-trigger",
        "/proc/timer_list",
        "/sys/block",
        "/sys/class/bdi",
        "/sys/class/block",
        "/sys/dev/block",
        "/sys/devices/virtual/bdi",
        // Loop devices tell the paths of their files, those of other sandboxes among them.
        "/sys/devices/virtual/block",
        "/sys/devices/virtual/powercap",
        "/sys/firmware",
        "/sys/kernel",
    ] {
        ops.push(Op::Cover { path: path.into() });
    }
    for path in ["/proc/bus", "/proc/fs", "/proc/irq"] {
        ops.push(Op::ReadOnly { path: path.into() });
    }
}

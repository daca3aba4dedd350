//! From what is wanted and what the machine has to a list of steps. Pure: no system call, so that a snapshot test can
//! hold the isolation without root.

mod file_systems;

use super::execute::{EMPTY, NOTHING};
use super::ops::{Attributes, Op};
use crate::disk;
use crate::image::Image;
use crate::image::identity::IdentityFile;
use crate::shares::Share;
use sandcrab_api::launch::{AgentConfig, UserIdentity};
use sandcrab_api::sandbox::Network;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// How many ids the people in a sandbox have: all that 16 bits can name, which is what Unix programs expect.
pub const ID_COUNT: u32 = 65_536;

/// Numbers under which the agent finds its descriptors.
pub(crate) mod fds {
    pub(crate) const CONFIG: i32 = 3;
    pub(crate) const LISTENER: i32 = 4;
    pub(crate) const USER_NAMESPACE: i32 = 5;
    pub(crate) const CGROUP: i32 = 6;
    pub(crate) const MEMORY_CGROUP: i32 = 7;
    pub(crate) const SPOOL: i32 = 8;
    pub(crate) const PTRACE: i32 = 9;
}

/// The name under which the launch stage holds the namespace of the people in the sandbox.
pub(crate) const USER_NAMESPACE: &str = "people";
/// The name under which it holds the directory in which the agent keeps output that does not fit memory: on the
/// sandbox's disk, beside the writable layers, where no path inside leads.
pub(crate) const SPOOL: &str = "spool";
/// The name of the sandbox's own boot id.
const BOOT_ID: &str = "boot-id";

/// Everything that the launch stage does, in order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchPlan {
    /// Steps in the host's namespaces, with the server's rights.
    pub outside: Vec<Op>,
    /// How the new namespaces are made.
    pub namespaces: Namespaces,
    /// Steps of the sandbox's first process.
    pub inside: Vec<Op>,
    /// What is executed last.
    pub argv: Vec<String>,
    /// What the agent is told.
    pub config: AgentConfig,
}

/// The namespaces of a sandbox: user, mount, pid, ipc and uts always, net unless it shares the host's. That of cgroups
/// is made by the first process, from inside of its group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespaces {
    /// A network namespace of its own.
    pub net: bool,
    /// The lines of uid_map and gid_map: (first inside, first outside, count).
    pub uid_map: Vec<(u32, u32, u32)>,
    /// As `uid_map`.
    pub gid_map: Vec<(u32, u32, u32)>,
    /// Whether setgroups(2) must be given up before the kernel lets an unprivileged server map a gid.
    pub deny_setgroups: bool,
    /// Where the first process's id is recorded before it runs.
    pub pid_file: PathBuf,
}

/// Whose ids a sandbox has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ids {
    /// A range of its own: the people's ids begin at `first`; the agent's is outside that range.
    Range {
        /// The host's id of the people's root.
        first: u32,
        /// The host's id of the agent.
        agent: u32,
    },
    /// The server's own id and no other, for agent and people alike.
    Single {
        /// The server's uid.
        uid: u32,
        /// The server's gid.
        gid: u32,
    },
}

/// Where a sandbox's writable layers lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disk {
    /// On an ext4 image of its own, on a loop device that the launch stage hears of when it is attached.
    Device,
    /// In a directory of the host's file system.
    Directory(PathBuf),
}

/// What the driver found and prepared for one launch.
#[derive(Clone, Debug)]
pub struct Setting<'a> {
    /// The image to run.
    pub image: &'a Image,
    /// Files of the sandbox's own, written before its first start; none at a later one.
    pub identity: &'a [IdentityFile],
    /// Whose ids.
    pub ids: Ids,
    /// Where to write.
    pub disk: Disk,
    /// An empty directory of the host for a mount that only the launch stage sees.
    pub scratch: &'a Path,
    /// Where the first process's id is recorded.
    pub pid_file: &'a Path,
    /// `tasks` of each control group of version 1 that the sandbox belongs to.
    pub cgroups: &'a [PathBuf],
    /// Whether the sandbox begins in a cgroup2 directory that is handed to the agent.
    pub delegated_cgroup: bool,
    /// The controllers of the hierarchies that the sandbox sees itself in: see [`Op::ControlGroups`]. None if it has no
    /// control groups.
    pub shown_cgroups: Option<Vec<Vec<String>>>,
    /// Whether a memory cgroup's directory is handed to the agent.
    pub memory_cgroup: bool,
    /// The CPUs to run on, if not all.
    pub cpus: Option<&'a [usize]>,
    /// The bytes by which the kernel measures how much memory the agent has: its limit, else the machine's.
    pub memory: u64,
    /// Whether the server may lower oom scores (CAP_SYS_RESOURCE).
    pub may_lower_oom: bool,
    /// The most open files that the agent may have.
    pub open_files: u64,
    /// The most open files that a process of user code may have.
    pub user_open_files: u64,
    /// How much of what the kernel counts per user it may have.
    pub share: &'a Share,
    /// The filter for user code: an array of `struct sock_filter` in base64, empty for none.
    pub seccomp: &'a str,
    /// Whether the kernel has Landlock.
    pub landlock: bool,
    /// The id of this start, in place of that of the host's boot.
    pub boot_id: &'a str,
    /// The directory and the name of the agent's program.
    pub program: (&'a Path, &'a str),
    /// The agent's command line, without its configuration's descriptor.
    pub agent_argv: &'a [String],
}

/// Capabilities of the agent in the sandbox's namespace: those of a file server and of a parent of all.
const AGENT_CAPABILITIES: &[u32] = &[
    0, // CHOWN: files that it writes belong to the user
    1, // DAC_OVERRIDE: the user's root reads and writes what other users of the sandbox own
    2, // DAC_READ_SEARCH: the same, for reading alone
    3, // FOWNER: chmod and utimes of those
    4, // FSETID: set-gid folders keep their bit
    5, // KILL: every process of the sandbox
    6, // SETGID: become the user
    7, // SETUID: become the user
];

/// Capabilities that user code's root has in its own namespace. All act on ids of that namespace only, which owns no
/// mount, no network and no process of the agent.
const USER_CAPABILITIES: &[u32] = &[
    0,  // CHOWN: package managers
    1,  // DAC_OVERRIDE: root reads all of the sandbox's files
    3,  // FOWNER: chmod as root
    4,  // FSETID: tar, dpkg
    5,  // KILL: root ends other users' processes
    6,  // SETGID: su, apt's own user
    7,  // SETUID: su, apt's own user
    8,  // SETPCAP: daemons drop what they do not need
    10, // NET_BIND_SERVICE: checked by programs before they bind; ports below 1024 are open to all here
    18, // SYS_CHROOT: dpkg --root, debootstrap's tests, sshd
];

/// No core dump. 0 forbids core files only: a program of the host's that `core_pattern` names would still be started, and
/// is not at this one value.
const NO_CORE: u64 = 1;

/// The score with which an agent is killed last when memory is short: as if it had 64 MiB less than it has, which is more
/// than it needs.
///
/// Whatever the agent starts may lower its own score to this, and so hide as much from the kernel when the whole machine's
/// memory is short: that must be little. A fixed score of -900 would hide nine tenths of the machine.
fn oom_score(memory: u64) -> i32 {
    const PROTECTED: u64 = 64 << 20;
    let thousandths = (PROTECTED * 1000).div_ceil(memory.max(1)).min(900);
    -i32::try_from(thousandths).unwrap_or(900)
}

fn rlimit(resource: u32, most: u64) -> Op {
    Op::Rlimit { resource, soft: most, hard: most }
}

/// Bounds on what the kernel counts per user id.
fn counted_per_user(share: &Share) -> [Op; 4] {
    [
        rlimit(libc::RLIMIT_NPROC, share.processes),
        rlimit(libc::RLIMIT_SIGPENDING, share.signals),
        rlimit(libc::RLIMIT_MSGQUEUE, share.queue_bytes),
        rlimit(libc::RLIMIT_MEMLOCK, share.locked_bytes),
    ]
}

fn mask(capabilities: &[u32]) -> u64 {
    capabilities.iter().fold(0, |mask, bit| mask | 1 << bit)
}

fn flag(name: &str) -> (String, Option<String>) {
    (name.into(), None)
}

fn option<T: ToString + ?Sized>(name: &str, value: &T) -> (String, Option<String>) {
    (name.into(), Some(value.to_string()))
}

/// Plans a launch of `sandbox` on what `setting` offers.
pub fn plan(spec: &crate::SandboxSpec, setting: &Setting<'_>) -> LaunchPlan {
    let root = matches!(setting.ids, Ids::Range { .. });
    let mut outside = vec![Op::NewSession];
    outside.extend(setting.cgroups.iter().map(|tasks| Op::JoinCgroup { tasks: tasks.clone() }));
    if setting.may_lower_oom {
        outside.push(Op::OomScore { value: oom_score(setting.memory) });
    }
    if let Some(cpus) = setting.cpus {
        outside.push(Op::Affinity { cpus: cpus.to_vec() });
    }
    outside.push(rlimit(libc::RLIMIT_CORE, NO_CORE));
    // What the server was given of priority over others is not handed on.
    outside.push(rlimit(libc::RLIMIT_NICE, 0));
    outside.push(rlimit(libc::RLIMIT_RTPRIO, 0));
    outside.push(rlimit(libc::RLIMIT_NOFILE, setting.open_files));
    let counted = counted_per_user(setting.share);

    let mut inside = vec![Op::CgroupNamespace];
    match setting.ids {
        Ids::Range { first, agent } => {
            // Before the namespace is made: then they bound what all of its users have together.
            outside.extend(counted);
            outside.push(Op::PrivateMounts);
            outside.push(Op::Scratch { at: setting.scratch.into() });
            scratch_files(&mut outside, setting);
            program(&mut outside, setting);
            outside.push(Op::IdMap { name: "layers".into(), first, count: ID_COUNT });
            layers(&mut outside, setting, first);
            outside.push(spool(agent));
            file_systems::hold_sys(&mut outside, spec);
            file_systems::outside(&mut outside, spec, first, agent);
            outside.push(Op::ChargeTo { uid: agent });
            inside.push(Op::BecomeRoot { clear_groups: true });
            inside.push(Op::StopPropagation);
        }
        Ids::Single { .. } => {
            // After it is made: the namespace has one user, and the bound on that one is the same thing. What all
            // sandboxes of the server have together is bounded by what the server may have.
            inside.extend(counted);
            inside.push(Op::BecomeRoot { clear_groups: false });
            inside.push(Op::StopPropagation);
            inside.push(Op::Scratch { at: setting.scratch.into() });
            scratch_files(&mut inside, setting);
            program(&mut inside, setting);
            layers(&mut inside, setting, 0);
            inside.push(spool(0));
            file_systems::hold_sys(&mut inside, spec);
        }
    }
    // The people's root, as the sandbox's first process sees it.
    let user = u32::from(root);

    for (index, tree) in setting.image.trees.iter().enumerate() {
        inside.push(Op::Attach {
            name: format!("tree{index}"),
            at: tree.at.clone(),
            attributes: Attributes::PROGRAMS,
        });
    }
    file_systems::mounts(&mut inside, spec, user);
    inside.push(Op::PivotRoot);
    file_systems::covers(&mut inside);
    inside.push(match &setting.shown_cgroups {
        Some(v1) => Op::ControlGroups { v1: v1.clone() },
        None => Op::Cover { path: "/sys/fs".into() },
    });
    if !root {
        // The agent's files in /proc belong to the sandbox's root, who is the same person here. What it could read
        // there is refused to all; this is what it could write.
        for name in [
            "autogroup",
            "clear_refs",
            "coredump_filter",
            "oom_adj",
            "oom_score_adj",
            "task",
            "timerslack_ns",
        ] {
            inside.push(Op::Cover { path: format!("/proc/1/{name}").into() });
        }
    }
    if spec.network == Network::Loopback {
        inside.push(Op::LoopbackUp);
        for (name, value) in NETWORK_SETTINGS {
            inside.push(Op::Write { path: Path::new("/proc/sys/net").join(name), text: (*value).into() });
        }
        // A new network's range is empty.
        if spec.isolation.ping() {
            let last = if root { ID_COUNT } else { 0 };
            inside.push(Op::Write {
                path: "/proc/sys/net/ipv4/ping_group_range".into(),
                text: format!("{user} {last}"),
            });
        }
    }
    inside.push(Op::HostName { name: host_name(spec.sandbox.as_str()) });
    inside.push(Op::ProveWritable);
    for (path, mode) in [("/tmp", 0o1777), ("/var/tmp", 0o1777), ("/root", 0o700), ("/workspace", 0o755)] {
        inside.push(Op::Directory { path: path.into(), uid: user, gid: user, mode });
    }
    if root {
        inside.push(Op::UserNamespace { name: USER_NAMESPACE.into(), first: user, count: ID_COUNT });
    }
    // A second layer under the system call filter: the kernel itself refuses further namespaces in this sandbox. The
    // copy of a mount is one, too, so that of /proc/sys is made first.
    inside.push(Op::HoldMount { name: "sysctl".into(), source: "/proc/sys".into() });
    let namespaces = ["user", "mnt", "pid", "ipc", "uts", "net", "cgroup", "time"];
    let namespaces = namespaces.map(|kind| (format!("{kind}_namespaces"), 0));
    // What is written here bounds all users of this namespace and of the people's below it together.
    let counted = [
        ("inotify_instances", setting.share.inotify_instances),
        ("inotify_watches", setting.share.inotify_watches),
        // The system call filter refuses it anyway.
        ("fanotify_groups", 0),
        ("fanotify_marks", 0),
    ];
    let counted = counted.map(|(name, most)| (name.to_owned(), most));
    inside.extend(namespaces.into_iter().chain(counted).map(|(name, most)| Op::UserBound { name, most }));
    inside.push(Op::Attach {
        name: "sysctl".into(),
        at: "/proc/sys".into(),
        attributes: Attributes::READ_ONLY,
    });
    inside.push(Op::Attach {
        name: BOOT_ID.into(),
        at: "/proc/sys/kernel/random/boot_id".into(),
        attributes: Attributes::READ_ONLY,
    });
    if setting.landlock {
        inside.push(Op::Landlock);
    }
    // With one namespace for all, what user code may have can only come from what the agent has.
    let keep = mask(AGENT_CAPABILITIES) | if root { 0 } else { mask(USER_CAPABILITIES) };
    inside.push(Op::BoundCapabilities { keep });
    inside.push(Op::NoNewPrivileges);
    inside.push(Op::Confirm { capabilities: keep, landlock: setting.landlock });
    if spec.isolation.debugging() && !setting.seccomp.is_empty() {
        inside.push(Op::GuardPtrace);
    }

    let (uid_map, gid_map) = match setting.ids {
        Ids::Range { first, agent } => {
            let map = vec![(0, agent, 1), (1, first, ID_COUNT)];
            (map.clone(), map)
        }
        Ids::Single { uid, gid } => (vec![(0, uid, 1)], vec![(0, gid, 1)]),
    };
    let mut argv = setting.agent_argv.to_vec();
    argv.extend(["--config-fd".into(), fds::CONFIG.to_string()]);
    LaunchPlan {
        outside,
        namespaces: Namespaces {
            net: spec.network == Network::Loopback,
            uid_map,
            gid_map,
            deny_setgroups: !root,
            pid_file: setting.pid_file.into(),
        },
        inside,
        argv,
        config: agent_config(spec, setting, root),
    }
}

/// What is shown in place of the host's: held as mounts, whose file system is the scratch's.
fn scratch_files(ops: &mut Vec<Op>, setting: &Setting<'_>) {
    let content = format!("{}\n", setting.boot_id);
    ops.push(Op::File { path: BOOT_ID.into(), uid: 0, gid: 0, mode: 0o444, content });
    for name in [NOTHING, EMPTY, BOOT_ID] {
        ops.push(Op::HoldMount { name: name.into(), source: name.into() });
    }
}

/// Before the disk, which is attached meanwhile: a mount takes the kernel its time.
fn program(ops: &mut Vec<Op>, setting: &Setting<'_>) {
    let (directory, name) = setting.program;
    ops.push(Op::Link { target: directory.into(), at: "program".into() });
    let mut options = vec![option("xino", "off")];
    if matches!(setting.ids, Ids::Single { .. }) {
        options.push(flag("userxattr"));
    }
    ops.push(Op::Program { directory: "program".into(), name: name.into(), options });
}

fn spool(owner: u32) -> Op {
    Op::HoldDirectory { name: SPOOL.into(), path: "disk/spool".into(), uid: owner, gid: owner, mode: 0o700 }
}
/// Settings of the sandbox's own network, below /proc/sys/net. What sockets hold for a reader that does not come is outside
/// the memory limit, and what outlives its process is counted for the whole machine.
const NETWORK_SETTINGS: &[(&str, &str)] = &[
    ("ipv4/ip_unprivileged_port_start", "0"),
    // Loopback is not slower for it: what is bounded is how far a sender runs ahead of its reader.
    ("ipv4/tcp_rmem", "4096 65536 262144"),
    ("ipv4/tcp_wmem", "4096 65536 262144"),
    // Connections that are not accepted yet are charged to no one.
    ("core/somaxconn", "128"),
    ("ipv4/tcp_max_syn_backlog", "128"),
    // Closed sockets whose peer does not read or does not close, and what is kept of connections that ended.
    ("ipv4/tcp_orphan_retries", "1"),
    ("ipv4/tcp_fin_timeout", "10"),
    ("ipv4/tcp_max_tw_buckets", "4096"),
];

/// The overlays of the image: layers in short relative paths, because the kernel takes no option longer than 255 bytes.
fn layers(ops: &mut Vec<Op>, setting: &Setting<'_>, owner: u32) {
    let idmap = match setting.ids {
        Ids::Range { .. } => Some("layers"),
        Ids::Single { .. } => None,
    };
    match &setting.disk {
        Disk::Device => ops.push(Op::Disk { at: "disk".into() }),
        Disk::Directory(dir) => ops.push(Op::Link { target: dir.clone(), at: "disk".into() }),
    }
    let mut options = vec![option("index", "off"), option("metacopy", "off")];
    if idmap.is_some() {
        // Without it, renaming a directory of a lower layer is EXDEV, which npm and pip do not expect.
        options.push(option("redirect_dir", "on"));
    } else {
        options.push(flag("userxattr"));
    }
    if matches!(setting.disk, Disk::Directory(_)) {
        // Or else taking the mount away waits for the whole host's file system to be written out.
        options.push(flag("volatile"));
    }
    let mut count = 0;
    for (index, tree) in setting.image.trees.iter().enumerate() {
        let mut lower = Vec::new();
        for source in &tree.layers {
            let at = PathBuf::from(format!("l{count}"));
            count += 1;
            ops.push(match idmap {
                Some(idmap) => Op::Layer { source: source.clone(), at: at.clone(), idmap: idmap.into() },
                None => Op::Link { target: source.clone(), at: at.clone() },
            });
            lower.push(at);
        }
        let upper = PathBuf::from(format!("disk/upper{index}"));
        let work = PathBuf::from(format!("disk/work{index}"));
        ops.push(Op::Directory { path: upper.clone(), uid: owner, gid: owner, mode: 0o755 });
        ops.push(Op::Directory { path: work.clone(), uid: owner, gid: owner, mode: 0o755 });
        if index == 0 {
            for file in setting.identity {
                let path = file.path.strip_prefix("/").unwrap_or(&file.path);
                ops.push(Op::File {
                    path: upper.join(path),
                    uid: owner,
                    gid: owner,
                    mode: file.mode,
                    content: file.content.clone(),
                });
            }
        }
        let reserve = matches!(setting.disk, Disk::Device).then(|| Path::new("disk").join(disk::RESERVE));
        let (name, options) = (format!("tree{index}"), options.clone());
        ops.push(Op::Overlay { name, lower, upper, work, reserve, options });
    }
}

fn agent_config(spec: &crate::SandboxSpec, setting: &Setting<'_>, root: bool) -> AgentConfig {
    let user = u32::from(root);
    let mut env = setting.image.env.clone();
    for (name, value) in [
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("HOME", "/root"),
        ("USER", "root"),
        ("LOGNAME", "root"),
        ("SHELL", "/bin/bash"),
        ("LANG", "C.UTF-8"),
        ("TERM", "dumb"),
        // What a program prints is in its process's log when it is printed, not at its end.
        ("PYTHONUNBUFFERED", "1"),
    ] {
        env.entry(name.into()).or_insert_with(|| value.into());
    }
    if spec.network == Network::Loopback {
        // Nothing answers there later than at once: without these npm is silent for more than a minute.
        for (name, value) in
            [("npm_config_fetch_retries", "0"), ("PIP_RETRIES", "0"), ("CARGO_NET_RETRY", "0")]
        {
            env.entry(name.into()).or_insert_with(|| value.into());
        }
    }
    env.extend(spec.env.clone());
    AgentConfig {
        sandbox_id: spec.sandbox.clone(),
        listen_fd: fds::LISTENER,
        identity: UserIdentity {
            userns_fd: root.then_some(fds::USER_NAMESPACE),
            uid: 0,
            gid: 0,
            fs_uid: user,
            fs_gid: user,
            can_switch: root,
            capabilities: mask(USER_CAPABILITIES),
            rlimits: vec![
                (libc::RLIMIT_CORE, NO_CORE, NO_CORE),
                (libc::RLIMIT_NOFILE, setting.user_open_files, setting.user_open_files),
            ],
            seccomp: setting.seccomp.to_owned(),
            cgroup_fd: setting.delegated_cgroup.then_some(fds::CGROUP),
        },
        env,
        workspace: "/workspace".into(),
        spool_fd: fds::SPOOL,
        memory_cgroup_fd: setting.memory_cgroup.then_some(fds::MEMORY_CGROUP),
        socket_bound: (spec.network == Network::Loopback).then(|| socket_bound(spec)),
        hindered: Vec::new(),
        // Known when the listener is there.
        ptrace_fd: None,
    }
}

/// How much the queues of a sandbox's sockets may hold together, in bytes: an eighth of its memory, because that is what it
/// has beside its limit; at least what a server of some hundred slow connections holds.
fn socket_bound(spec: &crate::SandboxSpec) -> u64 {
    let memory = spec.limits.memory.map_or(u64::MAX, |memory| memory.0);
    (memory / 8).clamp(32 << 20, 512 << 20)
}

/// A host name made of a sandbox's id: letters, digits, `-` and `.`, at most 63 bytes as HOST_NAME_MAX allows.
pub(crate) fn host_name(sandbox: &str) -> String {
    let mut name: String =
        sandbox.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect();
    name.truncate(63);
    let name = name.trim_matches(['-', '.']);
    if name.is_empty() { "sandbox".into() } else { name.to_owned() }
}

#[cfg(test)]
mod tests;

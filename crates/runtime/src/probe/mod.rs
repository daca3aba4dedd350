//! What a sandbox can see and do, as told from inside.
//!
//! `sandcrab __probe` runs in a sandbox, looks at everything that isolation is made of, and prints a [`Report`]. A test
//! that reads it asserts the isolation itself and not the intention: a mount option that did not take, a capability
//! that came back with an exec, a filter that was never loaded. The same probe runs under every driver.
//!
//! The probe changes nothing that lasts. What it tries, it tries in a child of its own with arguments that cannot
//! succeed at doing harm.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

mod errno;
mod files;
mod identity;
mod mounts;
mod network;
mod procfs;
mod stable;
mod sys;
mod syscalls;

/// The outcome of an attempt: `ok`, the name of an error (`EPERM`), or the signal that ended the attempt (`SIGSYS`).
pub type Outcome = String;

/// Everything that the probe found. Lists are sorted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Who the process is, and what it may do.
    pub identity: Identity,
    /// Open descriptors at the start, number to target. Anything but 0, 1 and 2 is a way to what the sandbox was never
    /// given (A02): a directory of the host, the control socket.
    pub descriptors: BTreeMap<u32, String>,
    /// The environment at the start. Secrets of the server and the host's settings leak here first.
    pub environment: BTreeMap<String, String>,
    /// Namespaces by kind. One that is the machine's own is shared with every other sandbox.
    pub namespaces: BTreeMap<String, Namespace>,
    /// Mounts in the order they were made. Read-write, setuid and device mounts are where escapes start (A03, A08, A12).
    pub mounts: Vec<Mount>,
    /// `/dev`, path to what it is. A disk, `/dev/kmsg`, `/dev/mem` or `/dev/kvm` is the host's (A15).
    pub devices: BTreeMap<String, String>,
    /// Files of /proc and /sys that tell of the host or change it, and those of the first process (A13, A17).
    pub kernel_files: BTreeMap<String, FileAccess>,
    /// Settings below /proc/sys that can be opened for writing. The kernel's are the host's, some of the network's
    /// are the sandbox's own (A13).
    pub writable_sysctls: Vec<String>,
    /// Files of /sys outside of cgroups that the process may write, of the first 20,000 (A13, A14).
    pub writable_sysfs: Vec<String>,
    /// Control groups.
    pub cgroups: Cgroups,
    /// Network.
    pub network: Network,
    /// Processes in sight, process id to command. The host's or a sibling's must not be there (A11, A16).
    pub processes: BTreeMap<u32, String>,
    /// System calls that isolation must refuse, with what came of them (A07-A10, A16, A18, A19, A21). Arguments are
    /// chosen so that a refusal (`EPERM`, `ENOSYS`) comes before any other error.
    pub syscalls: BTreeMap<String, Outcome>,
    /// Socket families and types, with the outcome of making one (A24, D09).
    pub sockets: BTreeMap<String, Outcome>,
    /// The other ways into the kernel of an x86-64 machine, which a filter of 64-bit calls alone would miss (A20).
    pub foreign_calls: BTreeMap<String, Outcome>,
    /// Limits on the process by name: soft and hard; none is `unlimited` (E01, E05).
    pub limits: BTreeMap<String, (Option<u64>, Option<u64>)>,
    /// CPUs that the process may run on. More than its share makes `nproc` lie (E04).
    pub cpus: usize,
    /// The host name. The machine's own would tell tenants apart from outside.
    pub hostname: String,
    /// The NIS domain name.
    pub domainname: String,
    /// The kernel's release. Shared with the host, so what it lets through is a matter of the filter.
    pub kernel: String,
    /// Directories at the root and their like that the process may write to. Each is disk of the sandbox or memory (E02,
    /// E03).
    pub writable: Vec<String>,
    /// Programs on the root's mounts with a set-user-id or set-group-id bit, down to the fifth directory. They must be
    /// harmless: mounted nosuid, `no_new_privs`, or absent (A12).
    pub setuid_files: u64,
    /// Security modules and Landlock.
    pub security: Security,
}

/// What comes of opening a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileAccess {
    /// Of reading it; `empty` if there was nothing to read, as in a masked file or directory.
    pub read: Outcome,
    /// Whether it may be written. Nothing is.
    pub write: Outcome,
}

/// Who the process is, and what it may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Real, effective, saved and file-system user id, as the sandbox sees them.
    pub uids: Vec<u32>,
    /// The same for the group.
    pub gids: Vec<u32>,
    /// Supplementary groups. One left over from the server's start gives that group's files.
    pub groups: Vec<u32>,
    /// User ids: which of the host's they are. A map of the whole range is no map at all.
    pub uid_map: Vec<IdRange>,
    /// Group ids.
    pub gid_map: Vec<IdRange>,
    /// Whether groups may be dropped: `allow` or `deny`. With `deny`, `su` and apt fail.
    pub setgroups: String,
    /// Capability sets by name: inheritable, permitted, effective, bounding, ambient. What is in `bounding` can come back
    /// with an exec (A12); SYS_ADMIN, SYS_MODULE, SYS_RAWIO, SYS_PTRACE of the host would be the end.
    pub capabilities: BTreeMap<String, Vec<String>>,
    /// Whether an exec can gain privileges (A12).
    pub no_new_privs: bool,
    /// `disabled`, `strict` or `filter`. Without a filter the whole kernel is open (A18-A20).
    pub seccomp: String,
    /// How many filters are loaded. Twice the expected number means that somebody's exec added one.
    pub seccomp_filters: u32,
    /// The securebits in force. `keep_caps` would let capabilities survive a change of user.
    pub securebits: Vec<String>,
    /// Whether others with the same ids may trace it and read its memory.
    pub dumpable: bool,
    /// The chance to be killed for memory, -1000 to 1000. Below 0 the host's processes die first (E02).
    pub oom_score_adj: i32,
    /// Nice value. Below 0 takes CPU from neighbours (E04).
    pub nice: i32,
    /// Scheduling policy, `other` unless someone made it real-time (E04).
    pub scheduler: String,
    /// The mask for new files, octal. One that lets others write makes files of a tenant's service open to its guests.
    pub umask: String,
    /// The working directory. One outside of the root is a way out (A02).
    pub cwd: String,
    /// The terminal that controls the process, if any: a target for TIOCSTI (A21).
    pub terminal: Option<String>,
}

/// A line of `/proc/self/uid_map` or `gid_map`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdRange {
    /// First id inside.
    pub inside: u32,
    /// First id in the parent namespace; none once made stable.
    pub outside: Option<u32>,
    /// How many.
    pub count: u32,
}

/// One namespace of the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// Its number; none once made stable.
    pub id: Option<u64>,
    /// Whether it is the one that the machine booted with: none where the kernel gives that no fixed number.
    pub initial: Option<bool>,
}

/// One line of `/proc/self/mountinfo`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Where.
    pub at: String,
    /// File system type.
    pub kind: String,
    /// What of the file system is mounted; other than `/` for a bind mount.
    pub root: String,
    /// Options of the mount: `ro`, `nosuid`, `nodev`, …
    pub flags: Vec<String>,
    /// Options of the file system. Paths among them are the host's and can be read by everyone inside.
    pub options: Vec<String>,
    /// How mounts spread: `shared:N`, `master:N`; empty for private. A shared one lets mounts out.
    pub propagation: Vec<String>,
}

/// Control groups of the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroups {
    /// Hierarchy (controllers, or empty for version 2) to path as seen inside. Other than `/` tells of the host.
    pub paths: BTreeMap<String, String>,
    /// Limits that can be read inside, file to value.
    pub limits: BTreeMap<String, String>,
    /// Control files that the process may write: with them it would raise its own limits (A14).
    pub writable: Vec<String>,
}

/// Network of the process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Interfaces. Any but `lo` is a wire to somewhere.
    pub interfaces: Vec<String>,
    /// Addresses of the sandbox, without the length of the prefix.
    pub addresses: Vec<String>,
    /// Routes as `destination/prefix via gateway dev interface`, loopback's own left out (D02, D03).
    pub routes: Vec<String>,
    /// Unix sockets without a file (A24). One of the host here means that the network namespace is the host's.
    pub abstract_sockets: Vec<String>,
    /// Unix sockets with a file, by path.
    pub path_sockets: Vec<String>,
    /// TCP ports that something listens on, `address:port`.
    pub listeners: Vec<String>,
}

/// Security modules and Landlock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Security {
    /// The active modules, if securityfs is in sight, which it should not be.
    pub modules: Option<String>,
    /// The label of the process, such as AppArmor's profile.
    pub label: Option<String>,
    /// Landlock's version; none if the kernel has none or a filter refuses the question.
    pub landlock: Option<u32>,
    /// The session keyring's number, or the error. Keyrings are not namespaced (A18).
    pub session_keyring: Outcome,
    /// Lines of `/proc/keys`, or the error: the keys of every process with the same ids (A18).
    pub keys: Outcome,
}

/// Looks around. To be called first thing in `main`: what the process itself opened would be reported as given to it.
///
/// Nothing here fails: what cannot be read is part of the report.
pub fn run() -> Report {
    let descriptors = procfs::descriptors();
    let environment = std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
        .collect();
    let mounts = mounts::mounts();
    Report {
        identity: identity::identity(),
        descriptors,
        environment,
        namespaces: identity::namespaces(),
        devices: files::devices(),
        kernel_files: files::kernel_files(),
        writable_sysctls: files::writable_sysctls(),
        writable_sysfs: files::writable_sysfs(),
        cgroups: mounts::cgroups(&mounts),
        network: network::network(),
        processes: procfs::processes(),
        syscalls: syscalls::syscalls(),
        sockets: syscalls::sockets(),
        foreign_calls: syscalls::foreign(),
        limits: identity::limits(),
        cpus: identity::cpus(),
        hostname: procfs::line("/proc/sys/kernel/hostname"),
        domainname: procfs::line("/proc/sys/kernel/domainname"),
        kernel: procfs::line("/proc/sys/kernel/osrelease"),
        writable: files::writable(&mounts),
        setuid_files: files::setuid_files(),
        security: files::security(),
        mounts,
    }
}

//! The steps that a launch is made of. A plan is a list of them: data, which a snapshot test holds and a person reads.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;

/// One step. `name`s refer to what an earlier step made and holds (a mount or a namespace that has no path).
///
/// Paths of steps that run outside are the host's; relative ones are below the scratch directory. Paths of steps that
/// run inside are those of the sandbox's root, except where a field says otherwise.
#[expect(missing_docs, reason = "each variant says what its fields are")]
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
pub enum Op {
    /// setsid(2): a terminal of the server must not send its signals here.
    NewSession,
    /// Enters a control group of version 1 through its `tasks`. Moving one thread waits for nobody; moving a process,
    /// through `cgroup.procs`, waits for every CPU of the machine to pass a quiet point, which takes 10 ms and more.
    JoinCgroup { tasks: PathBuf },
    /// How willing the kernel is to kill this process when memory is short (-1000 to 1000).
    OomScore { value: i32 },
    /// The CPUs to run on.
    Affinity { cpus: Vec<usize> },
    /// Bounds a resource (numbers of resource.h). What is counted per user is bounded by this for all users of a user
    /// namespace that is made afterwards.
    Rlimit { resource: u32, soft: u64, hard: u64 },
    /// A mount namespace whose mounts are seen nowhere else.
    PrivateMounts,
    /// Makes every mount of this namespace private: nothing arrives from the host later.
    StopPropagation,
    /// A small tmpfs to arrange layers on, made the working directory.
    Scratch { at: PathBuf },
    /// A user namespace that shifts ids, for mapping layers.
    IdMap { name: String, first: u32, count: u32 },
    /// Mounts the sandbox's own disk, an ext4 image on a loop device. The server attaches it meanwhile and says which
    /// device it is when that is done; this step waits for it.
    Disk { at: PathBuf },
    /// A read-only view of a host directory, its owners shifted by `idmap`.
    Layer { source: PathBuf, at: PathBuf, idmap: String },
    /// Shows the agent's program, which lies in a directory of the host, through a read-only overlay of its own: what is
    /// executed is no file of the host's, and neither owner nor root of the sandbox can change it. Refused unless it is
    /// the file that the server handed over.
    Program { directory: PathBuf, name: String, options: Vec<(String, Option<String>)> },
    /// A symbolic link.
    Link { target: PathBuf, at: PathBuf },
    /// A directory with owner and mode, and those above it; what exists stays as it is. Inside, where the sandbox's own
    /// files are in the way, it goes without, and its agent says so.
    Directory { path: PathBuf, uid: u32, gid: u32, mode: u32 },
    /// Holds a directory, made with owner and mode if it is missing, which has no path inside.
    HoldDirectory { name: String, path: PathBuf, uid: u32, gid: u32, mode: u32 },
    /// A new file with its owner, mode and content; directories above it are made if missing.
    File { path: PathBuf, uid: u32, gid: u32, mode: u32, content: String },
    /// Stacks layers (topmost first) under a writable one. Held as a mount that is not attached yet. Where the disk has no
    /// room for what the kernel does meanwhile, the directories in `reserve` make place for that long.
    Overlay {
        name: String,
        lower: Vec<PathBuf>,
        upper: PathBuf,
        work: PathBuf,
        reserve: Option<PathBuf>,
        options: Vec<(String, Option<String>)>,
    },
    /// Holds a copy of a mount: of the host's, or, once there is a new root, of one there.
    HoldMount { name: String, source: PathBuf },
    /// A tmpfs made outside, whose owner is set afterwards, so that no mount option tells the host's ids, with device
    /// nodes of its own. Held as a mount that is not attached yet.
    Tmpfs {
        name: String,
        options: Vec<(String, Option<String>)>,
        uid: u32,
        gid: u32,
        mode: u32,
        nodes: Vec<Node>,
        attributes: Attributes,
    },
    /// Charges the namespaces that are made next, and so all that the kernel counts per user in them, to a uid of the
    /// sandbox's own. All capabilities stay.
    ChargeTo { uid: u32 },

    /// A cgroup namespace, whose root is the sandbox's own group.
    CgroupNamespace,
    /// Becomes uid and gid 0 of the new namespace, without supplementary groups where that is allowed.
    BecomeRoot { clear_groups: bool },
    /// Attaches a held mount; the one at `/` becomes the root of what follows.
    Attach { name: String, at: PathBuf, attributes: Attributes },
    /// A new file system.
    FileSystem { fs: String, at: PathBuf, options: Vec<(String, Option<String>)>, attributes: Attributes },
    /// A device of the host, by path there: its node can be used, but not changed.
    Device { source: PathBuf, at: PathBuf },
    /// pivot_root(2); the host's tree is gone after it.
    PivotRoot,
    /// Shows the sandbox's control groups, read-only, below `/sys/fs`, and nothing else there: the controllers of each
    /// hierarchy of version 1, or the tree of version 2 if there are none.
    ControlGroups { v1: Vec<Vec<String>> },
    /// Hides a file or a directory, if it exists.
    Cover { path: PathBuf },
    /// Makes a directory read-only, if it exists.
    ReadOnly { path: PathBuf },
    /// Bounds what all users of this user namespace may have together: `max_NAME` of /proc/sys/user. A kernel that does
    /// not know the name does not count it.
    UserBound { name: String, most: u64 },
    /// Writes to a file of the sandbox's procfs, and reads back what is in force.
    Write { path: PathBuf, text: String },
    /// Brings `lo` up.
    LoopbackUp,
    /// The host name inside.
    HostName { name: String },
    /// Creates and removes a file: an overlay that could not be mounted writable says so only when it is written to.
    ProveWritable,
    /// The namespace of the people in the sandbox, without the agent's id: `first` is their root in this namespace.
    UserNamespace { name: String, first: u32, count: u32 },
    /// No file above the sandbox's root can be opened any more, whatever descriptor leads there; no mounts, no device nodes.
    Landlock,
    /// Gives up every capability that is not in the mask, for good.
    BoundCapabilities { keep: u64 },
    /// No exec gives more rights than the caller has.
    NoNewPrivileges,
    /// Reads back from the kernel that capabilities and `no_new_privs` are in force as they were set, and with `landlock`
    /// that a directory outside cannot be opened.
    Confirm { capabilities: u64, landlock: bool },
    /// Processes ask the agent before they can hold up another's exit (PTRACE_O_TRACEEXIT).
    GuardPtrace,
}

/// A character device that every program may read and write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its name in the folder of devices.
    pub name: String,
    /// The kernel's number of its driver.
    pub major: u32,
    /// The driver's number of it.
    pub minor: u32,
}

/// How a mount may be used (`MOUNT_ATTR_*` of linux/mount.h).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    /// No writes.
    pub read_only: bool,
    /// No programs.
    pub no_exec: bool,
    /// Device nodes work. Everywhere else they do not.
    pub devices: bool,
}

impl Attributes {
    pub(crate) const DATA: Self = Self { read_only: false, no_exec: true, devices: false };
    pub(crate) const READ_ONLY: Self = Self { read_only: true, no_exec: true, devices: false };
    pub(crate) const PROGRAMS: Self = Self { read_only: false, no_exec: false, devices: false };
    pub(crate) const DEVICES: Self = Self { read_only: false, no_exec: true, devices: true };

    /// As the kernel has them.
    pub(crate) fn flags(self) -> u64 {
        let mut flags = libc::MOUNT_ATTR_NOSUID;
        for (set, flag) in [
            (self.read_only, libc::MOUNT_ATTR_RDONLY),
            (self.no_exec, libc::MOUNT_ATTR_NOEXEC),
            (!self.devices, libc::MOUNT_ATTR_NODEV),
        ] {
            if set {
                flags |= flag;
            }
        }
        flags
    }
}

impl fmt::Display for Op {
    /// The step as an error names it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NewSession => write!(f, "start a session"),
            Self::JoinCgroup { tasks } => write!(f, "join cgroup through {}", tasks.display()),
            Self::OomScore { value } => write!(f, "set oom score {value}"),
            Self::Affinity { cpus } => write!(f, "run on cpus {cpus:?}"),
            Self::Rlimit { resource, soft, hard } => write!(f, "limit resource {resource} to {soft}/{hard}"),
            Self::PrivateMounts => write!(f, "make a mount namespace"),
            Self::StopPropagation => write!(f, "make mounts private"),
            Self::Scratch { at } => write!(f, "mount scratch on {}", at.display()),
            Self::IdMap { name, first, count } => write!(f, "make id map {name} ({first}+{count})"),
            Self::Disk { at } => write!(f, "mount the disk on {}", at.display()),
            Self::Layer { source, at, .. } => write!(f, "map layer {} to {}", source.display(), at.display()),
            Self::Program { directory, name, .. } => {
                write!(f, "show program {}", directory.join(name).display())
            }
            Self::Link { target, at } => write!(f, "link {} to {}", at.display(), target.display()),
            Self::Directory { path, .. } => write!(f, "make directory {}", path.display()),
            Self::HoldDirectory { name, path, .. } => {
                write!(f, "hold directory {} as {name}", path.display())
            }
            Self::File { path, .. } => write!(f, "write file {}", path.display()),
            Self::Overlay { name, .. } => write!(f, "mount overlay {name}"),
            Self::Tmpfs { name, .. } => write!(f, "make tmpfs {name}"),
            Self::HoldMount { name, source } => write!(f, "copy mount {} as {name}", source.display()),
            Self::ChargeTo { uid } => write!(f, "charge to uid {uid}"),
            Self::BecomeRoot { .. } => write!(f, "become root inside"),
            Self::Attach { name, at, .. } => write!(f, "attach {name} to {}", at.display()),
            Self::FileSystem { fs, at, .. } => write!(f, "mount {fs} on {}", at.display()),
            Self::Device { at, .. } => write!(f, "bind device {}", at.display()),
            Self::PivotRoot => write!(f, "pivot root"),
            Self::ControlGroups { .. } => write!(f, "show control groups"),
            Self::Cover { path } => write!(f, "cover {}", path.display()),
            Self::ReadOnly { path } => write!(f, "make {} read-only", path.display()),
            Self::UserBound { name, most } => write!(f, "bound {name} to {most}"),
            Self::Write { path, .. } => write!(f, "write {}", path.display()),
            Self::LoopbackUp => write!(f, "bring loopback up"),
            Self::HostName { name } => write!(f, "set host name {name}"),
            Self::ProveWritable => write!(f, "prove that the root is writable"),
            Self::CgroupNamespace => write!(f, "make a cgroup namespace"),
            Self::UserNamespace { name, .. } => write!(f, "make user namespace {name}"),
            Self::Landlock => write!(f, "apply landlock"),
            Self::BoundCapabilities { keep } => write!(f, "keep capabilities {keep:#x}"),
            Self::NoNewPrivileges => write!(f, "set no_new_privs"),
            Self::Confirm { .. } => write!(f, "read back what is in force"),
            Self::GuardPtrace => write!(f, "guard ptrace"),
        }
    }
}

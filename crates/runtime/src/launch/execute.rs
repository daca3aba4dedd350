//! Carries a plan out, step by step. Runs with one thread, in a process that was made for nothing else.

use super::Failure;
use super::ops::{Attributes, Node, Op};
use super::plan::{LaunchPlan, Namespaces, USER_NAMESPACE, fds};
use crate::sys;
use crate::sys::process::ProcessIds;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};
use rustix::process::{Rlimit, Signal};
use rustix::thread::CapabilitySet;
use std::collections::HashMap;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// What a failed step returns: an error of the system, or words.
pub(super) type StepResult<T = ()> = Result<T, Reason>;

#[derive(Debug)]
pub(super) enum Reason {
    System(io::Error),
    Words(String),
}

impl<E: Into<io::Error>> From<E> for Reason {
    fn from(error: E) -> Self {
        Self::System(error.into())
    }
}

/// Descriptors that the server hands over beside the plan.
#[derive(Debug)]
pub(crate) struct Handed {
    /// The agent's program.
    pub(crate) agent: OwnedFd,
    /// Where the agent accepts connections.
    pub(crate) listener: OwnedFd,
    /// The delegated cgroup2 directory.
    pub(crate) cgroup: Option<OwnedFd>,
    /// The memory cgroup's directory.
    pub(crate) memory_cgroup: Option<OwnedFd>,
}

/// The directory of the scratch to which the new root is attached before it becomes the root.
const NEW_ROOT: &str = "root";

/// What steps have made and hold.
struct Executor<'a> {
    /// Mounts and namespaces without a path, by name.
    held: HashMap<String, OwnedFd>,
    /// The new root, until it is the root.
    root: Option<OwnedFd>,
    /// An empty read-only directory to cover others with.
    empty: Option<OwnedFd>,
    /// What came with the plan.
    handed: Handed,
    /// The uid that the namespaces are charged to, if not the server's own.
    charged: Option<u32>,
    /// Waits for the sandbox's disk and says which device it is.
    disk: &'a dyn Fn() -> io::Result<PathBuf>,
}

/// Runs the steps outside, makes the namespaces, and returns in the launch stage the pidfd of the sandbox's first
/// process. In that process it returns only if something failed; otherwise the agent takes its place.
pub(crate) fn execute(
    plan: &LaunchPlan,
    handed: Handed,
    disk: &dyn Fn() -> io::Result<PathBuf>,
    started: impl FnOnce(i32, OwnedFd) -> io::Result<()>,
) -> Result<(), Failure> {
    let mut executor =
        Executor { held: HashMap::new(), root: None, empty: None, handed, charged: None, disk };
    executor.run(&plan.outside)?;
    let (go_read, go_write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|e| failure("make a pipe", e.into()))?;

    // CLONE_PARENT: the server is the parent, so that its exit status reaches the one who wants to know it.
    let mut flags = libc::CLONE_NEWUSER
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_PARENT;
    if plan.namespaces.net {
        flags |= libc::CLONE_NEWNET;
    }
    // With CLONE_PARENT the kernel takes the exit signal from the launch stage and wants none here.
    let forked = sys::process::fork_into(flags as u64, 0, executor.handed.cgroup.as_ref())
        .map_err(|e| failure("make namespaces", e.into()))?;
    match forked {
        sys::process::Forked::Parent { pid, pidfd } => {
            drop(go_read);
            // First of all: the map and the files that the server reads are to be root's.
            let ready = executor
                .act_as_root()
                .and_then(|()| map_ids(&plan.namespaces, pid))
                .and_then(|()| Ok(std::fs::write(&plan.namespaces.pid_file, crate::native::identity(pid)?)?))
                .map_err(|e| failure("map ids and record the first process", e))
                .and_then(|()| {
                    started(pid, pidfd.try_clone().map_err(|e| failure("copy pidfd", e.into()))?)
                        .map_err(|e| failure("report the first process", e.into()))
                })
                .and_then(|()| {
                    rustix::io::write(&go_write, b"g")
                        .map(drop)
                        .map_err(|e| failure("wake the first process", e.into()))
                });
            if ready.is_err() {
                // It waits for a byte that never comes; closing the pipe would end it too, but not at once.
                let _ = rustix::process::pidfd_send_signal(&pidfd, Signal::KILL);
            }
            ready
        }
        sys::process::Forked::Child => {
            drop(go_write);
            let mut byte = [0];
            match rustix::io::read(&go_read, &mut byte) {
                Ok(1) => {}
                // The launch stage failed and has said why.
                _ => sys::process::exit_now(1),
            }
            drop(go_read);
            executor.run(&plan.inside)?;
            Err(executor.exec(plan))
        }
    }
}

fn failure<T: std::fmt::Display + ?Sized>(op: &T, reason: Reason) -> Failure {
    match reason {
        Reason::System(error) => Failure {
            op: op.to_string(),
            errno: error.raw_os_error().unwrap_or_default(),
            reason: error.to_string(),
        },
        Reason::Words(reason) => Failure { op: op.to_string(), errno: 0, reason },
    }
}

fn id_map(lines: &[(u32, u32, u32)]) -> String {
    lines.iter().map(|(inside, outside, count)| format!("{inside} {outside} {count}\n")).collect()
}

fn map_ids(namespaces: &Namespaces, pid: i32) -> StepResult {
    let proc = PathBuf::from(format!("/proc/{pid}"));
    if namespaces.deny_setgroups {
        std::fs::write(proc.join("setgroups"), "deny")?;
    }
    std::fs::write(proc.join("gid_map"), id_map(&namespaces.gid_map))?;
    std::fs::write(proc.join("uid_map"), id_map(&namespaces.uid_map))?;
    Ok(())
}

impl Executor<'_> {
    fn run(&mut self, ops: &[Op]) -> Result<(), Failure> {
        ops.iter().try_for_each(|op| self.step(op).map_err(|reason| failure(op, reason)))
    }

    fn step(&mut self, op: &Op) -> StepResult {
        match op {
            Op::NewSession => {
                rustix::process::setsid()?;
            }
            Op::JoinCgroup { tasks } => std::fs::write(tasks, "0")?,
            Op::OomScore { value } => std::fs::write("/proc/self/oom_score_adj", value.to_string())?,
            Op::Affinity { cpus } => {
                let mut set = rustix::thread::CpuSet::new();
                cpus.iter().for_each(|cpu| set.set(*cpu));
                rustix::thread::sched_setaffinity(None, &set)?;
            }
            Op::Rlimit { resource, soft, hard } => {
                rustix::process::setrlimit(
                    resource_of(*resource)?,
                    Rlimit { current: Some(*soft), maximum: Some(*hard) },
                )?;
            }
            Op::PrivateMounts => {
                sys::process::new_namespace(libc::CLONE_NEWNS)?;
                stop_propagation()?;
            }
            Op::StopPropagation => stop_propagation()?,
            Op::Scratch { at } => {
                let options = [("size".into(), Some("1m".into())), ("mode".into(), Some("755".into()))];
                let mount = new_mount("tmpfs", &options, Attributes::DATA)?;
                move_to(&mount, CWD, at)?;
                rustix::process::chdir(at)?;
                rustix::fs::mkdirat(CWD, NEW_ROOT, Mode::from_raw_mode(0o755))?;
            }
            Op::IdMap { name, first, count } => {
                let map = id_map(&[(0, *first, *count)]);
                let proc = rustix::fs::open("/proc", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
                self.held.insert(name.clone(), mapped_namespace(&proc, &map)?);
            }
            Op::UserNamespace { name, first, count } => {
                let map = id_map(&[(0, *first, *count)]);
                let proc = rustix::fs::open("/proc", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
                self.held.insert(name.clone(), mapped_namespace(&proc, &map)?);
            }
            Op::Disk { at } => {
                let device = (self.disk)()?;
                rustix::fs::mkdirat(CWD, at, Mode::from_raw_mode(0o700))?;
                let source = device.to_string_lossy().into_owned();
                // The inode tables are written when they are needed, not by a kernel thread at once.
                let options = [
                    ("source".into(), Some(source)),
                    ("noinit_itable".into(), None),
                    ("discard".into(), None),
                    // A replaced file is not flushed to the device at once: that halves what a write costs, and a disk
                    // without a journal promises nothing about a loss of power anyway.
                    ("noauto_da_alloc".into(), None),
                    ("errors".into(), Some("remount-ro".into())),
                ];
                move_to(&new_mount("ext4", &options, Attributes::PROGRAMS)?, CWD, at)?;
                // The first write would load the bitmaps of 32 block groups, which are charged to the sandbox: half a
                // megabyte. Kernels before 5.9 have no such switch, and do not load them.
                if let Some(name) = device.file_name() {
                    let switch = Path::new("/sys/fs/ext4").join(name).join("mb_prefetch");
                    missing_is_none(std::fs::write(switch, "1").map_err(Reason::from))?;
                }
            }
            Op::Layer { source, at, idmap } => {
                rustix::fs::mkdirat(CWD, at, Mode::from_raw_mode(0o700))?;
                let mount = copy_mount(source)?;
                let idmap = self.held(idmap)?;
                sys::mount::set_attributes(&mount, libc::MOUNT_ATTR_RDONLY, Some(idmap))?;
                move_to(&mount, CWD, at)?;
            }
            Op::Link { target, at } => match &self.root {
                Some(root) => {
                    let (parent, name) = parent_in(root.as_fd(), at)?;
                    rustix::fs::symlinkat(target, parent, name)?;
                }
                None => symlink(target, at)?,
            },
            Op::Directory { path, uid, gid, mode } => self.directory(path, *uid, *gid, *mode)?,
            Op::OwnDirectory { path, uid, gid, mode } => own_directory(path, *uid, *gid, *mode)?,
            Op::File { path, uid, gid, mode, content } => {
                if let Some(parent) = path.parent() {
                    self.directory(parent, *uid, *gid, 0o755)?;
                }
                let file = std::fs::File::create_new(path)?;
                io::Write::write_all(&mut &file, content.as_bytes())?;
                let owner = (rustix::fs::Uid::from_raw(*uid), rustix::fs::Gid::from_raw(*gid));
                rustix::fs::fchown(&file, Some(owner.0), Some(owner.1))?;
                rustix::fs::fchmod(&file, Mode::from_raw_mode(*mode))?;
            }
            Op::Overlay { name, lower, upper, work, options } => {
                let mount = overlay(lower, upper, work, options)?;
                self.held.insert(name.clone(), mount);
            }
            Op::Tmpfs { name, options, uid, gid, mode, nodes, attributes } => {
                let mount = new_mount("tmpfs", options, *attributes)?;
                nodes.iter().try_for_each(|node| make_node(&mount, node, *uid))?;
                let owner = (rustix::fs::Uid::from_raw(*uid), rustix::fs::Gid::from_raw(*gid));
                rustix::fs::chownat(&mount, "", Some(owner.0), Some(owner.1), AtFlags::EMPTY_PATH)?;
                rustix::fs::chmodat(&mount, ".", Mode::from_raw_mode(*mode), AtFlags::empty())?;
                self.held.insert(name.clone(), mount);
            }
            Op::HoldMount { name, source } => {
                self.held.insert(name.clone(), copy_mount(source)?);
            }
            Op::ChargeTo { uid } => {
                // The kernel charges a user namespace to its maker's effective uid. Without root's it takes the effective
                // capabilities away, but not the permitted ones as long as the saved uid is root's.
                sys::process::set_ids(ProcessIds { real: *uid, effective: *uid, saved: 0 }, true)?;
                let mut sets = rustix::thread::capabilities(None)?;
                sets.effective = sets.permitted;
                rustix::thread::set_capabilities(None, sets)?;
                self.charged = Some(*uid);
            }
            Op::CgroupNamespace => sys::process::new_namespace(libc::CLONE_NEWCGROUP)?,
            Op::BecomeRoot { clear_groups } => {
                sys::process::set_ids(ProcessIds { real: 0, effective: 0, saved: 0 }, *clear_groups)?;
                sys::process::reset_signals();
                // Another uid makes a process undumpable, and its children's maps in /proc root's. Nothing but this
                // process runs in the sandbox yet; the agent hides itself again before anything else does.
                rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::Dumpable)?;
            }
            Op::Attach { name, at, attributes } => {
                let mount = self
                    .held
                    .remove(name)
                    .ok_or_else(|| Reason::Words(format!("no mount is held as {name}")))?;
                sys::mount::set_attributes(&mount, attributes.flags(), None)?;
                if at == Path::new("/") {
                    move_to(&mount, CWD, Path::new(NEW_ROOT))?;
                    self.root = Some(mount);
                } else {
                    self.attach(&mount, at)?;
                }
            }
            Op::FileSystem { fs, at, options, attributes } => {
                let mount = new_mount(fs, options, *attributes)?;
                self.attach(&mount, at)?;
            }
            Op::Device { source, at } => {
                let mount = copy_mount(source)?;
                let (parent, name) = parent_in(self.root()?, at)?;
                let file = rustix::fs::openat(
                    parent,
                    name,
                    OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC,
                    Mode::from_raw_mode(0o666),
                )?;
                // Reading and writing a device needs no writable mount; its owner, mode and times are the host's.
                let flags = libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NOEXEC;
                sys::mount::set_attributes(&mount, flags, None)?;
                attach_to(&mount, file.as_fd())?;
            }
            Op::PivotRoot => {
                rustix::process::fchdir(self.root()?)?;
                rustix::process::pivot_root(".", ".")?;
                // The old root now lies on top of the new one: take it, and all below it, away.
                rustix::mount::unmount(".", UnmountFlags::DETACH)?;
                rustix::process::chdir("/")?;
            }
            Op::Cover { path } => self.cover(path)?,
            Op::ControlGroups { v1 } => super::control_groups::show(v1)?,
            Op::ReadOnly { path } => {
                if let Some(mount) = missing_is_none(copy_mount(path))? {
                    sys::mount::set_attributes(&mount, Attributes::READ_ONLY.flags(), None)?;
                    move_to(&mount, CWD, path)?;
                }
            }
            Op::UserBound { name, most } => {
                // The kernel keeps these in an int.
                let most = i32::try_from(*most).unwrap_or(i32::MAX);
                let file = Path::new("/proc/sys/user").join(format!("max_{name}"));
                missing_is_none(std::fs::write(file, most.to_string()).map_err(Reason::from))?;
            }
            Op::Write { path, text } => std::fs::write(path, text)?,
            Op::LoopbackUp => sys::net::loopback_up()?,
            Op::HostName { name } => rustix::system::sethostname(name.as_bytes())?,
            Op::ProveWritable { path } => {
                // A name that nobody can have put there before.
                let mut name = path.clone().into_os_string();
                name.push(format!("-{:016x}", rand::random::<u64>()));
                drop(std::fs::File::create_new(&name)?);
                std::fs::remove_file(&name)?;
            }
            Op::Landlock => {
                let Handed { agent, cgroup, memory_cgroup, .. } = &self.handed;
                let (groups, memory) =
                    (cgroup.as_ref().map(AsFd::as_fd), memory_cgroup.as_ref().map(AsFd::as_fd));
                super::landlock::restrict(agent.as_fd(), groups, memory).map_err(Reason::Words)?;
            }
            Op::BoundCapabilities { keep } => bound_capabilities(*keep)?,
            Op::NoNewPrivileges => rustix::thread::set_no_new_privs(true)?,
        }
        Ok(())
    }

    /// Ends what [`Op::ChargeTo`] began, but for the real uid: by that the kernel counts descriptors in flight and pipes.
    fn act_as_root(&self) -> StepResult {
        let Some(real) = self.charged else { return Ok(()) };
        Ok(sys::process::set_ids(ProcessIds { real, effective: 0, saved: 0 }, false)?)
    }

    fn held(&self, name: &str) -> StepResult<BorrowedFd<'_>> {
        self.held
            .get(name)
            .map(AsFd::as_fd)
            .ok_or_else(|| Reason::Words(format!("nothing is held as {name}")))
    }

    /// The new root: before the pivot the one that was attached, after it the root of all.
    fn root(&self) -> StepResult<BorrowedFd<'_>> {
        self.root.as_ref().map(AsFd::as_fd).ok_or_else(|| Reason::Words("there is no new root yet".into()))
    }

    /// Attaches a mount to a directory of the new root, made if missing.
    fn attach(&self, mount: &OwnedFd, at: &Path) -> StepResult {
        let root = self.root()?;
        let target = match in_root(root, at) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let (parent, name) = parent_in(root, at)?;
                rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755))?;
                in_root(root, at)
            }
            found => found,
        };
        attach_to(mount, target?.as_fd())
    }

    /// Makes a directory and those above it that are missing. One that exists keeps its owner and mode.
    fn directory(&self, path: &Path, uid: u32, gid: u32, mode: u32) -> StepResult {
        let owner = (Some(rustix::fs::Uid::from_raw(uid)), Some(rustix::fs::Gid::from_raw(gid)));
        let (base, path) = match &self.root {
            Some(root) => (root.as_fd(), path.strip_prefix("/").unwrap_or(path)),
            None => (CWD, path),
        };
        let mut missing: Vec<&Path> = Vec::new();
        for ancestor in path.ancestors().filter(|ancestor| !ancestor.as_os_str().is_empty()) {
            match rustix::fs::statat(base, ancestor, AtFlags::empty()) {
                Ok(_) => break,
                Err(rustix::io::Errno::NOENT) => missing.push(ancestor),
                Err(error) => return Err(error.into()),
            }
        }
        for directory in missing.into_iter().rev() {
            rustix::fs::mkdirat(base, directory, Mode::from_raw_mode(0o700))?;
            rustix::fs::chownat(base, directory, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?;
            let mode = if directory == path { mode } else { 0o755 };
            rustix::fs::chmodat(base, directory, Mode::from_raw_mode(mode), AtFlags::empty())?;
        }
        Ok(())
    }

    fn cover(&mut self, path: &Path) -> StepResult {
        let found = rustix::fs::open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
        let Some(found) = missing_is_none(found.map_err(Reason::from))? else { return Ok(()) };
        let kind = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode);
        let mount = if kind == rustix::fs::FileType::Directory {
            match &self.empty {
                Some(empty) => copy_of(empty)?,
                None => {
                    let options = [("size".into(), Some("4k".into())), ("mode".into(), Some("555".into()))];
                    let mount = new_mount("tmpfs", &options, Attributes::READ_ONLY)?;
                    attach_to(&mount, found.as_fd())?;
                    self.empty = Some(mount);
                    return Ok(());
                }
            }
        } else {
            copy_mount(Path::new("/dev/null"))?
        };
        attach_to(&mount, found.as_fd())
    }

    /// Becomes the agent. Returns why it could not.
    fn exec(mut self, plan: &LaunchPlan) -> Failure {
        let config = match config_file(plan) {
            Ok(config) => config,
            Err(error) => return failure("write the agent's configuration", error.into()),
        };
        let mut table = [
            (fds::CONFIG, Some(config)),
            (fds::LISTENER, Some(self.handed.listener)),
            (fds::USER_NAMESPACE, self.held.remove(USER_NAMESPACE)),
            (fds::CGROUP, self.handed.cgroup),
            (fds::MEMORY_CGROUP, self.handed.memory_cgroup),
        ];
        table.sort_by_key(|(number, _)| *number);
        let argv: Result<Vec<CString>, _> = plan.argv.iter().map(|arg| CString::new(arg.as_str())).collect();
        let argv = match argv {
            Ok(argv) => argv,
            Err(error) => return failure("execute the agent", Reason::Words(error.to_string())),
        };
        let agent = match sys::process::lift(&self.handed.agent) {
            Ok(agent) => agent,
            Err(error) => return failure("keep the agent's program open", error.into()),
        };
        if let Err(error) = sys::process::place_fds(table.into_iter().map(|(_, fd)| fd).collect()) {
            return failure("hand descriptors to the agent", error.into());
        }
        failure("execute the agent", sys::process::exec_fd(&agent, &argv, &[]).into())
    }
}

/// The agent's configuration in memory that nobody can change any more.
fn config_file(plan: &LaunchPlan) -> io::Result<OwnedFd> {
    use rustix::fs::{MemfdFlags, SealFlags, SeekFrom};
    let file = rustix::fs::memfd_create("config", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut writer = std::fs::File::from(file);
    io::Write::write_all(&mut writer, &serde_json::to_vec(&plan.config)?)?;
    rustix::fs::seek(&writer, SeekFrom::Start(0))?;
    rustix::fs::fcntl_add_seals(
        &writer,
        SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
    )?;
    Ok(writer.into())
}

/// A directory that is one's own, whatever the people of the sandbox have put in its place.
fn own_directory(path: &Path, uid: u32, gid: u32, mode: u32) -> StepResult {
    match rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) if rustix::fs::FileType::from_raw_mode(found.st_mode).is_dir() => {}
        Ok(_) => {
            rustix::fs::unlinkat(CWD, path, AtFlags::empty())?;
            rustix::fs::mkdirat(CWD, path, Mode::from_raw_mode(0o700))?;
        }
        Err(rustix::io::Errno::NOENT) => rustix::fs::mkdirat(CWD, path, Mode::from_raw_mode(0o700))?,
        Err(error) => return Err(error.into()),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::open(path, flags, Mode::empty())?;
    let owner = (Some(rustix::fs::Uid::from_raw(uid)), Some(rustix::fs::Gid::from_raw(gid)));
    rustix::fs::fchown(&directory, owner.0, owner.1)?;
    rustix::fs::fchmod(&directory, Mode::from_raw_mode(mode))?;
    Ok(())
}

/// A device node that everybody may read and write and that its owner alone may change or remove.
fn make_node(directory: &OwnedFd, node: &Node, owner: u32) -> StepResult {
    use rustix::fs::{FileType, Gid, Uid, makedev};
    let mode = Mode::from_raw_mode(0o666);
    rustix::fs::mknodat(
        directory,
        &node.name,
        FileType::CharacterDevice,
        mode,
        makedev(node.major, node.minor),
    )?;
    rustix::fs::chmodat(directory, &node.name, mode, AtFlags::empty())?;
    let (uid, gid) = (Some(Uid::from_raw(owner)), Some(Gid::from_raw(owner)));
    Ok(rustix::fs::chownat(directory, &node.name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?)
}

pub(super) fn missing_is_none<T>(result: StepResult<T>) -> StepResult<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Reason::System(error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(reason) => Err(reason),
    }
}

fn stop_propagation() -> StepResult {
    use rustix::mount::MountPropagationFlags;
    Ok(rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?)
}

/// A user namespace with one line of map, which lives as long as the returned descriptor.
fn mapped_namespace(proc: &OwnedFd, map: &str) -> StepResult<OwnedFd> {
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
                let file = rustix::fs::openat(proc, path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
                rustix::io::write(file, map.as_bytes())?;
                Ok(())
            };
            let namespace = write("gid_map").and_then(|()| write("uid_map")).and_then(|()| {
                let path = format!("{pid}/ns/user");
                Ok(rustix::fs::openat(proc, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
            });
            drop(hold_write);
            let exited = rustix::process::WaitIdOptions::EXITED;
            rustix::process::waitid(rustix::process::WaitId::PidFd(pidfd.as_fd()), exited)?;
            namespace
        }
    }
}

fn resource_of(number: u32) -> StepResult<rustix::process::Resource> {
    use rustix::process::Resource;
    match number {
        libc::RLIMIT_CORE => Ok(Resource::Core),
        libc::RLIMIT_NOFILE => Ok(Resource::Nofile),
        libc::RLIMIT_NPROC => Ok(Resource::Nproc),
        libc::RLIMIT_SIGPENDING => Ok(Resource::Sigpending),
        libc::RLIMIT_MSGQUEUE => Ok(Resource::Msgqueue),
        libc::RLIMIT_MEMLOCK => Ok(Resource::Memlock),
        other => Err(Reason::Words(format!("no resource has the number {other} here"))),
    }
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

fn overlay(
    lower: &[PathBuf],
    upper: &Path,
    work: &Path,
    options: &[(String, Option<String>)],
) -> StepResult<OwnedFd> {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let lower: Vec<String> = lower.iter().map(|path| text(path)).collect();
    let mut all = vec![
        ("source".to_owned(), Some("sandcrab".to_owned())),
        ("lowerdir".to_owned(), Some(lower.join(":"))),
        ("upperdir".to_owned(), Some(text(upper))),
        ("workdir".to_owned(), Some(text(work))),
    ];
    all.extend_from_slice(options);
    new_mount("overlay", &all, Attributes::PROGRAMS)
}

/// A copy of the mount at a path, without what is mounted below it.
fn copy_mount(path: &Path) -> StepResult<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    Ok(rustix::mount::open_tree(CWD, path, flags)?)
}

fn copy_of(mount: &OwnedFd) -> StepResult<OwnedFd> {
    let flags =
        OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    Ok(rustix::mount::open_tree(mount, "", flags)?)
}

fn move_to(mount: &OwnedFd, directory: BorrowedFd<'_>, path: &Path) -> StepResult {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(rustix::mount::move_mount(mount, "", directory, path, flags)?)
}

pub(super) fn attach_to(mount: &OwnedFd, target: BorrowedFd<'_>) -> StepResult {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(rustix::mount::move_mount(mount, "", target, "", flags)?)
}

/// Opens a path of the new root as a place. An image that has a link there would lead a mount elsewhere: ELOOP.
fn in_root(root: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let path = if path == Path::new("/") { Path::new(".") } else { path };
    Ok(rustix::fs::openat2(root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)?)
}

/// The directory that holds a path of the new root, and the last name.
fn parent_in(root: BorrowedFd<'_>, path: &Path) -> StepResult<(OwnedFd, PathBuf)> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Reason::Words(format!("{} has no parent", path.display())));
    };
    Ok((in_root(root, parent)?, name.into()))
}

/// Leaves the process with the given capabilities: in the bounding set, so that no exec brings others back, and in
/// those that it has now.
fn bound_capabilities(keep: u64) -> StepResult {
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

//! Carries a plan out, step by step. Runs with one thread, in a process that was made for nothing else.

use super::mounts::{attach_to, copy_mount, copy_of, move_to, new_mount, overlay, stop_propagation};
use super::ops::{Attributes, Node, Op};
use super::place::{Owner, Root, make_directory, open_directory};
use super::plan::{LaunchPlan, SPOOL, USER_NAMESPACE, fds};
use super::{Failure, rights};
use crate::sys::process::ProcessIds;
use crate::{disk, sys};
use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::mount::UnmountFlags;
use rustix::process::{Rlimit, Signal};
use sandcrab_api::launch::AgentConfig;
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
/// An empty directory and an empty file of the scratch, and the names under which mounts of them are held.
pub(super) const NOTHING: &str = "nothing";
pub(super) const EMPTY: &str = "empty";

/// The name under which the listener of the guard of ptrace is held.
const PTRACE: &str = "ptrace";

/// What steps have made and hold.
struct Executor<'a> {
    /// Mounts and namespaces without a path, by name.
    held: HashMap<String, OwnedFd>,
    /// The new root, once it is there.
    root: Option<Root>,
    /// The mount that shows the agent's program.
    program: Option<OwnedFd>,
    /// The sandbox's procfs.
    proc: Option<OwnedFd>,
    /// What the sandbox's own files did not leave room for.
    hindered: Vec<String>,
    /// What covers others, once it has covered one: an empty directory and an empty file.
    covers: HashMap<&'static str, OwnedFd>,
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
    let mut executor = Executor {
        held: HashMap::new(),
        root: None,
        program: None,
        proc: None,
        hindered: Vec::new(),
        covers: HashMap::new(),
        handed,
        charged: None,
        disk,
    };
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
            // First of all: whatever fails then, the server, whose child it is, takes its status.
            let report = |pidfd: &OwnedFd| {
                started(pid, pidfd.try_clone().map_err(|e| failure("copy pidfd", e.into()))?)
                    .map_err(|e| failure("report the first process", e.into()))
            };
            let record = || {
                // The map and the files that the server reads are to be root's.
                executor.act_as_root()?;
                rights::map_ids(&plan.namespaces, pid)?;
                Ok(std::fs::write(&plan.namespaces.pid_file, crate::native::identity(pid)?)?)
            };
            let ready = report(&pidfd)
                .and_then(|()| record().map_err(|e| failure("map ids and record the first process", e)))
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
                    rights::resource_of(*resource)?,
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
                rustix::fs::mkdirat(CWD, NOTHING, Mode::from_raw_mode(0o555))?;
                let new = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                drop(rustix::fs::openat(CWD, EMPTY, new, Mode::from_raw_mode(0o444))?);
            }
            Op::IdMap { name, first, count } => {
                let map = rights::id_map(&[(0, *first, *count)]);
                let proc = rustix::fs::open("/proc", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
                self.held.insert(name.clone(), rights::mapped_namespace(&proc, &map)?);
            }
            Op::UserNamespace { name, first, count } => {
                let map = rights::id_map(&[(0, *first, *count)]);
                let namespace = rights::mapped_namespace(self.proc()?, &map)?;
                self.held.insert(name.clone(), namespace);
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
            Op::Program { directory, name, options } => {
                let (mount, program) = program(&self.handed.agent, directory, name, options)?;
                self.program = Some(mount);
                self.handed.agent = program;
            }
            Op::Link { target, at } => match &self.root {
                Some(root) => {
                    let (parent, name) = root.parent_of(at)?;
                    rustix::fs::symlinkat(target, parent, name)?;
                }
                None => symlink(target, at)?,
            },
            Op::Directory { path, uid, gid, mode } => {
                let owner = Owner { uid: *uid, gid: *gid, mode: *mode };
                match &self.root {
                    None => make_outside(path, owner)?,
                    Some(root) => {
                        if let Some(error) = root.directory(path, owner)? {
                            self.hindered.push(format!("{op}: {}", io::Error::from(error)));
                        }
                    }
                }
            }
            Op::HoldDirectory { name, path, uid, gid, mode } => {
                let owner = Owner { uid: *uid, gid: *gid, mode: *mode };
                let directory = match open_directory(CWD, path) {
                    Err(rustix::io::Errno::NOENT) => make_directory(CWD, path, owner),
                    found => found,
                };
                self.held.insert(name.clone(), directory?);
            }
            Op::File { path, uid, gid, mode, content } => {
                if let Some(parent) = path.parent() {
                    make_outside(parent, Owner { uid: *uid, gid: *gid, mode: 0o755 })?;
                }
                let file = std::fs::File::create_new(path)?;
                io::Write::write_all(&mut &file, content.as_bytes())?;
                let owner = (rustix::fs::Uid::from_raw(*uid), rustix::fs::Gid::from_raw(*gid));
                rustix::fs::fchown(&file, Some(owner.0), Some(owner.1))?;
                rustix::fs::fchmod(&file, Mode::from_raw_mode(*mode))?;
            }
            Op::Overlay { name, lower, upper, work, reserve, options } => {
                let mount = || -> StepResult<OwnedFd> {
                    let mount = overlay(lower, Some((upper, work)), options, Attributes::PROGRAMS)?;
                    // The kernel says nothing where it can only be read.
                    let flags = rustix::fs::fstatvfs(&mount)?.f_flag;
                    if flags.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
                        return Err(io::Error::from(io::ErrorKind::ReadOnlyFilesystem).into());
                    }
                    Ok(mount)
                };
                let mounted = match (mount(), reserve) {
                    (Err(_), Some(reserve)) if reserve.exists() => disk::without_reserve(reserve, mount)?,
                    (mounted, _) => mounted,
                };
                self.held.insert(name.clone(), mounted?);
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
                let mount = match &self.root {
                    None => copy_mount(source)?,
                    Some(root) => copy_of(root.place(source)?)?,
                };
                self.held.insert(name.clone(), mount);
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
                    self.root = Some(Root::new(mount));
                } else {
                    self.attach(&mount, at)?;
                }
            }
            Op::FileSystem { fs, at, options, attributes } => {
                let mount = new_mount(fs, options, *attributes)?;
                self.attach(&mount, at)?;
                if fs == "proc" {
                    self.proc = Some(mount);
                }
            }
            Op::Device { source, at } => {
                let mount = copy_mount(source)?;
                let (parent, name) = self.root()?.parent_of(at)?;
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
                rustix::process::fchdir(self.root()?.as_fd())?;
                rustix::process::pivot_root(".", ".")?;
                // The old root now lies on top of the new one: take it, and all below it, away.
                rustix::mount::unmount(".", UnmountFlags::DETACH)?;
                rustix::process::chdir("/")?;
            }
            Op::Cover { path } => self.cover(path)?,
            Op::ControlGroups { v1 } => super::control_groups::show(self.root()?, v1)?,
            Op::ReadOnly { path } => {
                if let Some(found) = self.root()?.place_if_any(path)? {
                    let mount = copy_of(&found)?;
                    sys::mount::set_attributes(&mount, Attributes::READ_ONLY.flags(), None)?;
                    attach_to(&mount, found.as_fd())?;
                }
            }
            Op::UserBound { name, most } => {
                // The kernel keeps these in an int.
                let most = i32::try_from(*most).unwrap_or(i32::MAX);
                let file = Path::new("/proc/sys/user").join(format!("max_{name}"));
                missing_is_none(rights::write_in_proc(self.proc()?, &file, &most.to_string()))?;
            }
            Op::Write { path, text } => rights::write_in_proc(self.proc()?, path, text)?,
            Op::LoopbackUp => sys::net::loopback_up()?,
            Op::HostName { name } => rustix::system::sethostname(name.as_bytes())?,
            Op::ProveWritable => self.root()?.prove_writable()?,
            Op::Landlock => {
                let root = self.root()?;
                let queues = root.place(Path::new("/dev/mqueue"))?;
                let open = super::landlock::Open {
                    root: root.as_fd(),
                    queues: queues.as_fd(),
                    agent: self.handed.agent.as_fd(),
                    spool: self.held(SPOOL)?,
                    groups: self.handed.cgroup.as_ref().map(AsFd::as_fd),
                    memory: self.handed.memory_cgroup.as_ref().map(AsFd::as_fd),
                };
                super::landlock::restrict(&open).map_err(Reason::Words)?;
            }
            Op::BoundCapabilities { keep } => rights::bound_capabilities(*keep)?,
            Op::NoNewPrivileges => rustix::thread::set_no_new_privs(true)?,
            Op::Confirm { capabilities, landlock } => {
                rights::confirm(self.proc()?, *capabilities)?;
                if let Some(outside) = self.program.as_ref().filter(|_| *landlock) {
                    super::landlock::confirm(outside.as_fd()).map_err(Reason::Words)?;
                }
            }
            Op::GuardPtrace => {
                if let Some(listener) = crate::seccomp::install_guard()? {
                    self.held.insert(PTRACE.into(), listener);
                }
            }
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

    fn root(&self) -> StepResult<&Root> {
        self.root.as_ref().ok_or_else(|| Reason::Words("there is no new root yet".into()))
    }

    fn proc(&self) -> StepResult<BorrowedFd<'_>> {
        let proc = self.proc.as_ref().map(AsFd::as_fd);
        proc.ok_or_else(|| Reason::Words("there is no procfs yet".into()))
    }

    /// Attaches a mount to a directory of the new root, made if missing.
    fn attach(&self, mount: &OwnedFd, at: &Path) -> StepResult {
        let root = self.root()?;
        let target = match root.place(at) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let (parent, name) = root.parent_of(at)?;
                rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755))?;
                root.place(at)
            }
            found => found,
        };
        attach_to(mount, target?.as_fd())
    }

    fn cover(&mut self, path: &Path) -> StepResult {
        let Some(found) = self.root()?.place_if_any(path)? else { return Ok(()) };
        let kind = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode);
        let cover = if kind == rustix::fs::FileType::Directory { NOTHING } else { EMPTY };
        if let Some(mount) = self.covers.get(cover) {
            return attach_to(&copy_of(mount)?, found.as_fd());
        }
        // Older kernels copy a mount only when it is attached.
        let mount =
            self.held.remove(cover).ok_or_else(|| Reason::Words(format!("nothing is held as {cover}")))?;
        sys::mount::set_attributes(&mount, Attributes::READ_ONLY.flags(), None)?;
        attach_to(&mount, found.as_fd())?;
        self.covers.insert(cover, mount);
        Ok(())
    }

    /// Becomes the agent. Returns why it could not.
    fn exec(mut self, plan: &LaunchPlan) -> Failure {
        let ptrace = self.held.remove(PTRACE);
        let config = AgentConfig {
            hindered: std::mem::take(&mut self.hindered),
            ptrace_fd: ptrace.as_ref().map(|_| fds::PTRACE),
            ..plan.config.clone()
        };
        let config = match config_file(&config) {
            Ok(config) => config,
            Err(error) => return failure("write the agent's configuration", error.into()),
        };
        let mut table = [
            (fds::CONFIG, Some(config)),
            (fds::LISTENER, Some(self.handed.listener)),
            (fds::USER_NAMESPACE, self.held.remove(USER_NAMESPACE)),
            (fds::CGROUP, self.handed.cgroup),
            (fds::MEMORY_CGROUP, self.handed.memory_cgroup),
            (fds::SPOOL, self.held.remove(SPOOL)),
            (fds::PTRACE, ptrace),
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
fn config_file(config: &AgentConfig) -> io::Result<OwnedFd> {
    use rustix::fs::{MemfdFlags, SealFlags, SeekFrom};
    let file = rustix::fs::memfd_create("config", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
    let mut writer = std::fs::File::from(file);
    io::Write::write_all(&mut writer, &serde_json::to_vec(config)?)?;
    rustix::fs::seek(&writer, SeekFrom::Start(0))?;
    rustix::fs::fcntl_add_seals(
        &writer,
        SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
    )?;
    Ok(writer.into())
}

/// A mount that shows `directory` and cannot be written to by any means, with the program opened in it.
///
/// Not a bind: that one shares the host's inode, and is writable again where its read-only flag can be cleared.
fn program(
    handed: &OwnedFd,
    directory: &Path,
    name: &str,
    options: &[(String, Option<String>)],
) -> StepResult<(OwnedFd, OwnedFd)> {
    let wanted = rustix::fs::fstat(handed)?;
    let other = || Reason::Words("it is not the file that the server handed over".into());
    let found = rustix::fs::statat(CWD, directory.join(name), AtFlags::SYMLINK_NOFOLLOW)?;
    if (found.st_dev, found.st_ino) != (wanted.st_dev, wanted.st_ino) {
        return Err(other());
    }
    // Without a directory to write to, overlayfs wants two to read from.
    let lower = [directory.to_owned(), NOTHING.into()];
    let attributes = Attributes { read_only: true, ..Attributes::PROGRAMS };
    let mount = overlay(&lower, None, options, attributes)?;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let program = rustix::fs::openat(&mount, name, flags, Mode::empty())?;
    // Looked up once more by the mount: it keeps the number, the device is its own.
    if rustix::fs::fstat(&program)?.st_ino != wanted.st_ino {
        return Err(other());
    }
    Ok((mount, program))
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

/// Makes a directory of the scratch, and those above it that are missing. One that exists stays as it is.
fn make_outside(path: &Path, owner: Owner) -> StepResult {
    let missing: Vec<&Path> = path.ancestors().take_while(|path| !path.exists()).collect();
    for directory in missing.into_iter().rev().filter(|path| !path.as_os_str().is_empty()) {
        let mode = if directory == path { owner.mode } else { 0o755 };
        make_directory(CWD, directory, Owner { mode, ..owner })?;
    }
    Ok(())
}

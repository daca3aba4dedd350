//! Starting a process: `clone3` that shares memory until the exec, and what the child does in between.
//!
//! The child shares the agent's memory (`CLONE_VM`) while the calling thread sleeps (`CLONE_VFORK`), so a start costs
//! the same however large the agent is. Until its exec it may therefore do nothing but system calls on values that
//! were prepared beforehand: no allocation, no lock, no panic.

use super::paths::{self, Unusable};
use super::watchdog::Watchdog;
use rustix::fd::{FromRawFd, OwnedFd, RawFd};
use std::ffi::{c_char, c_int, c_long, c_void};
use std::io;

/// What the child does, in this order. The discriminants travel from the child to [`StepFailed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub(crate) enum Step {
    /// `clone3` itself.
    Clone = 1,
    /// Taking the descriptors that the process is to have.
    Descriptors,
    /// Becoming leader of a session of its own.
    Session,
    /// Setting the process's place in the kernel's choice under memory pressure.
    OomScore,
    /// Setting a resource limit.
    Limits,
    /// Entering the user namespace.
    UserNamespace,
    /// Dropping capabilities from the bounding set.
    Bounding,
    /// Taking the user's uid and gid.
    Ids,
    /// Setting the effective and permitted capabilities.
    Capabilities,
    /// Asking to be killed when the parent ends.
    Leash,
    /// Going to the working directory.
    Directory,
    /// The same: it leads through a magic link.
    DirectoryLink,
    /// The same: it is not below the root, or removed.
    DirectoryOutside,
    /// Installing the system call filter.
    Seccomp,
    /// Executing the program.
    Exec,
    /// The same: the program, or what interprets it, leads through a magic link.
    ExecLink,
}

impl Step {
    /// All of them.
    const ALL: [Self; 16] = [
        Self::Clone,
        Self::Descriptors,
        Self::Session,
        Self::OomScore,
        Self::Limits,
        Self::UserNamespace,
        Self::Bounding,
        Self::Ids,
        Self::Capabilities,
        Self::Leash,
        Self::Directory,
        Self::DirectoryLink,
        Self::DirectoryOutside,
        Self::Seccomp,
        Self::Exec,
        Self::ExecLink,
    ];
}

/// A step of the child's that failed.
#[derive(Debug)]
pub(crate) struct StepFailed {
    /// Which one.
    pub(crate) step: Step,
    /// Why.
    pub(crate) source: io::Error,
}

/// Everything the child needs, as plain values and pointers to memory that outlives the call.
pub(crate) struct Plan<'a> {
    /// The program's path.
    pub(crate) program: &'a std::ffi::CStr,
    /// Null-terminated array of arguments.
    pub(crate) argv: &'a [*const c_char],
    /// Null-terminated array of `NAME=value`.
    pub(crate) envp: &'a [*const c_char],
    /// Working directory.
    pub(crate) cwd: Option<&'a std::ffi::CStr>,
    /// Pairs (descriptor here, number there), at most [`MAX_FDS`].
    pub(crate) fds: &'a [(RawFd, RawFd)],
    /// Ranges of all other numbers, first and last, which are closed before anything is done with the user's rights.
    pub(crate) closed: &'a [(u32, u32)],
    /// How the working directory and the program are found: [`paths::NO_MAGICLINKS`].
    pub(crate) resolve: u64,
    /// The cgroup2 directory to start in.
    pub(crate) cgroup: Option<RawFd>,
    /// The user namespace to enter.
    pub(crate) userns: Option<RawFd>,
    /// uid and gid to take.
    pub(crate) ids: Option<(u32, u32)>,
    /// Capabilities to keep: all others leave the bounding set.
    pub(crate) capabilities: Option<u64>,
    /// (resource, soft, hard).
    pub(crate) rlimits: &'a [(u32, u64, u64)],
    /// Text for /proc/self/oom_score_adj.
    pub(crate) oom_score_adj: Option<&'a [u8]>,
    /// A classic BPF program, as `struct sock_filter`s.
    pub(crate) seccomp: &'a [libc::sock_filter],
    /// Orphans below this process become its children instead of init's.
    pub(crate) subreaper: bool,
    /// The agent's pid, where nothing else ends its children when it is killed: the kernel kills them then. It watches the
    /// thread that starts them, so that must be one that lives as long as the agent.
    pub(crate) leash: Option<i32>,
}

/// The part of the plan that the child writes.
#[repr(C)]
struct Failure {
    step: i32,
    errno: c_int,
}

struct Context<'a> {
    plan: &'a Plan<'a>,
    failure: *mut Failure,
}

const STACK: usize = 64 << 10;
/// How many descriptors a process can be given.
pub(crate) const MAX_FDS: usize = 16;

/// A stack for children to run on before their exec. One child at a time uses it.
pub(crate) struct Stack {
    at: *mut c_void,
    watchdog: Watchdog,
}

// SAFETY: the mapping belongs to this value alone and is only handed to a child while its caller holds `&mut self`.
unsafe impl Send for Stack {}

impl Stack {
    /// Maps a stack with a guard page below it.
    pub(crate) fn new() -> io::Result<Self> {
        let watchdog = Watchdog::new()?;
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches no memory of ours.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                STACK,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK,
                -1,
                0,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the first page lies inside the mapping just made, and nothing uses it yet.
        unsafe { libc::mprotect(at, 4096, libc::PROT_NONE) };
        Ok(Self { at, watchdog })
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new` with this size; no child runs on it, since `start` returns only after the exec.
        unsafe { libc::munmap(self.at, STACK) };
    }
}

const CLONE_PIDFD: u64 = 0x1000;
const CLONE_VM: u64 = 0x100;
const CLONE_VFORK: u64 = 0x4000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Starts a process. Returns its pid and a pidfd once the program runs. Blocks the thread until then, for two seconds
/// if somebody stops the child on its way; that child has been killed.
pub(crate) fn start(stack: &mut Stack, plan: &Plan<'_>) -> Result<(i32, OwnedFd), StepFailed> {
    let mut failure = Failure { step: 0, errno: 0 };
    let mut context = Context { plan, failure: &raw mut failure };
    // SAFETY: clone_args is a plain C struct for which all zeroes is a valid value.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = CLONE_VM | CLONE_VFORK | CLONE_PIDFD;
    args.pidfd = stack.watchdog.arm() as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    args.stack = stack.at as u64;
    args.stack_size = STACK as u64;
    if let Some(fd) = plan.cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = fd as u64;
    }

    // A handler of ours must not run in the child, on memory that we share.
    // SAFETY: the sets are plain C structs, initialised by sigfillset and by the kernel.
    let old = unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        let mut old: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut old);
        old
    };
    // SAFETY: `args` describes a valid stack of our own; the child runs `child_main` on it with a context that lives on
    // this frame, which cannot go away because CLONE_VFORK suspends this thread until the child executes or exits.
    let pid = unsafe { clone3(&args, child_main, (&raw mut context).cast()) };
    let pidfd = stack.watchdog.disarm();
    // SAFETY: `old` is the mask that this thread had.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &old, std::ptr::null_mut()) };

    if pid < 0 {
        return Err(StepFailed { step: Step::Clone, source: io::Error::from_raw_os_error(-pid as i32) });
    }
    // SAFETY: the kernel stored a new descriptor there, which nothing else owns.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    // SAFETY: the child wrote through the pointer, if at all, before this thread went on; the read is volatile because
    // the compiler did not see the write.
    let failure = unsafe { std::ptr::read_volatile(&raw const failure) };
    if failure.step != 0 {
        let _ = rustix::process::waitid(
            rustix::process::WaitId::PidFd(std::os::fd::AsFd::as_fd(&pidfd)),
            rustix::process::WaitIdOptions::EXITED,
        );
        return Err(StepFailed {
            step: step_of(failure.step),
            source: io::Error::from_raw_os_error(failure.errno),
        });
    }
    Ok((pid as i32, pidfd))
}

fn step_of(n: i32) -> Step {
    Step::ALL.into_iter().find(|step| *step as i32 == n).unwrap_or(Step::Exec)
}

/// `clone3` whose child calls `entry(context)` on the stack in `args`. Returns the pid or a negative errno.
///
/// # Safety
/// `args` must name a stack that nothing else uses, and `entry` must never return.
#[cfg(target_arch = "x86_64")]
unsafe fn clone3(
    args: &libc::clone_args,
    entry: unsafe extern "C" fn(*mut c_void) -> !,
    context: *mut c_void,
) -> isize {
    let ret: isize;
    // SAFETY: see the function's contract. The kernel preserves all registers but rax, rcx and r11, so the child finds
    // `entry` and `context`; its stack pointer is the aligned top of the stack in `args`.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, {context}",
            "call {entry}",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 as isize => ret,
            in("rdi") args,
            in("rsi") size_of::<libc::clone_args>(),
            context = in(reg) context,
            entry = in(reg) entry,
            out("rcx") _,
            out("r11") _,
        );
    }
    ret
}

/// As for x86_64.
///
/// # Safety
/// `args` must name a stack that nothing else uses, and `entry` must never return.
#[cfg(target_arch = "aarch64")]
unsafe fn clone3(
    args: &libc::clone_args,
    entry: unsafe extern "C" fn(*mut c_void) -> !,
    context: *mut c_void,
) -> isize {
    let ret: isize;
    // SAFETY: see the function's contract. The kernel preserves all registers but x0.
    unsafe {
        std::arch::asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, {context}",
            "blr {entry}",
            "brk #1",
            "2:",
            in("x8") libc::SYS_clone3,
            inlateout("x0") args as *const _ as isize => ret,
            in("x1") size_of::<libc::clone_args>(),
            context = in(reg) context,
            entry = in(reg) entry,
        );
    }
    ret
}

/// The child: everything between clone and exec. Never returns.
///
/// # Safety
/// `context` points to a [`Context`] whose plan stays valid until the exec.
unsafe extern "C" fn child_main(context: *mut c_void) -> ! {
    // SAFETY: the caller passes a valid context, and its thread is suspended while we use it.
    let context = unsafe { &*context.cast::<Context<'_>>() };
    // SAFETY: only system calls on the plan's values, as the module promises.
    let (step, errno) = unsafe { prepare_and_exec(context.plan) };
    // SAFETY: `failure` lives on the suspended caller's frame.
    unsafe { std::ptr::write_volatile(context.failure, Failure { step: step as i32, errno }) };
    loop {
        // SAFETY: ends this process without running anything of the agent's.
        unsafe { libc::syscall(libc::SYS_exit_group, 127 as c_long) };
    }
}

/// Makes a system call; on failure leaves the enclosing function with the step and errno.
macro_rules! try_sys {
    ($step:expr, $($args:expr),+) => {{
        let r = libc::syscall($($args as c_long),+);
        if r < 0 {
            return ($step, *libc::__errno_location());
        }
        r
    }};
}

const PR_SET_PDEATHSIG: c_long = 1;
const PR_SET_NO_NEW_PRIVS: c_long = 38;
const PR_CAPBSET_DROP: c_long = 24;
const PR_CAP_AMBIENT: c_long = 47;
const PR_CAP_AMBIENT_CLEAR_ALL: c_long = 4;
const PR_SET_CHILD_SUBREAPER: c_long = 36;
const SECCOMP_SET_MODE_FILTER: c_long = 1;

#[repr(C)]
struct CapHeader {
    version: u32,
    pid: c_int,
}
#[repr(C)]
struct CapData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Runs the steps; returns only the failed one.
///
/// # Safety
/// Runs in a child that shares the agent's memory: nothing but system calls on the plan's values.
unsafe fn prepare_and_exec(plan: &Plan<'_>) -> (Step, c_int) {
    // SAFETY: each call reads or writes only the plan's values and locals of this frame.
    unsafe {
        // Ignored signals stay ignored over an exec, and the agent ignores SIGPIPE.
        let default = [0u64; 4];
        for signal in 1..=64 {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal as c_long,
                default.as_ptr(),
                0 as c_long,
                8 as c_long,
            );
        }
        // First above every wanted number, so that no move hits a source that is still needed.
        let mut floor = 3;
        for &(_, to) in plan.fds {
            floor = if to >= floor { to + 1 } else { floor };
        }
        let mut copies = [-1 as RawFd; MAX_FDS];
        for (&(from, _), copy) in plan.fds.iter().zip(&mut copies) {
            *copy = try_sys!(Step::Descriptors, libc::SYS_fcntl, from, libc::F_DUPFD_CLOEXEC, floor) as RawFd;
        }
        for (&(_, to), &copy) in plan.fds.iter().zip(&copies) {
            try_sys!(Step::Descriptors, libc::SYS_dup3, copy, to, 0);
        }
        try_sys!(Step::Session, libc::SYS_setsid);
        if plan.subreaper {
            try_sys!(Step::Session, libc::SYS_prctl, PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
        }
        libc::syscall(libc::SYS_umask, 0o022 as c_long);
        if let Some(score) = plan.oom_score_adj {
            let fd = try_sys!(
                Step::OomScore,
                libc::SYS_openat,
                libc::AT_FDCWD,
                c"/proc/self/oom_score_adj".as_ptr(),
                libc::O_WRONLY | libc::O_CLOEXEC,
                0
            );
            try_sys!(Step::OomScore, libc::SYS_write, fd, score.as_ptr(), score.len());
        }
        for &(resource, soft, hard) in plan.rlimits {
            let limit = [soft, hard];
            try_sys!(Step::Limits, libc::SYS_prlimit64, 0, resource, limit.as_ptr(), 0);
        }
        if let Some(fd) = plan.userns {
            try_sys!(Step::UserNamespace, libc::SYS_setns, fd, libc::CLONE_NEWUSER);
        }
        // Closed, not left to the exec: `/proc/self/fd` would still name them when the user's paths are followed.
        for &(first, last) in plan.closed {
            try_sys!(Step::Descriptors, libc::SYS_close_range, first, last, 0);
        }
        if let Some(keep) = plan.capabilities {
            for cap in 0..64u32 {
                if keep & (1 << cap) == 0
                    && libc::syscall(libc::SYS_prctl, PR_CAPBSET_DROP, c_long::from(cap), 0, 0, 0) < 0
                    && *libc::__errno_location() != libc::EINVAL
                {
                    return (Step::Bounding, *libc::__errno_location());
                }
            }
        }
        if let Some((uid, gid)) = plan.ids {
            try_sys!(Step::Ids, libc::SYS_setgroups, 0, 0);
            try_sys!(Step::Ids, libc::SYS_setresgid, gid, gid, gid);
            try_sys!(Step::Ids, libc::SYS_setresuid, uid, uid, uid);
        }
        if let Some(keep) = plan.capabilities {
            libc::syscall(libc::SYS_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
            let root = plan.ids.is_none_or(|(uid, _)| uid == 0);
            let keep = if root { keep } else { 0 };
            let header = CapHeader { version: 0x2008_0522, pid: 0 };
            let mut now = [
                CapData { effective: 0, permitted: 0, inheritable: 0 },
                CapData { effective: 0, permitted: 0, inheritable: 0 },
            ];
            try_sys!(Step::Capabilities, libc::SYS_capget, &raw const header, now.as_mut_ptr());
            now[0].permitted &= keep as u32;
            now[1].permitted &= (keep >> 32) as u32;
            for half in &mut now {
                half.effective = half.permitted;
                half.inheritable = 0;
            }
            try_sys!(Step::Capabilities, libc::SYS_capset, &raw const header, now.as_ptr());
        }
        // Behind the change of ids and capabilities, which takes it back (prctl(2)).
        if let Some(agent) = plan.leash {
            try_sys!(Step::Leash, libc::SYS_prctl, PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
            if libc::syscall(libc::SYS_getppid) != c_long::from(agent) {
                // It was killed before the kernel knew; a vfork's parent sleeps, but not deeper than SIGKILL.
                return (Step::Leash, libc::ESRCH);
            }
        }
        if let Some(cwd) = plan.cwd {
            match paths::enter(cwd.as_ptr(), plan.resolve) {
                Ok(()) => {}
                Err(Unusable::Errno(errno)) => return (Step::Directory, errno),
                Err(Unusable::MagicLink) => return (Step::DirectoryLink, libc::ELOOP),
                Err(Unusable::Outside) => return (Step::DirectoryOutside, libc::ENOENT),
            }
        }
        match paths::check_program(plan.program.as_ptr(), plan.resolve) {
            Ok(()) => {}
            Err(Unusable::Errno(errno)) => return (Step::Exec, errno),
            Err(_) => return (Step::ExecLink, libc::ELOOP),
        }
        let none = 0u64;
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK as c_long,
            &raw const none,
            0 as c_long,
            8 as c_long,
        );
        if !plan.seccomp.is_empty() {
            let program =
                libc::sock_fprog { len: plan.seccomp.len() as u16, filter: plan.seccomp.as_ptr().cast_mut() };
            try_sys!(Step::Seccomp, libc::SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            try_sys!(Step::Seccomp, libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &raw const program);
        }
        try_sys!(Step::Exec, libc::SYS_execve, plan.program.as_ptr(), plan.argv.as_ptr(), plan.envp.as_ptr());
        (Step::Exec, 0)
    }
}

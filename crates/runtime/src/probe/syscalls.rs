//! Tries what isolation must refuse.
//!
//! Arguments are chosen so that the call fails harmlessly where it is *not* refused, and so that the check of privileges
//! comes before the failure: `EPERM` or `ENOSYS` means refused, any other result means that the kernel went on.

use std::collections::BTreeMap;
use std::ffi::CString;

use libc::{c_int, c_long};

use super::{Outcome, sys};

/// An argument that is out of every range, as a number, flag, descriptor or address.
const BAD: usize = usize::MAX;

/// All attempts, by name.
pub(super) fn syscalls() -> BTreeMap<String, Outcome> {
    let mut outcomes = BTreeMap::new();
    for (name, number, arguments) in calls(&Memory::new()) {
        outcomes.insert(name.to_owned(), sys::attempt(|| sys::call(number, arguments)));
    }
    for (name, flags) in NAMESPACES {
        outcomes.insert(format!("unshare {name}"), sys::attempt(|| unshare(flags)));
        outcomes.insert(format!("clone {name}"), sys::attempt(|| sys::clone_with(flags)));
    }
    outcomes
}

const NAMESPACES: [(&str, c_int); 8] = [
    ("cgroup", libc::CLONE_NEWCGROUP),
    ("ipc", libc::CLONE_NEWIPC),
    ("mnt", libc::CLONE_NEWNS),
    ("net", libc::CLONE_NEWNET),
    ("pid", libc::CLONE_NEWPID),
    ("user", libc::CLONE_NEWUSER),
    ("user and mnt", libc::CLONE_NEWUSER | libc::CLONE_NEWNS),
    ("uts", libc::CLONE_NEWUTS),
];

fn unshare(flags: c_int) -> c_int {
    sys::call(libc::SYS_unshare, [flags.cast_unsigned() as usize, 0, 0, 0, 0, 0])
}

/// What arguments point to. Made before the fork and held through it.
struct Memory {
    /// Zeros, as large as any structure below.
    zeros: [u64; 64],
    /// `struct file_handle` of eight bytes and type 1.
    handle: [u32; 4],
    /// `struct iovec`: one byte of `zeros`.
    local: libc::iovec,
    /// `struct iovec`: one byte at an address where nothing is.
    remote: libc::iovec,
    /// `struct sched_param` with priority 1.
    priority: [c_int; 4],
    /// `struct timex` that asks for an impossible tick.
    timex: libc::timex,
    /// Paths where a block and a character device may be made; removed at the end.
    devices: [CString; 2],
}

impl Memory {
    fn new() -> Box<Self> {
        let path =
            |kind| CString::new(format!("/tmp/.probe-{kind}-{}", std::process::id())).unwrap_or_default();
        let mut memory = Box::new(Self {
            zeros: [0; 64],
            handle: [8, 1, 0, 0],
            local: libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 1 },
            remote: libc::iovec { iov_base: std::ptr::without_provenance_mut(4096), iov_len: 1 },
            priority: [1, 0, 0, 0],
            timex: sys::zeroed_timex(),
            devices: [path("block"), path("char")],
        });
        memory.local.iov_base = (&raw mut memory.zeros).cast();
        memory.timex.modes = libc::ADJ_TICK;
        memory
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        for device in &self.devices {
            // It exists only where making devices is allowed.
            let _ = rustix::fs::unlink(device.as_c_str());
        }
    }
}

fn address<T: ?Sized>(of: &T) -> usize {
    std::ptr::from_ref(of).cast::<()>().addr()
}

fn text(text: &'static std::ffi::CStr) -> usize {
    text.as_ptr().addr()
}

/// Name, number, arguments.
fn calls(memory: &Memory) -> Vec<(&'static str, c_long, [usize; 6])> {
    const HERE: usize = libc::AT_FDCWD as usize;
    const INIT: usize = 1;
    let zeros = address(&memory.zeros);
    let (root, tmpfs, none) = (text(c"/"), text(c"tmpfs"), text(c""));
    let me = std::process::id() as usize;
    let [block_path, char_path] = memory.devices.each_ref().map(|path| path.as_ptr().addr());
    let propagation = (libc::MS_SHARED | libc::MS_PRIVATE) as usize;
    let block = libc::S_IFBLK as usize | 0o600;
    let character = libc::S_IFCHR as usize | 0o600;
    let mut calls = vec![
        // Accounting, time, names, restart, swap: the machine's.
        ("acct", libc::SYS_acct, [BAD, 0, 0, 0, 0, 0]),
        ("adjtimex", libc::SYS_adjtimex, [address(&memory.timex), 0, 0, 0, 0, 0]),
        ("reboot", libc::SYS_reboot, [0, 0, 0, 0, 0, 0]),
        ("setdomainname", libc::SYS_setdomainname, [0, BAD, 0, 0, 0, 0]),
        ("sethostname", libc::SYS_sethostname, [0, BAD, 0, 0, 0, 0]),
        ("swapoff", libc::SYS_swapoff, [BAD, 0, 0, 0, 0, 0]),
        ("swapon", libc::SYS_swapon, [BAD, 0, 0, 0, 0, 0]),
        ("syslog", libc::SYS_syslog, [3, 0, 0, 0, 0, 0]),
        // Code in the kernel.
        ("bpf", libc::SYS_bpf, [0, zeros, 128, 0, 0, 0]),
        ("delete_module", libc::SYS_delete_module, [BAD, 0, 0, 0, 0, 0]),
        ("finit_module", libc::SYS_finit_module, [BAD, BAD, 0, 0, 0, 0]),
        ("init_module", libc::SYS_init_module, [BAD, 0, BAD, 0, 0, 0]),
        ("kexec_file_load", libc::SYS_kexec_file_load, [BAD, BAD, 0, 0, BAD, 0]),
        ("kexec_load", libc::SYS_kexec_load, [0, 0, 0, BAD, 0, 0]),
        // Large surfaces of the kernel with a history of holes.
        ("fanotify_init", libc::SYS_fanotify_init, [4, 0, 0, 0, 0, 0]),
        ("io_uring_setup", libc::SYS_io_uring_setup, [1, 0, 0, 0, 0, 0]),
        ("perf_event_open", libc::SYS_perf_event_open, [zeros, 0, BAD, BAD, 0, 0]),
        ("userfaultfd", libc::SYS_userfaultfd, [0, 0, 0, 0, 0, 0]),
        // Keyrings are not namespaced.
        ("add_key", libc::SYS_add_key, [0, 0, 0, 0, 0, 0]),
        ("keyctl", libc::SYS_keyctl, [0, BAD - 2, 0, 0, 0, 0]),
        ("request_key", libc::SYS_request_key, [0, 0, 0, 0, 0, 0]),
        // Mounts and roots.
        ("chroot", libc::SYS_chroot, [root, 0, 0, 0, 0, 0]),
        ("fsopen", libc::SYS_fsopen, [tmpfs, 0, 0, 0, 0, 0]),
        ("mount", libc::SYS_mount, [0, root, 0, propagation, 0, 0]),
        ("mount_setattr", libc::SYS_mount_setattr, [HERE, root, 0, zeros, 32, 0]),
        ("move_mount", libc::SYS_move_mount, [BAD, none, BAD, none, 0, 0]),
        ("open_tree", libc::SYS_open_tree, [HERE, root, 1, 0, 0, 0]),
        ("pivot_root", libc::SYS_pivot_root, [root, root, 0, 0, 0, 0]),
        ("umount2", libc::SYS_umount2, [root, (libc::MNT_FORCE | libc::MNT_EXPIRE) as usize, 0, 0, 0, 0]),
        // Files by number, past the root.
        ("open_by_handle_at", libc::SYS_open_by_handle_at, [HERE, address(&memory.handle), 0, 0, 0, 0]),
        // Devices.
        ("mknod block", libc::SYS_mknodat, [HERE, block_path, block, 0x800, 0, 0]),
        ("mknod char", libc::SYS_mknodat, [HERE, char_path, character, 0x101, 0, 0]),
        // Namespaces; see also below.
        ("clone3", libc::SYS_clone3, [0, 0, 0, 0, 0, 0]),
        ("setns", libc::SYS_setns, [BAD, 0, 0, 0, 0, 0]),
        // The first process: the agent, or something of the host.
        ("kcmp 1", libc::SYS_kcmp, [INIT, me, 0, 0, 0, 0]),
        ("kill 1 with signal 0", libc::SYS_kill, [INIT, 0, 0, 0, 0, 0]),
        ("prlimit of 1", libc::SYS_prlimit64, [INIT, 7, 0, zeros, 0, 0]),
        (
            "process_vm_readv of 1",
            libc::SYS_process_vm_readv,
            [INIT, address(&memory.local), 1, address(&memory.remote), 1, 0],
        ),
        ("ptrace seize 1", libc::SYS_ptrace, [0x4206, INIT, 0, 0, 0, 0]),
        ("sched_setaffinity of 1", libc::SYS_sched_setaffinity, [INIT, 8, zeros, 0, 0, 0]),
        ("setpriority of 1", libc::SYS_setpriority, [0, INIT, 0, 0, 0, 0]),
        // Itself, more than its share.
        ("ptrace traceme", libc::SYS_ptrace, [0, 0, 0, 0, 0, 0]),
        ("sched_setscheduler fifo", libc::SYS_sched_setscheduler, [0, 1, address(&memory.priority), 0, 0, 0]),
        ("setpriority -20", libc::SYS_setpriority, [0, 0, BAD - 19, 0, 0, 0]),
        // Terminals: what is typed into one by such a call is read by whoever sits at it.
        ("ioctl TIOCLINUX", libc::SYS_ioctl, [0, libc::TIOCLINUX as usize, BAD, 0, 0, 0]),
        ("ioctl TIOCSTI", libc::SYS_ioctl, [0, libc::TIOCSTI as usize, BAD, 0, 0, 0]),
    ];
    #[cfg(target_arch = "x86_64")]
    calls.extend([
        ("ioperm", libc::SYS_ioperm, [0, 1, 1, 0, 0, 0]),
        ("iopl", libc::SYS_iopl, [3, 0, 0, 0, 0, 0]),
        ("modify_ldt", libc::SYS_modify_ldt, [0, 0, 0, 0, 0, 0]),
    ]);
    calls
}

/// Families of sockets; each is a protocol's code in the kernel, which may be loaded on first use.
pub(super) fn sockets() -> BTreeMap<String, Outcome> {
    const RAW: c_int = libc::SOCK_RAW;
    const STREAM: c_int = libc::SOCK_STREAM;
    const DATAGRAM: c_int = libc::SOCK_DGRAM;
    const SEQUENCED: c_int = libc::SOCK_SEQPACKET;
    [
        ("alg", libc::AF_ALG, SEQUENCED, 0),
        ("bluetooth", libc::AF_BLUETOOTH, RAW, 1),
        ("can", libc::AF_CAN, RAW, 1),
        ("inet datagram", libc::AF_INET, DATAGRAM, 0),
        ("inet ping", libc::AF_INET, DATAGRAM, libc::IPPROTO_ICMP),
        ("inet raw", libc::AF_INET, RAW, libc::IPPROTO_ICMP),
        ("inet stream", libc::AF_INET, STREAM, 0),
        ("inet6 raw", libc::AF_INET6, RAW, libc::IPPROTO_ICMPV6),
        ("inet6 stream", libc::AF_INET6, STREAM, 0),
        ("key", libc::AF_KEY, RAW, 2),
        ("netlink audit", libc::AF_NETLINK, RAW, libc::NETLINK_AUDIT),
        ("netlink netfilter", libc::AF_NETLINK, RAW, libc::NETLINK_NETFILTER),
        ("netlink route", libc::AF_NETLINK, RAW, libc::NETLINK_ROUTE),
        ("netlink uevent", libc::AF_NETLINK, RAW, libc::NETLINK_KOBJECT_UEVENT),
        ("packet raw", libc::AF_PACKET, RAW, 0),
        ("unix stream", libc::AF_UNIX, STREAM, 0),
        ("vsock", libc::AF_VSOCK, STREAM, 0),
        ("xdp", libc::AF_XDP, RAW, 0),
    ]
    .into_iter()
    .map(|(name, family, kind, protocol)| {
        let argument = |number: c_int| number.cast_unsigned() as usize;
        let arguments = [argument(family), argument(kind), argument(protocol), 0, 0, 0];
        (name.to_owned(), sys::attempt(|| sys::call(libc::SYS_socket, arguments)))
    })
    .collect()
}

/// Other entries into the kernel: there a filter sees other numbers.
pub(super) fn foreign() -> BTreeMap<String, Outcome> {
    #[cfg(target_arch = "x86_64")]
    {
        const X32: c_long = 0x4000_0000;
        [
            ("i386 getpid", sys::attempt(sys::getpid_32_bit)),
            ("x32 getpid", sys::attempt(|| sys::call(X32 | libc::SYS_getpid, [0; 6]))),
        ]
        .map(|(name, outcome)| (name.to_owned(), outcome))
        .into()
    }
    #[cfg(not(target_arch = "x86_64"))]
    BTreeMap::new()
}

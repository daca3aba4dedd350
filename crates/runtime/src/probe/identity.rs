//! Who the probe is and what it may do.

use std::collections::BTreeMap;
use std::fs;

use rustix::process::Resource;

use super::procfs::{line, lines, status, status_numbers};
use super::{IdRange, Identity, Namespace, sys};

/// Names of the capabilities, by number.
const CAPABILITIES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

/// Names of the securebits, by number; see capabilities(7).
const SECUREBITS: [&str; 8] = [
    "noroot",
    "noroot_locked",
    "no_setuid_fixup",
    "no_setuid_fixup_locked",
    "keep_caps",
    "keep_caps_locked",
    "no_cap_ambient_raise",
    "no_cap_ambient_raise_locked",
];

/// Numbers that the kernel gives to the namespaces that it boots with (`include/uapi/linux/nsfs.h`; the last two have
/// none before Linux 6.18).
const INITIAL: [(&str, u64); 8] = [
    ("ipc", 0xEFFF_FFFF),
    ("uts", 0xEFFF_FFFE),
    ("user", 0xEFFF_FFFD),
    ("pid", 0xEFFF_FFFC),
    ("cgroup", 0xEFFF_FFFB),
    ("time", 0xEFFF_FFFA),
    ("net", 0xEFFF_FFF9),
    ("mnt", 0xEFFF_FFF8),
];

pub(super) fn identity() -> Identity {
    let set = |field| bits(&status(field), &CAPABILITIES);
    Identity {
        uids: status_numbers("Uid"),
        gids: status_numbers("Gid"),
        groups: status_numbers("Groups"),
        uid_map: id_map("/proc/self/uid_map"),
        gid_map: id_map("/proc/self/gid_map"),
        setgroups: line("/proc/self/setgroups"),
        capabilities: [
            ("ambient", set("CapAmb")),
            ("bounding", set("CapBnd")),
            ("effective", set("CapEff")),
            ("inheritable", set("CapInh")),
            ("permitted", set("CapPrm")),
        ]
        .map(|(name, set)| (name.to_owned(), set))
        .into(),
        no_new_privs: status("NoNewPrivs") == "1",
        seccomp: match status("Seccomp").as_str() {
            "0" => "disabled",
            "1" => "strict",
            "2" => "filter",
            _ => "unknown",
        }
        .to_owned(),
        seccomp_filters: status("Seccomp_filters").parse().unwrap_or_default(),
        securebits: bits(&format!("{:x}", sys::securebits()), &SECUREBITS),
        dumpable: sys::dumpable(),
        oom_score_adj: line("/proc/self/oom_score_adj").parse().unwrap_or_default(),
        nice: rustix::process::getpriority_process(None).unwrap_or_default(),
        scheduler: match sys::scheduler() {
            0 => "other".to_owned(),
            1 => "fifo".to_owned(),
            2 => "rr".to_owned(),
            3 => "batch".to_owned(),
            5 => "idle".to_owned(),
            6 => "deadline".to_owned(),
            other => other.to_string(),
        },
        umask: status("Umask"),
        cwd: fs::read_link("/proc/self/cwd")
            .map_or_else(|error| error.to_string(), |path| path.to_string_lossy().into_owned()),
        terminal: terminal(),
    }
}

/// Field 7 of `/proc/self/stat`: the terminal's device number.
fn terminal() -> Option<String> {
    let stat = line("/proc/self/stat");
    let device: u32 = stat.rsplit_once(") ")?.1.split(' ').nth(4)?.parse().ok()?;
    (device != 0).then(|| format!("{}:{}", device >> 8 & 0xfff, device & 0xff | device >> 12 & 0xfff00))
}

/// The names of the bits in a hexadecimal number.
fn bits(hexadecimal: &str, names: &[&str]) -> Vec<String> {
    let set = u64::from_str_radix(hexadecimal, 16).unwrap_or_default();
    let name = |bit: usize| names.get(bit).map_or_else(|| format!("bit {bit}"), |name| (*name).to_owned());
    (0..64).filter(|bit| set >> bit & 1 == 1).map(name).collect()
}

fn id_map(path: &str) -> Vec<IdRange> {
    let range = |line: String| {
        let numbers: Vec<u32> = line.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        let [inside, outside, count] = numbers[..] else { return None };
        Some(IdRange { inside, outside: Some(outside), count })
    };
    lines(path).into_iter().filter_map(range).collect()
}

pub(super) fn namespaces() -> BTreeMap<String, Namespace> {
    let number = |kind: &str| {
        let link = fs::read_link(format!("/proc/self/ns/{kind}")).ok()?;
        link.to_str()?.split_once(":[")?.1.strip_suffix(']')?.parse::<u64>().ok()
    };
    let namespace = |(kind, initial): (&str, u64)| {
        let id = number(kind);
        // Numbers that are handed out begin at 0xf0000000; the fixed ones lie below.
        let fixed = if id == Some(initial) { Some(true) } else { id.map(|_| false) };
        let unknown = matches!(kind, "net" | "mnt") && fixed == Some(false) && !kernel_numbers_all();
        (kind.to_owned(), Namespace { id, initial: if unknown { None } else { fixed } })
    };
    INITIAL.into_iter().map(namespace).collect()
}

/// Whether this kernel gives fixed numbers to the first network and mount namespaces as well.
fn kernel_numbers_all() -> bool {
    let release = line("/proc/sys/kernel/osrelease");
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default()) >= (6, 18)
}

pub(super) fn limits() -> BTreeMap<String, (Option<u64>, Option<u64>)> {
    [
        ("as", Resource::As),
        ("core", Resource::Core),
        ("cpu", Resource::Cpu),
        ("data", Resource::Data),
        ("fsize", Resource::Fsize),
        ("locks", Resource::Locks),
        ("memlock", Resource::Memlock),
        ("msgqueue", Resource::Msgqueue),
        ("nice", Resource::Nice),
        ("nofile", Resource::Nofile),
        ("nproc", Resource::Nproc),
        ("rss", Resource::Rss),
        ("rtprio", Resource::Rtprio),
        ("rttime", Resource::Rttime),
        ("sigpending", Resource::Sigpending),
        ("stack", Resource::Stack),
    ]
    .map(|(name, resource)| {
        let limit = rustix::process::getrlimit(resource);
        (name.to_owned(), (limit.current, limit.maximum))
    })
    .into()
}

pub(super) fn cpus() -> usize {
    rustix::thread::sched_getaffinity(None).map_or(0, |set| set.count() as usize)
}

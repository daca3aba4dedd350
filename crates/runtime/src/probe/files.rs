//! Files that matter: devices, the kernel's own, what can be written, what gains privileges.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD};

use super::{FileAccess, Mount, Outcome, Security, errno, procfs, sys};

/// Files that tell of the machine or change it. Runtimes of containers mask most of the first group; the second belongs
/// to the agent.
const KERNEL_FILES: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/bus",
    "/proc/config.gz",
    "/proc/fs",
    "/proc/interrupts",
    "/proc/iomem",
    "/proc/irq",
    "/proc/kallsyms",
    "/proc/kcore",
    "/proc/keys",
    "/proc/kmsg",
    "/proc/kpagecount",
    "/proc/latency_stats",
    "/proc/modules",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/slabinfo",
    "/proc/sys/fs/binfmt_misc/register",
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/kernel/hotplug",
    "/proc/sys/kernel/modprobe",
    "/proc/sysrq-trigger",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/vmallocinfo",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
    "/sys/fs/bpf",
    "/sys/kernel/debug",
    "/sys/kernel/security",
    "/sys/kernel/tracing",
    "/sys/kernel/uevent_helper",
    "/sys/module",
    "/proc/1/cwd",
    "/proc/1/environ",
    "/proc/1/exe",
    "/proc/1/fd",
    "/proc/1/maps",
    "/proc/1/mem",
    "/proc/1/ns/mnt",
    "/proc/1/oom_score_adj",
    "/proc/1/root",
];

/// Directories whose writability is asked besides that of every mount point.
const DIRECTORIES: &[&str] = &[
    "/",
    "/bin",
    "/boot",
    "/dev",
    "/dev/shm",
    "/etc",
    "/home",
    "/lib",
    "/media",
    "/mnt",
    "/opt",
    "/proc",
    "/root",
    "/run",
    "/srv",
    "/sys",
    "/tmp",
    "/usr",
    "/usr/bin",
    "/usr/local",
    "/var",
    "/var/tmp",
    "/workspace",
];

const MAX_DEVICES: usize = 5_000;
const MAX_SYSFS: usize = 20_000;
const MAX_FILES: usize = 400_000;
/// Helpers lie as deep as `/usr/lib/x86_64-linux-gnu/utempter/utempter`.
const MAX_DEPTH: usize = 5;

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Everything below a directory, itself not, without following links; `enter` says which directories are entered.
fn walk(top: &str, bound: usize, enter: impl Fn(&Path) -> bool) -> Vec<(PathBuf, fs::Metadata)> {
    let mut pending = vec![PathBuf::from(top)];
    let mut found = Vec::new();
    while let Some(dir) = pending.pop() {
        let Ok(entries) = fs::read_dir(&dir) else { continue };
        for entry in entries.flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_dir() && enter(&entry.path()) {
                pending.push(entry.path());
            }
            found.push((entry.path(), meta));
            if found.len() >= bound {
                return found;
            }
        }
    }
    found
}

fn may_write(path: &Path) -> Outcome {
    match rustix::fs::accessat(CWD, path, Access::WRITE_OK, AtFlags::empty()) {
        Ok(()) => "ok".to_owned(),
        Err(error) => errno::name(error.raw_os_error()),
    }
}

pub(super) fn devices() -> BTreeMap<String, String> {
    let describe = |(path, meta): (PathBuf, fs::Metadata)| {
        let kind = meta.file_type();
        let what = if kind.is_symlink() {
            let target = fs::read_link(&path).unwrap_or_default();
            format!("link to {}", target.display())
        } else if kind.is_char_device() || kind.is_block_device() {
            let kind = if kind.is_char_device() { "char" } else { "block" };
            let device = meta.rdev();
            let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
            format!("{kind} {major}:{minor} {:04o}", meta.mode() & 0o7777)
        } else {
            let kind = if kind.is_dir() { "directory" } else { "file" };
            format!("{kind} {:04o}", meta.mode() & 0o7777)
        };
        (text(&path), what)
    };
    walk("/dev", MAX_DEVICES, |_| true).into_iter().map(describe).collect()
}

pub(super) fn kernel_files() -> BTreeMap<String, FileAccess> {
    let access = |path: &&str| {
        let access = FileAccess { read: read_outcome(Path::new(path)), write: may_write(Path::new(path)) };
        ((*path).to_owned(), access)
    };
    KERNEL_FILES.iter().map(access).collect()
}

/// What comes of reading a file or listing a directory.
fn read_outcome(path: &Path) -> Outcome {
    let empty = |nothing| if nothing { "empty".to_owned() } else { "ok".to_owned() };
    let read = || {
        if fs::metadata(path)?.is_dir() {
            return Ok(empty(fs::read_dir(path)?.next().is_none()));
        }
        // NONBLOCK: /proc/kmsg would wait for the next message.
        let mut file = fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        Ok(empty(file.read(&mut [0; 16])? == 0))
    };
    read().unwrap_or_else(|error: std::io::Error| errno::of(&error))
}

pub(super) fn writable_sysctls() -> Vec<String> {
    writable_files(walk("/proc/sys", MAX_SYSFS, |_| true))
}

pub(super) fn writable_sysfs() -> Vec<String> {
    writable_files(walk("/sys", MAX_SYSFS, |path| path != Path::new("/sys/fs/cgroup")))
}

fn writable_files(files: Vec<(PathBuf, fs::Metadata)>) -> Vec<String> {
    let files = files.into_iter().filter(|(_, meta)| meta.is_file());
    let mut writable: Vec<String> =
        files.filter(|(path, _)| may_write(path) == "ok").map(|(path, _)| text(&path)).collect();
    writable.sort_unstable();
    writable
}

pub(super) fn writable(mounts: &[Mount]) -> Vec<String> {
    let all = mounts.iter().map(|mount| mount.at.as_str()).chain(DIRECTORIES.iter().copied());
    let mut writable: Vec<String> = all
        .filter(|path| fs::metadata(path).is_ok_and(|meta| meta.is_dir()))
        .filter(|path| may_write(Path::new(path)) == "ok")
        .map(str::to_owned)
        .collect();
    writable.sort_unstable();
    writable.dedup();
    writable
}

pub(super) fn setuid_files() -> u64 {
    let virtual_file_systems = ["/dev", "/proc", "/sys"].map(Path::new);
    let enter = |path: &Path| !virtual_file_systems.contains(&path) && path.components().count() <= MAX_DEPTH;
    let files = walk("/", MAX_FILES, enter);
    files.iter().filter(|(_, meta)| meta.is_file() && meta.mode() & 0o6000 != 0).count() as u64
}

pub(super) fn security() -> Security {
    let given = |line: String| (!line.is_empty() && !line.starts_with('<')).then_some(line);
    let keys = match fs::read_to_string("/proc/keys") {
        Ok(keys) => format!("{} keys", keys.lines().count()),
        Err(error) => errno::of(&error),
    };
    Security {
        modules: given(procfs::line("/sys/kernel/security/lsm")),
        label: given(procfs::line("/proc/self/attr/current").trim_end_matches('\0').to_owned()),
        landlock: sys::landlock_version(),
        session_keyring: sys::session_keyring().unwrap_or_else(errno::name),
        keys,
    }
}

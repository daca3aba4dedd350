//! What this machine can do for isolation, and what to do about what it cannot.

use crate::cgroup::Hierarchies;
use crate::disk::Disks;
use rustix::thread::CapabilitySet;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::fs;
use std::path::Path;

/// A part of the isolation that an operator may accept to do without, by name (`--allow-missing`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Feature {
    /// Limits on memory, CPU and processes.
    Cgroup,
    /// The system call filter.
    Seccomp,
    /// The second layer on file access.
    Landlock,
    /// The limit on disk use.
    Quota,
}

impl Feature {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Cgroup, Self::Seccomp, Self::Landlock, Self::Quota];

    /// The name that `--allow-missing` takes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cgroup => "cgroup",
            Self::Seccomp => "seccomp",
            Self::Landlock => "landlock",
            Self::Quota => "quota",
        }
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no feature.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is none of cgroup, seccomp, landlock, quota")]
pub struct UnknownFeature(String);

impl std::str::FromStr for Feature {
    type Err = UnknownFeature;
    fn from_str(name: &str) -> Result<Self, UnknownFeature> {
        Self::ALL.into_iter().find(|f| f.name() == name).ok_or_else(|| UnknownFeature(name.to_owned()))
    }
}

/// How it stands with one thing that the native driver needs or could use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// There.
    Good,
    /// Not there; sandboxes work without it, with the loss that the detail names.
    Degraded,
    /// Not there; sandboxes are refused, unless a flag named in the remedy accepts it.
    Missing,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was looked at, as one word or two.
    pub name: String,
    /// How it stands.
    pub status: Status,
    /// What was found.
    pub detail: String,
    /// What to do; empty if nothing is.
    pub remedy: String,
}

impl Check {
    /// Whether nothing is wanting.
    pub fn ok(&self) -> bool {
        self.status == Status::Good
    }

    fn good(name: &str, detail: impl Into<String>) -> Self {
        Self { name: name.into(), status: Status::Good, detail: detail.into(), remedy: String::new() }
    }

    fn bad(name: &str, status: Status, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name: name.into(), status, detail: detail.into(), remedy: remedy.into() }
    }
}

/// What a server with a single uid cannot have, whatever the machine offers: fixed, and the same everywhere.
pub const ROOTLESS_GAPS: [(&str, &str); 6] = [
    (
        "users",
        "a sandbox has one uid; what drops its rights to another user (apt's downloads, su, sshd) fails",
    ),
    (
        "system files",
        "files of the host's /usr belong to nobody inside and cannot be changed; pip and npm install elsewhere",
    ),
    (
        "agent's uid",
        "the agent has the uid of the code that it runs; a system call filter and covers in /proc keep them apart, but for SIGCHLD, which only wakes it, and its out-of-memory score",
    ),
    (
        "other sandboxes",
        "all sandboxes of the server have one uid: each gets a part of what the kernel counts per uid, but for pages of \
         pipes, epoll watches and descriptors in flight, which they share",
    ),
    ("disk limit", "mounting a disk of one's own takes root"),
    (
        "device nodes",
        "those of the host are used: nothing of them can be changed, but locks on them and inotify are shared; none can be made",
    ),
];

/// The oldest kernel whose overlayfs takes layers with mapped ids.
const KERNEL_WITH_MAPPED_LAYERS: (u32, u32) = (5, 19);
/// The oldest kernel whose overlayfs may be mounted without root.
const KERNEL_WITH_USER_OVERLAY: (u32, u32) = (5, 11);

/// Looks at everything that the native driver with this data directory depends on. Changes nothing but for making the
/// parents of control groups. Blocks for some milliseconds.
pub fn examine(data_dir: &Path) -> Vec<Check> {
    let root = rustix::process::geteuid().is_root();
    let mut checks = vec![
        server(root),
        kernel(root),
        user_namespaces(root),
        system_files(root),
        data_directory(data_dir),
        proc_file_system(),
        python_image(),
    ];
    checks.extend([cgroups(), seccomp(), landlock(), quota(root), room(data_dir), out_of_memory()]);
    checks.push(open_files());
    if !root {
        let gap = |(name, detail): &(&str, &str)| {
            Check::bad(name, Status::Degraded, *detail, "run the server as root")
        };
        checks.extend(ROOTLESS_GAPS.iter().map(gap));
    }
    checks
}

fn server(root: bool) -> Check {
    if root {
        Check::good("server", "runs as root: each sandbox has 65,536 ids of its own")
    } else {
        Check::good("server", "runs without root: each sandbox has the server's own uid and no other")
    }
}

/// The numbers at the beginning of a kernel's release: `6.18.44-x` is (6, 18).
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn kernel(root: bool) -> Check {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let least = if root { KERNEL_WITH_MAPPED_LAYERS } else { KERNEL_WITH_USER_OVERLAY };
    match version(&release) {
        Some(version) if version >= least => Check::good("kernel", format!("Linux {release}")),
        _ => Check::bad(
            "kernel",
            Status::Missing,
            format!("Linux {release} is too old for the overlays of sandboxes"),
            format!("use Linux {}.{} or newer", least.0, least.1),
        ),
    }
}

fn switch(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn user_namespaces(root: bool) -> Check {
    const NAME: &str = "user namespaces";
    let off = |detail: &str, remedy: &str| Check::bad(NAME, Status::Missing, detail, remedy);
    // Ubuntu's rule lets an unprivileged program make the namespace and then refuses everything in it.
    if !root && switch("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == Some(1) {
        return off(
            "AppArmor gives programs without a profile no rights in namespaces of their own (Ubuntu 23.10 and newer)",
            "run the server as root, or `sysctl kernel.apparmor_restrict_unprivileged_userns=0`",
        );
    }
    if !root && switch("/proc/sys/kernel/unprivileged_userns_clone") == Some(0) {
        return off(
            "this kernel lets only root make user namespaces",
            "run the server as root, or `sysctl kernel.unprivileged_userns_clone=1`",
        );
    }
    match switch("/proc/sys/user/max_user_namespaces") {
        Some(0) => off("their number is limited to 0", "`sysctl user.max_user_namespaces=65536`"),
        Some(most) => Check::good(NAME, format!("up to {most}")),
        None => off("the kernel was built without them", "use a kernel with CONFIG_USER_NS"),
    }
}

/// `f_type` of an overlay (linux/magic.h).
const OVERLAYFS: i64 = 0x794c_7630;

/// The host image's lowest layer. A server that is root maps its owners, which an overlay does not let it do.
fn system_files(root: bool) -> Check {
    const NAME: &str = "/usr";
    match rustix::fs::statfs(NAME) {
        Ok(found) if root && found.f_type == OVERLAYFS => Check::bad(
            NAME,
            Status::Missing,
            "it is on an overlay, as inside of a container, whose owners cannot be mapped",
            "run the server outside of the container, or without root",
        ),
        Ok(_) => Check::good(NAME, "can be a layer of sandboxes"),
        Err(error) => Check::bad(NAME, Status::Missing, error.to_string(), "the host image needs a /usr"),
    }
}

fn data_directory(dir: &Path) -> Check {
    const NAME: &str = "data directory";
    // It may not exist yet: then what it will be made in counts.
    let existing = dir.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"));
    let shown = existing.display();
    match rustix::fs::statfs(existing) {
        Ok(found) if found.f_type == OVERLAYFS => Check::bad(
            NAME,
            Status::Missing,
            format!(
                "{shown} is on an overlay, as inside of a container, where no other overlay can have its upper layer"
            ),
            "put the data directory on a volume or another file system (`--data-dir`)",
        ),
        Ok(_) => match rustix::fs::access(existing, rustix::fs::Access::WRITE_OK) {
            Ok(()) => Check::good(NAME, dir.display().to_string()),
            Err(error) => Check::bad(
                NAME,
                Status::Missing,
                format!("{shown}: {error}"),
                "choose another with `--data-dir`",
            ),
        },
        Err(error) => {
            Check::bad(NAME, Status::Missing, format!("{shown}: {error}"), "choose another with `--data-dir`")
        }
    }
}

/// What the image `python` is built with, as sandboxes see it: below /usr. Looked at, not run.
fn python_image() -> Check {
    const NAME: &str = "python image";
    let weak = |detail: String, remedy: &str| Check::bad(NAME, Status::Degraded, detail, remedy);
    let programs = ["/usr/local/bin/python3", "/usr/bin/python3"];
    let Some(program) = programs.iter().find_map(|path| fs::canonicalize(path).ok()) else {
        let remedy = "install python3 and python3-pip (Debian, Ubuntu: `apt-get install python3-pip`)";
        return weak("there is no python3 below /usr: the image cannot be built".into(), remedy);
    };
    let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let version = name.strip_prefix("python").unwrap_or_default();
    if crate::image::python::lock(version, std::env::consts::ARCH).is_none() {
        let targets: Vec<&str> = crate::image::python::targets().collect();
        let remedy = format!("the image is made for {}; elsewhere use `host` and pip", targets.join(", "));
        return weak(format!("{} on {} has no lock", program.display(), std::env::consts::ARCH), &remedy);
    }
    let libraries = ["/usr/lib", "/usr/local/lib", "/usr/lib64"];
    let packages = ["python3/dist-packages".to_owned()]
        .into_iter()
        .chain(["dist-packages", "site-packages"].map(|place| format!("python{version}/{place}")));
    let has_pip =
        |place: String| libraries.iter().any(|lib| Path::new(lib).join(&place).join("pip").is_dir());
    if packages.into_iter().any(has_pip) {
        Check::good(NAME, format!("can be built with {} and its pip", program.display()))
    } else {
        weak(
            format!("{} has no pip: the image cannot be built", program.display()),
            "install it (Debian, Ubuntu: `apt-get install python3-pip`)",
        )
    }
}

/// A new /proc can be mounted in a user namespace only if nothing of the old one is covered.
fn proc_file_system() -> Check {
    const NAME: &str = "proc";
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let covered: Vec<&str> = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .filter(|at| at.starts_with("/proc/") && *at != "/proc/sys/fs/binfmt_misc")
        .collect();
    if covered.is_empty() {
        return Check::good(NAME, "all of /proc can be seen");
    }
    Check::bad(
        NAME,
        Status::Missing,
        format!("parts of /proc are covered, as inside of a container: {}", covered.join(" ")),
        "run the server outside of the container, or start that with its /proc unmasked (Docker: `--security-opt systempaths=unconfined`)",
    )
}

fn accept(feature: Feature, otherwise: &str) -> String {
    format!("{otherwise}, or accept it with `--allow-missing {feature}`")
}

fn cgroups() -> Check {
    let remedy = "run the server as root, or give it a control group of its own (systemd: `Delegate=yes`)";
    match Hierarchies::discover().map(|found| (found.missing(), found.describe())) {
        Ok((None, found)) => Check::good("cgroup", found),
        Ok((Some(missing), _)) => {
            Check::bad("cgroup", Status::Missing, missing, accept(Feature::Cgroup, remedy))
        }
        Err(error) => {
            Check::bad("cgroup", Status::Missing, error.to_string(), accept(Feature::Cgroup, remedy))
        }
    }
}

fn seccomp() -> Check {
    if has_seccomp() {
        return Check::good("seccomp", "system call filters are there");
    }
    let remedy = accept(Feature::Seccomp, "use a kernel with CONFIG_SECCOMP_FILTER");
    Check::bad("seccomp", Status::Missing, "the kernel takes no system call filters", remedy)
}

fn landlock() -> Check {
    // The sixth version keeps signals and abstract sockets inside, too (landlock(7)).
    match landlock_abi() {
        0 => Check::bad(
            "landlock",
            Status::Missing,
            "the kernel has no Landlock, or it is not switched on",
            accept(Feature::Landlock, "use Linux 5.13 or newer with `landlock` in its `lsm=` list"),
        ),
        version @ 1..6 => Check::bad(
            "landlock",
            Status::Degraded,
            format!("version {version}: files only; signals and abstract sockets are left to the namespaces"),
            "use Linux 6.12 or newer",
        ),
        version => Check::good("landlock", format!("version {version}")),
    }
}

fn quota(root: bool) -> Check {
    if !root {
        let remedy = accept(Feature::Quota, "run the server as root");
        return Check::bad("quota", Status::Missing, "a disk is mounted by root only", remedy);
    }
    match Disks::default().examine(1 << 30) {
        Ok(()) => Check::good("quota", "each sandbox gets an ext4 image on a loop device"),
        Err(missing) => {
            let remedy = accept(Feature::Quota, "install e2fsprogs and see that /dev/loop-control is there");
            Check::bad("quota", Status::Missing, missing, remedy)
        }
    }
}

fn room(data_dir: &Path) -> Check {
    let at = data_dir.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"));
    match crate::native::admit(at) {
        Ok(()) => Check::good("room", format!("the disk of {} has room for sandboxes", at.display())),
        Err(error) => {
            let why =
                std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            let remedy =
                "destroy sandboxes, or make room otherwise; those that are held go on by themselves then";
            Check::bad("room", Status::Degraded, why, remedy)
        }
    }
}

fn out_of_memory() -> Check {
    let may = rustix::thread::capabilities(None)
        .is_ok_and(|found| found.effective.contains(CapabilitySet::SYS_RESOURCE));
    if may {
        return Check::good("oom score", "agents are killed last when memory is short");
    }
    Check::bad(
        "oom score",
        Status::Degraded,
        "without CAP_SYS_RESOURCE an agent is killed as readily as what it runs; its sandbox then starts again on its files",
        "give the server CAP_SYS_RESOURCE",
    )
}

/// Open files beyond which memory runs out first, at 256 bytes each: what a machine of 1 TB can hold.
const FILES_OF_A_LARGE_MACHINE: u64 = 1 << 32;

/// Open files are counted for the whole machine, and for nobody else. They are charged to the memory of who opens them, so
/// that the machine's count need not be a limit, as systemd has it.
fn open_files() -> Check {
    const NAME: &str = "open files";
    match switch("/proc/sys/fs/file-max") {
        Some(most) if most < FILES_OF_A_LARGE_MACHINE => Check::bad(
            NAME,
            Status::Degraded,
            format!(
                "all programs of the machine together may have {most}, and a sandbox with much memory could take them"
            ),
            "`sysctl fs.file-max=9223372036854775807`, as systemd does; a sandbox's memory limit bounds them",
        ),
        Some(_) => Check::good(NAME, "bounded by each sandbox's memory"),
        None => Check::bad(NAME, Status::Degraded, "/proc/sys/fs/file-max cannot be read", "mount /proc"),
    }
}

/// The version of Landlock's interface that the kernel offers (landlock(7)); 0 if it has none.
pub(crate) fn landlock_abi() -> i32 {
    crate::sys::process::landlock_abi()
}

/// Whether the kernel takes system call filters.
pub(crate) fn has_seccomp() -> bool {
    crate::sys::process::has_seccomp()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read() {
        assert_eq!(version("6.18.44-fc-v595"), Some((6, 18)));
        assert_eq!(version("5.4-custom"), Some((5, 4)));
        assert_eq!(version("weird"), None);
        assert!(version("5.4.0") < Some(KERNEL_WITH_USER_OVERLAY));
    }

    #[test]
    fn features_have_the_names_that_the_flag_takes() {
        for feature in Feature::ALL {
            assert_eq!(feature.name().parse::<Feature>().unwrap(), feature);
            assert_eq!(serde_json::to_value(feature).unwrap(), feature.name());
        }
        assert!("cgroups".parse::<Feature>().is_err());
    }

    #[test]
    fn a29_what_is_missing_has_a_remedy_that_names_the_flag() {
        let dir = tempfile::tempdir().unwrap();
        for check in examine(&dir.path().join("not/yet")) {
            assert_eq!(check.ok(), check.remedy.is_empty(), "{check:?}");
            if check.status == Status::Missing
                && let Ok(feature) = check.name.parse::<Feature>()
            {
                assert!(check.remedy.contains(&format!("--allow-missing {feature}")), "{check:?}");
            }
        }
    }
}

//! Control groups: limits on memory, CPU and processes, counters, and a tree that the agent divides further.
//!
//! Three layouts occur: version 1 alone, version 2 alone, and the hybrid in which version 1 has the controllers and
//! version 2 is an empty tree that can still kill and freeze. Each sandbox gets a group `sandcrab/<instance>` in every
//! hierarchy that is of use. They are at the top of the hierarchy when the server may write there, because a group
//! below the server's own would end with the server's service; else below the server's own.

mod v1;
mod v2;

use crate::driver::{DriverError, Result, Stats};
use sandcrab_api::sandbox::Limits;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The controllers that carry limits.
const CONTROLLERS: [&str; 3] = ["memory", "pids", "cpu"];
/// Controllers of version 1 without which programs take it that there are no limits at all (JVMs do), where there are
/// any.
const SEEN: [&str; 2] = ["cpuacct", "cpuset"];
/// All that version 1 ever had: the other options of a hierarchy's mount are not controllers.
const OF_VERSION_1: [&str; 14] = [
    "blkio",
    "cpu",
    "cpuacct",
    "cpuset",
    "devices",
    "freezer",
    "hugetlb",
    "memory",
    "misc",
    "net_cls",
    "net_prio",
    "perf_event",
    "pids",
    "rdma",
];

/// Where the sandboxes' groups are made.
#[derive(Clone, Debug, Default)]
pub(crate) struct Hierarchies {
    /// Parent directory per hierarchy of version 1.
    v1: Vec<V1>,
    /// Parent directory in version 2, and the controllers that it gives its children.
    v2: Option<(PathBuf, Vec<&'static str>)>,
    /// What was found wanting, in words.
    missing: Vec<String>,
}

/// A directory in a hierarchy of version 1.
#[derive(Clone, Debug, PartialEq, Eq)]
struct V1 {
    /// The hierarchy's controllers.
    controllers: Vec<String>,
    dir: PathBuf,
}

/// The groups of one sandbox.
#[derive(Clone, Debug, Default)]
pub(crate) struct Group {
    v1: Vec<V1>,
    v2: Option<(PathBuf, Vec<&'static str>)>,
}

/// One line of mountinfo(5) that is a cgroup file system.
struct Mount {
    root: PathBuf,
    at: PathBuf,
    /// `cgroup` or `cgroup2`.
    version: u8,
    options: Vec<String>,
}

fn mounts(mountinfo: &str) -> Vec<Mount> {
    let parse = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let mut before = before.split(' ').skip(3);
        let (root, at) = (before.next()?, before.next()?);
        let mut after = after.split(' ');
        let version = match after.next()? {
            "cgroup" => 1,
            "cgroup2" => 2,
            _ => return None,
        };
        let options = after.nth(1)?.split(',').map(str::to_owned).collect();
        Some(Mount { root: root.into(), at: at.into(), version, options })
    };
    mountinfo.lines().filter_map(parse).collect()
}

/// The caller's group in a hierarchy, as a line of /proc/self/cgroup says: `4:memory:/a/b`, `0::/a/b`.
fn own_group<'a>(cgroups: &'a str, controller: &str) -> Option<&'a str> {
    cgroups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        controllers.split(',').any(|name| name == controller).then_some(path)
    })
}

impl Hierarchies {
    /// Looks at what this machine has and makes the parent groups.
    pub(crate) fn discover() -> io::Result<Self> {
        let mounts = mounts(&fs::read_to_string("/proc/self/mountinfo")?);
        let cgroups = fs::read_to_string("/proc/self/cgroup")?;
        let find = |controller: &str| {
            mounts.iter().find(|mount| mount.version == 1 && mount.options.iter().any(|o| o == controller))
        };
        let mut found = Self::default();
        if let Some(mount) = mounts.iter().find(|mount| mount.version == 2) {
            match parent(mount, own_group(&cgroups, "")).and_then(|dir| v2::enable(&dir, &CONTROLLERS)) {
                Ok(parent) => found.v2 = Some(parent),
                Err(error) => found.missing.push(format!("cgroup2 at {}: {error}", mount.at.display())),
            }
        }
        for controller in CONTROLLERS {
            if found.v2.as_ref().is_some_and(|(_, enabled)| enabled.contains(&controller)) {
                continue;
            }
            match find(controller).map(|mount| (mount, parent(mount, own_group(&cgroups, controller)))) {
                Some((mount, Ok(dir))) => found.add_v1(mount, dir),
                Some((_, Err(error))) => found.missing.push(format!("{controller}: {error}")),
                None => found.missing.push(format!("{controller}: no hierarchy is mounted")),
            }
        }
        // Where version 2 has the limits, programs look there.
        let seen = if found.v1.is_empty() { &[][..] } else { &SEEN };
        for controller in seen {
            let Some(mount) = find(controller) else { continue };
            let prepared = parent(mount, own_group(&cgroups, controller)).and_then(|dir| {
                v1::prepare(controller, &dir)?;
                Ok(dir)
            });
            match prepared {
                Ok(dir) => found.add_v1(mount, dir),
                Err(error) => tracing::debug!(controller, %error, "sandboxes do not see themselves in it"),
            }
        }
        Ok(found)
    }

    fn add_v1(&mut self, mount: &Mount, dir: PathBuf) {
        if self.v1.iter().all(|known| known.dir != dir) {
            let is_controller = |option: &&String| OF_VERSION_1.contains(&option.as_str());
            let controllers = mount.options.iter().filter(is_controller).cloned().collect();
            self.v1.push(V1 { controllers, dir });
        }
    }

    /// Whether sandboxes have this controller.
    pub(crate) fn has(&self, controller: &str) -> bool {
        let v2 = self.v2.as_ref().is_some_and(|(_, enabled)| enabled.contains(&controller));
        v2 || self.v1.iter().any(|v1| v1.controllers.iter().any(|name| name == controller))
    }

    /// What of the limits cannot be had here, in words; none if all can.
    pub(crate) fn missing(&self) -> Option<String> {
        (!self.missing.is_empty()).then(|| self.missing.join("; "))
    }

    /// Where the groups are made, in words.
    pub(crate) fn describe(&self) -> String {
        let v1 = self
            .v1
            .iter()
            .map(|V1 { controllers, dir }| format!("{} in {}", controllers.join(", "), dir.display()));
        let v2 = self.v2.iter().map(|(dir, controllers)| match &controllers[..] {
            [] => format!("kill and freeze in {}", dir.display()),
            all => format!("{} in {}", all.join(", "), dir.display()),
        });
        v1.chain(v2).collect::<Vec<_>>().join("; ")
    }

    /// The groups that belong to an instance, whether they exist or not.
    pub(crate) fn group(&self, instance: &str) -> Group {
        Group {
            v1: self
                .v1
                .iter()
                .map(|parent| V1 { dir: parent.dir.join(instance), ..parent.clone() })
                .collect(),
            v2: self.v2.as_ref().map(|(dir, controllers)| (dir.join(instance), controllers.clone())),
        }
    }
}

/// The directory for the sandboxes' groups: at the top of the hierarchy, else below the caller's own group.
fn parent(mount: &Mount, own: Option<&str>) -> io::Result<PathBuf> {
    let top = mount.at.join("sandcrab");
    let Err(error) = make(&top) else { return Ok(top) };
    // The mount may show only a part of the hierarchy; the caller's path is told from its root.
    let own = own.map(Path::new).and_then(|own| own.strip_prefix(&mount.root).ok());
    match own {
        Some(own) if !own.as_os_str().is_empty() => {
            let nested = mount.at.join(own).join("sandcrab");
            make(&nested).map(|()| nested)
        }
        _ => Err(error),
    }
}

/// Makes a directory that may exist, and finds out whether groups can be made in it.
fn make(dir: &Path) -> io::Result<()> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    rustix::fs::access(dir, rustix::fs::Access::WRITE_OK)?;
    Ok(())
}

fn write(path: &Path, value: &dyn std::fmt::Display) -> Result<()> {
    fs::write(path, value.to_string()).map_err(DriverError::io("write", path.display()))
}

fn read_number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// A value of a file with lines of `name value`.
fn read_field(path: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

impl Group {
    /// Makes the groups and sets limits, before anything is in them. `cpus` are those to run on, if not all; `owner` is
    /// the host's id of the agent, which gets the tree of version 2.
    pub(crate) fn create(&self, limits: &Limits, cpus: Option<&[usize]>, owner: Option<u32>) -> Result<()> {
        for V1 { controllers, dir } in &self.v1 {
            fs::create_dir(dir).map_err(DriverError::io("create cgroup", dir.display()))?;
            controllers.iter().try_for_each(|controller| v1::limit(controller, dir, limits, cpus))?;
        }
        if let Some((dir, controllers)) = &self.v2 {
            fs::create_dir(dir).map_err(DriverError::io("create cgroup", dir.display()))?;
            v2::limit(controllers, dir, limits)?;
            if let Some(owner) = owner {
                v2::delegate(dir, owner)?;
            }
        }
        Ok(())
    }

    /// `tasks` of each group of version 1.
    pub(crate) fn tasks(&self) -> Vec<PathBuf> {
        self.v1.iter().map(|V1 { dir, .. }| dir.join("tasks")).collect()
    }

    /// The controllers of the hierarchies that the sandbox is to see itself in: those of version 1, or none of these
    /// where version 2 has the limits. Nothing where there are no limits to see.
    pub(crate) fn shown(&self) -> Option<Vec<Vec<String>>> {
        let v2 = self.v2.as_ref().is_some_and(|(_, controllers)| controllers.contains(&"memory"));
        match v2 {
            true => Some(Vec::new()),
            false => {
                let all = || self.v1.iter().map(|group| group.controllers.clone()).collect();
                (!self.v1.is_empty()).then(all)
            }
        }
    }

    /// `cgroup.procs` of each group.
    fn procs(&self) -> Vec<PathBuf> {
        let v2 = self.v2.iter().map(|(dir, _)| dir);
        self.v1.iter().map(|V1 { dir, .. }| dir).chain(v2).map(|dir| dir.join("cgroup.procs")).collect()
    }

    /// The directory that the agent divides further.
    pub(crate) fn delegated(&self) -> Option<&Path> {
        self.v2.as_ref().map(|(dir, _)| dir.as_path())
    }

    /// The directory with the memory limit and its counters.
    pub(crate) fn memory(&self) -> Option<&Path> {
        let v2 =
            self.v2.iter().filter(|(_, controllers)| controllers.contains(&"memory")).map(|(dir, _)| dir);
        let v1 = self
            .v1
            .iter()
            .filter(|group| group.controllers.iter().any(|name| name == "memory"))
            .map(|V1 { dir, .. }| dir);
        v2.chain(v1).next().map(PathBuf::as_path)
    }

    /// Kills everything in the groups, in one go where the kernel can. Whether it could.
    pub(crate) fn kill(&self) -> bool {
        self.v2.as_ref().is_some_and(|(dir, _)| fs::write(dir.join("cgroup.kill"), "1").is_ok())
    }

    /// Has everything in the groups stand still, or go on. False where the kernel cannot.
    pub(crate) fn freeze(&self, still: bool) -> bool {
        let value = if still { "1" } else { "0" };
        self.v2.as_ref().is_some_and(|(dir, _)| fs::write(dir.join("cgroup.freeze"), value).is_ok())
    }

    /// Whether everything in the groups has been told to stand still.
    pub(crate) fn is_frozen(&self) -> bool {
        self.v2.as_ref().is_some_and(|(dir, _)| read_number(&dir.join("cgroup.freeze")) == Some(1))
    }

    /// Bytes that were written to files and are not on a disk yet.
    pub(crate) fn unwritten(&self) -> u64 {
        let Some(dir) = self.memory() else { return 0 };
        let stat = fs::read_to_string(dir.join("memory.stat")).unwrap_or_default();
        // Version 2 has `file_dirty`, version 1 `total_dirty` with those of the groups below it.
        let names = ["file_dirty", "file_writeback", "total_dirty", "total_writeback"];
        let counts = stat.lines().filter_map(|line| line.split_once(' '));
        counts.filter(|(name, _)| names.contains(name)).filter_map(|(_, n)| n.parse::<u64>().ok()).sum()
    }

    /// The processes in the groups.
    pub(crate) fn pids(&self) -> Vec<i32> {
        let procs = self.procs();
        let text = procs.iter().filter_map(|procs| fs::read_to_string(procs).ok());
        text.flat_map(|text| text.lines().filter_map(|line| line.parse().ok()).collect::<Vec<_>>()).collect()
    }

    /// Removes the groups, which must be empty. What does not exist is no error.
    pub(crate) fn remove(&self) -> Result<()> {
        for V1 { dir, .. } in &self.v1 {
            v1::remove(dir)?;
        }
        self.v2.as_ref().map_or(Ok(()), |(dir, _)| v2::remove(dir))
    }

    /// Whether any of the groups exists.
    pub(crate) fn exists(&self) -> bool {
        self.procs().iter().any(|procs| procs.exists())
    }

    /// Counters.
    pub(crate) fn stats(&self) -> Stats {
        let mut stats = Stats::default();
        for V1 { controllers, dir } in &self.v1 {
            controllers.iter().for_each(|controller| v1::stats(controller, dir, &mut stats));
        }
        if let Some((dir, controllers)) = &self.v2 {
            v2::stats(controllers, dir, &mut stats);
        }
        stats
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
30 25 0:26 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
34 30 0:30 /docker/abc /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
39 30 0:35 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw";

    #[test]
    fn mounts_are_read_with_their_controllers_and_roots() {
        let mounts = mounts(HYBRID);
        let seen: Vec<_> =
            mounts.iter().map(|m| (m.version, m.at.to_str().unwrap(), m.root.to_str().unwrap())).collect();
        assert_eq!(
            seen,
            [
                (1, "/sys/fs/cgroup/cpu,cpuacct", "/"),
                (1, "/sys/fs/cgroup/memory", "/docker/abc"),
                (2, "/sys/fs/cgroup/unified", "/"),
            ]
        );
        assert!(mounts[0].options.iter().any(|option| option == "cpuacct"));
    }

    #[test]
    fn controllers_that_share_a_hierarchy_share_a_group() {
        let mounts = mounts(HYBRID);
        let mut found = Hierarchies::default();
        found.add_v1(&mounts[0], "/cg/cpu,cpuacct/sandcrab".into());
        found.add_v1(&mounts[1], "/cg/memory/sandcrab".into());
        found.add_v1(&mounts[0], "/cg/cpu,cpuacct/sandcrab".into());
        let group = found.group("id");
        let shown = [vec!["cpu".to_owned(), "cpuacct".to_owned()], vec!["memory".to_owned()]];
        assert_eq!(group.shown().as_deref(), Some(&shown[..]));
        assert_eq!(group.memory(), Some(Path::new("/cg/memory/sandcrab/id")));
        assert_eq!(group.tasks().len(), 2);
        found.v2 = Some(("/cg".into(), vec!["memory"]));
        assert_eq!(found.group("id").shown(), Some(Vec::new()), "version 2 has the limits");
        assert_eq!(Hierarchies::default().group("id").shown(), None);
    }

    #[test]
    fn the_own_group_is_found_per_hierarchy() {
        let text = "4:memory:/a:b/c\n1:cpu,cpuacct:/d\n0::/e";
        assert_eq!(own_group(text, "memory"), Some("/a:b/c"));
        assert_eq!(own_group(text, "cpu"), Some("/d"));
        assert_eq!(own_group(text, ""), Some("/e"));
        assert_eq!(own_group(text, "pids"), None);
    }
}

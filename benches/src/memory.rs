//! Memory, as the kernel accounts it: what a control group is charged, and how far a process grew.

use anyhow::{Context as _, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};

/// A control group whose memory is counted; removed when dropped.
pub(crate) struct Group {
    dir: PathBuf,
}

impl Group {
    /// Makes one below this process's own memory group.
    pub(crate) fn make(name: &str) -> Result<Self> {
        let dir = of_process(std::process::id())?.join(name);
        fs::create_dir_all(&dir).with_context(|| format!("make the memory group {}", dir.display()))?;
        Ok(Self { dir })
    }

    /// Its `cgroup.procs`: who is written there is charged to it.
    pub(crate) fn procs(&self) -> PathBuf {
        self.dir.join("cgroup.procs")
    }

    /// Bytes charged to it now.
    pub(crate) fn charged(&self) -> Result<u64> {
        charged(&self.dir)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // It can only fail while somebody is in it, and then it is theirs to be seen.
        let _ = fs::remove_dir(&self.dir);
    }
}

/// The memory group that a process is in: v1 where the memory controller is there, else v2.
pub(crate) fn of_process(pid: u32) -> Result<PathBuf> {
    let text =
        fs::read_to_string(format!("/proc/{pid}/cgroup")).with_context(|| format!("groups of {pid}"))?;
    let find = |wanted: &str| text.lines().find_map(|line| line.split_once(':')?.1.strip_prefix(wanted));
    if let Some(path) = find("memory:") {
        return below("/sys/fs/cgroup/memory", path);
    }
    match find(":") {
        Some(path) => below("/sys/fs/cgroup", path),
        None => bail!("process {pid} is in no memory group"),
    }
}

/// A group by its path; in a container the own mount may begin below the path that the kernel names.
fn below(mount: &str, path: &str) -> Result<PathBuf> {
    let mut rest = path.trim_start_matches('/');
    loop {
        let dir = Path::new(mount).join(rest);
        if dir.is_dir() {
            return Ok(dir);
        }
        match rest.split_once('/') {
            Some((_, tail)) => rest = tail,
            None => return Ok(mount.into()),
        }
    }
}

/// Bytes charged to a group and all below it. With cgroup v1 they are added up from what the kernel counts exactly: its
/// own sum holds up to 64 pages per CPU that nobody uses (Documentation/admin-guide/cgroup-v1/memory.rst, 5.5).
pub(crate) fn charged(dir: &Path) -> Result<u64> {
    let number = |file: &str| -> Result<u64> {
        let path = dir.join(file);
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        text.trim().parse().with_context(|| format!("a number in {}", path.display()))
    };
    if !dir.join("memory.kmem.usage_in_bytes").exists() {
        return number("memory.current");
    }
    let path = dir.join("memory.stat");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let of_processes = text.lines().filter_map(|line| line.split_once(' ')).filter_map(|(name, value)| {
        matches!(name, "total_rss" | "total_cache" | "total_swap")
            .then(|| value.parse::<u64>().ok())
            .flatten()
    });
    Ok(of_processes.sum::<u64>() + number("memory.kmem.usage_in_bytes")?)
}

/// The most memory that a process had resident since [`forget_peak`], in bytes.
pub(crate) fn peak(pid: u32) -> Result<u64> {
    field(&format!("/proc/{pid}/status"), "VmHWM:").map(|kib| kib * 1024)
}

/// Makes [`peak`] count from what is resident now, which is returned.
pub(crate) fn forget_peak(pid: u32) -> Result<u64> {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").with_context(|| format!("reset the peak of {pid}"))?;
    peak(pid)
}

/// The children of a process.
pub(crate) fn children(pid: u32) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("threads of {pid}"))? {
        let file = task.context("a thread")?.path().join("children");
        let text = fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        found.extend(text.split_whitespace().filter_map(|word| word.parse::<u32>().ok()));
    }
    Ok(found)
}

fn field(file: &str, name: &str) -> Result<u64> {
    let text = fs::read_to_string(file).with_context(|| format!("read {file}"))?;
    let value =
        text.lines().find_map(|line| line.strip_prefix(name)?.split_whitespace().next()?.parse().ok());
    value.with_context(|| format!("{name} in {file}"))
}

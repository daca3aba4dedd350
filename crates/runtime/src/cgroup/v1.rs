//! Version 1: one hierarchy per controller (kernel: admin-guide/cgroup-v1).

use super::{read_field, read_number, write};
use crate::driver::{DriverError, Result, Stats};
use sandcrab_api::sandbox::Limits;
use std::io;
use std::path::Path;

/// The period of the CPU bandwidth limit in microseconds; the kernel's default.
const CPU_PERIOD_USEC: f64 = 100_000.0;

/// Makes a directory ready for groups in it. A group of cpuset without CPUs and memory takes no process, and by itself a
/// new one has none: these begin as their parent is, and that has all that its own parent has.
pub(super) fn prepare(controller: &str, dir: &Path) -> io::Result<()> {
    if controller != "cpuset" {
        return Ok(());
    }
    let above = dir.parent().ok_or(io::ErrorKind::NotFound)?;
    for name in ["cpuset.cpus", "cpuset.mems"] {
        let all = std::fs::read_to_string(above.join(name))?;
        if std::fs::read_to_string(dir.join(name))? != all {
            std::fs::write(dir.join(name), all)?;
        }
    }
    std::fs::write(dir.join("cgroup.clone_children"), "1")
}

pub(super) fn limit(controller: &str, dir: &Path, limits: &Limits, cpus: Option<&[usize]>) -> Result<()> {
    match controller {
        "memory" => {
            if let Some(memory) = limits.memory {
                // Kernel memory counts into this too; it has had no limit of its own since Linux 5.11.
                write(&dir.join("memory.limit_in_bytes"), &memory.0)?;
                // Memory and swap together; the file is missing where swap is not accounted.
                let swap = dir.join("memory.memsw.limit_in_bytes");
                if swap.exists() {
                    write(&swap, &memory.0)?;
                }
            }
        }
        "pids" => {
            if let Some(pids) = limits.pids {
                write(&dir.join("pids.max"), &pids)?;
            }
        }
        "cpu" => {
            if let Some(cpu) = limits.cpu {
                write(&dir.join("cpu.cfs_period_us"), &(CPU_PERIOD_USEC as u64))?;
                write(&dir.join("cpu.cfs_quota_us"), &((cpu * CPU_PERIOD_USEC).max(1000.0) as u64))?;
            }
        }
        "cpuset" => {
            if let Some(cpus) = cpus {
                let list: Vec<String> = cpus.iter().map(usize::to_string).collect();
                write(&dir.join("cpuset.cpus"), &list.join(","))?;
            }
        }
        _ => {}
    }
    Ok(())
}

pub(super) fn stats(controller: &str, dir: &Path, stats: &mut Stats) {
    match controller {
        "memory" => {
            stats.memory = read_number(&dir.join("memory.usage_in_bytes"));
            stats.memory_peak = read_number(&dir.join("memory.max_usage_in_bytes"));
            stats.oom_kills = read_field(&dir.join("memory.oom_control"), "oom_kill");
        }
        "pids" => stats.pids = read_number(&dir.join("pids.current")),
        _ => {}
    }
}

pub(super) fn remove(dir: &Path) -> Result<()> {
    match std::fs::remove_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(DriverError::io("remove cgroup", dir.display())(error))
        }
        _ => Ok(()),
    }
}

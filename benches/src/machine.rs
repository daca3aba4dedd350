//! What the figures were measured on, without which they say little.

use std::fs;

/// How many processes wanted a CPU over the last minute, by the kernel's word.
pub(crate) fn load() -> Option<String> {
    Some(fs::read_to_string("/proc/loadavg").ok()?.split_whitespace().next()?.to_owned())
}

/// One line about this machine; `load` is what it was before the run.
pub(crate) fn described(load: Option<String>) -> String {
    let unknown = || "unknown".to_owned();
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cpu = cpu.map_or_else(unknown, |(_, name)| name.to_owned());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")
        .map_or_else(|_| unknown(), |text| text.trim().into());
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = load.unwrap_or_else(unknown);
    format!(
        "Machine: {cores} CPUs ({cpu}), kernel {kernel}; load before the run {load}, which should be near 0."
    )
}

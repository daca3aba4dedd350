//! The report without what differs from one sandbox, machine or kernel to the next.

use std::collections::BTreeMap;

use super::{Outcome, Report};

/// Options of file systems that isolation rests on. The others are paths, sizes, ids, or a newer kernel's words.
const OPTIONS: [&str; 8] = ["hidepid", "mode", "ptmxmode", "redirect_dir", "ro", "rw", "subset", "userxattr"];

/// Outcomes that mean "no". Which one depends on what the kernel was built with and on which layer answers first.
const REFUSALS: [&str; 7] = ["EACCES", "EAFNOSUPPORT", "ENOSPC", "ENOSYS", "EPERM", "ESRCH", "SIGSYS"];

/// Files that tell what every process of a machine may know. Which of them exist depends on the kernel.
const INFORMATIVE: [&str; 10] = [
    "/proc/bus",
    "/proc/config.gz",
    "/proc/fs",
    "/proc/iomem",
    "/proc/irq",
    "/proc/kallsyms",
    "/proc/modules",
    "/proc/slabinfo",
    "/proc/vmallocinfo",
    "/sys/module",
];

/// Limits that isolation sets; the others come from the size of the machine.
const LIMITS: [&str; 3] = ["core", "nice", "rtprio"];

impl Report {
    /// The same report, fit for a snapshot: what isolation is made of stays, the rest is left out or replaced.
    ///
    /// Numbers of namespaces, sockets, processes and id ranges become `*`, 0 or none. All ways to refuse are `refused`;
    /// files that are masked, absent or harmless to read are left out, as are mounts that mask, one by one, below /proc
    /// and /sys.
    #[must_use]
    pub fn stable(mut self) -> Self {
        for namespace in self.namespaces.values_mut() {
            namespace.id = None;
        }
        for range in self.identity.uid_map.iter_mut().chain(&mut self.identity.gid_map) {
            range.outside = None;
        }
        for text in self.descriptors.values_mut().chain(self.environment.values_mut()) {
            *text = redacted(text);
        }
        self.stabilise_mounts();
        self.devices.retain(|path, _| {
            let terminal = path.strip_prefix("/dev/pts/");
            terminal.is_none_or(|name| name.parse::<u32>().is_err())
        });
        self.kernel_files.retain(|path, access| {
            // What is written to a mask is lost.
            let writable = access.write == "ok" && access.read != "empty";
            let readable = access.read == "ok" && !INFORMATIVE.contains(&path.as_str());
            access.read = refused(&access.read);
            access.write = refused(&access.write);
            writable || readable || path.starts_with("/proc/1/")
        });
        // Which hierarchies there are depends on the machine; one that shows its root alone tells nothing.
        let told = self.cgroups.paths.values().filter(|path| *path != "/");
        let mut paths: Vec<String> = told.map(|path| redacted(path)).collect();
        paths.sort_unstable();
        paths.dedup();
        self.cgroups.paths = (1..).map(|number: u32| number.to_string()).zip(paths).collect();
        let mut commands: Vec<String> = self.processes.into_values().collect();
        commands.sort_unstable();
        self.processes = (1..).zip(commands).collect();
        for outcomes in [&mut self.syscalls, &mut self.sockets, &mut self.foreign_calls] {
            for outcome in outcomes.values_mut() {
                *outcome = refused(outcome);
            }
        }
        for socket in self.network.abstract_sockets.iter_mut().chain(&mut self.network.path_sockets) {
            *socket = redacted(socket);
        }
        self.limits = limits(self.limits);
        self.hostname = redacted(&self.hostname);
        "*".clone_into(&mut self.kernel);
        self.cpus = 0;
        self.setuid_files = 0;
        self.security.landlock = None;
        let keyring = &mut self.security.session_keyring;
        *keyring = if keyring.parse::<i32>().is_ok() { "*".to_owned() } else { refused(keyring) };
        self.security.keys = refused(&self.security.keys);
        self
    }

    fn stabilise_mounts(&mut self) {
        let masks = |at: &str| (at.starts_with("/proc/") || at.starts_with("/sys/")) && at != "/proc/sys";
        self.mounts.retain(|mount| !masks(&mount.at));
        for mount in &mut self.mounts {
            mount.root = redacted(&mount.root);
            if mount.at.starts_with("/dev/") && mount.root != "/" {
                // A single device, on the file system that the host has for them.
                "*".clone_into(&mut mount.kind);
                mount.options.clear();
            }
            let name = |option: &str| option.split_once('=').map_or(option, |(name, _)| name).to_owned();
            mount.options.retain(|option| OPTIONS.contains(&name(option).as_str()));
            for option in &mut mount.propagation {
                let kind = option.split_once(':').map_or(option.as_str(), |(kind, _)| kind);
                *option = format!("{kind}:*");
            }
        }
    }
}

fn refused(outcome: &str) -> Outcome {
    if REFUSALS.contains(&outcome) { "refused".to_owned() } else { outcome.to_owned() }
}

fn limits(all: BTreeMap<String, (Option<u64>, Option<u64>)>) -> BTreeMap<String, (Option<u64>, Option<u64>)> {
    all.into_iter().filter(|(name, _)| LIMITS.contains(&name.as_str())).collect()
}

/// The text with `*` for every run of at least eight hexadecimal digits and every number in brackets.
fn redacted(text: &str) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let end = rest.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        let in_brackets = result.ends_with('[') && after.starts_with(']');
        if run.len() >= 8 || !run.is_empty() && in_brackets {
            result.push('*');
            rest = after;
        } else if run.is_empty() {
            result.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            result.push_str(run);
            rest = after;
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_between_runs_is_replaced() {
        assert_eq!(redacted("pipe:[1234]"), "pipe:[*]");
        assert_eq!(redacted("/run/s/0123456789abcdef/sock"), "/run/s/*/sock");
        assert_eq!(redacted("sandbox-é-12"), "sandbox-é-12");
        assert_eq!(redacted("/face/1"), "/face/1");
    }
}

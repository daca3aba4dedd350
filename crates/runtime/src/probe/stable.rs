//! The report without what differs from one sandbox or one machine to the next.

use super::Report;

/// Options of file systems whose values are paths of the host, sizes or ids.
const VOLATILE_OPTIONS: [&str; 9] =
    ["gid", "lowerdir", "lowerdir+", "nr_inodes", "size", "uid", "upperdir", "workdir", "inode64"];

impl Report {
    /// The same report, fit for a snapshot: ids of namespaces, sockets and id ranges, numbers of processes, values
    /// that depend on the machine's size and kernel are replaced by `*`, 0 or none. What isolation is made of stays.
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
        for mount in &mut self.mounts {
            mount.root = redacted(&mount.root);
            for option in &mut mount.options {
                if let Some((name, _)) = option.split_once('=')
                    && VOLATILE_OPTIONS.contains(&name)
                {
                    *option = format!("{name}=*");
                }
            }
            mount.options.dedup();
            for option in &mut mount.propagation {
                let name = option.split_once(':').map_or(option.as_str(), |(name, _)| name);
                *option = format!("{name}:*");
            }
        }
        self.devices.retain(|path, _| {
            let terminal = path.strip_prefix("/dev/pts/");
            terminal.is_none_or(|name| name.parse::<u32>().is_err())
        });
        for path in self.cgroups.paths.values_mut() {
            *path = redacted(path);
        }
        let mut commands: Vec<String> = self.processes.into_values().collect();
        commands.sort_unstable();
        self.processes = (1..).zip(commands).collect();
        for socket in self.network.abstract_sockets.iter_mut().chain(&mut self.network.path_sockets) {
            *socket = redacted(socket);
        }
        self.hostname = redacted(&self.hostname);
        "*".clone_into(&mut self.kernel);
        self.cpus = 0;
        self.setuid_files = 0;
        self.security.landlock = None;
        if self.security.session_keyring.parse::<i32>().is_ok() {
            "*".clone_into(&mut self.security.session_keyring);
        }
        self
    }
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

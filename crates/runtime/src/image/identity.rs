//! The few files that tell one sandbox from another. No layer can hold them: layers are shared.

use std::path::PathBuf;

/// A file that the driver writes into a new sandbox's upper directory, owned by the sandbox's root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityFile {
    /// Absolute, inside the sandbox.
    pub path: PathBuf,
    /// The whole content.
    pub content: String,
    /// Permission bits.
    pub mode: u32,
}

/// The identity of a sandbox with this host name: hostname, hosts, and a fresh random machine-id.
///
/// Call it once per sandbox, clones and warm-pool members included: two machines that share a machine-id share
/// whatever programs derive from it (attack C11).
pub fn files(hostname: &str) -> Vec<IdentityFile> {
    let file = |path: &str, content: String, mode| IdentityFile { path: PathBuf::from(path), content, mode };
    vec![
        file("/etc/hostname", format!("{hostname}\n"), 0o644),
        file("/etc/hosts", hosts(hostname), 0o644),
        file("/etc/machine-id", format!("{}\n", machine_id()), 0o444),
    ]
}

/// How names are looked up in a sandbox that shares the host's network: as on the host.
pub(crate) fn name_servers() -> IdentityFile {
    // Without it, names are not looked up: as on a host that has none.
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    IdentityFile { path: PathBuf::from("/etc/resolv.conf"), content: resolv_conf(&text), mode: 0o644 }
}

/// What resolv.conf(5) knows of a file; comments are for the machine's owner.
fn resolv_conf(text: &str) -> String {
    let known = ["nameserver", "search", "domain", "options", "sortlist"];
    let says = |line: &&str| line.split_whitespace().next().is_some_and(|word| known.contains(&word));
    text.lines().filter(says).map(|line| format!("{line}\n")).collect()
}

/// The content of `/etc/hosts` for this host name.
pub(crate) fn hosts(hostname: &str) -> String {
    format!(
        "127.0.0.1\tlocalhost\n127.0.1.1\t{hostname}\n\
         ::1\tlocalhost ip6-localhost ip6-loopback\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n"
    )
}

/// 32 hex digits of a random UUID, version 4: the form that machine-id(5) asks for.
fn machine_id() -> String {
    let mut bytes: [u8; 16] = rand::random();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c11_every_sandbox_has_a_machine_id_of_its_own() {
        let (one, other) = (files("a"), files("a"));
        let id = |files: &[IdentityFile]| {
            files.iter().find(|file| file.path.ends_with("machine-id")).unwrap().content.clone()
        };
        assert_ne!(id(&one), id(&other));
        let text = id(&one);
        assert_eq!(text.len(), 33);
        assert!(text.trim_end().chars().all(|digit| digit.is_ascii_digit() || ('a'..='f').contains(&digit)));
        assert_eq!(&text[12..13], "4");
    }

    #[test]
    fn name_servers_come_without_comments() {
        let text = "# by hand: ask Bob\nnameserver 10.0.0.1\n; x\n  options edns0\n\nsearch a b\n";
        assert_eq!(resolv_conf(text), "nameserver 10.0.0.1\n  options edns0\nsearch a b\n");
    }

    #[test]
    fn the_host_name_resolves_inside() {
        assert!(hosts("box").contains("127.0.1.1\tbox\n"));
        assert!(hosts("box").contains("127.0.0.1\tlocalhost\n"));
    }
}

//! The users and groups inside: those that packages made on the host, without its people and without passwords.

use std::collections::BTreeSet;
use std::fmt::Write as _;

/// Ids from here on belong to people, up to `nobody`.
const FIRST_PERSON: u32 = 1000;
const NOBODY: u32 = 65534;

/// The account files of a sandbox.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Accounts {
    pub(super) passwd: String,
    pub(super) shadow: String,
    pub(super) group: String,
    pub(super) gshadow: String,
}

/// Takes the system's accounts from the host's `/etc/passwd` and `/etc/group`.
///
/// A system account that can log in is taken only if dpkg's `statoverride` names it (dpkg refuses to work when a name
/// there is unknown): a person may have been given a low id. Nobody has a password, and no group has members.
pub(super) fn accounts(passwd: &str, group: &str, statoverride: &str, root_shell: &str) -> Accounts {
    let mut result = Accounts {
        passwd: format!("root:x:0:0:root:/root:{root_shell}\n"),
        shadow: "root:*:::::::\n".into(),
        group: "root:x:0:\n".into(),
        gshadow: "root:*::\n".into(),
    };
    let needed: BTreeSet<&str> =
        statoverride.lines().flat_map(|line| line.split_whitespace().take(2)).collect();
    let mut seen = BTreeSet::from(["root"]);
    for line in passwd.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, _, home, shell] = fields[..] else { continue };
        let (Ok(uid), Ok(gid)) = (uid.parse::<u32>(), gid.parse::<u32>()) else { continue };
        let locked = ["nologin", "false", "sync"].iter().any(|end| shell.ends_with(end));
        if system(uid) && valid(name) && (locked || needed.contains(name)) && seen.insert(name) {
            // Writing to a String cannot fail.
            let _ = writeln!(result.passwd, "{name}:x:{uid}:{gid}::{home}:{shell}");
            let _ = writeln!(result.shadow, "{name}:*:::::::");
        }
    }
    let mut seen = BTreeSet::from(["root"]);
    for line in group.lines() {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, gid, _] = fields[..] else { continue };
        let Ok(gid) = gid.parse::<u32>() else { continue };
        if system(gid) && valid(name) && seen.insert(name) {
            let _ = writeln!(result.group, "{name}:x:{gid}:");
            let _ = writeln!(result.gshadow, "{name}:*::");
        }
    }
    if !result.passwd.contains("\nnobody:") {
        result.passwd.push_str("nobody:x:65534:65534::/nonexistent:/usr/sbin/nologin\n");
        result.shadow.push_str("nobody:*:::::::\n");
    }
    if !result.group.lines().any(|line| line.contains(":65534:")) {
        result.group.push_str("nogroup:x:65534:\n");
        result.gshadow.push_str("nogroup:*::\n");
    }
    result
}

fn system(id: u32) -> bool {
    id != 0 && id < FIRST_PERSON || id == NOBODY
}

fn valid(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_accounts_come_and_people_stay_outside() {
        let passwd = "root:x:0:0:the owner:/root:/usr/bin/zsh\ndaemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n\
                      bob:x:500:500:Bob Old:/home/bob:/bin/bash\npostgres:x:101:104::/var/lib/postgresql:/bin/bash\n\
                      alice:x:1000:1000:Alice:/home/alice:/bin/bash\nbroken\nnobody:x:65534:65534::/:/bin/false\n";
        let group = "root:x:0:alice\nadm:x:4:alice,bob\nalice:x:1000:\nnogroup:x:65534:\n";
        let made =
            accounts(passwd, group, "root messagebus 4754 /x\npostgres ssl-cert 710 /y\n", "/bin/bash");
        assert_eq!(
            made.passwd,
            "root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1::/usr/sbin:/usr/sbin/nologin\n\
             postgres:x:101:104::/var/lib/postgresql:/bin/bash\nnobody:x:65534:65534::/:/bin/false\n"
        );
        assert_eq!(made.group, "root:x:0:\nadm:x:4:\nnogroup:x:65534:\n");
        assert_eq!(made.shadow, "root:*:::::::\ndaemon:*:::::::\npostgres:*:::::::\nnobody:*:::::::\n");
        assert!(!format!("{made:?}").to_lowercase().contains("alice"));
    }

    #[test]
    fn an_empty_host_still_has_root_and_nobody() {
        let made = accounts("", "", "", "/bin/sh");
        assert!(
            made.passwd.starts_with("root:x:0:0:root:/root:/bin/sh\n") && made.passwd.contains("\nnobody:")
        );
        assert!(made.group.contains("nogroup:x:65534:"));
        assert_eq!(made.passwd.lines().count(), made.shadow.lines().count());
        assert_eq!(made.group.lines().count(), made.gshadow.lines().count());
    }
}

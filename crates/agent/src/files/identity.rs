//! Whose rights a file call has: the sandbox's user's, and nothing of the agent's (contract F02).
//!
//! The agent is PID 1 and has capabilities over all ids of its namespace; the user's processes live in a child
//! namespace that lacks the agent's own uid and gid. A thread cannot enter that namespace (setns refuses one in a
//! process with threads), so a file call borrows the user's *identity* instead: fsuid, fsgid, no supplementary
//! groups, and of the agent's effective capabilities none. New files belong to the user by themselves, and the
//! kernel makes every permission check as for one of the user's own processes. This is [`Rights::Plain`], and nearly
//! every call ends with it, because the user owns nearly every file.
//!
//! Where the sandbox's user is root, it may more than the permission bits say, by `CAP_CHOWN`, `CAP_DAC_OVERRIDE`,
//! `CAP_DAC_READ_SEARCH`, `CAP_FOWNER` and `CAP_FSETID` in its own namespace. So a call that was denied is tried
//! again with [`Rights::Powers`]: those of the five that the user has, raised for the call. The kernel lets a
//! capability count for an inode only if the namespace maps both its uid and its gid. The two namespaces differ in
//! exactly the agent's uid and gid, so that is all the agent could do beyond the user: override the permissions of
//! files that belong to the agent. Hence with [`Rights::Powers`] the thing itself and each directory above it is
//! looked at: one that has the agent's uid or gid counts for what its bits allow to others, which is what the
//! user's root has there too (see `Access::vet` in `root.rs`).
//!
//! Rootless there is one uid for both, and no switch: the calls drop the capabilities in the same way, and the
//! agent's files are the user's files, as `doctor` says.
//!
//! Rights are put on for one synchronous stretch on a blocking thread and taken off at its end, because the runtime
//! lends the same threads to other work.

use super::sys;
use rustix::fs::{Gid, Statx};
use rustix::io::Errno;
use rustix::process::{getgid, getgroups, getuid};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_thread_groups};
use sandcrab_api::launch::UserIdentity;

/// Capabilities that decide about files (capabilities(7), `CAP_FS_SET` less what sandboxes never have).
const FILE_POWERS: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID);

/// With what a call is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rights {
    /// The user's ids and what permission bits grant them.
    Plain,
    /// Also the capabilities of the user's root.
    Powers,
}

/// The sandbox's user, as file calls act for it.
#[derive(Debug)]
pub(crate) struct Identity {
    /// The user's ids in the agent's namespace.
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    switch: bool,
    powers: CapabilitySet,
    /// Ids that exist for the agent and not for the user.
    foreign_uid: Option<u32>,
    foreign_gid: Option<u32>,
    own: Own,
}

/// What a thread of the agent has of its own, and gets back after each call.
#[derive(Debug)]
struct Own {
    uid: u32,
    gid: u32,
    groups: Vec<Gid>,
    capabilities: CapabilitySets,
}

impl Identity {
    /// The identity of `user`; to be called by the agent's main thread, whose own ids every other thread shares.
    pub(crate) fn of(user: &UserIdentity) -> Result<Self, Errno> {
        let own = Own {
            uid: getuid().as_raw(),
            gid: getgid().as_raw(),
            groups: getgroups()?,
            capabilities: capabilities(None)?,
        };
        let (uid, gid) = if user.can_switch { (user.fs_uid, user.fs_gid) } else { (own.uid, own.gid) };
        // Capabilities come with being root: another uid loses them at its exec.
        let wanted = if user.uid == 0 {
            CapabilitySet::from_bits_retain(user.capabilities)
        } else {
            CapabilitySet::empty()
        };
        Ok(Self {
            uid,
            gid,
            switch: user.can_switch,
            powers: wanted & FILE_POWERS & own.capabilities.permitted,
            foreign_uid: (own.uid != uid).then_some(own.uid),
            foreign_gid: (own.gid != gid).then_some(own.gid),
            own,
        })
    }

    /// Whether [`Rights::Powers`] are more than [`Rights::Plain`].
    pub(crate) fn has_powers(&self) -> bool {
        !self.powers.is_empty()
    }

    /// Whether the user's capabilities do not reach a thing, because it belongs to the agent.
    pub(crate) fn is_foreign(&self, stat: &Statx) -> bool {
        Some(stat.stx_uid) == self.foreign_uid || Some(stat.stx_gid) == self.foreign_gid
    }

    /// Which of read (4), write (2) and execute (1) the user has, as `access(2)` would find; access control lists
    /// aside.
    pub(crate) fn access(&self, stat: &Statx, is_directory: bool) -> u16 {
        let mode = stat.stx_mode;
        let granted = if stat.stx_uid == self.uid {
            mode >> 6
        } else if stat.stx_gid == self.gid {
            mode >> 3
        } else {
            mode
        } & 0o7;
        if self.is_foreign(stat) {
            return granted;
        }
        let mut overridden = 0;
        if self.powers.contains(CapabilitySet::DAC_OVERRIDE) {
            // Execution needs at least one x bit even of root, but for directories.
            overridden |= if is_directory || mode & 0o111 != 0 { 0o7 } else { 0o6 };
        }
        if self.powers.contains(CapabilitySet::DAC_READ_SEARCH) {
            overridden |= if is_directory { 0o5 } else { 0o4 };
        }
        granted | overridden
    }

    /// Puts the rights on the calling thread until the guard drops.
    pub(crate) fn act(&self, rights: Rights) -> Result<Acting<'_>, Errno> {
        let acting = Acting { identity: self };
        if self.switch {
            if !self.own.groups.is_empty() {
                set_thread_groups(&[])?;
            }
            sys::set_fs_gid(self.gid)?;
            sys::set_fs_uid(self.uid)?;
        }
        // Last, since it takes the capability to switch along; setfsuid has its own idea of capabilities besides.
        let effective = match rights {
            Rights::Plain => CapabilitySet::empty(),
            Rights::Powers => self.powers,
        };
        set_capabilities(None, CapabilitySets { effective, ..self.own.capabilities })?;
        Ok(acting)
    }
}

/// The calling thread acts as the sandbox's user while this lives.
pub(crate) struct Acting<'a> {
    identity: &'a Identity,
}

impl Drop for Acting<'_> {
    fn drop(&mut self) {
        let own = &self.identity.own;
        let restored = (|| {
            // Returning to one's own ids needs no capability; raising what is permitted neither.
            if self.identity.switch {
                sys::set_fs_uid(own.uid)?;
                sys::set_fs_gid(own.gid)?;
            }
            set_capabilities(None, own.capabilities)?;
            if self.identity.switch && !own.groups.is_empty() {
                set_thread_groups(&own.groups)?;
            }
            Ok::<(), Errno>(())
        })();
        if let Err(errno) = restored {
            // The kernel refuses none of these. A thread that failed here has too few rights, never too many.
            tracing::error!(%errno, "a thread could not take its own identity back");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{AtFlags, CWD, Mode, OFlags, StatxFlags, openat, statx};

    fn user(uid: u32) -> UserIdentity {
        UserIdentity {
            fs_uid: uid,
            fs_gid: uid,
            can_switch: true,
            capabilities: u64::MAX,
            ..UserIdentity::default()
        }
    }

    #[test]
    fn f02_rights_are_the_users_while_the_guard_lives_and_the_agents_after() {
        assert!(getuid().is_root(), "this test needs root");
        let identity = Identity::of(&user(4_000_123)).unwrap();
        let before = capabilities(None).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path().join("secret");
        let open = || openat(CWD, &secret, OFlags::RDONLY, Mode::empty()).map(drop);
        openat(CWD, &secret, OFlags::CREATE | OFlags::WRONLY, Mode::from_raw_mode(0o600)).unwrap();

        for rights in [Rights::Plain, Rights::Powers] {
            let acting = identity.act(rights).unwrap();
            let now = capabilities(None).unwrap().effective;
            assert_eq!(now, if rights == Rights::Plain { CapabilitySet::empty() } else { FILE_POWERS });
            assert!(getgroups().unwrap().is_empty());
            assert_eq!(open().is_err(), rights == Rights::Plain, "{rights:?}");
            drop(acting);
            assert_eq!(capabilities(None).unwrap(), before);
            assert_eq!(getgroups().unwrap(), identity.own.groups);
            assert!(open().is_ok());
        }
    }

    #[test]
    fn f02_what_belongs_to_the_agent_is_foreign_and_its_bits_count() {
        let identity = Identity::of(&user(4_000_123)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let of = |mode: u32| {
            let path = folder.path().join(format!("{mode:o}"));
            let file =
                openat(CWD, &path, OFlags::CREATE | OFlags::WRONLY, Mode::from_raw_mode(0o600)).unwrap();
            rustix::fs::fchmod(&file, Mode::from_raw_mode(mode)).unwrap();
            statx(&file, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS).unwrap()
        };
        assert!(identity.is_foreign(&of(0o600)));
        assert_eq!(identity.access(&of(0o600), false), 0);
        assert_eq!(identity.access(&of(0o774), false), 0o4);
        let mut theirs = of(0o640);
        (theirs.stx_uid, theirs.stx_gid) = (4_000_999, 4_000_999);
        assert_eq!(identity.access(&theirs, false), 0o6, "root's capabilities, but no x bit");
        let ordinary = UserIdentity { uid: 1000, ..user(4_000_123) };
        assert_eq!(Identity::of(&ordinary).unwrap().access(&theirs, false), 0);
    }
}

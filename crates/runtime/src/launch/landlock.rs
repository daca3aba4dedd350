//! The second layer on file access.
//!
//! One rule: everything below the sandbox's root is allowed, as far as mount flags and modes allow it, and nothing
//! else in the world is. A descriptor of a host directory that reached the sandbox by any mistake leads nowhere, mounts
//! cannot be changed whatever capabilities are held, device nodes cannot be made, and signals and abstract sockets do
//! not pass the sandbox's edge. The agent is inside, so that all sessions share one domain and can trace each other.

use rustix::fs::{Mode, OFlags};
use std::os::fd::BorrowedFd;

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr, RulesetCreatedAttr,
    RulesetStatus, Scope,
};

/// What stays open: the sandbox's root and what the agent was handed from outside. No path leads there from inside.
pub(crate) struct Open<'a> {
    /// The sandbox's root.
    pub(crate) root: BorrowedFd<'a>,
    /// Where message queues are mounted.
    pub(crate) queues: BorrowedFd<'a>,
    /// The agent's program, which is executed after this: the only file out there that may be.
    pub(crate) agent: BorrowedFd<'a>,
    /// Where the agent keeps output, and content that is to come into files.
    pub(crate) spool: BorrowedFd<'a>,
    /// The delegated cgroup2 directory.
    pub(crate) groups: Option<BorrowedFd<'a>>,
    /// The memory cgroup's directory.
    pub(crate) memory: Option<BorrowedFd<'a>>,
}

/// Restricts the calling process and all that come from it. Says in words why it could not.
pub(crate) fn restrict(open: &Open<'_>) -> Result<(), String> {
    let handled = AccessFs::from_all(ABI::V5);
    let allowed = handled & !(AccessFs::MakeChar | AccessFs::MakeBlock);
    let say = |error: landlock::RulesetError| error.to_string();
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let manage = read | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::MakeDir | AccessFs::RemoveDir;
    let keep = read | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::MakeReg | AccessFs::RemoveFile;
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(handled)
        .map_err(say)?
        .scope(Scope::from_all(ABI::V6))
        .map_err(say)?
        .create()
        .map_err(say)?
        .add_rule(PathBeneath::new(open.root, allowed))
        .map_err(say)?
        // Message queues are opened through a mount that the kernel keeps to itself; its root is the same as here.
        .add_rule(PathBeneath::new(open.queues, allowed))
        .map_err(say)?
        .add_rule(PathBeneath::new(open.agent, AccessFs::Execute | AccessFs::ReadFile))
        .map_err(say)?
        .add_rule(PathBeneath::new(open.spool, keep))
        .map_err(say)?;
    for (directory, access) in [(open.groups, manage), (open.memory, read)] {
        if let Some(directory) = directory {
            rules = rules.add_rule(PathBeneath::new(directory, access)).map_err(say)?;
        }
    }
    let status = rules.restrict_self().map_err(say)?;
    match status.ruleset {
        RulesetStatus::NotEnforced => Err("the kernel enforces none of it".into()),
        RulesetStatus::PartiallyEnforced | RulesetStatus::FullyEnforced => Ok(()),
    }
}

/// Proves that a directory outside cannot be opened.
pub(crate) fn confirm(outside: BorrowedFd<'_>) -> Result<(), String> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match rustix::fs::openat(outside, ".", flags, Mode::empty()) {
        Err(rustix::io::Errno::ACCESS) => Ok(()),
        Ok(_) => Err("a directory outside can be opened in spite of Landlock".into()),
        Err(error) => Err(format!("a directory outside is refused by {error} and not by Landlock")),
    }
}

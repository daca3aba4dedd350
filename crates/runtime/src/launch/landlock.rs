//! The second layer on file access.
//!
//! One rule: everything below the sandbox's root is allowed, as far as mount flags and modes allow it, and nothing
//! else in the world is. A descriptor of a host directory that reached the sandbox by any mistake leads nowhere, mounts
//! cannot be changed whatever capabilities are held, device nodes cannot be made, and signals and abstract sockets do
//! not pass the sandbox's edge. The agent is inside, so that all sessions share one domain and can trace each other.

use std::os::fd::BorrowedFd;

use landlock::{
    ABI, Access, AccessFs, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetStatus, Scope,
};

/// Restricts the calling process and all that come from it. Says in words why it could not.
///
/// The agent's own program lies outside and has to be executed after this: the only file out there that may be.
/// So do the cgroups that the agent was handed: nobody else can reach them, they are mounted nowhere inside.
pub(crate) fn restrict(
    agent: BorrowedFd<'_>,
    groups: Option<BorrowedFd<'_>>,
    memory: Option<BorrowedFd<'_>>,
) -> Result<(), String> {
    let handled = AccessFs::from_all(ABI::V5);
    let allowed = handled & !(AccessFs::MakeChar | AccessFs::MakeBlock);
    let say = |error: landlock::RulesetError| error.to_string();
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let manage = read | AccessFs::WriteFile | AccessFs::Truncate | AccessFs::MakeDir | AccessFs::RemoveDir;
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(handled)
        .map_err(say)?
        .scope(Scope::from_all(ABI::V6))
        .map_err(say)?
        .create()
        .map_err(say)?
        .add_rule(PathBeneath::new(PathFd::new("/").map_err(|error| error.to_string())?, allowed))
        .map_err(say)?
        // Message queues are opened through a mount that the kernel keeps to itself; its root is the same as here.
        .add_rule(PathBeneath::new(PathFd::new("/dev/mqueue").map_err(|error| error.to_string())?, allowed))
        .map_err(say)?
        .add_rule(PathBeneath::new(agent, AccessFs::Execute | AccessFs::ReadFile))
        .map_err(say)?;
    for (directory, access) in [(groups, manage), (memory, read)] {
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

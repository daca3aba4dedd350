//! The system call filter of user code: policy as data (`policy.json`), compiled for the kernel.

mod bpf;
mod names;

use bpf::{Action, Test};
use serde::Deserialize;

/// Whose uid the agent has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Agent {
    /// One that user code does not have.
    Apart,
    /// The same: what could disturb the agent by its process id is refused here.
    SameId,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Policy {
    #[serde(rename = "about")]
    _about: String,
    allow: Vec<Allow>,
    allow_unless_single_id: Vec<AllowUnlessSingleId>,
    conditional: Vec<Conditional>,
    refuse: Vec<Refuse>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Allow {
    #[serde(rename = "why")]
    _why: String,
    calls: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AllowUnlessSingleId {
    #[serde(rename = "why")]
    _why: String,
    /// Which argument is the process id.
    argument: u8,
    calls: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Conditional {
    #[serde(rename = "why")]
    _why: String,
    calls: Vec<String>,
    errno: Errno,
    #[serde(default)]
    when: Vec<Condition>,
    #[serde(default)]
    unless: Vec<Condition>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Refuse {
    #[serde(rename = "why")]
    _why: String,
    errno: Errno,
    calls: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Condition {
    argument: u8,
    #[serde(default)]
    mask: Option<String>,
    value: String,
    #[serde(default)]
    and: Option<Box<Condition>>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Errno {
    Enosys,
    Eperm,
    Eafnosupport,
}

/// A policy that cannot be compiled.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// It is not the JSON that is expected.
    #[error("the system call policy is not readable")]
    Syntax(#[source] serde_json::Error),
    /// It names a call that this build does not know.
    #[error("the system call policy names {0:?}, which is no system call")]
    UnknownCall(String),
    /// A call stands in two rules.
    #[error("the system call policy has two rules for {0:?}")]
    Twice(String),
    /// A number that is none.
    #[error("the system call policy has {0:?} where a number belongs")]
    Number(String),
}

impl Errno {
    fn number(self) -> u16 {
        (match self {
            Self::Enosys => libc::ENOSYS,
            Self::Eperm => libc::EPERM,
            Self::Eafnosupport => libc::EAFNOSUPPORT,
        }) as u16
    }
}

fn number(text: &str) -> Result<u32, PolicyError> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| PolicyError::Number(text.to_owned()))
}

impl Condition {
    fn tests(&self) -> Result<Vec<Test>, PolicyError> {
        let mask = self.mask.as_deref().map_or(Ok(u32::MAX), number)?;
        let mut tests = vec![Test { argument: self.argument, mask, value: number(&self.value)? }];
        if let Some(and) = &self.and {
            tests.extend(and.tests()?);
        }
        Ok(tests)
    }
}

impl Policy {
    fn rules(&self, agent: Agent) -> Result<Vec<(u32, Action)>, PolicyError> {
        let mut rules: Vec<(u32, Action)> = Vec::new();
        let mut add = |calls: &[String], action: &Action| {
            for call in calls {
                match names::number(call) {
                    Some(number) if rules.iter().any(|(other, _)| *other == number) => {
                        return Err(PolicyError::Twice(call.clone()));
                    }
                    Some(number) => rules.push((number, action.clone())),
                    None if names::ABSENT.contains(&call.as_str()) => {}
                    None => return Err(PolicyError::UnknownCall(call.clone())),
                }
            }
            Ok(())
        };
        for rule in &self.allow {
            add(&rule.calls, &Action::Allow)?;
        }
        for rule in &self.allow_unless_single_id {
            let agents_pid = Test { argument: rule.argument, mask: u32::MAX, value: 1 };
            let action = match agent {
                Agent::Apart => Action::Allow,
                Agent::SameId => Action::AllowUnless(vec![vec![agents_pid]], Errno::Eperm.number()),
            };
            add(&rule.calls, &action)?;
        }
        for rule in &self.conditional {
            let tests = |conditions: &[Condition]| -> Result<Vec<_>, _> {
                conditions.iter().map(Condition::tests).collect()
            };
            let errno = rule.errno.number();
            let action = if rule.unless.is_empty() {
                Action::AllowIf(tests(&rule.when)?, errno)
            } else {
                Action::AllowUnless(tests(&rule.unless)?, errno)
            };
            add(&rule.calls, &action)?;
        }
        for rule in &self.refuse {
            add(&rule.calls, &Action::Errno(rule.errno.number()))?;
        }
        rules.sort_by_key(|(number, _)| *number);
        Ok(rules)
    }
}

fn policy() -> Result<Policy, PolicyError> {
    serde_json::from_str(include_str!("policy.json")).map_err(PolicyError::Syntax)
}

fn program(agent: Agent) -> Result<Vec<bpf::Instruction>, PolicyError> {
    Ok(bpf::compile(&policy()?.rules(agent)?, Errno::Enosys.number()))
}

/// The filter for user code, as an array of `struct sock_filter` in base64.
///
/// # Errors
/// Only if this build's own policy is broken, which a test would have shown.
pub(crate) fn user_filter(agent: Agent) -> Result<String, PolicyError> {
    use base64::Engine;
    let mut bytes = Vec::new();
    for instruction in program(agent)? {
        bytes.extend(instruction.code.to_ne_bytes());
        bytes.extend([instruction.jump_true, instruction.jump_false]);
        bytes.extend(instruction.value.to_ne_bytes());
    }
    Ok(base64::engine::general_purpose::STANDARD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::LazyLock;

    static PROGRAMS: LazyLock<[Vec<bpf::Instruction>; 2]> =
        LazyLock::new(|| [Agent::Apart, Agent::SameId].map(|agent| program(agent).unwrap()));

    fn verdict(agent: Agent, call: &str, arguments: &[u64]) -> u32 {
        let mut all = [0; 6];
        all[..arguments.len()].copy_from_slice(arguments);
        bpf::run(&PROGRAMS[agent as usize], bpf::NATIVE, names::number(call).unwrap(), all)
    }

    fn errno(number: i32) -> u32 {
        bpf::ERRNO | number as u32
    }

    #[test]
    fn every_known_call_stands_in_one_rule() {
        let rules = policy().unwrap().rules(Agent::Apart).unwrap();
        let missing: Vec<_> =
            names::all().filter(|(_, number)| rules.iter().all(|(other, _)| other != number)).collect();
        assert_eq!(missing, []);
        assert_eq!(rules.len(), names::all().count());
    }

    #[test]
    fn each_call_gets_its_own_answer() {
        for (number, action) in policy().unwrap().rules(Agent::Apart).unwrap() {
            let seen = bpf::run(&PROGRAMS[0], bpf::NATIVE, number, [0; 6]);
            match action {
                Action::Allow => assert_eq!(seen, bpf::ALLOW, "{number}"),
                Action::Errno(expected) => assert_eq!(seen, errno(expected.into()), "{number}"),
                Action::AllowIf(..) | Action::AllowUnless(..) => {}
            }
        }
    }

    #[test]
    fn a10_new_namespaces_are_refused_by_any_way() {
        for flag in
            [0x0002_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000]
        {
            assert_eq!(verdict(Agent::Apart, "clone", &[flag | 17]), errno(libc::EPERM), "{flag:#x}");
            assert_eq!(verdict(Agent::Apart, "unshare", &[flag]), errno(libc::EPERM), "{flag:#x}");
        }
        assert_eq!(verdict(Agent::Apart, "unshare", &[0x80]), errno(libc::EPERM), "CLONE_NEWTIME");
        let thread =
            libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_FILES | libc::CLONE_SIGHAND | libc::CLONE_THREAD;
        assert_eq!(verdict(Agent::Apart, "clone", &[thread as u64]), bpf::ALLOW);
        assert_eq!(verdict(Agent::Apart, "unshare", &[libc::CLONE_FS as u64]), bpf::ALLOW);
        assert_eq!(verdict(Agent::Apart, "clone3", &[]), errno(libc::ENOSYS));
    }

    #[test]
    fn sockets_are_of_the_listed_families() {
        let allowed = [(1, 0), (2, 0), (2, 6), (10, 0), (16, 0), (16, 4)];
        for family in 0..46 {
            for protocol in 0..22 {
                let seen = verdict(Agent::Apart, "socket", &[family, 1, protocol]);
                let expected =
                    allowed.contains(&(family, protocol)) || (family != 16 && allowed.contains(&(family, 0)));
                let expected = if expected { bpf::ALLOW } else { errno(libc::EAFNOSUPPORT) };
                assert_eq!(seen, expected, "family {family} protocol {protocol}");
            }
        }
    }

    #[test]
    fn a21_terminals_take_no_foreign_input() {
        for request in [0x5412_u64, 0x541c, 0x541d, 0xdead_beef_0000_5412] {
            assert_eq!(verdict(Agent::Apart, "ioctl", &[0, request]), errno(libc::EPERM), "{request:#x}");
        }
        assert_eq!(verdict(Agent::Apart, "ioctl", &[0, 0x5401]), bpf::ALLOW, "TCGETS");
    }

    #[test]
    fn a28_with_one_id_the_agent_is_not_addressed() {
        for call in ["kill", "tgkill", "tkill", "prlimit64", "sched_setaffinity", "pidfd_open"] {
            assert_eq!(verdict(Agent::SameId, call, &[1]), errno(libc::EPERM), "{call}");
            assert_eq!(verdict(Agent::SameId, call, &[2]), bpf::ALLOW, "{call}");
            assert_eq!(verdict(Agent::Apart, call, &[1]), bpf::ALLOW, "{call}");
        }
        assert_eq!(verdict(Agent::SameId, "setpriority", &[0, 1]), errno(libc::EPERM));
        assert_eq!(verdict(Agent::SameId, "setpriority", &[1, 0]), bpf::ALLOW);
    }

    #[test]
    fn a20_other_architectures_end_the_process_and_x32_does_not_exist() {
        let program = program(Agent::Apart).unwrap();
        assert_eq!(bpf::run(&program, 0x4000_0003, 1, [0; 6]), bpf::KILL_PROCESS, "i386");
        assert_eq!(bpf::run(&program, bpf::NATIVE, 0x4000_0001, [0; 6]), errno(libc::ENOSYS), "x32");
        assert_eq!(bpf::run(&program, bpf::NATIVE, 999, [0; 6]), errno(libc::ENOSYS), "newer than this list");
    }

    #[test]
    fn jumps_reach_their_ends_in_long_programs() {
        let test = |value| Test { argument: 0, mask: u32::MAX, value };
        let rules: Vec<_> = (0..400)
            .map(|number| {
                (number, Action::AllowIf(vec![vec![test(number)], vec![test(7)]], number as u16 + 1))
            })
            .collect();
        let program = bpf::compile(&rules, 38);
        assert!(program.len() > 1024, "{}", program.len());
        for number in 0..400 {
            let run = |argument| bpf::run(&program, bpf::NATIVE, number, [argument, 0, 0, 0, 0, 0]);
            assert_eq!(run(u64::from(number)), bpf::ALLOW, "{number}");
            assert_eq!(run(7), bpf::ALLOW, "{number}");
            assert_eq!(run(1000), errno(number as i32 + 1), "{number}");
        }
        assert_eq!(bpf::run(&program, bpf::NATIVE, 400, [0; 6]), errno(38));
        assert_eq!(bpf::run(&program, 0, 3, [3; 6]), bpf::KILL_PROCESS);
    }

    #[test]
    fn the_program_is_short_and_flat() {
        let program = program(Agent::SameId).unwrap();
        assert!(program.len() < 256, "{}", program.len());
    }
}

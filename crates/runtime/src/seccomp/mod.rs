//! The system call filter of user code: policy as data (`policy.json`), compiled for the kernel.

mod bpf;
mod names;

use bpf::{Action, Answer, Compare, Half, Test};
use sandcrab_api::launch::AGENT_THREADS;
use sandcrab_api::sandbox::Isolation;
use serde::Deserialize;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

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
    optional: Vec<Optional>,
    by_process_id: Vec<ByProcessId>,
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
struct Optional {
    #[serde(rename = "why")]
    _why: String,
    option: Choice,
    errno: Word,
    calls: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ByProcessId {
    #[serde(rename = "why")]
    _why: String,
    /// Which argument is the process id.
    argument: u8,
    calls: Vec<String>,
    /// What would be the agent whatever the id is.
    #[serde(default)]
    everyone: Option<Condition>,
    #[serde(default)]
    cases: Vec<Case>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Conditional {
    #[serde(rename = "why")]
    _why: String,
    calls: Vec<String>,
    cases: Vec<Case>,
    otherwise: Word,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Refuse {
    #[serde(rename = "why")]
    _why: String,
    errno: Word,
    calls: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// The case is there only where this is chosen.
    #[serde(default)]
    option: Option<Choice>,
    #[serde(rename = "if")]
    condition: Condition,
    answer: Word,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Condition {
    argument: u8,
    #[serde(default)]
    half: Half,
    #[serde(default)]
    mask: Option<String>,
    value: String,
    #[serde(default)]
    and: Option<Box<Condition>>,
}

/// An isolation option that decides on a rule.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Choice {
    Debugging,
    SocketLists,
    AsyncIo,
}

/// An answer as the policy writes it.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Word {
    Allow,
    Ignore,
    Enosys,
    Eperm,
    Enomem,
    Einval,
    Enoprotoopt,
    Eafnosupport,
    Eprotonosupport,
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

impl Choice {
    fn holds(self, isolation: &Isolation) -> bool {
        match self {
            Self::Debugging => isolation.debugging(),
            Self::SocketLists => isolation.socket_lists(),
            Self::AsyncIo => isolation.async_io(),
        }
    }
}

impl Word {
    fn answer(self) -> Answer {
        let errno = |number: i32| Answer::Errno(number as u16);
        match self {
            Self::Allow => Answer::Allow,
            Self::Ignore => errno(0),
            Self::Enosys => errno(libc::ENOSYS),
            Self::Eperm => errno(libc::EPERM),
            Self::Enomem => errno(libc::ENOMEM),
            Self::Einval => errno(libc::EINVAL),
            Self::Enoprotoopt => errno(libc::ENOPROTOOPT),
            Self::Eafnosupport => errno(libc::EAFNOSUPPORT),
            Self::Eprotonosupport => errno(libc::EPROTONOSUPPORT),
        }
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
        let value = number(&self.value)?;
        let mut tests =
            vec![Test { argument: self.argument, half: self.half, mask, compare: Compare::Equal, value }];
        if let Some(and) = &self.and {
            tests.extend(and.tests()?);
        }
        Ok(tests)
    }
}

impl ByProcessId {
    /// What is refused because it would be done to the agent.
    fn protected(&self, agent: Agent) -> Result<Vec<(Vec<Test>, Answer)>, PolicyError> {
        if agent == Agent::Apart {
            return Ok(Vec::new());
        }
        let refused = Word::Eperm.answer();
        let compared = |compare, value| Test {
            argument: self.argument,
            half: Half::Low,
            mask: u32::MAX,
            compare,
            value,
        };
        // 0 is the caller.
        let threads = vec![compared(Compare::AtLeast, 1), compared(Compare::Below, AGENT_THREADS + 1)];
        let mut cases = vec![(threads, refused)];
        if let Some(everyone) = &self.everyone {
            cases.push((everyone.tests()?, refused));
        }
        Ok(cases)
    }
}

/// Cases in their order, without those whose option is not chosen.
fn cases(cases: &[Case], isolation: &Isolation) -> Result<Vec<(Vec<Test>, Answer)>, PolicyError> {
    let chosen = cases.iter().filter(|case| case.option.is_none_or(|option| option.holds(isolation)));
    chosen.map(|case| Ok((case.condition.tests()?, case.answer.answer()))).collect()
}

fn action(cases: Vec<(Vec<Test>, Answer)>, otherwise: Answer) -> Action {
    if cases.is_empty() { Action::Always(otherwise) } else { Action::Cases(cases, otherwise) }
}

impl Policy {
    fn rules(&self, agent: Agent, isolation: &Isolation) -> Result<Vec<(u32, Action)>, PolicyError> {
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
            add(&rule.calls, &Action::Always(Answer::Allow))?;
        }
        for rule in &self.optional {
            let chosen = rule.option.holds(isolation);
            add(&rule.calls, &Action::Always(if chosen { Answer::Allow } else { rule.errno.answer() }))?;
        }
        for rule in &self.by_process_id {
            let mut all = rule.protected(agent)?;
            all.extend(cases(&rule.cases, isolation)?);
            add(&rule.calls, &action(all, Answer::Allow))?;
        }
        for rule in &self.conditional {
            add(&rule.calls, &action(cases(&rule.cases, isolation)?, rule.otherwise.answer()))?;
        }
        for rule in &self.refuse {
            add(&rule.calls, &Action::Always(rule.errno.answer()))?;
        }
        rules.sort_by_key(|(number, _)| *number);
        Ok(rules)
    }
}

fn policy() -> Result<Policy, PolicyError> {
    serde_json::from_str(include_str!("policy.json")).map_err(PolicyError::Syntax)
}

fn program(agent: Agent, isolation: &Isolation) -> Result<Vec<bpf::Instruction>, PolicyError> {
    let rules = policy()?.rules(agent, isolation)?;
    Ok(bpf::compile(&rules, Word::Enosys.answer(), bpf::KILL_PROCESS))
}

/// The filter for user code, as an array of `struct sock_filter` in base64.
fn user_filter(agent: Agent, isolation: &Isolation) -> Result<String, PolicyError> {
    use base64::Engine;
    let mut bytes = Vec::new();
    for instruction in program(agent, isolation)? {
        bytes.extend(instruction.code.to_ne_bytes());
        bytes.extend([instruction.jump_true, instruction.jump_false]);
        bytes.extend(instruction.value.to_ne_bytes());
    }
    Ok(base64::engine::general_purpose::STANDARD.encode(bytes))
}

/// The filters for user code, each made when it is first wanted.
#[derive(Debug)]
pub(crate) struct Filters {
    agent: Agent,
    made: Mutex<HashMap<Isolation, Arc<str>>>,
}

impl Filters {
    pub(crate) fn new(agent: Agent) -> Self {
        Self { agent, made: Mutex::default() }
    }

    /// The filter of a sandbox with these options.
    ///
    /// # Errors
    /// Only if this build's own policy is broken, which a test would have shown.
    pub(crate) fn get(&self, isolation: &Isolation) -> Result<Arc<str>, PolicyError> {
        // Options that say the same are the same.
        let isolation = isolation.resolved();
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(filter) = made.get(&isolation) {
            return Ok(Arc::clone(filter));
        }
        let filter: Arc<str> = user_filter(self.agent, &isolation)?.into();
        made.insert(isolation, Arc::clone(&filter));
        Ok(filter)
    }
}

/// Requests of ptrace(2) that set options: PTRACE_SETOPTIONS, PTRACE_SEIZE, and the first one's older number.
const SETS_OPTIONS: [u32; 3] = [0x4200, 0x4206, 21];
const TRACE_EXIT: u32 = 0x40;

/// The filter that every process of a sandbox has, the agent too: a request to be told of another's exit
/// (PTRACE_O_TRACEEXIT), without which no process can hold up another's end, gets `answer`.
fn guard(answer: Answer) -> Vec<bpf::Instruction> {
    let low =
        |argument, mask, value| Test { argument, half: Half::Low, mask, compare: Compare::Equal, value };
    let case = |request| (vec![low(0, u32::MAX, request), low(3, TRACE_EXIT, TRACE_EXIT)], answer);
    let cases = SETS_OPTIONS.map(case).to_vec();
    let ptrace = (libc::SYS_ptrace as u32, Action::Cases(cases, Answer::Allow));
    bpf::compile(&[ptrace], Answer::Allow, bpf::ALLOW)
}

/// Installs the guard of ptrace in the calling process, which needs no_new_privs. Returns the descriptor through which
/// its requests are decided on; none where the server itself runs below such a listener, since a process can have one
/// only: there they are refused.
pub(crate) fn install_guard() -> std::io::Result<Option<std::os::fd::OwnedFd>> {
    match crate::sys::seccomp::install(&kernels(&guard(Answer::Ask)), true) {
        Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
            let refuse = kernels(&guard(Word::Eperm.answer()));
            crate::sys::seccomp::install(&refuse, false)
        }
        installed => installed,
    }
}

fn kernels(program: &[bpf::Instruction]) -> Vec<libc::sock_filter> {
    let convert = |i: &bpf::Instruction| libc::sock_filter {
        code: i.code,
        jt: i.jump_true,
        jf: i.jump_false,
        k: i.value,
    };
    program.iter().map(convert).collect()
}

#[cfg(test)]
mod tests;

//! Whose value a variable has (contract S11).
//!
//! Three layers: the sandbox's base environment, its variables (`setEnvVars` on the sandbox), and the session's own. A
//! session's own value is one that was given to the session or that a command in it made. So a sandbox's variable is
//! changed in a shell only where it still stands as the agent left it; the shell compares and changes in one step,
//! before the next command.

use super::protocol::Assignment;
use super::state::Exported;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

/// Variables to set (text) or unset (none).
pub type Changes = BTreeMap<String, Option<String>>;

/// The variables of a sandbox, shared by all of its sessions.
#[derive(Clone, Debug, Default)]
pub struct SandboxEnv(Arc<Mutex<Shared>>);

#[derive(Debug, Default)]
struct Shared {
    version: u64,
    base: BTreeMap<String, String>,
    set: Changes,
}

/// The sandbox's variables at one moment.
#[derive(Debug, Default)]
struct Snapshot {
    version: u64,
    variables: BTreeMap<String, String>,
}

impl SandboxEnv {
    /// Starts with the environment that every session has before anyone sets a variable.
    pub fn new(base: BTreeMap<String, String>) -> Self {
        Self(Arc::new(Mutex::new(Shared { version: 1, base, set: Changes::new() })))
    }

    /// Changes variables. Sessions see it from their next command.
    pub fn change(&self, changes: &Changes) {
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shared.version += 1;
        shared.set.extend(changes.iter().map(|(name, value)| (name.clone(), value.clone())));
    }

    /// The variables as they stand, without any session's.
    pub fn variables(&self) -> BTreeMap<String, String> {
        self.snapshot().variables
    }

    /// The variables that were set or unset on the sandbox, to be kept with it.
    pub fn changes(&self) -> Changes {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).set.clone()
    }

    fn version(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).version
    }

    fn snapshot(&self) -> Snapshot {
        let shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = shared.base.clone();
        for (name, value) in &shared.set {
            match value {
                Some(value) => drop(all.insert(name.clone(), value.clone())),
                None => drop(all.remove(name)),
            }
        }
        Snapshot { version: shared.version, variables: all }
    }
}

/// The variables of a session beside those that its shell has handed over: what a program that the session starts now
/// gets on top of the saved state (contract S11, S14).
#[derive(Clone, Debug, Default)]
pub(super) struct Standing {
    /// The session's own, all that were ever given.
    own: Changes,
    /// Those of them that the saved state does not have yet.
    due: Changes,
    /// The sandbox's variables as the saved state has them.
    saved: Arc<Snapshot>,
}

impl Standing {
    /// The environment to start a program in. `state` is the session's saved state, if it has one, and `waiting` what
    /// was given to the session after all else.
    pub(super) fn environment(
        &self,
        state: Option<Exported>,
        sandbox: &SandboxEnv,
        waiting: &Changes,
    ) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let now = sandbox.snapshot();
        let mut all = match state {
            None => {
                let mut all = as_bytes(&now.variables);
                change(&mut all, &self.own);
                all
            }
            Some(exported) => {
                let mut all = exported.environment;
                let names: BTreeSet<_> = now.variables.keys().chain(self.saved.variables.keys()).collect();
                for name in names {
                    let (before, after) = (self.saved.variables.get(name), now.variables.get(name));
                    let stands = all.get(name.as_bytes()).map(Vec::as_slice) == before.map(String::as_bytes);
                    if before != after && stands && !self.own.contains_key(name) {
                        match after {
                            Some(value) => drop(all.insert(name.clone().into(), value.clone().into())),
                            None => drop(all.remove(name.as_bytes())),
                        }
                    }
                }
                change(&mut all, &self.due);
                all
            }
        };
        change(&mut all, waiting);
        all
    }
}

/// Whether a variable is to bash as any other, so that one in its environment and one that is exported later are the same.
/// Bash reads some at its start only, makes others for itself, and does things when some are assigned (variables.c of
/// 5.2: `special_vars`, `initialize_shell_variables`); so do the C library and the dynamic linker (ld.so(8), mallopt(3)), and
/// Debian's bash runs ~/.bashrc where an SSH client is named.
pub(super) fn is_ordinary(name: &str) -> bool {
    const OTHERS: [&str; 31] = [
        "CHILD_MAX",
        "COLUMNS",
        "DIRSTACK",
        "EUID",
        "EXECIGNORE",
        "FIGNORE",
        "FUNCNAME",
        "FUNCNEST",
        "GLOBIGNORE",
        "GROUPS",
        "HOSTFILE",
        "IFS",
        "IGNOREEOF",
        "LINENO",
        "LINES",
        "OLDPWD",
        "PIPESTATUS",
        "POSIXLY_CORRECT",
        "PPID",
        "PS4",
        "PWD",
        "RANDOM",
        "SECONDS",
        "SHELLOPTS",
        "SHLVL",
        "SRANDOM",
        "SSH2_CLIENT",
        "SSH_CLIENT",
        "TMOUT",
        "UID",
        "ignoreeof",
    ];
    let families = ["BASH", "COMP_", "EPOCH", "GLIBC_", "HIST", "LD_", "MAIL", "MALLOC_", "OPT", "_"];
    !OTHERS.contains(&name) && !families.iter().any(|family| name.starts_with(family))
}

/// Variables as an exec takes them.
pub(super) fn as_bytes(variables: &BTreeMap<String, String>) -> BTreeMap<Vec<u8>, Vec<u8>> {
    variables.iter().map(|(name, value)| (name.clone().into_bytes(), value.clone().into_bytes())).collect()
}

/// Sets and unsets variables.
pub(crate) fn change(all: &mut BTreeMap<Vec<u8>, Vec<u8>>, changes: &Changes) {
    for (name, value) in changes {
        match value {
            Some(value) => drop(all.insert(name.clone().into(), value.clone().into())),
            None => drop(all.remove(name.as_bytes())),
        }
    }
}

/// What one session's shell has been given.
#[derive(Debug)]
pub(super) struct Layers {
    sandbox: SandboxEnv,
    /// The session's own, all that were ever given.
    own: Changes,
    /// Given to the session, but not yet to its shell.
    pending: Changes,
    /// Given with the command that runs now.
    running: Changes,
    /// Given with a command that completed, but not yet in a saved state.
    unsaved: Changes,
    /// The sandbox's variables as the shell has them.
    applied: Arc<Snapshot>,
    /// The same as of the last completed command.
    completed: Arc<Snapshot>,
    /// The same as of the last saved state.
    saved: Arc<Snapshot>,
    /// As last told; none when something of it has changed.
    standing: Option<Arc<Standing>>,
}

impl Layers {
    pub(super) fn new(sandbox: SandboxEnv, own: Changes) -> Self {
        Self {
            sandbox,
            own,
            pending: Changes::new(),
            running: Changes::new(),
            unsaved: Changes::new(),
            applied: Arc::default(),
            completed: Arc::default(),
            saved: Arc::default(),
            standing: None,
        }
    }

    /// What programs of the session start with beside the saved state.
    pub(super) fn standing(&mut self) -> Arc<Standing> {
        Arc::clone(self.standing.get_or_insert_with(|| {
            let mut due = self.unsaved.clone();
            for later in [&self.running, &self.pending] {
                due.extend(later.iter().map(|(name, value)| (name.clone(), value.clone())));
            }
            Arc::new(Standing { own: self.own.clone(), due, saved: Arc::clone(&self.saved) })
        }))
    }

    /// The environment of a shell that starts without a state.
    pub(super) fn fresh(&mut self) -> BTreeMap<String, String> {
        self.applied = Arc::new(self.sandbox.snapshot());
        let mut all = self.applied.variables.clone();
        for (name, value) in &self.own {
            match value {
                Some(value) => drop(all.insert(name.clone(), value.clone())),
                None => drop(all.remove(name)),
            }
        }
        self.completed = Arc::clone(&self.applied);
        self.standing = None;
        for given in [&mut self.pending, &mut self.running, &mut self.unsaved] {
            given.clear();
        }
        all
    }

    /// In what the environment of a shell that is started now, with these variables of its session, differs from the one
    /// that the present shell was started in.
    pub(super) fn later_than_the_shell(&self, own: &Changes) -> Changes {
        let (before, now) = (&self.applied.variables, self.sandbox.snapshot().variables);
        let names = before.keys().chain(now.keys()).filter(|name| before.get(*name) != now.get(*name));
        let mut later: Changes = names.map(|name| (name.clone(), now.get(name).cloned())).collect();
        later.extend(own.iter().map(|(name, value)| (name.clone(), value.clone())));
        later
    }

    /// Gives variables to the session. They win over the sandbox's from now on.
    pub(super) fn give(&mut self, changes: &Changes) {
        if !changes.is_empty() {
            self.standing = None;
        }
        for (name, value) in changes {
            self.own.insert(name.clone(), value.clone());
            self.pending.insert(name.clone(), value.clone());
        }
    }

    /// What must change in the shell before its next command, which is about to be sent.
    pub(super) fn deliver(&mut self) -> Vec<Assignment> {
        let mut due = Vec::new();
        if self.sandbox.version() != self.applied.version {
            let wanted = self.sandbox.snapshot();
            let names: BTreeSet<_> = wanted.variables.keys().chain(self.applied.variables.keys()).collect();
            for name in names {
                let (before, after) = (self.applied.variables.get(name), wanted.variables.get(name));
                if before != after && !self.own.contains_key(name) {
                    let only_if = Some(before.cloned());
                    due.push(Assignment { name: name.clone(), value: after.cloned(), only_if });
                }
            }
            self.applied = Arc::new(wanted);
        }
        for (name, value) in std::mem::take(&mut self.pending) {
            due.push(Assignment { name: name.clone(), value: value.clone(), only_if: None });
            self.running.insert(name, value);
        }
        due
    }

    /// The command with which the last changes were delivered has completed.
    pub(super) fn completed(&mut self) {
        self.unsaved.append(&mut self.running);
        self.completed = Arc::clone(&self.applied);
    }

    /// The state as of the last completed command is saved.
    pub(super) fn saved(&mut self) {
        if !self.unsaved.is_empty() || !Arc::ptr_eq(&self.saved, &self.completed) {
            self.standing = None;
        }
        self.unsaved.clear();
        self.saved = Arc::clone(&self.completed);
    }

    /// A shell starts from the last saved state, which lacks what was delivered after it.
    pub(super) fn restored(&mut self) {
        let mut again = std::mem::take(&mut self.unsaved);
        again.append(&mut self.running);
        again.append(&mut self.pending);
        self.pending = again;
        self.applied = Arc::clone(&self.saved);
        self.completed = Arc::clone(&self.saved);
    }
}

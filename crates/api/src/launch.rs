//! The contract between the launch stage, which builds a sandbox, and the agent, which becomes its PID 1.
//!
//! `sandcrab agent --config-fd N` reads an [`AgentConfig`] as JSON from a sealed memfd. File descriptors that it names
//! are open in the agent and in nothing else.

use crate::ids::SandboxId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Ids up to this one are the agent's alone below a rootless server, where user code has the agent's uid. The agent starts
/// all its threads before any user code.
pub const AGENT_THREADS: u32 = 16;

/// Everything that an agent is told at its start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentConfig {
    /// The sandbox's id, for logs.
    pub sandbox_id: SandboxId,
    /// The listening Unix socket on which the agent serves its API.
    pub listen_fd: i32,
    /// Who runs user code.
    pub identity: UserIdentity,
    /// The environment of every session before anyone has set a variable.
    pub env: BTreeMap<String, String>,
    /// Where sessions start, made if missing.
    pub workspace: String,
    /// A directory on the sandbox's own disk for output that does not fit memory. No path inside leads to it, and files
    /// there have no names.
    pub spool_fd: i32,
    /// The cgroup (v1 or v2) from which the memory limit and OOM counters are read, as open directory; none if there is no limit.
    pub memory_cgroup_fd: Option<i32>,
    /// How many bytes the queues of the sandbox's sockets may hold together, which its memory limit does not count; none
    /// where the network is not the sandbox's own.
    #[serde(default)]
    pub socket_bound: Option<u64>,
    /// What the launch stage could not prepare because the sandbox's own files are in the way, each with its reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hindered: Vec<String>,
    /// The seccomp listener at which the sandbox's processes ask to be told of another's exit (ptrace(2)); none where
    /// they may not, or where nothing keeps them from it.
    #[serde(default)]
    pub ptrace_fd: Option<i32>,
}

/// The identity and confinement of user code. The agent puts each process that it starts into it before the exec.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserIdentity {
    /// The child user namespace in which the agent's own uid does not exist; none where one uid is all there is.
    pub userns_fd: Option<i32>,
    /// The user's uid inside that namespace.
    pub uid: u32,
    /// The user's gid inside that namespace.
    pub gid: u32,
    /// The uid that the agent's file calls act as, in the agent's own namespace (the same person as `uid`).
    pub fs_uid: u32,
    /// The gid that the agent's file calls act as, in the agent's own namespace.
    pub fs_gid: u32,
    /// Whether the agent can take a uid that is not its own (false when the server is rootless).
    pub can_switch: bool,
    /// Capabilities that user code may ever have, as a bit mask (capability.h).
    pub capabilities: u64,
    /// Resource limits: (resource number of resource.h, soft, hard).
    pub rlimits: Vec<(u32, u64, u64)>,
    /// A classic BPF program (an array of `struct sock_filter`, filter.h) that is installed as seccomp filter, base64; empty for none.
    pub seccomp: String,
    /// A delegated cgroup2 directory below which process groups are made; none where there is none.
    pub cgroup_fd: Option<i32>,
}

//! Sandboxes: the computers that sessions live in.

use crate::ids::SandboxId;
use crate::session::{EnvChanges, EnvironmentChanges};
use crate::time::Timestamp;
use crate::units::{ByteSize, IdleTime};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, Type};

/// What a sandbox may use. A missing field takes the server's default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Limits {
    /// Memory in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<ByteSize>,
    /// CPUs, fractions allowed: 0.5 is half of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0.01, maximum = 1024)]
    pub cpu: Option<f64>,
    /// Disk for everything the sandbox writes, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<ByteSize>,
    /// Processes and threads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 8, maximum = 4_194_304)]
    pub pids: Option<u64>,
    /// Open files of each process, as soft and as hard limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 64, maximum = 1_048_576)]
    pub open_files: Option<u64>,
}

/// What a sandbox can reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// Its own loopback and nothing else.
    #[default]
    Loopback,
    /// The host's network as it is: no isolation of the network at all.
    Host,
}

/// What a sandbox's code may ask of the kernel beyond what every program needs. A missing field takes its default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Isolation {
    /// Debuggers: `ptrace`, `process_vm_readv`, `process_vm_writev`, `pidfd_getfd`, on processes of the same user.
    /// Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub debugging: Option<bool>,
    /// The kernel's lists of the sandbox's own sockets (`NETLINK_SOCK_DIAG`), as `ss` shows them. Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket_lists: Option<bool>,
    /// Asynchronous file I/O by libaio (`io_setup`): all users of the machine share a fixed number of requests.
    /// Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub async_io: Option<bool>,
    /// Sockets for `ping`; what they receive is outside the memory limit. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ping: Option<bool>,
}

impl Isolation {
    /// Whether debuggers work.
    pub fn debugging(&self) -> bool {
        self.debugging.unwrap_or(true)
    }

    /// Whether the sandbox's sockets can be listed.
    pub fn socket_lists(&self) -> bool {
        self.socket_lists.unwrap_or(true)
    }

    /// Whether libaio works.
    pub fn async_io(&self) -> bool {
        self.async_io.unwrap_or(false)
    }

    /// Whether `ping` works.
    pub fn ping(&self) -> bool {
        self.ping.unwrap_or(false)
    }

    /// The same with every default filled in.
    pub fn resolved(&self) -> Self {
        Self {
            debugging: Some(self.debugging()),
            socket_lists: Some(self.socket_lists()),
            async_io: Some(self.async_io()),
            ping: Some(self.ping()),
        }
    }
}

/// How to make a sandbox, or what to change of one that exists. Every field may be missing.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateSandbox {
    /// The image: `host`, this machine's own programs (default), or `python`, these and a data stack, which the first
    /// sandbox that is made of it waits for. Fixed at creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
    /// Bounds on resources. Fixed at creation.
    #[serde(
        default,
        deserialize_with = "crate::object::deserialize",
        skip_serializing_if = "Option::is_none"
    )]
    pub limits: Option<Limits>,
    /// Default `loopback`. Fixed at creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,
    /// What its code may ask of the kernel. Fixed at creation.
    #[serde(
        default,
        deserialize_with = "crate::object::deserialize",
        skip_serializing_if = "Option::is_none"
    )]
    pub isolation: Option<Isolation>,
    /// The sandbox's variables at its creation; later changes go through `setEnvVars`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = EnvironmentChanges)]
    pub env: EnvChanges,
    /// Idle time until it sleeps. Default 3 minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sleep_after: Option<IdleTime>,
    /// Never sleep. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_alive: Option<bool>,
    /// Labels for people and for filters. Given labels replace the old ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Labels>)]
    pub labels: Option<BTreeMap<String, String>>,
}

/// The form of labels, for the document.
#[derive(Debug)]
pub struct Labels;

impl utoipa::PartialSchema for Labels {
    fn schema() -> RefOr<Schema> {
        let name = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1)).max_length(Some(128));
        let value = ObjectBuilder::new().schema_type(Type::String).max_length(Some(1024));
        ObjectBuilder::new()
            .schema_type(Type::Object)
            .max_properties(Some(64))
            .property_names(Some(name))
            .additional_properties(Some(Schema::from(value)))
            .into()
    }
}

impl ToSchema for Labels {}

/// Where a sandbox stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum SandboxStatus {
    /// Being made.
    Starting,
    /// Up.
    Running,
    /// Its agent is gone; the next use starts it again on its files.
    Stopped,
    /// Being taken away.
    Destroying,
    /// Kept as it is, because the server cannot use it: `problem` says why. It can be destroyed.
    Quarantined,
}

/// A sandbox as it stands now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SandboxInfo {
    /// Its id.
    pub id: SandboxId,
    /// Where it stands.
    pub status: SandboxStatus,
    /// Its image.
    pub image: String,
    /// Its network.
    pub network: Network,
    /// What its code may ask of the kernel, every default filled in.
    #[serde(default)]
    pub isolation: Isolation,
    /// The limits in force.
    pub limits: Limits,
    /// Idle time until it sleeps, in seconds.
    pub sleep_after: IdleTime,
    /// Whether it never sleeps.
    pub keep_alive: bool,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its status last changed.
    pub last_change: Timestamp,
    /// Limits that hold nothing here, by their names: the server runs without control groups, or without disks of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub not_enforced: Vec<String>,
    /// What keeps it from working as it should; absent where nothing does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// The caller's sandboxes, by age.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SandboxList {
    /// The sandboxes.
    pub sandboxes: Vec<SandboxInfo>,
}

/// The answer to destroying a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SandboxDestroyed {
    /// Always true: failures are errors.
    pub success: bool,
    /// The id that is free again.
    pub sandbox_id: SandboxId,
    /// When it was done.
    pub timestamp: Timestamp,
}

/// How to stop a sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StopSandbox {
    /// Default `SIGTERM`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<StopSignal>,
}

/// How what runs in a sandbox is ended when it is stopped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum StopSignal {
    /// Its processes get SIGTERM and have 5 seconds to end; then everything else ends.
    #[default]
    #[serde(rename = "SIGTERM")]
    Term,
    /// The same.
    #[serde(rename = "SIGINT")]
    Int,
    /// Everything ends at once.
    #[serde(rename = "SIGKILL")]
    Kill,
}

/// The answer to stopping a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SandboxStopped {
    /// Always true: failures are errors.
    pub success: bool,
    /// The sandbox in which nothing runs.
    pub sandbox_id: SandboxId,
    /// When it was done.
    pub timestamp: Timestamp,
}

/// One entry of a sandbox's event log (contract L08).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SandboxEvent {
    /// Counts up within one sandbox.
    pub seq: u64,
    /// What happened: `created`, `started`, `stopped`, `destroyed`, `oom`, `shellRestarted`, `restorePartDropped`, …
    pub kind: String,
    /// Why.
    pub reason: String,
    /// Who caused it: `api`, `server`, `agent`, `kernel`.
    pub actor: String,
    /// When.
    pub timestamp: Timestamp,
    /// More, by kind.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub detail: serde_json::Value,
}

/// A sandbox's events, oldest first.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SandboxEvents {
    /// The events.
    pub events: Vec<SandboxEvent>,
}

/// The answer of `GET /health`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// Always `ok`: a server that is not does not answer.
    pub status: String,
    /// The server's release.
    pub version: String,
}

/// How an agent introduces itself when a connection opens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AgentHello {
    /// The agent's release.
    pub version: String,
    /// What it can do, so that a newer server asks an older agent for nothing that it lacks.
    pub features: Vec<String>,
}

/// What an agent tells the server of, for the sandbox's event log (contract L08). Kept by the agent until the server
/// has asked for what comes after it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentEvent {
    /// Counts up within one life of the agent, from 1.
    pub seq: u64,
    /// What happened.
    pub kind: AgentEventKind,
    /// Why.
    pub reason: String,
    /// More, by kind.
    #[serde(default)]
    pub detail: serde_json::Value,
}

/// What an agent tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AgentEventKind {
    /// A command ended its session's shell (contract S05).
    ShellRestarted,
    /// A part of a session's state could not be restored (contract S05).
    RestorePartDropped,
    /// A command was killed for want of memory.
    Oom,
    /// A directory that every sandbox has could not be made at the start: the sandbox's own files are in its way.
    StartHindered,
    /// Output could not be written to the sandbox's disk, and is gone.
    OutputLost,
    /// Processes were killed and do not end: a tracer or the kernel holds them.
    Unkillable,
    /// Queues of sockets held more memory than the sandbox may have outside its limit: the largest holder was ended.
    SocketMemory,
    /// The image's shell cannot be a session's: each command has a shell of its own.
    PlainShell,
    /// A fault of the agent's own ended what it names: a session, a code context.
    Fault,
}

impl AgentEventKind {
    /// The word in the event log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ShellRestarted => "shellRestarted",
            Self::RestorePartDropped => "restorePartDropped",
            Self::Oom => "oom",
            Self::StartHindered => "startHindered",
            Self::OutputLost => "outputLost",
            Self::Unkillable => "unkillable",
            Self::SocketMemory => "socketMemory",
            Self::PlainShell => "plainShell",
            Self::Fault => "fault",
        }
    }
}

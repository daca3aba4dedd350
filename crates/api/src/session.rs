//! Sessions: shells that stay alive.

use crate::ids::SessionId;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Variables to set (text) or to unset (`null`).
pub type EnvChanges = BTreeMap<String, Option<String>>;

/// What a new session starts with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateSession {
    /// The session's id; one is made up if it is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<SessionId>,
    /// A label for people; it has no effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Variables of this session alone. They win over the sandbox's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: EnvChanges,
    /// Where the session's first command runs; created if it is missing. Default `/workspace`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// `timeout` in milliseconds of each command that names none itself. Default: no timeout.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 604_800_000, minimum = 1)]
    pub command_timeout_ms: Option<u64>,
}

/// A session as it stands now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionInfo {
    /// The session's id.
    pub id: SessionId,
    /// The label given at creation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Working directory as of the last completed command.
    pub cwd: String,
    /// When the session was made.
    pub created_at: Timestamp,
    /// Whether a command runs in it now.
    pub busy: bool,
    /// Commands that wait behind the running one.
    pub waiting: usize,
}

/// All sessions of a sandbox, by age.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionList {
    /// The sessions.
    pub sessions: Vec<SessionInfo>,
}

/// The answer to deleting a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionDeleted {
    /// Always true: failures are errors.
    pub success: bool,
    /// The id that is free again.
    pub session_id: SessionId,
    /// When it was done.
    pub timestamp: Timestamp,
}

/// Variables to change in a sandbox or in one session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SetEnv {
    /// Text sets, `null` unsets.
    pub env: EnvChanges,
}

/// An answer that says no more than that it was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Done {
    /// Always true: failures are errors.
    pub success: bool,
    /// When it was done.
    pub timestamp: Timestamp,
}

impl Done {
    /// Done at this moment.
    pub fn now() -> Self {
        Self { success: true, timestamp: Timestamp::now() }
    }
}

//! Sessions: shells that stay alive.

use crate::ids::SessionId;
use crate::limits;
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaType, Type};

/// Variables to set (text) or to unset (`null`).
pub type EnvChanges = BTreeMap<String, Option<String>>;

/// The form of [`EnvChanges`], for the document.
#[derive(Debug)]
pub struct EnvironmentChanges;

impl utoipa::PartialSchema for EnvironmentChanges {
    fn schema() -> RefOr<Schema> {
        let name = ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[A-Za-z_][A-Za-z0-9_]*$"));
        let value = ObjectBuilder::new()
            .schema_type(SchemaType::Array(vec![Type::String, Type::Null]))
            .max_length(Some(limits::MAX_ENV_ENTRY_BYTES))
            .pattern(Some(r"^[^\u0000]*$"));
        ObjectBuilder::new()
            .schema_type(Type::Object)
            .description(Some("Variables to set (text) or to unset (`null`)."))
            .max_properties(Some(limits::MAX_ENV_ENTRIES))
            .property_names(Some(name))
            .additional_properties(Some(Schema::from(value)))
            .into()
    }
}

impl ToSchema for EnvironmentChanges {}

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
    #[schema(value_type = EnvironmentChanges)]
    pub env: EnvChanges,
    /// Where the session's first command runs; created if it is missing. Default `/workspace`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_length = 1, max_length = 4095, pattern = r"^[^\u0000]*$")]
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
    /// How many processes were ended that its commands had left in the background; none if there were none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_processes: Option<u64>,
    /// When it was done.
    pub timestamp: Timestamp,
}

/// Variables to change in a sandbox or in one session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SetEnv {
    /// Text sets, `null` unsets. In a shell the variable is an ordinary exported one from then on, with this very value,
    /// whatever the session had declared it to be. Those that the shell makes itself (`PWD`, `UID`, `RANDOM`, `_`, ...) are
    /// refused.
    #[schema(value_type = EnvironmentChanges)]
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

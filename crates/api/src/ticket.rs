//! Tickets: how a WebSocket is opened by a program that can give it no header.

use crate::time::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How long a ticket waits to be used, in seconds.
pub const TICKET_SECS: u64 = 30;

/// What a ticket is wanted for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateTicket {
    /// The path below `/v1/sandboxes/` at which the WebSocket will be opened, as it will be requested, without a query.
    #[schema(
        max_length = 2048,
        pattern = r"^/v1/sandboxes/[^/?#]+/(processes/[^/?#]+/attach|ports/[0-9]+/connect)$"
    )]
    pub path: String,
}

/// A ticket: good for one WebSocket at one path, within 30 s.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ticket {
    /// What goes into the URL as `?ticket=…`.
    pub ticket: String,
    /// Until when it can be used.
    pub expires_at: Timestamp,
}

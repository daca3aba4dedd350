//! The way to the agents. The server does not trust them: it passes only what their route table names, writes the
//! head of every answer itself and bounds what they can make it wait for or hold (attack B10).

mod body;
mod first;
mod forward;
mod joined;
mod link;
mod pool;
mod pulse;
mod routes;

pub(crate) use body::Upload;
pub(crate) use forward::{forward, refuse_query, sandbox_id};
pub(crate) use joined::{Crumbs, Joined};
pub(crate) use link::{Broken, Link};
pub(crate) use pool::{Pool, PoolError, PortError};
pub use routes::RoutesError;
pub(crate) use routes::{Found, Route, Routes};

//! The launch stage: a single-threaded process between the server and the agent, which builds a sandbox around itself.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Which step of a launch failed, and why: sent from the launch stage to the driver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The step, with its subject: `mount overlay on /`.
    pub op: String,
    /// The system's error number, 0 if the failure is not the system's.
    pub errno: i32,
    /// The reason in words.
    pub reason: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.op, self.reason)
    }
}

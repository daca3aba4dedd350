//! What this machine can do for isolation, and what to do about what it cannot.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A part of the isolation that an operator may accept to do without, by name (`--allow-missing`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Feature {
    /// Limits on memory, CPU and processes.
    Cgroup,
    /// The system call filter.
    Seccomp,
    /// The second layer on file access.
    Landlock,
    /// The limit on disk use.
    Quota,
}

impl Feature {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Cgroup, Self::Seccomp, Self::Landlock, Self::Quota];

    /// The name that `--allow-missing` takes.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cgroup => "cgroup",
            Self::Seccomp => "seccomp",
            Self::Landlock => "landlock",
            Self::Quota => "quota",
        }
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no feature.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is none of cgroup, seccomp, landlock, quota")]
pub struct UnknownFeature(String);

impl std::str::FromStr for Feature {
    type Err = UnknownFeature;
    fn from_str(name: &str) -> Result<Self, UnknownFeature> {
        Self::ALL.into_iter().find(|f| f.name() == name).ok_or_else(|| UnknownFeature(name.to_owned()))
    }
}

/// The version of Landlock's interface that the kernel offers (landlock(7)); 0 if it has none.
pub(crate) fn landlock_abi() -> i32 {
    crate::sys::process::landlock_abi()
}

/// Whether the kernel takes system call filters.
pub(crate) fn has_seccomp() -> bool {
    crate::sys::process::has_seccomp()
}

//! Whether the agent can still work, which the server asks when it is in doubt (attack A28).

use rustix::process::{Resource, Rlimit, getrlimit};
use std::fmt;

/// What bounds an agent's own work. None of it changes while the agent lives, unless somebody inside has found a way.
const BOUNDS: [(Resource, &str); 9] = [
    (Resource::Nofile, "open files"),
    (Resource::Nproc, "processes"),
    (Resource::As, "address space"),
    (Resource::Data, "data"),
    (Resource::Stack, "stack"),
    (Resource::Fsize, "file size"),
    (Resource::Memlock, "locked memory"),
    (Resource::Cpu, "CPU time"),
    (Resource::Sigpending, "pending signals"),
];

/// The bounds that an agent began with.
#[derive(Debug)]
pub(crate) struct Fitness([Rlimit; BOUNDS.len()]);

/// Why the agent cannot work.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// Its limit on this was changed.
    Bound(&'static str),
    /// It cannot open anything more.
    Descriptors(rustix::io::Errno),
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bound(what) => write!(f, "its limit on {what} was changed"),
            Self::Descriptors(errno) => write!(f, "it can open no more descriptors: {errno}"),
        }
    }
}

impl Fitness {
    /// Those that hold now.
    pub(crate) fn now() -> Self {
        Self(BOUNDS.map(|(resource, _)| getrlimit(resource)))
    }

    /// Looks whether the agent can do what every call needs.
    pub(crate) fn check(&self) -> Result<(), Unfit> {
        let now = Self::now();
        for ((before, now), (_, what)) in self.0.iter().zip(&now.0).zip(BOUNDS) {
            if before != now {
                return Err(Unfit::Bound(what));
            }
        }
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map(drop).map_err(Unfit::Descriptors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a28_a_changed_bound_is_noticed() {
        let mut fitness = Fitness::now();
        assert_eq!(fitness.check(), Ok(()));
        fitness.0[5].current = Some(1);
        assert_eq!(fitness.check(), Err(Unfit::Bound("file size")));
    }
}

//! Who user code runs as.

use base64::Engine as _;
use rustix::fd::OwnedFd;
use sandcrab_api::launch::UserIdentity;
use std::io;

/// The identity and confinement that every process takes before its exec.
#[derive(Debug, Default)]
pub struct Identity {
    /// The user namespace to enter.
    pub userns: Option<OwnedFd>,
    /// uid and gid to take, as the namespace counts them; none keeps the agent's.
    pub ids: Option<(u32, u32)>,
    /// Capabilities that may ever be had, as a bit mask; none leaves them alone.
    pub capabilities: Option<u64>,
    /// Resource limits: (resource number, soft, hard).
    pub rlimits: Vec<(u32, u64, u64)>,
    /// Text for `oom_score_adj`; none leaves it alone.
    pub oom_score_adj: Option<Vec<u8>>,
    /// A classic BPF program for seccomp; empty for none.
    pub seccomp: Vec<libc::sock_filter>,
    /// A delegated cgroup2 directory below which groups of processes are made; without one, the tree of processes tells
    /// what belongs to a command.
    pub cgroup: Option<OwnedFd>,
}

/// An identity that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The seccomp program is not base64 or not whole instructions.
    #[error("the seccomp program of the agent's configuration is not an array of 8-byte instructions")]
    Seccomp,
    /// A descriptor named in the configuration is not open.
    #[error("descriptor {fd} of the agent's configuration ({what}) is not open")]
    Descriptor {
        /// Its number.
        fd: i32,
        /// What it is for.
        what: &'static str,
        /// The reason.
        source: io::Error,
    },
}

impl Identity {
    /// The identity that the launch stage describes. Descriptors are duplicated.
    pub fn from_config(config: &UserIdentity) -> Result<Self, IdentityError> {
        let program = base64::engine::general_purpose::STANDARD
            .decode(&config.seccomp)
            .map_err(|_| IdentityError::Seccomp)?;
        let (instructions, []) = program.as_chunks::<8>() else { return Err(IdentityError::Seccomp) };
        let seccomp = instructions
            .iter()
            .map(|i| libc::sock_filter {
                code: u16::from_ne_bytes([i[0], i[1]]),
                jt: i[2],
                jf: i[3],
                k: u32::from_ne_bytes([i[4], i[5], i[6], i[7]]),
            })
            .collect();
        Ok(Self {
            userns: config.userns_fd.map(|fd| duplicate(fd, "user namespace")).transpose()?,
            ids: config.can_switch.then_some((config.uid, config.gid)),
            capabilities: Some(config.capabilities),
            rlimits: config.rlimits.clone(),
            oom_score_adj: Some(b"0".to_vec()),
            seccomp,
            cgroup: config.cgroup_fd.map(|fd| duplicate(fd, "cgroup")).transpose()?,
        })
    }

    /// The soft limit on open files that processes get; none if it is the agent's own.
    pub(crate) fn open_files(&self) -> Option<u64> {
        self.rlimits.iter().find(|(resource, ..)| *resource == libc::RLIMIT_NOFILE).map(|&(_, soft, _)| soft)
    }
}

fn duplicate(fd: i32, what: &'static str) -> Result<OwnedFd, IdentityError> {
    if fd < 0 {
        return Err(IdentityError::Descriptor { fd, what, source: io::ErrorKind::InvalidInput.into() });
    }
    rustix::io::fcntl_dupfd_cloexec(crate::sys::borrow(fd), 3).map_err(|e| IdentityError::Descriptor {
        fd,
        what,
        source: e.into(),
    })
}

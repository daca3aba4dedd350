//! The system calls that rustix does not offer. All `unsafe` of this crate is below this module.
#![expect(unsafe_code, reason = "raw system calls; each block names what it relies on")]

pub(crate) mod loopdev;
pub(crate) mod mount;
pub(crate) mod net;
pub(crate) mod process;
pub(crate) mod seccomp;

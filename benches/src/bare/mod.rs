//! The bare limits: the same work by the shortest way that the machine has, measured in the same run. Nothing of
//! Sandcrab is in here.

pub(crate) mod bytes;
pub(crate) mod http;
pub(crate) mod sandbox;
pub(crate) mod shell;

//! Commands: their output, their end, and everyone who asks about them.

pub(crate) mod answer;
pub(crate) mod drain;
pub(crate) mod execution;
pub(crate) mod registry;
pub(crate) mod spool;
pub(crate) mod text;

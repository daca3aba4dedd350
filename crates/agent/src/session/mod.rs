//! Sessions: who has which, what waits in them, and the task that runs their commands one at a time.

pub(crate) mod queue;
pub(crate) mod registry;
pub(crate) mod spare;
pub(crate) mod task;

//! Drivers that isolate: namespaces, images, cgroups, seccomp, the launch plan.

pub mod doctor;
pub mod driver;
pub mod fake;
pub mod image;
pub mod launch;

pub use driver::{Driver, DriverError, Exit, Instance, InstanceId, SandboxSpec, Stats};

//! Drivers that isolate: namespaces, images, cgroups, seccomp, the launch plan.

mod cgroup;
mod disk;
pub mod doctor;
pub mod driver;
pub mod fake;
mod ids;
pub mod image;
pub mod launch;
pub mod native;
pub mod probe;
pub mod seccomp;
pub mod shares;
mod sys;
mod tree;

pub use driver::{
    Condition, Driver, DriverError, Exit, ImageInfo, Instance, InstanceId, Quarantined, SandboxSpec, Stats,
};

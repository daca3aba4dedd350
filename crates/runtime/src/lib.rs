//! Drivers that isolate: namespaces, images, cgroups, seccomp, the launch plan.

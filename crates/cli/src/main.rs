//! The sandcrab binary.
fn main() {}

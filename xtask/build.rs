//! Tells the commands which target they were built for: `.cargo/config.toml` names one, so cargo puts binaries in a
//! folder of that name.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let target = std::env::var("TARGET").unwrap_or_default();
    println!("cargo::rustc-env=XTASK_TARGET={target}");
}

//! Compiles shared objects that link nothing: the session loop, for the shells of sandboxes to load, and what sets an
//! interpreter apart.

use std::path::PathBuf;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=src/shell/builtin");
    for name in ["sandcrab", "apart"] {
        compile(name);
    }
}

fn compile(name: &str) {
    let source = format!("src/shell/builtin/{name}.c");
    let out =
        PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join(format!("{name}.so"));
    let compiler = cc::Build::new().opt_level(2).get_compiler();
    #[expect(
        clippy::disallowed_methods,
        reason = "a build script runs the C compiler; `cc` makes no shared objects"
    )]
    let status = Command::new(compiler.path())
        .args(["-O2", "-std=gnu11", "-Wall", "-Wextra", "-Werror"])
        .args([
            "-ffreestanding",
            "-fPIC",
            "-fvisibility=hidden",
            "-fno-stack-protector",
            "-fno-asynchronous-unwind-tables",
        ])
        // Else the compiler turns the bodies of memcpy and memset into calls of themselves.
        .arg("-fno-tree-loop-distribute-patterns")
        .args([
            "-shared",
            "-nostdlib",
            "-nostartfiles",
            "-Wl,-z,nodelete",
            "-Wl,-z,now",
            "-Wl,--build-id=none",
            "-s",
        ])
        .arg("-o")
        .arg(&out)
        .arg(&source)
        .status()
        .expect("a C compiler starts (set CC to choose one)");
    assert!(status.success(), "the C compiler could not build {source}");
}

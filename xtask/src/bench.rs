//! `cargo xtask bench`: builds the binary, the TypeScript package and the bench with the profile of a release, and runs it.

use crate::build::{self, cargo};
use crate::command::cmd;
use crate::setup;
use crate::workspace::Workspace;
use anyhow::Result;
use std::time::Duration;

/// Options of `cargo xtask bench`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only rows whose key holds this, such as `exec-true`
    #[arg(default_value = "")]
    only: String,
    /// Leave the TypeScript column empty
    #[arg(long)]
    no_typescript: bool,
}

pub(crate) fn run(ws: &Workspace, args: &Args) -> Result<()> {
    setup::apt(ws, &[setup::BUILD])?;
    let sandcrab = build::binary(ws)?;
    cargo(ws, &["build", "--locked", "--profile", "dist", "--package", "sandcrab-bench"]).run()?;
    let mut bench = cmd(ws.binary("dist", "sandcrab-bench"))
        .args(["all", "--only", &args.only, "--binary"])
        .arg(sandcrab)
        .arg("--dir")
        .arg(ws.path("target/bench"))
        .limit(Duration::from_secs(15 * 60));
    if !args.no_typescript {
        build::package(ws)?;
        bench = bench.arg("--typescript").arg(ws.path("benches/typescript.mjs"));
    }
    bench.run()
}

//! `cargo xtask build`: the binary that people run and the package that they import.

use crate::clock::Clock;
use crate::command::cmd;
use crate::setup;
use crate::workspace::Workspace;
use anyhow::{Context as _, Result};
use std::path::PathBuf;

/// Options of `cargo xtask build`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only the binary
    #[arg(long, conflicts_with = "package")]
    binary: bool,
    /// Only the TypeScript package
    #[arg(long)]
    package: bool,
}

pub(crate) fn run(ws: &Workspace, args: &Args) -> Result<()> {
    let mut clock = Clock::start();
    clock.step("Debian packages", || setup::apt(ws, &[setup::BUILD]))?;
    if !args.package {
        let binary = clock.step("the binary", || binary(ws))?;
        println!("{}", binary.display());
    }
    if !args.binary {
        clock.step("the TypeScript package", || package(ws))?;
    }
    clock.table();
    Ok(())
}

/// Builds the static binary with the profile `dist`; returns `target/dist/sandcrab`.
pub(crate) fn binary(ws: &Workspace) -> Result<PathBuf> {
    // At a fixed address: a position-independent binary is relocated in each process, which every sandbox would be
    // charged 0.4 MB and half a millisecond for (docs/decisions/0008). Only the linking differs.
    let rest = ["--bin", "sandcrab", "--", "-C", "relocation-model=static"];
    let args = ["rustc", "--locked", "--profile", "dist", "--package", "sandcrab"];
    cargo(ws, &[&args[..], &rest].concat()).run()?;
    let built = ws.binary("dist", "sandcrab");
    let place = ws.path("target/dist/sandcrab");
    let dir = ws.path("target/dist");
    std::fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    // A copy under another name and then a rename, since a server that runs from the old file keeps it busy.
    let fresh = dir.join("sandcrab.new");
    std::fs::copy(&built, &fresh).with_context(|| format!("copy {}", built.display()))?;
    std::fs::rename(&fresh, &place).with_context(|| format!("put {} in place", place.display()))?;
    Ok(place)
}

/// Builds `sdks/typescript/dist`.
pub(crate) fn package(ws: &Workspace) -> Result<()> {
    setup::npm(ws, "sdks/typescript")?;
    npm(ws, "sdks/typescript", "build").run()
}

/// Cargo on this workspace, whatever folder the caller is in, with output below the repository's own `target/`.
pub(crate) fn cargo(ws: &Workspace, args: &[&str]) -> crate::command::Cmd {
    cmd("cargo").args(args).dir(&ws.root).env("CARGO_TARGET_DIR", ws.target())
}

/// A script of a Node package.
pub(crate) fn npm(ws: &Workspace, folder: &str, script: &str) -> crate::command::Cmd {
    cmd("npm").args(["run", "--silent", script]).dir(ws.path(folder))
}

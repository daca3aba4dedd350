//! Files that are generated from the code and committed. Each has a `--check`, which fails where the committed file is
//! not what the code says now.

use crate::build::{cargo, npm};
use crate::command::cmd;
use crate::setup;
use crate::workspace::Workspace;
use anyhow::{Context as _, Result, bail};

/// Options of the generating commands.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Change nothing; fail if a file is not up to date
    #[arg(long)]
    pub(crate) check: bool,
}

/// The API's document, from the types and routes that serve it.
pub(crate) fn openapi(ws: &Workspace, args: &Args) -> Result<()> {
    build(ws)?;
    let document = cmd(ws.binary("debug", "sandcrab")).arg("__openapi").read()?;
    settle(ws, "openapi.json", &document, args.check, "cargo xtask openapi")
}

/// The TypeScript package's types and error classes, from the API's document.
pub(crate) fn clients(ws: &Workspace, args: &Args) -> Result<()> {
    setup::npm(ws, "sdks/typescript")?;
    npm(ws, "sdks/typescript", if args.check { "generate:check" } else { "generate" }).run()
}

/// The page of errors, from the one table in `crates/api`.
pub(crate) fn docs(ws: &Workspace, args: &Args) -> Result<()> {
    let page =
        cargo(ws, &["run", "--quiet", "--package", "sandcrab-api", "--example", "error_page"]).read()?;
    settle(ws, "docs/ERRORS.md", &page, args.check, "cargo xtask docs")
}

/// Builds what the tests build: any smaller choice of targets would compile the dependencies with other features.
fn build(ws: &Workspace) -> Result<()> {
    cargo(ws, &["build", "--quiet", "--locked", "--workspace", "--all-targets"]).run()
}

/// Writes a generated file, or compares it with the committed one.
fn settle(ws: &Workspace, file: &str, wanted: &str, check: bool, remedy: &str) -> Result<()> {
    let path = ws.path(file);
    if std::fs::read_to_string(&path).is_ok_and(|now| now == wanted) {
        println!("{file}: up to date");
    } else if check {
        bail!("{file} is not what the code says: run `{remedy}` and commit the result");
    } else {
        std::fs::write(&path, wanted).with_context(|| format!("write {file}"))?;
        println!("{file}: written");
    }
    Ok(())
}

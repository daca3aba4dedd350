//! The project's own commands: `cargo xtask run`, `test`, `check`, `build` and what they are made of.
//!
//! Each command does all of its set-up itself on a Debian machine that has Rust and Node, and reads nothing outside the
//! repository but the system's own tools. Everything it writes lies under `target/`, but for generated files, which are
//! committed and have a `--check`.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "these commands talk to a person in a terminal"
)]

mod bench;
mod build;
mod check;
mod clock;
mod command;
mod generate;
mod python_lock;
mod run;
mod server;
mod setup;
mod test;
mod workspace;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::process::ExitCode;
use workspace::Workspace;

/// Builds, checks, tests and measures Sandcrab.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Set up, build, start a server and run the examples in real sandboxes
    Run(run::Args),
    /// Build the binary (target/dist/sandcrab) and the TypeScript package (sdks/typescript/dist)
    Build(build::Args),
    /// Run every test of every runner, after `check`; writes target/test-report/passed.txt
    Test(test::Args),
    /// Run every test that names an attack of docs/ATTACKS.md, and print which passed in which mode
    Attacks,
    /// Formatting, lints, the dependency rule between crates, generated files
    Check,
    /// Measure everything that docs/SPECIFICATION.md promises, beside the bare limits
    Bench(bench::Args),
    /// Write openapi.json, from the types and routes that serve it
    Openapi(generate::Args),
    /// Write what the TypeScript package generates from openapi.json
    Clients(generate::Args),
    /// Write docs/ERRORS.md, from the table of errors
    Docs(generate::Args),
    /// Write the locks of the image `python` anew: the newest wheels that go together
    PythonLock,
}

fn main() -> ExitCode {
    // An error is a sentence for a person; a trace of this program's own frames would bury it.
    run().unwrap_or_else(|error| {
        eprintln!("\nerror: {error:#}");
        ExitCode::FAILURE
    })
}

fn run() -> Result<ExitCode> {
    let ws = Workspace::here()?;
    match Cli::parse().command {
        Command::Run(args) => run::run(&ws, &args)?,
        Command::Build(args) => build::run(&ws, &args)?,
        Command::Test(args) => return test::run(&ws, &args),
        Command::Attacks => return test::run_attacks(&ws),
        Command::Check => check::run(&ws)?,
        Command::Bench(args) => bench::run(&ws, &args)?,
        Command::Openapi(args) => generate::openapi(&ws, &args)?,
        Command::Clients(args) => generate::clients(&ws, &args)?,
        Command::Docs(args) => generate::docs(&ws, &args)?,
        Command::PythonLock => python_lock::run(&ws)?,
    }
    Ok(ExitCode::SUCCESS)
}

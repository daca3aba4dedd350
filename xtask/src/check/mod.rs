//! `cargo xtask check`: what can be said of the code without running it.

mod dependencies;
mod length;

use crate::build::cargo;
use crate::clock::Clock;
use crate::command::{cmd, which};
use crate::generate;
use crate::setup;
use crate::test::report::Report;
use crate::workspace::Workspace;
use anyhow::{Result, bail};

/// One check: its name and what it does.
type Check = (&'static str, fn(&Workspace) -> Result<()>);

const CHECKS: &[Check] = &[
    ("formatting", formatting),
    ("dependency rule", dependencies::check),
    ("file length", length::check),
    ("lints", lints),
    ("openapi.json", |ws| generate::openapi(ws, &generate::Args { check: true })),
    ("types of the TypeScript package", |ws| generate::clients(ws, &generate::Args { check: true })),
    ("docs/ERRORS.md", |ws| generate::docs(ws, &generate::Args { check: true })),
    ("licences and advisories", deny),
];

pub(crate) fn run(ws: &Workspace) -> Result<()> {
    let mut clock = Clock::start();
    setup::apt(ws, &[setup::BUILD])?;
    let report = all(ws, &mut clock)?;
    clock.table();
    report.print();
    if report.failed.is_empty() { Ok(()) } else { bail!("{} checks failed", report.failed.len()) }
}

/// Runs every check, also after one that failed.
pub(crate) fn all(ws: &Workspace, clock: &mut Clock) -> Result<Report> {
    let mut report = Report::of("check");
    for (name, check) in CHECKS {
        match clock.step(&format!("check: {name}"), || check(ws)) {
            Ok(()) => report.pass(*name),
            Err(error) => report.fail(*name, format!("{error:#}")),
        }
    }
    Ok(report)
}

fn formatting(ws: &Workspace) -> Result<()> {
    cargo(ws, &["fmt", "--all", "--check"]).run()
}

fn lints(ws: &Workspace) -> Result<()> {
    let clippy = ["clippy", "--locked", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"];
    cargo(ws, &clippy).run()
}

/// cargo-deny takes minutes to compile, so it runs where somebody has installed it; deny.toml is its configuration.
fn deny(ws: &Workspace) -> Result<()> {
    if which("cargo-deny").is_none() {
        println!(
            "cargo-deny is not installed: licences and advisories NOT looked at (`cargo install cargo-deny`)"
        );
        return Ok(());
    }
    cmd("cargo").args(["deny", "--offline", "check", "bans", "licenses", "sources"]).dir(&ws.root).run()
}

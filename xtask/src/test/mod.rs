//! `cargo xtask test`: the whole truth about a checkout. Every runner runs, also after a failure in another, and says
//! itself which tests passed; `target/test-report/passed.txt` has one line for each.

mod attacks;
mod promises;
pub(crate) mod report;
mod rust;
mod schemathesis;
mod typescript;

use crate::check;
use crate::clock::Clock;
use crate::setup;
use crate::workspace::Workspace;
use anyhow::{Context as _, Result};
use clap::ValueEnum;
use report::Report;
use std::process::ExitCode;

/// Options of `cargo xtask test`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only this part; may be given several times
    #[arg(long, value_enum)]
    only: Vec<Part>,
    /// Only the Rust tests of this package
    #[arg(long, short, value_name = "NAME")]
    package: Option<String>,
    /// Only tests whose name holds this
    filter: Option<String>,
}

/// What can be run by itself.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    Check,
    Rust,
    Typescript,
    Schemathesis,
}

/// Which tests to run.
#[derive(Clone, Debug)]
pub(crate) struct Selection {
    pub(crate) package: Option<String>,
    pub(crate) names: Names,
}

/// Which names of tests.
#[derive(Clone, Debug)]
pub(crate) enum Names {
    All,
    /// Those that hold this.
    Holding(String),
    /// Those that name an attack of docs/ATTACKS.md.
    Attacks,
}

impl Selection {
    fn is_whole(&self) -> bool {
        self.package.is_none() && matches!(self.names, Names::All)
    }
}

/// `cargo xtask attacks`: the tests that name an attack, and the table of them.
pub(crate) fn run_attacks(ws: &Workspace) -> Result<ExitCode> {
    let mut clock = Clock::start();
    let select = Selection { package: None, names: Names::Attacks };
    clock.step("set-up: Debian packages", || setup::apt(ws, &[setup::BUILD, setup::TEST]))?;
    let binaries = clock.step("build: everything", || rust::build(ws, &select))?;
    let reports = [
        runner("rust", rust::run(ws, &mut clock, &binaries, &select)),
        runner("typescript", typescript::run(ws, &mut clock, &select)),
    ];
    let code = finish(&clock, &reports, false);
    println!("\n{}", attacks::Table::new(ws, &reports)?.text());
    Ok(code)
}

pub(crate) fn run(ws: &Workspace, args: &Args) -> Result<ExitCode> {
    let mut clock = Clock::start();
    let wants = |part: Part| args.only.is_empty() || args.only.contains(&part);
    let names = args.filter.clone().map_or(Names::All, Names::Holding);
    let select = Selection { package: args.package.clone(), names };
    let partial = !args.only.is_empty() || !select.is_whole();
    clock.step("set-up: Debian packages", || setup::apt(ws, &[setup::BUILD, setup::TEST]))?;

    let mut reports = Vec::new();
    if wants(Part::Check) && select.is_whole() {
        reports.push(check::all(ws, &mut clock)?);
    }
    match clock.step("build: everything", || rust::build(ws, &select)) {
        Ok(binaries) => {
            if wants(Part::Rust) {
                reports.push(runner("rust", rust::run(ws, &mut clock, &binaries, &select)));
            }
            if wants(Part::Typescript) && select.package.is_none() {
                reports.push(runner("typescript", typescript::run(ws, &mut clock, &select)));
            }
            if wants(Part::Schemathesis) && select.is_whole() {
                reports.push(runner("schemathesis", schemathesis::run(ws, &mut clock)));
            }
        }
        Err(error) => reports.push(runner("build", Err(error))),
    }
    if !partial {
        let promises = promises::check(ws, &reports)?;
        reports.push(promises);
    }

    let passed = ws.report().join("passed.txt");
    std::fs::create_dir_all(ws.report()).context("create target/test-report")?;
    std::fs::write(&passed, report::passed_lines(&reports)).context("write target/test-report/passed.txt")?;
    Ok(finish(&clock, &reports, partial))
}

/// A runner that could not run counts as one failed test, so that the others still have their say.
fn runner(name: &'static str, result: Result<Report>) -> Report {
    let report = result.unwrap_or_else(|error| {
        let mut report = Report::of(name);
        report.fail("the runner itself", format!("{error:#}"));
        report
    });
    report.must_have_run()
}

fn finish(clock: &Clock, reports: &[Report], partial: bool) -> ExitCode {
    clock.table();
    println!();
    for report in reports {
        report.print();
    }
    if partial {
        println!("Only a part was run.");
    }
    let passed: usize = reports.iter().map(|report| report.passed.len()).sum();
    let failed: usize = reports.iter().map(|report| report.failed.len()).sum();
    println!("\n{passed} passed, {failed} failed");
    if failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

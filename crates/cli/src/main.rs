//! The sandcrab binary: the command line, the server, and what runs inside sandboxes.

mod args;
mod attached;
mod commands;
mod file;
mod interrupt;
mod key;
mod personas;
mod plan;
mod quote;
mod report;
mod server;
mod setup;

use args::Args;
use clap::Parser as _;
use plan::Plan;
use report::Report;
use std::process::ExitCode;

/// The exit code of a failure of our own, as docker and env have it: it cannot be mistaken for a command's.
pub(crate) const FAILED: u8 = 125;

fn main() -> ExitCode {
    if let Some(done) = personas::dispatch() {
        return done;
    }
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help and the version come as an "error" with status 0. Nothing is left to do if they cannot be printed.
            _ = error.print();
            return ExitCode::from(if error.use_stderr() { FAILED } else { 0 });
        }
    };
    let report = Report { json: args.json };
    match Plan::new(args).and_then(|plan| perform(plan, report)) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            report.failure(&error);
            ExitCode::from(FAILED)
        }
    }
}

fn perform(plan: Plan, report: Report) -> anyhow::Result<u8> {
    let (url, action) = match plan {
        Plan::Serve { options, logging } => {
            return commands::serve::run(options, &logging, report).map(|()| 0);
        }
        Plan::Doctor { data_dir } => return commands::doctor::run(data_dir, report),
        Plan::Ask { url, action } => (url, action),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(commands::execute(url.as_deref(), action, report));
    // A thread that reads a terminal or a pipe would be waited for until someone writes.
    runtime.shutdown_background();
    outcome
}

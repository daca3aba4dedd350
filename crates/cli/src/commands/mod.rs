//! The commands, one file each.

mod checkout;
mod cp;
pub(crate) mod doctor;
mod exec;
mod file;
mod image;
mod list;
mod ports;
mod processes;
mod run;
mod run_code;
pub(crate) mod serve;
mod setup;
mod shell;
mod show;

use crate::plan::Action;
use crate::report::Report;
use crate::server;
use anyhow::Result;
use sandcrab_client::api::SandboxId;
use sandcrab_client::{Client, ClientError, Sandbox, SandboxOptions};

/// Does what was asked and gives the exit code.
pub(crate) async fn execute(url: Option<&str>, action: Action, report: Report) -> Result<u8> {
    let client = || server::client(url);
    match action {
        Action::Run { options, command, allow_missing } => {
            return run::run(url, options, &command, &allow_missing, report).await;
        }
        Action::Exec { sandbox, session, command } => {
            return exec::run(&handle(&client()?, &sandbox)?, &session, &command, report).await;
        }
        Action::RunCode { sandbox, code } => {
            return run_code::run(&handle(&client()?, &sandbox)?, code, report).await;
        }
        Action::Shell { sandbox, session } => {
            return shell::run(&handle(&client()?, &sandbox)?, &session, report).await;
        }
        Action::Checkout { sandbox, plan } => {
            return checkout::run(&handle(&client()?, &sandbox)?, plan, report).await;
        }
        Action::File(plan) => return file::run(&client()?, plan, report).await,
        Action::Setup(setup) => return setup::run(&client()?, setup, report).await,
        Action::Create { sandbox, options } => {
            return show::create(&client()?, &sandbox, *options, report).await;
        }
        Action::Stop { sandboxes, signal } => {
            return show::stop(&client()?, &sandboxes, signal, report).await;
        }
        Action::Remove { sandboxes, force } => {
            return show::remove(&client()?, &sandboxes, force, report).await;
        }
        Action::ListSandboxes { labels } => list::sandboxes(&client()?, &labels, report).await?,
        Action::ListFiles { place, all, recursive } => {
            list::files(&existing(&client()?, &place.sandbox).await?, &place.path, all, recursive, report)
                .await?;
        }
        Action::Ps { sandbox } => list::activity(&existing(&client()?, &sandbox).await?, report).await?,
        Action::Logs { sandbox, follow } => {
            show::logs(&handle(&client()?, &sandbox)?, follow, report).await?
        }
        Action::Start { sandbox, start } => {
            return processes::start(&handle(&client()?, &sandbox)?, *start, report).await;
        }
        Action::Attach { sandbox, process } => {
            return processes::attach(&existing(&client()?, &sandbox).await?, &process, report).await;
        }
        Action::ProcessLogs { sandbox, process, follow } => {
            processes::logs(&existing(&client()?, &sandbox).await?, &process, follow, report).await?;
        }
        Action::Kill { sandbox, processes, signal } => {
            let sandbox = existing(&client()?, &sandbox).await?;
            return processes::kill(&sandbox, &processes, &signal, report).await;
        }
        Action::KillAll { sandbox } => {
            processes::kill_all(&existing(&client()?, &sandbox).await?, report).await?;
        }
        Action::Expose { sandbox, port, options } => {
            ports::expose(&handle(&client()?, &sandbox)?, port, options, report).await?;
        }
        Action::Unexpose { sandbox, port } => {
            ports::unexpose(&handle(&client()?, &sandbox)?, port, report).await?;
        }
        Action::Ports { sandbox, hostname } => {
            ports::list(&existing(&client()?, &sandbox).await?, hostname.as_deref(), report).await?;
        }
        Action::Copy(copy) => return cp::run(&client()?, copy, report).await,
        Action::Info { sandbox } => show::sandbox(&handle(&client()?, &sandbox)?, report).await?,
        Action::Image(action) => image::run(&client()?, &action, report).await?,
        Action::ServerInfo => show::server(&client()?, report).await?,
    }
    Ok(0)
}

/// A sandbox that this command may create by using it.
fn handle(client: &Client, id: &SandboxId) -> Result<Sandbox> {
    Ok(client.sandbox(id.as_str(), SandboxOptions::default())?)
}

/// A sandbox that is only looked at: a mistyped id must not become a new sandbox.
async fn existing(client: &Client, id: &SandboxId) -> Result<Sandbox> {
    let sandbox = handle(client, id)?;
    sandbox.info().await?;
    Ok(sandbox)
}

/// Several things that are done one by one: each that can be is, and each that cannot is told of.
#[derive(Default)]
struct Done {
    code: u8,
}

impl Done {
    fn tell<T: serde::Serialize>(
        &mut self,
        outcome: Result<T, ClientError>,
        text: impl FnOnce(&T) -> String,
        report: Report,
    ) -> Result<()> {
        match outcome {
            Ok(done) => report.result(&done, text)?,
            Err(error) => {
                report.failure(&error.into());
                self.code = crate::FAILED;
            }
        }
        Ok(())
    }
}

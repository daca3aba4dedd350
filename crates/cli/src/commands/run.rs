//! `sandcrab run`

use crate::attached;
use crate::interrupt::Interrupts;
use crate::plan::CommandPlan;
use crate::report::Report;
use crate::server;
use anyhow::Result;
use sandcrab_client::api::ErrorCode;
use sandcrab_client::{Client, Sandbox, SandboxOptions};
use sandcrab_runtime::doctor::Feature;

pub(crate) async fn run(
    url: Option<&str>,
    options: SandboxOptions,
    plan: &CommandPlan,
    allow_missing: &[Feature],
    report: Report,
) -> Result<u8> {
    let interrupts = Interrupts::listen()?;
    let (client, embedded) = server::client_or_embedded(url, allow_missing).await?;
    if let Some(image) = &options.image {
        // Whatever keeps it from answering this, the next request tells.
        let _noted = super::image::note_a_build(&client, image, report).await;
    }
    let outcome = in_throw_away(&client, options, plan, &interrupts, report).await;
    if let Some(server) = embedded {
        server.stop(report).await;
    }
    outcome
}

/// Runs the command in a sandbox that is gone afterwards, however it ended.
async fn in_throw_away(
    client: &Client,
    options: SandboxOptions,
    plan: &CommandPlan,
    interrupts: &Interrupts,
    report: Report,
) -> Result<u8> {
    let sandbox = client.sandbox(format!("run-{:016x}", rand::random::<u64>()), options)?;
    let exec = attached::prepare(sandbox.exec(&plan.text).fresh(), plan);
    let outcome = attached::run(&sandbox, exec, interrupts, report).await;
    match sandbox.destroy().await {
        Ok(_) => {}
        // It did not come to be, which the outcome tells.
        Err(error)
            if outcome.is_err()
                && (error.is_connect() || error.code() == Some(ErrorCode::SandboxNotFound)) => {}
        Err(error) => left_behind(&sandbox, error, report),
    }
    outcome
}

fn left_behind(sandbox: &Sandbox, error: sandcrab_client::ClientError, report: Report) {
    let error = anyhow::Error::from(error);
    report.failure(
        &error.context(format!("the sandbox is left; take it away with `sandcrab rm {}`", sandbox.id())),
    );
}

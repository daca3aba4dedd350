//! `sandcrab exec`

use crate::attached;
use crate::interrupt::Interrupts;
use crate::plan::CommandPlan;
use crate::report::Report;
use anyhow::Result;
use sandcrab_client::Sandbox;
use sandcrab_client::api::SessionId;

pub(crate) async fn run(
    sandbox: &Sandbox,
    session: &SessionId,
    plan: &CommandPlan,
    report: Report,
) -> Result<u8> {
    let exec = attached::prepare(sandbox.session(session.as_str())?.exec(&plan.text), plan);
    let interrupts = Interrupts::listen()?;
    attached::run(sandbox, exec, &interrupts, report).await
}

//! `sandcrab info`, `sandcrab logs` and `sandcrab rm`

use super::handle;
use super::list::word;
use crate::report::{Report, name};
use anyhow::Result;
use sandcrab_client::api::sandbox::{SandboxEvent, SandboxInfo};
use sandcrab_client::api::{ErrorCode, SandboxId};
use sandcrab_client::{Client, Sandbox};

pub(crate) async fn server(client: &Client, report: Report) -> Result<()> {
    let health = client.health().await?;
    report.result(&health, |health| {
        format!("status   {}\nversion  {}", name(&health.status), name(&health.version))
    })
}

pub(crate) async fn sandbox(sandbox: &Sandbox, report: Report) -> Result<()> {
    let info = sandbox.info().await?;
    report.result(&info, describe)
}

fn describe(info: &SandboxInfo) -> String {
    let limits = &info.limits;
    let bytes = |size: Option<sandcrab_client::api::units::ByteSize>| {
        size.map_or_else(|| "unlimited".to_owned(), |size| format!("{} MiB", size.0 >> 20))
    };
    let sleep = match info.keep_alive {
        true => "never".to_owned(),
        false => format!("after {} s idle", info.sleep_after.0.as_secs_f64()),
    };
    let mut lines = vec![
        ("id", info.id.to_string()),
        ("status", word(&info.status)),
        ("since", info.last_change.to_string()),
        ("created", info.created_at.to_string()),
        ("image", info.image.clone()),
        ("network", word(&info.network)),
        ("memory", bytes(limits.memory)),
        ("disk", bytes(limits.disk)),
        ("cpu", limits.cpu.map_or_else(|| "unlimited".to_owned(), |cpu| cpu.to_string())),
        ("pids", limits.pids.map_or_else(|| "unlimited".to_owned(), |pids| pids.to_string())),
        ("files", limits.open_files.map_or_else(|| "unlimited".to_owned(), |files| files.to_string())),
        ("sleeps", sleep),
    ];
    if !info.not_enforced.is_empty() {
        lines.push(("unlimited", format!("{}: this server cannot enforce it", info.not_enforced.join(", "))));
    }
    lines.extend(info.labels.iter().map(|(label, value)| ("label", format!("{label}={value}"))));
    lines.into_iter().map(|(what, value)| format!("{what:10}{}\n", name(&value))).collect()
}

pub(crate) async fn logs(sandbox: &Sandbox, follow: bool, report: Report) -> Result<()> {
    if !follow {
        let events = sandbox.events().await?;
        return events.iter().try_for_each(|event| report.result(event, event_line));
    }
    let mut events = sandbox.follow_events(0).await?;
    while let Some(event) = events.next().await {
        if !report.entry(&event?, event_line)? {
            break;
        }
    }
    Ok(())
}

fn event_line(event: &SandboxEvent) -> String {
    let mut line = format!("{}  {}  by {}", event.timestamp, name(&event.kind), name(&event.actor));
    if !event.reason.is_empty() {
        line += &format!(": {}", name(&event.reason));
    }
    if !event.detail.is_null() {
        line += &format!("  {}", name(&event.detail.to_string()));
    }
    line
}

/// Destroys all of them that can be, and tells of each that cannot.
pub(crate) async fn remove(client: &Client, ids: &[SandboxId], force: bool, report: Report) -> Result<u8> {
    let mut code = 0;
    for id in ids {
        match handle(client, id)?.destroy().await {
            Ok(destroyed) => report.result(&destroyed, |destroyed| destroyed.sandbox_id.to_string())?,
            Err(error) if force && error.code() == Some(ErrorCode::SandboxNotFound) => {}
            Err(error) => {
                report.failure(&error.into());
                code = crate::FAILED;
            }
        }
    }
    Ok(code)
}

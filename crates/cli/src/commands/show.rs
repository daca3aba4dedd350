//! `sandcrab create`, `info`, `logs`, `stop` and `rm`

use super::handle;
use super::list::word;
use crate::report::{Report, name};
use anyhow::Result;
use sandcrab_client::api::sandbox::{SandboxEvent, SandboxInfo, StopSignal};
use sandcrab_client::api::{ErrorCode, SandboxId};
use sandcrab_client::{Client, Sandbox, SandboxOptions};

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

/// Makes a sandbox; an image that is not built yet is built first.
pub(crate) async fn create(
    client: &Client,
    id: &SandboxId,
    options: SandboxOptions,
    report: Report,
) -> Result<u8> {
    if let Some(image) = &options.image {
        // Whatever keeps it from answering this, the next request tells.
        let _noted = super::image::note_a_build(client, image, report).await;
    }
    let info = client.sandbox(id.as_str(), options)?.create().await?;
    report.result(&info, |info| info.id.to_string())?;
    Ok(0)
}

/// Stops sandboxes; one that does not run stays as it is.
pub(crate) async fn stop(
    client: &Client,
    ids: &[SandboxId],
    signal: StopSignal,
    report: Report,
) -> Result<u8> {
    let mut code = 0;
    for id in ids {
        match handle(client, id)?.stop(signal).await {
            Ok(stopped) => report.result(&stopped, |stopped| stopped.sandbox_id.to_string())?,
            Err(error) => {
                report.failure(&error.into());
                code = crate::FAILED;
            }
        }
    }
    Ok(code)
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

//! `sandcrab start`, `sandcrab attach`, `sandcrab kill` and `sandcrab logs` of a process

use crate::attached::{BROKEN_PIPE, code, write};
use crate::plan::StartPlan;
use crate::report::Report;
use anyhow::{Context as _, Result};
use futures_util::{Stream, StreamExt as _};
use sandcrab_client::api::ProcessId;
use sandcrab_client::api::exec::StreamName;
use sandcrab_client::api::process::{ProcessExit, ProcessInfo};
use sandcrab_client::{AttachedInput, ClientError, LogEvent, PortWait, Process, Sandbox};
use serde_json::json;
use std::io::ErrorKind;
use tokio::io::AsyncReadExt as _;

/// Starts a process, waits for what was asked, and prints its id.
pub(crate) async fn start(sandbox: &Sandbox, plan: StartPlan, report: Report) -> Result<u8> {
    let mut start = sandbox.session(plan.session.as_str())?.start(plan.command.text);
    for (name, value) in plan.command.env {
        start = start.env(name, value);
    }
    if let Some(cwd) = plan.command.cwd {
        start = start.cwd(cwd);
    }
    if let Some(timeout) = plan.command.timeout {
        start = start.timeout(timeout);
    }
    if let Some(id) = plan.id {
        start = start.with_id(id);
    }
    if plan.restart {
        start = start.restart();
    }
    if plan.interactive {
        start = start.interactive();
    }
    let (process, info) = start.run_with_info().await?;
    if let Some(pattern) = plan.wait_log {
        process.wait_for_log(pattern, plan.wait_timeout).await?;
    }
    if let Some(port) = plan.wait_port {
        process.wait_for_port(PortWait::tcp(port), plan.wait_timeout).await?;
    }
    if plan.interactive {
        return converse(&process, report).await;
    }
    report.result(&info, |info| info.id.to_string())?;
    Ok(0)
}

/// Passes stdin on and prints what comes, to the process's end.
async fn converse(process: &Process, report: Report) -> Result<u8> {
    let (input, output) = process.attach().await?.split();
    // Left alone at the end: a terminal is read until someone types. What it meets the output tells too.
    tokio::spawn(feed(input, report));
    match print(output, report).await? {
        Some(exit) => Ok(code(exit.exit_code)),
        None => Ok(BROKEN_PIPE),
    }
}

async fn feed(mut input: AttachedInput, report: Report) -> Result<(), ClientError> {
    let mut stdin = tokio::io::stdin();
    loop {
        let mut bytes = Vec::with_capacity(64 << 10);
        match stdin.read_buf(&mut bytes).await {
            Ok(1..) => input.write(bytes).await?,
            Ok(0) => return input.end().await,
            Err(error) => {
                report.note(format_args!("read stdin: {error}"));
                return input.end().await;
            }
        }
    }
}

/// Talks with a process that runs.
pub(crate) async fn attach(sandbox: &Sandbox, id: &ProcessId, report: Report) -> Result<u8> {
    converse(&sandbox.process(id.as_str())?, report).await
}

/// Shows a process's log.
pub(crate) async fn logs(sandbox: &Sandbox, id: &ProcessId, follow: bool, report: Report) -> Result<()> {
    let process = sandbox.process(id.as_str())?;
    if follow {
        return print(process.follow().await?, report).await.map(drop);
    }
    let logs = process.logs().await?;
    if report.json {
        let text = json!({
            "processId": id,
            "stdout": logs.stdout_text(),
            "stderr": logs.stderr_text(),
            "truncated": logs.truncated,
        });
        return report.result(&text, ToString::to_string);
    }
    if let Some(truncated) = logs.truncated {
        for (name, bytes) in [("stdout", truncated.stdout), ("stderr", truncated.stderr)] {
            if let Some(bytes) = bytes {
                report.note(format_args!("the first {bytes} bytes of {name} are no longer kept"));
            }
        }
    }
    let written = match write(&mut tokio::io::stdout(), &logs.stdout).await {
        Ok(()) => write(&mut tokio::io::stderr(), &logs.stderr).await,
        error => error,
    };
    match written {
        // Whoever read this has read enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("write the log"),
    }
}

/// Prints a process's log as it is written; none if nobody reads any more.
async fn print(
    mut log: impl Stream<Item = Result<LogEvent, ClientError>> + Unpin,
    report: Report,
) -> Result<Option<ProcessExit>> {
    let (mut stdout, mut stderr) = (tokio::io::stdout(), tokio::io::stderr());
    while let Some(event) = log.next().await {
        let event = event?;
        if report.json && !report.entry(&as_json(&event), ToString::to_string)? {
            return Ok(None);
        }
        let written = match event {
            LogEvent::Exit(exit) => return Ok(Some(exit)),
            _ if report.json => Ok(()),
            LogEvent::Stdout(bytes) => write(&mut stdout, &bytes).await,
            LogEvent::Stderr(bytes) => write(&mut stderr, &bytes).await,
            LogEvent::Dropped { stream, bytes } => {
                report.note(format_args!("{bytes} bytes of {} are no longer kept", word(stream)));
                Ok(())
            }
            _ => Ok(()),
        };
        match written {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(None),
            written => written.context("write the log")?,
        }
    }
    anyhow::bail!("the process's log ended without its end")
}

fn word(stream: StreamName) -> &'static str {
    match stream {
        StreamName::Stdout => "stdout",
        StreamName::Stderr => "stderr",
    }
}

/// An event on a line of its own.
fn as_json(event: &LogEvent) -> serde_json::Value {
    match event {
        LogEvent::Info { command, status } => {
            json!({ "type": "process_info", "command": command, "status": status })
        }
        LogEvent::Stdout(bytes) => json!({ "type": "stdout", "data": String::from_utf8_lossy(bytes) }),
        LogEvent::Stderr(bytes) => json!({ "type": "stderr", "data": String::from_utf8_lossy(bytes) }),
        LogEvent::Dropped { stream, bytes } => {
            json!({ "type": "dropped", "stream": word(*stream), "bytes": bytes })
        }
        LogEvent::Exit(exit) => json!({ "type": "exit", "exitCode": exit.exit_code, "status": exit.status }),
        // A later release may tell more.
        _ => json!({ "type": "unknown" }),
    }
}

/// Signals all of them that can be, and tells of each that cannot.
pub(crate) async fn kill(sandbox: &Sandbox, ids: &[ProcessId], signal: &str, report: Report) -> Result<u8> {
    let mut code = 0;
    for id in ids {
        match sandbox.process(id.as_str())?.signal(signal).await {
            Ok(info) => report.result(&info, |info: &ProcessInfo| info.id.to_string())?,
            Err(error) => {
                report.failure(&error.into());
                code = crate::FAILED;
            }
        }
    }
    Ok(code)
}

/// Ends all processes and says how many there were.
pub(crate) async fn kill_all(sandbox: &Sandbox, report: Report) -> Result<()> {
    let count = sandbox.kill_all_processes().await?;
    report.result(&json!({ "count": count }), |_| count.to_string())
}

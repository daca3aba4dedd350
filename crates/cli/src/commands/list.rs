//! `sandcrab ls` and `sandcrab ps`

use crate::report::{Report, table};
use anyhow::Result;
use sandcrab_client::api::exec::ExecInfo;
use sandcrab_client::api::files::{FileInfo, FileType};
use sandcrab_client::api::process::ProcessInfo;
use sandcrab_client::api::sandbox::SandboxInfo;
use sandcrab_client::api::session::SessionInfo;
use sandcrab_client::{Client, ListOptions, Sandbox};
use serde::Serialize;
use serde_json::Value;

pub(crate) async fn sandboxes(client: &Client, labels: &[(String, String)], report: Report) -> Result<()> {
    let labels: Vec<(&str, &str)> =
        labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let sandboxes = client.sandboxes(&labels).await?;
    report.result(&sandboxes, |sandboxes| {
        table(["ID", "STATUS", "IMAGE", "CREATED", "LABELS"], sandboxes.iter().map(sandbox_row))
    })
}

fn sandbox_row(info: &SandboxInfo) -> [String; 5] {
    let labels: Vec<String> = info.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    [
        info.id.to_string(),
        word(&info.status),
        info.image.clone(),
        info.created_at.to_string(),
        labels.join(","),
    ]
}

/// A value's name on the wire.
pub(crate) fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(text)) => text,
        other => format!("{other:?}"),
    }
}

pub(crate) async fn files(
    sandbox: &Sandbox,
    path: &str,
    all: bool,
    recursive: bool,
    report: Report,
) -> Result<()> {
    let options = ListOptions { recursive, include_hidden: all };
    let files = sandbox.files().list(path, options).await?;
    report.result(&files, |files| {
        table(["MODE", "SIZE", "MODIFIED", "NAME"], files.iter().map(|file| file_row(file, recursive)))
    })
}

fn file_row(file: &FileInfo, recursive: bool) -> [String; 4] {
    let kind = match file.kind {
        FileType::File => '-',
        FileType::Directory => 'd',
        FileType::Symlink => 'l',
        FileType::Other => '?',
    };
    let name = if recursive { &file.relative_path } else { &file.name };
    [format!("{kind}{}", file.mode), file.size.to_string(), file.modified_at.to_string(), name.clone()]
}

/// Sessions, the commands that wait or run in them or in shells of their own, and processes.
#[derive(Serialize)]
struct Activity {
    sessions: Vec<SessionInfo>,
    execs: Vec<ExecInfo>,
    processes: Vec<ProcessInfo>,
}

pub(crate) async fn activity(sandbox: &Sandbox, report: Report) -> Result<()> {
    let activity = Activity {
        sessions: sandbox.sessions().await?,
        execs: sandbox.execs().await?,
        processes: sandbox.processes().await?,
    };
    report.result(&activity, |activity| {
        let sessions = activity.sessions.iter().map(session_row);
        let mut text = table(["SESSION", "STATE", "WAITING", "DIRECTORY", "CREATED"], sessions);
        if !activity.execs.is_empty() {
            text.push('\n');
            text += &table(["COMMAND", "SESSION", "STATE", "TEXT"], activity.execs.iter().map(exec_row));
        }
        if !activity.processes.is_empty() {
            text.push('\n');
            let heading = ["PROCESS", "PID", "STATUS", "EXIT", "STARTED", "TEXT"];
            text += &table(heading, activity.processes.iter().map(process_row));
        }
        text
    })
}

fn session_row(session: &SessionInfo) -> [String; 5] {
    let state = if session.busy { "busy" } else { "idle" };
    [
        session.id.to_string(),
        state.to_owned(),
        session.waiting.to_string(),
        session.cwd.clone(),
        session.created_at.to_string(),
    ]
}

/// As much of a command's text as fits a line.
const TEXT_CHARS: usize = 60;

fn exec_row(exec: &ExecInfo) -> [String; 4] {
    let session = exec.session_id.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
    [exec.exec_id.to_string(), session, word(&exec.state), short(&exec.command)]
}

fn process_row(process: &ProcessInfo) -> [String; 6] {
    let number = |number: Option<String>| number.unwrap_or_else(|| "-".to_owned());
    [
        process.id.to_string(),
        number(process.pid.map(|pid| pid.to_string())),
        word(&process.status),
        number(process.exit_code.map(|code| code.to_string())),
        process.start_time.to_string(),
        short(&process.command),
    ]
}

fn short(command: &str) -> String {
    let mut text: String = command.chars().take(TEXT_CHARS).collect();
    if text.len() < command.len() {
        text.push('…');
    }
    text
}

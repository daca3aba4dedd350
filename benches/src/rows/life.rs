//! Making sandboxes and sessions, and what an idle one weighs.

use super::{Bench, TURNS, Turns, run};
use crate::bare::shell;
use crate::figure::{Figure, Promise};
use crate::memory;
use crate::table::Row;
use anyhow::{Context as _, Result, ensure};
use futures_util::future::try_join_all;
use sandcrab_client::SandboxOptions;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// More sessions than there can be spare shells for.
const AT_ONCE: usize = 10;

pub(super) async fn measure(bench: &Bench, rows: &mut Vec<Row>) -> Result<()> {
    if bench.wants("create") {
        eprintln!("create a sandbox");
        let mut turns = Turns::new();
        for turn in 0..TURNS {
            turns.bare.extend(bare_sandboxes(&bench.scratch, 40)?);
            for number in 0..40 {
                let sandbox = bench
                    .client
                    .sandbox(format!("bench-create-{turn}-{number}"), SandboxOptions::default())?;
                turns.ours.push(run(&sandbox, "true").await?);
                sandbox.destroy().await?;
            }
        }
        let (bare, ours) = turns.figures();
        let within = Promise::WithinBoth { median: 10.0, p99: 40.0 };
        let row = Row::new("create", "create a sandbox and get its first result, no pool", ours, within);
        rows.push(row.beside(bare, "namespaces, mounts, bash"));
    }
    if bench.wants("session") {
        eprintln!("create a session");
        let sandbox = bench.warm("bench-session").await?;
        let mut turns = Turns::new();
        for turn in 0..TURNS {
            for _ in 0..40 {
                turns.bare.push(shell::time_start()?);
            }
            for number in 0..40 {
                let begun = Instant::now();
                let session = sandbox.session(format!("s{turn}-{number}"))?;
                ensure!(session.exec("true").await?.success(), "`true` failed");
                turns.ours.push(begun.elapsed());
                session.delete().await?;
            }
        }
        sandbox.destroy().await?;
        let (bare, ours) = turns.figures();
        let row = Row::new(
            "session",
            "create a session and get its first result",
            ours,
            Promise::Within { median: 2.0 },
        );
        rows.push(row.beside(bare, "`bash -c true`"));
    }
    if bench.wants("sessions-at-once") {
        eprintln!("{AT_ONCE} sessions at once");
        let sandbox = bench.warm("bench-sessions").await?;
        let cores = std::thread::available_parallelism()?.get();
        let mut turns = Turns::new();
        for turn in 0..TURNS * 4 {
            for _ in 0..AT_ONCE {
                turns.bare.push(shell::time_start()? * AT_ONCE.div_ceil(cores) as u32);
            }
            let sessions: Vec<_> = (0..AT_ONCE)
                .map(|number| sandbox.session(format!("s{turn}-{number}")))
                .collect::<Result<_, _>>()?;
            let begun = Instant::now();
            try_join_all(sessions.iter().map(async |session| anyhow::Ok(session.exec("true").await?)))
                .await?;
            turns.ours.push(begun.elapsed());
            for session in sessions {
                session.delete().await?;
            }
        }
        sandbox.destroy().await?;
        let (bare, ours) = turns.figures();
        let row = Row::new(
            "sessions-at-once",
            "ten sessions at once, each with its first result",
            ours,
            Promise::TimesBare(2.5),
        );
        rows.push(row.beside(bare, "`bash -c true` × ten ÷ cores"));
    }
    Ok(())
}

/// What the kernel charges an idle sandbox, whose agent is a child of the server.
pub(super) async fn measure_memory(bench: &Bench, rows: &mut Vec<Row>) -> Result<()> {
    if !bench.wants("idle-memory") {
        return Ok(());
    }
    eprintln!("memory of an idle sandbox");
    let before = memory::children(bench.server)?;
    let sandbox = bench.client.sandbox("bench-idle", SandboxOptions::default())?;
    run(&sandbox, "true").await?;
    let agent = agent(bench.server, &before)?;
    // The agent's group and those of its sessions lie beside each other in the sandbox's own.
    let group = memory::of_process(agent)?;
    let own = memory::of_process(bench.server)?;
    let top = group.ancestors().take_while(|dir| *dir != own).find(|dir| is_sandbox(dir)).unwrap_or(&group);
    let charged = settled(top).await?;
    sandbox.destroy().await?;
    let bare = bare_memory(&bench.scratch)?;
    let row = Row::new(
        "idle-memory",
        "an idle sandbox with one session, memory charged",
        Figure::Memory(charged),
        Promise::Bytes(1_500_000),
    );
    rows.push(row.beside(Figure::Memory(bare), "namespaces, bash"));
    Ok(())
}

/// What a group is charged once the kernel has let go of what the start needed, which it does behind a grace period of RCU.
async fn settled(group: &Path) -> Result<u64> {
    let mut charged = memory::charged(group)?;
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = memory::charged(group)?;
        if now == charged {
            return Ok(now);
        }
        charged = now;
    }
}

/// Whether a control group is the one of a whole sandbox: those are named after the instance, 16 hexadecimal digits.
fn is_sandbox(dir: &Path) -> bool {
    let name = dir.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.len() >= 16 && name[name.len() - 16..].bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The agent that was started since `before` was looked at.
pub(super) fn agent(server: u32, before: &[u32]) -> Result<u32> {
    let now = memory::children(server)?;
    now.into_iter().find(|pid| !before.contains(pid)).context("the new sandbox has an agent below the server")
}

fn bare_sandboxes(scratch: &Path, count: usize) -> Result<Vec<Duration>> {
    let out = own(&["bare-sandbox", &scratch.join("bare").to_string_lossy(), &count.to_string()])?;
    out.lines().map(|line| Ok(Duration::from_nanos(line.parse().context("a time in nanoseconds")?))).collect()
}

fn bare_memory(scratch: &Path) -> Result<u64> {
    let out = own(&["bare-memory", &scratch.join("bare").to_string_lossy()])?;
    out.trim().parse().context("a number of bytes")
}

/// This program again, single-threaded, for what only such a process may do.
fn own(args: &[&str]) -> Result<String> {
    let program = std::env::current_exe().context("this program's path")?;
    #[expect(clippy::disallowed_methods, reason = "a process of one thread is needed for clone")]
    let output = Command::new(program).args(args).output().context("start this program again")?;
    ensure!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).context("UTF-8 from this program")
}

//! Processes: started, followed, waited for, killed.

use super::life::agent;
use super::{Bench, run};
use crate::figure::{Figure, Promise};
use crate::memory;
use crate::table::Row;
use anyhow::{Context as _, Result, ensure};
use sandcrab_client::{LogEvent, PortWait, Sandbox};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long anything here may take.
const PATIENCE: Option<Duration> = Some(Duration::from_secs(60));
const LINES: usize = 1000;
/// Prints what time it is, again and again. The sandbox has the machine's clock.
const CLOCK: &str = "exec python3 -uc 'import time
for i in range(1000):
    print(time.time_ns())
    time.sleep(0.002)'";
const PORTS: u16 = 200;
const FIRST_PORT: u16 = 20000;
/// Opens one port after the other, and prints when.
const OPENER: &str = "exec python3 -uc 'import socket, time
open = []
time.sleep(0.3)
for port in range(20000, 20200):
    s = socket.socket()
    s.bind((\"127.0.0.1\", port))
    now = time.time_ns()
    s.listen()
    open.append(s)
    print(now)
    time.sleep(0.015)
time.sleep(60)'";
/// Fifty processes: a shell, and what it started.
const TREE: &str = "for i in $(seq 49); do sleep 1000 & done; echo up; wait";
const LOG: usize = 1_000_000_000;
/// How far server and agent may grow while they pass a log on.
const GROWTH: u64 = 32 << 20;

pub(super) async fn measure(bench: &Bench, rows: &mut Vec<Row>) -> Result<()> {
    if bench.wants("process") {
        let sandbox = bench.warm("bench-process").await?;
        rows.push(start(&sandbox).await?);
        rows.push(line(&sandbox).await?);
        rows.push(port(&sandbox).await?);
        rows.push(kill(&sandbox).await?);
        sandbox.destroy().await?;
    }
    if bench.wants("log") {
        log(bench, rows).await?;
    }
    Ok(())
}

async fn start(sandbox: &Sandbox) -> Result<Row> {
    eprintln!("starting processes");
    let mut times = Vec::new();
    for number in 0..300 {
        let begun = Instant::now();
        let process = sandbox.start("sleep 1000").await?;
        process.info().await?;
        times.push(begun.elapsed());
        if number % 50 == 49 {
            sandbox.kill_all_processes().await?;
            sandbox.cleanup_completed_processes().await?;
        }
    }
    let work = "`startProcess` and `getProcess`";
    Ok(Row::new("process-start", work, Figure::of(times), Promise::Within { median: 2.0 }))
}

/// Since a moment that a process has printed, in nanoseconds since 1970.
fn since(text: &str) -> Result<Duration> {
    let then = Duration::from_nanos(text.trim().parse().with_context(|| format!("{text:?} is no time"))?);
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.saturating_sub(then))
}

async fn line(sandbox: &Sandbox) -> Result<Row> {
    eprintln!("lines of a log");
    let mut log = sandbox.start(CLOCK).await?.follow().await?;
    let mut times = Vec::new();
    let mut rest = String::new();
    while let Some(event) = log.next().await {
        let LogEvent::Stdout(bytes) = event? else { continue };
        rest += std::str::from_utf8(&bytes)?;
        while let Some((line, after)) = rest.split_once('\n') {
            times.push(since(line)?);
            rest = after.to_owned();
        }
    }
    ensure!(times.len() == LINES, "{} lines came instead of {LINES}", times.len());
    let work = "a line written to a line received on a log stream";
    Ok(Row::new("process-line", work, Figure::of(times), Promise::Within { median: 1.0 }))
}

async fn port(sandbox: &Sandbox) -> Result<Row> {
    eprintln!("ports that open");
    let process = sandbox.start(OPENER).await?;
    let mut seen = Vec::new();
    for port in FIRST_PORT..FIRST_PORT + PORTS {
        process.wait_for_port(PortWait::tcp(port), PATIENCE).await?;
        seen.push(SystemTime::now().duration_since(UNIX_EPOCH)?);
    }
    // The last line may still be on its way.
    while process.logs().await?.stdout.iter().filter(|byte| **byte == b'\n').count() < seen.len() {
        tokio::task::yield_now().await;
    }
    let logs = process.logs().await?;
    let opened = logs
        .stdout_text()
        .lines()
        .map(|line| Ok(Duration::from_nanos(line.parse()?)))
        .collect::<Result<Vec<_>>>()?;
    let times = seen.iter().zip(opened).map(|(seen, opened)| seen.saturating_sub(opened)).collect();
    process.kill().await?;
    let work = "a port opened to `waitForPort` (tcp) resolved";
    Ok(Row::new("process-port", work, Figure::of(times), Promise::Within { median: 6.0 }))
}

async fn kill(sandbox: &Sandbox) -> Result<Row> {
    eprintln!("killing trees of 50");
    let mut times = Vec::new();
    for _ in 0..20 {
        let process = sandbox.start(TREE).await?;
        process.wait_for_log("up", PATIENCE).await?;
        let begun = Instant::now();
        process.kill().await?;
        times.push(begun.elapsed());
    }
    let left = sandbox.exec("pgrep -cx sleep").await?;
    ensure!(left.stdout_text().trim() == "0", "{} processes are left", left.stdout_text().trim());
    let work = "`killProcess` of a tree of 50 that obeys TERM";
    Ok(Row::new("process-kill", work, Figure::of(times), Promise::Within { median: 20.0 }))
}

async fn log(bench: &Bench, rows: &mut Vec<Row>) -> Result<()> {
    eprintln!("1 GB through a log");
    let before = memory::children(bench.server)?;
    let sandbox = bench.client.sandbox("bench-log", sandcrab_client::SandboxOptions::default())?;
    run(&sandbox, "true").await?;
    let watched = [bench.server, agent(bench.server, &before)?];
    let start = watched.iter().map(|pid| memory::forget_peak(*pid)).collect::<Result<Vec<_>>>()?;
    let begun = Instant::now();
    let process = sandbox.start(format!("head -c {LOG} /dev/zero | tr '\\0' x")).await?;
    let mut log = process.follow().await?;
    let (mut seen, mut dropped) = (0, 0);
    while let Some(event) = log.next().await {
        match event? {
            LogEvent::Stdout(bytes) => seen += bytes.len() as u64,
            LogEvent::Dropped { bytes, .. } => dropped += bytes,
            _ => {}
        }
    }
    let took = begun.elapsed();
    ensure!(seen + dropped == LOG as u64, "{seen} bytes came and {dropped} were dropped of {LOG}");
    eprintln!("{dropped} bytes were dropped");
    let mut grown = Vec::new();
    for (pid, start) in watched.iter().zip(start) {
        grown.push(memory::peak(*pid)?.saturating_sub(start));
    }
    sandbox.destroy().await?;
    let speed = Figure::throughput(usize::try_from(seen)?, took);
    rows.push(Row::new("log-stream", "1 GB through a process's log", speed, Promise::Shown));
    for (key, work, bytes) in [
        ("log-server", "growth of the server meanwhile", grown[0]),
        ("log-agent", "growth of the agent meanwhile", grown[1]),
    ] {
        rows.push(Row::new(key, work, Figure::Memory(bytes), Promise::Bytes(GROWTH)));
    }
    Ok(())
}

//! Much output, and large files.

use super::life::agent;
use super::{Bench, TURNS, Turns, run};
use crate::bare::http::{CONTENT, Http};
use crate::bare::shell;
use crate::figure::{Figure, Promise};
use crate::memory;
use crate::table::Row;
use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use sandcrab_client::{ExecEvent, SandboxOptions};
use std::time::{Duration, Instant};

const STREAM: usize = 100_000_000;
const RESULT: usize = 10_000_000;
/// How far server and agent may grow while they pass a stream on.
const GROWTH: u64 = 32 << 20;

pub(super) async fn measure(bench: &Bench, http: &Http, rows: &mut Vec<Row>) -> Result<()> {
    if bench.wants("bulk") {
        stream(bench, rows).await?;
        result(bench, rows).await?;
    }
    if bench.wants("file") {
        files(bench, http, rows).await?;
    }
    Ok(())
}

fn print(bytes: usize) -> String {
    format!("head -c {bytes} /dev/zero | tr '\\0' 'x'")
}

async fn stream(bench: &Bench, rows: &mut Vec<Row>) -> Result<()> {
    eprintln!("100 MB through a stream");
    let before = memory::children(bench.server)?;
    let sandbox = bench.client.sandbox("bench-bulk", SandboxOptions::default())?;
    run(&sandbox, "true").await?;
    let watched = [bench.server, agent(bench.server, &before)?];
    let start = watched.iter().map(|pid| memory::forget_peak(*pid)).collect::<Result<Vec<_>>>()?;
    let command = print(STREAM);
    let (mut bare, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        bare.push(shell::time_pipe(&command, STREAM)?);
        let begun = Instant::now();
        let mut events = sandbox.exec(&*command).stream().await?;
        let mut seen = 0;
        while let Some(event) = events.next().await {
            match event? {
                ExecEvent::Stdout(bytes) => seen += bytes.len(),
                ExecEvent::Dropped { bytes, .. } => anyhow::bail!("{bytes} bytes were dropped"),
                _ => {}
            }
        }
        ours.push(begun.elapsed());
        ensure!(seen == STREAM, "{seen} bytes came instead of {STREAM}");
    }
    let mut grown = Vec::new();
    for (pid, start) in watched.iter().zip(start) {
        grown.push(memory::peak(*pid)?.saturating_sub(start));
    }
    sandbox.destroy().await?;
    let row =
        Row::new("bulk-stream", "100 MB through `execStream`", speed(STREAM, ours)?, Promise::AtLeast(200.0));
    rows.push(row.beside(speed(STREAM, bare)?, "bash over a pipe"));
    for (key, work, bytes) in [
        ("bulk-server", "growth of the server meanwhile", grown[0]),
        ("bulk-agent", "growth of the agent meanwhile", grown[1]),
    ] {
        rows.push(Row::new(key, work, Figure::Memory(bytes), Promise::Bytes(GROWTH)));
    }
    Ok(())
}

async fn result(bench: &Bench, rows: &mut Vec<Row>) -> Result<()> {
    eprintln!("10 MB in a result");
    let sandbox = bench.warm("bench-result").await?;
    let command = print(RESULT);
    let (mut bare, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..TURNS * 3 {
        bare.push(shell::time_pipe(&command, RESULT)?);
        let begun = Instant::now();
        let output = sandbox.exec(&*command).await?;
        ours.push(begun.elapsed());
        ensure!(output.stdout.len() == RESULT, "{} bytes came instead of {RESULT}", output.stdout.len());
    }
    sandbox.destroy().await?;
    let row =
        Row::new("bulk-result", "`exec` that prints 10 MB", speed(RESULT, ours)?, Promise::AtLeast(200.0));
    rows.push(row.beside(speed(RESULT, bare)?, "bash over a pipe"));
    Ok(())
}

/// The speed of the median time.
pub(super) fn speed(bytes: usize, mut times: Vec<Duration>) -> Result<Figure> {
    times.sort_unstable();
    Ok(Figure::throughput(bytes, *times.get(times.len() / 2).context("a time")?))
}

async fn files(bench: &Bench, http: &Http, rows: &mut Vec<Row>) -> Result<()> {
    eprintln!("1 MiB files");
    let sandbox = bench.warm("bench-files").await?;
    let files = sandbox.files();
    // Bytes of every value, so that nothing can treat it as text.
    let content: Bytes = (0..CONTENT).map(|at| (at % 251) as u8).collect::<Vec<_>>().into();
    let (mut write, mut read) = (Turns::new(), Turns::new());
    for _ in 0..TURNS {
        for _ in 0..40 {
            write.bare.push(http.time_upload(&content).await?);
            read.bare.push(http.time_download().await?);
        }
        for _ in 0..40 {
            let begun = Instant::now();
            files.write("/workspace/content", content.clone()).await?;
            write.ours.push(begun.elapsed());
            let begun = Instant::now();
            let back = files.read("/workspace/content").await?;
            read.ours.push(begun.elapsed());
            ensure!(back == content, "the file came back changed");
        }
    }
    sandbox.destroy().await?;
    for (key, work, turns) in
        [("file-write", "write 1 MiB of binary", write), ("file-read", "read 1 MiB of binary", read)]
    {
        let (bare, ours) = turns.figures();
        rows.push(
            Row::new(key, work, ours, Promise::TimesBare(2.0)).beside(bare, "the same over plain HTTP"),
        );
    }
    Ok(())
}

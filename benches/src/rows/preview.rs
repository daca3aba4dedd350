//! The way of a visitor to a server inside a sandbox, beside the same server asked straight and through plain copies.

use super::bulk::speed;
use super::life::agent;
use super::{Bench, TURNS, Turns, run};
use crate::bare::bytes::{Asker, Served, two_hops};
use crate::figure::{Figure, Promise};
use crate::memory;
use crate::table::Row;
use anyhow::{Context as _, Result};
use sandcrab_client::{ExposeOptions, PortWait, Sandbox, SandboxOptions, WriteOptions};
use std::time::{Duration, Instant};
use tokio::task::block_in_place;

const PORT: u16 = 8000;
const PATIENCE: Option<Duration> = Some(Duration::from_secs(60));
/// Bytes of a small answer, and how often it is asked for in each turn.
const SMALL: usize = 100;
const EACH: usize = 400;
const LARGE: usize = 1_000_000_000;
/// How far server and agent may grow while they pass a large answer on.
const GROWTH: u64 = 32 << 20;

pub(super) async fn measure(bench: &Bench, rows: &mut Vec<Row>) -> Result<()> {
    if !bench.wants("preview") {
        return Ok(());
    }
    let before = memory::children(bench.server)?;
    let sandbox = bench.client.sandbox("bench-preview", SandboxOptions::default())?;
    run(&sandbox, "true").await?;
    let watched = [bench.server, agent(bench.server, &before)?];
    let host = serve_inside(bench, &sandbox).await?;
    let served = Served::start()?;
    // What talks to both is the same, and waits on a thread of its own: nothing of a runtime is in the figures.
    block_in_place(|| {
        rows.push(latency(bench, &served, &host)?);
        throughput(bench, &served, &host, watched, rows)
    })?;
    sandbox.destroy().await?;
    Ok(())
}

/// Starts the server of bytes inside; returns the host name of its preview.
async fn serve_inside(bench: &Bench, sandbox: &Sandbox) -> Result<String> {
    let program = std::env::current_exe().context("this program's path")?;
    let file =
        tokio::fs::File::open(&program).await.with_context(|| format!("open {}", program.display()))?;
    let options = WriteOptions { mode: Some(0o755), ..WriteOptions::default() };
    sandbox.files().write_from("/workspace/bytes", file, options).await?;
    sandbox
        .start(format!("exec ./bytes serve-bytes {PORT}"))
        .await?
        .wait_for_port(PortWait::tcp(PORT), PATIENCE)
        .await?;
    let hostname = Some(format!("localhost:{}", bench.address.port()));
    let exposed = sandbox.expose_port(PORT, ExposeOptions { hostname, ..ExposeOptions::default() }).await?;
    Ok(exposed.url.trim_start_matches("http://").trim_end_matches('/').to_owned())
}

fn latency(bench: &Bench, served: &Served, host: &str) -> Result<Row> {
    eprintln!("small answers through a preview");
    let mut straight = Asker::connect(served.address, "localhost")?;
    let mut through = Asker::connect(bench.address, host)?;
    let mut turns = Turns::new();
    for _ in 0..TURNS {
        for (asker, times) in [(&mut straight, &mut turns.bare), (&mut through, &mut turns.ours)] {
            for round in 0..EACH {
                let took = time(asker, SMALL)?;
                // Caches and clocks of the other kind's turn.
                if round >= EACH / 10 {
                    times.push(took);
                }
            }
        }
    }
    let (bare, ours) = turns.figures();
    let work = "latency that a preview adds to a keep-alive GET";
    let row = Row::new("preview-latency", work, ours.beyond(bare), Promise::Within { median: 0.15 });
    Ok(row.beside(bare, "the GET itself"))
}

fn throughput(
    bench: &Bench,
    served: &Served,
    host: &str,
    watched: [u32; 2],
    rows: &mut Vec<Row>,
) -> Result<()> {
    eprintln!("1 GB through a preview");
    let mut copied = Asker::connect(two_hops(served.address, &bench.scratch)?, "localhost")?;
    let mut through = Asker::connect(bench.address, host)?;
    let mut turns = Turns::new();
    let start = watched.iter().map(|pid| memory::forget_peak(*pid)).collect::<Result<Vec<_>>>()?;
    for _ in 0..TURNS {
        turns.bare.push(time(&mut copied, LARGE)?);
        turns.ours.push(time(&mut through, LARGE)?);
    }
    let mut grown = Vec::new();
    for (pid, start) in watched.iter().zip(start) {
        grown.push(memory::peak(*pid)?.saturating_sub(start));
    }
    let [bare, ours] = [turns.bare, turns.ours].map(|times| speed(LARGE, times));
    let row = Row::new("preview-stream", "1 GB through a preview", ours?, Promise::TimesBare(2.0));
    rows.push(row.beside(bare?, "two plain copies"));
    for (key, work, bytes) in [
        ("preview-server", "growth of the server meanwhile", grown[0]),
        ("preview-agent", "growth of the agent meanwhile", grown[1]),
    ] {
        rows.push(Row::new(key, work, Figure::Memory(bytes), Promise::Bytes(GROWTH)));
    }
    Ok(())
}

fn time(asker: &mut Asker, bytes: usize) -> Result<Duration> {
    let begun = Instant::now();
    asker.get(bytes)?;
    Ok(begun.elapsed())
}

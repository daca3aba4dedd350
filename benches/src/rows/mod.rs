//! The rows of the table, in its order. Each measures the bare limit and Sandcrab in turns, so that a machine that
//! drifts drifts for both.

mod bulk;
mod code;
mod command;
mod life;
mod preview;
mod process;

use crate::bare::http::Http;
use crate::figure::Figure;
use crate::table::Row;
use anyhow::Result;
use sandcrab_client::{Client, Sandbox, SandboxOptions};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What every row needs.
pub(crate) struct Bench {
    pub(crate) client: Client,
    /// The server's process.
    pub(crate) server: u32,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// A folder of this run.
    pub(crate) scratch: PathBuf,
    /// Rows whose key does not hold this are left out.
    pub(crate) only: String,
}

impl Bench {
    fn wants(&self, key: &str) -> bool {
        key.contains(&self.only)
    }

    /// A sandbox that is up and has been used.
    async fn warm(&self, id: &str) -> Result<Sandbox> {
        let sandbox = self.client.sandbox(id, SandboxOptions::default())?;
        for _ in 0..20 {
            run(&sandbox, "true").await?;
        }
        Ok(sandbox)
    }
}

/// Measures every row that is wanted.
pub(crate) async fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let http = Http::start().await?;
    let mut rows = Vec::new();
    command::measure(bench, &http, &mut rows).await?;
    life::measure(bench, &mut rows).await?;
    command::measure_many(bench, &http, &mut rows).await?;
    process::measure(bench, &mut rows).await?;
    bulk::measure(bench, &http, &mut rows).await?;
    code::measure(bench, &mut rows).await?;
    preview::measure(bench, &mut rows).await?;
    life::measure_memory(bench, &mut rows).await?;
    Ok(rows)
}

/// A bare server for the TypeScript side, as long as the runtime lives.
pub(crate) async fn floor() -> Result<String> {
    Ok(Http::start().await?.url())
}

/// Runs one command, which must succeed; returns how long it took.
async fn run(sandbox: &Sandbox, command: &str) -> Result<Duration> {
    let begun = Instant::now();
    let output = sandbox.exec(command).await?;
    let took = begun.elapsed();
    anyhow::ensure!(
        output.success(),
        "`{command}` ended with {}: {}",
        output.exit_code(),
        output.stderr_text()
    );
    Ok(took)
}

/// Collects times in a few turns of two kinds.
struct Turns {
    bare: Vec<Duration>,
    ours: Vec<Duration>,
}

/// How often bare limit and Sandcrab take turns.
const TURNS: usize = 5;

impl Turns {
    fn new() -> Self {
        Self { bare: Vec::new(), ours: Vec::new() }
    }

    fn figures(self) -> (Figure, Figure) {
        (Figure::of(self.bare), Figure::of(self.ours))
    }
}

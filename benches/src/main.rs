//! Measures Sandcrab over HTTP with the Rust client, beside the bare limits of the same machine in the same run, and the
//! TypeScript package beside both. `cargo xtask bench` builds and runs it.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "the table goes to stdout, progress to stderr"
)]

mod bare;
mod figure;
mod machine;
mod memory;
mod rows;
mod server;
mod sys;
mod table;

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, Subcommand};
use figure::Figure;
use sandcrab_client::{Client, ClientOptions};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;
use table::Row;

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: What,
}

#[derive(Subcommand)]
enum What {
    /// Measure everything
    All(All),
    /// Make bare sandboxes and print the time of each in nanoseconds
    #[command(hide = true)]
    BareSandbox { dir: PathBuf, count: usize },
    /// Make one bare sandbox with a waiting bash and print what its memory group is charged
    #[command(hide = true)]
    BareMemory { dir: PathBuf },
    /// Serve bytes over HTTP, here or in a sandbox, and print where
    #[command(hide = true)]
    ServeBytes { port: u16 },
}

#[derive(clap::Args)]
struct All {
    /// The server's binary
    #[arg(long)]
    binary: PathBuf,
    /// A folder for the server's data, on a real disk
    #[arg(long)]
    dir: PathBuf,
    /// The TypeScript side; left out, its column stays empty
    #[arg(long)]
    typescript: Option<PathBuf>,
    /// Only rows whose key holds this
    #[arg(long, default_value = "")]
    only: String,
}

fn main() -> Result<()> {
    match Cli::parse().command {
        What::All(options) => all(&options),
        What::BareSandbox { dir, count } => {
            for time in bare::sandbox::times(&dir, count)? {
                println!("{}", time.as_nanos());
            }
            Ok(())
        }
        What::BareMemory { dir } => {
            let group = memory::Group::make("sandcrab-bench-bare")?;
            println!("{}", bare::sandbox::held(&dir, &group.procs(), || group.charged())?);
            Ok(())
        }
        What::ServeBytes { port } => match bare::bytes::serve(port)? {},
    }
}

fn all(options: &All) -> Result<()> {
    let load = machine::load();
    std::fs::create_dir_all(&options.dir).with_context(|| format!("create {}", options.dir.display()))?;
    let scratch = tempfile::tempdir_in(&options.dir).context("make a folder for this run")?;
    let server = server::Server::start(
        &options.binary,
        &scratch.path().join("data"),
        &options.dir.join("server.log"),
    )?;
    let mut client = ClientOptions::new(server.url.clone()).api_key(server.key.clone());
    client.reconnect_for = Duration::ZERO;
    let bench = rows::Bench {
        client: Client::new(client)?,
        server: server.pid(),
        address: server.address()?,
        scratch: scratch.path().to_owned(),
        only: options.only.clone(),
    };
    // Two threads, as the machine that the promises are made for has two cores.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    // In a task, as a program would: the thread that blocks on a runtime is woken by a worker for each answer.
    let measure = runtime.spawn(async move { rows::measure(&bench).await });
    let mut rows = runtime.block_on(measure).context("the measuring panicked")??;
    if let Some(script) = &options.typescript {
        let url = runtime.block_on(rows::floor())?;
        typescript(script, &server, &url, &options.only, &mut rows)?;
    }
    let (table, broken) = table::markdown(&rows);
    println!(
        "{table}\nTimes are medians, with the 99th percentile in brackets. {broken} promises are not kept."
    );
    println!("{}", machine::described(load));
    Ok(())
}

/// Runs the TypeScript side and puts its figures beside the others. It prints one JSON object: figures by row key.
fn typescript(
    script: &PathBuf,
    server: &server::Server,
    floor: &str,
    only: &str,
    rows: &mut [Row],
) -> Result<()> {
    eprintln!("TypeScript");
    #[expect(clippy::disallowed_methods, reason = "the TypeScript side is a program of its own")]
    let output = Command::new("node")
        .arg(script)
        .env("SANDCRAB_URL", &server.url)
        .env("SANDCRAB_API_KEY", &server.key)
        .env("BENCH_FLOOR_URL", floor)
        .env("BENCH_ONLY", only)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("start node")?;
    ensure!(output.status.success(), "{} failed: {}", script.display(), output.status);
    let figures: BTreeMap<String, Figure> =
        serde_json::from_slice(&output.stdout).context("read the figures of the TypeScript side")?;
    for (key, figure) in figures {
        match rows.iter_mut().find(|row| row.key == key) {
            Some(row) => row.typescript = Some(figure),
            None => eprintln!("no row {key}: {figure}"),
        }
    }
    Ok(())
}

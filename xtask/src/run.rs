//! `cargo xtask run`: from a fresh clone to the examples running in real sandboxes, in one command.

use crate::build;
use crate::clock::Clock;
use crate::command::cmd;
use crate::server::Server;
use crate::setup;
use crate::workspace::Workspace;
use anyhow::{Context as _, Result, bail};
use std::path::Path;
use std::time::{Duration, Instant};

/// Options of `cargo xtask run`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Then go on serving at this address, until Ctrl-C
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, default_missing_value = "127.0.0.1:8787")]
    serve: Option<String>,
}

/// A first look by hand: two sessions of one sandbox, and what outlives an `exit`.
const TOUR: &[&[&str]] = &[
    &[
        "exec",
        "-s",
        "prod",
        "tour",
        "cd /tmp && export STAGE=production && greet() { echo \"hello from $STAGE\"; }",
    ],
    &["exec", "-s", "test", "tour", "export STAGE=test"],
    &["exec", "-s", "prod", "tour", "greet; pwd"],
    &["exec", "-s", "test", "tour", "echo $STAGE; pwd"],
    &["exec", "-s", "prod", "tour", "exit 7"],
    &["exec", "-s", "prod", "tour", "greet"],
    &["exec", "tour", "ps -o pid,user,comm; hostname; ls -x -w 100 /"],
    &["ps", "tour"],
];

pub(crate) fn run(ws: &Workspace, args: &Args) -> Result<()> {
    let mut clock = Clock::start();
    clock.step("Debian packages", || setup::apt(ws, &[setup::BUILD]))?;
    let binary = clock.step("the binary (the first time takes minutes)", || build::binary(ws))?;
    clock.step("the TypeScript package", || build::package(ws))?;
    let server = clock.step("the server", || {
        let server = Server::start(ws, &binary, "run")?;
        println!("sandcrab serve listens on {}", server.url);
        Ok(server)
    })?;
    clock.step("a tour with the command line", || tour(&server))?;
    clock.step("the examples of examples/seed", || examples(ws, &server))?;
    server.stop()?;
    clock.table();
    println!("\nIt works. The binary is target/dist/sandcrab; README.md has the first five minutes.");
    match &args.serve {
        Some(address) => serve(ws, &binary, address),
        None => Ok(()),
    }
}

fn tour(server: &Server) -> Result<()> {
    for words in TOUR {
        let shown: Vec<_> = words.iter().map(|word| quoted(word)).collect();
        println!("\n$ sandcrab {}", shown.join(" "));
        let begun = Instant::now();
        let status = server.cli(words.iter().copied()).status()?;
        let code = status.code().context("sandcrab was killed")?;
        println!("    (exit code {code}, {:.0} ms)", begun.elapsed().as_secs_f64() * 1e3);
        let expected = if words.contains(&"exit 7") { 7 } else { 0 };
        if code != expected {
            bail!("`sandcrab {}` ended with {code} instead of {expected}", shown.join(" "));
        }
    }
    Ok(())
}

fn quoted(word: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./:".contains(letter);
    if word.chars().all(plain) { word.to_owned() } else { format!("'{word}'") }
}

fn examples(ws: &Workspace, server: &Server) -> Result<()> {
    cmd("npm")
        .args(["run", "--silent", "seed"])
        .dir(ws.path("sdks/typescript"))
        .env("SANDCRAB_URL", &server.url)
        .env("SANDCRAB_API_KEY", &server.key)
        .limit(Duration::from_secs(300))
        .run()
}

/// Becomes a server in the foreground; its data stays below target/serve.
fn serve(ws: &Workspace, binary: &Path, address: &str) -> Result<()> {
    println!("\nServing; Ctrl-C ends it.");
    cmd(binary)
        .args(["serve", "--listen", address, "--data-dir"])
        .arg(ws.path("target/serve"))
        .limit(Duration::from_secs(365 * 24 * 3600))
        .run()
}

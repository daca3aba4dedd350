//! The locks of the image `python`: for each Python on each kind of machine, the wheels that pip would choose today.

use crate::command::cmd;
use crate::workspace::Workspace;
use anyhow::{Context as _, Result};
use serde::Deserialize;
use std::collections::BTreeMap;

/// What people ask for; the rest is what these need.
const WANTED: [&str; 4] = ["ipython", "matplotlib", "numpy", "pandas"];
/// Of the distributions that a server may run on.
const PYTHONS: [&str; 4] = ["3.11", "3.12", "3.13", "3.14"];
const MACHINES: [&str; 2] = ["x86_64", "aarch64"];
/// Wheels for this glibc and older ones.
const GLIBC: u32 = 28;

#[derive(Deserialize)]
struct Report {
    install: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    metadata: Metadata,
    download_info: Download,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    version: String,
}

#[derive(Deserialize)]
struct Download {
    archive_info: Archive,
}

#[derive(Deserialize)]
struct Archive {
    hashes: BTreeMap<String, String>,
}

/// Asks pip, which only looks: nothing is installed and nothing of a package is run.
pub(crate) fn run(ws: &Workspace) -> Result<()> {
    for python in PYTHONS {
        for machine in MACHINES {
            let target = format!("{python}-{machine}");
            let lock = lock(python, machine).with_context(|| format!("lock {target}"))?;
            let file = format!("crates/runtime/src/image/python/locks/{target}.txt");
            std::fs::write(ws.path(&file), lock).with_context(|| format!("write {file}"))?;
            println!("{file}: written");
        }
    }
    Ok(())
}

fn lock(python: &str, machine: &str) -> Result<String> {
    let platforms = (17..=GLIBC).rev().map(|minor| format!("--platform=manylinux_2_{minor}_{machine}"));
    // What `--python-version` and `--platform` choose can only be put into a directory of its own.
    let report = cmd("python3")
        .args(["-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--target=unused"])
        .args(["--only-binary=:all:", "--implementation=cp", "--report=-"])
        .arg(format!("--python-version={python}"))
        .args(platforms)
        .arg(format!("--platform=manylinux2014_{machine}"))
        .args(WANTED)
        .read()?;
    let report: Report = serde_json::from_str(&report).context("read pip's report")?;
    let mut lines = Vec::new();
    for Choice { metadata, download_info } in report.install {
        // As the index names it (PEP 503), so that the order does not depend on a package's own spelling.
        let name = metadata.name.to_lowercase().replace(['_', '.'], "-");
        let hash = download_info.archive_info.hashes.get("sha256").context("pip tells no SHA-256")?;
        lines.push(format!("{name}=={} --hash=sha256:{hash}\n", metadata.version));
    }
    lines.sort();
    let heading = format!(
        "# The image `python` for Python {python} on {machine} with glibc 2.{GLIBC} or newer: one wheel for each package.\n\
         # Written by `cargo xtask python-lock`.\n"
    );
    Ok(heading + &lines.concat())
}

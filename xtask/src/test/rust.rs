//! The Rust tests: cargo builds them, this runs each test binary by itself and reads libtest's own log of results.
//!
//! The log and not the printed output, because a child of a test that writes to the terminal can tear a printed line
//! apart. What `--list` names and the log does not is a test that never ended: that counts as failed.

use super::promises::ids_in;
use super::report::Report;
use super::{Names, Selection};
use crate::build::cargo;
use crate::clock::Clock;
use crate::command::{cmd, tail};
use crate::setup;
use crate::workspace::Workspace;
use anyhow::{Context as _, Result};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What the tests of code contexts need of IPython and its friends.
const IPYTHON: &str = "crates/agent/tests/code/requirements.txt";

/// How long one test binary may take.
const LIMIT: Duration = Duration::from_secs(15 * 60);

/// One test binary.
pub(crate) struct Binary {
    /// The package and, for what is not its main target, the target's name.
    name: String,
    executable: PathBuf,
    manifest: PathBuf,
    package: String,
}

/// The line that cargo prints for each thing that it built, as far as it matters here.
#[derive(Deserialize)]
struct Message {
    manifest_path: Option<PathBuf>,
    target: Option<Target>,
    executable: Option<PathBuf>,
    profile: Option<Profile>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

pub(crate) fn run(
    ws: &Workspace,
    clock: &mut Clock,
    binaries: &[Binary],
    select: &Selection,
) -> Result<Report> {
    let mut report = Report::of("rust");
    clock.step("rust: IPython for code contexts", || setup::venv(ws, "ipython", IPYTHON))?;
    clock.step("rust: versions of bash for the session loop", || setup::bashes(ws))?;
    for binary in binaries {
        clock.step(&format!("rust: {}", binary.name), || run_binary(ws, binary, select, &mut report))?;
    }
    if select.is_whole() {
        clock.step("rust: examples in the documentation", || doctests(ws, &mut report))?;
    }
    Ok(report)
}

/// Builds everything at once, also the ordinary binaries, which tests start: a second build with other targets would
/// pick other features for the dependencies and compile them again.
pub(crate) fn build(ws: &Workspace, select: &Selection) -> Result<Vec<Binary>> {
    let packages = ws.packages()?;
    let mut args = vec!["build", "--locked", "--all-targets", "--message-format=json-render-diagnostics"];
    match &select.package {
        Some(package) => args.extend(["--package", package]),
        None => args.push("--workspace"),
    }
    let lines = cargo(ws, &args).read()?;
    let mut binaries = Vec::new();
    for line in lines.lines() {
        let message: Message = serde_json::from_str(line).context("read a message of cargo")?;
        let Message { manifest_path: Some(manifest), target: Some(target), executable, profile } = message
        else {
            continue;
        };
        let (Some(executable), Some(Profile { test: true })) = (executable, profile) else { continue };
        let package = packages.iter().find(|package| package.manifest_path == manifest);
        let package = package.with_context(|| format!("no package has {}", manifest.display()))?.name.clone();
        let own = target.kind.iter().any(|kind| kind == "lib") || target.name == package;
        let name = if own { package.clone() } else { format!("{package}::{}", target.name) };
        binaries.push(Binary { name, executable, manifest, package });
    }
    binaries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(binaries)
}

fn run_binary(ws: &Workspace, binary: &Binary, select: &Selection, report: &mut Report) -> Result<()> {
    let dir = binary.manifest.parent().context("a manifest lies in a folder")?;
    let place = ws.report().join("rust");
    std::fs::create_dir_all(&place).context("create target/test-report/rust")?;
    let stem = binary.name.replace("::", "-");
    let (log, output) = (place.join(format!("{stem}.log")), place.join(format!("{stem}.txt")));
    if log.exists() {
        std::fs::remove_file(&log).with_context(|| format!("remove {}", log.display()))?;
    }
    let test = || {
        let command = cmd(&binary.executable)
            .dir(dir)
            .env("CARGO", "cargo")
            .env("CARGO_MANIFEST_DIR", dir)
            .env("CARGO_PKG_NAME", &binary.package)
            // A snapshot that is not as committed fails, and is written nowhere.
            .env("INSTA_UPDATE", "no")
            .limit(LIMIT);
        match &select.names {
            Names::Holding(filter) => command.arg(filter),
            Names::All | Names::Attacks => command,
        }
    };
    let named = test().args(["--list", "--format=terse"]).read()?;
    let mut named: BTreeSet<&str> = named.lines().filter_map(|line| line.strip_suffix(": test")).collect();
    let exact = matches!(select.names, Names::Attacks);
    if exact {
        named.retain(|test| ids_in(test).any(|id| is_attack(&id)));
    }
    if named.is_empty() {
        println!("no tests");
        return Ok(());
    }
    let begun = Instant::now();
    let all = if exact { test().arg("--exact").args(&named) } else { test() };
    let ended = all.arg("--logfile").arg(&log).status_logged(&output);
    let results = results(&std::fs::read_to_string(&log).unwrap_or_default());
    let before = report.failed.len();
    tally(binary, &named, &results, &output, report);
    let failed = report.failed.len() - before;
    match ended {
        Err(error) => report.fail(format!("{} as a whole", binary.name), format!("{error:#}")),
        Ok(status) if !status.success() && failed == 0 => {
            report.fail(format!("{} as a whole", binary.name), format!("{status}\n{}", tail(&output, 40)));
        }
        Ok(_) => {}
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!("{} tests, {failed} not ok, {seconds:.1} s", named.len());
    Ok(())
}

/// Whether an id is one of docs/ATTACKS.md: its letters are A to E, those of docs/CONTRACT.md are others.
fn is_attack(id: &str) -> bool {
    matches!(id.as_bytes().first(), Some(b'A'..=b'E'))
}

/// How one test ended, by libtest's word.
#[derive(Debug, PartialEq)]
enum Ending {
    Ok,
    Failed,
    Ignored(String),
}

/// Reads libtest's log: `ok NAME`, `failed NAME`, `ignored NAME`, `ignored, REASON NAME`.
fn results(log: &str) -> BTreeMap<String, Ending> {
    let mut found = BTreeMap::new();
    for line in log.lines() {
        let Some((word, name)) = line.rsplit_once(' ') else { continue };
        let ending = match word {
            "ok" => Ending::Ok,
            _ if word == "ignored" => Ending::Ignored("no reason given".to_owned()),
            _ => match word.strip_prefix("ignored, ") {
                Some(reason) => Ending::Ignored(reason.to_owned()),
                None => Ending::Failed,
            },
        };
        found.insert(name.to_owned(), ending);
    }
    found
}

fn tally(
    binary: &Binary,
    named: &BTreeSet<&str>,
    results: &BTreeMap<String, Ending>,
    output: &Path,
    report: &mut Report,
) {
    for test in named {
        let name = format!("{} {test}", binary.name);
        match results.get(*test) {
            Some(Ending::Ok) => report.pass(name),
            Some(Ending::Ignored(reason)) => report.skip(name, reason.clone()),
            Some(Ending::Failed) => report.fail(name, said(output, test)),
            None => report.fail(name, format!("did not end\n{}", tail(output, 20))),
        }
    }
}

/// What libtest printed about a failed test: the block between its headline and the next.
fn said(output: &Path, test: &str) -> String {
    let bytes = std::fs::read(output).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let head = format!("---- {test} stdout ----");
    let Some((_, rest)) = text.split_once(&head) else { return format!("see {}", output.display()) };
    let block = rest.split("\n---- ").next().unwrap_or(rest);
    block.split("\nfailures:\n").next().unwrap_or(block).trim().to_owned()
}

/// Examples in doc comments. Rustdoc runs them itself, and only prints: `test FILE - ITEM (line N) ... ok`.
fn doctests(ws: &Workspace, report: &mut Report) -> Result<()> {
    let output = ws.report().join("rust/doctests.txt");
    let status =
        cargo(ws, &["test", "--locked", "--workspace", "--doc", "--no-fail-fast"]).status_logged(&output)?;
    let text = std::fs::read_to_string(&output).context("read the output of the documentation's tests")?;
    let before = report.failed.len();
    for line in text.lines().filter_map(|line| line.strip_prefix("test ")) {
        match line.rsplit_once(" ... ") {
            Some((name, "ok")) => report.pass(format!("doc {name}")),
            Some((name, "FAILED")) => report.fail(format!("doc {name}"), said(&output, name)),
            Some((name, "ignored")) => report.skip(format!("doc {name}"), "marked `ignore`"),
            _ => {}
        }
    }
    if !status.success() && report.failed.len() == before {
        report.fail("doc as a whole", format!("{status}\n{}", tail(&output, 40)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_of_libtest_is_read() {
        let log =
            "ok a::b\nfailed c::d\nignored e\nignored, needs a moon f::g\nfailed (time limit exceeded) h\n";
        let found = results(log);
        assert_eq!(found["a::b"], Ending::Ok);
        assert_eq!(found["c::d"], Ending::Failed);
        assert_eq!(found["e"], Ending::Ignored("no reason given".to_owned()));
        assert_eq!(found["f::g"], Ending::Ignored("needs a moon".to_owned()));
        assert_eq!(found["h"], Ending::Failed);
    }

    #[test]
    fn a_test_that_never_ended_has_failed() {
        let binary = Binary {
            name: "x".to_owned(),
            executable: PathBuf::new(),
            manifest: PathBuf::new(),
            package: "x".to_owned(),
        };
        let mut report = Report::of("rust");
        let named = BTreeSet::from(["a", "b"]);
        tally(&binary, &named, &results("ok a\n"), Path::new("/nonexistent"), &mut report);
        assert_eq!(report.passed, ["x a"]);
        assert_eq!(report.failed.len(), 1);
    }
}

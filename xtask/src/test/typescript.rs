//! The TypeScript package: its types, its build, and vitest against a real server. Vitest's own JSON report says what
//! passed.

use super::report::Report;
use super::{Names, Selection};
use crate::build::npm;
use crate::clock::Clock;
use crate::command::{cmd, tail};
use crate::setup;
use crate::workspace::Workspace;
use anyhow::{Context as _, Result};
use serde::Deserialize;
use std::path::Path;
use std::time::Duration;

const FOLDER: &str = "sdks/typescript";
/// The releases of Node that the package is tried in.
const NODES: &str = "sdks/typescript/test/runtimes/nodes";

/// Vitest's report, as far as it matters here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Vitest {
    test_results: Vec<TestFile>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TestFile {
    name: String,
    status: String,
    #[serde(default)]
    message: String,
    assertion_results: Vec<Assertion>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Assertion {
    full_name: String,
    status: String,
    #[serde(default)]
    failure_messages: Vec<String>,
}

pub(crate) fn run(ws: &Workspace, clock: &mut Clock, select: &Selection) -> Result<Report> {
    let mut report = Report::of("typescript");
    clock.step("typescript: npm ci", || setup::npm(ws, FOLDER))?;
    clock.step("typescript: the releases of Node", || setup::npm(ws, NODES))?;
    clock.step("typescript: build", || {
        npm(ws, FOLDER, "build").run_logged(&ws.logs().join("npm-build.txt"))
    })?;
    if matches!(select.names, Names::All) {
        for (name, script) in
            [("types of package and tests", "typecheck"), ("the package as published", "check:package")]
        {
            let log = ws.logs().join(format!("npm-{}.txt", script.replace(':', "-")));
            match clock.step(&format!("typescript: {name}"), || npm(ws, FOLDER, script).run_logged(&log)) {
                Ok(()) => report.pass(name),
                Err(error) => report.fail(name, format!("{error:#}")),
            }
        }
    }
    clock.step("typescript: vitest", || vitest(ws, select, &mut report))?;
    Ok(report)
}

fn vitest(ws: &Workspace, select: &Selection, report: &mut Report) -> Result<()> {
    let json = ws.report().join("vitest.json");
    if json.exists() {
        std::fs::remove_file(&json).context("remove the last report of vitest")?;
    }
    let output = ws.report().join("vitest.txt");
    let mut command = cmd("npx")
        .args(["--no-install", "vitest", "run"])
        .dir(ws.path(FOLDER))
        .env("SANDCRAB_BIN", ws.binary("debug", "sandcrab"))
        .limit(Duration::from_secs(15 * 60));
    // What vitest takes is a regular expression.
    let pattern = match &select.names {
        Names::All => None,
        Names::Holding(filter) => Some(filter.as_str()),
        Names::Attacks => Some(r"\b[A-E][0-9]{2}\b"),
    };
    if let Some(pattern) = pattern {
        command = command.args(["--passWithNoTests", "-t", pattern]);
    }
    let status = command.status_logged(&output)?;
    let text = std::fs::read_to_string(&json)
        .with_context(|| format!("vitest left no report ({status})\n{}", tail(&output, 40)))?;
    let before = report.failed.len();
    tally(&ws.path(FOLDER), &text, report)?;
    if !status.success() && report.failed.len() == before {
        report.fail("vitest as a whole", format!("{status}\n{}", tail(&output, 60)));
    }
    Ok(())
}

fn tally(folder: &Path, json: &str, report: &mut Report) -> Result<()> {
    let results: Vitest = serde_json::from_str(json).context("read the report of vitest")?;
    for file in results.test_results {
        let path = Path::new(&file.name);
        let place = path.strip_prefix(folder).unwrap_or(path).display();
        // A file that failed before its first test has no assertion that could say so.
        if file.status == "failed" && file.assertion_results.iter().all(|test| test.status != "failed") {
            report.fail(place.to_string(), file.message);
        }
        for test in file.assertion_results {
            let name = format!("{place} {}", test.full_name);
            match test.status.as_str() {
                "passed" => report.pass(name),
                "failed" => report.fail(name, test.failure_messages.join("\n")),
                other => report.skip(name, format!("vitest calls it {other}")),
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_of_vitest_is_read() {
        let json = r#"{"testResults": [
            {"name": "/r/test/a.test.ts", "status": "failed", "message": "", "assertionResults": [
                {"fullName": "S01 keeps", "status": "passed", "failureMessages": []},
                {"fullName": "S02 bytes", "status": "failed", "failureMessages": ["no"]},
                {"fullName": "S03 later", "status": "todo"}]},
            {"name": "/r/test/b.test.ts", "status": "failed", "message": "SyntaxError", "assertionResults": []}]}"#;
        let mut report = Report::of("typescript");
        tally(Path::new("/r"), json, &mut report).unwrap();
        assert_eq!(report.passed, ["test/a.test.ts S01 keeps"]);
        let failed: Vec<_> = report.failed.iter().map(|(name, why)| (name.as_str(), why.as_str())).collect();
        assert_eq!(failed, [("test/a.test.ts S02 bytes", "no"), ("test/b.test.ts", "SyntaxError")]);
        assert_eq!(report.skipped.len(), 1);
    }
}

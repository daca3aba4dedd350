//! The API against its own document: schemathesis makes up requests, good and bad, and looks whether every answer is one
//! that openapi.json announces. Its JUnit report has one test for each operation.

use super::report::Report;
use crate::clock::Clock;
use crate::command::{cmd, tail};
use crate::server::Server;
use crate::setup;
use crate::workspace::Workspace;
use anyhow::{Context as _, Result, ensure};
use std::time::Duration;

/// How long the run as a whole may take; it repeats until then.
const MAX_SECS: &str = "240";

pub(crate) fn run(ws: &Workspace, clock: &mut Clock) -> Result<Report> {
    let requirements = "tests/schemathesis/requirements.txt";
    let bin = clock.step("schemathesis: install", || setup::venv(ws, "schemathesis", requirements))?;
    clock.step("schemathesis: run", || {
        let server = Server::start(ws, &ws.binary("debug", "sandcrab"), "schemathesis-server")?;
        // The first sandbox waits for the host image, longer than a request of the run may take.
        server.cli(["exec", "first", "true"]).run()?;
        let mut report = Report::of("schemathesis");
        let junit = ws.report().join("schemathesis.xml");
        let output = ws.report().join("schemathesis.txt");
        let status = cmd(bin.join("schemathesis"))
            .args(["--config-file", "schemathesis.toml", "run"])
            .arg(ws.path("openapi.json"))
            .args(["--url", &server.url, "--header", &format!("Authorization:Bearer {}", server.key)])
            .args(["--phases", "coverage,fuzzing,stateful", "--max-examples", "20", "--max-time", MAX_SECS])
            .args(["--no-color", "--warnings", "off"])
            .args(["--report", "junit", "--report-junit-path"])
            .arg(&junit)
            .dir(ws.path("tests/schemathesis"))
            .limit(Duration::from_secs(600))
            .status_logged(&output)?;
        let xml = std::fs::read_to_string(&junit)
            .with_context(|| format!("schemathesis left no report ({status})\n{}", tail(&output, 40)))?;
        tally(&xml, &mut report)?;
        if !status.success() && report.failed.is_empty() {
            report.fail("the run as a whole", format!("{status}\n{}", tail(&output, 60)));
        }
        let panics: Vec<_> =
            server.log()?.lines().filter(|line| line.contains("panicked at")).map(str::to_owned).collect();
        match panics.as_slice() {
            [] => report.pass("X03 the server never panicked"),
            lines => report.fail("X03 the server never panicked", lines.join("\n")),
        }
        server.stop()?;
        Ok(report)
    })
}

/// Reads the test cases of a JUnit report; what a failed one says is its element's text.
fn tally(xml: &str, report: &mut Report) -> Result<()> {
    let mut cases = xml.split("<testcase ").skip(1).peekable();
    ensure!(cases.peek().is_some(), "the JUnit report has no test case");
    for case in cases {
        let name = attribute(case, "name").context("a test case without a name")?;
        let body = case.split("</testcase>").next().unwrap_or(case);
        let name = format!("X01 X02 {name}");
        match ["<failure", "<error", "<skipped"].iter().find(|tag| body.contains(**tag)) {
            None => report.pass(name),
            Some(&"<skipped") => report.skip(name, attribute(body, "message").unwrap_or_default()),
            Some(_) => {
                let text = body.split_once('>').map_or(body, |(_, rest)| rest);
                report.fail(name, plain(text));
            }
        }
    }
    Ok(())
}

fn attribute(element: &str, name: &str) -> Option<String> {
    let (_, rest) = element.split_once(&format!("{name}=\""))?;
    Some(plain(rest.split_once('"')?.0))
}

/// Text without XML's escapes.
fn plain(text: &str) -> String {
    [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#10;", "\n"), ("&amp;", "&")]
        .iter()
        .fold(text.to_owned(), |text, (escape, letter)| text.replace(escape, letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_junit_report_is_read() {
        let xml = r#"<testsuites><testsuite><testcase name="GET /a" time="1"/>
            <testcase name="PUT /x/{id}"><failure message="ST103">[500] &lt;b&gt; &amp;amp;</failure></testcase>
            <testcase name="POST /y"><skipped message="nothing to try"/></testcase></testsuite></testsuites>"#;
        let mut report = Report::of("schemathesis");
        tally(xml, &mut report).unwrap();
        assert_eq!(report.passed, ["X01 X02 GET /a"]);
        assert_eq!(report.failed[0].0, "X01 X02 PUT /x/{id}");
        assert!(report.failed[0].1.contains("[500] <b> &amp;"), "{}", report.failed[0].1);
        assert_eq!(report.skipped, [("X01 X02 POST /y".to_owned(), "nothing to try".to_owned())]);
        assert!(tally("<testsuites/>", &mut report).is_err());
    }
}

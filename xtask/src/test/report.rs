//! What a runner reports, and the one summary of all of them.

use std::fmt::Write as _;

/// The tests of one runner.
#[derive(Debug, PartialEq)]
pub(crate) struct Report {
    /// `rust`, `typescript`, …: the first word of its lines in passed.txt.
    pub(crate) runner: &'static str,
    /// Names of passed tests.
    pub(crate) passed: Vec<String>,
    /// Names of failed tests, each with what is known of the failure.
    pub(crate) failed: Vec<(String, String)>,
    /// Names of tests that did not run, each with its reason.
    pub(crate) skipped: Vec<(String, String)>,
}

impl Report {
    pub(crate) fn of(runner: &'static str) -> Self {
        Self { runner, passed: Vec::new(), failed: Vec::new(), skipped: Vec::new() }
    }

    pub(crate) fn pass(&mut self, name: impl Into<String>) {
        self.passed.push(name.into());
    }

    pub(crate) fn fail(&mut self, name: impl Into<String>, detail: impl Into<String>) {
        self.failed.push((name.into(), detail.into()));
    }

    pub(crate) fn skip(&mut self, name: impl Into<String>, reason: impl Into<String>) {
        self.skipped.push((name.into(), reason.into()));
    }

    /// A runner that ran no test has tested nothing, which is a failure.
    pub(crate) fn must_have_run(mut self) -> Self {
        if self.passed.is_empty() && self.failed.is_empty() {
            self.fail("at least one test", "the runner ran none");
        }
        self
    }

    /// Prints failures and skips in full, and the counts.
    pub(crate) fn print(&self) {
        for (name, detail) in &self.failed {
            println!("\nFAILED  {} {name}\n{}", self.runner, indent(detail));
        }
        for (name, reason) in &self.skipped {
            println!("SKIPPED {} {name}: {reason}", self.runner);
        }
        let (passed, failed, skipped) = (self.passed.len(), self.failed.len(), self.skipped.len());
        println!("{:<12} {passed:>5} ok {failed:>5} not ok {skipped:>5} skipped", self.runner);
    }
}

/// The text of passed.txt: one line per passed test, its runner first.
pub(crate) fn passed_lines(reports: &[Report]) -> String {
    let mut text = String::new();
    for report in reports {
        for name in &report.passed {
            // A test's name may hold anything; a line is one test.
            let name = name.replace(['\n', '\r'], " ");
            let _ = writeln!(text, "{} {name}", report.runner);
        }
    }
    text
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runner_without_tests_has_failed() {
        assert_eq!(Report::of("rust").must_have_run().failed.len(), 1);
        let mut report = Report::of("rust");
        report.pass("a");
        assert!(report.must_have_run().failed.is_empty());
    }

    #[test]
    fn a_passed_test_is_one_line() {
        let mut report = Report::of("typescript");
        report.pass("S04 a heredoc\nwith a newline");
        report.fail("other", "why");
        assert_eq!(passed_lines(&[report]), "typescript S04 a heredoc with a newline\n");
    }
}

//! The table of attacks: which attack of docs/ATTACKS.md has passed in which mode, and where one cannot exist.
//!
//! A test names its attack by an id and its mode by its last word: `a30_…::rootless`. One that names no mode ran with a
//! root server. The page lists the modes in which an attack cannot exist, with the reason; that list and the tests must
//! not contradict each other.

use super::promises::{PAGES, Promise, ids_in, is_id, promises};
use super::report::Report;
use crate::workspace::Workspace;
use anyhow::{Context as _, Result, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// The modes, as tests name them.
const MODES: [&str; 3] = ["root", "rootless", "without_landlock"];

/// The modes that each attack must have, or be listed for as one in which it cannot exist.
const REQUIRED: [&str; 2] = ["root", "rootless"];

/// What the page and the tests say together.
#[derive(Debug)]
pub(crate) struct Table {
    /// Ids of the page, in its order, with whether they are held.
    attacks: Vec<Promise>,
    /// How many tests passed, and how many failed, of an id in a mode.
    counts: BTreeMap<(String, &'static str), (usize, usize)>,
    /// Where an attack cannot exist, and why.
    absent: BTreeMap<(String, &'static str), String>,
}

impl Table {
    /// Reads the page and counts the tests.
    pub(crate) fn new(ws: &Workspace, reports: &[Report]) -> Result<Self> {
        let page = PAGES[1];
        let text = std::fs::read_to_string(ws.path(page)).with_context(|| format!("read {page}"))?;
        let mut counts = BTreeMap::<_, (usize, usize)>::new();
        for report in reports {
            let passed = report.passed.iter().map(|name| (name, true));
            let failed = report.failed.iter().map(|(name, _)| (name, false));
            for (name, passed) in passed.chain(failed) {
                for id in ids_in(name) {
                    let count = counts.entry((id, mode_of(name))).or_default();
                    if passed { count.0 += 1 } else { count.1 += 1 }
                }
            }
        }
        Ok(Self { attacks: promises(&text), counts, absent: absent(&text)? })
    }

    /// What the page claims and the tests do not show, or the other way round.
    pub(crate) fn contradictions(&self) -> Vec<String> {
        let mut found = Vec::new();
        for attack in self.attacks.iter().filter(|attack| attack.held) {
            for mode in REQUIRED {
                let key = (attack.id.clone(), mode);
                let tested = self.counts.get(&key).is_some_and(|(passed, _)| *passed > 0);
                match (tested, self.absent.contains_key(&key)) {
                    (false, false) => found.push(format!("{} has no passed test in mode {mode}", attack.id)),
                    (true, true) => {
                        found
                            .push(format!("{} cannot exist in mode {mode}, but has a test there", attack.id));
                    }
                    _ => {}
                }
            }
        }
        found
    }

    /// The table, with its closing line.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("{:<5}{:<12}{:<12}{:<18}\n", "id", MODES[0], MODES[1], MODES[2]);
        let (mut leaks, mut held) = (0, 0);
        for attack in &self.attacks {
            let cells = MODES.map(|mode| {
                let key = (attack.id.clone(), mode);
                match (self.counts.get(&key), self.absent.contains_key(&key)) {
                    (Some((passed, 0)), _) => format!("{passed} ok"),
                    (Some((_, failed)), _) => {
                        leaks += failed;
                        format!("{failed} LEAK")
                    }
                    (None, true) => "n/a".to_owned(),
                    (None, false) => "-".to_owned(),
                }
            });
            held += usize::from(attack.held);
            let status = if attack.held { "" } else { "planned" };
            let line = format!("{:<5}{:<12}{:<12}{:<18}{status}", attack.id, cells[0], cells[1], cells[2]);
            let _ = writeln!(text, "{}", line.trim_end());
        }
        let _ = writeln!(text, "\n{held} attacks x {} modes, leaks = {leaks}", MODES.len());
        for ((id, mode), reason) in &self.absent {
            let _ = writeln!(text, "n/a {id} {mode}: {reason}");
        }
        text
    }
}

/// The mode that a test's name ends with.
fn mode_of(test: &str) -> &'static str {
    let last = test.rsplit("::").next().unwrap_or(test);
    MODES.into_iter().find(|mode| *mode == last).unwrap_or(MODES[0])
}

/// The rows `| A12 A13 | rootless | reason |` of the page.
fn absent(page: &str) -> Result<BTreeMap<(String, &'static str), String>> {
    let mut found = BTreeMap::new();
    let known: BTreeSet<String> = promises(page).into_iter().map(|attack| attack.id).collect();
    for row in page.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |")) {
        let cells: Vec<&str> = row.split(" | ").collect();
        let [ids, mode, reason] = cells[..] else { continue };
        let Some(mode) = MODES.into_iter().find(|known| *known == mode) else { continue };
        for id in ids.split(' ') {
            if !is_id(id) || !known.contains(id) {
                bail!("docs/ATTACKS.md: {id:?} of the row for {mode} is no attack of the page");
            }
            if found.insert((id.to_owned(), mode), reason.to_owned()).is_some() {
                bail!("docs/ATTACKS.md: {id} stands twice among the rows for {mode}");
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "| A01 | a | b | held |\n| A02 | a | b | held |\n| A03 | a | b | planned |\n\
                        | A02 | rootless | one user |\n";

    fn table(passed: &[&str], failed: &[&str]) -> Table {
        let mut counts = BTreeMap::<_, (usize, usize)>::new();
        for (names, passed) in [(passed, true), (failed, false)] {
            for name in names {
                let count = counts.entry((ids_in(name).next().unwrap(), mode_of(name))).or_default();
                if passed { count.0 += 1 } else { count.1 += 1 }
            }
        }
        Table { attacks: promises(PAGE), counts, absent: absent(PAGE).unwrap() }
    }

    #[test]
    fn page_and_tests_must_agree() {
        let complete = table(&["x a01_b::root", "x a01_b::rootless", "x a02_c"], &[]);
        assert_eq!(complete.contradictions(), [""; 0]);
        assert!(complete.text().contains("2 attacks x 3 modes, leaks = 0"), "{}", complete.text());
        let fewer = table(&["x a01_b", "x a02_c::root", "x a02_c::rootless"], &[]);
        assert_eq!(fewer.contradictions().len(), 2, "{:?}", fewer.contradictions());
    }

    #[test]
    fn a_failed_test_is_a_leak() {
        let leaking = table(&["x a01_b"], &["x a01_c::rootless"]);
        assert!(leaking.text().contains("leaks = 1"), "{}", leaking.text());
    }

    #[test]
    fn the_list_names_attacks_of_the_page_once() {
        absent("| A09 | rootless | why |\n").unwrap_err();
        absent("| A01 | a | b | held |\n| A01 | rootless | why |\n| A01 | rootless | why |\n").unwrap_err();
    }
}

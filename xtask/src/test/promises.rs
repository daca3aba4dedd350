//! Holds docs/CONTRACT.md and docs/ATTACKS.md to their word: what they call *held* must have a passed test, and what
//! has a passed test but is called *planned* is pointed out.

use super::attacks;
use super::report::Report;
use crate::workspace::Workspace;
use anyhow::{Context as _, Result};
use std::collections::BTreeSet;

/// The pages, that of attacks last.
pub(super) const PAGES: [&str; 2] = ["docs/CONTRACT.md", "docs/ATTACKS.md"];

pub(crate) fn check(ws: &Workspace, reports: &[Report]) -> Result<Report> {
    let named = named(reports.iter().flat_map(|report| &report.passed).map(String::as_str));
    let mut report = Report::of("promises");
    for page in PAGES {
        let text = std::fs::read_to_string(ws.path(page)).with_context(|| format!("read {page}"))?;
        let promises = promises(&text);
        let (held, planned): (Vec<_>, Vec<_>) = promises.iter().partition(|promise| promise.held);
        println!("{page}: {} held, {} planned", held.len(), planned.len());
        let untested = ids(&held, |id| !named.contains(id));
        if untested.is_empty() {
            report.pass(page);
        } else {
            report.fail(page, format!("called held, but no passed test names: {}", untested.join(" ")));
        }
        let early = ids(&planned, |id| named.contains(id));
        if !early.is_empty() {
            println!("{page}: called planned, though a passed test names: {}", early.join(" "));
        }
    }
    let table = attacks::Table::new(ws, reports)?;
    println!("\n{}", table.text());
    match table.contradictions()[..] {
        [] => report.pass("the modes of each attack"),
        ref found => report.fail("the modes of each attack", found.join("\n")),
    }
    Ok(report)
}

fn ids<'a>(promises: &[&'a Promise], wanted: impl Fn(&str) -> bool) -> Vec<&'a str> {
    promises.iter().map(|promise| promise.id.as_str()).filter(|id| wanted(id)).collect()
}

/// One line of a page.
#[derive(Debug, PartialEq)]
pub(super) struct Promise {
    pub(super) id: String,
    pub(super) held: bool,
}

/// The lines `| S01 | … | held |` of a page.
pub(super) fn promises(page: &str) -> Vec<Promise> {
    let rows = page.lines().filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |"));
    rows.filter_map(|row| {
        let (id, rest) = row.split_once(" | ")?;
        let (_, status) = rest.rsplit_once(" | ")?;
        let is_promise = is_id(id) && matches!(status, "held" | "planned");
        is_promise.then(|| Promise { id: id.to_owned(), held: status == "held" })
    })
    .collect()
}

/// The ids that stand as words in names of tests: `s04_exit`, `"S04 exit"`, `a17::environ`.
fn named<'a>(tests: impl Iterator<Item = &'a str>) -> BTreeSet<String> {
    tests.flat_map(ids_in).collect()
}

/// The ids in the name of one test.
pub(super) fn ids_in(test: &str) -> impl Iterator<Item = String> {
    let words = test.split(|letter: char| !letter.is_ascii_alphanumeric());
    words.map(str::to_ascii_uppercase).filter(|word| is_id(word))
}

pub(super) fn is_id(word: &str) -> bool {
    let bytes = word.as_bytes();
    matches!(bytes, [letter, tens, ones]
        if letter.is_ascii_uppercase() && tens.is_ascii_digit() && ones.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read() {
        let page =
            "| id | promise | status |\n|---|---|---|\n| S01 | a \\| b | held |\n| S02 | c | planned |\n";
        let wanted = [("S01", true), ("S02", false)].map(|(id, held)| Promise { id: id.to_owned(), held });
        assert_eq!(promises(page), wanted);
    }

    #[test]
    fn ids_are_words_of_names() {
        let found = named(["agent s04_b02_both", "ts S05 exit", "rust has04x"].into_iter());
        assert_eq!(found.into_iter().collect::<Vec<_>>(), ["B02", "S04", "S05"]);
    }
}

//! The table that is printed: one row for each kind of work.

use crate::figure::{Figure, Promise};

/// One kind of work, as measured.
pub(crate) struct Row {
    /// What was done.
    pub(crate) work: &'static str,
    /// Its name in what the TypeScript side reports.
    pub(crate) key: &'static str,
    /// The bare limit of the same run, and what it is.
    pub(crate) bare: Option<(Figure, &'static str)>,
    /// With the Rust client.
    pub(crate) rust: Figure,
    /// With the TypeScript package.
    pub(crate) typescript: Option<Figure>,
    /// What is promised of the Rust figure.
    pub(crate) promise: Promise,
    /// What is promised of the TypeScript figure.
    pub(crate) typescript_promise: Promise,
}

impl Row {
    pub(crate) fn new(key: &'static str, work: &'static str, rust: Figure, promise: Promise) -> Self {
        Self { work, key, bare: None, rust, typescript: None, promise, typescript_promise: Promise::Shown }
    }

    /// The bare limit that stands beside it.
    pub(crate) fn beside(mut self, bare: Figure, what: &'static str) -> Self {
        self.bare = Some((bare, what));
        self
    }

    /// What is promised from TypeScript.
    pub(crate) fn typescript(mut self, promise: Promise) -> Self {
        self.typescript_promise = promise;
        self
    }

    /// Whether everything that was promised and measured is kept; none where nothing was promised.
    fn kept(&self) -> Option<bool> {
        let rust = self.promise.kept(self.rust, self.bare.map(|(figure, _)| figure));
        let typescript = self.typescript.and_then(|figure| self.typescript_promise.kept(figure, None));
        match (rust, typescript) {
            (Some(false), _) | (_, Some(false)) => Some(false),
            (None, None) => None,
            _ => Some(true),
        }
    }
}

/// The table as Markdown, and how many promises are not kept.
pub(crate) fn markdown(rows: &[Row]) -> (String, usize) {
    let mut text = String::from(
        "| work | Rust client | bare limit, same run | ratio | TypeScript | promise | kept |\n|---|---|---|---|---|---|---|\n",
    );
    let mut broken = 0;
    for row in rows {
        let (bare, ratio) = match row.bare {
            Some((figure, what)) => (format!("{figure} {what}"), format!("{:.1}", row.rust.ratio(figure))),
            None => Default::default(),
        };
        let promise = match row.typescript_promise {
            Promise::Shown => row.promise.to_string(),
            typescript => format!("{}; TypeScript {typescript}", row.promise),
        };
        let kept = match row.kept() {
            Some(true) => "yes",
            Some(false) => "**no**",
            None => "",
        };
        broken += usize::from(row.kept() == Some(false));
        let typescript = row.typescript.map(|figure| figure.to_string()).unwrap_or_default();
        text += &format!(
            "| {} | {} | {bare} | {ratio} | {typescript} | {promise} | {kept} |\n",
            row.work, row.rust
        );
    }
    (text, broken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_promise_is_counted_and_shown() {
        let time = |median| Figure::Time { median, p99: 2.0 };
        let kept = Row::new("a", "fast", time(1.0), Promise::Within { median: 1.0 });
        let mut broken =
            Row::new("b", "slow", time(1.0), Promise::TimesBare(1.5)).beside(time(0.5), "bare bash");
        broken.typescript = Some(time(3.0));
        let shown = Row::new("c", "seen", time(1.0), Promise::Shown);
        let (text, count) = markdown(&[kept, broken, shown]);
        assert_eq!(count, 1);
        assert_eq!(
            text.lines().nth(3),
            Some(
                "| slow | 1.00 (2.00) ms | 0.500 (2.00) ms bare bash | 2.0 | 3.00 (2.00) ms | ≤ 1.5 × bare | **no** |"
            )
        );
    }
}

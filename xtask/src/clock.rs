//! How long each step took: one line when it ends, and a table at the end of a long command.

use anyhow::Result;
use std::time::{Duration, Instant};

/// The steps that ran, in order.
pub(crate) struct Clock {
    started: Instant,
    steps: Vec<(String, Duration)>,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { started: Instant::now(), steps: Vec::new() }
    }

    /// Runs one step under a name.
    pub(crate) fn step<T>(&mut self, name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        println!("\n=== {name}");
        let begun = Instant::now();
        let result = work();
        self.steps.push((name.to_owned(), begun.elapsed()));
        result
    }

    /// Prints the table of all steps.
    pub(crate) fn table(&self) {
        println!("\nTime");
        for (name, took) in &self.steps {
            println!("  {name:<44} {:>8.1} s", took.as_secs_f64());
        }
        println!("  {:<44} {:>8.1} s", "all", self.started.elapsed().as_secs_f64());
    }
}

//! What was measured, and what was promised about it.

use serde::Deserialize;
use std::fmt;
use std::time::Duration;

/// One measured value.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Figure {
    /// How long one thing takes, in milliseconds.
    Time { median: f64, p99: f64 },
    /// How many in a second.
    Rate(f64),
    /// Megabytes (10^6) in a second.
    Throughput(f64),
    /// Bytes of memory.
    Memory(u64),
}

impl Figure {
    /// The figure of many single times.
    pub(crate) fn of(mut times: Vec<Duration>) -> Self {
        assert!(!times.is_empty(), "a row without a sample");
        times.sort_unstable();
        let at = |share: f64| {
            // The nearest rank, so that the figure is a time that was really measured.
            let rank = (share * times.len() as f64).ceil() as usize;
            times[rank.clamp(1, times.len()) - 1].as_secs_f64() * 1e3
        };
        Self::Time { median: at(0.5), p99: at(0.99) }
    }

    /// The figure of `count` things done in `took`.
    pub(crate) fn rate(count: usize, took: Duration) -> Self {
        Self::Rate(count as f64 / took.as_secs_f64())
    }

    /// The figure of `bytes` moved in `took`.
    pub(crate) fn throughput(bytes: usize, took: Duration) -> Self {
        Self::Throughput(bytes as f64 / 1e6 / took.as_secs_f64())
    }

    /// What a time has beyond another one: median beyond median, 99th percentile beyond the other's. As it is for figures
    /// that are no times.
    pub(crate) fn beyond(self, less: Self) -> Self {
        match (self, less) {
            (Self::Time { median, p99 }, Self::Time { median: less, p99: less_p99 }) => {
                Self::Time { median: median - less, p99: p99 - less_p99 }
            }
            (figure, _) => figure,
        }
    }

    /// The number that promises and ratios speak of: the median of times.
    fn value(self) -> f64 {
        match self {
            Self::Time { median, .. } => median,
            Self::Rate(value) | Self::Throughput(value) => value,
            Self::Memory(bytes) => bytes as f64,
        }
    }

    /// How many times worse this is than the bare limit: more time or memory, or less speed.
    pub(crate) fn ratio(self, bare: Self) -> f64 {
        match self {
            Self::Time { .. } | Self::Memory(_) => self.value() / bare.value(),
            Self::Rate(_) | Self::Throughput(_) => bare.value() / self.value(),
        }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Time { median, p99 } => write!(f, "{} ({}) ms", digits(median), digits(p99)),
            Self::Rate(rate) => write!(f, "{rate:.0}/s"),
            Self::Throughput(speed) => write!(f, "{speed:.0} MB/s"),
            Self::Memory(bytes) => write!(f, "{:.2} MB", bytes as f64 / 1e6),
        }
    }
}

fn digits(ms: f64) -> String {
    if ms < 1.0 { format!("{ms:.3}") } else { format!("{ms:.2}") }
}

/// What is promised of one figure.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Promise {
    /// A median of at most so many milliseconds.
    Within { median: f64 },
    /// The same, with a bound on the 99th percentile.
    WithinBoth { median: f64, p99: f64 },
    /// At most so many times the bare limit of the same run.
    TimesBare(f64),
    /// At least so many per second, or MB per second.
    AtLeast(f64),
    /// At most so many bytes.
    Bytes(u64),
    /// Nothing: the figure is only shown.
    Shown,
}

impl Promise {
    /// Whether it is kept; none where nothing was promised.
    pub(crate) fn kept(self, figure: Figure, bare: Option<Figure>) -> Option<bool> {
        Some(match (self, figure) {
            (Self::Shown, _) => return None,
            (Self::Within { median: bound }, Figure::Time { median, .. }) => median <= bound,
            (Self::WithinBoth { median: bound, p99: high }, Figure::Time { median, p99 }) => {
                median <= bound && p99 <= high
            }
            (Self::TimesBare(times), figure) => figure.ratio(bare?) <= times,
            (Self::AtLeast(bound), Figure::Rate(value) | Figure::Throughput(value)) => value >= bound,
            (Self::Bytes(bound), Figure::Memory(bytes)) => bytes <= bound,
            // A promise about another kind of figure than was measured is not kept.
            _ => false,
        })
    }
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Within { median } => write!(f, "≤ {median} ms"),
            Self::WithinBoth { median, p99 } => write!(f, "≤ {median} ms, p99 ≤ {p99} ms"),
            Self::TimesBare(times) => write!(f, "≤ {times} × bare"),
            Self::AtLeast(value) => write!(f, "≥ {value}"),
            Self::Bytes(bytes) => write!(f, "≤ {:.1} MB", bytes as f64 / 1e6),
            Self::Shown => f.write_str("shown"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(values: impl IntoIterator<Item = u64>) -> Vec<Duration> {
        values.into_iter().map(Duration::from_millis).collect()
    }

    #[test]
    fn median_and_p99_are_ranks_of_what_was_measured() {
        assert_eq!(Figure::of(ms(1..=100)), Figure::Time { median: 50.0, p99: 99.0 });
        assert_eq!(Figure::of(ms([7])), Figure::Time { median: 7.0, p99: 7.0 });
    }

    #[test]
    fn worse_is_a_ratio_above_one_for_times_and_speeds() {
        let time = |median| Figure::Time { median, p99: 9.0 };
        assert_eq!(time(3.0).ratio(time(2.0)), 1.5);
        assert_eq!(Figure::Rate(50.0).ratio(Figure::Rate(100.0)), 2.0);
    }

    #[test]
    fn what_is_added_is_counted_apart() {
        let time = |median, p99| Figure::Time { median, p99 };
        assert_eq!(time(3.0, 9.0).beyond(time(2.0, 4.0)), time(1.0, 5.0));
    }

    #[test]
    fn promises_are_judged() {
        let time = Figure::Time { median: 1.0, p99: 5.0 };
        assert_eq!(Promise::Within { median: 1.0 }.kept(time, None), Some(true));
        assert_eq!(Promise::WithinBoth { median: 1.0, p99: 4.0 }.kept(time, None), Some(false));
        assert_eq!(
            Promise::TimesBare(2.0).kept(time, Some(Figure::Time { median: 0.4, p99: 1.0 })),
            Some(false)
        );
        assert_eq!(Promise::TimesBare(2.0).kept(time, None), None);
        assert_eq!(Promise::AtLeast(10.0).kept(Figure::Rate(10.0), None), Some(true));
        assert_eq!(Promise::Bytes(5).kept(Figure::Memory(6), None), Some(false));
        assert_eq!(Promise::Bytes(5).kept(time, None), Some(false));
    }
}

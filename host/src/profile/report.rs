//! The times of a run, for people and for programs.

use std::fmt;

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{CellAlignment, LineStyle, Table};
use serde::Serialize;

/// Times between events on the device's stream.
pub(super) const EVENTS: &str = "events";

/// Times of the host's clock.
pub(super) const WALL: &str = "wall";

/// What a profiler measured. Its `Display` is a table.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// `cuda`, `cpu` or `simt`.
    pub device: String,
    /// The device in words.
    pub device_name: String,
    /// Where times are from: `events` on the device, or the host's `wall` clock.
    pub clock: &'static str,
    /// One for each name and label, in the order of their first scopes.
    pub scopes: Vec<ScopeTimes>,
    /// One for each counter and label, in the order of their first additions.
    pub counters: Vec<CounterTotal>,
    /// Those of which both sides were measured.
    pub comparisons: Vec<Comparison>,
    /// Scopes that gave way to newer ones: percentiles and traces are without them, totals are not.
    pub dropped_records: u64,
    /// Additions to counters that gave way; traces are without them.
    pub dropped_samples: u64,
}

/// The times of the scopes of one name and label.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ScopeTimes {
    /// The layer, or what else the [label](super::Profiler::labelled) says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// The name.
    pub name: String,
    /// Scopes with a time.
    pub count: u64,
    /// Scopes without: in a graph's capture, or when all events were in use.
    pub untimed: u64,
    /// The sum.
    pub total_us: f64,
    /// The mean; absent where nothing has a time, as the next four.
    pub mean_us: Option<f64>,
    /// The shortest.
    pub min_us: Option<f64>,
    /// The longest.
    pub max_us: Option<f64>,
    /// Half of the scopes that are kept took no longer.
    pub p50_us: Option<f64>,
    /// 95 of 100 of them took no longer.
    pub p95_us: Option<f64>,
    /// Bytes read and written by scopes with a time, as they said.
    pub bytes: u64,
    /// `bytes` over `total_us`, where bytes were said.
    pub gb_per_s: Option<f64>,
    /// How long the host was in one on average: on a GPU what it takes to queue the work.
    pub host_mean_us: f64,
}

/// A counter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CounterTotal {
    /// The layer, or what else the label says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Its name.
    pub name: String,
    /// The sum of what was added.
    pub total: u64,
    /// How often something was.
    pub additions: u64,
}

/// How much longer scopes of one name take than those of another, by their medians.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Comparison {
    /// The label of both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// What the difference is.
    pub name: String,
    /// The one name.
    pub with: String,
    /// The other.
    pub without: String,
    /// Median of the one minus that of the other; below 0 where the one is faster.
    pub difference_us: f64,
    /// The difference as a share of the other.
    pub percent: f64,
}

impl Report {
    /// The times of a name, of the first label that has it.
    pub fn scope(&self, name: &str) -> Option<&ScopeTimes> {
        self.scopes.iter().find(|scope| scope.name == name)
    }

    /// The times of a name and a label.
    pub fn scope_of(&self, label: &str, name: &str) -> Option<&ScopeTimes> {
        let labelled = |scope: &&ScopeTimes| scope.label.as_deref() == Some(label);
        self.scopes.iter().filter(labelled).find(|scope| scope.name == name)
    }

    /// The total of a counter, over all labels.
    pub fn counter(&self, name: &str) -> Option<u64> {
        let named = self.counters.iter().filter(|counter| counter.name == name);
        named.map(|counter| counter.total).reduce(u64::saturating_add)
    }
}

impl Comparison {
    /// The difference of two medians; nothing where the other is 0.
    pub(super) fn of(
        label: Option<String>,
        name: &str,
        with: (&str, f64),
        without: (&str, f64),
    ) -> Option<Self> {
        let difference_us = with.1 - without.1;
        (without.1 > 0.0).then(|| Self {
            label,
            name: name.to_owned(),
            with: with.0.to_owned(),
            without: without.0.to_owned(),
            difference_us,
            percent: 100.0 * difference_us / without.1,
        })
    }
}

/// The smallest of ascending values that `percent` of them do not pass.
pub(super) fn percentile(ascending: &[f64], percent: usize) -> Option<f64> {
    let rank = (ascending.len() * percent).div_ceil(100).max(1);
    ascending.get(rank - 1).copied()
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = [
            "scope", "count", "total ms", "mean µs", "min", "p50", "p95", "max", "GB/s", "host µs",
        ];
        let mut table = table(header);
        for scope in &self.scopes {
            let us = |time: Option<f64>| time.map_or("–".into(), |time| format!("{time:.2}"));
            table.add_row([
                titled(scope.label.as_ref(), &scope.name),
                scope.count.to_string(),
                format!("{:.3}", scope.total_us * 1e-3),
                us(scope.mean_us),
                us(scope.min_us),
                us(scope.p50_us),
                us(scope.p95_us),
                us(scope.max_us),
                scope.gb_per_s.map_or("–".into(), rate),
                format!("{:.2}", scope.host_mean_us),
            ]);
        }
        write!(f, "{table}")?;
        for counter in &self.counters {
            let title = titled(counter.label.as_ref(), &counter.name);
            write!(f, "\n{title}: {} in {} additions", counter.total, counter.additions)?;
        }
        for Comparison { label, name, difference_us, percent, .. } in &self.comparisons {
            let name = titled(label.as_ref(), name);
            write!(f, "\n{name}: {difference_us:+.2} µs ({percent:+.1} %)")?;
        }
        let untimed: u64 = self.scopes.iter().map(|scope| scope.untimed).sum();
        if untimed > 0 {
            write!(f, "\n{untimed} scopes have no device time: captured, or all events in use")?;
        }
        if self.dropped_records > 0 {
            let dropped = self.dropped_records;
            write!(f, "\npercentiles and traces are without the {dropped} oldest scopes")?;
        }
        Ok(())
    }
}

fn titled(label: Option<&String>, name: &str) -> String {
    label.map_or_else(|| name.to_owned(), |label| format!("{label}: {name}"))
}

/// Three digits of a slow device's rate, whole GB/s of a fast one's.
fn rate(gb_per_s: f64) -> String {
    if gb_per_s < 10.0 { format!("{gb_per_s:.3}") } else { format!("{gb_per_s:.0}") }
}

fn table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY.row_separator(LineStyle::none())).set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.force_no_tty();
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(percentile(&hundred, 50), Some(50.0));
        assert_eq!(percentile(&hundred, 95), Some(95.0));
        assert_eq!(percentile(&[3.0], 95), Some(3.0));
        assert_eq!(percentile(&[1.0, 2.0, 9.0], 50), Some(2.0));
        assert_eq!(percentile(&[], 50), None);
    }

    #[test]
    fn a_difference_is_relative_to_the_side_without() {
        let overhead = Comparison::of(None, "o", ("with", 12.0), ("without", 10.0)).unwrap();
        assert_eq!((overhead.difference_us, overhead.percent), (2.0, 20.0));
        assert_eq!(Comparison::of(None, "o", ("with", 1.0), ("without", 0.0)), None);
    }
}

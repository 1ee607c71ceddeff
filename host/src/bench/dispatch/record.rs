//! What is written down of the ways to reach a device.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::bench::record::Header;
use crate::latency::{LatencyBucket, LatencyHistogram};

/// One run: what it ran on and what each way took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DispatchDocument {
    /// What the times hold for. Its samples are those of every row but the executor's, which has fewer.
    pub header: Header,
    /// One row for each case and way.
    pub rows: Vec<DispatchRow>,
    /// What could not run here.
    pub not_run: Vec<NotRun>,
}

/// What one way takes for one case, by the host's clock: from the call until the host knows that it is done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DispatchRow {
    /// `cuda`, `cpu` or `simt`.
    pub device: String,
    /// What is done, such as `sequence`.
    pub case: String,
    /// How it reaches the device, such as `graph`.
    pub way: String,
    /// Operations of one call.
    pub operations: usize,
    /// Launches of kernels, or of graphs, that one call makes; 0 on the CPU, and where a resident kernel is there.
    pub launches: usize,
    /// Launches of resident kernels for all calls together; none where there is no such kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resident_launches: Option<u64>,
    /// Samples, of one call each.
    pub samples: usize,
    /// The middle one.
    pub median_us: f64,
    /// What a tenth of the samples did not pass.
    pub p10_us: f64,
    /// What nine tenths did not pass.
    pub p90_us: f64,
    /// What 99 of a hundred did not pass.
    pub p99_us: f64,
    /// The shortest.
    pub min_us: f64,
    /// The longest.
    pub max_us: f64,
    /// How many samples took how long: the buckets that are not empty.
    pub histogram: Vec<LatencyBucket>,
}

/// A way that this machine, or this device, does not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotRun {
    /// The case.
    pub case: String,
    /// The way.
    pub way: String,
    /// Why.
    pub reason: String,
}

/// The figures of samples in any order: median, 10, 90 and 99 percent, least, most.
pub(super) struct Figures {
    pub(super) median_us: f64,
    pub(super) p10_us: f64,
    pub(super) p90_us: f64,
    pub(super) p99_us: f64,
    pub(super) min_us: f64,
    pub(super) max_us: f64,
    pub(super) histogram: Vec<LatencyBucket>,
}

impl Figures {
    /// Of one sample or more.
    pub(super) fn of(samples: &[Duration]) -> Self {
        let mut sorted = samples.to_vec();
        sorted.sort_unstable();
        let at = |share: f64| {
            let rank = (share * sorted.len() as f64).ceil() as usize;
            sorted[rank.clamp(1, sorted.len()) - 1].as_secs_f64() * 1e6
        };
        Self {
            median_us: at(0.5),
            p10_us: at(0.1),
            p90_us: at(0.9),
            p99_us: at(0.99),
            min_us: at(0.0),
            max_us: at(1.0),
            histogram: LatencyHistogram::of(samples.iter().copied()).records(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_samples() {
        let samples: Vec<_> = (1..=100).rev().map(Duration::from_micros).collect();
        let figures = Figures::of(&samples);
        let Figures { median_us, p10_us, p90_us, p99_us, min_us, max_us, .. } = figures;
        let got = [median_us, p10_us, p90_us, p99_us, min_us, max_us].map(f64::round);
        assert_eq!(got, [50.0, 10.0, 90.0, 99.0, 1.0, 100.0]);
        assert_eq!(figures.histogram.iter().map(|bucket| bucket.count).sum::<u64>(), 100);
        let one = Figures::of(&[Duration::from_micros(7)]);
        assert_eq!((one.median_us, one.p99_us, one.min_us), (7.0, 7.0, 7.0));
    }
}

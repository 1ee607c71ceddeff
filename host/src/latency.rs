//! Counts of how long things took, in memory that does not grow with them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Buckets of a power of two.
const FINE: u32 = 8;
const BUCKETS: usize = (64 * FINE) as usize;

/// How often something took how long, in buckets that are an eighth of a power of two wide. An executor counts in one what
/// its items took from submission to completion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LatencyHistogram {
    counts: Vec<u64>,
}

impl Default for LatencyHistogram {
    /// Without anything.
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS] }
    }
}

impl LatencyHistogram {
    /// Of latencies in any order.
    pub fn of(latencies: impl IntoIterator<Item = Duration>) -> Self {
        let mut histogram = Self::default();
        latencies.into_iter().for_each(|latency| histogram.record(latency));
        histogram
    }

    /// Counts one more.
    pub fn record(&mut self, latency: Duration) {
        self.counts[bucket_of_latency(latency)] += 1;
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The latency that a share of them, 0 to 1, did not pass: the upper end of its bucket. None where nothing was counted.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let count = self.count();
        let rank = ((share.clamp(0.0, 1.0) * count as f64).ceil() as u64).max(1);
        let mut passed = 0;
        self.buckets().find_map(|(_, upper, items)| {
            passed += items;
            (passed >= rank).then_some(upper)
        })
    }

    /// As [`Self::buckets`], for documents.
    pub(crate) fn records(&self) -> Vec<LatencyBucket> {
        let us = |end: Duration| end.as_secs_f64() * 1e6;
        let record = |(from, to, count)| LatencyBucket { from_us: us(from), to_us: us(to), count };
        self.buckets().map(record).collect()
    }

    /// The buckets that are not empty: lower end, upper end, how many.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, Duration, u64)> {
        let filled = self.counts.iter().enumerate().filter(|&(_, &items)| items > 0);
        filled.map(|(bucket, &items)| (lower_end(bucket), lower_end(bucket + 1), items))
    }
}

/// A bucket of a [`LatencyHistogram`], as it stands in documents.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct LatencyBucket {
    /// Its lower end.
    pub from_us: f64,
    /// Its upper end.
    pub to_us: f64,
    /// How many latencies are in it.
    pub count: u64,
}

/// A histogram that threads count in and read at the same time.
pub(crate) struct SharedHistogram {
    counts: Box<[AtomicU64]>,
}

impl SharedHistogram {
    pub(crate) fn new() -> Self {
        Self { counts: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect() }
    }

    pub(crate) fn record(&self, latency: Duration) {
        self.counts[bucket_of_latency(latency)].fetch_add(1, Ordering::Relaxed);
    }

    /// What was counted so far.
    pub(crate) fn read(&self) -> LatencyHistogram {
        let count = |bucket: &AtomicU64| bucket.load(Ordering::Relaxed);
        LatencyHistogram { counts: self.counts.iter().map(count).collect() }
    }
}

fn bucket_of_latency(latency: Duration) -> usize {
    let ns = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
    bucket_of(ns).min(BUCKETS - 1)
}

fn bucket_of(ns: u64) -> usize {
    if ns < u64::from(FINE) {
        return ns as usize;
    }
    let power = ns.ilog2();
    let eighth = (ns >> (power - FINE.ilog2())) as u32 % FINE;
    ((power - FINE.ilog2() + 1) * FINE + eighth) as usize
}

fn lower_end(bucket: usize) -> Duration {
    let (power, eighth) = (bucket as u32 / FINE, bucket as u64 % u64::from(FINE));
    let ns = match power {
        0 => eighth,
        _ => (u64::from(FINE) + eighth).checked_shl(power - 1).unwrap_or(u64::MAX),
    };
    Duration::from_nanos(ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_hold_what_falls_into_them() {
        for ns in (0..5000).chain([1 << 20, 1 << 40, u64::MAX / 2]) {
            let bucket = bucket_of(ns);
            let (low, high) = (lower_end(bucket), lower_end(bucket + 1));
            let latency = Duration::from_nanos(ns);
            assert!(low <= latency && latency < high, "{ns}: {low:?} to {high:?}");
            assert!(ns < 8 || high.as_nanos() * 8 <= low.as_nanos() * 9 + 8, "{low:?} to {high:?}");
        }
    }

    #[test]
    fn quantiles_are_those_of_what_was_counted() {
        assert_eq!(LatencyHistogram::default().quantile(0.5), None);
        let shared = SharedHistogram::new();
        (1..=100).for_each(|us| shared.record(Duration::from_micros(us)));
        let latencies = shared.read();
        assert_eq!(latencies, LatencyHistogram::of((1..=100).rev().map(Duration::from_micros)));
        assert_eq!(latencies.count(), 100);
        for (share, us) in [(0.0, 1.0), (0.5, 50.0), (0.99, 99.0), (1.0, 100.0)] {
            let got = latencies.quantile(share).unwrap().as_secs_f64() * 1e6;
            assert!((us..us * 1.15).contains(&got), "{share}: {got}");
        }
    }
}

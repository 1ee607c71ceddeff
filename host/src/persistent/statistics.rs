//! What an executor has done.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets of a power of two.
const FINE: u32 = 8;
const BUCKETS: usize = (64 * FINE) as usize;

/// How long items took from submission to completion, in buckets that are an eighth of a power of two wide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LatencyHistogram {
    counts: Vec<u64>,
}

impl LatencyHistogram {
    /// Items.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The latency that a share of the items, 0 to 1, did not pass: the upper end of its bucket. None without items.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let count = self.count();
        let rank = ((share.clamp(0.0, 1.0) * count as f64).ceil() as u64).max(1);
        let mut passed = 0;
        self.buckets().find_map(|(_, upper, items)| {
            passed += items;
            (passed >= rank).then_some(upper)
        })
    }

    /// The buckets that have items: lower end, upper end, items.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, Duration, u64)> {
        let filled = self.counts.iter().enumerate().filter(|&(_, &items)| items > 0);
        filled.map(|(bucket, &items)| (lower_end(bucket), lower_end(bucket + 1), items))
    }
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

/// What an executor has done, and how it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct PersistentStatistics {
    /// Items submitted.
    pub submitted: u64,
    /// Of these, complete.
    pub completed: u64,
    /// Of these, refused by the device.
    pub failed: u64,
    /// Launches of the resident kernel.
    pub launches: u64,
    /// Items that are not complete, of each ring: the high and the normal one of each group in turn.
    pub queue_depths: Vec<u64>,
    /// The most items that were out at once.
    pub peak_outstanding: u64,
    /// The share of the time since the executor was made in which each group had no item in work, as the device last said.
    pub idle_shares: Vec<f64>,
    /// The device's clock in nanoseconds when each group last said that it looks for work or finishes it, about once a
    /// millisecond; 0 before.
    pub beats_ns: Vec<u64>,
    /// From submission to completion, as the host saw it.
    pub latencies: LatencyHistogram,
}

/// The figures while they are counted.
pub(super) struct Counters {
    pub(super) submitted: AtomicU64,
    pub(super) completed: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) peak_outstanding: AtomicU64,
    latencies: Box<[AtomicU64]>,
}

impl Counters {
    pub(super) fn new() -> Self {
        Self {
            submitted: AtomicU64::new(0),
            completed: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            peak_outstanding: AtomicU64::new(0),
            latencies: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    pub(super) fn submit(&self) {
        let submitted = self.submitted.fetch_add(1, Ordering::Relaxed) + 1;
        let outstanding = submitted.saturating_sub(self.completed.load(Ordering::Relaxed));
        self.peak_outstanding.fetch_max(outstanding, Ordering::Relaxed);
    }

    pub(super) fn complete(&self, latency: Duration, failed: bool) {
        let ns = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.latencies[bucket_of(ns).min(BUCKETS - 1)].fetch_add(1, Ordering::Relaxed);
        self.completed.fetch_add(1, Ordering::Relaxed);
        self.failed.fetch_add(failed.into(), Ordering::Relaxed);
    }

    pub(super) fn latencies(&self) -> LatencyHistogram {
        let count = |bucket: &AtomicU64| bucket.load(Ordering::Relaxed);
        LatencyHistogram { counts: self.latencies.iter().map(count).collect() }
    }
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
    fn quantiles_are_the_items_own() {
        let counters = Counters::new();
        assert_eq!(counters.latencies().quantile(0.5), None);
        for us in 1..=100 {
            counters.complete(Duration::from_micros(us), false);
        }
        let latencies = counters.latencies();
        assert_eq!(latencies.count(), 100);
        for (share, us) in [(0.0, 1.0), (0.5, 50.0), (0.99, 99.0), (1.0, 100.0)] {
            let got = latencies.quantile(share).unwrap().as_secs_f64() * 1e6;
            assert!((us..us * 1.15).contains(&got), "{share}: {got}");
        }
    }
}

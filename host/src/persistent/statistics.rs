//! What an executor has done.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub use crate::latency::LatencyHistogram;
use crate::latency::SharedHistogram;

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
    latencies: SharedHistogram,
}

impl Counters {
    pub(super) fn new() -> Self {
        Self {
            submitted: AtomicU64::new(0),
            completed: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            peak_outstanding: AtomicU64::new(0),
            latencies: SharedHistogram::new(),
        }
    }

    pub(super) fn submit(&self) {
        let submitted = self.submitted.fetch_add(1, Ordering::Relaxed) + 1;
        let outstanding = submitted.saturating_sub(self.completed.load(Ordering::Relaxed));
        self.peak_outstanding.fetch_max(outstanding, Ordering::Relaxed);
    }

    pub(super) fn complete(&self, latency: Duration, failed: bool) {
        self.latencies.record(latency);
        self.completed.fetch_add(1, Ordering::Relaxed);
        self.failed.fetch_add(failed.into(), Ordering::Relaxed);
    }

    pub(super) fn latencies(&self) -> LatencyHistogram {
        self.latencies.read()
    }
}

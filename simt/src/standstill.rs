//! Tells a launch that has come to a standstill from one whose pollers wait for slow work.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::thread_side::clock;

/// What a worker's entry says while it has left, or has not come yet.
const ABSENT: u64 = u64::MAX;
/// What it says while a block runs that has not polled yet.
const BUSY: u64 = 0;

/// Watches for the time in which all workers of a launch saw nothing but polling.
pub(crate) struct Standstill {
    limit: Duration,
    /// Set whenever some thread does something beside polling, cleared by who looks.
    moved: AtomicBool,
    /// When somebody last saw it set.
    moved_at: AtomicU64,
    /// For each worker when it last saw that its block only polls.
    polled_at: Vec<AtomicU64>,
    came: AtomicUsize,
}

impl Standstill {
    pub(crate) fn new(limit: Duration, workers: usize) -> Self {
        Self {
            limit,
            moved: AtomicBool::new(false),
            moved_at: AtomicU64::new(clock()),
            polled_at: (0..workers).map(|_| AtomicU64::new(ABSENT)).collect(),
            came: AtomicUsize::new(0),
        }
    }

    /// A worker comes: it is the one of the returned number.
    pub(crate) fn join(&self) -> usize {
        let worker = self.came.fetch_add(1, Ordering::Relaxed);
        self.is_busy(worker);
        worker
    }

    /// The worker has no block any more.
    pub(crate) fn leave(&self, worker: usize) {
        self.polled_at[worker].store(ABSENT, Ordering::Relaxed);
    }

    /// The worker starts a block.
    pub(crate) fn is_busy(&self, worker: usize) {
        self.polled_at[worker].store(BUSY, Ordering::Relaxed);
    }

    /// Some thread did something beside polling.
    pub(crate) fn note_move(&self) {
        // Written only where that changes it: all workers read this word all the time.
        if !self.moved.load(Ordering::Relaxed) {
            self.moved.store(true, Ordering::Relaxed);
        }
    }

    /// The worker's block only polls. Answers whether that is all that happens in the launch, and
    /// has been for the limit.
    pub(crate) fn note_polling(&self, worker: usize) -> bool {
        let now = clock();
        self.polled_at[worker].store(now, Ordering::Relaxed);
        if self.moved.swap(false, Ordering::Relaxed) {
            self.moved_at.store(now, Ordering::Relaxed);
        }
        let within = |since: u64| u128::from(now.saturating_sub(since)) <= self.limit.as_nanos();
        !within(self.moved_at.load(Ordering::Relaxed))
            && self.polled_at.iter().all(|at| within(at.load(Ordering::Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_worker_is_no_standstill() {
        let standstill = Standstill::new(Duration::from_millis(5), 2);
        let (poller, other) = (standstill.join(), standstill.join());
        let wait = || std::thread::sleep(Duration::from_millis(10));
        wait();
        assert!(!standstill.note_polling(poller));
        standstill.leave(other);
        assert!(standstill.note_polling(poller));
        standstill.note_move();
        assert!(!standstill.note_polling(poller));
        wait();
        assert!(standstill.note_polling(poller));
    }
}

//! What is kept of a scope, and the ring that keeps it.

use std::collections::VecDeque;

/// One scope that ended. Times are in microseconds since the profiler was made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Record {
    /// Index among the names.
    pub(super) name: usize,
    /// Index among the threads.
    pub(super) thread: usize,
    /// Scopes of the thread around it.
    pub(super) depth: u32,
    /// The how manyth scope to begin: a scope's number is below those of the scopes within it.
    pub(super) sequence: u64,
    /// Read and written.
    pub(super) bytes: u64,
    /// When the host entered it.
    pub(super) host_start_us: f64,
    /// How long the host was in it.
    pub(super) host_us: f64,
    /// When the device began it and how long it took there, where events were recorded.
    pub(super) device: Option<Span>,
}

/// A stretch of time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Span {
    pub(super) start_us: f64,
    pub(super) duration_us: f64,
}

/// One addition to a counter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sample {
    /// Index among the counters.
    pub(super) counter: usize,
    pub(super) time_us: f64,
    /// The counter's total after it.
    pub(super) total: u64,
}

/// The newest values, of a number that is fixed from the start.
#[derive(Debug)]
pub(super) struct Ring<T> {
    values: VecDeque<T>,
    capacity: usize,
    dropped: u64,
}

impl<T> Ring<T> {
    /// Room for `capacity` values, all allocated.
    pub(super) fn new(capacity: usize) -> Self {
        Self { values: VecDeque::with_capacity(capacity), capacity, dropped: 0 }
    }

    pub(super) fn push(&mut self, value: T) {
        if self.values.len() == self.capacity {
            self.values.pop_front();
            self.dropped += 1;
        }
        if self.capacity > 0 {
            self.values.push_back(value);
        }
    }

    /// From the oldest to the newest.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> + Clone {
        self.values.iter()
    }

    /// How many gave way.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    pub(super) fn clear(&mut self) {
        self.values.clear();
        self.dropped = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_stay_and_the_others_are_counted() {
        let mut ring = Ring::new(3);
        (0..5).for_each(|value| ring.push(value));
        assert_eq!(ring.iter().copied().collect::<Vec<_>>(), [2, 3, 4]);
        assert_eq!(ring.dropped(), 2);
        ring.clear();
        assert_eq!((ring.iter().count(), ring.dropped()), (0, 0));
    }

    #[test]
    fn a_ring_of_nothing_keeps_nothing() {
        let mut ring = Ring::new(0);
        ring.push(1);
        assert_eq!((ring.iter().count(), ring.dropped()), (0, 1));
    }
}

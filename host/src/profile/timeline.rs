//! When scopes ran on a GPU, from events on its stream.
//!
//! The driver tells the time between two events as an f32 of milliseconds, which over minutes is no finer than
//! microseconds. So a scope's end is placed by its distance from the end of the scope before, and the distances are
//! added up in f64.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::record::{Record, Span};
use crate::device::Gpu;
use crate::driver::{DriverError, Event};

/// Events by number on one stream; what a GPU does, and what tests put in its place.
pub(super) trait Events: Send {
    /// Marks the end of the work that is queued now.
    fn mark(&self, event: usize) -> Result<(), DriverError>;
    /// Whether the marked work is done.
    fn is_complete(&self, event: usize) -> Result<bool, DriverError>;
    /// Waits until it is.
    fn wait(&self, event: usize) -> Result<(), DriverError>;
    /// Microseconds between two marks that are complete, the earlier one first.
    fn elapsed_us(&self, start: usize, end: usize) -> Result<f64, DriverError>;
    /// Whether marks would go into a graph, where they have no time.
    fn is_capturing(&self) -> bool;
}

/// Real events.
pub(super) struct GpuEvents {
    gpu: Arc<Gpu>,
    events: Vec<Event>,
}

impl GpuEvents {
    pub(super) fn new(gpu: &Arc<Gpu>, count: usize) -> Result<Self, DriverError> {
        let events = (0..count).map(|_| Event::new(gpu.device())).collect::<Result<_, _>>()?;
        Ok(Self { gpu: Arc::clone(gpu), events })
    }
}

impl Events for GpuEvents {
    fn mark(&self, event: usize) -> Result<(), DriverError> {
        self.events[event].record(self.gpu.stream())
    }

    fn is_complete(&self, event: usize) -> Result<bool, DriverError> {
        self.events[event].is_complete()
    }

    fn wait(&self, event: usize) -> Result<(), DriverError> {
        self.events[event].synchronize()
    }

    fn elapsed_us(&self, start: usize, end: usize) -> Result<f64, DriverError> {
        Ok(f64::from(self.events[end].elapsed_ms(&self.events[start])?) * 1e3)
    }

    fn is_capturing(&self) -> bool {
        self.gpu.stream().is_capturing()
    }
}

/// The two events of a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pair {
    start: usize,
    end: usize,
}

/// The events of all scopes.
pub(super) struct Timeline {
    events: Box<dyn Events>,
    free: Vec<Pair>,
    /// Scopes that ended on the host, in the order of their ends on the stream.
    pending: VecDeque<(Record, Pair)>,
    /// An event whose place is known.
    anchor: usize,
    anchor_us: f64,
}

impl Timeline {
    /// Events that a timeline of so many pairs uses.
    pub(super) fn events_for(pairs: usize) -> usize {
        2 * pairs + 1
    }

    /// A timeline whose times count from `start`. Waits until the stream is idle.
    pub(super) fn new(
        events: Box<dyn Events>,
        pairs: usize,
        start: Instant,
    ) -> Result<Self, DriverError> {
        if events.is_capturing() {
            return Err(DriverError::Capturing { what: "making a profiler" });
        }
        let anchor = 2 * pairs;
        // The first mark waits for what was queued before; the second comes back at once.
        events.mark(anchor)?;
        events.wait(anchor)?;
        let before = start.elapsed();
        events.mark(anchor)?;
        events.wait(anchor)?;
        let anchor_us = (before + start.elapsed()).as_secs_f64() / 2.0 * 1e6;
        let free = (0..pairs).rev().map(|pair| Pair { start: 2 * pair, end: 2 * pair + 1 });
        let free = free.collect();
        Ok(Self { events, free, pending: VecDeque::with_capacity(pairs), anchor, anchor_us })
    }

    /// Marks the beginning of a scope; nothing where all events are in use or a graph is captured.
    pub(super) fn begin(
        &mut self,
        settled: impl FnMut(Record),
    ) -> Result<Option<Pair>, DriverError> {
        if self.events.is_capturing() {
            return Ok(None);
        }
        if self.free.is_empty() {
            self.settle(false, settled)?;
        }
        let Some(pair) = self.free.pop() else { return Ok(None) };
        let marked = self.events.mark(pair.start);
        if marked.is_err() {
            self.free.push(pair);
        }
        marked.map(|()| Some(pair))
    }

    /// Marks the end of a scope, whose record is given out when the device is done with it. False where a graph is
    /// captured by now: the scope has no time.
    pub(super) fn end(&mut self, record: Record, pair: Pair) -> Result<bool, DriverError> {
        let marked = if self.events.is_capturing() {
            Ok(false)
        } else {
            self.events.mark(pair.end).map(|()| true)
        };
        if marked == Ok(true) {
            self.pending.push_back((record, pair));
        } else {
            self.free.push(pair);
        }
        marked
    }

    /// Gives out the records of scopes that the device is done with; of all, if it is to `wait`.
    pub(super) fn settle(
        &mut self,
        wait: bool,
        mut settled: impl FnMut(Record),
    ) -> Result<(), DriverError> {
        if wait && self.events.is_capturing() {
            return Err(DriverError::Capturing { what: "reading the profiler" });
        }
        while let Some(&(mut record, pair)) = self.pending.front() {
            if wait {
                self.events.wait(pair.end)?;
            } else if !self.events.is_complete(pair.end)? {
                break;
            }
            let end_us = self.anchor_us + self.events.elapsed_us(self.anchor, pair.end)?;
            let duration_us = self.events.elapsed_us(pair.start, pair.end)?;
            record.device = Some(Span { start_us: end_us - duration_us, duration_us });
            self.pending.pop_front();
            // The next end is measured from this one, and the old anchor is free.
            self.free.push(Pair { start: pair.start, end: self.anchor });
            (self.anchor, self.anchor_us) = (pair.end, end_us);
            settled(record);
        }
        Ok(())
    }
}

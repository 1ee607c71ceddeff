//! The live line, and the figures that it shows.

use std::io::{IsTerminal, stderr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::latency::{LatencyHistogram, SharedHistogram};

/// From one picture to the next.
const INTERVAL: Duration = Duration::from_millis(250);

/// What a stream has done so far.
pub(super) struct Figures {
    latencies: SharedHistogram,
    batches: AtomicU64,
}

impl Figures {
    pub(super) fn new() -> Self {
        Self { latencies: SharedHistogram::new(), batches: AtomicU64::new(0) }
    }

    /// Counts a batch.
    pub(super) fn count(&self, latency: Duration) {
        self.latencies.record(latency);
        self.batches.fetch_add(1, Ordering::Relaxed);
    }

    /// What the batches took.
    pub(super) fn latencies(&self) -> LatencyHistogram {
        self.latencies.read()
    }
}

/// Runs `work` with a line about the figures on standard error, where that is a terminal. A thread draws it, so that no
/// batch waits for a terminal.
pub(super) fn shown<R>(figures: &Figures, work: impl FnOnce() -> R) -> R {
    if !stderr().is_terminal() {
        return work();
    }
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let drawing = scope.spawn(|| draw(figures, &done));
        let _ended = Ending { done: &done, drawing: drawing.thread().clone() };
        work()
    })
}

/// Ends the drawing, also where the work panics.
struct Ending<'a> {
    done: &'a AtomicBool,
    drawing: Thread,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Release);
        self.drawing.unpark();
    }
}

fn draw(figures: &Figures, done: &AtomicBool) {
    let style = ProgressStyle::with_template("{spinner} {msg}").expect("known fields");
    let line = ProgressBar::new_spinner().with_style(style);
    let (mut then, mut before) = (Instant::now(), 0);
    while !done.load(Ordering::Acquire) {
        thread::park_timeout(INTERVAL);
        let (now, batches) = (Instant::now(), figures.batches.load(Ordering::Relaxed));
        let rate = (batches - before) as f64 / (now - then).as_secs_f64().max(1e-9);
        line.set_message(text(batches, rate, &figures.latencies()));
        line.tick();
        (then, before) = (now, batches);
    }
    line.finish_and_clear();
}

fn text(batches: u64, rate: f64, latencies: &LatencyHistogram) -> String {
    let us = |share| {
        let latency = latencies.quantile(share);
        latency.map_or("–".into(), |latency| format!("{:.1} µs", latency.as_secs_f64() * 1e6))
    };
    format!("{batches} batches, {rate:.1} a second; p50 {}, p99 {}", us(0.5), us(0.99))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_has_batches_rate_and_percentiles() {
        let figures = Figures::new();
        assert_eq!(text(0, 0.0, &figures.latencies()), "0 batches, 0.0 a second; p50 –, p99 –");
        figures.count(Duration::from_nanos(1000));
        let said = text(1, 12.34, &figures.latencies());
        assert_eq!(said, "1 batches, 12.3 a second; p50 1.0 µs, p99 1.0 µs");
    }

    #[test]
    fn a_drawing_ends_with_its_work() {
        let (figures, done) = (Figures::new(), AtomicBool::new(false));
        let panicked = thread::scope(|scope| {
            let drawing = scope.spawn(|| draw(&figures, &done));
            let ending = Ending { done: &done, drawing: drawing.thread().clone() };
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
                let _ending = ending;
                panic!("the work's");
            }))
            .is_err()
        });
        assert!(panicked);
    }
}

//! What a profiler knows, behind its lock.

use std::thread::{self, ThreadId};

use super::record::{Record, Ring, Sample};
use super::report::{self, Comparison, CounterTotal, Report, ScopeTimes};
use super::timeline::{Pair, Timeline};
use crate::driver::DriverError;
use crate::error::Error;

/// Names, threads and counters that there is room for from the start.
const ROOM: usize = 256;

pub(super) struct State {
    labels: Vec<String>,
    pub(super) threads: Vec<Thread>,
    pub(super) names: Vec<Totals>,
    pub(super) counters: Vec<Counter>,
    pub(super) records: Ring<Record>,
    pub(super) samples: Ring<Sample>,
    comparisons: Vec<[&'static str; 3]>,
    timeline: Option<Timeline>,
    /// The first failed call since the last report.
    failure: Option<DriverError>,
    next_sequence: u64,
}

/// A thread that had scopes.
pub(super) struct Thread {
    id: ThreadId,
    pub(super) name: String,
    depth: u32,
}

/// All scopes of a name and a label.
pub(super) struct Totals {
    pub(super) id: Id,
    /// With a time, and without.
    timed: u64,
    untimed: u64,
    total_us: f64,
    min_us: f64,
    max_us: f64,
    host_us: f64,
    bytes: u64,
}

/// A counter.
pub(super) struct Counter {
    pub(super) id: Id,
    total: u64,
    additions: u64,
}

/// What scopes and counters are told apart by.
pub(super) struct Id {
    pub(super) name: &'static str,
    label: Option<usize>,
    /// Label and name, where there is a label.
    title: Option<String>,
}

impl State {
    pub(super) fn new(records: usize, timeline: Option<Timeline>) -> Self {
        Self {
            labels: Vec::with_capacity(ROOM),
            threads: Vec::with_capacity(ROOM),
            names: Vec::with_capacity(ROOM),
            counters: Vec::with_capacity(ROOM),
            records: Ring::new(records),
            samples: Ring::new(records),
            comparisons: Vec::with_capacity(ROOM),
            timeline,
            failure: None,
            next_sequence: 0,
        }
    }

    /// Whether times are of a GPU.
    pub(super) fn has_device_times(&self) -> bool {
        self.timeline.is_some()
    }

    /// The number of a label.
    pub(super) fn label(&mut self, label: &str) -> usize {
        self.labels.iter().position(|known| known == label).unwrap_or_else(|| {
            self.labels.push(label.to_owned());
            self.labels.len() - 1
        })
    }

    /// The label of scopes or of a counter.
    pub(super) fn label_of(&self, id: &Id) -> Option<&str> {
        id.label.map(|label| self.labels[label].as_str())
    }

    pub(super) fn open(
        &mut self,
        label: Option<usize>,
        name: &'static str,
    ) -> (Record, Option<Pair>) {
        let (name, thread) = (self.name(label, name), self.thread());
        let depth = self.threads[thread].depth;
        self.threads[thread].depth += 1;
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let record = Record {
            name,
            thread,
            depth,
            sequence,
            bytes: 0,
            host_start_us: 0.0,
            host_us: 0.0,
            device: None,
        };
        let Self { timeline, records, names, failure, .. } = self;
        let pair = match timeline {
            Some(timeline) => timeline
                .begin(|record| keep(records, names, record, true))
                .unwrap_or_else(|error| {
                    failure.get_or_insert(error);
                    None
                }),
            None => None,
        };
        (record, pair)
    }

    pub(super) fn close(&mut self, record: Record, pair: Option<Pair>) {
        let thread = &mut self.threads[record.thread];
        thread.depth = thread.depth.saturating_sub(1);
        let pending = match (&mut self.timeline, pair) {
            (Some(timeline), Some(pair)) => timeline.end(record, pair).unwrap_or_else(|error| {
                self.failure.get_or_insert(error);
                false
            }),
            _ => false,
        };
        if !pending {
            let device_times = self.has_device_times();
            keep(&mut self.records, &mut self.names, record, device_times);
        }
    }

    pub(super) fn count(
        &mut self,
        label: Option<usize>,
        name: &'static str,
        amount: u64,
        time_us: f64,
    ) {
        let found = self.counters.iter().position(|counter| counter.id.is(label, name));
        let counter = found.unwrap_or_else(|| {
            let id = Id::new(&self.labels, label, name);
            self.counters.push(Counter { id, total: 0, additions: 0 });
            self.counters.len() - 1
        });
        let at = &mut self.counters[counter];
        at.total = at.total.saturating_add(amount);
        at.additions += 1;
        self.samples.push(Sample { counter, time_us, total: at.total });
    }

    pub(super) fn compare(
        &mut self,
        name: &'static str,
        with: &'static str,
        without: &'static str,
    ) {
        let comparison = [name, with, without];
        match self.comparisons.iter_mut().find(|known| known[0] == name) {
            Some(known) => *known = comparison,
            None => self.comparisons.push(comparison),
        }
    }

    /// Waits for the times of all scopes that ended.
    pub(super) fn settle_all(&mut self) -> Result<(), Error> {
        let Self { timeline, records, names, failure, .. } = self;
        if let Some(timeline) = timeline {
            timeline.settle(true, |record| keep(records, names, record, true))?;
        }
        failure.take().map_or(Ok(()), |error| Err(error.into()))
    }

    pub(super) fn report(&self, device: &'static str, device_name: String) -> Report {
        let times = |name: usize| -> Vec<f64> {
            let of_name = self.records.iter().filter(|record| record.name == name);
            let device = self.has_device_times();
            of_name.filter_map(|record| time_us(record, device)).collect()
        };
        let used = |totals: &&Totals| totals.timed + totals.untimed > 0;
        let scopes: Vec<_> = (0..self.names.len())
            .filter(|&name| used(&&self.names[name]))
            .map(|name| {
                let totals = &self.names[name];
                totals.times(self.label_of(&totals.id).map(str::to_owned), times(name))
            })
            .collect();
        let labels = || std::iter::once(None).chain(self.labels.iter().map(Some));
        let comparisons = self.comparisons.iter().flat_map(|[name, with, without]| {
            let scopes = &scopes;
            labels().filter_map(move |label| {
                let median = |name: &str| {
                    let wanted = |s: &&ScopeTimes| s.label.as_ref() == label && s.name == name;
                    scopes.iter().find(wanted)?.p50_us
                };
                let pair = ((*with, median(with)?), (*without, median(without)?));
                Comparison::of(label.cloned(), name, pair.0, pair.1)
            })
        });
        Report {
            device: device.to_owned(),
            device_name,
            clock: if self.has_device_times() { report::EVENTS } else { report::WALL },
            comparisons: comparisons.collect(),
            counters: self.counters.iter().map(|counter| self.total(counter)).collect(),
            dropped_records: self.records.dropped(),
            dropped_samples: self.samples.dropped(),
            scopes,
        }
    }

    pub(super) fn clear(&mut self) {
        self.records.clear();
        self.samples.clear();
        self.counters.clear();
        // Names stay: scopes in progress know theirs by number.
        self.names.iter_mut().for_each(Totals::clear);
    }

    fn name(&mut self, label: Option<usize>, name: &'static str) -> usize {
        self.names.iter().position(|known| known.id.is(label, name)).unwrap_or_else(|| {
            self.names.push(Totals::new(Id::new(&self.labels, label, name)));
            self.names.len() - 1
        })
    }

    fn total(&self, counter: &Counter) -> CounterTotal {
        let Counter { id, total, additions } = counter;
        let label = self.label_of(id).map(str::to_owned);
        CounterTotal { label, name: id.name.to_owned(), total: *total, additions: *additions }
    }

    fn thread(&mut self) -> usize {
        let current = thread::current();
        self.threads.iter().position(|known| known.id == current.id()).unwrap_or_else(|| {
            let number = self.threads.len();
            let name = current.name().map_or_else(|| format!("thread {number}"), str::to_owned);
            self.threads.push(Thread { id: current.id(), name, depth: 0 });
            number
        })
    }
}

/// Adds a record to the totals of its name and to the newest.
fn keep(records: &mut Ring<Record>, names: &mut [Totals], record: Record, device_times: bool) {
    names[record.name].add(&record, device_times);
    records.push(record);
}

/// The time that counts: the device's, or where none has a clock of its own the host's.
fn time_us(record: &Record, device_times: bool) -> Option<f64> {
    if device_times { record.device.map(|span| span.duration_us) } else { Some(record.host_us) }
}

impl Id {
    fn new(labels: &[String], label: Option<usize>, name: &'static str) -> Self {
        let title = label.map(|label| format!("{}: {name}", labels[label]));
        Self { name, label, title }
    }

    fn is(&self, label: Option<usize>, name: &str) -> bool {
        self.label == label && self.name == name
    }

    /// As one string.
    pub(super) fn title(&self) -> &str {
        self.title.as_deref().unwrap_or(self.name)
    }
}

impl Totals {
    fn new(id: Id) -> Self {
        let (total_us, min_us, max_us) = (0.0, f64::INFINITY, 0.0);
        Self { id, timed: 0, untimed: 0, total_us, min_us, max_us, host_us: 0.0, bytes: 0 }
    }

    fn clear(&mut self) {
        (self.timed, self.untimed, self.bytes) = (0, 0, 0);
        (self.total_us, self.min_us, self.max_us) = (0.0, f64::INFINITY, 0.0);
        self.host_us = 0.0;
    }

    fn add(&mut self, record: &Record, device_times: bool) {
        self.host_us += record.host_us;
        match time_us(record, device_times) {
            None => self.untimed += 1,
            Some(time_us) => {
                self.timed += 1;
                self.total_us += time_us;
                self.min_us = self.min_us.min(time_us);
                self.max_us = self.max_us.max(time_us);
                self.bytes = self.bytes.saturating_add(record.bytes);
            }
        }
    }

    fn times(&self, label: Option<String>, mut kept_us: Vec<f64>) -> ScopeTimes {
        kept_us.sort_by(f64::total_cmp);
        let timed = self.timed > 0;
        let moved = timed && self.bytes > 0 && self.total_us > 0.0;
        ScopeTimes {
            label,
            name: self.id.name.to_owned(),
            count: self.timed,
            untimed: self.untimed,
            total_us: self.total_us,
            mean_us: timed.then(|| self.total_us / self.timed as f64),
            min_us: timed.then_some(self.min_us),
            max_us: timed.then_some(self.max_us),
            p50_us: report::percentile(&kept_us, 50),
            p95_us: report::percentile(&kept_us, 95),
            bytes: self.bytes,
            gb_per_s: moved.then(|| self.bytes as f64 / self.total_us * 1e-3),
            host_mean_us: self.host_us / (self.timed + self.untimed).max(1) as f64,
        }
    }
}

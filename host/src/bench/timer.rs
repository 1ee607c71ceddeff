//! Samples of how long calls take.
//!
//! All lanes of all subjects take turns, sample by sample, so that a clock or a temperature that drifts
//! favours none of them; those of graphs after those of single calls.

use std::fmt;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::clocks;
use super::record::RowClocks;
use super::statistics::Statistics;
use crate::device::{Device, Gpu};
use crate::driver::{Event, GpuMeter, GpuReading, Graph, GraphExec};
use crate::error::Error;

/// Launches of a graph whose launches are short; of longer ones [`FEW_LAUNCHES`] are enough.
const MANY_LAUNCHES: usize = 50;
const FEW_LAUNCHES: usize = 5;
const MANY_LAUNCHES_BELOW_US: f64 = 500.0;

/// Replays before the first sample of a graph: the first uploads it.
const GRAPH_WARM_UP: usize = 3;

/// What a sample is the time of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Device time between two events around one call, on an idle device: the launch is in it.
    Event,
    /// Device time between two events around one replay of a CUDA graph of many calls, divided by
    /// their number.
    Graph,
    /// Time on the host's clock from the call until the device is done.
    Wall,
}

/// Where a call finds its operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cache {
    /// In memory: the sets of buffers take turns, and more than three times the L2 is between two
    /// uses of one.
    Cold,
    /// In the cache, as far as they fit: one set of buffers, used just before.
    Warm,
}

/// One way to time a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lane {
    /// What a sample is the time of.
    pub mode: Mode,
    /// Where the operands are.
    pub cache: Cache,
}

/// Something to time, and the ways to time it.
pub struct Subject<'a> {
    /// Queues the i-th call, on the i-th set of buffers, counted round. Allocates nothing after its
    /// first calls and waits for nothing, so that it can be captured.
    pub call: Box<dyn FnMut(usize) -> Result<(), Error> + 'a>,
    /// Sets of buffers.
    pub sets: usize,
    /// The ways.
    pub lanes: Vec<Lane>,
}

/// How much is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Calls of each subject before anything is timed.
    pub warm_up: usize,
    /// Samples of each lane, 1 or more.
    pub samples: usize,
}

/// The times of one lane.
#[derive(Debug, Clone, PartialEq)]
pub struct LaneTimes {
    /// The lane.
    pub lane: Lane,
    /// Calls in one sample; the times are of one call.
    pub launches: usize,
    /// The times.
    pub times: Statistics,
    /// At which clocks; none where nothing tells.
    pub clocks: Option<RowClocks>,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Event => "event",
            Self::Graph => "graph",
            Self::Wall => "wall",
        })
    }
}

impl fmt::Display for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cold => "cold",
            Self::Warm => "warm",
        })
    }
}

/// The lanes for operands of `sets` sets of buffers: by events and by graph replay on a GPU, by the wall
/// clock elsewhere; warm as well where one set is too small to be cold by itself.
pub fn lanes(device: &Device, sets: usize) -> Vec<Lane> {
    let modes: &[Mode] = match device {
        Device::Cuda(_) => &[Mode::Event, Mode::Graph],
        Device::Cpu | Device::Simt(_) => &[Mode::Wall],
    };
    let caches: &[Cache] = if sets > 1 { &[Cache::Cold, Cache::Warm] } else { &[Cache::Cold] };
    modes.iter().flat_map(|&mode| caches.iter().map(move |&cache| Lane { mode, cache })).collect()
}

/// Sets of buffers of `bytes_per_set` to rotate so that more than three times the L2 is between two uses
/// of one; on devices that have no L2 of their own to say, one.
pub fn buffer_sets(device: &Device, bytes_per_set: u64) -> usize {
    match device {
        Device::Cuda(gpu) => {
            let l2_bytes = u64::from(gpu.device().info().l2_bytes);
            1 + (3 * l2_bytes / bytes_per_set.max(1)) as usize
        }
        Device::Cpu | Device::Simt(_) => 1,
    }
}

/// Warms up, then takes `plan.samples` samples of every lane, all in turn; the answer has the order of
/// `subjects` and of their lanes.
///
/// # Errors
/// What a call answers, or a failed call of the driver.
///
/// # Panics
/// Where `plan.samples` is 0.
pub fn measure(
    device: &Device,
    subjects: &mut [Subject<'_>],
    plan: Plan,
) -> Result<Vec<Vec<LaneTimes>>, Error> {
    let meter = clocks::meter(device);
    let mut running = Vec::new();
    for (index, subject) in subjects.iter_mut().enumerate() {
        // Each set is touched, and scratch memory made, before a capture.
        for i in 0..plan.warm_up.max(subject.sets).max(1) {
            (subject.call)(i)?;
        }
        device.synchronize()?;
        for lane in subject.lanes.clone() {
            running.push(Running::new(device, index, subject, lane)?);
        }
    }
    // Single calls first, then graphs: a graph of long calls heats the device for what comes after it.
    for graphs in [false, true] {
        for sample in 0..plan.samples {
            // From the last: the last subject is often the device's copy, which sweeps code and page tables from the caches
            // as well, and a lane that warms its operands is then the one behind it.
            for lane in running.iter_mut().rev().filter(|lane| lane.graph.is_some() == graphs) {
                let read = clocks::is_read(sample, plan.samples);
                let meter = meter.as_ref().filter(|_| read);
                lane.take(&mut subjects[lane.subject], sample, meter)?;
            }
        }
    }
    let mut times = vec![Vec::new(); subjects.len()];
    for lane in running {
        let statistics = Statistics::of(&lane.samples_us).expect("the plan has samples");
        times[lane.subject].push(LaneTimes {
            lane: lane.lane,
            launches: lane.launches,
            times: statistics,
            clocks: clocks::of(&lane.readings),
        });
    }
    Ok(times)
}

/// A lane that is being sampled.
struct Running<'a> {
    subject: usize,
    lane: Lane,
    launches: usize,
    clock: Clock<'a>,
    graph: Option<GraphExec>,
    samples_us: Vec<f64>,
    readings: Vec<GpuReading>,
}

enum Clock<'a> {
    Events { gpu: &'a Gpu, start: Event, end: Event },
    Wall(&'a Device),
}

impl<'a> Running<'a> {
    fn new(
        device: &'a Device,
        index: usize,
        subject: &mut Subject<'_>,
        lane: Lane,
    ) -> Result<Self, Error> {
        let clock = match (device, lane.mode) {
            (Device::Cuda(gpu), Mode::Event | Mode::Graph) => Clock::Events {
                gpu,
                start: Event::new(gpu.device())?,
                end: Event::new(gpu.device())?,
            },
            _ => Clock::Wall(device),
        };
        let (samples_us, readings) = (Vec::new(), Vec::new());
        let mut running =
            Self { subject: index, lane, launches: 1, clock, graph: None, samples_us, readings };
        if let (Device::Cuda(gpu), Mode::Graph) = (device, lane.mode) {
            let one_us = running.time(subject, 0, None)?;
            running.launches =
                if one_us < MANY_LAUNCHES_BELOW_US { MANY_LAUNCHES } else { FEW_LAUNCHES };
            running.graph = Some(capture(gpu, subject, lane.cache, running.launches)?);
            for _ in 0..GRAPH_WARM_UP {
                running.queue(subject, 0)?;
            }
            device.synchronize()?;
        }
        Ok(running)
    }

    fn take(
        &mut self,
        subject: &mut Subject<'_>,
        sample: usize,
        meter: Option<&GpuMeter>,
    ) -> Result<(), Error> {
        let set = match self.lane.cache {
            Cache::Cold => sample,
            Cache::Warm => {
                // The lanes in between have used the cache.
                self.queue(subject, 0)?;
                0
            }
        };
        let elapsed_us = self.time(subject, set, meter)?;
        self.samples_us.push(elapsed_us / self.launches as f64);
        Ok(())
    }

    fn queue(&self, subject: &mut Subject<'_>, set: usize) -> Result<(), Error> {
        match (&self.graph, &self.clock) {
            (Some(graph), Clock::Events { gpu, .. }) => Ok(graph.launch(gpu.stream())?),
            _ => (subject.call)(set),
        }
    }

    /// Microseconds of what [`Self::queue`] queues, on an idle device; with a meter, a reading while it is at work.
    fn time(
        &mut self,
        subject: &mut Subject<'_>,
        set: usize,
        meter: Option<&GpuMeter>,
    ) -> Result<f64, Error> {
        match &self.clock {
            Clock::Events { gpu, start, end } => {
                gpu.stream().synchronize()?;
                start.record(gpu.stream())?;
                self.queue(subject, set)?;
                end.record(gpu.stream())?;
                self.readings.extend(meter.and_then(GpuMeter::read));
                end.synchronize()?;
                Ok(f64::from(end.elapsed_ms(start)?) * 1e3)
            }
            Clock::Wall(device) => {
                device.synchronize()?;
                let start = Instant::now();
                self.queue(subject, set)?;
                device.synchronize()?;
                Ok(start.elapsed().as_secs_f64() * 1e6)
            }
        }
    }
}

fn capture(
    gpu: &Gpu,
    subject: &mut Subject<'_>,
    cache: Cache,
    launches: usize,
) -> Result<GraphExec, Error> {
    let graph = Graph::capture(gpu.stream(), |_| {
        (0..launches).try_for_each(|i| (subject.call)(if cache == Cache::Cold { i } else { 0 }))
    })?;
    Ok(graph.instantiate()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn subjects_take_turns_after_their_warm_up() {
        let calls = RefCell::new(Vec::new());
        let log = &calls;
        let mut subjects: Vec<_> = ["a", "b"]
            .map(|name| Subject {
                call: Box::new(move |set| {
                    log.borrow_mut().push((name, set));
                    Ok(())
                }),
                sets: 2,
                lanes: lanes(&Device::Cpu, 1),
            })
            .into();
        let plan = Plan { warm_up: 1, samples: 3 };
        let times = measure(&Device::Cpu, &mut subjects, plan).unwrap();
        assert_eq!(times.len(), 2);
        for lanes in &times {
            assert_eq!(lanes.len(), 1);
            assert_eq!(lanes[0].lane, Lane { mode: Mode::Wall, cache: Cache::Cold });
            assert_eq!((lanes[0].launches, lanes[0].times.samples), (1, 3));
        }
        drop(subjects);
        let warm_up = [("a", 0), ("a", 1), ("b", 0), ("b", 1)];
        let samples = [("b", 0), ("a", 0), ("b", 1), ("a", 1), ("b", 2), ("a", 2)];
        assert_eq!(calls.into_inner(), [&warm_up[..], &samples[..]].concat());
    }

    #[test]
    fn a_warm_lane_uses_its_one_set_again_just_before_the_sample() {
        let sets = RefCell::new(Vec::new());
        let lane = Lane { mode: Mode::Wall, cache: Cache::Warm };
        let call = Box::new(|set| {
            sets.borrow_mut().push(set);
            Ok(())
        });
        let mut subjects = [Subject { call, sets: 3, lanes: vec![lane] }];
        measure(&Device::Cpu, &mut subjects, Plan { warm_up: 0, samples: 2 }).unwrap();
        drop(subjects);
        assert_eq!(sets.into_inner(), [0, 1, 2, 0, 0, 0, 0]);
    }

    #[test]
    fn a_failing_call_ends_the_measurement() {
        let call = Box::new(|_| Err(Error::EmptySegment { op: "max", segment: 3 }));
        let mut subjects = [Subject { call, sets: 1, lanes: lanes(&Device::Cpu, 1) }];
        let error = measure(&Device::Cpu, &mut subjects, Plan { warm_up: 1, samples: 1 });
        assert!(matches!(error, Err(Error::EmptySegment { segment: 3, .. })));
    }
}

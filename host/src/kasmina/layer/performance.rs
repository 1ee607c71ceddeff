//! How long passes take. On a GPU it is measured by events, so that no step waits.

use std::time::Instant;

use serde::Serialize;

use super::error::LayerError;
use super::{KasminaLayer, LayerElement};
use crate::buffer::Buffer;
use crate::device::{Device, Gpu};
use crate::driver::Event;
use crate::error::Error;
use crate::kasmina::{BlendForward, BlendOptions, TelemetryBuffers};

/// Pairs of events in flight; a pass waits only where the GPU is as many passes behind.
const PAIRS: usize = 64;

/// What the passes took, under the published names where there are any.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct PerformanceReport {
    /// Forward passes that were timed.
    pub forward_passes: u64,
    /// Backward passes that were timed.
    pub backward_passes: u64,
    /// Mean time of a forward pass, in milliseconds.
    pub kernel_time_ms: f64,
    /// Mean time of a backward pass with its clipping, in milliseconds.
    pub backward_time_ms: f64,
    /// Bytes of input and output over the forward passes' time, in GB/s.
    pub memory_bandwidth_gbps: f64,
    /// Bytes of input and gradients over the backward passes' time, in GB/s.
    pub backward_bandwidth_gbps: f64,
    /// How much longer a forward pass takes for its telemetry, in percent; none before
    /// [`measure_telemetry_overhead`](KasminaLayer::measure_telemetry_overhead).
    pub telemetry_overhead_percent: Option<f64>,
    /// Passes that were refused or failed.
    pub error_count: u64,
    /// Values and units that clipping changed, in all backward passes since the layer was made, those of
    /// replayed graphs with them.
    pub grad_clip_activations: u64,
}

#[derive(Clone, Copy)]
pub(crate) enum Pass {
    Forward,
    Backward,
}

#[derive(Default, Clone, Copy)]
struct Sum {
    passes: u64,
    ms: f64,
    bytes: f64,
}

pub(crate) struct Performance {
    enabled: bool,
    /// None where passes are done when they return.
    events: Option<Events>,
    sums: [Sum; 2],
    errors: u64,
    /// Before the clipping's plan was made again.
    clipped: u64,
    telemetry_overhead_percent: Option<f64>,
}

struct Events {
    device: Device,
    pairs: Vec<Pair>,
    next: usize,
}

struct Pair {
    start: Event,
    stop: Event,
    /// What lies between them and has not been added yet.
    pending: Option<(Pass, usize)>,
}

/// A pass that is being timed.
pub(crate) struct Timer {
    pass: Pass,
    bytes: usize,
    begun: Option<Instant>,
}

impl Performance {
    pub(crate) fn new(device: &Device, enabled: bool) -> Result<Self, Error> {
        let events = match device {
            Device::Cuda(gpu) if enabled => Some(Events::new(device, gpu)?),
            _ => None,
        };
        let sums = [Sum::default(); 2];
        Ok(Self { enabled, events, sums, errors: 0, clipped: 0, telemetry_overhead_percent: None })
    }

    pub(crate) fn start(&mut self, pass: Pass, bytes: usize) -> Result<Option<Timer>, Error> {
        if !self.enabled {
            return Ok(None);
        }
        let mut begun = None;
        match &mut self.events {
            None => begun = Some(Instant::now()),
            Some(events) if events.stream().is_capturing() => return Ok(None),
            Some(events) => {
                if let Some((pass, bytes, ms)) = events.take(events.next)? {
                    self.sums[pass as usize].add(bytes, ms);
                }
                let pair = &events.pairs[events.next];
                pair.start.record(events.stream())?;
            }
        }
        Ok(Some(Timer { pass, bytes, begun }))
    }

    pub(crate) fn stop(&mut self, timer: Option<Timer>) -> Result<(), Error> {
        let Some(Timer { pass, bytes, begun }) = timer else { return Ok(()) };
        if let Some(begun) = begun {
            self.sums[pass as usize].add(bytes, begun.elapsed().as_secs_f64() * 1e3);
        }
        if let Some(events) = &mut self.events {
            let at = events.next;
            events.pairs[at].stop.record(events.stream())?;
            events.pairs[at].pending = Some((pass, bytes));
            events.next = (at + 1) % PAIRS;
        }
        Ok(())
    }

    /// What was clipped before the plan of the clipping goes.
    pub(crate) fn keep_clipped(&mut self, activations: u64) {
        self.clipped = activations;
    }

    pub(crate) fn count<R>(&mut self, done: &Result<R, Error>) {
        self.errors += u64::from(done.is_err());
    }

    fn settle(&mut self) -> Result<(), Error> {
        if let Some(events) = &mut self.events {
            for at in 0..PAIRS {
                if let Some((pass, bytes, ms)) = events.take(at)? {
                    self.sums[pass as usize].add(bytes, ms);
                }
            }
        }
        Ok(())
    }
}

impl Sum {
    fn add(&mut self, bytes: usize, ms: f64) {
        self.passes += 1;
        self.ms += ms;
        self.bytes += bytes as f64;
    }

    fn mean_ms(&self) -> f64 {
        if self.passes == 0 { 0.0 } else { self.ms / self.passes as f64 }
    }

    fn gbps(&self) -> f64 {
        if self.ms == 0.0 { 0.0 } else { self.bytes / (self.ms * 1e6) }
    }
}

impl Events {
    fn new(device: &Device, gpu: &Gpu) -> Result<Self, Error> {
        let pair = |_| {
            let (start, stop) = (Event::new(gpu.device())?, Event::new(gpu.device())?);
            Ok(Pair { start, stop, pending: None })
        };
        let pairs = (0..PAIRS).map(pair).collect::<Result<_, Error>>()?;
        Ok(Self { device: device.clone(), pairs, next: 0 })
    }

    fn stream(&self) -> &crate::driver::Stream {
        match &self.device {
            Device::Cuda(gpu) => gpu.stream(),
            _ => unreachable!("only a GPU has events"),
        }
    }

    /// What a pair has measured, once the GPU has passed it.
    fn take(&mut self, at: usize) -> Result<Option<(Pass, usize, f64)>, Error> {
        let pair = &mut self.pairs[at];
        let Some((pass, bytes)) = pair.pending.take() else { return Ok(None) };
        pair.stop.synchronize()?;
        Ok(Some((pass, bytes, f64::from(pair.stop.elapsed_ms(&pair.start)?))))
    }
}

impl<T: LayerElement> KasminaLayer<T> {
    /// What the passes took so far. It waits for those that are queued.
    ///
    /// # Errors
    /// [`LayerError::TurnedOff`] where `enable_kernel_profiling` is off, or a failed call.
    pub fn performance(&mut self) -> Result<PerformanceReport, Error> {
        if !self.performance.enabled {
            let (what, option) = ("profiling", "enable_kernel_profiling");
            return Err(LayerError::TurnedOff { what, option }.into());
        }
        self.performance.settle()?;
        Ok(self.performance.report(self.clip_activations()?))
    }

    /// Values and units that clipping has changed so far.
    pub(crate) fn clip_activations(&self) -> Result<u64, Error> {
        let of_plan = match &self.training {
            Some(training) => training.clip.totals()?.activations(),
            None => 0,
        };
        Ok(self.performance.clipped.saturating_add(of_plan))
    }

    /// Times `repeats` forward passes of `x` with telemetry and as many without, in turn, and keeps by how
    /// many percent the first take longer. Neither leaves anything in ring, flags or state.
    ///
    /// # Errors
    /// [`LayerError::TurnedOff`] where profiling or telemetry is off; no repeats; an input that does not
    /// fit; memory exhausted, or a failed call.
    pub fn measure_telemetry_overhead(
        &mut self,
        x: &Buffer<T>,
        repeats: usize,
    ) -> Result<f64, Error> {
        self.check_telemetry()?;
        if !self.performance.enabled {
            let (what, option) = ("profiling", "enable_kernel_profiling");
            return Err(LayerError::TurnedOff { what, option }.into());
        }
        if repeats == 0 {
            let what = "repeats".into();
            return Err(LayerError::OutOfRange { what, got: 0.0, expected: "at least 1" }.into());
        }
        let batch = self.batch_of("measure_telemetry_overhead", x)?;
        let (seeds, chunk_size) = (self.config.num_seeds, self.state.chunk_size());
        let plan = |telemetry| {
            let options = BlendOptions { telemetry, ..self.options };
            BlendForward::<T>::with_options(&self.device, batch, seeds, chunk_size, options)
        };
        let mut plans = [plan(true)?, plan(false)?];
        let mut output = Buffer::zeroed(&self.device, x.len())?;
        let mut telemetry = TelemetryBuffers::new(&self.device, seeds)?;
        let mut flags = Buffer::zeroed(&self.device, seeds)?;
        flags.copy_from_buffer(&self.state.unstable)?;
        let mut best = [f64::INFINITY; 2];
        for _ in 0..repeats {
            for (plan, best) in plans.iter_mut().zip(&mut best) {
                self.device.synchronize()?;
                let begun = Instant::now();
                plan.run(&mut self.state, x, &mut output, &mut telemetry)?;
                self.device.synchronize()?;
                *best = best.min(begun.elapsed().as_secs_f64());
                self.state.unstable.copy_from_buffer(&flags)?;
            }
        }
        let percent = (best[0] / best[1] - 1.0) * 100.0;
        self.performance.telemetry_overhead_percent = Some(percent);
        Ok(percent)
    }
}

impl Performance {
    fn report(&self, grad_clip_activations: u64) -> PerformanceReport {
        let [forward, backward] = self.sums;
        PerformanceReport {
            forward_passes: forward.passes,
            backward_passes: backward.passes,
            kernel_time_ms: forward.mean_ms(),
            backward_time_ms: backward.mean_ms(),
            memory_bandwidth_gbps: forward.gbps(),
            backward_bandwidth_gbps: backward.gbps(),
            telemetry_overhead_percent: self.telemetry_overhead_percent,
            error_count: self.errors,
            grad_clip_activations,
        }
    }
}

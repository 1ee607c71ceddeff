//! How long passes take. On a GPU it is measured by events, so that no step waits.

use std::time::Instant;

use serde::Serialize;

use super::error::LayerError;
use super::{KasminaLayer, LayerElement};
use crate::buffer::Buffer;
use crate::device::{Device, Gpu};
use crate::driver::Event;
use crate::error::Error;
use crate::kasmina::{BlendForward, BlendOptions, LayerState, TelemetryBuffers, TelemetryReduce};
use crate::profile::stopwatch::Stopwatch;
use crate::profile::{CLIP_ACTIVATIONS, Profiler, Scope};

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
    /// Labelled with the layer's name; disabled unless a user sets one.
    profiler: Profiler,
    /// Clip activations that the profiler has been told of.
    counted: u64,
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
        Ok(Self {
            enabled,
            events,
            sums: [Sum::default(); 2],
            errors: 0,
            clipped: 0,
            telemetry_overhead_percent: None,
            profiler: Profiler::disabled(),
            counted: 0,
        })
    }

    /// A scope of the profiler, which moves so many bytes.
    pub(crate) fn scope(&self, name: &'static str, bytes: usize) -> Scope {
        self.profiler.scope(name).moving(bytes as u64)
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

    /// From now on passes, their clipping and telemetry, and commands are scopes of `profiler`, labelled with the
    /// layer's name; on a GPU it must have been made with this layer's [`device`](Self::device). A [disabled
    /// profiler](Profiler::disabled) ends it. The scopes' names are constants of [`profile`](crate::profile).
    ///
    /// Where the profiler is disabled, as at the beginning, a pass costs a branch more. Otherwise a scope records two
    /// events; neither allocates nor waits in the steady state.
    ///
    /// ```
    /// use kasmina::kasmina::KasminaLayer;
    /// use kasmina::profile::{self, Profiler};
    /// use kasmina::{Buffer, Device};
    ///
    /// # fn main() -> Result<(), kasmina::Error> {
    /// let device = Device::Cpu;
    /// let profiler = Profiler::new(&device)?;
    /// let mut layer = KasminaLayer::<f32>::builder(2, 8).name("encoder.3").build(&device)?;
    /// layer.set_profiler(profiler.clone())?;
    /// layer.forward(&Buffer::from_slice(&device, &[1.0_f32; 8])?)?;
    /// let report = profiler.report()?;
    /// assert_eq!(report.scope_of("encoder.3", profile::FORWARD).map(|pass| pass.count), Some(1));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`LayerError::OtherProfiler`], or a failed call.
    pub fn set_profiler(&mut self, profiler: Profiler) -> Result<(), Error> {
        if !profiler.measures(&self.device) {
            let (layer, device) = (self.config.name.clone(), self.device.to_string());
            return Err(LayerError::OtherProfiler { layer, device }.into());
        }
        if profiler.is_enabled() {
            self.performance.counted = self.clip_activations()?;
        }
        self.performance.profiler = profiler.labelled(&self.config.name);
        Ok(())
    }

    /// Adds to the profiler's counter [`CLIP_ACTIVATIONS`] what clipping has changed since it was set, or since the
    /// last such call. The device adds up, so this waits for it: call it before a report, and not in a step.
    ///
    /// # Errors
    /// What the queued work ran into, or a failed call.
    pub fn count_clip_activations(&mut self) -> Result<(), Error> {
        if self.performance.profiler.is_enabled() {
            let so_far = self.clip_activations()?;
            let new = so_far.saturating_sub(self.performance.counted);
            self.performance.profiler.count(CLIP_ACTIVATIONS, new);
            self.performance.counted = so_far;
        }
        Ok(())
    }

    /// Times forward passes of `x` as the layer is configured, with the launch that the strategies `mean` and `max`
    /// add, against passes without telemetry: `repeats` times eight of the one and eight of the other in a row, by the
    /// device's own clock. Keeps by how many percent the shortest eight of the first took longer than those of the
    /// second. Neither leaves anything in ring, flags or state.
    ///
    /// # Errors
    /// [`LayerError::TurnedOff`] where profiling or telemetry is off; no repeats; an input that does not
    /// fit; a capture; memory exhausted, or a failed call.
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
        let op = "measure_telemetry_overhead";
        let batch = self.batch_of(op, x)?;
        self.device.refuse_capture(op)?;
        let mut passes = [TimedPass::new(self, batch, true)?, TimedPass::new(self, batch, false)?];
        let device = self.device.clone();
        let mut flags = Buffer::zeroed(&device, self.config.num_seeds)?;
        flags.copy_from_buffer(&self.state.unstable)?;
        let measured = best_times(&device, &mut self.state, x, &mut passes, repeats);
        self.state.unstable.copy_from_buffer(&flags)?;
        let [with, without] = measured?;
        let percent = (with / without - 1.0) * 100.0;
        self.performance.telemetry_overhead_percent = Some(percent);
        Ok(percent)
    }
}

/// Passes that are timed in one go, so that what lies between two events is more than a launch.
const PASSES_OF_A_SAMPLE: u32 = 8;

/// A forward pass with or without its telemetry, and where its results go.
struct TimedPass<T: LayerElement> {
    forward: BlendForward<T>,
    reduce: Option<TelemetryReduce<T>>,
    output: Buffer<T>,
    telemetry: TelemetryBuffers,
}

impl<T: LayerElement> TimedPass<T> {
    fn new(layer: &KasminaLayer<T>, batch: usize, telemetry: bool) -> Result<Self, Error> {
        let (device, config) = (&layer.device, &layer.config);
        let (forward, reduce) = if telemetry {
            layer.plan_forward(batch)?
        } else {
            let options = BlendOptions { telemetry: false, ..layer.options };
            let (seeds, chunk) = (config.num_seeds, layer.state.chunk_size());
            (BlendForward::with_options(device, batch, seeds, chunk, options)?, None)
        };
        let output = Buffer::zeroed(device, batch * config.hidden_dim)?;
        let telemetry = TelemetryBuffers::new(device, config.num_seeds)?;
        Ok(Self { forward, reduce, output, telemetry })
    }

    fn run(&mut self, state: &mut LayerState, x: &Buffer<T>) -> Result<(), Error> {
        self.forward.run(state, x, &mut self.output, &mut self.telemetry)?;
        match &mut self.reduce {
            Some(reduce) => reduce.run(x, &mut self.telemetry),
            None => Ok(()),
        }
    }
}

/// Microseconds of the fastest samples of each, taken in turn. A first run of each compiles its kernels, and sets the
/// flags of the adaptive mode to what `x` makes of them, so that all later passes find the same.
fn best_times<T: LayerElement>(
    device: &Device,
    state: &mut LayerState,
    x: &Buffer<T>,
    passes: &mut [TimedPass<T>; 2],
    repeats: usize,
) -> Result<[f64; 2], Error> {
    let stopwatch = Stopwatch::new(device)?;
    let mut best = [f64::INFINITY; 2];
    for pass in passes.iter_mut() {
        pass.run(state, x)?;
    }
    for _ in 0..repeats {
        for (pass, best) in passes.iter_mut().zip(&mut best) {
            let mean_us = stopwatch.mean_us(PASSES_OF_A_SAMPLE, || pass.run(state, x))?;
            *best = best.min(mean_us);
        }
    }
    Ok(best)
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

#[cfg(test)]
mod tests {
    use kasmina_types::ReductionStrategy;

    use super::*;
    use crate::kasmina::TelemetryReduction;

    /// What is timed against a pass without telemetry is the pass as it is configured.
    #[test]
    fn the_pass_that_is_timed_reduces_as_configured() {
        let device = Device::simt();
        let layer = |strategy| {
            KasminaLayer::<f32>::builder(2, 8)
                .telemetry_reduction_strategy(strategy)
                .build(&device)
                .expect("a layer")
        };
        let values: Vec<f32> = (0..24).map(|value| value as f32 * 0.3 - 2.0).collect();
        let x = Buffer::from_slice(&device, &values).expect("memory");
        for (ours, theirs) in [
            (TelemetryReduction::Mean, ReductionStrategy::Mean),
            (TelemetryReduction::Max, ReductionStrategy::Max),
        ] {
            let mut layer = layer(ours);
            let mut timed = TimedPass::new(&layer, 3, true).expect("a plan");
            timed.run(&mut layer.state, &x).expect("a run");
            let mut expected = TelemetryBuffers::new(&device, 2).expect("memory");
            let mut reduce = TelemetryReduce::new(&device, 3, 2, 4, theirs).expect("a plan");
            reduce.run(&x, &mut expected).expect("a run");
            assert_eq!(timed.telemetry.read().unwrap(), expected.read().unwrap(), "{ours:?}");
        }
        let mut layer = layer(TelemetryReduction::Max);
        let mut without = TimedPass::new(&layer, 3, false).expect("a plan");
        without.telemetry.fill_bytes(0x5A).expect("a fill");
        without.run(&mut layer.state, &x).expect("a run");
        assert!(without.telemetry.read().unwrap().count.iter().all(|&n| n == 0x5A5A_5A5A));
    }
}

//! `kasmina trace`: steps of the layer under the profiler.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use kasmina_types::{BlueprintType, SeedLifecycle};
use rayon::prelude::*;
use serde::Serialize;

use super::device::Choice;
use super::output::Json;
use super::{Failure, Status};
use crate::bench::data::{bits, try_draw};
use crate::buffer::{Buffer, host};
use crate::device::Device;
use crate::error::Error;
use crate::kasmina::{
    BlendBackward, BlendForward, BlendOptions, ClipMode, ClipTargets, GradientBuffers,
    GradientClip, LayerState, SeedStates, TelemetryBuffers,
};
use crate::profile::{
    BACKWARD, CLIP, CLIP_ACTIVATIONS, FORWARD, FORWARD_WITHOUT_TELEMETRY, ProfileError, Profiler,
    Report,
};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// File to write the trace to; https://ui.perfetto.dev and chrome://tracing open it
    #[arg(long, value_name = "FILE", default_value = "trace.json")]
    output: PathBuf,
    /// Where to run; without a GPU, `auto` is the CPU
    #[arg(long, value_enum, default_value_t = Choice::Auto)]
    device: Choice,
    /// Steps to measure, forward, backward and clipping, after one that is not measured
    #[arg(long, value_name = "N", default_value = "10")]
    steps: NonZeroUsize,
    /// Rows of the input [default: 4096 on a GPU, 256 on the CPU, 8 under the executor]
    #[arg(long, value_name = "B")]
    batch: Option<NonZeroUsize>,
    /// Seeds of the layer [default: 1000 on a GPU, 100 on the CPU, 10 under the executor]
    #[arg(long, value_name = "S")]
    seeds: Option<NonZeroUsize>,
    /// Columns of a seed
    #[arg(long, value_name = "C", default_value = "64")]
    chunk: NonZeroUsize,
    #[command(flatten)]
    json: Json,
}

/// The result for programs.
#[derive(Serialize)]
struct Traced<'a> {
    trace: &'a Path,
    steps: usize,
    batch: usize,
    num_seeds: usize,
    chunk_size: usize,
    #[serde(flatten)]
    report: Report,
}

/// The layer's shape.
#[derive(Debug, Clone, Copy)]
struct Shape {
    batch: usize,
    num_seeds: usize,
    chunk_size: usize,
}

/// What a step's gradients are clipped to: a norm that is usual in training.
const CLIP_MODE: ClipMode = ClipMode::GlobalNorm(1.0);

/// Of a tensor: 8 GiB, of which a step has four, and the host makes two.
const MOST_ELEMENTS: usize = 1 << 31;

pub(crate) fn run(arguments: &Arguments) -> Result<Status, Failure> {
    let device = arguments.device.device()?;
    let shape = Shape::of(arguments, &device)?;
    let profiler = Profiler::new(&device)?;
    let steps = arguments.steps.get();
    profile(&device, &profiler, shape, steps).map_err(|error| match error {
        error @ (Error::TooLarge { .. } | Error::State(_)) => Failure::usage(error),
        error => error.into(),
    })?;

    let report = profiler.report()?;
    profiler.write_trace(&arguments.output).map_err(|error| match error {
        error @ ProfileError::Write { .. } => Failure::usage(error),
        error => error.into(),
    })?;
    let Shape { batch, num_seeds, chunk_size } = shape;
    let json = &arguments.json;
    json.say(format!(
        "{steps} steps, forward, backward and clipping, of {batch} rows of {num_seeds} seeds × {chunk_size} (f32) on {device}"
    ))?;
    json.say(&report)?;
    json.say(format!("{}: open it in https://ui.perfetto.dev", arguments.output.display()))?;
    let trace = &arguments.output;
    json.write(&Traced { trace, steps, batch, num_seeds, chunk_size, report })?;
    Ok(Status::Pass)
}

impl Shape {
    fn of(arguments: &Arguments, device: &Device) -> Result<Self, Failure> {
        let (batch, num_seeds) = match device {
            Device::Cuda(_) => (4096, 1000),
            Device::Cpu => (256, 100),
            Device::Simt(_) => (8, 10),
        };
        let shape = Self {
            batch: arguments.batch.map_or(batch, NonZeroUsize::get),
            num_seeds: arguments.seeds.map_or(num_seeds, NonZeroUsize::get),
            chunk_size: arguments.chunk.get(),
        };
        let elements = shape.batch.checked_mul(shape.num_seeds);
        let elements = elements.and_then(|rows| rows.checked_mul(shape.chunk_size));
        if elements.is_none_or(|elements| elements > MOST_ELEMENTS) {
            let Self { batch, num_seeds, chunk_size } = shape;
            return Err(Failure::usage(anyhow::anyhow!(
                "--batch {batch}, --seeds {num_seeds} and --chunk {chunk_size} make more than \
                 {MOST_ELEMENTS} elements; take fewer"
            )));
        }
        Ok(shape)
    }

    fn elements(self) -> usize {
        self.batch * self.num_seeds * self.chunk_size
    }
}

/// One step's operands and what it makes of them.
struct Layer {
    state: LayerState,
    forward: BlendForward<f32>,
    without_telemetry: BlendForward<f32>,
    backward: BlendBackward<f32>,
    input: Buffer<f32>,
    output: Buffer<f32>,
    grad_output: Buffer<f32>,
    grad_input: Buffer<f32>,
    telemetry: TelemetryBuffers,
    gradients: GradientBuffers,
    clip: GradientClip,
    tensor_bytes: u64,
    clip_bytes: u64,
}

impl Layer {
    fn new(device: &Device, shape: Shape) -> Result<Self, Error> {
        let Shape { batch, num_seeds, chunk_size } = shape;
        let elements = shape.elements();
        let options = BlendOptions { telemetry: false, ..BlendOptions::default() };
        // First, for it refuses shapes that are too large.
        let forward = BlendForward::new(device, batch, num_seeds, chunk_size)?;
        let state = LayerState::new(device, third_grafting(num_seeds, chunk_size)?)?;
        let parameters = state.weights.len() + state.num_blueprints() + num_seeds;
        Ok(Self {
            forward,
            without_telemetry: BlendForward::with_options(
                device, batch, num_seeds, chunk_size, options,
            )?,
            backward: BlendBackward::new(device, batch, num_seeds, chunk_size)?,
            input: Buffer::from_slice(device, &try_draw(1, elements)?)?,
            output: Buffer::zeroed(device, elements)?,
            grad_output: Buffer::from_slice(device, &try_draw(2, elements)?)?,
            grad_input: Buffer::zeroed(device, elements)?,
            telemetry: TelemetryBuffers::new(device, num_seeds)?,
            gradients: GradientBuffers::new(device, &state)?,
            clip: GradientClip::new(
                device,
                num_seeds,
                state.num_blueprints(),
                chunk_size,
                CLIP_MODE,
            )?,
            state,
            tensor_bytes: (elements * size_of::<f32>()) as u64,
            // Read for the norm, read again and written.
            clip_bytes: 3 * (parameters * size_of::<f32>()) as u64,
        })
    }

    /// Forward, backward and clipping in a step; then the forward pass again without telemetry, to compare.
    fn step(&mut self, profiler: &Profiler) -> Result<(), Error> {
        let Self { state, input, output, telemetry, tensor_bytes, clip_bytes, .. } = self;
        let step = profiler.scope("step");
        profiler.measure(FORWARD, 2 * *tensor_bytes, || {
            self.forward.run(state, input, output, telemetry)
        })?;
        profiler.measure(BACKWARD, 3 * *tensor_bytes, || {
            let (grad_output, grad_input) = (&self.grad_output, &mut self.grad_input);
            self.backward.run(state, input, grad_output, grad_input, &mut self.gradients)
        })?;
        let gradients = &mut self.gradients;
        profiler.measure(CLIP, *clip_bytes, || {
            let targets = ClipTargets {
                weights: &mut gradients.grad_weights,
                scales: &mut gradients.grad_scales,
                alpha: &mut gradients.grad_alpha,
            };
            self.clip.run(state, targets)
        })?;
        drop(step);
        profiler.measure(FORWARD_WITHOUT_TELEMETRY, 2 * *tensor_bytes, || {
            self.without_telemetry.run(state, input, output, telemetry)
        })
    }
}

/// Runs a step without and `steps` steps with the profiler.
fn profile(device: &Device, profiler: &Profiler, shape: Shape, steps: usize) -> Result<(), Error> {
    let mut layer = Layer::new(device, shape)?;
    if let Device::Cpu = device {
        // The reference's own copies of operands and results; it cannot say that there is no memory.
        host::check_room(4 * layer.tensor_bytes as usize)?;
    }
    // The first use of a kernel waits while the driver compiles it.
    layer.step(&Profiler::disabled())?;
    device.synchronize()?;
    let clipped_before = layer.clip.totals()?.activations();
    for _ in 0..steps {
        layer.step(profiler)?;
        profiler.count("rows", shape.batch as u64);
    }
    let seen = profiler.measure("telemetry read", 0, || layer.telemetry.read())?;
    let nonfinite = seen.nonfinite.iter().map(|&count| u64::from(count)).sum();
    profiler.count("nonfinite values of the last step", nonfinite);
    // Added up on the device: no step reads it.
    profiler.count(CLIP_ACTIVATIONS, layer.clip.totals()?.activations() - clipped_before);
    Ok(())
}

/// Every third seed grafts, the five blueprint types in turn, with random α; the others are dormant.
fn third_grafting(num_seeds: usize, chunk_size: usize) -> Result<SeedStates, Error> {
    let types = BlueprintType::ALL;
    let grafts = |seed: usize| seed.is_multiple_of(3);
    let lifecycle = |seed| {
        let state = if grafts(seed) { SeedLifecycle::Grafting } else { SeedLifecycle::Dormant };
        state as u8
    };
    let blueprint_id = |seed| if grafts(seed) { 1 + (seed / 3 % types.len()) as u16 } else { 0 };
    let alpha = |seed| (bits(3, seed as u64) >> 40) as f32 / (1 << 24) as f32;
    // Blueprint 0 is none; its type is not read.
    let blueprints = 1 + types.len();
    let seeds = (0..num_seeds).into_par_iter();
    Ok(SeedStates {
        lifecycle: host::collect(seeds.clone().map(lifecycle))?,
        blueprint_id: host::collect(seeds.clone().map(blueprint_id))?,
        alpha: host::collect(seeds.map(alpha))?,
        blueprint_type: [types[0]].iter().chain(&types).map(|&kind| kind as u8).collect(),
        blueprint_weights: try_draw(0, blueprints * chunk_size)?,
        blueprint_scales: vec![1.0; blueprints],
        chunk_size,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_third_of_the_seeds_graft_all_types_in_a_state_that_is_right() {
        let states = third_grafting(30, 3).unwrap();
        states.check().unwrap();
        let grafting = |seed: &usize| states.lifecycle[*seed] == SeedLifecycle::Grafting as u8;
        let seeds: Vec<_> = (0..30).filter(grafting).collect();
        assert_eq!(seeds.len(), 10);
        let kind = |seed: &usize| states.blueprint_type[usize::from(states.blueprint_id[*seed])];
        assert_eq!(seeds.iter().map(kind).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]);
        assert!(states.alpha.iter().all(|alpha| (0.0..1.0).contains(alpha)));
    }
}

//! `kasmina trace`: steps of a layer under the profiler.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::device::Choice;
use super::output::{Json, check_outputs};
use super::{Failure, Status};
use crate::bench::data::try_draw;
use crate::buffer::Buffer;
use crate::device::Device;
use crate::error::Error;
use crate::kasmina::sample_states::{BLUEPRINTS, third_grafting};
use crate::kasmina::{GradientClipping, GraftStates, KasminaLayer, StabilityMode};
use crate::profile::{FORWARD_WITHOUT_TELEMETRY, ProfileError, Profiler, Report};

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

/// A layer's shape.
#[derive(Debug, Clone, Copy)]
struct Shape {
    batch: usize,
    num_seeds: usize,
    chunk_size: usize,
}

/// The layer's name in the trace.
const LAYER: &str = "layer";

/// What a step's gradients are clipped to: a norm that is usual in training.
const CLIPPING: GradientClipping = GradientClipping::GlobalNorm { limit: 1.0 };

/// Of a tensor: 8 GiB, of which a step has four, and the host makes two.
const MOST_ELEMENTS: usize = 1 << 31;

pub(crate) fn run(arguments: &Arguments) -> Result<Status, Failure> {
    check_outputs(&[], &arguments.json, &[("--output", Some(&arguments.output))])?;
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

/// A layer, one of the same state without telemetry, and a step's operands and results.
struct Steps {
    layer: KasminaLayer<f32>,
    without_telemetry: KasminaLayer<f32>,
    input: Buffer<f32>,
    output: Buffer<f32>,
    grad_output: Buffer<f32>,
    grad_input: Buffer<f32>,
}

impl Steps {
    fn new(device: &Device, shape: Shape) -> Result<Self, Error> {
        let elements = shape.elements();
        // First, for they refuse shapes that are too large.
        let layer = self::layer(device, shape, true)?;
        let without_telemetry = self::layer(device, shape, false)?;
        Ok(Self {
            layer,
            without_telemetry,
            input: Buffer::from_slice(device, &try_draw(1, elements)?)?,
            output: Buffer::zeroed(device, elements)?,
            grad_output: Buffer::from_slice(device, &try_draw(2, elements)?)?,
            grad_input: Buffer::zeroed(device, elements)?,
        })
    }

    /// Forward, backward and clipping in a step; then the forward pass again without telemetry, to compare.
    fn step(&mut self, profiler: &Profiler) -> Result<(), Error> {
        let Self { layer, without_telemetry, input, output, grad_output, grad_input } = self;
        let step = profiler.scope("step");
        layer.forward_into(input, output)?;
        layer.backward_into(input, grad_output, grad_input)?;
        drop(step);
        let bytes = 2 * input.byte_len() as u64;
        profiler.labelled(LAYER).measure(FORWARD_WITHOUT_TELEMETRY, bytes, || {
            without_telemetry.forward_into(input, output)
        })
    }
}

/// A layer of a shape, a third of whose seeds graft.
fn layer(device: &Device, shape: Shape, telemetry: bool) -> Result<KasminaLayer<f32>, Error> {
    let Shape { batch, num_seeds, chunk_size } = shape;
    let mut layer = KasminaLayer::builder(num_seeds, num_seeds * chunk_size)
        .name(LAYER)
        .max_blueprints(BLUEPRINTS)
        .enable_telemetry(telemetry)
        .numerical_stability_mode(StabilityMode::Fast)
        .gradient_clip(CLIPPING)
        .build(device)?;
    layer.plan(batch)?;
    let states = third_grafting(num_seeds, chunk_size)?;
    layer.load_state(states, GraftStates::new(num_seeds), None)?;
    Ok(layer)
}

/// Runs a step without and `steps` steps with the profiler.
fn profile(device: &Device, profiler: &Profiler, shape: Shape, steps: usize) -> Result<(), Error> {
    let mut all = Steps::new(device, shape)?;
    // The first use of a kernel waits while the driver compiles it.
    all.step(&Profiler::disabled())?;
    device.synchronize()?;
    all.layer.set_profiler(profiler.clone())?;
    for _ in 0..steps {
        all.step(profiler)?;
        profiler.count("rows", shape.batch as u64);
    }
    let layer = &mut all.layer;
    let seen = layer.telemetry()?.expect("there was a pass");
    let nonfinite = seen.nonfinite.iter().map(|&count| u64::from(count)).sum();
    profiler.count("nonfinite values of the last step", nonfinite);
    // Added up on the device: no step reads it.
    layer.count_clip_activations()
}

//! `kasmina trace`: steps of the layer under the profiler.

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use kasmina_types::{BlueprintType, SeedLifecycle};
use serde::Serialize;

use super::device::Choice;
use super::output::Json;
use super::{Failure, Status};
use crate::bench::data::{bits, draw};
use crate::buffer::Buffer;
use crate::device::Device;
use crate::error::Error;
use crate::kasmina::{BlendForward, LayerState, SeedStates, TelemetryBuffers};
use crate::profile::{FORWARD, ProfileError, Profiler, Report};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// File to write the trace to; https://ui.perfetto.dev and chrome://tracing open it
    #[arg(long, value_name = "FILE", default_value = "trace.json")]
    output: PathBuf,
    /// Where to run; without a GPU, `auto` is the CPU
    #[arg(long, value_enum, default_value_t = Choice::Auto)]
    device: Choice,
    /// Steps to measure, after one that is not
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

/// More than any device has memory for, and few enough that products stay below 2⁶⁴.
const MOST_ELEMENTS: usize = 1 << 40;

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
        "{steps} steps of {batch} rows of {num_seeds} seeds × {chunk_size} (f32) on {device}"
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

/// Runs a step without and `steps` steps with the profiler.
fn profile(device: &Device, profiler: &Profiler, shape: Shape, steps: usize) -> Result<(), Error> {
    let Shape { batch, num_seeds, chunk_size } = shape;
    let mut forward = BlendForward::<f32>::new(device, batch, num_seeds, chunk_size)?;
    let states = third_grafting(num_seeds, chunk_size);
    let state = LayerState::new(device, states)?;
    let input = Buffer::from_slice(device, &draw::<f32>(1, shape.elements()))?;
    let mut output = Buffer::<f32>::zeroed(device, shape.elements())?;
    let mut telemetry = TelemetryBuffers::new(device, num_seeds)?;

    // The first use of a kernel waits while the driver compiles it.
    forward.run(&state, &input, &mut output, &mut telemetry)?;
    device.synchronize()?;

    let moved_bytes = 2 * (shape.elements() * size_of::<f32>()) as u64;
    for _ in 0..steps {
        let _step = profiler.scope("step");
        profiler.measure(FORWARD, moved_bytes, || {
            forward.run(&state, &input, &mut output, &mut telemetry)
        })?;
        profiler.count("rows", batch as u64);
    }
    let seen = profiler.measure("telemetry read", 0, || telemetry.read())?;
    let nonfinite = seen.nonfinite.iter().map(|&count| u64::from(count)).sum();
    profiler.count("nonfinite values of the last step", nonfinite);
    Ok(())
}

/// Every third seed grafts, the five blueprint types in turn, with random α; the others are dormant.
fn third_grafting(num_seeds: usize, chunk_size: usize) -> SeedStates {
    let types = BlueprintType::ALL;
    let grafts = |seed: usize| seed.is_multiple_of(3);
    let lifecycle = |seed| {
        let state = if grafts(seed) { SeedLifecycle::Grafting } else { SeedLifecycle::Dormant };
        state as u8
    };
    let blueprint_id = |seed| if grafts(seed) { 1 + (seed / 3 % types.len()) as u16 } else { 0 };
    let alpha = |seed| (bits(2, seed as u64) >> 40) as f32 / (1 << 24) as f32;
    // Blueprint 0 is none; its type is not read.
    let blueprints = 1 + types.len();
    SeedStates {
        lifecycle: (0..num_seeds).map(lifecycle).collect(),
        blueprint_id: (0..num_seeds).map(blueprint_id).collect(),
        alpha: (0..num_seeds).map(alpha).collect(),
        blueprint_type: [types[0]].iter().chain(&types).map(|&kind| kind as u8).collect(),
        blueprint_weights: draw(0, blueprints * chunk_size),
        blueprint_scales: vec![1.0; blueprints],
        chunk_size,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_third_of_the_seeds_graft_all_types_in_a_state_that_is_right() {
        let states = third_grafting(30, 3);
        states.check().unwrap();
        let grafting = |seed: &usize| states.lifecycle[*seed] == SeedLifecycle::Grafting as u8;
        let seeds: Vec<_> = (0..30).filter(grafting).collect();
        assert_eq!(seeds.len(), 10);
        let kind = |seed: &usize| states.blueprint_type[usize::from(states.blueprint_id[*seed])];
        assert_eq!(seeds.iter().map(kind).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]);
        assert!(states.alpha.iter().all(|alpha| (0.0..1.0).contains(alpha)));
    }
}

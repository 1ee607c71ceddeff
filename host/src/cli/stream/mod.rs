//! `kasmina stream`: batches through the layer at a rate, and what they take.

mod feed;
mod input;
mod live;
mod state;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::anyhow;
use clap::ValueEnum;
use half::{bf16, f16};
use serde::Serialize;

use self::feed::{Broken, Fed, Plan, feed};
use self::input::{Batches, InputError, Lines, TensorRows};
use self::live::Figures;
use self::state::Asked;
use super::device::Choice as DeviceChoice;
use super::layer::dtype_name;
use super::output::{self, Json};
use super::plot::{self, StepChart, Steps};
use super::{Failure, Status};
use crate::device::Device;
use crate::dispatch::{Choice, Dispatch};
use crate::error::Error;
use crate::kasmina::files::{Dtype, LayerMatrix, RowError, Tensor, TensorFile, encode};
use crate::kasmina::{LayerElement, SeedStates};
use crate::latency::{LatencyBucket, LatencyHistogram};
use crate::persistent::PersistentError;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Safetensors file with `x` F32, F16 or BF16 [rows, S·C], and a layer's state as `kasmina layer forward` reads it if it
    /// has one; or `-`: lines of S·C comma-separated numbers on standard input
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// State of the layer, as `kasmina layer forward` reads it [default: that of the input; else every seed grafts a
    /// RESIDUAL_BLOCK]
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Seeds, where there is no state
    #[arg(long, value_name = "S")]
    seeds: Option<NonZeroUsize>,
    /// Columns of a seed, where there is no state
    #[arg(long, value_name = "C")]
    chunk: Option<NonZeroUsize>,
    /// Rows of a batch; what a last one lacks is filled with zeros
    #[arg(long, value_name = "N", default_value = "32")]
    batch: NonZeroUsize,
    /// Batches a second. Latency counts from when a batch was due, by the rate and once its rows have come, not from when
    /// it could begin; with 0 a batch is due when the one before it is done
    #[arg(long, value_name = "HZ", default_value_t = 0.0, allow_negative_numbers = true)]
    rate: f64,
    /// Batches at most [default: until the input ends]
    #[arg(long, value_name = "N")]
    batches: Option<NonZeroU64>,
    /// Start a file over until there were --batches
    #[arg(long, requires = "batches")]
    repeat: bool,
    /// How passes reach the device
    #[arg(long, value_enum, default_value_t = By::Auto)]
    dispatch: By,
    /// Where to run; without a GPU, `auto` is the CPU
    #[arg(long, value_enum, default_value_t = DeviceChoice::Auto)]
    device: DeviceChoice,
    /// Safetensors file to write: `y` [rows, S·C] of all batches, of the type of `x`
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// SVG file to write: how many batches took how long
    #[arg(long, value_name = "FILE")]
    histogram: Option<PathBuf>,
    #[command(flatten)]
    json: Json,
}

/// Dispatches by their names on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum By {
    /// What is expected to take least, by what was measured on the device
    Auto,
    /// A launch for each operation
    Launches,
    /// A CUDA graph
    Graph,
    /// An item of a resident kernel
    Persistent,
}

impl By {
    fn dispatch(self) -> Dispatch {
        match self {
            Self::Auto => Dispatch::Auto,
            Self::Launches => Dispatch::Launches,
            Self::Graph => Dispatch::Graph,
            Self::Persistent => Dispatch::Persistent,
        }
    }
}

/// The result for programs.
#[derive(Serialize)]
struct Summary<'a> {
    device: &'static str,
    dtype: &'static str,
    input: &'a Path,
    batch: usize,
    num_seeds: usize,
    chunk_size: usize,
    /// Batches a second that were asked for; 0: as fast as it goes.
    rate_hz: f64,
    batches: u64,
    rows: u64,
    /// From the first batch's arrival to the last one's end.
    seconds: f64,
    /// None without rows.
    rows_per_s: Option<f64>,
    /// None without batches.
    latency_us: Option<Latencies>,
    /// Batches that were due before the one before them was done.
    misses: u64,
    /// How passes reached the device.
    dispatch: Option<Choice>,
    /// How many batches took how long.
    histogram: Vec<LatencyBucket>,
    output: Option<&'a Path>,
}

/// From when a batch was due until it was done, in microseconds. All but the last are the upper ends of buckets that are
/// an eighth of a power of two wide, and no more than the last.
#[derive(Clone, Copy, Serialize)]
struct Latencies {
    p50: f64,
    p90: f64,
    p99: f64,
    #[serde(rename = "p99.9")]
    p999: f64,
    max: f64,
}

/// Batches a second that can be told from 0, and from each other.
const RATES: std::ops::RangeInclusive<f64> = 1e-3..=1e9;

/// Elements of a batch at most: 8 GiB of f32.
const MOST_ELEMENTS: usize = 1 << 31;

pub(crate) fn run(arguments: &Arguments) -> Result<Status, Failure> {
    let rate_hz = match arguments.rate {
        0.0 => None,
        rate if RATES.contains(&rate) => Some(rate),
        rate => {
            let text =
                format!("--rate {rate}: expected 0, or 0.001 to 1000000000 batches a second");
            return Err(Failure::usage(anyhow!(text)));
        }
    };
    let files = [
        ("--output", arguments.output.as_deref()),
        ("--histogram", arguments.histogram.as_deref()),
    ];
    let inputs = [Some(arguments.input.as_path()), arguments.state.as_deref()];
    output::check_outputs(&inputs, &arguments.json, &files)?;
    let device = arguments.device.device()?;
    if arguments.dispatch == By::Graph && !matches!(device, Device::Cuda(_)) {
        return Err(Failure::usage(anyhow!("--dispatch graph needs a GPU, not {device}")));
    }
    let plan = Plan {
        batch: arguments.batch.get(),
        rate_hz,
        batches: arguments.batches.map(NonZeroU64::get),
        dispatch: arguments.dispatch.dispatch(),
        keeps: arguments.output.is_some(),
    };
    let Arguments { state, seeds, chunk, .. } = arguments;
    let asked = Asked { state: state.as_deref(), seeds: *seeds, chunk: *chunk };
    if arguments.input == Path::new("-") {
        return lines(arguments, &device, plan, asked);
    }
    let file = TensorFile::read(&arguments.input).map_err(Failure::usage)?;
    let (x, _) = file.tensor("x").map_err(Failure::usage)?;
    let columns = x.shape.get(1).copied();
    let states = asked.states(Some(&file), columns)?;
    let x = LayerMatrix::read(&file, "x", &states).map_err(Failure::usage)?;
    match x.dtype {
        Dtype::F32 => tensor::<f32>(arguments, &device, plan, states, &x),
        Dtype::F16 => tensor::<f16>(arguments, &device, plan, states, &x),
        _ => tensor::<bf16>(arguments, &device, plan, states, &x),
    }
}

fn lines(
    arguments: &Arguments,
    device: &Device,
    plan: Plan,
    asked: Asked<'_>,
) -> Result<Status, Failure> {
    if arguments.repeat {
        return Err(Failure::usage(anyhow!("--repeat: standard input comes once; give a file")));
    }
    let states = asked.states(None, None)?;
    check_room(plan, &states)?;
    let columns = states.num_seeds() * states.chunk_size;
    let mut lines = Lines::of_standard_input(columns, plan.batch).map_err(broken_input)?;
    stream(arguments, device, plan, states, Dtype::F32, &mut lines)
}

fn tensor<T: LayerElement>(
    arguments: &Arguments,
    device: &Device,
    plan: Plan,
    states: SeedStates,
    x: &LayerMatrix<'_>,
) -> Result<Status, Failure> {
    check_room(plan, &states)?;
    let mut rows = TensorRows::new(x.elements::<T>(), x.shape[1], arguments.repeat);
    stream(arguments, device, plan, states, x.dtype, &mut rows)
}

fn check_room(plan: Plan, states: &SeedStates) -> Result<(), Failure> {
    let (batch, columns) = (plan.batch, states.num_seeds() * states.chunk_size);
    if batch.checked_mul(columns).is_some_and(|elements| elements <= MOST_ELEMENTS) {
        return Ok(());
    }
    Err(Failure::usage(anyhow!(
        "--batch {batch}: of {columns} columns that is more than {MOST_ELEMENTS} elements; take fewer"
    )))
}

fn stream<T: LayerElement>(
    arguments: &Arguments,
    device: &Device,
    plan: Plan,
    states: SeedStates,
    dtype: Dtype,
    batches: &mut dyn Batches<T>,
) -> Result<Status, Failure> {
    let shape @ [num_seeds, chunk_size] = [states.num_seeds(), states.chunk_size];
    let figures = Figures::new();
    let fed = live::shown(&figures, || feed(device, states, batches, plan, &figures));
    let fed = fed.map_err(|broken| match broken {
        Broken::Input(why) => broken_input(why),
        Broken::Run(why) => refusal(why),
    })?;
    let latencies = figures.latencies();
    write(arguments, &fed, shape, dtype, &latencies)?;
    let seconds = fed.took.as_secs_f64();
    let summary = Summary {
        device: device.name(),
        dtype: dtype_name(dtype),
        input: &arguments.input,
        batch: plan.batch,
        num_seeds,
        chunk_size,
        rate_hz: plan.rate_hz.unwrap_or(0.0),
        batches: fed.batches,
        rows: fed.rows,
        seconds,
        rows_per_s: (fed.rows > 0 && seconds > 0.0).then(|| fed.rows as f64 / seconds),
        latency_us: Latencies::of(&latencies, fed.longest),
        misses: fed.misses,
        dispatch: fed.choice,
        histogram: latencies.records(),
        output: arguments.output.as_deref(),
    };
    say(&arguments.json, device, &summary)?;
    arguments.json.write(&summary)?;
    Ok(Status::Pass)
}

/// Writes what was asked for, each file whole or not at all.
fn write(
    arguments: &Arguments,
    fed: &Fed,
    [num_seeds, chunk_size]: [usize; 2],
    dtype: Dtype,
    latencies: &LatencyHistogram,
) -> Result<(), Failure> {
    if let Some(path) = &arguments.output {
        let shape = vec![fed.rows as usize, num_seeds * chunk_size];
        let y = Tensor { name: "y", dtype, shape, bytes: Cow::Borrowed(&fed.output) };
        let bytes = encode(&[y], &BTreeMap::new())?;
        output::write_file(path, &bytes).map_err(Failure::usage)?;
    }
    if let Some(path) = &arguments.histogram {
        let chart = StepChart {
            title: "Batches by latency, from when they were due",
            x_label: "µs",
            y_label: "batches",
            curves: vec![Steps::counts("batches", &latencies.records())],
        };
        plot::write(path, &plot::steps(&[chart])?)?;
    }
    Ok(())
}

impl Latencies {
    fn of(latencies: &LatencyHistogram, longest: Duration) -> Option<Self> {
        let at = |share| Some(us(latencies.quantile(share)?.min(longest)));
        Some(Self {
            p50: at(0.5)?,
            p90: at(0.9)?,
            p99: at(0.99)?,
            p999: at(0.999)?,
            max: us(longest),
        })
    }
}

fn us(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn broken_input(why: InputError) -> Failure {
    match why {
        InputError::Row(RowError::Read { .. }) | InputError::Thread(_) => why.into(),
        other => Failure::usage(other),
    }
}

/// What the arguments ask for and there is not is their fault.
fn refusal(why: Error) -> Failure {
    let asked = match &why {
        Error::TooLarge { .. } | Error::State(_) | Error::Length { .. } => true,
        Error::Persistent(why) => matches!(
            **why,
            PersistentError::NoKernels { .. }
                | PersistentError::Operation { .. }
                | PersistentError::Blocks { .. }
        ),
        _ => false,
    };
    if asked { Failure::usage(why) } else { why.into() }
}

fn say(json: &Json, device: &Device, summary: &Summary<'_>) -> Result<(), Failure> {
    let Summary { batch, num_seeds, chunk_size, dtype, .. } = summary;
    let layer = format!("{num_seeds} seeds × {chunk_size} ({dtype}) on {device}");
    let (Some(latency), Some(rows_per_s)) = (&summary.latency_us, summary.rows_per_s) else {
        return json.say(format!("no rows came for {layer}"));
    };
    json.say(format!(
        "{} rows in {} batches of {batch} through {layer}: {rows_per_s:.0} rows/s",
        summary.rows, summary.batches
    ))?;
    let Latencies { p50, p90, p99, p999, max } = latency;
    let mut table = json.table(["latency", "p50", "p90", "p99", "p99.9", "max"]);
    let cells = [p50, p90, p99, p999, max].map(|us| format!("{us:.1}"));
    table.add_row([&["µs".to_owned()][..], &cells].concat());
    json.say(table)?;
    json.say(match summary.rate_hz {
        0.0 => "as fast as it goes: a batch is due when the one before it is done".to_owned(),
        rate => format!(
            "{rate} batches a second, latency from when a batch was due; {} were due before the one before them was done",
            summary.misses
        ),
    })?;
    if let Some(choice) = &summary.dispatch {
        json.say(format!("dispatch: {choice}"))?;
    }
    if let Some(output) = summary.output {
        json.say(format!("y: {}", output.display()))?;
    }
    Ok(())
}

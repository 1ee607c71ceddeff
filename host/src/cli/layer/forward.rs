//! `kasmina layer forward`: output and telemetry of one pass.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use serde::Serialize;

use crate::buffer::Buffer;
use crate::cli::device::Choice;
use crate::cli::output::{Json, check_outputs, write_file};
use crate::cli::{Failure, Status};
use crate::device::Device;
use crate::error::Error;
use crate::kasmina::checkpoint;
use crate::kasmina::files::{Dtype, LayerMatrix, SafeTensorError, Tensor, TensorFile, encode};
use crate::kasmina::{
    BlendForward, LayerElement, LayerState, SeedStates, TelemetryBuffers, TelemetryValues,
};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Safetensors file with `lifecycle` U8 [S], `blueprint_id` U16 [S], `alpha` F32 [S],
    /// `blueprint_type` U8 [P], `blueprint_weights` F32 [P, C] and `blueprint_scales` F32 [P]
    #[arg(long, value_name = "FILE")]
    state: PathBuf,
    /// Safetensors file with `input` F32, F16 or BF16 [B, S·C]
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// Safetensors file to write: `output`, of the type and shape of `input`, and
    /// `telemetry_{count,mean,variance,min,max,dead_ratio,snr,nonfinite}` [S]
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Where to run; without a GPU, `auto` is the CPU
    #[arg(long, value_enum, default_value_t = Choice::Auto)]
    device: Choice,
    #[command(flatten)]
    json: Json,
}

/// The result for programs.
#[derive(Serialize)]
struct Summary<'a> {
    device: &'static str,
    dtype: &'static str,
    batch: usize,
    num_seeds: usize,
    chunk_size: usize,
    output: &'a Path,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Status, Failure> {
    let Arguments { state, input, output, .. } = arguments;
    let inputs = [state, input].map(|path| Some(path.as_path()));
    check_outputs(&inputs, &arguments.json, &[("--output", Some(output))])?;
    let states = checkpoint::load_states(&arguments.state).map_err(Failure::usage)?;
    let input = TensorFile::read(&arguments.input).map_err(Failure::usage)?;
    let input = LayerMatrix::read(&input, "input", &states).map_err(Failure::usage)?;
    let device = arguments.device.device()?;
    let (num_seeds, chunk_size) = (states.num_seeds(), states.chunk_size);
    let (output, telemetry) = match input.dtype {
        Dtype::F32 => forward::<f32>(&device, states, &input),
        Dtype::F16 => forward::<f16>(&device, states, &input),
        _ => forward::<bf16>(&device, states, &input),
    }?;

    let file = to_safetensors(&input, &output, &telemetry)?;
    write_file(&arguments.output, &file).map_err(Failure::usage)?;
    let dtype = super::dtype_name(input.dtype);
    arguments.json.say(format!(
        "{} rows of {num_seeds} seeds × {chunk_size} ({dtype}) on {device}: {}",
        input.batch(),
        arguments.output.display()
    ))?;
    arguments.json.write(&Summary {
        device: device.name(),
        dtype,
        batch: input.batch(),
        num_seeds,
        chunk_size,
        output: &arguments.output,
    })?;
    Ok(Status::Pass)
}

/// The output's bytes and the telemetry.
fn forward<T: LayerElement>(
    device: &Device,
    states: SeedStates,
    input: &LayerMatrix<'_>,
) -> Result<(Vec<u8>, TelemetryValues), Error> {
    let (seeds, chunk) = (states.num_seeds(), states.chunk_size);
    let mut layer = BlendForward::<T>::new(device, input.batch(), seeds, chunk)?;
    let mut state = LayerState::new(device, states)?;
    let x = Buffer::from_slice(device, &input.elements::<T>())?;
    let mut y = Buffer::zeroed(device, x.len())?;
    let mut telemetry = TelemetryBuffers::new(device, seeds)?;
    layer.run(&mut state, &x, &mut y, &mut telemetry)?;
    Ok((bytemuck::cast_slice(&y.to_vec()?).to_vec(), telemetry.read()?))
}

fn to_safetensors(
    input: &LayerMatrix<'_>,
    output: &[u8],
    telemetry: &TelemetryValues,
) -> Result<Vec<u8>, SafeTensorError> {
    let seeds = [telemetry.count.len()];
    let wide = |counts: &[u32]| counts.iter().map(|&n| i64::from(n)).collect::<Vec<_>>();
    let (count, nonfinite) = (wide(&telemetry.count), wide(&telemetry.nonfinite));
    let (dtype, shape) = (input.dtype, input.shape.to_vec());
    let tensors = [
        Tensor { name: "output", dtype, shape, bytes: Cow::Borrowed(output) },
        Tensor::of("telemetry_count", Dtype::I64, &seeds, &count),
        Tensor::of("telemetry_mean", Dtype::F32, &seeds, &telemetry.mean),
        Tensor::of("telemetry_variance", Dtype::F32, &seeds, &telemetry.variance),
        Tensor::of("telemetry_min", Dtype::F32, &seeds, &telemetry.min),
        Tensor::of("telemetry_max", Dtype::F32, &seeds, &telemetry.max),
        Tensor::of("telemetry_dead_ratio", Dtype::F32, &seeds, &telemetry.dead_ratio),
        Tensor::of("telemetry_snr", Dtype::F32, &seeds, &telemetry.snr),
        Tensor::of("telemetry_nonfinite", Dtype::I64, &seeds, &nonfinite),
    ];
    encode(&tensors, &BTreeMap::new())
}

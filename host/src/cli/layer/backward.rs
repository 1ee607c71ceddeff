//! `kasmina layer backward`: the gradients of one pass.

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
    BlendBackward, GradientBuffers, GradientValues, LayerElement, LayerState, SeedStates,
};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Checkpoint, or safetensors file with `lifecycle` U8 [S], `blueprint_id` U16 [S], `alpha` F32 [S],
    /// `blueprint_type` U8 [P], `blueprint_weights` F32 [P, C] and `blueprint_scales` F32 [P]
    #[arg(long, value_name = "FILE")]
    state: PathBuf,
    /// Safetensors file with the forward pass' `input` F32, F16 or BF16 [B, S·C]
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// Safetensors file with `grad_output`, of the type and shape of `input`
    #[arg(long, value_name = "FILE")]
    grad_output: PathBuf,
    /// Safetensors file to write: `grad_input`, of the type and shape of `input`; F32 `grad_weights`
    /// [P, C], `grad_scales` [P], `grad_alpha` [S], and of what each seed brings to `grad_weights`
    /// `gradient_{norm,variance,max}` [S]
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
    num_blueprints: usize,
    output: &'a Path,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Status, Failure> {
    let Arguments { state, input, grad_output, output, .. } = arguments;
    let inputs = [state, input, grad_output].map(|path| Some(path.as_path()));
    check_outputs(&inputs, &arguments.json, &[("--output", Some(output))])?;
    let states = checkpoint::load_states(&arguments.state).map_err(Failure::usage)?;
    let read = |path| TensorFile::read(path).map_err(Failure::usage);
    let (input, grad_output) = (read(&arguments.input)?, read(&arguments.grad_output)?);
    let x = LayerMatrix::read(&input, "input", &states).map_err(Failure::usage)?;
    let g = x.read_like(&grad_output, "grad_output", &states).map_err(Failure::usage)?;
    let device = arguments.device.device()?;
    let shape @ [num_seeds, chunk_size, num_blueprints] =
        [states.num_seeds(), states.chunk_size, states.num_blueprints()];
    let (grad_input, gradients) = match x.dtype {
        Dtype::F32 => backward::<f32>(&device, states, &x, &g),
        Dtype::F16 => backward::<f16>(&device, states, &x, &g),
        _ => backward::<bf16>(&device, states, &x, &g),
    }?;

    let file = to_safetensors(&x, shape, &grad_input, &gradients)?;
    write_file(&arguments.output, &file).map_err(Failure::usage)?;
    let (dtype, batch) = (super::dtype_name(x.dtype), x.batch());
    arguments.json.say(format!(
        "gradients of {batch} rows of {num_seeds} seeds × {chunk_size} ({dtype}) on {device}: {}",
        arguments.output.display()
    ))?;
    let output = arguments.output.as_path();
    arguments.json.write(&Summary {
        device: device.name(),
        dtype,
        batch,
        num_seeds,
        chunk_size,
        num_blueprints,
        output,
    })?;
    Ok(Status::Pass)
}

/// The bytes of the input's gradient, and those of the parameters.
fn backward<T: LayerElement>(
    device: &Device,
    states: SeedStates,
    x: &LayerMatrix<'_>,
    g: &LayerMatrix<'_>,
) -> Result<(Vec<u8>, GradientValues), Error> {
    let (seeds, chunk) = (states.num_seeds(), states.chunk_size);
    let mut layer = BlendBackward::<T>::new(device, x.batch(), seeds, chunk)?;
    let state = LayerState::new(device, states)?;
    let x = Buffer::from_slice(device, &x.elements::<T>())?;
    let g = Buffer::from_slice(device, &g.elements::<T>())?;
    let mut grad_input = Buffer::zeroed(device, x.len())?;
    let mut gradients = GradientBuffers::new(device, &state)?;
    layer.run(&state, &x, &g, &mut grad_input, &mut gradients)?;
    Ok((bytemuck::cast_slice(&grad_input.to_vec()?).to_vec(), gradients.read()?))
}

fn to_safetensors(
    input: &LayerMatrix<'_>,
    [seeds, chunk_size, blueprints]: [usize; 3],
    grad_input: &[u8],
    gradients: &GradientValues,
) -> Result<Vec<u8>, SafeTensorError> {
    let (dtype, shape) = (input.dtype, input.shape.to_vec());
    let mut tensors =
        vec![Tensor { name: "grad_input", dtype, shape, bytes: Cow::Borrowed(grad_input) }];
    for (name, values) in gradients.arrays() {
        let shape = match name {
            "grad_weights" => vec![blueprints, chunk_size],
            "grad_scales" => vec![blueprints],
            _ => vec![seeds],
        };
        tensors.push(Tensor::of(name, Dtype::F32, &shape, values));
    }
    encode(&tensors, &BTreeMap::new())
}

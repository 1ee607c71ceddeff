//! `kasmina layer`: the morphogenetic layer on safetensors files.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use bytemuck::Pod;
use half::{bf16, f16};
use safetensors::tensor::{Metadata, TensorView};
use safetensors::{Dtype, SafeTensorError, SafeTensors};
use serde::Serialize;

use super::device::Choice;
use super::output::{Json, write_file};
use super::{Failure, Status};
use crate::buffer::Buffer;
use crate::device::Device;
use crate::error::Error;
use crate::kasmina::{
    BlendForward, LayerElement, LayerState, SeedStates, TelemetryBuffers, TelemetryValues,
};

#[derive(clap::Subcommand)]
pub(crate) enum Command {
    /// Run the forward pass and write its output and telemetry
    Forward(Forward),
}

#[derive(clap::Args)]
pub(crate) struct Forward {
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

/// A file that the layer cannot run on.
#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error("cannot read {}: {source}", .path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error(
        "{}: not a whole safetensors file ({bytes} bytes): {source}; write it again",
        .path.display()
    )]
    Format { path: PathBuf, bytes: usize, source: SafeTensorError },
    #[error(
        "{}: truncated: tensor `{tensor}` ends at byte {expected}, but the file has {got} bytes; \
         copy it again",
        .path.display()
    )]
    Truncated { path: PathBuf, tensor: String, expected: usize, got: usize },
    #[error("{}: tensor `{tensor}` is missing; the file has {found}", .path.display())]
    Missing { path: PathBuf, tensor: &'static str, found: String },
    #[error("{}: tensor `{tensor}` is {got}, expected {expected}", .path.display())]
    Dtype { path: PathBuf, tensor: &'static str, expected: &'static str, got: Dtype },
    #[error(
        "{}: tensor `{tensor}` has shape {got:?}, expected [{expected}] ({why})",
        .path.display()
    )]
    Shape {
        path: PathBuf,
        tensor: &'static str,
        expected: String,
        got: Vec<usize>,
        why: &'static str,
    },
    #[error("{}: {source}", .path.display())]
    State { path: PathBuf, source: crate::kasmina::StateError },
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

pub(crate) fn run(command: &Command) -> Result<Status, Failure> {
    let Command::Forward(arguments) = command;
    let state = File::read(&arguments.state).map_err(Failure::usage)?;
    let input = File::read(&arguments.input).map_err(Failure::usage)?;
    let states = read_states(&state).map_err(Failure::usage)?;
    let input = read_input(&input, &states).map_err(Failure::usage)?;
    let device = arguments.device.device()?;
    let (num_seeds, chunk_size) = (states.num_seeds(), states.chunk_size);
    let (output, telemetry) = match input.dtype {
        Dtype::F32 => forward::<f32>(&device, states, &input),
        Dtype::F16 => forward::<f16>(&device, states, &input),
        _ => forward::<bf16>(&device, states, &input),
    }?;

    let file = to_safetensors(&input, &output, &telemetry)?;
    write_file(&arguments.output, &file).map_err(Failure::usage)?;
    let dtype = match input.dtype {
        Dtype::F32 => "f32",
        Dtype::F16 => "f16",
        _ => "bf16",
    };
    arguments.json.say(format!(
        "{} rows of {num_seeds} seeds × {chunk_size} ({dtype}) on {device}: {}",
        input.batch,
        arguments.output.display()
    ))?;
    arguments.json.write(&Summary {
        device: device.name(),
        dtype,
        batch: input.batch,
        num_seeds,
        chunk_size,
        output: &arguments.output,
    })?;
    Ok(Status::Pass)
}

/// The bytes of a file that may be a safetensors file.
struct File {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl File {
    fn read(path: &Path) -> Result<Self, FileError> {
        let path = path.to_owned();
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Self { path, bytes }),
            Err(source) => Err(FileError::Read { path, source }),
        }
    }

    fn tensors(&self) -> Result<SafeTensors<'_>, FileError> {
        SafeTensors::deserialize(&self.bytes).map_err(|source| {
            let (path, bytes) = (self.path.clone(), self.bytes.len());
            self.truncation().unwrap_or(FileError::Format { path, bytes, source })
        })
    }

    /// Which tensor is cut off, if the header is whole and speaks of more than there is.
    fn truncation(&self) -> Option<FileError> {
        let (length, rest) = self.bytes.split_first_chunk::<8>()?;
        let header = rest.get(..usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
        let metadata: Metadata = serde_json::from_slice(header).ok()?;
        let data = 8 + header.len();
        let mut ends: Vec<_> = metadata
            .tensors()
            .into_iter()
            .map(|(name, info)| (data.saturating_add(info.data_offsets.1), name))
            .collect();
        ends.sort_unstable();
        let got = self.bytes.len();
        let (expected, tensor) = ends.into_iter().find(|(end, _)| *end > got)?;
        Some(FileError::Truncated { path: self.path.clone(), tensor, expected, got })
    }

    /// A tensor by its name.
    fn tensor<'a>(
        &self,
        tensors: &SafeTensors<'a>,
        tensor: &'static str,
    ) -> Result<TensorView<'a>, FileError> {
        tensors.tensor(tensor).map_err(|_| {
            let mut names = tensors.names();
            names.sort_unstable();
            let found = if names.is_empty() {
                "none".to_owned()
            } else {
                format!("`{}`", names.join("`, `"))
            };
            FileError::Missing { path: self.path.clone(), tensor, found }
        })
    }

    /// A tensor's elements and extents. `shape` has a number where only that will do, and what
    /// stands for it else.
    fn array<T: Pod, const N: usize>(
        &self,
        tensors: &SafeTensors<'_>,
        name: &'static str,
        (dtype, expected_dtype): (Dtype, &'static str),
        (shape, why): ([Extent; N], &'static str),
    ) -> Result<(Vec<T>, [usize; N]), FileError> {
        let view = self.tensor(tensors, name)?;
        if view.dtype() != dtype {
            let (path, got) = (self.path.clone(), view.dtype());
            return Err(FileError::Dtype { path, tensor: name, expected: expected_dtype, got });
        }
        let extents = self.extents(name, &view, (shape, why))?;
        Ok((elements(view.data()), extents))
    }

    fn extents<const N: usize>(
        &self,
        tensor: &'static str,
        view: &TensorView<'_>,
        (shape, why): ([Extent; N], &'static str),
    ) -> Result<[usize; N], FileError> {
        let fits = |extents: &[usize; N]| {
            extents.iter().zip(shape).all(|(&got, extent)| match extent {
                Extent::Exactly(expected) => got == expected,
                Extent::AtLeastOne(_) => got > 0,
                Extent::Any(_) => true,
            })
        };
        <[usize; N]>::try_from(view.shape()).ok().filter(fits).ok_or_else(|| {
            let expected = shape.map(|extent| match extent {
                Extent::Exactly(expected) => expected.to_string(),
                Extent::AtLeastOne(name) => format!("{name} ≥ 1"),
                Extent::Any(name) => name.to_owned(),
            });
            let (path, expected) = (self.path.clone(), expected.join(", "));
            FileError::Shape { path, tensor, expected, got: view.shape().to_vec(), why }
        })
    }
}

/// How long a tensor may be along one axis.
#[derive(Clone, Copy)]
enum Extent {
    Exactly(usize),
    AtLeastOne(&'static str),
    Any(&'static str),
}

fn read_states(file: &File) -> Result<SeedStates, FileError> {
    let tensors = file.tensors()?;
    let (u8s, u16s, f32s) = ((Dtype::U8, "U8"), (Dtype::U16, "U16"), (Dtype::F32, "F32"));
    let seeds = ([Extent::AtLeastOne("S")], "one for each seed");
    let (lifecycle, [s]) = file.array(&tensors, "lifecycle", u8s, seeds)?;
    let seeds = ([Extent::Exactly(s)], "one for each seed of `lifecycle`");
    let (blueprint_id, _) = file.array(&tensors, "blueprint_id", u16s, seeds)?;
    let (alpha, _) = file.array(&tensors, "alpha", f32s, seeds)?;
    let blueprints = ([Extent::Any("P")], "one for each blueprint");
    let (blueprint_type, [p]) = file.array(&tensors, "blueprint_type", u8s, blueprints)?;
    let weights = (
        [Extent::Exactly(p), Extent::AtLeastOne("C")],
        "one row for each blueprint of `blueprint_type`, one column for each of a seed",
    );
    let (blueprint_weights, [_, chunk_size]) =
        file.array(&tensors, "blueprint_weights", f32s, weights)?;
    let blueprints = ([Extent::Exactly(p)], "one for each blueprint of `blueprint_type`");
    let (blueprint_scales, _) = file.array(&tensors, "blueprint_scales", f32s, blueprints)?;
    let states = SeedStates {
        lifecycle,
        blueprint_id,
        alpha,
        blueprint_type,
        blueprint_weights,
        blueprint_scales,
        chunk_size,
    };
    states.check().map_err(|source| FileError::State { path: file.path.clone(), source })?;
    Ok(states)
}

/// The layer's input as it stands in the file.
struct Input<'a> {
    dtype: Dtype,
    shape: [usize; 2],
    batch: usize,
    bytes: &'a [u8],
}

fn read_input<'a>(file: &'a File, states: &SeedStates) -> Result<Input<'a>, FileError> {
    let tensors = file.tensors()?;
    let view = file.tensor(&tensors, "input")?;
    if !matches!(view.dtype(), Dtype::F32 | Dtype::F16 | Dtype::BF16) {
        let (path, got) = (file.path.clone(), view.dtype());
        let (tensor, expected) = ("input", "F32, F16 or BF16");
        return Err(FileError::Dtype { path, tensor, expected, got });
    }
    let hidden = states.num_seeds().saturating_mul(states.chunk_size);
    let shape = [Extent::AtLeastOne("B"), Extent::Exactly(hidden)];
    let why = "B rows of S·C columns, S of `lifecycle` and C of `blueprint_weights`";
    let shape = file.extents("input", &view, (shape, why))?;
    Ok(Input { dtype: view.dtype(), shape, batch: shape[0], bytes: view.data() })
}

/// The output's bytes and the telemetry.
fn forward<T: LayerElement>(
    device: &Device,
    states: SeedStates,
    input: &Input<'_>,
) -> Result<(Vec<u8>, TelemetryValues), Error> {
    let (seeds, chunk) = (states.num_seeds(), states.chunk_size);
    let mut layer = BlendForward::<T>::new(device, input.batch, seeds, chunk)?;
    let mut state = LayerState::new(device, states)?;
    let x = Buffer::from_slice(device, &elements::<T>(input.bytes))?;
    let mut y = Buffer::zeroed(device, x.len())?;
    let mut telemetry = TelemetryBuffers::new(device, seeds)?;
    layer.run(&mut state, &x, &mut y, &mut telemetry)?;
    Ok((bytemuck::cast_slice(&y.to_vec()?).to_vec(), telemetry.read()?))
}

/// The elements of a tensor, which need not be aligned in its file.
fn elements<T: Pod>(bytes: &[u8]) -> Vec<T> {
    bytes.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned).collect()
}

fn to_safetensors(
    input: &Input<'_>,
    output: &[u8],
    telemetry: &TelemetryValues,
) -> Result<Vec<u8>, SafeTensorError> {
    let seeds = vec![telemetry.count.len()];
    let floats =
        |values: &[f32]| (Dtype::F32, seeds.clone(), bytemuck::cast_slice(values).to_vec());
    let counts = |values: &[u32]| {
        let wide: Vec<i64> = values.iter().map(|&count| i64::from(count)).collect();
        (Dtype::I64, seeds.clone(), bytemuck::cast_slice(&wide).to_vec())
    };
    let arrays = [
        ("output", (input.dtype, input.shape.to_vec(), output.to_vec())),
        ("telemetry_count", counts(&telemetry.count)),
        ("telemetry_mean", floats(&telemetry.mean)),
        ("telemetry_variance", floats(&telemetry.variance)),
        ("telemetry_min", floats(&telemetry.min)),
        ("telemetry_max", floats(&telemetry.max)),
        ("telemetry_dead_ratio", floats(&telemetry.dead_ratio)),
        ("telemetry_snr", floats(&telemetry.snr)),
        ("telemetry_nonfinite", counts(&telemetry.nonfinite)),
    ];
    let views = arrays
        .iter()
        .map(|(name, (dtype, shape, bytes))| {
            Ok((*name, TensorView::new(*dtype, shape.clone(), bytes)?))
        })
        .collect::<Result<HashMap<_, _>, SafeTensorError>>()?;
    safetensors::serialize(views, None)
}

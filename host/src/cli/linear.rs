//! `kasmina linear`: a product of matrices in a file.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use half::{bf16, f16};
use kasmina_types::{DType, E4m3};
use safetensors::Dtype;
use serde::Serialize;

use super::device::Choice;
use super::output::{Json, check_outputs, write_file};
use super::{Failure, Status};
use crate::buffer::Buffer;
use crate::device::Device;
use crate::error::Error;
use crate::kasmina::files::{Extent, FileError, Shape, Tensor, TensorFile, elements, encode};
use crate::linear::{
    Activation, Chosen, Layout, Linear, LinearElement, LinearOptions, LinearResult, LinearShape,
    Operands, Precision, Scales, quantized,
};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Safetensors file with `a` [M, K] and `b` [N, K], and optionally `bias` [N] and `c` [M, N], all F64, F32, F16 or
    /// BF16
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// What is applied to a·bᵀ + bias + c
    #[arg(long, value_enum, default_value_t = Function::None)]
    activation: Function,
    /// How products are multiplied and added, of a and b rounded first where they are wider; `auto` takes the fastest that
    /// the tolerance allows
    #[arg(long, value_enum, default_value_t = In::Auto)]
    precision: In,
    /// The relative error, in the norm, that `auto` may bring in
    #[arg(long, value_name = "T", default_value = "1e-5", allow_negative_numbers = true)]
    tolerance: f64,
    /// Safetensors file to write: `d` [M, N], of the type of `a`
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Where to run; without a GPU, `auto` is the CPU
    #[arg(long, value_enum, default_value_t = Choice::Auto)]
    device: Choice,
    #[command(flatten)]
    json: Json,
}

/// Activations by their names on the command line.
#[derive(Clone, Copy, ValueEnum)]
enum Function {
    None,
    Relu,
    Gelu,
    GeluTanh,
    Silu,
    Sigmoid,
    Tanh,
}

impl Function {
    fn activation(self) -> Activation {
        match self {
            Self::None => Activation::None,
            Self::Relu => Activation::Relu,
            Self::Gelu => Activation::GeluErf,
            Self::GeluTanh => Activation::GeluTanh,
            Self::Silu => Activation::Silu,
            Self::Sigmoid => Activation::Sigmoid,
            Self::Tanh => Activation::Tanh,
        }
    }
}

/// Precisions by their names on the command line.
#[derive(Clone, Copy, ValueEnum)]
enum In {
    Auto,
    F64,
    F32,
    Tf32,
    Bf16,
    F16,
    Fp8,
    Fp8Fast,
}

impl In {
    fn precision(self) -> Precision {
        match self {
            Self::Auto => Precision::Auto,
            Self::F64 => Precision::F64,
            Self::F32 => Precision::F32,
            Self::Tf32 => Precision::Tf32,
            Self::Bf16 => Precision::Bf16,
            Self::F16 => Precision::F16,
            Self::Fp8 => Precision::Fp8,
            Self::Fp8Fast => Precision::Fp8Fast,
        }
    }
}

/// The result for programs.
#[derive(Serialize)]
struct Summary<'a> {
    device: &'static str,
    dtype: &'static str,
    m: usize,
    n: usize,
    k: usize,
    activation: &'static str,
    precision: &'static str,
    kernel: &'static str,
    parts: u32,
    output: &'a Path,
}

/// What the file holds.
struct Matrices<'a> {
    dtype: Dtype,
    shape: LinearShape,
    a: &'a [u8],
    b: &'a [u8],
    bias: Option<&'a [u8]>,
    c: Option<&'a [u8]>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Status, Failure> {
    let Arguments { input, output, json, .. } = arguments;
    check_outputs(&[Some(input)], json, &[("--output", Some(output))])?;
    let file = TensorFile::read(&arguments.input).map_err(Failure::usage)?;
    let matrices = Matrices::of(&file).map_err(Failure::usage)?;
    let device = arguments.device.device()?;
    let options = LinearOptions {
        beta: if matrices.c.is_some() { 1.0 } else { 0.0 },
        activation: arguments.activation.activation(),
        precision: arguments.precision.precision(),
        tolerance: arguments.tolerance,
        ..Default::default()
    };
    let computed = match matrices.dtype {
        Dtype::F64 => compute::<f64>(&device, options, &matrices),
        Dtype::F32 => compute::<f32>(&device, options, &matrices),
        Dtype::F16 => compute::<f16>(&device, options, &matrices),
        _ => compute::<bf16>(&device, options, &matrices),
    };
    // What the arguments ask for and there is not is their fault.
    let (d, chosen) = computed.map_err(|why| match why {
        Error::Linear(_) => Failure::usage(why),
        other => other.into(),
    })?;
    let LinearShape { m, n, k, .. } = matrices.shape;
    let (dtype, shape) = (matrices.dtype, vec![m, n]);
    let tensor = Tensor { name: "d", dtype, shape, bytes: Cow::Borrowed(&d) };
    let bytes = encode(&[tensor], &BTreeMap::new())?;
    write_file(&arguments.output, &bytes).map_err(Failure::usage)?;
    let dtype = dtype_name(matrices.dtype);
    arguments.json.say(format!(
        "[{m}, {k}]·[{k}, {n}] ({dtype}) in {} by {} on {device}: {}",
        chosen.precision,
        chosen.kernel,
        arguments.output.display()
    ))?;
    arguments.json.write(&Summary {
        device: device.name(),
        dtype,
        m,
        n,
        k,
        activation: options.activation.name(),
        precision: chosen.precision.name(),
        kernel: chosen.kernel,
        parts: chosen.parts,
        output: &arguments.output,
    })?;
    Ok(Status::Pass)
}

fn dtype_name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::F64 => "f64",
        Dtype::F16 => "f16",
        Dtype::BF16 => "bf16",
        _ => "f32",
    }
}

impl<'a> Matrices<'a> {
    fn of(file: &'a TensorFile) -> Result<Self, FileError> {
        let (info, a) = file.tensor("a")?;
        let dtype = info.dtype;
        if !matches!(dtype, Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16) {
            return Err(file.wrong_dtype("a", "F64, F32, F16 or BF16", dtype));
        }
        let extents = [Extent::AtLeastOne("M"), Extent::AtLeastOne("K")];
        let [m, k] = file.extents("a", info, Shape { extents, why: "rows of K elements" })?;
        let same = |name: &'static str, got: Dtype| {
            if got == dtype {
                return Ok(());
            }
            Err(file.wrong_dtype(name, &format!("{dtype:?}, the type of `a`"), got))
        };
        let (info, b) = file.tensor("b")?;
        same("b", info.dtype)?;
        let extents = [Extent::AtLeastOne("N"), Extent::Exactly(k)];
        let [n, _] =
            file.extents("b", info, Shape { extents, why: "N rows of as many as in `a`" })?;
        let mut bias = None;
        if let Some((info, bytes)) = file.raw("bias") {
            same("bias", info.dtype)?;
            let why = "one for each row of `b`";
            file.extents("bias", info, Shape { extents: [Extent::Exactly(n)], why })?;
            bias = Some(bytes);
        }
        let mut c = None;
        if let Some((info, bytes)) = file.raw("c") {
            same("c", info.dtype)?;
            let extents = [Extent::Exactly(m), Extent::Exactly(n)];
            file.extents("c", info, Shape { extents, why: "the shape of the product" })?;
            c = Some(bytes);
        }
        Ok(Self { dtype, shape: LinearShape::new(Layout::NT, m, n, k), a, b, bias, c })
    }
}

/// D's bytes, and how it was computed. Where the precision is another type's, A and B are rounded to that.
fn compute<O: LinearResult>(
    device: &Device,
    options: LinearOptions,
    matrices: &Matrices<'_>,
) -> Result<(Vec<u8>, Chosen), Error> {
    let (a, b): (Vec<O>, Vec<O>) = (elements(matrices.a), elements(matrices.b));
    let dtype = O::DTYPE;
    match options.precision {
        Precision::Bf16 if dtype != DType::F64 => {
            product::<bf16, O>(device, options, matrices, rounded(&a), rounded(&b), None)
        }
        Precision::F16 if dtype != DType::F64 => {
            product::<f16, O>(device, options, matrices, rounded(&a), rounded(&b), None)
        }
        Precision::Fp8 | Precision::Fp8Fast if dtype != DType::F64 => {
            let ((a, of_a), (b, of_b)) = (quantized(&a), quantized(&b));
            product::<E4m3, O>(device, options, matrices, a, b, Some([of_a, of_b]))
        }
        _ => product::<O, O>(device, options, matrices, a, b, None),
    }
}

fn rounded<T: LinearElement, O: LinearElement>(values: &[O]) -> Vec<T> {
    values.iter().map(|value| T::nearest(value.to_f64())).collect()
}

fn product<T: LinearElement, O: LinearResult>(
    device: &Device,
    options: LinearOptions,
    matrices: &Matrices<'_>,
    a: Vec<T>,
    b: Vec<T>,
    scales: Option<[f32; 2]>,
) -> Result<(Vec<u8>, Chosen), Error> {
    let buffer = |bytes: &[u8]| Buffer::<O>::from_slice(device, &elements(bytes));
    let (a, b) = (Buffer::from_slice(device, &a)?, Buffer::from_slice(device, &b)?);
    let bias = matrices.bias.map(buffer).transpose()?;
    let c = matrices.c.map(buffer).transpose()?;
    let scales = match scales {
        Some([a, b]) => {
            Some((Buffer::from_slice(device, &[a])?, Buffer::from_slice(device, &[b])?))
        }
        None => None,
    };
    let mut d = Buffer::<O>::zeroed(device, matrices.shape.m * matrices.shape.n)?;
    let operands = Operands {
        bias: bias.as_ref(),
        c: c.as_ref(),
        scales: scales.as_ref().map_or(Scales::None, |(a, b)| Scales::Tensor { a, b }),
        ..Operands::new(&a, &b)
    };
    let chosen = Linear::new(device, options)?.forward(&matrices.shape, &operands, &mut d, None)?;
    Ok((bytemuck::cast_slice(&d.to_vec()?).to_vec(), chosen))
}

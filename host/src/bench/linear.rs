//! `linear` as cases.

use half::{bf16, f16};
use kasmina_reference::linear as reference;
use kasmina_types::{DType, E4m3};
use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;

use super::data;
use super::{BenchError, Prepared, spread, timer};
use crate::buffer::Buffer;
use crate::device::Device;
use crate::driver::ComputeCapability;
use crate::linear::{
    Activation, Layout, Linear, LinearElement, LinearOptions, LinearResult, LinearShape, Operands,
    Precision,
};
use crate::normalization::reference_activation;

/// d = gelu(a·bᵀ + bias), the GELU by tanh, a `[m, k]`, b `[n, k]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Work {
    pub(super) m: usize,
    pub(super) n: usize,
    pub(super) k: usize,
    pub(super) precision: Precision,
}

/// The shapes that reports speak of, m, n and k: large ones, thin ones, and such as nothing divides.
pub(super) const SHAPES: [[usize; 3]; 12] = [
    [8192, 8192, 8192],
    [4096, 4096, 4096],
    [2048, 2048, 2048],
    [4096, 14_336, 4096],
    [64, 4096, 4096],
    [256, 1024, 1024],
    [1024, 1024, 1024],
    [16, 512, 512],
    [1, 4096, 4096],
    [4096, 4096, 128],
    [4095, 4097, 1031],
    [127, 257, 1000],
];

impl Work {
    /// The element type of A and B.
    pub(super) fn dtype(self) -> DType {
        match self.precision {
            Precision::F64 => DType::F64,
            Precision::Bf16 => DType::Bf16,
            Precision::F16 => DType::F16,
            Precision::Fp8 => DType::E4m3,
            Precision::Auto | Precision::F32 | Precision::Tf32 => DType::F32,
        }
    }

    /// Cycles of one multiprocessor for the multiplications and additions, by what the vendor's papers on the
    /// architecture say that its tensor cores (of f32 and f64 its other units) do in one; `None` where it is not known.
    pub(super) fn cycles(self, of: ComputeCapability) -> Option<f64> {
        let in_a_cycle = match (of.major, of.minor, self.precision) {
            (9, 0, Precision::Fp8) => 4096.0,
            (9, 0, Precision::Bf16 | Precision::F16) => 2048.0,
            (9, 0, Precision::Tf32) | (8, 0, Precision::Bf16 | Precision::F16) => 1024.0,
            (8, 0, Precision::Tf32) => 512.0,
            (9, 0, Precision::F32) => 128.0,
            (9, 0, Precision::F64) | (8, 0, Precision::F32) => 64.0,
            (8, 0, Precision::F64) => 32.0,
            _ => return None,
        };
        Some(self.m as f64 * self.n as f64 * self.k as f64 / in_a_cycle)
    }

    /// Of A, B, bias and D, each once.
    pub(super) fn bytes(self) -> u64 {
        let Self { m, n, k, .. } = self;
        let size = self.dtype().size_bytes();
        let result = if size == 1 { 2 } else { size };
        (size * (m * k + n * k) + result * (n + m * n)) as u64
    }
}

/// Makes the buffers and checks one result.
pub(super) fn prepare(device: &Device, work: Work, bytes: u64) -> Result<Prepared, BenchError> {
    match work.dtype() {
        DType::F64 => of::<f64, f64>(device, work, bytes),
        DType::F16 => of::<f16, f16>(device, work, bytes),
        DType::Bf16 => of::<bf16, bf16>(device, work, bytes),
        DType::E4m3 => of::<E4m3, bf16>(device, work, bytes),
        DType::F32 | DType::I32 => of::<f32, f32>(device, work, bytes),
    }
}

/// Rows of D that are compared.
const CHECKED_ROWS: usize = 32;

fn drawn<T: LinearElement>(seed: u64, len: usize) -> Vec<T> {
    data::normal(seed, len).into_par_iter().map(T::nearest).collect()
}

fn of<T: LinearElement, O: LinearResult>(
    device: &Device,
    work: Work,
    bytes: u64,
) -> Result<Prepared, BenchError> {
    let Work { m, n, k, precision } = work;
    let shape = LinearShape::new(Layout::NT, m, n, k);
    let activation = Activation::GeluTanh;
    let options = LinearOptions { activation, precision, ..Default::default() };
    let linear = Linear::new(device, options)?;
    let bias = drawn::<O>(7, n);
    let on_bias = Buffer::from_slice(device, &bias)?;
    let sets = timer::buffer_sets(device, bytes);
    let mut buffers = Vec::new();
    for set in 0..sets as u64 {
        let a = Buffer::from_slice(device, &drawn::<T>(1 + set, m * k))?;
        let b = Buffer::from_slice(device, &drawn::<T>(100 + set, n * k))?;
        buffers.push((a, b, Buffer::<O>::zeroed(device, m * n)?));
    }
    let (a, b, d) = &mut buffers[0];
    d.fill_bytes(0xFF)?;
    let operands = Operands { bias: Some(&on_bias), ..Operands::new(a, b) };
    let chosen = linear.forward(&shape, &operands, d, None)?;
    let precision = if chosen.precision == Precision::F64 { precision } else { chosen.precision };
    let tolerance = precision.error_bound();
    let max_rel_error = error(work, [&a.to_vec()?, &b.to_vec()?], &bias, &d.to_vec()?);
    if max_rel_error.is_nan() || max_rel_error > tolerance {
        let what = "the product";
        return Err(BenchError::WrongResult { what, error: max_rel_error, tolerance });
    }
    let call = move |set: usize| {
        let (a, b, d) = &mut buffers[set % sets];
        let operands = Operands { bias: Some(&on_bias), ..Operands::new(a, b) };
        linear.forward(&shape, &operands, d, None).map(drop)
    };
    Ok(Prepared { call: Box::new(call), sets, max_rel_error, tolerance })
}

/// The relative error, in the norm, of some rows of D; infinite where an element anywhere is not a number.
fn error<T: LinearElement, O: LinearResult>(
    work: Work,
    [a, b]: [&[T]; 2],
    bias: &[O],
    d: &[O],
) -> f64 {
    let Work { m, n, k, .. } = work;
    if !d.par_iter().all(|value| value.to_f64().is_finite()) {
        return f64::INFINITY;
    }
    let rows = spread(m, CHECKED_ROWS);
    let wide = |values: &[T]| values.iter().map(|v| v.to_f64()).collect::<Vec<_>>();
    let a = rows.iter().flat_map(|row| wide(&a[row * k..][..k])).collect();
    let a = Array2::from_shape_vec((rows.len(), k), a).expect("whole rows");
    let b = wide(b);
    let b = ArrayView2::from_shape((n, k), &b).expect("whole rows");
    let bias: Vec<f64> = bias.iter().map(|v| v.to_f64()).collect();
    let mut product = reference::Linear::new(a.view(), b.reversed_axes());
    product.bias = Some(&bias);
    product.activation = reference_activation(Activation::GeluTanh);
    let expected = reference::linear(&product).expect("shapes fit");
    let (mut errors, mut sizes) = (0.0, 0.0);
    for (row, expected) in rows.iter().zip(expected.rows()) {
        for (got, expected) in d[row * n..][..n].iter().zip(expected) {
            errors += (got.to_f64() - expected).powi(2);
            sizes += expected.powi(2);
        }
    }
    if errors == 0.0 { 0.0 } else { (errors / sizes).sqrt() }
}

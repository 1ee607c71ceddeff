//! `linear` as cases.

use half::{bf16, f16};
use kasmina_reference::linear as reference;
use kasmina_types::linear::{SCALE_BLOCK_K, SCALE_BLOCK_N};
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
    Precision, Scales,
};
use crate::normalization::reference_activation;

/// d = gelu(a·bᵀ + bias), the GELU by tanh, a `[m, k]`, b `[n, k]`, with scales for blocks or without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Work {
    pub(super) m: usize,
    pub(super) n: usize,
    pub(super) k: usize,
    pub(super) precision: Precision,
    /// Whether blocks of fp8 have scales.
    pub(super) blocks: bool,
    /// Whether A and B are f32, which the call converts.
    pub(super) of_f32: bool,
}

/// The shapes that reports speak of, m, n and k: large ones, thin ones, and such as nothing divides.
const SHAPES: [[usize; 3]; 12] = [
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

/// Every shape in bf16; the large and square ones in the other precisions.
pub(super) fn on_gpu() -> Vec<Work> {
    use Precision::{Bf16, F16, F32, F64, Fp8, Fp8Fast, Tf32};
    let mut works = SHAPES.map(|shape| Work::new(shape, Bf16)).to_vec();
    let [largest, large, medium, ..] = SHAPES;
    for precision in [Fp8Fast, Fp8] {
        works.extend([largest, large].map(|shape| Work::new(shape, precision)));
    }
    works.extend([largest, large].map(|shape| Work::new(shape, Fp8).by_blocks()));
    works.extend([F16, Tf32, F32].map(|precision| Work::new(large, precision)));
    works.push(Work::new(medium, F64));
    // Where conversion pays.
    let shallow = [2048, 2048, 256];
    works.extend([medium, shallow].map(|shape| Work::new(shape, Tf32)));
    works.extend([large, medium, shallow].map(|shape| Work::new(shape, Bf16).of_f32()));
    works.push(Work::new(large, Fp8).of_f32());
    works
}

/// One shape in most precisions.
pub(super) fn small(shape: [usize; 3]) -> impl Iterator<Item = Work> {
    use Precision::{Bf16, F32, Fp8, Fp8Fast, Tf32};
    let works = [F32, Tf32, Bf16, Fp8, Fp8Fast].map(|precision| Work::new(shape, precision));
    works.into_iter().chain([Work::new(shape, Fp8).by_blocks()])
}

impl Work {
    pub(super) fn new([m, n, k]: [usize; 3], precision: Precision) -> Self {
        Self { m, n, k, precision, blocks: false, of_f32: false }
    }

    fn by_blocks(self) -> Self {
        Self { blocks: true, ..self }
    }

    fn of_f32(self) -> Self {
        Self { of_f32: true, ..self }
    }

    /// The name of what is computed beside the shape.
    pub(super) fn variant(self) -> &'static str {
        match (self.precision, self.of_f32) {
            (Precision::Bf16, true) => "bf16-of-f32",
            (_, true) => "fp8-of-f32",
            _ if self.blocks => "fp8-blocks",
            (precision, false) => precision.name(),
        }
    }

    /// How many scales A has, and B.
    fn scales(self) -> [usize; 2] {
        let Self { m, n, k, blocks, .. } = self;
        let along = if blocks { k.div_ceil(SCALE_BLOCK_K) } else { 0 };
        [m * along, n.div_ceil(SCALE_BLOCK_N) * along]
    }

    /// A's scales and B's, where there are any.
    fn scaling(self, [a, b]: &[Buffer<f32>; 2]) -> Scales<'_> {
        if self.blocks { Scales::Block { a, b } } else { Scales::None }
    }

    /// The element type of A and B.
    pub(super) fn dtype(self) -> DType {
        if self.of_f32 {
            return DType::F32;
        }
        match self.precision {
            Precision::F64 => DType::F64,
            Precision::Bf16 => DType::Bf16,
            Precision::F16 => DType::F16,
            Precision::Fp8 | Precision::Fp8Fast => DType::E4m3,
            Precision::Auto | Precision::F32 | Precision::Tf32 => DType::F32,
        }
    }

    /// Cycles of one multiprocessor for the multiplications and additions, by what the vendor's papers on the
    /// architecture say that its tensor cores (of f32 and f64 its other units) do in one; `None` where it is not known.
    pub(super) fn cycles(self, of: ComputeCapability) -> Option<f64> {
        let in_a_cycle = match (of.major, of.minor, self.precision) {
            (9, 0, Precision::Fp8 | Precision::Fp8Fast) => 4096.0,
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

    /// Of A, B, their scales, bias and D, each once.
    pub(super) fn bytes(self) -> u64 {
        let Self { m, n, k, .. } = self;
        let size = self.dtype().size_bytes();
        let result = if size == 1 { 2 } else { size };
        let [of_a, of_b] = self.scales();
        (size * (m * k + n * k) + 4 * (of_a + of_b) + result * (n + m * n)) as u64
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

pub(super) fn drawn<T: LinearElement>(seed: u64, len: usize) -> Vec<T> {
    data::normal(seed, len).into_par_iter().map(T::nearest).collect()
}

fn drawn_scales(len: usize) -> Vec<f32> {
    let values: Vec<f32> = data::draw(8, len);
    values.into_iter().map(|value| value + 1.0).collect()
}

fn of<T: LinearElement, O: LinearResult>(
    device: &Device,
    work: Work,
    bytes: u64,
) -> Result<Prepared, BenchError> {
    let Work { m, n, k, precision, .. } = work;
    let shape = LinearShape::new(Layout::NT, m, n, k);
    let activation = Activation::GeluTanh;
    let options = LinearOptions { activation, precision, ..Default::default() };
    let linear = Linear::new(device, options)?;
    let bias = drawn::<O>(7, n);
    let on_bias = Buffer::from_slice(device, &bias)?;
    let scales = work.scales().map(drawn_scales);
    let on_scales =
        [Buffer::from_slice(device, &scales[0])?, Buffer::from_slice(device, &scales[1])?];
    let sets = timer::buffer_sets(device, bytes);
    let mut buffers = Vec::new();
    for set in 0..sets as u64 {
        let a = Buffer::from_slice(device, &drawn::<T>(1 + set, m * k))?;
        let b = Buffer::from_slice(device, &drawn::<T>(100 + set, n * k))?;
        buffers.push((a, b, Buffer::<O>::zeroed(device, m * n)?));
    }
    let (a, b, d) = &mut buffers[0];
    d.fill_bytes(0xFF)?;
    let scaling = work.scaling(&on_scales);
    let operands = Operands { bias: Some(&on_bias), scales: scaling, ..Operands::new(a, b) };
    let chosen = linear.forward(&shape, &operands, d, None)?;
    let precision = if chosen.precision == Precision::F64 { precision } else { chosen.precision };
    let converted = work.of_f32 && precision == Precision::Fp8;
    let tolerance =
        precision.error_bound() + if converted { Precision::FP8_CONVERSION } else { 0.0 };
    let (operands, d) = ([&a.to_vec()?[..], &b.to_vec()?], d.to_vec()?);
    let max_rel_error = error(work, operands, &scales, &bias, &d);
    if max_rel_error.is_nan() || max_rel_error > tolerance {
        let what = "the product";
        return Err(BenchError::WrongResult { what, error: max_rel_error, tolerance });
    }
    let call = move |set: usize| {
        let (a, b, d) = &mut buffers[set % sets];
        let scales = work.scaling(&on_scales);
        let operands = Operands { bias: Some(&on_bias), scales, ..Operands::new(a, b) };
        linear.forward(&shape, &operands, d, None).map(drop)
    };
    Ok(Prepared { call: Box::new(call), sets, max_rel_error, tolerance })
}

/// The relative error, in the norm, of some rows of D; infinite where an element anywhere is not a number.
pub(super) fn error<T: LinearElement, O: LinearResult>(
    work: Work,
    [a, b]: [&[T]; 2],
    [of_a, of_b]: &[Vec<f32>; 2],
    bias: &[O],
    d: &[O],
) -> f64 {
    let Work { m, n, k, .. } = work;
    if !d.par_iter().all(|value| value.to_f64().is_finite()) {
        return f64::INFINITY;
    }
    let rows = spread(m, CHECKED_ROWS);
    let along = k.div_ceil(SCALE_BLOCK_K);
    // A row of as many elements along k, with scales from `at` on.
    let wide = |values: &[T], scales: &[f32], at: usize| {
        let scale = |x: usize| scales.get(at + x / SCALE_BLOCK_K).map_or(1.0, |&s| f64::from(s));
        values.iter().enumerate().map(|(x, v)| v.to_f64() * scale(x)).collect::<Vec<_>>()
    };
    let a = rows.iter().flat_map(|row| wide(&a[row * k..][..k], of_a, row * along)).collect();
    let a = Array2::from_shape_vec((rows.len(), k), a).expect("whole rows");
    let of_row = |(row, values): (usize, &[T])| wide(values, of_b, row / SCALE_BLOCK_N * along);
    let b: Vec<f64> = b.par_chunks(k).enumerate().flat_map_iter(of_row).collect();
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

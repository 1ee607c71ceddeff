//! `gemv` as cases.

use half::bf16;
use kasmina_reference::linear as reference;
use kasmina_reference::numeric::{Dtype, Tolerance};
use kasmina_types::DType;
use ndarray::Array2;

use super::data::{self, Draw};
use super::{BenchError, Prepared, spread, timer, within};
use crate::buffer::Buffer;
use crate::device::Device;
use crate::error::Error;
use crate::linear::{Gemv, GemvElement, GemvShape};

/// Outputs that are checked.
const CHECKED: usize = 64;

/// What is timed of every type: a square matrix, a high one, a wide one, and a batch.
pub(super) const EVERY_TYPE: [GemvShape; 4] = [
    of_shape(1, 16_384, 16_384),
    of_shape(1, 65_536, 256),
    of_shape(1, 256, 65_536),
    of_shape(1024, 256, 256),
];

/// What is timed of f32 alone: a small one, longer and shorter rows, rows without alignment, batches.
pub(super) const OF_F32: [GemvShape; 6] = [
    of_shape(1, 4096, 4096),
    of_shape(1, 16, 1 << 22),
    of_shape(1, 1 << 20, 64),
    of_shape(1, 8191, 8191),
    of_shape(64, 4096, 256),
    of_shape(64, 256, 4096),
];

const fn of_shape(batch: usize, rows: usize, columns: usize) -> GemvShape {
    GemvShape { batch, rows, columns, transposed: false }
}

pub(super) fn variant(shape: GemvShape) -> &'static str {
    if shape.transposed { "transposed" } else { "straight" }
}

/// `[rows, columns]`, of several products `[batch, rows, columns]`.
pub(super) fn dimensions(shape: GemvShape) -> Vec<usize> {
    let GemvShape { batch, rows, columns, .. } = shape;
    if batch == 1 { vec![rows, columns] } else { vec![batch, rows, columns] }
}

/// A and x, and y once: β is 0.
pub(super) fn bytes(shape: GemvShape, dtype: DType) -> u64 {
    let elements = shape.rows * shape.columns + shape.rows + shape.columns;
    (shape.batch * elements * dtype.size_bytes()) as u64
}

/// Makes the buffers and checks one result.
pub(super) fn prepare(
    device: &Device,
    dtype: DType,
    shape: GemvShape,
    bytes: u64,
) -> Result<Prepared, BenchError> {
    let sum = if dtype == DType::Bf16 { Dtype::F32 } else { Dtype::F64 };
    match dtype {
        DType::Bf16 => of::<bf16>(device, shape, bytes, [Dtype::Bf16, sum]),
        DType::F64 => of::<f64>(device, shape, bytes, [Dtype::F64, sum]),
        _ => of::<f32>(device, shape, bytes, [Dtype::F32, sum]),
    }
}

fn of<T: GemvElement + Draw>(
    device: &Device,
    shape: GemvShape,
    bytes: u64,
    [stored, summed]: [Dtype; 2],
) -> Result<Prepared, BenchError> {
    let sets = timer::buffer_sets(device, bytes);
    let GemvShape { batch, rows, columns, .. } = shape;
    let (terms, outputs) = (shape.terms(), shape.outputs());
    let mut operands = Vec::new();
    for set in 0..sets as u64 {
        let matrix = data::try_draw::<T>(2 * set, batch * rows * columns)?;
        let x = data::draw::<T>(2 * set + 1, batch * terms);
        operands.push((Buffer::from_slice(device, &matrix)?, Buffer::from_slice(device, &x)?));
    }
    let mut y = Buffer::<T>::zeroed(device, batch * outputs)?;
    y.fill_bytes(0xFF)?;
    let mut gemv = Gemv::<T>::new(device, shape)?;
    gemv.run(1.0, &operands[0].0, &operands[0].1, 0.0, &mut y)?;

    // Some outputs of the last product, each a row of its own.
    let first = batch - 1;
    let checked = spread(outputs, CHECKED);
    let x: Vec<f64> = operands[0].1.to_f64()?.split_off(first * terms);
    let matrix = operands[0].0.to_f64()?.split_off(first * rows * columns);
    let a = Array2::from_shape_fn((checked.len(), terms), |(i, term)| {
        let (row, column) = if shape.transposed { (term, checked[i]) } else { (checked[i], term) };
        matrix[row * columns + column]
    });
    let expected = reference::gemv(1.0, a.view(), &x, 0.0, &vec![0.0; checked.len()]);
    let got = y.to_f64()?;
    let got: Vec<f64> = checked.iter().map(|&i| got[first * outputs + i]).collect();
    let rounded = Tolerance::for_dtype(stored, 1);
    let sums = Tolerance::for_dtype(summed, terms);
    let tolerance = if rounded.limit() > sums.limit() { rounded } else { sums };
    let max_rel_error = within("y", &got, &expected, tolerance)?;

    let call = move |set: usize| -> Result<(), Error> {
        let (matrix, x) = &operands[set % sets];
        gemv.run(1.0, matrix, x, 0.0, &mut y)
    };
    Ok(Prepared { call: Box::new(call), sets, max_rel_error, tolerance: tolerance.limit() })
}

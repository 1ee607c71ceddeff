//! The reference of chains: what [`fusion_composition`](kasmina_types::fusion::fusion_composition) composes the
//! reference's functions with.

use kasmina_reference::linear;
use kasmina_reference::reduction;
use kasmina_types::fusion::{Fusion, FusionShape};
use ndarray::ArrayView2;
use rayon::prelude::*;

/// A chain as a composition of the reference's functions, in f64.
pub trait Reference: Fusion {
    /// The results for operands in the declaration's order, each as long as its extent says.
    fn reference(shape: &FusionShape, operands: &[Vec<f64>]) -> Vec<f64>;
}

/// `length` values of each of `batch` segments, each from its segment, its place in the segment, and its place
/// among all.
pub fn map(
    batch: usize,
    length: usize,
    value: impl Fn(usize, usize, usize) -> f64 + Sync,
) -> Vec<f64> {
    (0..batch * length).into_par_iter().map(|at| value(at / length, at % length, at)).collect()
}

/// The sum of each segment.
pub fn sum(shape: &FusionShape, values: &[f64]) -> Vec<f64> {
    each(shape, values, reduction::sum)
}

/// The mean of each segment.
pub fn mean(shape: &FusionShape, values: &[f64]) -> Vec<f64> {
    each(shape, values, reduction::mean)
}

/// The largest value of each segment, which has one.
pub fn max(shape: &FusionShape, values: &[f64]) -> Vec<f64> {
    each(shape, values, |segment| reduction::max(segment).expect("the shape is checked"))
}

/// The smallest value of each segment, which has one.
pub fn min(shape: &FusionShape, values: &[f64]) -> Vec<f64> {
    each(shape, values, |segment| reduction::min(segment).expect("the shape is checked"))
}

fn each(shape: &FusionShape, values: &[f64], reduce: impl Fn(&[f64]) -> f64) -> Vec<f64> {
    (0..shape.batch).map(|each| reduce(&values[each * shape.inner..][..shape.inner])).collect()
}

/// The product of each matrix, or of its transpose, and its vector.
pub fn gemv(shape: &FusionShape, transposed: bool, matrix: &[f64], x: &[f64]) -> Vec<f64> {
    let FusionShape { batch, inner, outer } = *shape;
    let (rows, columns) = if transposed { (inner, outer) } else { (outer, inner) };
    let none = vec![0.0; outer];
    let mut results = Vec::with_capacity(batch * outer);
    for each in 0..batch {
        let matrix = &matrix[each * rows * columns..][..rows * columns];
        let a = ArrayView2::from_shape((rows, columns), matrix).expect("rows of columns");
        let x = &x[each * inner..][..inner];
        results.extend(if transposed {
            linear::gemv_transposed(1.0, a, x, 0.0, &none)
        } else {
            linear::gemv(1.0, a, x, 0.0, &none)
        });
    }
    results
}

/// The segments as rows of A, times the transpose of the weights B.
pub fn matmul(shape: &FusionShape, a: &[f64], b: &[f64]) -> Vec<f64> {
    let FusionShape { batch, inner, outer } = *shape;
    let a = ArrayView2::from_shape((batch, inner), a).expect("rows of segments");
    let b = ArrayView2::from_shape((outer, inner), b).expect("rows of weights");
    let product = linear::linear(&linear::Linear::new(a, b.t())).expect("the shapes fit");
    product.into_raw_vec_and_offset().0
}

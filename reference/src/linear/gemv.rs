//! Matrix times vector: y = α·A·x + β·y, and with the transpose.

use ndarray::ArrayView2;
use rayon::prelude::*;

use crate::summation::pairwise_sum;

/// α·A·x + β·y; A is `[y, x]`.
pub fn gemv(alpha: f64, a: ArrayView2<'_, f64>, x: &[f64], beta: f64, y: &[f64]) -> Vec<f64> {
    product(alpha, a, x, beta, y)
}

/// α·Aᵀ·x + β·y; A is `[x, y]`.
pub fn gemv_transposed(
    alpha: f64,
    a: ArrayView2<'_, f64>,
    x: &[f64],
    beta: f64,
    y: &[f64],
) -> Vec<f64> {
    product(alpha, a.reversed_axes(), x, beta, y)
}

fn product(alpha: f64, a: ArrayView2<'_, f64>, x: &[f64], beta: f64, y: &[f64]) -> Vec<f64> {
    (0..a.nrows())
        .into_par_iter()
        .map(|i| {
            let terms: Vec<f64> = a.row(i).iter().zip(x).map(|(a, x)| a * x).collect();
            alpha * pairwise_sum(&terms, |&term| term) + beta * y[i]
        })
        .collect()
}

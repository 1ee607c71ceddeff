//! The parameters of `linear_sample_*`: results of a product, recomputed in f64.

use crate::view::{In, Out};

/// Sums that a sample leaves: of the terms, of the terms as tensor cores see them, and of the terms' squares.
pub const LINEAR_SAMPLE_SUMS: usize = 3;

/// What `linear_sample_f32` takes: for some (problem, i, j), chosen by a seed, with terms t_k = op(A)_ik · op(B)_kj,
/// Σ t_k, Σ of the products of operands rounded to tf32, and Σ t_k².
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub struct LinearSample {
    /// A.
    pub a: In<f32>,
    /// B.
    pub b: In<f32>,
    /// `[samples, 3]`, every element written.
    pub sums: Out<f64>,
    /// From one A of the batch to the next.
    pub a_stride: u64,
    /// Of B.
    pub b_stride: u64,
    /// Sample s is of the place that seed + s gives.
    pub seed: u64,
    /// Rows of op(A), above 0.
    pub m: u32,
    /// Columns of op(B), above 0.
    pub n: u32,
    /// Terms.
    pub k: u32,
    /// Problems, above 0.
    pub batch: u32,
    /// From one row of A's array to the next.
    pub lda: u32,
    /// Of B's.
    pub ldb: u32,
    /// A [`Layout`](crate::Layout)'s code.
    pub layout: u32,
    /// What is added to an operand's bits before the 13 lowest are cleared: half of the last bit that stays where tensor cores
    /// round to it, 0 where they ignore them.
    pub half: u32,
    /// No meaning.
    pub _padding: u64,
}

crate::assert_layout!(LinearSample, size = 112, align = 16, {
    a: 0, b: 16, sums: 32, a_stride: 48, b_stride: 56, seed: 64, m: 72, n: 76, k: 80, batch: 84, lda: 88, ldb: 92,
    layout: 96, half: 100, _padding: 104,
});

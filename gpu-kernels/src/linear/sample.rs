//! Some results of a product, recomputed in f64: how far other precisions are from it.
//!
//! # Math
//! For a place (problem, i, j) of D, with terms t_k = op(A)_ik · op(B)_kj: Σ t_k, exact but for the sum's rounding in f64;
//! Σ of the products of the operands with 10 bits of mantissa, as tf32 has; Σ t_k². All sums are in f64.
//!
//! # Layout
//! | buffer | shape | type | access |
//! |---|---|---|---|
//! | `a`, `b` | as the layout says, rows `lda` and `ldb` apart | f32 | in |
//! | `sums` | `[samples, 3]` | f64 | out, every element written |
//!
//! # Traffic
//! Reads 8·k bytes a sample, in sectors of 32 bytes where an operand does not lie along k: 256 samples of 4096 terms
//! are 8.4 MB, or up to 38 MB. Bound by latency: some ten microseconds.
//!
//! # Launch
//! A block of 256 threads for each sample; no thread leaves before the last barrier.
//!
//! # Determinism
//! Bitwise: a thread adds its terms in their order, lanes and warps in theirs.
//!
//! # Source
//! Original. Reference: `kasmina_reference::linear::sample`.

use kasmina_device::global::{Load, Store};
use kasmina_device::reduce::block_fold;
use kasmina_device::{kernel, shared_array, thread, warp};
use kasmina_types::tiles::LINEAR_SAMPLE_BLOCK_THREADS;
use kasmina_types::{LINEAR_SAMPLE_SUMS, Layout, LinearSample};

const THREADS: usize = LINEAR_SAMPLE_BLOCK_THREADS as usize;
const WARPS: usize = THREADS / warp::WARP_SIZE as usize;
/// The bits of f32 that tf32 has.
const TF32_BITS: u32 = !0x1FFF;

/// The place of a sample: splitmix64's bits, spread over the problems, rows and columns.
#[inline(always)]
fn place(sample: u64, batch: u32, m: u32, n: u32) -> (usize, usize, usize) {
    let mix = |step: u64| {
        let z = step.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    };
    let scaled = |bits: u64, count: u32| (((bits & 0xFFFF_FFFF) * count as u64) >> 32) as usize;
    let step = sample.wrapping_mul(2);
    let (first, second) = (mix(step.wrapping_add(1)), mix(step.wrapping_add(2)));
    (scaled(second, batch), scaled(first >> 32, m), scaled(first, n))
}

#[inline(always)]
fn tf32(value: f32, half: u32) -> f64 {
    f32::from_bits(value.to_bits().wrapping_add(half) & TF32_BITS) as f64
}

/// A block for each sample.
///
/// # Safety
/// As [`LinearSample`] says.
#[kernel(block = LINEAR_SAMPLE_BLOCK_THREADS, spills)]
pub unsafe fn linear_sample_f32(p: LinearSample) {
    let scratch = shared_array![u32; WARPS * 2];
    let own = thread::thread_idx_x() as usize;
    let number = thread::block_idx_x() as usize;
    let (problem, i, j) = place(p.seed.wrapping_add(number as u64), p.batch, p.m, p.n);
    let (lda, ldb) = (p.lda as usize, p.ldb as usize);
    let transposed_a = p.layout & Layout::TN as u32 != 0;
    let transposed_b = p.layout & Layout::NT as u32 != 0;
    // Where the sum's operands begin, and how far the next term is.
    let (a, a_step) = if transposed_a { (i, lda) } else { (i * lda, 1) };
    let (b, b_step) = if transposed_b { (j * ldb, 1) } else { (j, ldb) };
    let a = a + problem * p.a_stride as usize;
    let b = b + problem * p.b_stride as usize;
    let mut sums = [0.0_f64; LINEAR_SAMPLE_SUMS];
    let mut k = own;
    while k < p.k as usize {
        // SAFETY: a term of a problem's result: both operands are inside their matrices.
        let (x, y) = unsafe { (p.a.load(a + k * a_step), p.b.load(b + k * b_step)) };
        let term = x as f64 * y as f64;
        sums[0] += term;
        sums[1] += tf32(x, p.half) * tf32(y, p.half);
        sums[2] += term * term;
        k += THREADS;
    }
    let mut which = 0;
    while which < LINEAR_SAMPLE_SUMS {
        let total = block_fold::<_, WARPS, _>(sums[which], &scratch, |a, b| a + b);
        if let (Some(total), 0) = (total, own) {
            // SAFETY: the sample's own places.
            unsafe { p.sums.store(number * LINEAR_SAMPLE_SUMS + which, total) };
        }
        // Warp 0 has read the scratch.
        thread::sync_threads();
        which += 1;
    }
}

//! An activation fused with the layer norm or RMS norm of each row: the forward pass.
//!
//! # Math
//! `u = act(x)`; layer norm: μ = Σu/n, `r = 1/√(Σ(u−μ)²/n + ε)`; RMS norm: μ = 0, `r = 1/√(Σu²/n + ε)`,
//! over the n columns; `û = (u − μ)·r`, `y = û·γ + β`. With the activation last u = x and
//! `y = act(û·γ + β)`. All in f32. The variance is two-pass: Σu first, then d = u − m̂ with
//! `Σd²` and Σd, which takes what the rounding of m̂ left over out of both. Chunks of a long row merge by
//! Chan's form. NaN fills its row, an infinity as the formula has it. Sums of squares beyond f32, from
//! |u| of about 1e19/√n on, are infinite, and r is 0.
//!
//! # Layout
//! | buffer | shape | type | access |
//! |---|---|---|---|
//! | `input`, `output` | `[rows, cols]` row-major | f32, f16, bf16 | in, out; 16-byte aligned |
//! | `gamma`, `beta` | `[cols]`, or empty | f32 | in; 16-byte aligned |
//! | `mean`, `rstd` | `[rows]` | f32 | out, every element written |
//!
//! # Traffic
//! Reads and writes each element once: 2 · rows · cols · size bytes; a row longer than a block's
//! registers (8192 columns in 16-byte accesses) is read twice, the second time from L2. About 15
//! operations an element, and those of the activation: 1 (ReLU) to 50 (GELU with erf, f32), 15 in
//! f16 and bf16. Bound by memory. f32, 16384 × 4096 at 4.24 TB/s: 127 µs. Measured: see
//! `docs/performance.md`, `activation_norm`.
//!
//! # Launch
//! A persistent grid of 256-thread blocks, any size. A team of 1 to 256 threads takes a row; a thread
//! holds up to 32 columns of it in registers. The block's teams take rows in step, those beyond the
//! last idle; no thread leaves before the last barrier.
//!
//! # Determinism
//! Bitwise: the order of operations depends on `cols` and the plan's team only, not on grid or rows.
//!
//! # Source
//! J. L. Ba, J. R. Kiros, G. E. Hinton, "Layer Normalization", 2016; B. Zhang, R. Sennrich, "Root Mean
//! Square Layer Normalization", 2019; merge after Chan, Golub and LeVeque, 1979. Reference:
//! `kasmina_reference::normalization::activation_norm`.

use kasmina_device::convert::Float;
use kasmina_device::global::{Load, Store};
use kasmina_device::shared::Shared;
use kasmina_device::vector::{LoadHint, StoreHint, Vector};
use kasmina_device::{kernel, math, shared_array, thread, unroll};
use kasmina_types::tiles::{NORM_BLOCK_THREADS, NORM_FORWARD_MIN_BLOCKS};
use kasmina_types::{ActivationNorm, In, Norm, NormOrder, Out, bf16, f16};

use super::activation::{Precision, activate};
use super::team::{SCRATCH_WORDS, Share, Team, parameter};

/// Moments of a row as far as it was read.
#[derive(Clone, Copy)]
struct Moments {
    count: f32,
    mean: f32,
    /// Σ(u − mean)².
    m2: f32,
}

/// The kernel for elements of `T`, `L` of them an access, `V` accesses a thread.
///
/// # Safety
/// As [`ActivationNorm`] says, with rows of `vectors · L` columns and `depth` at most `V`; every block
/// of the grid runs it.
#[inline(always)]
unsafe fn activation_norm<T: Float, const L: usize, const V: usize>(p: ActivationNorm) {
    let scratch = shared_array![f32; SCRATCH_WORDS];
    let mut turn = 0;
    let team = Team::of(&p.plan);
    let mut first = thread::block_idx_x() * team.of_block;
    while first < p.plan.rows {
        // SAFETY: the row is checked inside; every thread of the block is here.
        unsafe { row::<T, L, V>(&p, team, first + team.index, &mut turn, &scratch) };
        first += thread::grid_dim_x() * team.of_block;
    }
}

/// One row of a team; a row beyond the last is not read or written.
///
/// The chunks are read from the first to the last for the moments, and written from the last, which is
/// still in registers, to the first.
///
/// # Safety
/// As [`activation_norm`]; every thread of the block calls it.
#[inline(always)]
unsafe fn row<T: Float, const L: usize, const V: usize>(
    p: &ActivationNorm,
    team: Team,
    row: u32,
    turn: &mut u32,
    scratch: &Shared<f32, SCRATCH_WORDS>,
) {
    let plan = &p.plan;
    let (input, output): (In<T>, Out<T>) = (p.input.cast(), p.output.cast());
    let layer = plan.norm == Norm::LayerNorm as u32;
    let activation_last = plan.order == NormOrder::NormThenActivation as u32;
    let works = row < plan.rows;
    let begin = row as usize * plan.vectors as usize;

    let mut u = [[0.0; L]; V];
    let mut moments = Moments { count: 0.0, mean: 0.0, m2: 0.0 };
    let mut rstd = 0.0;
    let (mut chunk, mut writes) = (0, false);
    loop {
        let share = team.share(plan, chunk);
        let place = |v: usize| if works { share.vector(v) } else { None };
        let fresh = !writes || chunk + 1 < plan.chunks;
        if fresh {
            // All loads first: they are on their way together.
            let mut raw = [Vector([T::zeroed(); L]); V];
            unroll!(v in V => {
                if let Some(vector) = place(v) {
                    // SAFETY: row and vector are inside the input, and the vector is aligned.
                    raw[v] = unsafe { input.load_vector((begin + vector) * L, LoadHint::Cached) };
                }
            });
            unroll!(v in V => { u[v] = raw[v].map(T::to_f32).0; });
        }
        let affine = |u: &mut [f32; L], vector: usize| {
            // SAFETY: γ and β have a value for each column, or are empty.
            let (gamma, beta) = unsafe {
                (
                    parameter::<L>(&p.gamma, vector * L, 1.0),
                    parameter::<L>(&p.beta, vector * L, 0.0),
                )
            };
            unroll!(l in L => {
                u[l] = math::fma((u[l] - moments.mean) * rstd, gamma[l], beta[l]);
            });
        };
        unroll!(v in V => {
            if let Some(vector) = place(v) {
                if writes && activation_last {
                    affine(&mut u[v], vector);
                }
                if if activation_last { writes } else { fresh } {
                    activate(Precision::of::<T>(), plan.activation, &mut u[v]);
                }
                if writes {
                    if !activation_last {
                        affine(&mut u[v], vector);
                    }
                    let y = Vector(u[v]).map(T::from_f32);
                    // SAFETY: as for the load; the vector is this thread's alone.
                    unsafe { output.store_vector((begin + vector) * L, y, StoreHint::Cached) };
                }
            }
        });
        if writes {
            if chunk == 0 {
                return;
            }
            chunk -= 1;
            continue;
        }
        let of_chunk = chunk_moments(&u, share, team, L as u32, layer, turn, scratch);
        moments = moments.merge(of_chunk);
        chunk += 1;
        if chunk == plan.chunks.max(1) {
            chunk -= 1;
            writes = true;
            rstd = 1.0 / math::sqrt(moments.m2 / moments.count + plan.epsilon);
            if works && team.member == 0 {
                // SAFETY: `row < rows`, and one thread writes it.
                unsafe {
                    p.mean.store(row as usize, moments.mean);
                    p.rstd.store(row as usize, rstd);
                }
            }
        }
    }
}

/// The moments of a chunk, in every thread of the team: about 0 for RMS norm. All threads of the block
/// call it.
#[inline(always)]
fn chunk_moments<const L: usize, const V: usize>(
    u: &[[f32; L]; V],
    share: Share,
    team: Team,
    lanes: u32,
    layer: bool,
    turn: &mut u32,
    scratch: &Shared<f32, SCRATCH_WORDS>,
) -> Moments {
    let count = (share.vectors_of_chunk() * lanes) as f32;
    let mut mean = 0.0;
    if layer {
        let mut sum = 0.0;
        unroll!(v in V => {
            if share.vector(v).is_some() {
                let mut of_vector = 0.0;
                unroll!(l in L => { of_vector += u[v][l]; });
                sum += of_vector;
            }
        });
        mean = team.sum([sum, 0.0], turn, scratch)[0] / count;
    }
    let (mut deviation, mut squares) = (0.0, 0.0);
    unroll!(v in V => {
        if share.vector(v).is_some() {
            unroll!(l in L => {
                let d = u[v][l] - mean;
                deviation += d;
                squares = math::fma(d, d, squares);
            });
        }
    });
    let [deviation, squares] = team.sum([deviation, squares], turn, scratch);
    if !layer {
        return Moments { count, mean: 0.0, m2: squares };
    }
    // What the mean's rounding left: Σd = n·(μ − m̂), and Σd² is n·(μ − m̂)² too large.
    let rest = deviation / count;
    let m2 = math::fma(-deviation, rest, squares);
    // Deviations from an infinite mean are no numbers, and NaN is not below 0: both stay.
    let mean = if mean.abs() < f32::INFINITY { mean + rest } else { mean };
    Moments { count, mean, m2: if m2 < 0.0 { 0.0 } else { m2 } }
}

impl Moments {
    /// Chan's merge.
    #[inline(always)]
    fn merge(self, other: Self) -> Self {
        let count = self.count + other.count;
        let share = other.count / count;
        let delta = other.mean - self.mean;
        // The mean of an infinity is that infinity, of both NaN, as their sum is.
        let finite = delta.abs() < f32::INFINITY;
        Self {
            count,
            mean: if finite { math::fma(delta, share, self.mean) } else { self.mean + other.mean },
            // Not δ²·weight: the square of a large δ overflows where the product need not.
            m2: math::fma(delta, delta * (self.count * share), self.m2 + other.m2),
        }
    }
}

macro_rules! instance {
    ($entry:ident, $element:ty, $dtype:ident, $lanes:literal, $vectors:literal
     $(, $spills:ident)?) => {
        /// The forward pass for one element type and access width.
        ///
        /// # Safety
        /// As [`ActivationNorm`] says, with columns that are a multiple of the instance's lanes.
        #[kernel(block = NORM_BLOCK_THREADS, min_blocks = NORM_FORWARD_MIN_BLOCKS $(, $spills)?)]
        pub unsafe fn $entry(p: ActivationNorm) {
            // SAFETY: the entry's contract.
            unsafe { activation_norm::<$element, $lanes, $vectors>(p) }
        }
    };
}

kasmina_types::activation_norm_tiles!(instance);

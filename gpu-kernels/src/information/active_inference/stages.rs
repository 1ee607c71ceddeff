//! The stages of a belief step, a kernel each: complexity, accuracy, and the step itself.
//!
//! # Math
//! `fused_kl_complexity`: Σ ½[s/v0 + (μ − m0)²/v0 − 1 − ln(s/v0)], s clamped to 1e-10. `fused_accuracy_pipeline`:
//! r = o − b − J·μ, −½Σ[π·r² + ln(2π/π_i)], and that minus ½Σ_i π_i Σ_j J_ij² s_j. `fused_belief_update`:
//! μ ← μ + κ·(Jᵀ(π·r) − (μ − m0)/v0). In f64; `_f32` instances have J in f32.
//!
//! # Layout
//! As [`InferenceStage`] says: J `[models, observations, stride]`, vectors f64 `[models, stride]` or
//! `[models, observations]`.
//!
//! # Traffic
//! Complexity: 32·n bytes. Accuracy and update: J once each, 8·m·n bytes in f64, bound by memory or L2; 4096 × 4096 at
//! 4.2 TB/s: 32 µs each. The kernels of `infer` read J once for all of it: take these to have a stage
//! by itself.
//!
//! # Launch
//! Blocks of 256 threads over a persistent grid. Complexity: a block a model. Accuracy: a warp a row, a block eight
//! rows; the last block of a model adds up. Update: a block 32 columns. Every thread meets every barrier.
//!
//! # Determinism
//! Bitwise: lanes by butterfly, warps and blocks in their order, whatever the grid.
//!
//! # Source
//! K. Friston et al., "Variational free energy and the Laplace approximation", 2007. Reference:
//! `kasmina_reference::information::active_inference::belief_step`, and `complexity` and `free_energy` beside it.

use kasmina_device::global::{Load, Store};
use kasmina_device::reduce::{block_fold, warp_fold};
use kasmina_device::vector::{LoadHint, Vector};
use kasmina_device::{grid, kernel, math, shared_array, thread, unroll, warp};
use kasmina_types::{In, InferenceStage};

use super::sweep::floored;
use crate::fusion::stages::{accuracy_term, belief_update, complexity_term};
use crate::information::scalar::Scalar;

const BLOCK: usize = kasmina_types::tiles::INFERENCE_STAGE_BLOCK_THREADS as usize;
const WARPS: usize = BLOCK / warp::WARP_SIZE as usize;
const WARP: usize = warp::WARP_SIZE as usize;
/// Rows that a thread of the update has in flight.
const IN_FLIGHT: usize = 4;

/// Both accuracies.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Accuracy {
    plugin: f64,
    expected: f64,
}

impl Accuracy {
    const ZERO: Self = Self { plugin: 0.0, expected: 0.0 };

    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        Self { plugin: self.plugin + other.plugin, expected: self.expected + other.expected }
    }
}

/// KL(q ‖ prior) of each model.
///
/// # Safety
/// As [`InferenceStage`] says.
#[kernel(block = BLOCK as u32)]
pub unsafe fn fused_kl_complexity_f64(p: InferenceStage) {
    let scratch = shared_array![u32; WARPS * 2];
    let mut model = thread::block_idx_x() as usize;
    while model < p.models as usize {
        let base = model * p.stride as usize;
        let mut own = 0.0;
        let mut j = thread::thread_idx_x() as usize;
        while j < p.states as usize {
            // SAFETY: a state of the model.
            unsafe {
                own += complexity_term(
                    p.mean.load(base + j),
                    p.variance.load(base + j),
                    p.prior_mean.load(base + j),
                    p.prior_var.load(base + j),
                );
            }
            j += BLOCK;
        }
        let total = block_fold::<_, WARPS, _>(own, &scratch, |a, b| a + b);
        if let (Some(total), 0) = (total, thread::thread_idx_x()) {
            // SAFETY: one thread of one block writes the model's place.
            unsafe { p.output.store(model, total) };
        }
        // Warp 0 has read the scratch.
        thread::sync_threads();
        model += thread::grid_dim_x() as usize;
    }
}

/// Residuals and accuracies.
///
/// # Safety
/// As [`InferenceStage`] says; every block of the grid runs it.
#[inline(always)]
unsafe fn accuracy<T: Scalar, const L: usize>(p: InferenceStage) {
    let scratch = shared_array![u32; WARPS * 4];
    let jacobian: In<T> = p.jacobian.cast();
    let (lane, warp) = (thread::lane_idx() as usize, thread::warp_idx() as usize);
    let (rows, stride) = (p.observations as usize, p.stride as usize);
    let tiles = rows.div_ceil(WARPS);
    let mut tile = thread::block_idx_x() as usize;
    while tile < tiles * p.models as usize {
        let (model, within) = (tile / tiles, tile % tiles);
        let row = within * WARPS + warp;
        let mut own = Accuracy::ZERO;
        // The same for the whole warp.
        if row < rows {
            let at = model * rows + row;
            let (mut dot, mut spread) = (0.0, 0.0);
            let mut vector = lane;
            while vector < stride / L {
                // SAFETY: inside the row, aligned as rows are; states of the model.
                unsafe {
                    let j: Vector<T, L> =
                        jacobian.load_vector(at * stride + vector * L, LoadHint::Streaming);
                    unroll!(l in L => {
                        let state = model * stride + vector * L + l;
                        let value = j.0[l].wide();
                        dot = math::fma_f64(value, p.mean.load(state), dot);
                        spread =
                            math::fma_f64(value * value, floored(p.variance.load(state)), spread);
                    });
                }
                vector += WARP;
            }
            let sums = warp_fold(Accuracy { plugin: dot, expected: spread }, Accuracy::plus);
            // SAFETY: a row of the model, whose residual one lane stores.
            unsafe {
                let (residual, precision) =
                    (p.target.load(at) - sums.plugin, p.obs_precision.load(at));
                let plugin = accuracy_term(residual, precision);
                if lane == 0 {
                    p.residual.store(at, residual);
                    own = Accuracy { plugin, expected: plugin - 0.5 * precision * sums.expected };
                }
            }
        }
        let total = block_fold::<_, WARPS, _>(own, &scratch, Accuracy::plus);
        if let (Some(total), 0) = (total, thread::thread_idx_x()) {
            // SAFETY: one thread of one block writes the tile's places.
            unsafe {
                p.partials.store(2 * tile, total.plugin);
                p.partials.store(2 * tile + 1, total.expected);
            }
        }
        // SAFETY: every thread of the block arrives, once for each tile of the model.
        if unsafe { grid::arrive_is_last(&p.arrivals, model, tiles as u32) } {
            let mut own = Accuracy::ZERO;
            let mut other = thread::thread_idx_x() as usize;
            while other < tiles {
                let at = 2 * (model * tiles + other);
                // SAFETY: all tiles were left before their blocks arrived.
                own = own.plus(unsafe {
                    Accuracy { plugin: p.partials.load(at), expected: p.partials.load(at + 1) }
                });
                other += BLOCK;
            }
            let total = block_fold::<_, WARPS, _>(own, &scratch, Accuracy::plus);
            if let (Some(total), 0) = (total, thread::thread_idx_x()) {
                // SAFETY: one thread of one block writes the model's places.
                unsafe {
                    p.output.store(2 * model, total.plugin);
                    p.output.store(2 * model + 1, total.expected);
                }
            }
        }
        // Warp 0 has read the scratch.
        thread::sync_threads();
        tile += thread::grid_dim_x() as usize;
    }
}

/// One belief step from residuals.
///
/// # Safety
/// As [`InferenceStage`] says; every block of the grid runs it.
#[inline(always)]
unsafe fn update<T: Scalar>(p: InferenceStage) {
    let sums_smem = shared_array![f64; BLOCK];
    let jacobian: In<T> = p.jacobian.cast();
    let (lane, warp) = (thread::lane_idx() as usize, thread::warp_idx() as usize);
    let (rows, stride, states) = (p.observations as usize, p.stride as usize, p.states as usize);
    let tiles = states.div_ceil(WARP);
    let mut tile = thread::block_idx_x() as usize;
    while tile < tiles * p.models as usize {
        let (model, column) = (tile / tiles, tile % tiles * WARP + lane);
        let mut sum = 0.0;
        let mut row = warp;
        while row < rows && column < states {
            let mut values = [0.0; IN_FLIGHT];
            let mut weights = [0.0; IN_FLIGHT];
            unroll!(i in IN_FLIGHT => {
                if row + i * WARPS < rows {
                    let at = model * rows + row + i * WARPS;
                    // SAFETY: a row and a column of the model.
                    unsafe {
                        values[i] = jacobian.load(at * stride + column).wide();
                        weights[i] = p.obs_precision.load(at) * p.residual.load(at);
                    }
                }
            });
            unroll!(i in IN_FLIGHT => { sum = math::fma_f64(values[i], weights[i], sum) });
            row += IN_FLIGHT * WARPS;
        }
        // SAFETY: the place is this thread's.
        unsafe { sums_smem.write(warp * WARP + lane, sum) };
        // Orders the warps' sums before warp 0's merge.
        thread::sync_threads();
        if warp == 0 && column < states {
            let mut total = 0.0;
            unroll!(i in WARPS => {
                // SAFETY: warp `i` wrote it before the barrier.
                total += unsafe { sums_smem.read(i * WARP + lane) };
            });
            let at = model * stride + column;
            // SAFETY: the state is this thread's.
            unsafe {
                let x = p.mean.load(at);
                let (prior_mean, prior_var) = (p.prior_mean.load(at), p.prior_var.load(at));
                let kappa = p.kappa.load(model);
                p.mean.store(at, belief_update(total, x, prior_mean, prior_var, kappa));
            }
        }
        // Warp 0 has read the sums.
        thread::sync_threads();
        tile += thread::grid_dim_x() as usize;
    }
}

macro_rules! instance {
    ($accuracy:ident, $update:ident, $element:ty, $dtype:ident, $lanes:literal) => {
        /// Residuals and accuracies.
        ///
        /// # Safety
        /// As [`InferenceStage`] says.
        #[kernel(block = BLOCK as u32)]
        pub unsafe fn $accuracy(p: InferenceStage) {
            // SAFETY: the entry's contract.
            unsafe { accuracy::<$element, $lanes>(p) }
        }

        /// One belief step from residuals.
        ///
        /// # Safety
        /// As [`InferenceStage`] says.
        #[kernel(block = BLOCK as u32)]
        pub unsafe fn $update(p: InferenceStage) {
            // SAFETY: the entry's contract.
            unsafe { update::<$element>(p) }
        }
    };
}

kasmina_types::inference_stage_tiles!(instance);

//! Free energy and belief steps of linear Gaussian models in one launch: one step, steps until they converge, and the
//! power iteration that bounds the step.
//!
//! # Math
//! r = o − b − J·μ. Complexity Σ ½[s/v0 + (μ − m0)²/v0 − 1 − ln(s/v0)], s clamped to 1e-10; plug-in accuracy
//! −½Σ[π·r² + ln(2π/π_i)]; the expected one subtracts ½Σ_i π_i Σ_j J_ij² s_j. Step: μ ← μ + κ·g with
//! g = Jᵀ(π·r) − (μ − m0)/v0. The free energy is that at the μ before the step. `infer_until_converged`: at each μ the
//! free energy and √(Σ v0·g²), which is no less than the distance to the posterior mean in prior standard deviations;
//! it ends where that is within the tolerance or not finite, or at the last step, with the free energy at the μ that it
//! leaves. `curvature`: v ← H·v/‖H·v‖ with H = JᵀΠJ + V0⁻¹; λ = vᵀH·v, until its relative change is within the
//! tolerance, after 24 steps at the earliest. `_f32` instances have J in f32; vectors, arithmetic and sums are in f64 in
//! all of them.
//!
//! # Layout
//! As [`ActiveInference`] says: J `[models, observations, stride]` with rows of a multiple of 16 bytes, zeros beyond the
//! states; vectors f64, `[models, stride]` or `[models, observations]`.
//!
//! # Traffic
//! Reads J once a step: 8·m·n bytes in f64, four operations an element. Bound by memory where J is larger than L2, by
//! latency below: a launch, two passes through L2 and one barrier of the grid. n = m = 4096: 134 MB, 32 µs at
//! 4.2 TB/s, and a launch, a barrier of the grid and the column sums beside it; n = m = 1024: 8.4 MB from L2, latency
//! alone; n = m = 64: one block, no barrier of the grid; a step of no more is [`small`](super::small)'s. Column sums: parts · n f64 written and read in L2. In
//! `infer_until_converged` J stays in registers where a team has no more rows than it holds.
//!
//! # Launch
//! Blocks of 512 threads, `parts` for a model; a cooperative launch where `parts` is above 1. `_c64`, `_c256`, `_c1024`
//! and `_c4096` give a row to a team of 1, 1, 4 or 16 warps, for as many states at most. `_bulk`, for compute capability
//! 9.0 and up to 4096 states, takes two rows at a time, which bulk copies bring. `_wide` takes any number of states
//! and reads J a second time from L2. Dynamic shared memory: 8 KiB for `_c64`, 32 KiB, 64 KiB for `_c4096`, 192 KiB for
//! `_bulk`, none for `_wide`. Every thread meets every barrier.
//!
//! # Determinism
//! Bitwise for the same `parts`: rows by team and turn, threads' columns by butterfly and warp, then teams in their
//! order; of the blocks' column sums each warp adds every sixteenth, then come the warps in their order.
//!
//! # Source
//! K. Friston et al., "Variational free energy and the Laplace approximation", 2007; the bound is original. Reference:
//! `kasmina_reference::information::active_inference::{belief_step, infer, largest_curvature}`.

use kasmina_device::global::{Load, Store};
use kasmina_device::grid::BlockPlace;
use kasmina_device::vector::{StoreHint, Vector};
use kasmina_device::{grid, hint, kernel, math, shared_array, thread};
use kasmina_types::active_inference::{BLOCK_SUMS, CURVATURE_LEAST_STEPS, TRACE_FIGURES};
use kasmina_types::{ActiveInference, InferenceFigures};

use super::columns::{CURVATURE, Column, INFER, Move, STEP, gather, look_up, move_column};
use super::sums::{
    MOVED, Moved, NONE, SUMS, Sums, fold, leave, leave_parts, total_moved, total_sums,
};
use super::sweep::{BLOCK, Pass, Share, Sweep, WARPS, floored, here};
use super::teams::Teams;
use super::wide::Wide;

/// The parameters, read anew where a resident kernel has them in shared memory: in registers they leave no room for the rest.
#[inline(always)]
fn anew<const C: bool>(p: &ActiveInference<C>) -> &ActiveInference<C> {
    if C { hint::opaque_reference(p) } else { p }
}

/// All models of a block's group.
///
/// # Safety
/// As [`ActiveInference`] says; every thread of the block calls it.
#[inline(always)]
pub(crate) unsafe fn run<S: Sweep, const MODE: u32, const C: bool>(
    p: &ActiveInference<C>,
    place: BlockPlace,
) {
    let scratch = shared_array![f64; WARPS * SUMS];
    let tid = thread::thread_idx_x() as usize;
    let block = place.block;
    // 32-bit divisions, and none where a block has a model: they would be the longest part of a small launch.
    let (group, part, groups) = if p.parts > 1 {
        (block / p.parts, block % p.parts, place.blocks / p.parts)
    } else {
        (block, 0, place.blocks)
    };
    let (parts, (begin, end)) = (p.parts, p.rows_of(part));
    let first_slot = block - part;
    // The columns that this block moves, and whose complexity it counts.
    let columns = || {
        let p = anew(p);
        let per_part = hint::opaque(p.part_states);
        let (first, last) = (part * per_part, part * per_part + per_part);
        let within = |column: u32| if column < p.states { column } else { p.states } as usize;
        (within(first), within(last))
    };

    // SAFETY: every thread of the group's blocks arrives, and all are resident at once.
    let meet = || unsafe {
        if parts > 1 {
            grid::barrier(&anew(p).barriers, group as usize, parts, part == 0);
        } else {
            thread::sync_threads();
        }
    };

    let mut held = S::nothing(p);
    let mut model = group;
    while model < p.models {
        let share = Share { model, begin, end, slot: block };
        // SAFETY: one κ for each model.
        let kappa = if MODE == CURVATURE { 0.0 } else { unsafe { p.kappa.load(model as usize) } };
        // What does not change from step to step, in the thread that found it.
        let mut fixed = Sums::ZERO;
        let (mut from, mut to) = (p.mean, if MODE == STEP { p.mean } else { p.other_mean });
        let (mut steps, mut scale, mut last) = (0_u32, 1.0_f64, 0.0_f64);
        loop {
            let p = anew(p);
            let first = steps == 0;
            let pass = Pass { mean: from, scale, first, observes: MODE != CURVATURE };
            let step = Move { share, kappa, scale, from, to };
            // SAFETY: the share is inside the model; every thread is here.
            unsafe { S::hold(p, &share, &pass, &mut held) };
            let mut own = Sums::ZERO;
            let p = anew(p);
            if MODE != CURVATURE {
                let (base, (first_column, last_column)) = (share.fresh(p).base, columns());
                let mut j = first_column + here();
                while j < last_column {
                    // SAFETY: a state of the model.
                    unsafe {
                        let v0 = p.prior_var.load(base + j);
                        let d = from.load(base + j) - p.prior_mean.load(base + j);
                        own.complexity += d * d / v0;
                        if first {
                            let ratio = floored(p.variance.load(base + j)) / v0;
                            fixed.complexity += ratio - 1.0 - math::log_f64(ratio);
                        }
                    }
                    j += BLOCK;
                }
                // The other end of the block, while this one counts complexity.
                let mut i = BLOCK - 1 - here();
                while first && i < (end - begin) as usize {
                    // SAFETY: a row of the model.
                    let precision = unsafe { p.obs_precision.load(share.fresh(p).row(i)) };
                    fixed.logs += math::log_f64(core::f64::consts::TAU / precision);
                    i += BLOCK;
                }
            }
            let p = anew(p);
            let mut moved = Moved::ZERO;
            let emit = |column: usize, sum: f64| {
                let p = anew(p);
                // SAFETY: each column is one thread's; the slot is the block's.
                unsafe {
                    if parts > 1 {
                        p.partials.store(share.fresh(p).own + column, sum);
                    } else {
                        let found = look_up(p, &step, column);
                        moved = move_column::<MODE, C>(p, &step, column, found, sum, moved);
                    }
                }
            };
            // SAFETY: the share is inside the model; every thread is here.
            own.misfit = unsafe { S::pass(p, &share, &pass, &mut held, &mut fixed.spread, emit) };
            let p = anew(p);
            // The model's sums, in the thread that leaves them.
            let (mut total, mut leaves) = (Sums::ZERO, false);
            if MODE != CURVATURE {
                total = fold(own.plus(fixed), &scratch);
                leaves = parts == 1 && tid == 0;
                if parts > 1 && tid == 0 {
                    let Sums { misfit, logs, spread, complexity } = total;
                    let at = block as usize * BLOCK_SUMS;
                    let pairs = [Vector([misfit, logs]), Vector([spread, complexity])];
                    // SAFETY: the slot is the block's.
                    unsafe {
                        p.sums.store_vector(at, pairs[0], StoreHint::Cached);
                        p.sums.store_vector(at + 2, pairs[1], StoreHint::Cached);
                    }
                }
            }
            if parts > 1 {
                // The first stripe's states, in warp 0, while the others come.
                let lane = thread::lane_idx() as usize;
                let (first_column, last_column) = columns();
                let mut ahead = Column { x: 0.0, prior_mean: 0.0, prior_var: 1.0 };
                if thread::warp_idx() == 0 && first_column + lane < last_column {
                    // SAFETY: a state of the model.
                    ahead = unsafe { look_up(p, &step, first_column + lane) };
                }
                meet();
                if MODE != CURVATURE && part == 0 && thread::warp_idx() == 1 {
                    // SAFETY: all parts of the group have left their sums; the warp is whole.
                    total = unsafe { total_sums(p, first_slot) };
                    leaves = lane == 0;
                }
                // SAFETY: all parts of the group have left their columns' sums.
                moved = unsafe {
                    gather::<MODE, C>(p, &step, first_slot, first_column, last_column, ahead)
                };
            }
            if MODE == STEP {
                if leaves {
                    // SAFETY: one thread of the group writes the model's figures.
                    unsafe { leave(p, model, InferenceFigures { steps: 1, ..total.figures() }) };
                }
                break;
            }
            let p = anew(p);
            // Warp 0 has read the scratch.
            thread::sync_threads();
            let folded =
                fold(Sums { misfit: moved.first, logs: moved.second, ..Sums::ZERO }, &scratch);
            if tid == 0 {
                let moved = Moved { first: folded.misfit, second: folded.logs };
                // SAFETY: the slot is the block's.
                unsafe {
                    let pair = Vector([moved.first, moved.second]);
                    p.sums.store_vector(
                        block as usize * BLOCK_SUMS + MOVED,
                        pair,
                        StoreHint::Cached,
                    );
                }
            }
            meet();
            // SAFETY: all parts of the group have left what they moved; every warp is whole.
            let moved = unsafe { total_moved(p, first_slot) };
            if MODE == CURVATURE {
                let quotient = moved.first;
                scale = 1.0 / math::sqrt_f64(moved.second);
                steps += 1;
                let change = quotient - last;
                let settled =
                    steps >= CURVATURE_LEAST_STEPS && change.abs() <= p.tolerance * quotient;
                last = quotient;
                if settled || steps >= p.max_steps || !quotient.is_finite() {
                    if tid == 0 && part == 0 {
                        let figures = InferenceFigures {
                            steps,
                            converged: u32::from(settled),
                            curvature: quotient,
                            ..NONE
                        };
                        // SAFETY: one thread of the group writes the model's figures.
                        unsafe { leave(p, model, figures) };
                    }
                    break;
                }
            } else {
                let bound = math::sqrt_f64(moved.first);
                let converged = bound <= p.tolerance;
                let ends = converged || steps == p.max_steps || !bound.is_finite();
                if leaves {
                    let converged = u32::from(converged);
                    let figures = InferenceFigures {
                        distance_bound: bound,
                        steps,
                        converged,
                        ..total.figures()
                    };
                    // SAFETY: one thread of the group writes the model's trace and figures.
                    unsafe {
                        if steps < p.trace_points {
                            let point = model as usize * p.trace_points as usize + steps as usize;
                            leave_parts(&p.trace, point * TRACE_FIGURES, &figures);
                        }
                        if ends {
                            leave(p, model, figures);
                        }
                    }
                }
                if ends {
                    break;
                }
                steps += 1;
            }
            (from, to) = (to, from);
        }
        if MODE == INFER && steps % 2 == 1 {
            // The last μ is where every other one is.
            let (base, (first_column, last_column)) = (share.fresh(p).base, columns());
            let mut j = first_column + here();
            while j < last_column {
                // SAFETY: a state of the model, which nobody reads or writes any more.
                unsafe { p.mean.store(base + j, p.other_mean.load(base + j)) };
                j += BLOCK;
            }
        }
        model += groups;
        if model < p.models {
            // What the others still read of this model the next one writes.
            meet();
        }
    }
}

macro_rules! instance {
    ($step:ident, $infer:ident, $curvature:ident, $element:ty, $dtype:ident, $lanes:literal,
     $vectors:literal, $sweep:ident, $team:literal, $depth:literal, $group:literal,
     $columns:literal $(, $spills:ident)?) => {
        instance!(@one $step, STEP,
            instance!(@sweep $sweep, $element, $lanes, $vectors, $team, $depth, $group),
            "One belief step, and the free energy before it." $(, $spills)?);
        instance!(@one $infer, INFER,
            instance!(@sweep $sweep, $element, $lanes, $vectors, $team, $depth, $group),
            "Belief steps until they converge." $(, $spills)?);
        instance!(@one $curvature, CURVATURE,
            instance!(@sweep $sweep, $element, $lanes, $vectors, $team, $depth, $group),
            "λmax by power iteration." $(, $spills)?);
    };
    (@sweep Teams, $element:ty, $lanes:literal, $vectors:literal, $team:literal, $depth:literal,
     $group:literal) => {
        Teams<$element, $lanes, $vectors, $team, $depth, $group>
    };
    (@sweep Wide, $element:ty, $lanes:literal, $vectors:literal, $team:literal, $depth:literal,
     $group:literal) => {
        Wide<$element, $lanes>
    };
    (@one $entry:ident, $mode:ident, $sweep:ty, $doc:literal $(, $spills:ident)?) => {
        #[doc = $doc]
        ///
        /// # Safety
        /// As [`ActiveInference`] says; the states are within what the instance is for.
        #[kernel(block = BLOCK as u32 $(, $spills)?)]
        pub unsafe fn $entry(p: ActiveInference) {
            // SAFETY: the entry's contract.
            unsafe { run::<$sweep, $mode, _>(&p, BlockPlace::of_launch()) }
        }
    };
}

kasmina_types::active_inference_tiles!(instance);

macro_rules! bulk_instance {
    ($step:ident, $infer:ident, $curvature:ident, $element:ty, $dtype:ident, $lanes:literal,
     $vectors:literal $(, $spills:ident)?) => {
        bulk_instance!(@one $step, STEP, super::bulk::Bulk<$element, $lanes, $vectors>,
            "One belief step, and the free energy before it; bulk copies bring J." $(, $spills)?);
        bulk_instance!(@one $infer, INFER, super::bulk::Bulk<$element, $lanes, $vectors>,
            "Belief steps until they converge; bulk copies bring J." $(, $spills)?);
        bulk_instance!(@one $curvature, CURVATURE, super::bulk::Bulk<$element, $lanes, $vectors>,
            "λmax by power iteration; bulk copies bring J." $(, $spills)?);
    };
    (@one $entry:ident, $mode:ident, $sweep:ty, $doc:literal $(, $spills:ident)?) => {
        #[doc = $doc]
        ///
        /// # Safety
        /// As [`ActiveInference`] says; the states are within what the instance is for.
        #[kernel(block = BLOCK as u32, arch = 90 $(, $spills)?)]
        pub unsafe fn $entry(p: ActiveInference) {
            // SAFETY: the entry's contract.
            unsafe { run::<$sweep, $mode, _>(&p, BlockPlace::of_launch()) }
        }
    };
}

kasmina_types::active_inference_bulk_tiles!(bulk_instance);

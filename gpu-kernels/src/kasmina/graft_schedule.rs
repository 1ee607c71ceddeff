//! One epoch for every seed: α rises by the seed's schedule, and the counts of epochs go on.
//!
//! # Math
//! For a GRAFTING seed with ramp length n, α ← min(α + δ, target):
//! FIXED_RAMP δ = 1/n. PERFORMANCE_LINKED δ = (1/n)·clip(2·max(0, L₀−L)/L₀, 0.5, 3), or 1/n where
//! L₀ ≤ 1e-12; the first call stores L₀ = L and rises by it too, hence by 0.5/n. DRIFT_CONTROLLED, with d
//! the mean of the last five drifts, this epoch's among them, or of as many as there are: 2/n for d < θ/2,
//! 1/n for d < θ, else 0. GRAD_NORM_GATED δ = 1/n while 0.1 ≤ norm ≤ 1, else 0. A figure that is not
//! finite moves nothing: α, L₀ and the drifts stay, and the seed is counted in `skipped`; figures that the
//! seed's own schedule does not read are not looked at. For every seed `epochs_in_state` rises by 1 and
//! `embargo_epochs` falls by 1, neither past its end. δ and the mean are in f64, α is rounded to f32 once.
//!
//! # Layout
//! | buffer | shape | type | access |
//! |---|---|---|---|
//! | `lifecycle`, `schedule`, `alpha_target`, `ramp_epochs` | `[num_seeds]` | u8, u8, f32, u32 | in |
//! | `loss`, `drift`, `gradient_norm` | `[num_seeds]` | f32 | in |
//! | `alpha`, `baseline_loss`, `drift_count` | `[num_seeds]` | f32, f32, u32 | in and out |
//! | `drift_history` | `[num_seeds, 5]` | f32 | in and out, a ring for each seed |
//! | `epochs_in_state`, `embargo_epochs` | `[num_seeds]` | u32 | in and out |
//! | `skipped` | `[1]` | u32 | out |
//! | `tally` | `[2]` | u32 | scratch, zero before and after |
//!
//! # Traffic
//! About 40 bytes a seed, 80 where drifts are averaged: nothing beside the launch itself.
//!
//! # Launch
//! A thread for each seed, blocks of 256. Threads past the last seed only vote and meet the barriers.
//!
//! # Determinism
//! Bitwise: seeds are independent, and the count is a sum of integers.
//!
//! # Source
//! Original. Reference: `kasmina_reference::kasmina::graft_epoch`.

use kasmina_device::atomic::{self, Order, Scope};
use kasmina_device::global::{Load, Store};
use kasmina_device::{grid, kernel, thread, warp};
use kasmina_types::schedule::{
    DRIFT_THRESHOLD, DRIFT_WINDOW, GRADIENT_NORM_BAND, SMALLEST_BASELINE_LOSS,
};
use kasmina_types::{BlendSchedule, GraftSchedule, SeedLifecycle};

/// One epoch.
///
/// # Safety
/// Every array has the length that [`GraftSchedule`] says, each schedule is one, each ramp is at least 1;
/// the grid has a thread for each seed.
#[kernel(block = 256)]
pub unsafe fn graft_schedule_f32(p: GraftSchedule) {
    let seed = thread::index_1d() as usize;
    let mut skips = false;
    if seed < p.num_seeds as usize {
        // SAFETY: the seed's places in all arrays are inside, and this thread's alone.
        unsafe {
            if p.seeds.lifecycle.load(seed) == SeedLifecycle::Grafting as u8 {
                skips = !rise(&p, seed);
            }
            let epochs = p.seeds.epochs_in_state.load(seed);
            p.seeds.epochs_in_state.store(seed, epochs.saturating_add(1));
            let embargo = p.seeds.embargo_epochs.load(seed);
            p.seeds.embargo_epochs.store(seed, embargo.saturating_sub(1));
        }
    }
    let skipped = warp::ballot(warp::FULL_MASK, skips).count_ones();
    if thread::lane_idx() == 0 && skipped > 0 {
        // SAFETY: the tally has two words; both are accessed atomically.
        unsafe { atomic::fetch_add(&p.tally, 0, skipped, Order::Relaxed, Scope::Device) };
    }
    // SAFETY: every thread arrives, each block once.
    let last = unsafe { grid::arrive_is_last(&p.tally, 1, thread::grid_dim_x()) };
    if last && thread::thread_idx_x() == 0 {
        // SAFETY: every other block has added its share and is done with the tally.
        unsafe {
            let total = atomic::exchange(&p.tally, 0, 0, Order::Relaxed, Scope::Device);
            p.skipped.store(0, total);
        }
    }
}

/// Raises the seed's α; false, and nothing else, where its schedule's figure is not finite.
///
/// # Safety
/// `seed` is inside the arrays and this thread's alone.
#[inline(always)]
unsafe fn rise(p: &GraftSchedule, seed: usize) -> bool {
    // SAFETY: the caller's contract.
    unsafe {
        let step = 1.0 / f64::from(p.seeds.ramp_epochs.load(seed));
        let rise = match BlendSchedule::from_u8(p.seeds.schedule.load(seed)) {
            Some(BlendSchedule::PerformanceLinked) => {
                let loss = p.epoch.loss.load(seed);
                if !loss.is_finite() {
                    return false;
                }
                step * performance(p, seed, loss)
            }
            Some(BlendSchedule::DriftControlled) => {
                let drift = p.epoch.drift.load(seed);
                if !drift.is_finite() {
                    return false;
                }
                let (mean, threshold) = (mean_drift(p, seed, drift), f64::from(DRIFT_THRESHOLD));
                if mean < threshold / 2.0 {
                    2.0 * step
                } else if mean < threshold {
                    step
                } else {
                    0.0
                }
            }
            Some(BlendSchedule::GradNormGated) => {
                let norm = p.epoch.gradient_norm.load(seed);
                if !norm.is_finite() {
                    return false;
                }
                let [low, high] = GRADIENT_NORM_BAND;
                if low <= norm && norm <= high { step } else { 0.0 }
            }
            Some(BlendSchedule::FixedRamp) | None => step,
        };
        let target = p.seeds.alpha_target.load(seed);
        let alpha = (f64::from(p.seeds.alpha.load(seed)) + rise) as f32;
        p.seeds.alpha.store(seed, if alpha < target { alpha } else { target });
    }
    true
}

/// PERFORMANCE_LINKED's share of a step; the first loss is stored.
///
/// # Safety
/// As [`rise`].
#[inline(always)]
unsafe fn performance(p: &GraftSchedule, seed: usize, loss: f32) -> f64 {
    // SAFETY: the caller's contract.
    let mut baseline = unsafe { p.seeds.baseline_loss.load(seed) };
    if baseline.is_nan() {
        baseline = loss;
        // SAFETY: as above.
        unsafe { p.seeds.baseline_loss.store(seed, loss) };
    }
    if baseline <= SMALLEST_BASELINE_LOSS {
        return 1.0;
    }
    let gain = 2.0 * (f64::from(baseline) - f64::from(loss)) / f64::from(baseline);
    // A loss that rose has a negative gain, and the smallest share as well.
    gain.clamp(0.5, 3.0)
}

/// Puts the drift in its place in the ring, and takes the mean of those that are there.
///
/// # Safety
/// As [`rise`].
#[inline(always)]
unsafe fn mean_drift(p: &GraftSchedule, seed: usize, drift: f32) -> f64 {
    let first = seed * DRIFT_WINDOW;
    // SAFETY: the caller's contract; a seed has `DRIFT_WINDOW` places.
    unsafe {
        let count = p.seeds.drift_count.load(seed);
        let seen = count.saturating_add(1);
        p.seeds.drift_history.store(first + count as usize % DRIFT_WINDOW, drift);
        p.seeds.drift_count.store(seed, seen);
        let filled = if (seen as usize) < DRIFT_WINDOW { seen as usize } else { DRIFT_WINDOW };
        let mut sum = 0.0;
        let mut i = 0;
        while i < filled {
            sum += f64::from(p.seeds.drift_history.load(first + i));
            i += 1;
        }
        sum / filled as f64
    }
}

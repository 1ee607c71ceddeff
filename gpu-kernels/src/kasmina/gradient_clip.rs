//! Clips the gradients of a layer's parameters: by value, by the norm of all, or seed by seed.
//!
//! # Math
//! By value: g ← min(max(g, −limit), limit). By norm, N = √Σ g² over all parameters: g ← g·min(1, limit/N).
//!
//! Adaptive, for each seed, with m the norm of what it adds to ∂w, n = √(m² + (∂α)²) and r its running norm
//! before: c = min(1, factor·r/n), ∂α ← c·∂α, then r ← decay·r + (1 − decay)·n, with the n from before
//! clipping; the first n is the first r and clips nothing, and a seed with n = 0 (frozen, or not active) leaves
//! r alone. ∂w and ∂s of a blueprint are sums over the seeds that share it, and are multiplied by Σ c·m / Σ m
//! over these: c where the blueprint has one seed, and by the triangle inequality ‖∂w‖ ≤ Σ c·m in any case,
//! as if each seed's part had been clipped before they were added. No seed's own part of ∂s is known, so n is
//! without it.
//!
//! Values that are not finite are counted and never changed, and spread to nothing: by norm, one of them
//! leaves all gradients as they are; adaptively, a seed whose n is not finite, its r, and the ∂w and ∂s of a
//! blueprint that has such a seed or value. Sums, norms and products are in f64. A *unit* is a blueprint's
//! weights and scale and the α of its seeds.
//!
//! # Layout
//! | buffer | shape | type | access |
//! |---|---|---|---|
//! | `grad_weights` | by offset, `chunk_size` each | f32 | in and out |
//! | `grad_scales`, `grad_alpha` | `[num_blueprints]`, `[num_seeds]` | f32 | in and out |
//! | `blueprint_id`, `blueprint_offset` | `[num_seeds]`, `[num_blueprints]` | u16, u32 | in |
//! | `seed_norms` | `[num_seeds]` | f32 | in, adaptive only |
//! | `running_norm` | `[num_seeds]` | f32 | in and out, adaptive only |
//! | `figures` | `[1]` of 32 bytes | record | out |
//! | `totals` | `[1]` of 32 bytes | record | in and out |
//! | `partials` | `[units]` of 32 bytes | record | scratch |
//! | `arrivals` | `[1]` | u32 | scratch, zero before and after |
//!
//! # Traffic
//! Reads the gradients once and writes those that change: 4 to 8 bytes a value; the norm of all reads them
//! twice, the second time from L2 as a rule. Each unit reads the `num_seeds` ids, 2 bytes each. Parameters
//! are few beside the activations: a launch or two of a few µs.
//!
//! # Launch
//! Blocks of 256 threads, a unit at a time, over a persistent grid: one launch, for the norm of all a second
//! one that scales. A thread visits the same values each time, so that passes need no order between threads.
//! Every thread meets every barrier.
//!
//! # Determinism
//! Bitwise: a thread's sum, the block's fold, and the last block's fold over the units have one order each,
//! whatever the grid.
//!
//! # Source
//! By norm: R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of training recurrent neural networks",
//! 2013. Reference: `kasmina_reference::kasmina::gradient_clip`.

use kasmina_device::global::{Load, Store, load_words, store_words};
use kasmina_device::reduce::block_fold;
use kasmina_device::shared::Shared;
use kasmina_device::{grid, kernel, math, shared_array, thread, unroll, warp};
use kasmina_types::{ClipFigures, ClipTotals, GradientClip, Out};

const BLOCK: usize = 256;
const WARPS: usize = BLOCK / warp::WARP_SIZE as usize;
const RECORD_WORDS: usize = size_of::<ClipFigures>() / 4;
const NORMS_WORDS: usize = size_of::<[f64; 2]>() / 4;
/// Values of a row that a thread has in flight.
const IN_FLIGHT: usize = 4;

type Scratch = Shared<u32, { WARPS * RECORD_WORDS }>;

/// Clips each value to ±`limit`.
///
/// # Safety
/// Every array has the length that [`GradientClip`] says, each id is 0 or below `num_blueprints`, each
/// row is inside `grad_weights` and no other's; every block of the grid runs it.
#[kernel(block = 256)]
pub unsafe fn gradient_clip_value_f32(p: GradientClip) {
    let scratch = shared_array![u32; WARPS * RECORD_WORDS];
    let mut unit = thread::block_idx_x() as usize;
    while unit < p.units as usize {
        let mut own = ClipFigures::EMPTY;
        let limit = p.limit;
        let clip = |g: f32| {
            own = absorb(own, g);
            let clipped = if g > limit {
                limit
            } else if g < -limit {
                -limit
            } else {
                g
            };
            let clips = g.is_finite() && clipped != g;
            own.clipped_values += u32::from(clips);
            if clips { clipped } else { g }
        };
        // SAFETY: the entry's contract; a unit's values are this block's alone.
        unsafe { visit::<true>(&p, unit, clip) };
        let total = block_fold::<_, WARPS, _>(own, &scratch, merge);
        // SAFETY: one thread of one block writes the unit's place.
        unsafe { leave(&p, unit, total.map(of_unit)) };
        // Warp 0 has read the scratch before the next unit's fold writes it.
        thread::sync_threads();
        unit += thread::grid_dim_x() as usize;
    }
    // SAFETY: every thread arrives, after the last unit's barrier.
    unsafe { finish(&p, &scratch, |total| total) };
}

/// The norm of all parameters, and what to multiply them by.
///
/// # Safety
/// As [`gradient_clip_value_f32`].
#[kernel(block = 256)]
pub unsafe fn gradient_clip_norm_f32(p: GradientClip) {
    let scratch = shared_array![u32; WARPS * RECORD_WORDS];
    let mut unit = thread::block_idx_x() as usize;
    while unit < p.units as usize {
        // SAFETY: the entry's contract.
        let own = unsafe { look(&p, unit) };
        let total = block_fold::<_, WARPS, _>(own, &scratch, merge);
        // SAFETY: one thread of one block writes the unit's place.
        unsafe { leave(&p, unit, total.map(of_unit)) };
        // Warp 0 has read the scratch before the next unit's fold writes it.
        thread::sync_threads();
        unit += thread::grid_dim_x() as usize;
    }
    let decide = |mut total: ClipFigures| {
        let norm = math::sqrt_f64(total.square_sum);
        if total.nonfinite == 0 && norm > f64::from(p.limit) {
            total.coefficient = f64::from(p.limit) / norm;
            total.clipped_units = p.units;
        }
        total
    };
    // SAFETY: every thread arrives, after the last unit's barrier.
    unsafe { finish(&p, &scratch, decide) };
}

/// Multiplies all parameters' gradients by the coefficient that [`gradient_clip_norm_f32`] left.
///
/// # Safety
/// As [`gradient_clip_value_f32`], after [`gradient_clip_norm_f32`].
#[kernel(block = 256)]
pub unsafe fn gradient_clip_scale_f32(p: GradientClip) {
    let figures: Out<f64> = p.figures.cast();
    // SAFETY: the coefficient is the record's second word of eight bytes.
    let coefficient = unsafe { figures.load(1) };
    if coefficient < 1.0 {
        let mut unit = thread::block_idx_x() as usize;
        while unit < p.units as usize {
            // SAFETY: the entry's contract; a unit's values are this block's alone.
            unsafe { visit::<true>(&p, unit, |g| scaled(g, coefficient)) };
            unit += thread::grid_dim_x() as usize;
        }
    }
}

/// Clips each seed to a multiple of its running norm.
///
/// # Safety
/// As [`gradient_clip_value_f32`].
#[kernel(block = 256)]
pub unsafe fn gradient_clip_adaptive_f32(p: GradientClip) {
    let scratch = shared_array![u32; WARPS * RECORD_WORDS];
    let norms_smem = shared_array![u32; WARPS * NORMS_WORDS];
    let coefficient_smem = shared_array![f64; 1];
    let mut unit = thread::block_idx_x() as usize;
    while unit < p.units as usize {
        let mut own = ClipFigures::EMPTY;
        let mut norms = [0.0; 2];
        // SAFETY: the entry's contract; a seed's running norm is of its unit, which this block has alone.
        unsafe {
            visit_shared::<false>(&p, unit, |g| {
                own = absorb(own, g);
                g
            });
            visit_alpha::<true>(&p, unit, |seed, g| {
                own = absorb(own, g);
                let (coefficient, added) = adapt(&p, seed, g);
                own.nonfinite_units += u32::from(!added.is_finite());
                own.clipped_units += u32::from(coefficient < 1.0);
                if coefficient < own.coefficient {
                    own.coefficient = coefficient;
                }
                norms = add([coefficient * added, added], norms);
                if coefficient < 1.0 { scaled(g, coefficient) } else { g }
            });
        }
        let total = block_fold::<_, WARPS, _>(own, &scratch, merge);
        let norms = block_fold::<_, WARPS, _>(norms, &norms_smem, add);
        if let (Some(total), Some([held, all]), 0) = (total, norms, thread::thread_idx_x()) {
            // SAFETY: one thread of one block has the unit's places.
            unsafe {
                // `all` is not finite where a seed's norm is not.
                let clips = total.nonfinite == 0 && all.is_finite() && held < all;
                coefficient_smem.write(0, if clips { held / all } else { 1.0 });
                leave(&p, unit, Some(total));
            }
        }
        // Orders the coefficient before all threads, and warp 0's folds before the next unit's.
        thread::sync_threads();
        // SAFETY: thread 0 wrote it before the barrier.
        let coefficient = unsafe { coefficient_smem.read(0) };
        if coefficient < 1.0 {
            // SAFETY: the entry's contract; a unit's values are this block's alone.
            unsafe { visit_shared::<true>(&p, unit, |g| scaled(g, coefficient)) };
        }
        // All have read the coefficient before the next unit's is written.
        thread::sync_threads();
        unit += thread::grid_dim_x() as usize;
    }
    // SAFETY: every thread arrives, after the last unit's barrier.
    unsafe { finish(&p, &scratch, |total| total) };
}

/// What a seed's α, whose gradient is `alpha`, is multiplied by, and the norm of what the seed adds to ∂w,
/// infinite where the seed's norm is not finite; its running norm moves on.
///
/// # Safety
/// `seed < num_seeds`, and its running norm is this thread's alone.
#[inline(always)]
unsafe fn adapt(p: &GradientClip, seed: usize, alpha: f32) -> (f64, f64) {
    // SAFETY: the caller's contract.
    let (added, running) = unsafe { (p.seed_norms.load(seed), p.running_norm.load(seed)) };
    let (added, alpha, running) = (f64::from(added), f64::from(alpha), f64::from(running));
    // Of two f32: no square leaves f64's range.
    let norm = math::sqrt_f64(math::fma_f64(added, added, alpha * alpha));
    if !norm.is_finite() {
        return (1.0, f64::INFINITY);
    }
    if norm == 0.0 {
        return (1.0, 0.0);
    }
    // Neither NaN nor 0, which a norm too small for f32 would leave.
    let known = running > 0.0;
    let (mut next, mut coefficient) = (norm, 1.0);
    if known {
        let (limit, decay) = (f64::from(p.factor) * running, f64::from(p.decay));
        next = decay * running + (1.0 - decay) * norm;
        if norm > limit {
            coefficient = limit / norm;
        }
    }
    let largest = f64::from(f32::MAX);
    // SAFETY: the caller's contract.
    unsafe { p.running_norm.store(seed, if next < largest { next as f32 } else { f32::MAX }) };
    (coefficient, added)
}

#[inline(always)]
fn add(a: [f64; 2], b: [f64; 2]) -> [f64; 2] {
    [a[0] + b[0], a[1] + b[1]]
}

#[inline(always)]
fn scaled(g: f32, coefficient: f64) -> f32 {
    (f64::from(g) * coefficient) as f32
}

/// The figures of the values of a unit that this thread visits.
///
/// # Safety
/// As [`visit`].
#[inline(always)]
unsafe fn look(p: &GradientClip, unit: usize) -> ClipFigures {
    let mut own = ClipFigures::EMPTY;
    // SAFETY: the caller's contract.
    unsafe {
        visit::<false>(p, unit, |g| {
            own = absorb(own, g);
            g
        });
    }
    own
}

/// Hands each value of a unit to one thread of the block, and with `STORE` puts back what it makes of it.
///
/// # Safety
/// The entry's contract; `unit < units`; with `STORE` no other block has the unit.
#[inline(always)]
unsafe fn visit<const STORE: bool>(
    p: &GradientClip,
    unit: usize,
    mut change: impl FnMut(f32) -> f32,
) {
    // SAFETY: the caller's contract.
    unsafe {
        visit_shared::<STORE>(p, unit, &mut change);
        visit_alpha::<STORE>(p, unit, |_, g| change(g));
    }
}

/// As [`visit`], of the weights and the scale.
///
/// # Safety
/// As [`visit`].
#[inline(always)]
unsafe fn visit_shared<const STORE: bool>(
    p: &GradientClip,
    unit: usize,
    mut change: impl FnMut(f32) -> f32,
) {
    let t = thread::thread_idx_x() as usize;
    if unit < p.num_blueprints as usize {
        // SAFETY: `unit < num_blueprints`.
        let row = unsafe { p.blueprint_offset.load(unit) } as usize;
        // SAFETY: there is a blueprint, hence a first one.
        let none = unsafe { p.blueprint_offset.load(0) } as usize;
        // An id that is not loaded lies where 'none' does, whose unit has the row.
        let own = unit == 0 || row != none;
        let chunk = p.chunk_size as usize;
        let mut first = t;
        while own && first < chunk {
            let mut values = [0.0; IN_FLIGHT];
            unroll!(k in IN_FLIGHT => {
                if first + k * BLOCK < chunk {
                    // SAFETY: inside the unit's row.
                    values[k] = unsafe { p.grad_weights.load(row + first + k * BLOCK) };
                }
            });
            unroll!(k in IN_FLIGHT => {
                // A value past the end is 0, which changes no figure and by no clipping.
                let changed = change(values[k]);
                if STORE && first + k * BLOCK < chunk {
                    // SAFETY: as above, and this thread's alone.
                    unsafe { p.grad_weights.store(row + first + k * BLOCK, changed) };
                }
            });
            first += IN_FLIGHT * BLOCK;
        }
        if t == 0 {
            // SAFETY: `unit < num_blueprints`, and the place is this thread's alone.
            unsafe {
                let changed = change(p.grad_scales.load(unit));
                if STORE {
                    p.grad_scales.store(unit, changed);
                }
            }
        }
    }
}

/// As [`visit`], of the α of the unit's seeds, each with its seed.
///
/// # Safety
/// As [`visit`].
#[inline(always)]
unsafe fn visit_alpha<const STORE: bool>(
    p: &GradientClip,
    unit: usize,
    mut change: impl FnMut(usize, f32) -> f32,
) {
    let mut seed = thread::thread_idx_x() as usize;
    while seed < p.num_seeds as usize {
        // SAFETY: `seed < num_seeds`, and a seed's α is of one unit.
        unsafe {
            if usize::from(p.blueprint_id.load(seed)) == unit {
                let changed = change(seed, p.grad_alpha.load(seed));
                if STORE {
                    p.grad_alpha.store(seed, changed);
                }
            }
        }
        seed += BLOCK;
    }
}

/// Takes one value into account.
#[inline(always)]
fn absorb(figures: ClipFigures, g: f32) -> ClipFigures {
    let finite = g.is_finite();
    let value = if finite { f64::from(g) } else { 0.0 };
    ClipFigures {
        square_sum: math::fma_f64(value, value, figures.square_sum),
        nonfinite: figures.nonfinite + u32::from(!finite),
        ..figures
    }
}

#[inline(always)]
fn merge(a: ClipFigures, b: ClipFigures) -> ClipFigures {
    let smaller = a.coefficient < b.coefficient;
    ClipFigures {
        square_sum: a.square_sum + b.square_sum,
        coefficient: if smaller { a.coefficient } else { b.coefficient },
        nonfinite: a.nonfinite + b.nonfinite,
        clipped_values: a.clipped_values + b.clipped_values,
        clipped_units: a.clipped_units + b.clipped_units,
        nonfinite_units: a.nonfinite_units + b.nonfinite_units,
    }
}

/// A unit's figures where units are what is clipped.
#[inline(always)]
fn of_unit(total: ClipFigures) -> ClipFigures {
    ClipFigures { nonfinite_units: u32::from(total.nonfinite > 0), ..total }
}

/// Leaves a unit's figures, in the thread that has them as the block's first.
///
/// # Safety
/// `unit < units`, and no other block leaves it.
#[inline(always)]
unsafe fn leave(p: &GradientClip, unit: usize, total: Option<ClipFigures>) {
    if let (Some(total), 0) = (total, thread::thread_idx_x()) {
        // SAFETY: the caller's contract; a record is `RECORD_WORDS` words.
        unsafe { store_words(&p.partials.cast(), unit * RECORD_WORDS, total) };
    }
}

/// In the last block, folds the units' figures, leaves what `decide` makes of them, and adds it to the totals.
///
/// # Safety
/// Every thread of every block calls it, after a barrier behind its last use of the scratch.
#[inline(always)]
unsafe fn finish(
    p: &GradientClip,
    scratch: &Scratch,
    decide: impl FnOnce(ClipFigures) -> ClipFigures,
) {
    // SAFETY: every thread arrives, each block once.
    if unsafe { grid::arrive_is_last(&p.arrivals, 0, thread::grid_dim_x()) } {
        let partials: Out<u32> = p.partials.cast();
        let mut own = ClipFigures::EMPTY;
        let mut unit = thread::thread_idx_x() as usize;
        while unit < p.units as usize {
            // SAFETY: every unit's figures were left before its block arrived.
            own = merge(own, unsafe { load_words(&partials, unit * RECORD_WORDS) });
            unit += BLOCK;
        }
        let total = block_fold::<_, WARPS, _>(own, scratch, merge);
        if let (Some(total), 0) = (total, thread::thread_idx_x()) {
            let total = decide(total);
            let totals = p.totals.cast();
            // SAFETY: one thread of one block has figures and totals.
            unsafe {
                store_words(&p.figures.cast(), 0, total);
                let before: ClipTotals = load_words(&totals, 0);
                store_words(&totals, 0, before.plus(&total));
            }
        }
    }
}

//! The softmax of an attention head: ln Σ eʷ over its weights, so that softmax(w) = e^(w − that).

use kasmina_device::global::Load;
use kasmina_device::reduce::{warp_fold, warp_fold_width};
use kasmina_device::shared::Shared;
use kasmina_device::{hint, math, thread, unroll, warp};
use kasmina_types::{In, LayerPass, SeedLifecycle};

use super::coefficients::Blueprint;
use super::strip::{BLOCK, Strip, WARPS};
use super::team::Team;

/// A thread's columns.
pub(crate) struct Columns<'a> {
    pub(crate) strip: &'a Strip,
    pub(crate) local_seed: u32,
    /// The first one within the chunk.
    pub(crate) column: u32,
    /// Their blueprint, if it counts.
    pub(crate) blueprint: Option<Blueprint>,
}

/// ln Σ eʷ of the thread's blueprint if that is an attention head, else anything. `states` are those of seeds
/// whose blueprints count.
///
/// # Safety
/// Every thread of the team calls it; `scratch` has a word for each seed of the strip, and two for each warp.
#[inline(always)]
pub(crate) unsafe fn log_partition<M: Team, const L: usize, const N: usize, const C: bool>(
    team: M,
    p: &impl LayerPass<C>,
    columns: Columns<'_>,
    states: impl Fn(SeedLifecycle) -> bool + Copy,
    scratch: &Shared<u32, N>,
) -> f32 {
    let Columns { strip, local_seed, column, blueprint } = columns;
    let head = blueprint.filter(Blueprint::attends);
    let (weights, count) = (&p.layer().weights, p.chunk_size());
    let vectors = p.geometry().chunk_vectors;
    if vectors.is_power_of_two() && vectors <= warp::WARP_SIZE {
        if !warp::any(warp::FULL_MASK, head.is_some()) {
            return 0.0;
        }
        let first = head.map(|head| head.offset + column as usize);
        // SAFETY: the thread's columns are inside the chunk.
        return unsafe { of_neighbours::<L, C>(weights, first, vectors) };
    }
    if !team.sync_or(head.is_some()) {
        return 0.0;
    }
    // SAFETY: the strip's seeds are seeds, and have `count` weights; the team's threads are all here.
    unsafe {
        let head_of = |s: u32| {
            let (_, blueprint) = Blueprint::in_states(p, (strip.first_seed + s) as usize, states)?;
            Some(blueprint).filter(Blueprint::attends)
        };
        if strip.seeds == 1 {
            // Those threads too whose columns are none.
            let offset = head_of(0).map_or(0, |head| head.offset);
            return of_team(team, weights, offset, count, scratch);
        }
        let mut s = thread::warp_idx();
        while s < strip.seeds {
            if let Some(head) = head_of(s) {
                let value = of_warp(weights, head.offset, count);
                if thread::lane_idx() == 0 {
                    scratch.write(s as usize, value.to_bits());
                }
            }
            s += WARPS as u32;
        }
        // Orders what the warps wrote before its readers.
        team.sync();
        let value = if head.is_some() { scratch.read(local_seed as usize) } else { 0 };
        // The readers are done before the scratch is used again.
        team.sync();
        f32::from_bits(value)
    }
}

/// That of neighbouring lanes, `vectors` of them, a power of two, which have all weights of a chunk: each those from its
/// `first` on. Lanes without weights get anything.
///
/// # Safety
/// Every lane of the warp calls it; `weights` has `L` elements from `first`.
#[inline(always)]
pub(crate) unsafe fn of_neighbours<const L: usize, const C: bool>(
    weights: &In<f32, C>,
    first: Option<usize>,
    vectors: u32,
) -> f32 {
    let mut own = [f32::NEG_INFINITY; L];
    if let Some(first) = first {
        let first = hint::opaque_index(first);
        // SAFETY: the caller's contract.
        unroll!(l in L => { own[l] = unsafe { weights.load(first + l) }; });
    }
    let mut largest = own[0];
    unroll!(l in L => { largest = math::max(largest, own[l]); });
    let largest = warp_fold_width(largest, vectors, math::max);
    let mut sum = 0.0;
    unroll!(l in L => { sum += math::exp(own[l] - largest); });
    largest + math::log(warp_fold_width(sum, vectors, |a, b| a + b))
}

/// A warp's; every lane gets the result.
///
/// # Safety
/// All lanes call it; `weights` has `count` elements from `offset`.
#[inline(always)]
unsafe fn of_warp<const C: bool>(weights: &In<f32, C>, offset: usize, count: u32) -> f32 {
    const LANES: u32 = warp::WARP_SIZE;
    let lane = thread::lane_idx();
    // SAFETY: the caller's contract.
    unsafe {
        let largest = warp_fold(largest_of::<LANES, C>(weights, offset, count, lane), math::max);
        let sum = sum_of::<LANES, C>(weights, offset, count, lane, largest);
        largest + math::log(warp_fold(sum, |a, b| a + b))
    }
}

/// A team's; every thread gets the result.
///
/// # Safety
/// As [`of_warp`], for the team; `scratch` has two words for each warp.
#[inline(always)]
unsafe fn of_team<M: Team, const N: usize, const C: bool>(
    team: M,
    weights: &In<f32, C>,
    offset: usize,
    count: u32,
    scratch: &Shared<u32, N>,
) -> f32 {
    const THREADS: u32 = BLOCK as u32;
    let t = thread::thread_idx_x();
    // Places are written once and read after a barrier.
    let across = |first: usize, value: f32, combine: fn(f32, f32) -> f32| {
        let folded = warp_fold(value, combine);
        // SAFETY: one lane a warp writes its own word.
        unsafe {
            if thread::lane_idx() == 0 {
                scratch.write(first + thread::warp_idx() as usize, folded.to_bits());
            }
            team.sync();
            // Each group of lanes has all the warps' values.
            let lane = thread::lane_idx() as usize % WARPS;
            warp_fold_width(f32::from_bits(scratch.read(first + lane)), WARPS as u32, combine)
        }
    };
    // SAFETY: the caller's contract.
    unsafe {
        let largest = across(0, largest_of::<THREADS, C>(weights, offset, count, t), math::max);
        let sum = sum_of::<THREADS, C>(weights, offset, count, t, largest);
        let total = across(WARPS, sum, |a, b| a + b);
        // The readers are done before the scratch is used again.
        team.sync();
        largest + math::log(total)
    }
}

/// Loads on their way at a time.
const AHEAD: usize = 4;

/// Folds the weights `first`, `first + STEP` and so on below `count`, past the last of them some −∞.
///
/// # Safety
/// `weights` has `count` elements from `offset`.
#[inline(always)]
unsafe fn fold<const STEP: u32, const C: bool>(
    weights: &In<f32, C>,
    offset: usize,
    count: u32,
    first: u32,
    start: f32,
    combine: impl Fn(f32, f32) -> f32,
) -> f32 {
    let mut folded = start;
    let mut i = first;
    while i < count {
        // SAFETY: the caller's contract.
        let group = unsafe { ahead::<STEP, C>(weights, offset, count, i) };
        unroll!(k in AHEAD => { folded = combine(folded, group[k]); });
        i += AHEAD as u32 * STEP;
    }
    folded
}

/// The largest of the same weights.
///
/// # Safety
/// As [`fold`].
#[inline(always)]
unsafe fn largest_of<const STEP: u32, const C: bool>(
    weights: &In<f32, C>,
    offset: usize,
    count: u32,
    first: u32,
) -> f32 {
    // SAFETY: the caller's contract.
    unsafe { fold::<STEP, C>(weights, offset, count, first, f32::NEG_INFINITY, math::max) }
}

/// Σ e^(w − largest) of the same weights.
///
/// # Safety
/// As [`fold`].
#[inline(always)]
unsafe fn sum_of<const STEP: u32, const C: bool>(
    weights: &In<f32, C>,
    offset: usize,
    count: u32,
    first: u32,
    largest: f32,
) -> f32 {
    let add = |sum: f32, weight: f32| sum + math::exp(weight - largest);
    // SAFETY: the caller's contract.
    unsafe { fold::<STEP, C>(weights, offset, count, first, 0.0, add) }
}

/// Some weights from the `i`-th on; −∞ past the last.
///
/// # Safety
/// As [`fold`].
#[inline(always)]
unsafe fn ahead<const STEP: u32, const C: bool>(
    weights: &In<f32, C>,
    offset: usize,
    count: u32,
    i: u32,
) -> [f32; AHEAD] {
    let mut group = [f32::NEG_INFINITY; AHEAD];
    unroll!(k in AHEAD => {
        if i + k as u32 * STEP < count {
            // SAFETY: the weight is one of `count`.
            group[k] = unsafe { weights.load(offset + i as usize + k * STEP as usize) };
        }
    });
    group
}

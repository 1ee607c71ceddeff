//! The gradients of the layer's parameters, from the sums over the batch that `blend_backward` left.
//!
//! # Math
//! With A a seed's sums by column and E its extra ones (see `slopes::Sums`), a = clip(α, 0, 1), or 1 in
//! TRAINING, each seed that trains adds to its blueprint's gradients, and has its own ∂α:
//!
//! | type | ∂w | ∂s | ∂α, for 0 < α < 1 |
//! |---|---|---|---|
//! | RESIDUAL_BLOCK | a·s·A | a·Σ A·w | Σ A·s·w |
//! | ATTENTION_HEAD, p = softmax(w) | p·a·(A − Σ p·A) | 0 | Σ A·(p − 1) |
//! | MLP_EXPANSION | a·s·A | a·Σ A·w | Σ A·s·w − E₀ |
//! | CONV_FILTER | wⱼ: a·s·Eⱼ | a·Σ Eⱼ·wⱼ | s·Σ Eⱼ·wⱼ − E₀ |
//! | SCALE | a·s·A | a·Σ A·w | Σ A·(s·w − 1) |
//!
//! Norm, population variance and largest magnitude are those of what the seed adds to ∂w. All in f32. Where the pass
//! over the batch has finished the seeds, what they add is there, and is added up.
//!
//! # Layout
//! | buffer | shape | type | access |
//! |---|---|---|---|
//! | `layer` | as in `blend_forward` | | in |
//! | `sums` | as at `BatchSums` | f32 | in; the first slab's are overwritten by their totals |
//! | `gradients.weights` | by offset, `chunk_size` each | f32 | out, every blueprint's |
//! | `gradients.scales` | `[num_blueprints]` | f32 | out |
//! | `gradients.alpha`, `.norm`, `.variance`, `.max` | `[num_seeds]` | f32 | out |
//! | `parts`, `part_scales`, `arrivals` | as at `ParameterGradients` | f32, u32 | scratch; arrivals zero before and after |
//!
//! # Traffic
//! Reads 4 · slabs · chunk_size bytes a seed that trains, and 3 · num_seeds bytes a blueprint and part. Bound
//! by latency, a chain of some ten accesses of the L2 cache and folds. Measured with the pass before it: see
//! `docs/performance.md`, `blend_backward`.
//!
//! # Launch
//! A persistent grid of 256-thread blocks, a block for a part of a blueprint's seeds. A team of threads takes
//! a seed, a thread one vector of its columns, which stays in registers, and more where a chunk is wider than
//! the block. Where the block has threads to spare, several teams share a seed's slabs. The last part of a
//! blueprint adds up all of them. What follows from the layer's arrays alone is done before the pass over the
//! batch ends, where the target lets grids overlap.
//!
//! # Determinism
//! Bitwise: slabs, columns, teams and parts are added up in an order that depends on shape, geometry and which
//! seeds train which blueprint only.
//!
//! # Source
//! Original. Reference: `kasmina_reference::kasmina::blend_backward`.

use kasmina_device::global::{Load, Store};
use kasmina_device::shared::Shared;
use kasmina_device::vector::{LoadHint, StoreHint, Vector};
use kasmina_device::{grid, kernel, shared_array, thread, unroll};
use kasmina_types::blend_backward::EXTRA_SUMS;
use kasmina_types::blueprint::BLUEPRINT_NONE;
use kasmina_types::{Out, ParameterGradients};

use super::blueprint_seeds::{self, LISTED, trains};
use super::seed_gradients::{Blueprint, finish_seed, sum_rows};
use super::seed_teams::{BLOCK, RowSums, Teams};

/// # Safety
/// As [`ParameterGradients`] says, with `chunk_size` a multiple of `W` and, unless `WIDE`, at most that of a
/// block's threads; every block of the grid runs it.
#[inline(always)]
unsafe fn parameter_gradients<const W: usize, const WIDE: bool>(p: ParameterGradients) {
    let p = ParameterGradients { max_parts: p.max_parts.max(1), ..p };
    // Which seeds and weights the first unit needs is known before the sums over the batch are there: nobody
    // writes the layer's arrays meanwhile.
    let mut awaited = false;
    // SAFETY: the caller's contract; the pass over the batch does not write these either.
    unsafe { clear_seeds(&p) };
    let mut unit = thread::block_idx_x();
    while unit < p.num_blueprints * p.max_parts {
        let (part, id) = (unit / p.num_blueprints.max(1), unit % p.num_blueprints.max(1));
        // SAFETY: every thread of the block is here, and no other block has the unit.
        unsafe { take_part::<W, WIDE>(&p, id, part, &mut awaited) };
        // What this unit read of shared memory, it read before the next one writes there.
        thread::sync_threads();
        unit += thread::grid_dim_x();
    }
    await_once(&mut awaited);
}

/// Waits for the pass over the batch, if that has not been done.
#[inline(always)]
fn await_once(awaited: &mut bool) {
    if !*awaited {
        thread::await_previous_grid();
        *awaited = true;
    }
}

/// Writes the zeros of seeds that do not train, dealt to all threads of the grid. May be called before the wait for the
/// grid before: that is the pass over the batch, which writes the figures of other seeds, and let this grid be placed only
/// after its own wait, when whoever read these figures had ended.
///
/// # Safety
/// As [`parameter_gradients`].
#[inline(always)]
unsafe fn clear_seeds(p: &ParameterGradients) {
    let mut seed = thread::block_idx_x() * BLOCK as u32 + thread::thread_idx_x();
    while seed < p.num_seeds {
        let s = seed as usize;
        // SAFETY: the seed is one, and nobody else writes the figures of one that does not train.
        unsafe {
            if !trains(p.layer.lifecycle.load(s), p.layer.blueprint_id.load(s)) {
                p.gradients.alpha.store(s, 0.0);
                p.gradients.norm.store(s, 0.0);
                p.gradients.variance.store(s, 0.0);
                p.gradients.max.store(s, 0.0);
            }
        }
        seed += thread::grid_dim_x() * BLOCK as u32;
    }
}

/// Writes the zeros of a blueprint that no seed trains.
///
/// # Safety
/// Every thread of one block calls it.
#[inline(always)]
unsafe fn clear_blueprint(p: &ParameterGradients, id: u32) {
    // SAFETY: the blueprint is one, and nobody else writes its gradients.
    unsafe {
        let offset = p.layer.blueprint_offset.load(id as usize) as usize;
        let none = p.layer.blueprint_offset.load(usize::from(BLUEPRINT_NONE)) as usize;
        // An id that is not loaded lies where 'none' does: its zeros are written with those.
        let own = id == u32::from(BLUEPRINT_NONE) || offset != none;
        let mut i = thread::thread_idx_x();
        while own && i < p.chunk_size {
            p.gradients.weights.store(offset + i as usize, 0.0);
            i += BLOCK as u32;
        }
        if thread::thread_idx_x() == 0 {
            p.gradients.scales.store(id as usize, 0.0);
        }
    }
}

/// Part number `part` of a blueprint, or nothing if its seeds are too few.
///
/// # Safety
/// Every thread of the block calls it, once for each unit in the grid.
#[inline(always)]
unsafe fn take_part<const W: usize, const WIDE: bool>(
    p: &ParameterGradients,
    id: u32,
    part: u32,
    awaited: &mut bool,
) {
    let listed = shared_array![u32; LISTED];
    // SAFETY: every thread of the block is here.
    let count = unsafe { blueprint_seeds::list(p, id, 0, &listed) };
    if count == 0 {
        if part == 0 {
            await_once(awaited);
            // SAFETY: the unit is this block's.
            unsafe { clear_blueprint(p, id) };
        }
        return;
    }
    let teams = Teams::of::<W>(p);
    let parts = count.div_ceil(p.part_seeds.max(1));
    let parts = if parts > p.max_parts { p.max_parts } else { parts };
    let seeds = count.div_ceil(parts.max(1)).max(1);
    // No part is empty.
    let parts = count.div_ceil(seeds);
    if part >= parts {
        return;
    }
    let first = part * seeds;
    let end = if count - first < seeds { count } else { first + seeds };
    let teams = if p.finished == 0 { teams.shared(end - first, p.slabs) } else { teams };

    let unit = (id * p.max_parts + part) as usize;
    // SAFETY: the id is a blueprint's.
    let offset = unsafe { p.layer.blueprint_offset.load(id as usize) } as usize;
    let chunk = p.chunk_size as usize;
    let (start, step) = (teams.member() as usize * W, teams.size() as usize * W);
    // Where the columns beyond each thread's first vector are added up.
    let (rest, at) =
        if parts == 1 { (p.gradients.weights, offset) } else { (p.parts, unit * chunk) };
    let sum = if !WIDE && p.finished != 0 {
        // SAFETY: every thread of the block is here.
        unsafe { add_finished::<W>(p, id, teams, [first, end], &listed, awaited) }
    } else {
        let rest = Rest { to: rest, at };
        // SAFETY: as above.
        unsafe { finish_part::<W, WIDE>(p, id, teams, [first, end], rest, &listed, awaited) }
    };
    // SAFETY: every thread of the block is here; the unit's places are this block's, and after the last
    // arrival the blueprint's gradients are.
    unsafe {
        let mut sum = teams.add_rows(sum, teams.count());
        if parts > 1 {
            let writes = teams.row() == 0;
            if writes && start < chunk {
                p.parts.store_vector(at + start, Vector(sum.columns), StoreHint::Cached);
            }
            if writes && start == 0 {
                p.part_scales.store(unit, sum.extras[0]);
            }
            if !grid::arrive_is_last(&p.arrivals, id as usize, parts) {
                return;
            }
            // As the seeds before: each team some of the parts.
            sum = RowSums::ZERO;
            let (row, rows) = (teams.row(), teams.count());
            let of_team = (parts + rows - 1 - row) >> (BLOCK.trailing_zeros() - teams.shift);
            let first = (id * p.max_parts + row) as usize;
            let mut i = start;
            while i < chunk {
                let stride = rows as usize * chunk;
                let total = sum_rows::<W>(&p.parts, first * chunk + i, stride, of_team);
                if !WIDE || i == start {
                    sum.columns = total.0;
                } else {
                    unroll!(l in W => {
                        p.gradients.weights.store(offset + i + l, total.0[l]);
                    });
                }
                if !WIDE {
                    break;
                }
                i += step;
            }
            if start == 0 {
                sum.extras[0] = sum_rows::<1>(&p.part_scales, first, rows as usize, of_team).0[0];
            }
            sum = teams.add_rows(sum, rows);
        }
        if teams.row() == 0 && start < chunk {
            unroll!(l in W => {
                p.gradients.weights.store(offset + start + l, sum.columns[l]);
            });
        }
        if teams.row() == 0 && start == 0 {
            p.gradients.scales.store(id as usize, sum.extras[0]);
        }
    }
}

/// Where a part adds up the columns beyond each thread's first vector: the array, and the chunk's place in it.
#[derive(Clone, Copy)]
struct Rest {
    to: Out<f32>,
    at: usize,
}

/// Finishes the seeds from the `first`-th to before the `end`-th, and adds up what they add to the blueprint's
/// gradients, team by team.
///
/// # Safety
/// Every thread of the block calls it, with the same arguments; the list has the first seeds.
#[inline(always)]
unsafe fn finish_part<const W: usize, const WIDE: bool>(
    p: &ParameterGradients,
    id: u32,
    teams: Teams,
    [first, end]: [u32; 2],
    Rest { to, at }: Rest,
    listed: &Shared<u32, LISTED>,
    awaited: &mut bool,
) -> RowSums<W, 1> {
    let mut sum = RowSums::<W, 1>::ZERO;
    // SAFETY: the id is a blueprint's; every thread of the block is here.
    let Some(blueprint) = (unsafe { Blueprint::<W, WIDE>::of(p, id, teams) }) else { return sum };
    let seeds_at_a_time = teams.count() >> teams.share_shift;
    await_once(awaited);
    let (mut next, mut window) = (first, 0);
    while next < end {
        // SAFETY: every thread of the block is here; the list has the seeds from `window` on, and more
        // than there are teams; each seed is one team's and its fellows'.
        unsafe {
            if next + seeds_at_a_time > window + LISTED as u32 {
                blueprint_seeds::list(p, id, next, listed);
                window = next;
            }
            let rank = next + (teams.row() >> teams.share_shift);
            let seed = if rank < end { Some(listed.read((rank - window) as usize)) } else { None };
            let begins = next == first;
            sum.add(&finish_seed(p, &blueprint, seed, |i, gradient: &[f32; W]| {
                unroll!(l in W => {
                    let before = if begins { 0.0 } else { to.load(at + i + l) };
                    to.store(at + i + l, before + gradient[l]);
                });
            }));
        }
        next += seeds_at_a_time;
    }
    sum
}

/// Seeds of a team whose gradients are on their way at a time.
const AHEAD: usize = 4;

/// Adds up, team by team, what the finished seeds from the `first`-th to before the `end`-th left.
///
/// # Safety
/// As [`finish_part`]; the pass over the batch finished the seeds, and a chunk has no more vectors than a block has
/// threads.
#[inline(always)]
unsafe fn add_finished<const W: usize>(
    p: &ParameterGradients,
    id: u32,
    teams: Teams,
    [first, end]: [u32; 2],
    listed: &Shared<u32, LISTED>,
    awaited: &mut bool,
) -> RowSums<W, 1> {
    let chunk = p.chunk_size as usize;
    let start = teams.member() as usize * W;
    let extras = (p.chunk_vectors as usize) * EXTRA_SUMS;
    let mut sum = RowSums::<W, 1>::ZERO;
    let mut window = 0;
    let mut next = first;
    await_once(awaited);
    while next < end {
        // What of the list is good for this round.
        // SAFETY: every thread of the block is here.
        unsafe {
            if next + AHEAD as u32 * teams.count() > window + LISTED as u32 {
                blueprint_seeds::list(p, id, next, listed);
                window = next;
            }
        }
        let mut group = [RowSums::<W, 1>::ZERO; AHEAD];
        unroll!(k in AHEAD => {
            let rank = next + k as u32 * teams.count() + teams.row();
            if rank < end && start < chunk {
                // SAFETY: the list has the rank; the seed's places are inside the sums.
                unsafe {
                    let seed = listed.read((rank - window) as usize) as usize;
                    let at = seed * chunk + start;
                    group[k].columns = p.sums.columns.load_vector(at, LoadHint::Cached).0;
                    if start == 0 {
                        group[k].extras[0] = p.sums.extras.load(seed * extras);
                    }
                }
            }
        });
        unroll!(k in AHEAD => { sum.add(&group[k]); });
        next += AHEAD as u32 * teams.count();
    }
    sum
}

macro_rules! instance {
    ($entry:ident, $family:literal, $lanes:literal, $block:literal, $wide:literal $(, $spills:ident)?) => {
        /// The parameters' gradients, for one access width and one width of chunks.
        ///
        /// # Safety
        /// As [`ParameterGradients`] says, with a chunk size that is a multiple of the instance's lanes and, if
        /// the instance is not wide, at most that of the block's threads.
        #[kernel(block = $block, min_blocks = 2, awaits $(, $spills)?)]
        pub unsafe fn $entry(p: ParameterGradients) {
            const { assert!($block == BLOCK) };
            // SAFETY: the entry's contract.
            unsafe { parameter_gradients::<$lanes, $wide>(p) }
        }
    };
}

kasmina_types::parameter_gradients_tiles!(instance);

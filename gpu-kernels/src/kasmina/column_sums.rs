//! The sums over a slab's rows, as the backward pass leaves them for the parameters' gradients: as they are, or, where
//! a seed has no others and its threads are neighbours in a warp, as what the seed adds to its blueprint's.

use kasmina_device::global::{Load, Store};
use kasmina_device::shared::Shared;
use kasmina_device::vector::{StoreHint, Vector};
use kasmina_device::{hint, math, thread, unroll, warp};
use kasmina_types::blend_backward::EXTRA_SUMS;
use kasmina_types::blueprint::CONV_TAPS;
use kasmina_types::{BlendBackward, BlueprintType};

use super::coefficients::Blueprint;
use super::seed_finish::{self, Finishing, LaneTeams, Vectors};
use super::slopes::{Role, Sums};
use super::strip::BLOCK;
use super::team::Team;

/// Words of shared memory for each thread's sums: the widest vector's and the extras.
pub(crate) const SUM_WORDS: usize = 8 + CONV_TAPS;

/// Each thread's sums.
pub(crate) type Scratch = Shared<u32, { BLOCK * SUM_WORDS }>;

/// Folds the rows that a team covers side by side and leaves the slab's sums in memory, for the seeds
/// that train, or finishes them. `place` is the thread's first column in the row, of `seed`; `log_partition` is that of an
/// ATTENTION_HEAD.
///
/// # Safety
/// Every thread of the team calls it, after a barrier; `role` is `None` for a thread that has no columns.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "one thread's place in the work")]
pub(crate) unsafe fn leave<M: Team, const L: usize, const W: usize>(
    team: M,
    p: &BlendBackward,
    slab: u32,
    lane_row: u32,
    seed: u32,
    role: Option<Role>,
    log_partition: f32,
    place: u32,
    sums: Sums<L>,
    shared: &Scratch,
) {
    let g = &p.geometry;
    let mut sums = sums;
    if g.row_lanes > 1 {
        let words = L + CONV_TAPS;
        let t = thread::thread_idx_x() as usize;
        unroll!(l in L => {
            // SAFETY: each thread has its own words.
            unsafe { shared.write(t * words + l, sums.columns[l].to_bits()) };
        });
        unroll!(j in CONV_TAPS => {
            // SAFETY: as above.
            unsafe { shared.write(t * words + L + j, sums.extras[j].to_bits()) };
        });
        // Orders the sums of all rows before the thread of the first one adds them.
        team.sync();
        if lane_row == 0 && role.is_some_and(|role| role.trains) {
            let mut row = 1;
            while row < g.row_lanes {
                let other = (t + (row * g.strip_vectors) as usize) * words;
                let mut lane = Sums::<L>::ZERO;
                // SAFETY: that thread has the same columns, and wrote before the barrier.
                unsafe {
                    unroll!(l in L => {
                        lane.columns[l] = f32::from_bits(shared.read(other + l));
                    });
                    unroll!(j in CONV_TAPS => {
                        lane.extras[j] = f32::from_bits(shared.read(other + L + j));
                    });
                }
                sums.add(&lane);
                row += 1;
            }
        }
    }
    let role = role.filter(|role| lane_row == 0 && role.trains);
    let hidden = p.num_seeds as usize * p.chunk_size as usize;
    if p.geometry.finishes_seeds() {
        if warp::any(warp::FULL_MASK, role.is_some()) {
            // SAFETY: whole warps are here, with all vectors of their seeds; there is one slab.
            unsafe { finish::<L, W>(p, seed, role, log_partition, place as usize, sums) };
        }
        return;
    }
    let Some(role) = role else { return };
    let first = slab as usize * hidden + place as usize;
    // SAFETY: the slab's columns are this thread's alone.
    unsafe {
        store::<L, W>(p, first, sums.columns);
        if role.needs_extras() {
            let [a, b, c] = sums.extras;
            let at = first / L * EXTRA_SUMS;
            p.sums.extras.store_vector(at, Vector([a, b, c, 0.0]), StoreHint::Cached);
        }
    }
}

/// Leaves a vector of columns from element `first` on.
///
/// # Safety
/// They are this thread's alone; `first` is a multiple of `L`.
#[inline(always)]
unsafe fn store<const L: usize, const W: usize>(p: &BlendBackward, first: usize, values: [f32; L]) {
    unroll!(v in 2 => {
        if v * W < L {
            let mut part = Vector([0.0; W]);
            unroll!(l in W => { part.0[l] = values[(v * W + l) % L]; });
            // SAFETY: the caller's contract.
            unsafe { p.sums.columns.store_vector(first + v * W, part, StoreHint::Cached) };
        }
    });
}

/// Finishes the seeds that a warp has, and leaves what each adds to ∂w in its columns, and to ∂s in its first extra.
///
/// # Safety
/// Every lane of the warp calls it; those of a seed are `chunk_vectors` neighbours, a power of two, and have its sums
/// over the whole batch.
#[inline(always)]
pub(crate) unsafe fn finish<const L: usize, const W: usize>(
    p: &BlendBackward,
    seed: u32,
    role: Option<Role>,
    log_partition: f32,
    place: usize,
    sums: Sums<L>,
) {
    let chunk = p.chunk_size as usize;
    let vectors = p.geometry.chunk_vectors;
    let column = (thread::lane_idx() & (vectors - 1)) as usize * L;
    let mut what =
        Finishing { kind: BlueprintType::ResidualBlock, scale: 0.0, blend: 0.0, active: false };
    let (mut factor, mut extras, mut offset) = ([0.0; L], [0.0; CONV_TAPS], 0);
    if let Some(role) = role {
        let Blueprint { kind, blend, scale, .. } = role.blueprint;
        what = Finishing { kind, scale, blend, active: role.active };
        offset = hint::opaque_index(role.blueprint.offset);
        if role.needs_extras() {
            extras = sums.extras;
        }
        if !matches!(kind, BlueprintType::ConvFilter) {
            let attends = matches!(kind, BlueprintType::AttentionHead);
            unroll!(l in L => {
                // SAFETY: the thread's columns are inside the chunk.
                let w = unsafe { p.layer.weights.load(offset + column + l) };
                factor[l] = if attends { math::exp(w - log_partition) } else { w };
            });
        }
    }
    let end = if role.is_some() { chunk } else { 0 };
    let own = Vectors { start: column, step: chunk, end, chunk };
    // SAFETY: the caller's contract; the taps are weights.
    let result = unsafe {
        seed_finish::finish::<_, L, false>(
            LaneTeams(vectors),
            &p.gradients,
            seed as usize,
            what,
            own,
            |_| (sums.columns, factor),
            extras,
            |j| p.layer.weights.load(offset + j),
            |_, _| {},
        )
    };
    if role.is_some() {
        // SAFETY: the columns are this thread's alone, as are its vector's extras.
        unsafe {
            store::<L, W>(p, place, result.columns);
            if column == 0 {
                p.sums.extras.store(place / L * EXTRA_SUMS, result.extras[0]);
            }
        }
    }
}

//! The sums over a slab's rows, as the backward pass leaves them for the parameters' gradients.

use kasmina_device::global::Store;
use kasmina_device::shared::Shared;
use kasmina_device::vector::{StoreHint, Vector};
use kasmina_device::{thread, unroll};
use kasmina_types::BlendBackward;
use kasmina_types::blend_backward::EXTRA_SUMS;
use kasmina_types::blueprint::CONV_TAPS;

use super::slopes::{Role, Sums};
use super::strip::BLOCK;
use super::team::Team;

/// Words of shared memory for each thread's sums: the widest vector's and the extras.
pub(crate) const SUM_WORDS: usize = 8 + CONV_TAPS;

/// Each thread's sums.
pub(crate) type Scratch = Shared<u32, { BLOCK * SUM_WORDS }>;

/// Folds the rows that a team covers side by side and leaves the slab's sums in memory, for the seeds
/// that train. `place` is the thread's first column in the row.
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
    role: Option<Role>,
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
    let Some(role) = role else { return };
    if lane_row != 0 || !role.trains {
        return;
    }
    let hidden = p.num_seeds as usize * p.chunk_size as usize;
    let first = slab as usize * hidden + place as usize;
    // SAFETY: the slab's columns are this thread's alone; they are a multiple of `L` elements in.
    unsafe {
        unroll!(v in 2 => {
            if v * W < L {
                let mut part = Vector([0.0; W]);
                unroll!(l in W => { part.0[l] = sums.columns[(v * W + l) % L]; });
                p.sums.columns.store_vector(first + v * W, part, StoreHint::Cached);
            }
        });
        if role.needs_extras() {
            let [a, b, c] = sums.extras;
            let at = first / L * EXTRA_SUMS;
            p.sums.extras.store_vector(at, Vector([a, b, c, 0.0]), StoreHint::Cached);
        }
    }
}

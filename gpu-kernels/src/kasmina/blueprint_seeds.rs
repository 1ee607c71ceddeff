//! Which seeds train a blueprint, in their order.

use kasmina_device::global::Load;
use kasmina_device::reduce::warp_fold_width;
use kasmina_device::shared::Shared;
use kasmina_device::vector::{LoadHint, Vector};
use kasmina_device::{shared_array, thread, unroll, warp};
use kasmina_types::blueprint::BLUEPRINT_NONE;
use kasmina_types::{ParameterGradients, SeedLifecycle};

use super::seed_teams::{BLOCK, WARPS};

/// Seeds that a block has in mind at a time; more than its teams.
pub(crate) const LISTED: usize = 1024;

/// Seeds that a thread looks at together.
const SEEDS: usize = 4;

/// Whether a seed with this state and blueprint trains it.
#[inline(always)]
pub(crate) fn trains(state: u8, id: u16) -> bool {
    id != BLUEPRINT_NONE && SeedLifecycle::from_u8(state).is_some_and(SeedLifecycle::trains)
}

/// Lists seeds that train blueprint `id`: from the `first`-th on, as many as there is room for. Says how
/// many there are in all.
///
/// # Safety
/// Every thread of the block calls it, with the same arguments.
#[inline(always)]
pub(crate) unsafe fn list(
    p: &ParameterGradients,
    id: u32,
    first: u32,
    listed: &Shared<u32, LISTED>,
) -> u32 {
    let of_warps = shared_array![u32; WARPS];
    let (lane, own_warp) = (thread::lane_idx(), thread::warp_idx() as usize);
    let mut before = 0;
    let mut base = 0;
    while base < p.num_seeds {
        let seed = base + thread::thread_idx_x() * SEEDS as u32;
        // SAFETY: the caller's contract.
        let mut found = unsafe { look(p, id, seed) };
        let count = found.count_ones();
        let mut up_to = count;
        unroll!(step in 5 => {
            let other = warp::shuffle_up(warp::FULL_MASK, up_to, 1 << step);
            up_to += if lane >= 1 << step { other } else { 0 };
        });
        if lane == warp::WARP_SIZE - 1 {
            // SAFETY: one lane a warp, its own word.
            unsafe { of_warps.write(own_warp, up_to) };
        }
        // Orders the warps' counts before their readers, and what was read of the list before it is
        // written anew.
        thread::sync_threads();
        // Each group of lanes has all the warps' counts.
        let other = lane as usize % WARPS;
        // SAFETY: each warp wrote its word before the barrier.
        let in_other = unsafe { of_warps.read(other) };
        let earlier = if other < own_warp { in_other } else { 0 };
        let [earlier, total] =
            warp_fold_width([earlier, in_other], WARPS as u32, |a, b| [a[0] + b[0], a[1] + b[1]]);
        let mut rank = before + earlier + up_to - count;
        before += total;
        while found != 0 {
            let place = rank.wrapping_sub(first);
            if place < LISTED as u32 {
                // SAFETY: ranks differ; the place is inside the list.
                unsafe { listed.write(place as usize, seed + found.trailing_zeros()) };
            }
            found &= found - 1;
            rank += 1;
        }
        // Orders the list before its readers, and the counts' readers before the next ones.
        thread::sync_threads();
        base += (BLOCK * SEEDS) as u32;
    }
    before
}

/// One bit for each of [`SEEDS`] seeds from `seed` on: whether it trains the blueprint.
///
/// # Safety
/// The arrays have `p.num_seeds` elements; `seed` is a multiple of [`SEEDS`].
#[inline(always)]
unsafe fn look(p: &ParameterGradients, id: u32, seed: u32) -> u32 {
    let (states, ids) = (&p.layer.lifecycle, &p.layer.blueprint_id);
    let (mut state_of, mut id_of) = (Vector([0_u8; SEEDS]), Vector([BLUEPRINT_NONE; SEEDS]));
    // SAFETY: what is loaded is below the number of seeds; whole vectors begin at multiples of their size.
    unsafe {
        if seed + SEEDS as u32 <= p.num_seeds {
            state_of = states.load_vector(seed as usize, LoadHint::Cached);
            id_of = ids.load_vector(seed as usize, LoadHint::Cached);
        } else {
            unroll!(i in SEEDS => {
                if seed + (i as u32) < p.num_seeds {
                    state_of.0[i] = states.load(seed as usize + i);
                    id_of.0[i] = ids.load(seed as usize + i);
                }
            });
        }
    }
    let mut found = 0;
    unroll!(i in SEEDS => {
        let is = u32::from(id_of.0[i]) == id && trains(state_of.0[i], id_of.0[i]);
        found |= u32::from(is) << i;
    });
    found
}

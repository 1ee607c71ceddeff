//! A seed's telemetry from the moments of the threads that saw it: over the block in shared memory, over
//! the grid in the last block.

use kasmina_device::global::Store;
use kasmina_device::shared::Shared;
use kasmina_device::{grid, reduce, thread, warp};
use kasmina_types::{BlendForward, Numerical};

use super::moments::Moments;
use super::strip::{BLOCK, Strip, WARPS};
use super::team::Team;

/// 32-bit words of a thread's moments in shared memory.
pub(crate) const MOMENT_WORDS: usize = size_of::<Moments>() / 4;

/// Each thread's moments.
pub(crate) type Scratch = Shared<u32, { BLOCK * MOMENT_WORDS }>;

/// Folds the team's moments by seed, leaves them in memory, and, in the last block of a group of
/// seeds, finishes the group's telemetry.
///
/// # Safety
/// Every thread of the team calls it, with the strip and slab that it worked on.
#[inline(always)]
pub(crate) unsafe fn merge<M: Team, const C: bool>(
    team: M,
    p: &BlendForward<C>,
    strip: &Strip,
    slab: u32,
    moments: Moments,
    scratch: &Scratch,
) {
    let g = &p.geometry;
    let parts = g.parts();
    // SAFETY: each thread has its own place.
    unsafe { scratch.write_words(thread::thread_idx_x() as usize * MOMENT_WORDS, moments) };
    // Orders the threads' moments before the warps that fold them.
    team.sync();

    let finish = |s: u32, folded: Moments| {
        let seed = (strip.first_seed + s) as usize;
        // SAFETY: one lane of one block writes the seed's telemetry and its flag, which the blocks of the group
        // read before they arrived, or, of one alone, before the barrier above.
        unsafe {
            folded.finish(&p.telemetry, seed);
            if p.numerical.mode == Numerical::ADAPTIVE {
                p.unstable.store(seed, u8::from(folded.is_unstable()));
            }
        }
    };
    let part = slab * g.chunk_strips + strip.share;
    let seed_vectors = if g.chunk_strips == 1 { g.chunk_vectors } else { strip.vectors.max(1) };
    fold_by_seed(
        strip.seeds,
        seed_vectors * g.row_lanes,
        |s, member| {
            let (row, vector) = (member / seed_vectors, member % seed_vectors);
            let thread = row * g.strip_vectors + s * seed_vectors + vector;
            // SAFETY: every thread wrote its place before the barrier.
            unsafe { scratch.read_words(thread as usize * MOMENT_WORDS) }
        },
        |s, folded| {
            if parts == 1 {
                return finish(s, folded);
            }
            let place = (strip.first_seed + s) as usize * parts as usize + part as usize;
            // SAFETY: one lane of one block writes the part's place.
            unsafe { folded.store(&p.partials, place) };
        },
    );
    if parts == 1 {
        // The scratch's readers are done before the next tile writes there.
        return team.sync();
    }

    let arrivals = &p.arrivals;
    // SAFETY: every thread arrives; each part of the group arrives once.
    if unsafe { grid::team_arrive_is_last(arrivals, strip.group as usize, parts, || team.sync()) } {
        fold_by_seed(
            strip.seeds,
            parts,
            |s, part| {
                let place = (strip.first_seed + s) as usize * parts as usize + part as usize;
                // SAFETY: all parts were stored before their blocks arrived.
                unsafe { Moments::load(&p.partials, place) }
            },
            finish,
        );
    }
}

/// Folds `members` moments of each of `seeds` seeds, in a fixed order, and hands each seed's to one
/// lane. A team of lanes takes a seed: as many as it has members, up to a warp.
#[inline(always)]
fn fold_by_seed(
    seeds: u32,
    members: u32,
    member: impl Fn(u32, u32) -> Moments,
    finish: impl Fn(u32, Moments),
) {
    // A power of two, as a shift: a division by it would bring a panic into the kernel.
    let shift = 32 - (members.clamp(1, warp::WARP_SIZE) - 1).leading_zeros();
    let (team, teams) = (1 << shift, warp::WARP_SIZE >> shift);
    let (place, in_team) = (thread::lane_idx() >> shift, thread::lane_idx() & (team - 1));
    let mut first = thread::warp_idx() * teams;
    while first < seeds {
        let s = first + place;
        let mut folded = Moments::EMPTY;
        if s < seeds {
            let mut i = in_team;
            while i < members {
                folded = folded.merge(member(s, i));
                i += team;
            }
        }
        let folded = reduce::warp_fold_width(folded, team, Moments::merge);
        if s < seeds && in_team == 0 {
            finish(s, folded);
        }
        first += WARPS as u32 * teams;
    }
}

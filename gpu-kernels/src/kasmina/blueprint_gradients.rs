//! The gradients of the blueprints: what their seeds add to them, summed in the order of the seeds.
//!
//! Training seeds are ranked by blueprint, then by number: a seed's rank is the slot of what it adds, so the
//! seeds of one blueprint lie side by side, and the last of them to be finished, in whichever block, sums
//! them up.

use bytemuck::{Pod, Zeroable};
use kasmina_device::atomic::{self, Order, Scope};
use kasmina_device::global::{Load, Store};
use kasmina_device::reduce::{warp_fold, warp_fold_width};
use kasmina_device::vector::{LoadHint, Vector};
use kasmina_device::{thread, unroll, warp};
use kasmina_types::BlendBackward;
use kasmina_types::blueprint::BLUEPRINT_NONE;

use super::parameter_gradients::{Scratch, trains};
use super::strip::{BLOCK, Strip, WARPS};

/// Where a training seed stands among those of its blueprint.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(crate) struct Place {
    /// Its slot, and that of its blueprint's first seed.
    pub(crate) slot: u32,
    first: u32,
    /// Seeds that train the blueprint; 0 for a seed that does not train.
    count: u32,
    /// ln Σ eʷ of an ATTENTION_HEAD.
    pub(crate) log_partition: f32,
}

/// Words of a place in shared memory.
const PLACE_WORDS: usize = size_of::<Place>() / 4;

impl Place {
    /// That of a seed that does not train.
    pub(crate) const NONE: Self = Self { slot: 0, first: 0, count: 0, log_partition: 0.0 };

    /// # Safety
    /// As [`Scratch::write`]; `s` is below the block's threads.
    #[inline(always)]
    pub(crate) unsafe fn write(self, shared: &Scratch, s: u32) {
        // SAFETY: the caller's contract.
        unsafe { shared.write_words(s as usize * PLACE_WORDS, self) };
    }

    /// # Safety
    /// [`Self::write`] wrote it before a barrier.
    #[inline(always)]
    pub(crate) unsafe fn read(shared: &Scratch, s: u32) -> Self {
        // SAFETY: the caller's contract.
        unsafe { shared.read_words(s as usize * PLACE_WORDS) }
    }
}

/// How many training seeds have a lower blueprint, the same one and a lower number, and the same one.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Rank {
    before: u32,
    earlier: u32,
    count: u32,
}

/// Seeds that a lane looks at together.
const SEEDS: usize = 8;

/// Ranks seed `seed` with blueprint `id` among all that train. A warp's lanes share the seeds.
///
/// # Safety
/// Every lane of the warp calls it with the same arguments.
#[inline(always)]
unsafe fn rank(p: &BlendBackward, id: u16, seed: u32) -> Rank {
    let mut rank = Rank::zeroed();
    let mut look = |state: u8, other: u16, number: u32| {
        if other != BLUEPRINT_NONE && trains(state) {
            rank.before += u32::from(other < id);
            rank.earlier += u32::from(other == id && number < seed);
            rank.count += u32::from(other == id);
        }
    };
    let (states, ids) = (&p.layer.lifecycle, &p.layer.blueprint_id);
    let mut first = thread::lane_idx() * SEEDS as u32;
    // SAFETY: what is loaded is below the number of seeds; whole vectors begin at multiples of their size.
    unsafe {
        while first + SEEDS as u32 <= p.num_seeds {
            let states = states.load_vector::<SEEDS>(first as usize, LoadHint::Cached);
            let ids = ids.load_vector::<SEEDS>(first as usize, LoadHint::Cached);
            unroll!(i in SEEDS => { look(states.0[i], ids.0[i], first + i as u32); });
            first += warp::WARP_SIZE * SEEDS as u32;
        }
        // The ragged end is one lane's.
        while first < p.num_seeds && first + SEEDS as u32 > p.num_seeds {
            look(states.load(first as usize), ids.load(first as usize), first);
            first += 1;
        }
    }
    warp_fold(rank, |a, b| Rank {
        before: a.before + b.before,
        earlier: a.earlier + b.earlier,
        count: a.count + b.count,
    })
}

/// The place of a seed that trains.
///
/// # Safety
/// As [`rank`].
#[inline(always)]
pub(crate) unsafe fn place_in_blueprint(p: &BlendBackward, seed: u32) -> Place {
    // SAFETY: the caller's contract.
    let Rank { before, earlier, count } =
        unsafe { rank(p, p.layer.blueprint_id.load(seed as usize), seed) };
    Place { slot: before + earlier, first: before, count, log_partition: 0.0 }
}

/// Counts the group's seeds as finished, and sums up the blueprints whose last seeds they are.
///
/// # Safety
/// Every thread of the block that finished the group calls it; the places are in `shared`.
#[inline(always)]
pub(crate) unsafe fn finish<const W: usize>(p: &BlendBackward, strip: &Strip, shared: &Scratch) {
    // Orders what the block's threads added before the arrivals that release it to the device.
    thread::sync_threads();
    let t = thread::thread_idx_x();
    let mut completes = false;
    if t < strip.seeds {
        // SAFETY: the seed's place was written; nobody else touches a count after its last arrival.
        unsafe {
            let Place { first, count, .. } = Place::read(shared, t);
            if count > 0 {
                let arrivals = &p.scratch.blueprint_arrivals;
                let index = first as usize;
                let before = atomic::fetch_add(arrivals, index, 1, Order::AcqRel, Scope::Device);
                completes = before + 1 == count;
                if completes {
                    atomic::store(arrivals, index, 0, Order::Relaxed, Scope::Device);
                }
            }
            // In the place of the number of seeds' room: a flag beyond all places.
            shared.write(BLOCK * PLACE_WORDS + t as usize, u32::from(completes));
        }
    }
    // Orders what other blocks added, acquired by the threads that arrived last, and the flags before their
    // readers.
    if !thread::sync_threads_or(completes) {
        return;
    }
    let split = Split::of::<W>(p);
    let mut turn = 0;
    let mut base = 0;
    while base < strip.seeds {
        let s = base + thread::lane_idx();
        // SAFETY: the flags of the strip's seeds were written before the barrier.
        let flag = s < strip.seeds && unsafe { shared.read(BLOCK * PLACE_WORDS + s as usize) } != 0;
        let mut flags = warp::ballot(warp::FULL_MASK, flag);
        while flags != 0 {
            let s = base + flags.trailing_zeros();
            flags &= flags - 1;
            // The warps take turns at the shares of each blueprint.
            let mut share = 0;
            while share < split.shares {
                if turn % WARPS as u32 == thread::warp_idx() {
                    // SAFETY: all lanes of the warp are here; every seed of the blueprint is finished.
                    unsafe {
                        let id = p.layer.blueprint_id.load((strip.first_seed + s) as usize);
                        sum_share::<W>(p, id, Place::read(shared, s), split, share);
                    }
                }
                turn += 1;
                share += 1;
            }
        }
        base += warp::WARP_SIZE;
    }
}

/// How a blueprint's gradients are shared among warps: `lanes` lanes of a warp sum one vector of weights,
/// each its own seeds.
#[derive(Clone, Copy)]
struct Split {
    /// As a power of two.
    shift: u32,
    /// Vectors of weights; the scale is one more.
    vectors: u32,
    /// Shares of a warp each.
    shares: u32,
}

impl Split {
    #[inline(always)]
    fn of<const W: usize>(p: &BlendBackward) -> Self {
        let vectors = p.chunk_size / W as u32;
        // With many vectors there is work enough without.
        let shift = if vectors >= BLOCK as u32 {
            0
        } else if vectors >= BLOCK as u32 / 2 {
            1
        } else {
            2
        };
        let shares = (vectors + 1).div_ceil(warp::WARP_SIZE >> shift.min(2));
        Self { shift, vectors, shares }
    }
}

/// Sums what the seeds of a blueprint added to some of its gradients.
///
/// # Safety
/// Every lane of the warp calls it; what the seeds added is there.
#[inline(always)]
unsafe fn sum_share<const W: usize>(
    p: &BlendBackward,
    id: u16,
    place: Place,
    split: Split,
    share: u32,
) {
    let Split { shift, vectors, .. } = split;
    let lane = thread::lane_idx();
    let (lanes, part) = (1 << shift, lane & ((1 << shift) - 1));
    let vector = share * (warp::WARP_SIZE >> shift) + (lane >> shift);
    let (first, count, chunk) = (place.first as usize, place.count, p.chunk_size as usize);
    let mut sum = Vector([0.0; W]);
    // SAFETY: the slots of the blueprint's seeds are `count` from `first`.
    unsafe {
        if vector < vectors {
            let column = vector as usize * W;
            let mut seed = part;
            while seed < count {
                // Four on their way at a time.
                let mut group = [Vector([0.0; W]); 4];
                unroll!(k in 4 => {
                    let other = seed + (k as u32) * lanes;
                    if other < count {
                        let at = (first + other as usize) * chunk + column;
                        group[k] = p.scratch.contributions.load_vector(at, LoadHint::Cached);
                    }
                });
                unroll!(k in 4 => {
                    unroll!(l in W => { sum.0[l] += group[k].0[l]; });
                });
                seed += 4 * lanes;
            }
        } else if vector == vectors {
            let mut seed = part;
            while seed < count {
                sum.0[0] += p.scratch.scale_contributions.load(first + seed as usize);
                seed += lanes;
            }
        }
    }
    let mut total = sum;
    unroll!(l in W => { total.0[l] = warp_fold_width(sum.0[l], lanes, |a, b| a + b); });
    if part != 0 || vector > vectors {
        return;
    }
    let id = id as usize;
    // SAFETY: one lane writes each gradient of the blueprint, inside its weights.
    unsafe {
        if vector == vectors {
            p.gradients.scales.store(id, total.0[0]);
        } else {
            let at = p.layer.blueprint_offset.load(id) as usize + vector as usize * W;
            unroll!(l in W => { p.gradients.weights.store(at + l, total.0[l]); });
        }
    }
}

/// Writes the zeros of the group's seeds that do not train, and of its share of the blueprints that no seed
/// trains.
///
/// # Safety
/// Every thread of one block a group calls it.
#[inline(always)]
pub(crate) unsafe fn clear_untrained(p: &BlendBackward, strip: &Strip) {
    let t = thread::thread_idx_x();
    if t < strip.seeds {
        let seed = (strip.first_seed + t) as usize;
        // SAFETY: the strip's seeds are seeds; nobody else writes the figures of one that does not train.
        unsafe {
            let id = p.layer.blueprint_id.load(seed);
            if id == BLUEPRINT_NONE || !trains(p.layer.lifecycle.load(seed)) {
                p.gradients.alpha.store(seed, 0.0);
                p.gradients.norm.store(seed, 0.0);
                p.gradients.variance.store(seed, 0.0);
                p.gradients.max.store(seed, 0.0);
            }
        }
    }
    // Blueprints are dealt to the groups in turn, and within one to its warps.
    let groups = p.geometry.groups();
    let mut id = strip.group + thread::warp_idx() * groups;
    while id < p.num_blueprints {
        // SAFETY: all lanes of the warp are here with the same blueprint; nobody else writes the gradients
        // of one that no seed trains.
        unsafe {
            if id == u32::from(BLUEPRINT_NONE) || rank(p, id as u16, 0).count == 0 {
                let offset = p.layer.blueprint_offset.load(id as usize) as usize;
                let mut i = thread::lane_idx();
                while i < p.chunk_size {
                    p.gradients.weights.store(offset + i as usize, 0.0);
                    i += warp::WARP_SIZE;
                }
                if thread::lane_idx() == 0 {
                    p.gradients.scales.store(id as usize, 0.0);
                }
            }
        }
        id += WARPS as u32 * groups;
    }
}

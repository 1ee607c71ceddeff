//! Updates of the seeds' state, a batch at a time: each is checked whole, then applied or refused.
//!
//! # Math
//! In the order of the records, also where several name one seed: an update is refused, with the first
//! of these as its status, if its seed does not exist, if a bit of its mask means nothing, if its
//! transition is not in `kasmina_types::lifecycle::TRANSITIONS`, if it resets a culled seed whose embargo
//! had not ended before it, if its blueprint or its schedule does not exist, if its ramp is empty, or if α
//! is not finite or its target outside [0, 1]. A refused update changes nothing. An applied one sets the
//! fields of its mask; a transition also sets `epochs_in_state` to 0, and one to GRAFTING sets
//! `baseline_loss` to NaN and `drift_count` to 0.
//!
//! # Layout
//! | buffer | shape | type | access |
//! |---|---|---|---|
//! | `updates` | `[num_updates]` of 48 bytes | record | in, 16-byte aligned |
//! | the seeds' arrays | `[num_seeds]` | u8, u16, u32, f32 | in and out |
//! | `status`, `found` | `[num_updates]` | u32, u8 | out, every element written |
//! | `counts` | `[2]` | u32 | out: applied, refused |
//!
//! # Traffic
//! 48 bytes an update read, 5 written, and the seed's fields: nothing beside the latency of a window.
//!
//! # Launch
//! One block of 256 threads, a window of 256 updates at a time, one a thread. Updates of one seed within
//! a window take turns: update number r of its seed waits for turn r. So a window has as many turns as
//! its busiest seed has updates, one as a rule. Every thread meets every barrier.
//!
//! # Determinism
//! Bitwise: the result is that of applying the records one after the other.
//!
//! # Source
//! Original. Reference: `kasmina_reference::kasmina::apply_update`.

use kasmina_device::global::{Load, Store};
use kasmina_device::reduce::block_fold;
use kasmina_device::vector::LoadHint;
use kasmina_device::{kernel, shared_array, thread, unroll, warp};
use kasmina_types::blueprint::BLUEPRINT_NONE;
use kasmina_types::lifecycle::TRANSITION_MASKS;
use kasmina_types::seed_state::field;
use kasmina_types::state_update::NO_SEED;
use kasmina_types::{
    BlendSchedule, In, SeedLifecycle, StateUpdate, StateUpdates, UpdateStatus as Status,
};

const BLOCK: usize = 256;
const WARPS: usize = BLOCK / warp::WARP_SIZE as usize;

/// Applies a batch.
///
/// # Safety
/// Every array has the length that [`StateUpdates`] says; the grid is one block.
#[kernel(block = 256)]
pub unsafe fn state_update_f32(p: StateUpdates) {
    let seeds_smem = shared_array![u32; BLOCK];
    let counts_smem = shared_array![u32; WARPS];
    let t = thread::thread_idx_x() as usize;
    let count = p.num_updates as usize;
    let mut applied = 0_u32;

    let mut window = 0;
    while window < count {
        let index = window + t;
        let mut update = StateUpdate::of(0);
        if index < count {
            // SAFETY: `index < num_updates`.
            update = unsafe { load(&p.updates.cast(), index) };
        }
        // SAFETY: each thread has its own place.
        unsafe { seeds_smem.write(t, update.seed) };
        // Orders the window's seeds before those who look for their own among them.
        thread::sync_threads();
        let mut turn = 0;
        let mut earlier = 0;
        while earlier < t {
            // SAFETY: every thread wrote its place before the barrier.
            turn += u32::from(unsafe { seeds_smem.read(earlier) } == update.seed);
            earlier += 1;
        }

        let mut now = 0;
        loop {
            if index < count && turn == now {
                // SAFETY: no other update of the seed has this turn; a barrier parts the turns.
                let (status, found) = unsafe { apply(&p, &update) };
                applied += u32::from(status as u32 == Status::Applied as u32);
                // SAFETY: the update's places are this thread's alone.
                unsafe {
                    p.status.store(index, status as u32);
                    p.found.store(index, found);
                }
            }
            now += 1;
            // Orders a turn's stores before the next turn's loads, the last before the next window's.
            if !thread::sync_threads_or(index < count && turn >= now) {
                break;
            }
        }
        window += BLOCK;
    }

    let total = block_fold::<u32, WARPS, WARPS>(applied, &counts_smem, |a, b| a + b);
    if let (Some(total), 0) = (total, t) {
        // SAFETY: one thread writes the two counts.
        unsafe {
            p.counts.store(0, total);
            p.counts.store(1, p.num_updates - total);
        }
    }
}

/// Record `index` in three 16-byte loads.
///
/// # Safety
/// The record is inside `words`.
#[inline(always)]
unsafe fn load(words: &In<u32>, index: usize) -> StateUpdate {
    let part = |i: usize| {
        // SAFETY: a record is twelve words, aligned to 16 bytes.
        unsafe { words.load_vector::<4>(12 * index + 4 * i, LoadHint::Cached) }.0
    };
    let [seed, mask, lifecycle, blueprint_id] = part(0);
    let [schedule, ramp_epochs, embargo_epochs, alpha] = part(1);
    let [alpha_target, ..] = part(2);
    StateUpdate {
        seed,
        mask,
        lifecycle,
        blueprint_id,
        schedule,
        ramp_epochs,
        embargo_epochs,
        alpha: f32::from_bits(alpha),
        alpha_target: f32::from_bits(alpha_target),
        _padding: [0; 3],
    }
}

/// Applies one update, if it is right; gives its status and the lifecycle that it found.
///
/// # Safety
/// Nobody else accesses the seed's places until the next barrier.
#[inline(always)]
unsafe fn apply(p: &StateUpdates, update: &StateUpdate) -> (Status, u8) {
    if update.seed >= p.num_seeds {
        return (Status::SeedOutOfRange, NO_SEED);
    }
    let seed = update.seed as usize;
    // SAFETY: `seed < num_seeds`, and the caller's contract.
    let (lifecycle, embargo) =
        unsafe { (p.seeds.lifecycle.load(seed), p.seeds.embargo_epochs.load(seed)) };
    let status = judge(p, update, lifecycle, embargo);
    if status as u32 == Status::Applied as u32 {
        // SAFETY: as above.
        unsafe { set(p, seed, update) };
    }
    (status, lifecycle)
}

/// What is wrong with an update of a seed in this state.
#[inline(always)]
fn judge(p: &StateUpdates, update: &StateUpdate, lifecycle: u8, embargo: u32) -> Status {
    let has = |bit| update.mask & bit != 0;
    if update.mask & !field::ALL != 0 {
        return Status::UnknownField;
    }
    if has(field::LIFECYCLE) {
        if !is_transition(u32::from(lifecycle), update.lifecycle) {
            return Status::IllegalTransition;
        }
        // The table lets a culled seed become nothing else.
        if lifecycle == SeedLifecycle::Culled as u8 && embargo != 0 {
            return Status::Embargoed;
        }
    }
    let known =
        update.blueprint_id < p.num_blueprints && update.blueprint_id <= u32::from(u16::MAX);
    if has(field::BLUEPRINT_ID) && update.blueprint_id != u32::from(BLUEPRINT_NONE) && !known {
        return Status::BlueprintOutOfRange;
    }
    if has(field::SCHEDULE) && update.schedule >= BlendSchedule::ALL.len() as u32 {
        return Status::UnknownSchedule;
    }
    if has(field::RAMP_EPOCHS) && update.ramp_epochs == 0 {
        return Status::EmptyRamp;
    }
    let target_outside = !(0.0..=1.0).contains(&update.alpha_target);
    if has(field::ALPHA) && !update.alpha.is_finite() || has(field::ALPHA_TARGET) && target_outside
    {
        return Status::AlphaOutOfRange;
    }
    Status::Applied
}

/// [`TRANSITION_MASKS`], two of them in a word.
const MASK_PAIRS: [u32; 8] = {
    let mut pairs = [0; 8];
    let mut from = 0;
    while from < TRANSITION_MASKS.len() {
        pairs[from / 2] |= (TRANSITION_MASKS[from] as u32) << (16 * (from % 2));
        from += 1;
    }
    pairs
};

/// Whether the table has the transition; a word that is no state has none.
#[inline(always)]
fn is_transition(from: u32, to: u32) -> bool {
    let mut pair = 0;
    // Chosen by constants: an array that is indexed by a variable is in memory.
    unroll!(i in MASK_PAIRS.len() => {
        if from / 2 == i as u32 {
            pair = MASK_PAIRS[i];
        }
    });
    to < u16::BITS && pair >> (16 * (from % 2)) & (1 << to) != 0
}

/// Sets the fields of an update that is right.
///
/// # Safety
/// As [`apply`].
#[inline(always)]
unsafe fn set(p: &StateUpdates, seed: usize, update: &StateUpdate) {
    let seeds = &p.seeds;
    let has = |bit| update.mask & bit != 0;
    // SAFETY: the caller's contract.
    unsafe {
        if has(field::LIFECYCLE) {
            seeds.lifecycle.store(seed, update.lifecycle as u8);
            seeds.epochs_in_state.store(seed, 0);
            if update.lifecycle == SeedLifecycle::Grafting as u32 {
                seeds.baseline_loss.store(seed, f32::NAN);
                seeds.drift_count.store(seed, 0);
            }
        }
        if has(field::BLUEPRINT_ID) {
            seeds.blueprint_id.store(seed, update.blueprint_id as u16);
        }
        if has(field::SCHEDULE) {
            seeds.schedule.store(seed, update.schedule as u8);
        }
        if has(field::RAMP_EPOCHS) {
            seeds.ramp_epochs.store(seed, update.ramp_epochs);
        }
        if has(field::EMBARGO_EPOCHS) {
            seeds.embargo_epochs.store(seed, update.embargo_epochs);
        }
        if has(field::ALPHA) {
            seeds.alpha.store(seed, update.alpha);
        }
        if has(field::ALPHA_TARGET) {
            seeds.alpha_target.store(seed, update.alpha_target);
        }
    }
}

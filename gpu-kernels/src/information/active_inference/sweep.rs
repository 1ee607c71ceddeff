//! One pass of a block over its rows of J, in which a *team* of whole warps takes a row: what the ways of it share.

use kasmina_device::global::Load;
use kasmina_device::shared::DynamicShared;
use kasmina_device::{hint, thread, warp};
use kasmina_types::active_inference::VARIANCE_FLOOR;
use kasmina_types::{ActiveInference, Out};

/// Threads of a block.
pub const BLOCK: usize = kasmina_types::tiles::ACTIVE_INFERENCE_BLOCK_THREADS as usize;
/// Warps of a block.
pub const WARPS: usize = BLOCK / warp::WARP_SIZE as usize;
/// Turns whose numbers a warp holds, one a lane: a multiple of every depth.
pub const WINDOW: usize = 24;
/// The thread's place in its block, of which the compiler knows nothing: addresses are computed where they are used.
/// What it computed of the place before the loop over models and steps would stay in registers all along.
#[inline(always)]
pub fn here() -> usize {
    hint::opaque(thread::thread_idx_x()) as usize
}

/// A variance of the belief, no less than the floor.
#[inline(always)]
pub fn floored(variance: f64) -> f64 {
    if variance > VARIANCE_FLOOR { variance } else { VARIANCE_FLOOR }
}

/// The sum over each group of `width` lanes, in every lane of it. An addition has the same bits either way round, so
/// that the butterfly needs no order.
#[inline(always)]
pub fn lane_sum(value: f64, width: u32) -> f64 {
    let (mut sum, mut step) = (value, width / 2);
    while step > 0 {
        sum += warp::shuffle_xor(warp::FULL_MASK, sum, step);
        step /= 2;
    }
    sum
}

/// A block's rows of a model.
#[derive(Clone, Copy)]
pub struct Share {
    /// The model.
    pub model: u32,
    /// The first row.
    pub begin: u32,
    /// The row after the last.
    pub end: u32,
    /// The block's place in the scratch.
    pub slot: u32,
}

/// Numbers that addresses are computed from, as [`here`] has the thread's place: fresh ones for each use.
#[derive(Clone, Copy)]
pub struct Fresh {
    /// The first row of the model, among those of all.
    pub first_row: usize,
    /// The first row of the share, in the model.
    pub begin: usize,
    /// The share's rows.
    pub rows: usize,
    /// Where the model's states begin.
    pub base: usize,
    /// Where the block's column sums begin.
    pub own: usize,
    /// States of a model, with padding.
    pub stride: usize,
}

impl Fresh {
    /// A row of the share, among those of all models.
    #[inline(always)]
    pub fn row(&self, within: usize) -> usize {
        self.first_row + self.begin + within
    }
}

impl Share {
    /// The share's numbers, afresh.
    #[inline(always)]
    pub fn fresh<const C: bool>(&self, p: &ActiveInference<C>) -> Fresh {
        let (model, stride) = (hint::opaque(self.model), hint::opaque(p.stride));
        Fresh {
            first_row: (model * p.observations) as usize,
            begin: self.begin as usize,
            rows: (self.end - self.begin) as usize,
            base: (model * stride) as usize,
            own: self.slot as usize * stride as usize,
            stride: stride as usize,
        }
    }
}

/// What a pass is for.
#[derive(Clone, Copy)]
pub struct Pass {
    /// The μ, or the vector, that J is multiplied by.
    pub mean: Out<f64>,
    /// What it is scaled by first.
    pub scale: f64,
    /// Whether it is the model's first.
    pub first: bool,
    /// Whether r is o − b − J·μ, and not −J·μ.
    pub observes: bool,
}

/// Rows that one of `teams` teams takes: begin + team, begin + team + teams, …
#[inline(always)]
pub fn turns(share: &Share, teams: usize, team: usize) -> u32 {
    let (rows, team) = (share.end - share.begin, team as u32);
    if rows > team { (rows - team).div_ceil(teams as u32) } else { 0 }
}

/// The row of a team's turn, among those of all models.
#[inline(always)]
pub fn row_of<const C: bool>(
    p: &ActiveInference<C>,
    share: &Share,
    teams: usize,
    team: usize,
    turn: u32,
) -> usize {
    share.fresh(p).row(team + turn as usize * teams)
}

/// π and o − b of a team's turns from `first` on, one a lane.
///
/// # Safety
/// As [`Sweep::pass`].
#[inline(always)]
pub unsafe fn numbers<const C: bool>(
    p: &ActiveInference<C>,
    share: &Share,
    pass: &Pass,
    teams: usize,
    team: usize,
    first: u32,
) -> [f64; 2] {
    let turn = first + thread::lane_idx();
    if turn >= turns(share, teams, team) {
        return [0.0; 2];
    }
    let row = row_of(p, share, teams, team, turn);
    // SAFETY: a row of the model.
    unsafe { [p.obs_precision.load(row), if pass.observes { p.target.load(row) } else { 0.0 }] }
}

/// Puts the vectors that J's rows are multiplied by into shared memory, zeros behind them: x first, from `capacity` on
/// s, where it is asked for. Ends with a barrier.
///
/// # Safety
/// As [`Sweep::pass`]; the memory has room for two vectors of `capacity`.
#[inline(always)]
pub unsafe fn stage<const C: bool>(
    p: &ActiveInference<C>,
    share: &Share,
    pass: &Pass,
    staged: &DynamicShared<f64>,
    capacity: usize,
) {
    let fresh = share.fresh(p);
    // All have left what the last pass had there.
    thread::sync_threads();
    let mut j = here();
    while j < capacity {
        let inside = j < fresh.stride;
        let place = fresh.base + if inside { j } else { 0 };
        // SAFETY: below the model's stride, which the arrays are padded to; each place of shared memory is one thread's.
        unsafe {
            staged.write(j, if inside { pass.scale * pass.mean.load(place) } else { 0.0 });
            if pass.first && pass.observes {
                let s = if inside { p.variance.load(place) } else { 0.0 };
                staged.write(capacity + j, floored(s));
            }
        }
        j += BLOCK;
    }
    // Orders the staged vectors before all reads of them.
    thread::sync_threads();
}

/// Adds up the column sums that `teams` teams left in shared memory, `capacity` apart.
///
/// # Safety
/// Every thread of the block calls it, after a barrier behind the teams' writes.
#[inline(always)]
pub unsafe fn merge<const C: bool>(
    p: &ActiveInference<C>,
    staged: &DynamicShared<f64>,
    teams: usize,
    capacity: usize,
    mut emit: impl FnMut(usize, f64),
) {
    let mut column = here();
    while column < p.states as usize {
        let mut total = 0.0;
        let mut other = 0;
        while other < teams {
            // SAFETY: written by team `other` before the barrier.
            total += unsafe { staged.read(other * capacity + column) };
            other += 1;
        }
        emit(column, total);
        column += BLOCK;
    }
}

/// A way to pass over rows.
pub trait Sweep {
    /// What a thread keeps from one pass to the next.
    type Held;

    /// Nothing kept. Every thread of the block calls it, once.
    fn nothing<const C: bool>(p: &ActiveInference<C>) -> Self::Held;

    /// Begins to fetch what the pass needs first, so that it is on its way while other things are done.
    ///
    /// # Safety
    /// As [`Self::pass`], which it comes before.
    unsafe fn hold<const C: bool>(
        p: &ActiveInference<C>,
        share: &Share,
        pass: &Pass,
        held: &mut Self::Held,
    );

    /// One pass. `emit` gets Σ π_i r_i J_ij over the share for each column j, each in one thread. Answers the
    /// thread's part of Σ π·r², and in a first pass adds its part of Σ π_i J_ij² s_j to `spread`.
    ///
    /// # Safety
    /// Every thread of the block calls it, from one place; the views are as [`ActiveInference`] says, the share's
    /// rows are the model's, and nobody writes `pass.mean` meanwhile but `emit`.
    unsafe fn pass<const C: bool>(
        p: &ActiveInference<C>,
        share: &Share,
        pass: &Pass,
        held: &mut Self::Held,
        spread: &mut f64,
        emit: impl FnMut(usize, f64),
    ) -> f64;
}

//! What threads, blocks and the parts of a group add up, and what is left of it.

use kasmina_device::global::{Load, Store};
use kasmina_device::reduce::warp_fold;
use kasmina_device::shared::Shared;
use kasmina_device::vector::{LoadHint, Vector};
use kasmina_device::{thread, warp};
use kasmina_types::active_inference::BLOCK_SUMS;
use kasmina_types::{ActiveInference, InferenceFigures, Out};

use super::sweep::{WARPS, here, lane_sum};

/// Numbers of [`Sums`].
pub const SUMS: usize = 4;

/// Where the sums of the second half of a step are among a block's.
pub const MOVED: usize = 4;

/// Eight-byte words of the figures.
const FIGURE_WORDS: usize = size_of::<InferenceFigures>() / 8;

/// Figures of nothing.
pub const NONE: InferenceFigures = InferenceFigures {
    complexity: 0.0,
    accuracy_plugin: 0.0,
    accuracy_expected: 0.0,
    distance_bound: 0.0,
    steps: 0,
    converged: 0,
    curvature: 0.0,
};

const WARP: usize = warp::WARP_SIZE as usize;

/// What threads, blocks and parts add up.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Sums {
    /// Σ π·r².
    pub misfit: f64,
    /// Σ ln(2π/π_i).
    pub logs: f64,
    /// Σ π_i J_ij² s_j.
    pub spread: f64,
    /// Twice the complexity.
    pub complexity: f64,
}

/// What threads, blocks and parts add up where they move μ.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub struct Moved {
    /// Σ v0·g², or vᵀH·v.
    pub first: f64,
    /// ‖H·v‖².
    pub second: f64,
}

impl Sums {
    /// Nothing.
    pub const ZERO: Self = Self { misfit: 0.0, logs: 0.0, spread: 0.0, complexity: 0.0 };

    /// Both together.
    #[inline(always)]
    pub fn plus(self, other: Self) -> Self {
        Self {
            misfit: self.misfit + other.misfit,
            logs: self.logs + other.logs,
            spread: self.spread + other.spread,
            complexity: self.complexity + other.complexity,
        }
    }

    /// Complexity, plug-in and expected accuracy.
    #[inline(always)]
    pub fn figures(self) -> InferenceFigures {
        let accuracy_plugin = -0.5 * (self.misfit + self.logs);
        let accuracy_expected = accuracy_plugin - 0.5 * self.spread;
        InferenceFigures {
            complexity: 0.5 * self.complexity,
            accuracy_plugin,
            accuracy_expected,
            ..NONE
        }
    }
}

impl Moved {
    /// Nothing.
    pub const ZERO: Self = Self { first: 0.0, second: 0.0 };

    /// Both together.
    #[inline(always)]
    pub fn plus(self, other: Self) -> Self {
        Self { first: self.first + other.first, second: self.second + other.second }
    }
}

/// A block's sums, in every thread of warp 0, nothing in the others: lanes by butterfly, then warps by butterfly. The
/// scratch may be used again after the next barrier.
#[inline(always)]
pub fn fold(own: Sums, scratch: &Shared<f64, { WARPS * SUMS }>) -> Sums {
    let lane_sums = |sums: Sums, width| Sums {
        misfit: lane_sum(sums.misfit, width),
        logs: lane_sum(sums.logs, width),
        spread: lane_sum(sums.spread, width),
        complexity: lane_sum(sums.complexity, width),
    };
    let warps = lane_sums(own, warp::WARP_SIZE);
    let (lane, warp) = (here() % WARP, here() / WARP);
    if lane == 0 {
        // SAFETY: one lane a warp writes its places.
        unsafe {
            scratch.write_vector(warp * SUMS, Vector([warps.misfit, warps.logs]));
            scratch.write_vector(warp * SUMS + 2, Vector([warps.spread, warps.complexity]));
        }
    }
    // Orders the warps' sums before warp 0 reads them.
    thread::sync_threads();
    if warp != 0 {
        return Sums::ZERO;
    }
    // A warp's sums a lane, over and over.
    let at = lane % WARPS * SUMS;
    // SAFETY: every warp wrote its places before the barrier.
    let (a, b) = unsafe { (scratch.read_vector::<2>(at).0, scratch.read_vector::<2>(at + 2).0) };
    let sums = Sums { misfit: a[0], logs: a[1], spread: b[0], complexity: b[1] };
    lane_sums(sums, WARPS as u32)
}

/// The group's sums over its parts, in every lane of the warp.
///
/// # Safety
/// Every lane calls it, after all parts left their sums.
#[inline(always)]
pub unsafe fn total_sums<const C: bool>(p: &ActiveInference<C>, first_slot: u32) -> Sums {
    let mut own = Sums::ZERO;
    let mut part = here() % WARP;
    while part < p.parts as usize {
        let at = (first_slot as usize + part) * BLOCK_SUMS;
        // SAFETY: the part left them before the barrier; places are aligned.
        let (a, b): (Vector<f64, 2>, Vector<f64, 2>) = unsafe {
            (p.sums.load_vector(at, LoadHint::Cached), p.sums.load_vector(at + 2, LoadHint::Cached))
        };
        let sums = Sums { misfit: a.0[0], logs: a.0[1], spread: b.0[0], complexity: b.0[1] };
        own = own.plus(sums);
        part += warp::WARP_SIZE as usize;
    }
    warp_fold(own, Sums::plus)
}

/// As [`total_sums`], of what was moved.
///
/// # Safety
/// As [`total_sums`].
#[inline(always)]
pub unsafe fn total_moved<const C: bool>(p: &ActiveInference<C>, first_slot: u32) -> Moved {
    let mut own = Moved::ZERO;
    let mut part = here() % WARP;
    while part < p.parts as usize {
        let at = (first_slot as usize + part) * BLOCK_SUMS + MOVED;
        // SAFETY: the part left them before the barrier; places are aligned.
        let pair: Vector<f64, 2> = unsafe { p.sums.load_vector(at, LoadHint::Cached) };
        own = own.plus(Moved { first: pair.0[0], second: pair.0[1] });
        part += warp::WARP_SIZE as usize;
    }
    warp_fold(own, Moved::plus)
}

/// Complexity, both accuracies and the bound, from `at` on.
///
/// # Safety
/// The four places are this thread's.
#[inline(always)]
pub unsafe fn leave_parts(view: &Out<f64>, at: usize, figures: &InferenceFigures) {
    // SAFETY: the caller's contract.
    unsafe {
        view.store(at, figures.complexity);
        view.store(at + 1, figures.accuracy_plugin);
        view.store(at + 2, figures.accuracy_expected);
        view.store(at + 3, figures.distance_bound);
    }
}

/// A model's figures.
///
/// # Safety
/// The model's place is this thread's.
#[inline(always)]
pub unsafe fn leave<const C: bool>(p: &ActiveInference<C>, model: u32, figures: InferenceFigures) {
    let view: Out<f64> = p.figures.cast();
    let counts: Out<u32> = p.figures.cast();
    let at = model as usize * FIGURE_WORDS;
    // SAFETY: the caller's contract; two counts lie behind the four parts, λ behind them.
    unsafe {
        leave_parts(&view, at, &figures);
        counts.store(2 * at + 8, figures.steps);
        counts.store(2 * at + 9, figures.converged);
        view.store(at + 5, figures.curvature);
    }
}

//! Parameters of the kernels for Gaussian active inference, and of the vector operations beside them.
//!
//! Arrays of models lie one model after the other. A *stride* is the states of a model, rounded up so that a row of
//! J is a multiple of 16 bytes; what is beyond the states is 0 in J and the means.

use crate::view::{In, Out};

/// Variances of the belief count as this at least.
pub const VARIANCE_FLOOR: f64 = 1e-10;

/// States are rounded up to a multiple of this.
pub const STATE_ALIGN: usize = 4;

/// Steps that the power iteration takes before the change of λ may end it: λ is quadratic in how much of the leading
/// eigenvector there is, and stands still at a smaller eigenvalue while that is little.
pub const CURVATURE_LEAST_STEPS: u32 = 24;

/// Figures of one μ in [`ActiveInference::trace`].
pub const TRACE_FIGURES: usize = 4;

/// f64 of scratch for each block in [`ActiveInference::sums`].
pub const BLOCK_SUMS: usize = 8;

/// What a model's inference came to.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct InferenceFigures {
    /// KL(q ‖ prior), nats.
    pub complexity: f64,
    /// ln p(o | μ), nats.
    pub accuracy_plugin: f64,
    /// E_q[ln p(o | x)], nats.
    pub accuracy_expected: f64,
    /// No less than the distance to the posterior mean, in prior standard deviations; 0 from a single step.
    pub distance_bound: f64,
    /// Steps taken.
    pub steps: u32,
    /// 1 where the tolerance was met.
    pub converged: u32,
    /// λmax, from the kernels that look for it.
    pub curvature: f64,
}

crate::assert_layout!(InferenceFigures, size = 48, align = 16, {
    complexity: 0, accuracy_plugin: 8, accuracy_expected: 16, distance_bound: 24, steps: 32,
    converged: 36, curvature: 40,
});

// SAFETY: `repr(C)`, five 8-byte and two 4-byte fields, no implicit padding, and every bit pattern is a value.
unsafe impl bytemuck::Pod for InferenceFigures {}
// SAFETY: as above.
unsafe impl bytemuck::Zeroable for InferenceFigures {}

/// What the one-launch kernels take: `belief_step_*`, `infer_until_converged_*` and `curvature_*`.
///
/// A group of `parts` blocks takes a model, group g the models g, g + groups, …; the grid is `groups · parts` blocks,
/// all of them resident at once where `parts` is above 1. Block b is part b mod `parts` of group b / `parts`.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub struct ActiveInference<const COHERENT: bool = false> {
    /// J, `[models, observations, stride]`, in the instance's type, 16-byte aligned.
    pub jacobian: In<u8, COHERENT>,
    /// o − b, `[models, observations]`.
    pub target: In<f64, COHERENT>,
    /// π, `[models, observations]`.
    pub obs_precision: In<f64, COHERENT>,
    /// m0, `[models, stride]`.
    pub prior_mean: In<f64, COHERENT>,
    /// v0, `[models, stride]`.
    pub prior_var: In<f64, COHERENT>,
    /// s, `[models, stride]`.
    pub variance: In<f64, COHERENT>,
    /// κ of each model, `[models]`.
    pub kappa: In<f64, COHERENT>,
    /// μ, `[models, stride]`, before and after; for `curvature_*` a vector to begin with, scratch.
    pub mean: Out<f64>,
    /// Scratch, `[models, stride]`: the other μ; empty for `belief_step_*`.
    pub other_mean: Out<f64>,
    /// Scratch, `[groups · parts, stride]`: each block's share of Jᵀ(π·r).
    pub partials: Out<f64>,
    /// Scratch, `[groups · parts, BLOCK_SUMS]`.
    pub sums: Out<f64>,
    /// Scratch, `[groups]`: the groups' barriers, zero before the first launch.
    pub barriers: Out<u32>,
    /// What came of it, `[models]`.
    pub figures: Out<InferenceFigures>,
    /// Complexity, both accuracies and the distance bound of the first `trace_points` μ of each model,
    /// `[models, trace_points, TRACE_FIGURES]`.
    pub trace: Out<f64>,
    /// Stops where the bound is at most this, below 0 never; for `curvature_*` the relative change of λ.
    pub tolerance: f64,
    /// Steps at most.
    pub max_steps: u32,
    /// Models.
    pub models: u32,
    /// Observations of a model.
    pub observations: u32,
    /// States of a model.
    pub states: u32,
    /// States with padding.
    pub stride: u32,
    /// Blocks that share a model.
    pub parts: u32,
    /// μ whose figures are kept.
    pub trace_points: u32,
    /// Rows of a part: `observations / parts`; the first `observations mod parts` have one more.
    pub part_rows: u32,
    /// Parts that have one more.
    pub longer_parts: u32,
    /// States that a part moves, at most: times `parts` no less than `states`.
    pub part_states: u32,
}

impl<const COHERENT: bool> ActiveInference<COHERENT> {
    /// The rows of a part: the first, and the one after the last.
    #[inline(always)]
    pub fn rows_of(&self, part: u32) -> (u32, u32) {
        let before = if part < self.longer_parts { part } else { self.longer_parts };
        let begin = part * self.part_rows + before;
        (begin, begin + self.part_rows + (part < self.longer_parts) as u32)
    }
}

crate::assert_layout!(ActiveInference, size = 272, align = 16, {
    jacobian: 0, target: 16, obs_precision: 32, prior_mean: 48, prior_var: 64, variance: 80, kappa: 96, mean: 112,
    other_mean: 128, partials: 144, sums: 160, barriers: 176, figures: 192, trace: 208, tolerance: 224,
    max_steps: 232, models: 236, observations: 240, states: 244, stride: 248, parts: 252, trace_points: 256,
    part_rows: 260, longer_parts: 264, part_states: 268,
});

/// What `fused_kl_complexity_*`, `fused_accuracy_pipeline_*` and `fused_belief_update_*` take; each uses the arrays
/// that it names.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub struct InferenceStage {
    /// J, `[models, observations, stride]`, in the instance's type, 16-byte aligned.
    pub jacobian: In<u8>,
    /// o − b, `[models, observations]`.
    pub target: In<f64>,
    /// π, `[models, observations]`.
    pub obs_precision: In<f64>,
    /// m0, `[models, stride]`.
    pub prior_mean: In<f64>,
    /// v0, `[models, stride]`.
    pub prior_var: In<f64>,
    /// s, `[models, stride]`.
    pub variance: In<f64>,
    /// κ of each model, `[models]`.
    pub kappa: In<f64>,
    /// μ, `[models, stride]`; `fused_belief_update_*` moves it.
    pub mean: Out<f64>,
    /// r, `[models, observations]`: out of the accuracy, into the update.
    pub residual: Out<f64>,
    /// Scratch of the accuracy, `[models, tiles, 2]`.
    pub partials: Out<f64>,
    /// Scratch of the accuracy, `[models]`, zero before and after.
    pub arrivals: Out<u32>,
    /// Complexity, or plug-in and expected accuracy: `[models]` or `[models, 2]`.
    pub output: Out<f64>,
    /// Models.
    pub models: u32,
    /// Observations of a model.
    pub observations: u32,
    /// States of a model.
    pub states: u32,
    /// States with padding.
    pub stride: u32,
}

crate::assert_layout!(InferenceStage, size = 208, align = 16, {
    jacobian: 0, target: 16, obs_precision: 32, prior_mean: 48, prior_var: 64, variance: 80, kappa: 96, mean: 112,
    residual: 128, partials: 144, arrivals: 160, output: 176, models: 192, observations: 196, states: 200,
    stride: 204,
});

/// What `axpby_*` take: out\[i\] ← α·x\[i mod p\] + β·y\[i\], p the elements of x.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub struct Axpby<const COHERENT: bool = false> {
    /// x, one element at least.
    pub x: In<u8, COHERENT>,
    /// y, of the output's length, or empty where β·y is left out.
    pub y: In<u8, COHERENT>,
    /// The result.
    pub out: Out<u8>,
    /// α.
    pub alpha: f64,
    /// β.
    pub beta: f64,
}

crate::assert_layout!(Axpby, size = 64, align = 16, { x: 0, y: 16, out: 32, alpha: 48, beta: 56 });

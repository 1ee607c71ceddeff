//! Parameters of the kernels that clip the gradients of a layer's parameters.
//!
//! The gradients are cut into *units*: unit b is the row of blueprint b, its scale, and the α of every
//! seed that has blueprint b. So each value is in one unit, and what a blueprint learns is scaled as a
//! whole, however many seeds share it. The adaptive way goes seed by seed within a unit.

use crate::view::{In, Out};

/// What a unit's gradients looked like, or all units' together.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClipFigures {
    /// Σ g² over the finite values, before clipping.
    pub square_sum: f64,
    /// What the values were multiplied by; of several units the smallest.
    pub coefficient: f64,
    /// Values that are NaN or infinite.
    pub nonfinite: u32,
    /// Values that clipping changed one by one.
    pub clipped_values: u32,
    /// Units, in the adaptive way seeds, that were multiplied by less than 1.
    pub clipped_units: u32,
    /// Units with a value that is not finite; in the adaptive way seeds whose norm is not.
    pub nonfinite_units: u32,
}

crate::assert_layout!(ClipFigures, size = 32, align = 16, {
    square_sum: 0, coefficient: 8, nonfinite: 16, clipped_values: 20, clipped_units: 24,
    nonfinite_units: 28,
});

// SAFETY: `repr(C)`, two 8-byte and four 4-byte fields, no implicit padding, and every bit pattern is a
// value.
unsafe impl bytemuck::Pod for ClipFigures {}
// SAFETY: as above.
unsafe impl bytemuck::Zeroable for ClipFigures {}

impl ClipFigures {
    /// Nothing seen.
    pub const EMPTY: Self = Self {
        square_sum: 0.0,
        coefficient: 1.0,
        nonfinite: 0,
        clipped_values: 0,
        clipped_units: 0,
        nonfinite_units: 0,
    };
}

/// What all runs of a plan did, one after the other.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClipTotals {
    /// Runs.
    pub runs: u64,
    /// Values that are NaN or infinite.
    pub nonfinite: u64,
    /// Values that clipping changed one by one.
    pub clipped_values: u64,
    /// Units, in the adaptive way seeds, that were multiplied by less than 1.
    pub clipped_units: u64,
}

crate::assert_layout!(ClipTotals, size = 32, align = 16, {
    runs: 0, nonfinite: 8, clipped_values: 16, clipped_units: 24,
});

// SAFETY: `repr(C)`, four 8-byte fields, no implicit padding, and every bit pattern is a value.
unsafe impl bytemuck::Pod for ClipTotals {}
// SAFETY: as above.
unsafe impl bytemuck::Zeroable for ClipTotals {}

impl ClipTotals {
    /// With one more run.
    #[inline(always)]
    pub fn plus(self, run: &ClipFigures) -> Self {
        // No run adds more than 2³² to a count: none wraps in a lifetime.
        Self {
            runs: self.runs.wrapping_add(1),
            nonfinite: self.nonfinite.wrapping_add(run.nonfinite as u64),
            clipped_values: self.clipped_values.wrapping_add(run.clipped_values as u64),
            clipped_units: self.clipped_units.wrapping_add(run.clipped_units as u64),
        }
    }

    /// How often something was clipped: values, and units.
    pub fn activations(&self) -> u64 {
        self.clipped_values.saturating_add(self.clipped_units)
    }
}

/// What the `gradient_clip_*` kernels take.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub struct GradientClip {
    /// ∂L/∂w, as the weights lie.
    pub grad_weights: Out<f32>,
    /// ∂L/∂s, `[num_blueprints]`.
    pub grad_scales: Out<f32>,
    /// ∂L/∂α, `[num_seeds]`.
    pub grad_alpha: Out<f32>,
    /// Blueprint of each seed, `[num_seeds]`.
    pub blueprint_id: In<u16>,
    /// Where each blueprint's weights begin, in elements, `[num_blueprints]`.
    pub blueprint_offset: In<u32>,
    /// Norm of what each seed adds to ∂L/∂w, `[num_seeds]`.
    pub seed_norms: In<f32>,
    /// Each seed's running norm, NaN before there is one, `[num_seeds]`.
    pub running_norm: Out<f32>,
    /// Scratch: what each unit looked like, `[units]`.
    pub partials: Out<ClipFigures>,
    /// What all looked like together, `[1]`.
    pub figures: Out<ClipFigures>,
    /// What all runs did, this one with them, `[1]`.
    pub totals: Out<ClipTotals>,
    /// Scratch: blocks that have arrived, `[1]`, zero before and after.
    pub arrivals: Out<u32>,
    /// The largest magnitude, or the largest norm.
    pub limit: f32,
    /// A seed's largest norm as a multiple of its running norm.
    pub factor: f32,
    /// Share of the running norm that stays.
    pub decay: f32,
    /// Units: the blueprints, at least 1.
    pub units: u32,
    /// Seeds.
    pub num_seeds: u32,
    /// Blueprints.
    pub num_blueprints: u32,
    /// Weights of a blueprint.
    pub chunk_size: u32,
    /// Keeps the struct at a multiple of 16 bytes.
    pub _padding: u32,
}

crate::assert_layout!(GradientClip, size = 208, align = 16, {
    grad_weights: 0, grad_scales: 16, grad_alpha: 32, blueprint_id: 48, blueprint_offset: 64,
    seed_norms: 80, running_norm: 96, partials: 112, figures: 128, totals: 144, arrivals: 160,
    limit: 176, factor: 180, decay: 184, units: 188, num_seeds: 192, num_blueprints: 196,
    chunk_size: 200,
});

//! Parameters of the normalisations.

use core::fmt;

use crate::view::{In, Out};

/// How a row is normalised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum Norm {
    /// (u − mean) / √(variance + ε), the variance that of the population.
    #[default]
    LayerNorm,
    /// u / √(mean(u²) + ε).
    RmsNorm,
}

impl Norm {
    /// Both.
    pub const ALL: [Self; 2] = [Self::LayerNorm, Self::RmsNorm];

    /// The name as it stands in reports and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::LayerNorm => "layer_norm",
            Self::RmsNorm => "rms_norm",
        }
    }
}

impl fmt::Display for Norm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Whether the activation comes before the normalisation or after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum NormOrder {
    /// y = norm(act(x))·γ + β.
    #[default]
    ActivationThenNorm,
    /// y = act(norm(x)·γ + β).
    NormThenActivation,
}

impl NormOrder {
    /// Both.
    pub const ALL: [Self; 2] = [Self::ActivationThenNorm, Self::NormThenActivation];

    /// The name as it stands in reports and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ActivationThenNorm => "activation_then_norm",
            Self::NormThenActivation => "norm_then_activation",
        }
    }
}

impl fmt::Display for NormOrder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What is computed of each row, and which threads compute it.
///
/// A *team* of threads takes a row: a power of two of them, up to a block. A thread holds `depth`
/// vectors of the row in registers, a team's distance apart; a row that is longer than the team's
/// registers is taken in `chunks`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NormPlan {
    /// Rows; at most 2³¹ − 1.
    pub rows: u32,
    /// Vectors of a row: columns over the instance's lanes.
    pub vectors: u32,
    /// Threads of a team.
    pub team: u32,
    /// Vectors that a thread holds, at most what the instance has registers for.
    pub depth: u32,
    /// `vectors / (team · depth)`, rounded up.
    pub chunks: u32,
    /// An [`Activation`](crate::Activation).
    pub activation: u32,
    /// A [`Norm`].
    pub norm: u32,
    /// A [`NormOrder`].
    pub order: u32,
    /// ε > 0.
    pub epsilon: f32,
}

crate::assert_layout!(NormPlan, size = 36, align = 4, {
    rows: 0, vectors: 4, team: 8, depth: 12, chunks: 16, activation: 20, norm: 24, order: 28, epsilon: 32,
});

/// What the `activation_norm_*` kernels take.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub struct ActivationNorm {
    /// x, `[rows, cols]`.
    pub input: In<u8>,
    /// γ, `[cols]`; empty for 1.
    pub gamma: In<f32>,
    /// β, `[cols]`; empty for 0.
    pub beta: In<f32>,
    /// y, `[rows, cols]`.
    pub output: Out<u8>,
    /// Of what is normalised, `[rows]`; 0 for RMS norm.
    pub mean: Out<f32>,
    /// 1/√(variance + ε) or 1/√(mean square + ε), `[rows]`.
    pub rstd: Out<f32>,
    /// Rows and teams.
    pub plan: NormPlan,
    /// Always 0.
    pub _padding: [u32; 3],
}

crate::assert_layout!(ActivationNorm, size = 144, align = 16, {
    input: 0, gamma: 16, beta: 32, output: 48, mean: 64, rstd: 80, plan: 96, _padding: 132,
});

/// Which part of the backward pass a launch of `activation_norm_backward_*` computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum NormStage {
    /// All of it: a row fits a team's registers, so that `chunks` is 1.
    Whole,
    /// The two sums of each row.
    Sums,
    /// The rest, with those sums: a block has one chunk of its rows.
    Apply,
}

/// What the `activation_norm_backward_*` kernels take.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub struct ActivationNormBackward {
    /// x, `[rows, cols]`.
    pub input: In<u8>,
    /// g = ∂L/∂y, `[rows, cols]`.
    pub grad_output: In<u8>,
    /// γ, `[cols]`; empty for 1.
    pub gamma: In<f32>,
    /// β, `[cols]`; empty for 0. Read where the activation comes last.
    pub beta: In<f32>,
    /// The forward pass's, `[rows]`.
    pub mean: In<f32>,
    /// The forward pass's, `[rows]`.
    pub rstd: In<f32>,
    /// ∂L/∂x, `[rows, cols]`; not written by [`NormStage::Sums`].
    pub grad_input: Out<u8>,
    /// Scratch: each slab's ∂γ and ∂β, `[slabs, 2, cols]`; not written by [`NormStage::Sums`], or
    /// where it is empty.
    pub partials: Out<f32>,
    /// Scratch: Σĝ and Σĝ·û of each row, `[rows, 2]`; not used by [`NormStage::Whole`].
    pub sums: Out<f32>,
    /// Rows and teams.
    pub plan: NormPlan,
    /// A [`NormStage`].
    pub stage: u32,
    /// Groups of blocks that take rows in turn; for [`NormStage::Apply`] a group has a block for each
    /// chunk, else one. The grid has exactly these blocks.
    pub slabs: u32,
    /// Always 0.
    pub _padding: u32,
}

crate::assert_layout!(ActivationNormBackward, size = 192, align = 16, {
    input: 0, grad_output: 16, gamma: 32, beta: 48, mean: 64, rstd: 80, grad_input: 96, partials: 112,
    sums: 128, plan: 144, stage: 180, slabs: 184, _padding: 188,
});

/// What `activation_norm_backward_merge_f32` takes.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub struct NormGradientMerge {
    /// Each slab's ∂γ and ∂β, `[slabs, 2, cols]`.
    pub partials: In<f32>,
    /// ∂L/∂γ, `[cols]`; empty where it is not wanted.
    pub grad_gamma: Out<f32>,
    /// ∂L/∂β, `[cols]`; empty where it is not wanted.
    pub grad_beta: Out<f32>,
    /// Slabs.
    pub slabs: u32,
    /// Columns.
    pub cols: u32,
    /// Always 0.
    pub _padding: [u32; 2],
}

crate::assert_layout!(NormGradientMerge, size = 64, align = 16, {
    partials: 0, grad_gamma: 16, grad_beta: 32, slabs: 48, cols: 52, _padding: 56,
});

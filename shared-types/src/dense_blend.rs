//! Parameters of what the layer's passes do for seeds that grow a dense block, `T(x) = act(W·x + b)`, beside the products
//! of matrices.
//!
//! The host lists these seeds; the products leave their results for one listed seed after the other, `[listed, batch,
//! chunk_size]`. A block of the kernels here takes [`DENSE_ROWS`](crate::tiles::DENSE_ROWS) rows, a *slab*, of
//! [`DENSE_COLUMNS`](crate::tiles::DENSE_COLUMNS) columns of one seed.

use bytemuck::{Pod, Zeroable};

use crate::layer::Numerical;
use crate::view::{In, Out};

/// A seed of a list.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct DenseSeed {
    /// The seed.
    pub seed: u32,
    /// The activation's code.
    pub activation: u32,
    /// No meaning.
    pub _padding: [u32; 2],
}

crate::assert_layout!(DenseSeed, size = 16, align = 16, { seed: 0, activation: 4 });

/// A blueprint, and its seeds: `seeds` neighbours in the list from `first` on.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct DenseUsers {
    /// The blueprint.
    pub blueprint: u32,
    /// Where its b begins among the layer's weights.
    pub offset: u32,
    /// The first of its seeds that train it.
    pub first: u32,
    /// How many train it.
    pub seeds: u32,
}

crate::assert_layout!(DenseUsers, size = 16, align = 16, { blueprint: 0, offset: 4, first: 8, seeds: 12 });

/// How the work on a list is cut.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DenseShape {
    /// Rows of the input.
    pub batch: u32,
    /// Columns of a seed.
    pub chunk_size: u32,
    /// Columns of a row of the input.
    pub hidden: u32,
    /// Seeds of the list.
    pub listed: u32,
    /// Slabs of the rows.
    pub slabs: u32,
    /// Column tiles of a seed.
    pub tiles: u32,
    /// No meaning.
    pub _padding: [u32; 2],
}

crate::assert_layout!(DenseShape, size = 32, align = 16, {
    batch: 0, chunk_size: 4, hidden: 8, listed: 12, slabs: 16, tiles: 20,
});

/// What `dense_blend_*` takes: of each listed seed, with a = clip(α, 0, 1), `output = (1−a)·input + a·act(z)`, or
/// `(1−a)·input + z` where `gradient` is 1: in the backward pass, z is then what came through W.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub struct DenseBlend {
    /// `[batch, hidden]`, in the instance's element type.
    pub input: In<u8>,
    /// z, `[listed, batch, chunk_size]`.
    pub z: In<f32>,
    /// The seeds.
    pub seeds: In<DenseSeed>,
    /// α, `[num_seeds]`.
    pub alpha: In<f32>,
    /// Flags of the adaptive mode, `[num_seeds]`.
    pub unstable: In<u8>,
    /// `[batch, hidden]`; the listed seeds' columns are written.
    pub output: Out<u8>,
    /// What happens to what is written.
    pub numerical: Numerical,
    /// The cut.
    pub shape: DenseShape,
    /// 1: z is added as it is.
    pub gradient: u32,
    /// No meaning.
    pub _padding: [u32; 3],
}

crate::assert_layout!(DenseBlend, size = 160, align = 16, {
    input: 0, z: 16, seeds: 32, alpha: 48, unstable: 64, output: 80, numerical: 96, shape: 112, gradient: 144,
});

/// What `dense_blend_backward_*` takes: of each listed seed ∂z = a·g·act′(z), a = 1 in TRAINING; and of one that trains
/// its blueprint the sums over the batch, ∂α, and the figures of its ∂b.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub struct DenseBlendBackward {
    /// x, `[batch, hidden]`, in the instance's element type.
    pub input: In<u8>,
    /// g, the same.
    pub grad_output: In<u8>,
    /// z, `[listed, batch, chunk_size]`.
    pub z: In<f32>,
    /// The seeds.
    pub seeds: In<DenseSeed>,
    /// [`SeedLifecycle`](crate::SeedLifecycle), `[num_seeds]`.
    pub lifecycle: In<u8>,
    /// α, `[num_seeds]`.
    pub alpha: In<f32>,
    /// ∂z, `[listed, batch, chunk_size]`, in the instance's element type.
    pub grad_z: Out<u8>,
    /// x of the listed seeds that train, in the same layout and type; of others nothing is written.
    pub kept_input: Out<u8>,
    /// Σ ∂z, `[listed, slabs, chunk_size]`; of seeds that train the first slab's become the totals.
    pub column_sums: Out<f32>,
    /// Σ g·(act(z) − x), `[listed, slabs · tiles]`.
    pub alpha_sums: Out<f32>,
    /// Blocks of a seed that have arrived, `[listed]`, zero before and after.
    pub arrivals: Out<u32>,
    /// ∂α, `[num_seeds]`.
    pub grad_alpha: Out<f32>,
    /// Norm of the seed's ∂b, `[num_seeds]`.
    pub norm: Out<f32>,
    /// Its population variance, `[num_seeds]`.
    pub variance: Out<f32>,
    /// Its largest magnitude, `[num_seeds]`.
    pub max: Out<f32>,
    /// The cut.
    pub shape: DenseShape,
}

crate::assert_layout!(DenseBlendBackward, size = 272, align = 16, {
    input: 0, grad_output: 16, z: 32, seeds: 48, lifecycle: 64, alpha: 80, grad_z: 96, kept_input: 112,
    column_sums: 128, alpha_sums: 144, arrivals: 160, grad_alpha: 176, norm: 192, variance: 208, max: 224, shape: 240,
});

/// What `dense_blend_backward_merge_f32` takes: ∂b of each blueprint from those of its seeds, in their order, and ∂s,
/// which is 0.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub struct DenseMerge {
    /// As `dense_blend_backward_*` left them.
    pub column_sums: In<f32>,
    /// The LINEAR blueprints.
    pub users: In<DenseUsers>,
    /// ∂w, by offset, `chunk_size` each; theirs are written.
    pub weights: Out<f32>,
    /// ∂s, `[num_blueprints]`; theirs are written.
    pub scales: Out<f32>,
    /// Columns of a seed.
    pub chunk_size: u32,
    /// Slabs of the sums.
    pub slabs: u32,
    /// Blocks of a blueprint.
    pub blocks: u32,
    /// No meaning.
    pub _padding: u32,
}

crate::assert_layout!(DenseMerge, size = 80, align = 16, {
    column_sums: 0, users: 16, weights: 32, scales: 48, chunk_size: 64, slabs: 68, blocks: 72,
});

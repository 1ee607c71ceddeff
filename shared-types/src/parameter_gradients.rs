//! Parameters of the backward pass' end: the gradients of the blueprints and of α, from sums over the batch.

use crate::blend_backward::BatchSums;
use crate::layer::LayerArrays;
use crate::view::Out;

/// Where the parameters' gradients go, f32.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub struct LayerGradients {
    /// ∂w, laid out as the weights are, by blueprint offset.
    pub weights: Out<f32>,
    /// ∂s, `[num_blueprints]`.
    pub scales: Out<f32>,
    /// ∂α, `[num_seeds]`.
    pub alpha: Out<f32>,
    /// Norm of what the seed adds to ∂w, `[num_seeds]`.
    pub norm: Out<f32>,
    /// Its population variance over the chunk's weights, `[num_seeds]`.
    pub variance: Out<f32>,
    /// Its largest magnitude, `[num_seeds]`.
    pub max: Out<f32>,
}

crate::assert_layout!(LayerGradients, size = 96, align = 16, {
    weights: 0, scales: 16, alpha: 32, norm: 48, variance: 64, max: 80,
});

/// What the `parameter_gradients_*` kernels take.
///
/// The seeds that train a blueprint are dealt to its *parts* in their order; a part is one block's.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub struct ParameterGradients {
    /// What the seeds are.
    pub layer: LayerArrays,
    /// The sums that the backward pass left, of seeds that train.
    pub sums: BatchSums,
    /// Every element of them is written.
    pub gradients: LayerGradients,
    /// Scratch: the ∂w of each part, `[num_blueprints, max_parts, chunk_size]`.
    pub parts: Out<f32>,
    /// Scratch: the ∂s of each part, `[num_blueprints, max_parts]`.
    pub part_scales: Out<f32>,
    /// Scratch: parts of a blueprint that are finished, `[num_blueprints]`, zero before and after.
    pub arrivals: Out<u32>,
    /// Slabs of the sums.
    pub slabs: u32,
    /// Vectors of a chunk, each with its extra sums: `chunk_size` / lanes of the backward pass.
    pub chunk_vectors: u32,
    /// Parts that a blueprint may have.
    pub max_parts: u32,
    /// Seeds of a part, unless that makes too many parts.
    pub part_seeds: u32,
    /// Seeds.
    pub num_seeds: u32,
    /// Columns of a seed.
    pub chunk_size: u32,
    /// Blueprints, 'none' among them.
    pub num_blueprints: u32,
    /// Whether the pass over the batch has finished the seeds:
    /// [`finishes_seeds`](crate::blend_forward::BlendGeometry::finishes_seeds).
    pub finished: u32,
}

crate::assert_layout!(ParameterGradients, size = 320, align = 16, {
    layer: 0, sums: 112, gradients: 144, parts: 240, part_scales: 256, arrivals: 272, slabs: 288,
    chunk_vectors: 292, max_parts: 296, part_seeds: 300, num_seeds: 304, chunk_size: 308,
    num_blueprints: 312, finished: 316,
});

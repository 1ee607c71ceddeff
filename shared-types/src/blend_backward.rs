//! Parameters of the layer's backward pass over the batch.
//!
//! With g = ∂L/∂y, for a seed whose blueprint is T and a = clip(α, 0, 1): ∂x is that of
//! `y = (1−a)·x + a·T(x)`, and the blueprint's and α's gradients follow from sums over the batch, which
//! [`ParameterGradients`](crate::ParameterGradients) takes up. What a seed's state lets through:
//! [`SeedLifecycle::is_active`](crate::SeedLifecycle::is_active) decides on ∂x,
//! [`SeedLifecycle::trains`](crate::SeedLifecycle::trains) on the blueprint's gradients.

use crate::blend_forward::BlendGeometry;
use crate::layer::{LayerArrays, LayerPass, Numerical};
use crate::parameter_gradients::LayerGradients;
use crate::tensor_map::TensorMapHandle;
use crate::view::{In, Out};

/// Sums over the batch of one vector of columns, beside each column's own: Σ g·x of an MLP_EXPANSION,
/// Σ gᵢ₊ⱼ·xᵢ for each tap j of a CONV_FILTER.
pub const EXTRA_SUMS: usize = 4;

/// Sums over the rows of a slab, f32; those of seeds that train only.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub struct BatchSums {
    /// Each slab's sum for each column, `[slabs, hidden]`.
    pub columns: Out<f32>,
    /// Each slab's [`EXTRA_SUMS`] for each vector of columns, `[slabs, hidden / lanes, EXTRA_SUMS]`; of
    /// seeds whose blueprint needs them only.
    pub extras: Out<f32>,
}

crate::assert_layout!(BatchSums, size = 32, align = 16, { columns: 0, extras: 16 });

/// What the `blend_backward_*` kernels take. Inputs and output are elements of the instance's dtype.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub struct BlendBackward {
    /// x, `[batch, num_seeds · chunk_size]`, row-major, 16-byte aligned.
    pub input: In<u8>,
    /// g = ∂L/∂y, as `input`.
    pub grad_output: In<u8>,
    /// ∂x, as `input`.
    pub grad_input: Out<u8>,
    /// What the seeds are.
    pub layer: LayerArrays,
    /// Flags of the adaptive numerical mode, `[num_seeds]`.
    pub unstable: In<u8>,
    /// What the parameters' gradients are made from; where
    /// [`finishes_seeds`](BlendGeometry::finishes_seeds), instead what each seed adds to ∂w, and to ∂s in the first of
    /// its extras.
    pub sums: BatchSums,
    /// The figures of seeds that train are written where the pass finishes them.
    pub gradients: LayerGradients,
    /// How the work is cut.
    pub geometry: BlendGeometry,
    /// What happens to ∂x of active seeds.
    pub numerical: Numerical,
    /// Rows.
    pub batch: u32,
    /// Seeds.
    pub num_seeds: u32,
    /// Columns of a seed.
    pub chunk_size: u32,
    /// Keeps the struct at a multiple of 16 bytes.
    pub _padding: u32,
}

crate::assert_layout!(BlendBackward, size = 368, align = 16, {
    input: 0, grad_output: 16, grad_input: 32, layer: 48, unstable: 160, sums: 176, gradients: 208, geometry: 304,
    numerical: 336, batch: 352, num_seeds: 356, chunk_size: 360,
});

/// What the `blend_backward_tma_*` kernels take: as [`BlendForwardTma`](crate::BlendForwardTma), with a map for each
/// of the two arrays that are read.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub struct BlendBackwardTma {
    /// What to compute.
    pub backward: BlendBackward,
    /// g as a matrix of [`TMA_ELEMENT_BYTES`](crate::blend_forward::TMA_ELEMENT_BYTES) an element; its box is a
    /// group of rows of a strip.
    pub grad_output_map: TensorMapHandle,
    /// x, likewise.
    pub input_map: TensorMapHandle,
}

crate::assert_layout!(BlendBackwardTma, size = 384, align = 16, {
    backward: 0, grad_output_map: 368, input_map: 376,
});

impl LayerPass for BlendBackward {
    #[inline(always)]
    fn layer(&self) -> LayerArrays {
        self.layer
    }
    #[inline(always)]
    fn geometry(&self) -> BlendGeometry {
        self.geometry
    }
    #[inline(always)]
    fn num_seeds(&self) -> u32 {
        self.num_seeds
    }
    #[inline(always)]
    fn chunk_size(&self) -> u32 {
        self.chunk_size
    }
    #[inline(always)]
    fn numerical(&self) -> Numerical {
        self.numerical
    }
    #[inline(always)]
    fn unstable(&self) -> Out<u8> {
        // It is only loaded from.
        Out::new(self.unstable.as_ptr().cast_mut(), self.unstable.len())
    }
}

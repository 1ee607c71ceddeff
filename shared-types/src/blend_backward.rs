//! Parameters of the layer's backward pass.
//!
//! With g = ∂L/∂y, for a seed whose blueprint is T and a = clip(α, 0, 1): ∂x is that of
//! `y = (1−a)·x + a·T(x)`, and the blueprint's and α's gradients follow from sums over the batch. What a
//! seed's state lets through: [`SeedLifecycle::is_active`](crate::SeedLifecycle::is_active) decides on ∂x,
//! [`SeedLifecycle::trains`](crate::SeedLifecycle::trains) on the blueprint's gradients.

use crate::blend_forward::BlendGeometry;
use crate::layer::{LayerArrays, LayerPass, Numerical};
use crate::view::{In, Out};

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

/// Sums over the batch of one vector of columns, beside each column's own: Σ g·x of an MLP_EXPANSION,
/// Σ gᵢ₊ⱼ·xᵢ for each tap j of a CONV_FILTER.
pub const EXTRA_SUMS: usize = 4;

/// Scratch of the backward pass. The arrivals are zero before and after.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub struct BackwardScratch {
    /// Each slab's sum for each column, `[slabs, hidden]`; of seeds that train only.
    pub columns: Out<f32>,
    /// Each slab's [`EXTRA_SUMS`] for each vector of columns, `[slabs, hidden / lanes, EXTRA_SUMS]`; of
    /// seeds whose blueprint needs them only.
    pub extras: Out<f32>,
    /// What each training seed adds to its blueprint's ∂w, `[num_seeds, chunk_size]`, the seeds of one
    /// blueprint side by side in their order.
    pub contributions: Out<f32>,
    /// What each adds to ∂s, `[num_seeds]`, in the same order.
    pub scale_contributions: Out<f32>,
    /// Blocks that have finished a group of seeds, `[groups]`.
    pub group_arrivals: Out<u32>,
    /// Seeds of a blueprint that are finished, `[num_seeds]`, at its first seed's place.
    pub blueprint_arrivals: Out<u32>,
}

crate::assert_layout!(BackwardScratch, size = 96, align = 16, {
    columns: 0, extras: 16, contributions: 32, scale_contributions: 48, group_arrivals: 64,
    blueprint_arrivals: 80,
});

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
    /// The parameters' gradients.
    pub gradients: LayerGradients,
    /// Scratch.
    pub scratch: BackwardScratch,
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
    /// Blueprints, 'none' among them.
    pub num_blueprints: u32,
}

crate::assert_layout!(BlendBackward, size = 432, align = 16, {
    input: 0, grad_output: 16, grad_input: 32, layer: 48, unstable: 160, gradients: 176,
    scratch: 272, geometry: 368, numerical: 400, batch: 416, num_seeds: 420, chunk_size: 424,
    num_blueprints: 428,
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

//! What the layer's passes share: the arrays that say what each seed does, and the numerical mode.

use crate::blend_forward::{BlendForward, BlendGeometry};
use crate::view::{In, Out};

/// What each seed is and what the blueprints are, as the passes read it.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub struct LayerArrays<const COHERENT: bool = false> {
    /// [`SeedLifecycle`](crate::SeedLifecycle), `[num_seeds]`.
    pub lifecycle: In<u8, COHERENT>,
    /// Blueprint of each seed, 0 for none, `[num_seeds]`.
    pub blueprint_id: In<u16, COHERENT>,
    /// Blend factor α, clipped to \[0, 1\] where it is used, `[num_seeds]`.
    pub alpha: In<f32, COHERENT>,
    /// [`BlueprintType`](crate::BlueprintType), `[num_blueprints]`.
    pub blueprint_type: In<u8, COHERENT>,
    /// Where each blueprint's weights begin in `weights`, in elements, `[num_blueprints]`. An id that is not
    /// loaded has the offset of 'none'; all others are disjoint.
    pub blueprint_offset: In<u32, COHERENT>,
    /// Scale s, `[num_blueprints]`.
    pub blueprint_scale: In<f32, COHERENT>,
    /// Weights w, `chunk_size` for each blueprint.
    pub weights: In<f32, COHERENT>,
}

crate::assert_layout!(LayerArrays, size = 112, align = 16, {
    lifecycle: 0, blueprint_id: 16, alpha: 32, blueprint_type: 48, blueprint_offset: 64,
    blueprint_scale: 80, weights: 96,
});

/// The parameters of a pass over the layer: what its kernels share is written for these.
pub trait LayerPass<const COHERENT: bool = false> {
    /// What the seeds are.
    fn layer(&self) -> LayerArrays<COHERENT>;
    /// How the columns are cut.
    fn geometry(&self) -> BlendGeometry;
    /// Seeds.
    fn num_seeds(&self) -> u32;
    /// Columns of a seed.
    fn chunk_size(&self) -> u32;
    /// What happens to the values that active seeds write.
    fn numerical(&self) -> Numerical;
    /// Flags of [`Numerical::ADAPTIVE`], `[num_seeds]`.
    fn unstable(&self) -> Out<u8>;
}

/// |v| below this is flushed to 0 by the strict mode.
pub const FLUSH_THRESHOLD: f32 = 1e-8;

/// A value further from the mean than this many standard deviations is an outlier.
pub const OUTLIER_DEVIATIONS: f32 = 10.0;

/// What happens to each value v that an active seed writes. Where it is strict, 0 takes the place of NaN
/// and of |v| < [`FLUSH_THRESHOLD`], and the others are clamped to `[low, high]`.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Numerical {
    /// [`Self::FAST`], [`Self::STRICT`] or [`Self::ADAPTIVE`].
    pub mode: u32,
    /// Lower bound.
    pub low: f32,
    /// Upper bound.
    pub high: f32,
    /// Keeps the struct at a multiple of 16 bytes.
    pub _padding: u32,
}

crate::assert_layout!(Numerical, size = 16, align = 16, { mode: 0, low: 4, high: 8 });

impl Numerical {
    /// Nothing.
    pub const FAST: u32 = 0;
    /// Every active seed is strict.
    pub const STRICT: u32 = 1;
    /// Active seeds are strict whose flag is set: their telemetry last showed values that were not
    /// finite, or outliers.
    pub const ADAPTIVE: u32 = 2;

    /// `mode` with its bounds.
    pub const fn new(mode: u32, low: f32, high: f32) -> Self {
        Self { mode, low, high, _padding: 0 }
    }
}

impl<const COHERENT: bool> LayerPass<COHERENT> for BlendForward<COHERENT> {
    #[inline(always)]
    fn layer(&self) -> LayerArrays<COHERENT> {
        LayerArrays {
            lifecycle: self.lifecycle,
            blueprint_id: self.blueprint_id,
            alpha: self.alpha,
            blueprint_type: self.blueprint_type,
            blueprint_offset: self.blueprint_offset,
            blueprint_scale: self.blueprint_scale,
            weights: self.weights,
        }
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
        self.unstable
    }
}

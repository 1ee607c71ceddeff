//! Parameters of the passes that convert f32 operands of products to narrower types.

use crate::linear_wgmma::LinearRepack;
use crate::view::{In, Out};

/// What the `linear_repack_f32_*` kernels take: as [`LinearRepack`], with each element rounded to the instance's type.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub struct LinearConvert {
    /// Where the matrices are, in f32, and where they go to; distances are in elements of either type.
    pub places: LinearRepack,
    /// What elements are divided by before they are rounded to fp8, one number above 0. Of 16-bit types empty.
    pub scale: In<f32>,
}

crate::assert_layout!(LinearConvert, size = 96, align = 16, { places: 0, scale: 80 });

/// The largest magnitude of fp8 e4m3, which `linear_absmax_f32` scales to.
pub const LINEAR_FP8_LARGEST: f32 = 448.0;

/// What `linear_absmax_f32` takes: the scale that the matrices of a batch are rounded to fp8 with.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub struct LinearAbsmax {
    /// The matrices, `[batch, rows, columns]`, rows `ld` apart; each count is 1 or more.
    pub from: In<f32>,
    /// The scale, one number.
    pub scale: Out<f32>,
    /// Scratch, zero before and after: the bits of the largest magnitude, and blocks that have arrived.
    pub state: Out<u32>,
    /// From one matrix to the next, in elements.
    pub stride: u64,
    /// From one row to the next, in elements.
    pub ld: u32,
    /// Rows.
    pub rows: u32,
    /// Columns.
    pub columns: u32,
    /// Matrices.
    pub batch: u32,
    /// No meaning.
    pub _padding: [u32; 2],
}

crate::assert_layout!(LinearAbsmax, size = 80, align = 16, {
    from: 0, scale: 16, state: 32, stride: 48, ld: 56, rows: 60, columns: 64, batch: 68, _padding: 72,
});

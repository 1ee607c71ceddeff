//! Parameters of the products of matrices, D = act(α·op(A)·op(B) + bias + β·C) + R.
//!
//! A and B have the instance's element type. C, R, bias, D and Z, which is what the activation was applied to, share
//! another, the *output type*, which a code names.

use core::fmt;

use bytemuck::{Pod, Zeroable};

use crate::dtype::DType;
use crate::view::{In, Out};

/// How A and B lie in memory. Both are row-major; the first letter is A's, the second B's, T where the array holds the
/// operand's transpose. op(A) is `[m, k]`, op(B) `[k, n]`, D `[m, n]`.
///
/// | layout | array of A | `lda` at least | array of B | `ldb` at least |
/// |---|---|---|---|---|
/// | NN | `[m, k]` | k | `[k, n]` | n |
/// | NT | `[m, k]` | k | `[n, k]` | k |
/// | TN | `[k, m]` | m | `[k, n]` | n |
/// | TT | `[k, m]` | m | `[n, k]` | k |
///
/// NT is that of a layer whose weights are `[outputs, inputs]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u32)]
pub enum Layout {
    /// Neither is transposed.
    #[default]
    NN,
    /// B is.
    NT,
    /// A is.
    TN,
    /// Both are.
    TT,
}

impl Layout {
    /// Every layout, in the order of their codes.
    pub const ALL: [Self; 4] = [Self::NN, Self::NT, Self::TN, Self::TT];

    /// The layout in which these arrays hold their transpose.
    pub const fn of(transposed_a: bool, transposed_b: bool) -> Self {
        match (transposed_a, transposed_b) {
            (false, false) => Self::NN,
            (false, true) => Self::NT,
            (true, false) => Self::TN,
            (true, true) => Self::TT,
        }
    }

    /// Whether A's array is `[k, m]`.
    pub const fn transposed_a(self) -> bool {
        matches!(self, Self::TN | Self::TT)
    }

    /// Whether B's array is `[n, k]`.
    pub const fn transposed_b(self) -> bool {
        matches!(self, Self::NT | Self::TT)
    }

    /// The name as it stands in kernel names, reports and JSON.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NN => "nn",
            Self::NT => "nt",
            Self::TN => "tn",
            Self::TT => "tt",
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What A and B are multiplied by beside α: f32 in the device's memory, for operands in fp8.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Scaling {
    /// Nothing.
    #[default]
    None,
    /// One number for A and one for B.
    Tensor,
    /// A number for each block. Of A: [`SCALE_BLOCK_K`] neighbours along k in a row of op(A), `[m, ⌈k / BLOCK_K⌉]`. Of B:
    /// [`SCALE_BLOCK_N`] columns of op(B) by [`SCALE_BLOCK_K`] along k, `[⌈n / BLOCK_N⌉, ⌈k / BLOCK_K⌉]`. Row-major;
    /// those of a batch follow one another; there are none for grouped problems.
    Block,
}

/// Elements along k that share a scale under [`Scaling::Block`].
pub const SCALE_BLOCK_K: usize = 128;

/// Columns of op(B) that share a scale under [`Scaling::Block`].
pub const SCALE_BLOCK_N: usize = 128;

/// One product: its shape, and where its operands are in the arrays of [`LinearParams`], in elements.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct LinearProblem {
    /// Rows of D.
    pub m: u32,
    /// Columns of D.
    pub n: u32,
    /// Columns of op(A), rows of op(B); 0 leaves α·A·B zero.
    pub k: u32,
    /// Of grouped problems: output tiles of those before it.
    pub first_tile: u32,
    /// Elements from one row of A's array to the next.
    pub lda: u32,
    /// Of B's.
    pub ldb: u32,
    /// Of C.
    pub ldc: u32,
    /// Of R.
    pub ldr: u32,
    /// Of D.
    pub ldd: u32,
    /// Of Z.
    pub ldz: u32,
    /// No meaning.
    pub _padding: [u32; 2],
    /// Where A begins.
    pub a: u64,
    /// Where B begins.
    pub b: u64,
    /// Where C begins.
    pub c: u64,
    /// Where the bias begins.
    pub bias: u64,
    /// Where R begins.
    pub residual: u64,
    /// Where D begins.
    pub d: u64,
    /// Where Z begins.
    pub z: u64,
    /// No meaning.
    pub _padding_end: u64,
}

crate::assert_layout!(LinearProblem, size = 112, align = 16, {
    m: 0, n: 4, k: 8, first_tile: 12, lda: 16, ldb: 20, ldc: 24, ldr: 28, ldd: 32, ldz: 36, _padding: 40,
    a: 48, b: 56, c: 64, bias: 72, residual: 80, d: 88, z: 96, _padding_end: 104,
});

/// Elements from a problem's operand to that of the next problem of a batch; 0 where all share it. D and Z are shared
/// by none.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct LinearStrides {
    /// A's.
    pub a: u64,
    /// B's.
    pub b: u64,
    /// C's.
    pub c: u64,
    /// The bias's.
    pub bias: u64,
    /// R's.
    pub residual: u64,
    /// D's.
    pub d: u64,
    /// Z's.
    pub z: u64,
    /// No meaning.
    pub _padding: u64,
}

crate::assert_layout!(LinearStrides, size = 64, align = 16, {
    a: 0, b: 8, c: 16, bias: 24, residual: 32, d: 40, z: 48, _padding: 56,
});

/// What the `linear_*` kernels take: D = act(Z) + R with Z = α·s·op(A)·op(B) + bias + β·C, s the product of the scales.
///
/// One problem, a batch of problems of one shape, or a group of problems of any shapes. An empty view is an operand that
/// there is not.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub struct LinearParams {
    /// A, in the instance's element type.
    pub a: In<u8>,
    /// B, in the instance's element type.
    pub b: In<u8>,
    /// C, `[m, n]`; empty where β is 0.
    pub c: In<u8>,
    /// A value for each column, `[n]`, or empty.
    pub bias: In<u8>,
    /// R, `[m, n]`, added after the activation, or empty.
    pub residual: In<u8>,
    /// D, `[m, n]`; nothing of it is read.
    pub d: Out<u8>,
    /// Z, `[m, n]`, for the backward pass, or empty.
    pub z: Out<u8>,
    /// A's scales, as [`Scaling`] says.
    pub a_scale: In<f32>,
    /// B's.
    pub b_scale: In<f32>,
    /// Grouped problems, in the order of their first tiles, or empty.
    pub problems: In<LinearProblem>,
    /// Scratch of split k: `[tiles, parts]` of an output tile in the accumulator's type, empty where `parts` is 1.
    pub partials: Out<u8>,
    /// Scratch of split k: blocks that have left their part of a tile, `[tiles]`, zero before and after.
    pub arrivals: Out<u32>,
    /// The problem, or the first of the batch; of no meaning for grouped problems.
    pub problem: LinearProblem,
    /// From one problem of the batch to the next.
    pub strides: LinearStrides,
    /// α.
    pub alpha: f64,
    /// β.
    pub beta: f64,
    /// Problems of the batch, or of the group.
    pub batch: u32,
    /// Output tiles of all problems.
    pub tiles: u32,
    /// Blocks that share the k of an output tile; 1: each has it whole.
    pub parts: u32,
    /// A [`Layout`]'s code. An instance for one layout has no need of it.
    pub layout: u32,
    /// An activation's code.
    pub activation: u32,
    /// The output type: a [`LinearOutput`]'s code.
    pub output: u32,
    /// A [`Scaling`]'s code.
    pub scaling: u32,
    /// No meaning.
    pub _padding: u32,
}

crate::assert_layout!(LinearParams, size = 416, align = 16, {
    a: 0, b: 16, c: 32, bias: 48, residual: 64, d: 80, z: 96, a_scale: 112, b_scale: 128, problems: 144,
    partials: 160, arrivals: 176, problem: 192, strides: 304, alpha: 368, beta: 376, batch: 384, tiles: 388,
    parts: 392, layout: 396, activation: 400, output: 404, scaling: 408, _padding: 412,
});

/// The type of C, R, bias, D and Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum LinearOutput {
    /// IEEE binary32.
    #[default]
    F32,
    /// IEEE binary16.
    F16,
    /// The upper half of a binary32.
    Bf16,
    /// IEEE binary64, of the instances that accumulate in it alone.
    F64,
}

impl LinearOutput {
    /// The output type of this element type, if it is one.
    pub const fn of(dtype: DType) -> Option<Self> {
        match dtype {
            DType::F32 => Some(Self::F32),
            DType::F16 => Some(Self::F16),
            DType::Bf16 => Some(Self::Bf16),
            DType::F64 => Some(Self::F64),
            DType::I32 | DType::E4m3 => None,
        }
    }
}

/// What `linear_backward_*` takes: ∂Z = ∂D ⊙ act′(Z), and ∂bias_j = Σ_i ∂Z_ij.
///
/// A block takes [`crate::tiles::LINEAR_BACKWARD_ROWS`] rows, a *slab*, of 32 columns; the last of a column tile's
/// slabs to arrive adds their sums in the slabs' order.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub struct LinearBackward {
    /// ∂D, `[rows, columns]`, in the instance's element type.
    pub grad_output: In<u8>,
    /// Z, in the same; empty where there is no activation.
    pub z: In<u8>,
    /// ∂Z, in the same, or empty: where only the bias's gradient is wanted.
    pub grad_z: Out<u8>,
    /// ∂bias, `[columns]`, in the same, or empty.
    pub grad_bias: Out<u8>,
    /// Scratch: `[slabs, columns]`, f32 (f64 for f64); empty where no bias is wanted.
    pub partials: Out<u8>,
    /// Scratch: slabs that have arrived, for each column tile, zero before and after; empty with `partials`.
    pub arrivals: Out<u32>,
    /// Rows: m.
    pub rows: u32,
    /// Columns: n.
    pub columns: u32,
    /// Elements from one row of ∂D to the next.
    pub ld_grad: u32,
    /// Of Z.
    pub ldz: u32,
    /// Of ∂Z.
    pub ld_grad_z: u32,
    /// Slabs.
    pub slabs: u32,
    /// An activation's code.
    pub activation: u32,
    /// No meaning.
    pub _padding: u32,
}

crate::assert_layout!(LinearBackward, size = 128, align = 16, {
    grad_output: 0, z: 16, grad_z: 32, grad_bias: 48, partials: 64, arrivals: 80, rows: 96, columns: 100,
    ld_grad: 104, ldz: 108, ld_grad_z: 112, slabs: 116, activation: 120, _padding: 124,
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_their_flags() {
        for (code, layout) in Layout::ALL.into_iter().enumerate() {
            assert_eq!(layout as usize, code);
            assert_eq!(Layout::of(layout.transposed_a(), layout.transposed_b()), layout);
        }
    }
}

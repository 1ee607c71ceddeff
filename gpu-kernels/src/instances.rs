//! The kernels' handles by what they do: the tile table, looked up.

use kasmina_device::Kernel;
use kasmina_types::{
    ActivationNorm, ActivationNormBackward, BlendForward, DType, NormGradientMerge, ReduceOp,
    ReduceSegments,
};

use crate::kasmina::blend_forward as blend_kernels;
use crate::normalization::activation_norm as norm_kernels;
use crate::normalization::activation_norm_backward as norm_backward_kernels;
use crate::reduction::reduce as reduce_kernels;

/// An instance of `blend_forward`.
#[derive(Clone, Copy)]
pub struct BlendForwardInstance {
    /// The kernel.
    pub kernel: &'static Kernel<BlendForward>,
    /// Element type.
    pub dtype: DType,
    /// Elements of one memory access; the chunk size is a multiple of it.
    pub lanes: u32,
    /// Rows that a thread takes together.
    pub rows: u32,
}

/// The instances of `blend_forward` for `dtype`, the widest access first.
pub fn blend_forward(dtype: DType) -> impl Iterator<Item = BlendForwardInstance> {
    let mut instances = Vec::new();
    macro_rules! instance {
        ($entry:ident, $element:ty, $dtype:ident, $lanes:literal, $rows:literal, $block:literal,
     $min_blocks:literal $(, $spills:ident)?) => {
            instances.push(BlendForwardInstance {
                kernel: blend_kernels::$entry::handle(),
                dtype: DType::$dtype,
                lanes: $lanes,
                rows: $rows,
            });
        };
    }
    kasmina_types::blend_forward_tiles!(instance);
    instances.into_iter().filter(move |instance| instance.dtype == dtype)
}

/// Who takes a segment of a reduction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Team {
    /// A warp: short segments.
    Warp,
    /// A block: long ones, or parts of them.
    Block,
}

/// The instance of `reduce` for an operation, an element type and a team.
pub fn reduce(op: ReduceOp, dtype: DType, team: Team) -> &'static Kernel<ReduceSegments> {
    macro_rules! instance {
        ($block:ident, $warp:ident, $op:ident, $element:ty, $dtype:ident, $lanes:literal,
         $vectors:literal) => {
            if op == ReduceOp::$op && dtype == DType::$dtype {
                return match team {
                    Team::Block => reduce_kernels::$block::handle(),
                    Team::Warp => reduce_kernels::$warp::handle(),
                };
            }
        };
    }
    kasmina_types::reduce_tiles!(instance);
    unreachable!("the tile table has every operation and element type")
}

/// An instance of `activation_norm` or `activation_norm_backward`.
#[derive(Clone, Copy)]
pub struct NormInstance<P: 'static> {
    /// The kernel.
    pub kernel: &'static Kernel<P>,
    /// Element type.
    pub dtype: DType,
    /// Elements of one memory access; the columns are a multiple of it.
    pub lanes: u32,
    /// Accesses of a row that a thread holds.
    pub vectors: u32,
}

/// The instances of `activation_norm` for `dtype`, the widest access first.
pub fn activation_norm(dtype: DType) -> impl Iterator<Item = NormInstance<ActivationNorm>> {
    let mut instances = Vec::new();
    macro_rules! instance {
        ($entry:ident, $element:ty, $dtype:ident, $lanes:literal, $vectors:literal
         $(, $spills:ident)?) => {
            instances.push(NormInstance {
                kernel: norm_kernels::$entry::handle(),
                dtype: DType::$dtype,
                lanes: $lanes,
                vectors: $vectors,
            });
        };
    }
    kasmina_types::activation_norm_tiles!(instance);
    instances.into_iter().filter(move |instance| instance.dtype == dtype)
}

/// The instances of `activation_norm_backward` for `dtype`, the widest access first.
pub fn activation_norm_backward(
    dtype: DType,
) -> impl Iterator<Item = NormInstance<ActivationNormBackward>> {
    let mut instances = Vec::new();
    macro_rules! instance {
        ($entry:ident, $element:ty, $dtype:ident, $lanes:literal, $vectors:literal
         $(, $spills:ident)?) => {
            instances.push(NormInstance {
                kernel: norm_backward_kernels::$entry::handle(),
                dtype: DType::$dtype,
                lanes: $lanes,
                vectors: $vectors,
            });
        };
    }
    kasmina_types::activation_norm_backward_tiles!(instance);
    instances.into_iter().filter(move |instance| instance.dtype == dtype)
}

/// The kernel that adds the slabs' ∂γ and ∂β.
pub fn activation_norm_backward_merge() -> &'static Kernel<NormGradientMerge> {
    norm_backward_kernels::activation_norm_backward_merge_f32::handle()
}

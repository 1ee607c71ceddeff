//! The kernels' handles by what they do: the tile table, looked up.

use kasmina_device::Kernel;
use kasmina_types::{
    BlendBackward, BlendForward, BlendForwardTma, DType, ReduceOp, ReduceSegments,
};

use crate::kasmina::blend_backward as backward_kernels;
use crate::kasmina::blend_forward as blend_kernels;
use crate::kasmina::blend_forward_tma as tma_kernels;
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

/// An instance of `blend_forward_tma`.
#[derive(Clone, Copy)]
pub struct BlendForwardTmaInstance {
    /// The kernel.
    pub kernel: &'static Kernel<BlendForwardTma>,
    /// Element type.
    pub dtype: DType,
    /// Elements of a vector; the chunk's bytes are a multiple of 16.
    pub lanes: u32,
    /// Rows that a thread takes together.
    pub rows: u32,
    /// Groups that the dynamic shared memory holds.
    pub stages: u32,
    /// Whether the output goes through shared memory.
    pub bulk_stores: bool,
}

/// The instance of `blend_forward_tma` for `dtype` that stores in bulk, or the one that does not.
pub fn blend_forward_tma(dtype: DType, bulk_stores: bool) -> Option<BlendForwardTmaInstance> {
    let mut instances = Vec::new();
    macro_rules! instance {
        ($entry:ident, $element:ty, $dtype:ident, $lanes:literal, $rows:literal, $block:literal,
         $min_blocks:literal, $arch:literal, $subrows:literal, $bulk:literal) => {
            instances.push(BlendForwardTmaInstance {
                kernel: tma_kernels::$entry::handle(),
                dtype: DType::$dtype,
                lanes: $lanes,
                rows: $rows,
                stages: tma_kernels::STAGES as u32,
                bulk_stores: $bulk,
            });
        };
    }
    kasmina_types::blend_forward_tma_tiles!(instance);
    instances.into_iter().find(|i| i.dtype == dtype && i.bulk_stores == bulk_stores)
}

/// An instance of `blend_backward`.
#[derive(Clone, Copy)]
pub struct BlendBackwardInstance {
    /// The kernel.
    pub kernel: &'static Kernel<BlendBackward>,
    /// Element type.
    pub dtype: DType,
    /// Elements of one memory access; the chunk size is a multiple of it.
    pub lanes: u32,
    /// Rows that a thread takes together.
    pub rows: u32,
}

/// The instances of `blend_backward` for `dtype`, the widest access first.
pub fn blend_backward(dtype: DType) -> impl Iterator<Item = BlendBackwardInstance> {
    let mut instances = Vec::new();
    macro_rules! instance {
        ($entry:ident, $element:ty, $dtype:ident, $lanes:literal, $rows:literal, $block:literal,
         $min_blocks:literal $(, $spills:ident)?) => {
            instances.push(BlendBackwardInstance {
                kernel: backward_kernels::$entry::handle(),
                dtype: DType::$dtype,
                lanes: $lanes,
                rows: $rows,
            });
        };
    }
    kasmina_types::blend_backward_tiles!(instance);
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

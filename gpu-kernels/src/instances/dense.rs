//! The kernels of seeds that grow a dense block.

use kasmina_device::Kernel;
use kasmina_types::{DType, DenseBlend, DenseBlendBackward, DenseMerge};

use crate::kasmina::{dense_blend as forward, dense_blend_backward as backward};

/// The kernels of both passes for elements of `dtype`.
pub fn dense_blend(
    dtype: DType,
) -> Option<(&'static Kernel<DenseBlend>, &'static Kernel<DenseBlendBackward>)> {
    macro_rules! instance {
        ($forward:ident, $backward:ident, $element:ty, $dtype:ident) => {
            if dtype == DType::$dtype {
                return Some((forward::$forward::handle(), backward::$backward::handle()));
            }
        };
    }
    kasmina_types::dense_tiles!(instance);
    None
}

/// The kernel that adds the seeds' ∂b.
pub fn dense_blend_backward_merge() -> &'static Kernel<DenseMerge> {
    backward::dense_blend_backward_merge_f32::handle()
}

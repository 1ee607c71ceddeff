//! The instances of `reduce`.

use super::Table;
use crate::dtype::DType;

/// Hands each pair of instances of `reduce` to a macro:
/// `(entry for block teams, entry for warp teams, operation, element, DType, lanes, vectors that a
/// thread of a block team has in flight)`. Every block has [`REDUCE_BLOCK_THREADS`].
#[macro_export]
macro_rules! reduce_tiles {
    ($instance:ident) => {
        $instance! { reduce_sum_f32_block, reduce_sum_f32_warp, Sum, f32, F32, 4, 8 }
        $instance! { reduce_sum_f16_block, reduce_sum_f16_warp, Sum, f16, F16, 8, 8 }
        $instance! { reduce_sum_bf16_block, reduce_sum_bf16_warp, Sum, bf16, Bf16, 8, 8 }
        $instance! { reduce_sum_f64_block, reduce_sum_f64_warp, Sum, f64, F64, 2, 8 }
        $instance! { reduce_sum_i32_block, reduce_sum_i32_warp, Sum, i32, I32, 4, 8 }
        $instance! { reduce_max_f32_block, reduce_max_f32_warp, Max, f32, F32, 4, 8 }
        $instance! { reduce_max_f16_block, reduce_max_f16_warp, Max, f16, F16, 8, 8 }
        $instance! { reduce_max_bf16_block, reduce_max_bf16_warp, Max, bf16, Bf16, 8, 8 }
        $instance! { reduce_max_f64_block, reduce_max_f64_warp, Max, f64, F64, 2, 8 }
        $instance! { reduce_max_i32_block, reduce_max_i32_warp, Max, i32, I32, 4, 8 }
        $instance! { reduce_min_f32_block, reduce_min_f32_warp, Min, f32, F32, 4, 8 }
        $instance! { reduce_min_f16_block, reduce_min_f16_warp, Min, f16, F16, 8, 8 }
        $instance! { reduce_min_bf16_block, reduce_min_bf16_warp, Min, bf16, Bf16, 8, 8 }
        $instance! { reduce_min_f64_block, reduce_min_f64_warp, Min, f64, F64, 2, 8 }
        $instance! { reduce_min_i32_block, reduce_min_i32_warp, Min, i32, I32, 4, 8 }
        $instance! { reduce_mean_f32_block, reduce_mean_f32_warp, Mean, f32, F32, 4, 8 }
        $instance! { reduce_mean_f16_block, reduce_mean_f16_warp, Mean, f16, F16, 8, 8 }
        $instance! { reduce_mean_bf16_block, reduce_mean_bf16_warp, Mean, bf16, Bf16, 8, 8 }
        $instance! { reduce_mean_f64_block, reduce_mean_f64_warp, Mean, f64, F64, 2, 8 }
        $instance! { reduce_mean_i32_block, reduce_mean_i32_warp, Mean, i32, I32, 4, 8 }
        $instance! { reduce_variance_f32_block, reduce_variance_f32_warp, Variance, f32, F32, 4, 4 }
        $instance! { reduce_variance_f16_block, reduce_variance_f16_warp, Variance, f16, F16, 8, 4 }
        $instance! { reduce_variance_bf16_block, reduce_variance_bf16_warp, Variance, bf16, Bf16, 8, 4 }
        $instance! { reduce_variance_f64_block, reduce_variance_f64_warp, Variance, f64, F64, 2, 4 }
        $instance! { reduce_variance_i32_block, reduce_variance_i32_warp, Variance, i32, I32, 4, 2 }
    };
}

/// Threads of a block of `reduce`.
pub const REDUCE_BLOCK_THREADS: u32 = 256;

/// Blocks of `reduce` that fit on a multiprocessor, at least.
pub const REDUCE_MIN_BLOCKS: u32 = 4;

pub(super) const fn add(table: &mut Table) {
    macro_rules! reduce {
        ($block:ident, $warp:ident, $op:ident, $element:ty, $dtype:ident, $lanes:literal,
         $vectors:literal) => {
            reduce!(stringify!($block), $dtype, $lanes);
            reduce!(stringify!($warp), $dtype, $lanes);
        };
        ($entry:expr, $dtype:ident, $lanes:literal) => {
            let (threads, blocks) = (REDUCE_BLOCK_THREADS, REDUCE_MIN_BLOCKS);
            table.add($entry, "reduce", DType::$dtype, $lanes, threads, blocks);
        };
    }
    reduce_tiles!(reduce);
}

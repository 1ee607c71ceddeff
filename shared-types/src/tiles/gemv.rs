//! The instances of `gemv`.

use super::Table;
use crate::dtype::DType;

/// Hands each pair of instances of `gemv` to a macro: `(entry, entry with the transpose, element, DType, lanes, vectors of a
/// row that a thread has in flight)`. Every block has [`GEMV_BLOCK_THREADS`].
#[macro_export]
macro_rules! gemv_tiles {
    ($instance:ident) => {
        $instance! { gemv_f32, gemv_transposed_f32, f32, F32, 4, 2 }
        $instance! { gemv_f64, gemv_transposed_f64, f64, F64, 2, 2 }
        $instance! { gemv_bf16, gemv_transposed_bf16, bf16, Bf16, 8, 2 }
        $instance! { gemv_f32_odd, gemv_transposed_f32_odd, f32, F32, 1, 4 }
        $instance! { gemv_f64_odd, gemv_transposed_f64_odd, f64, F64, 1, 4 }
        $instance! { gemv_bf16_odd, gemv_transposed_bf16_odd, bf16, Bf16, 1, 4 }
    };
}

/// Threads of a block of `gemv`, and of chains that have one.
pub const GEMV_BLOCK_THREADS: u32 = 256;

/// Blocks of `gemv` that fit on a multiprocessor.
pub const GEMV_MIN_BLOCKS: u32 = 3;

pub(super) const fn add(table: &mut Table) {
    let (threads, blocks) = (GEMV_BLOCK_THREADS, GEMV_MIN_BLOCKS);
    macro_rules! gemv {
        ($straight:ident, $transposed:ident, $element:ty, $dtype:ident, $lanes:literal,
         $vectors:literal) => {
            table.add(stringify!($straight), "gemv", DType::$dtype, $lanes, threads, blocks);
            table.add(stringify!($transposed), "gemv", DType::$dtype, $lanes, threads, blocks);
        };
    }
    gemv_tiles!(gemv);
}

//! The instances of what the layer's passes do for seeds that grow a dense block.

use super::Table;
use crate::dtype::DType;

/// Hands each instance of `dense_blend` and of `dense_blend_backward` to a macro: `(forward entry, backward entry,
/// element, DType)`. Every block has [`DENSE_BLOCK_THREADS`].
#[macro_export]
macro_rules! dense_tiles {
    ($instance:ident) => {
        $instance! { dense_blend_f32, dense_blend_backward_f32, f32, F32 }
        $instance! { dense_blend_f16, dense_blend_backward_f16, f16, F16 }
        $instance! { dense_blend_bf16, dense_blend_backward_bf16, bf16, Bf16 }
    };
}

/// Threads of a block of `dense_blend` and `dense_blend_backward`.
pub const DENSE_BLOCK_THREADS: u32 = 256;

/// Columns that a block takes: those of a warp's row.
pub const DENSE_COLUMNS: u32 = 32;

/// Rows that a block takes: a slab.
pub const DENSE_ROWS: u32 = 128;

pub(super) const fn add(table: &mut Table) {
    macro_rules! dense {
        ($forward:ident, $backward:ident, $element:ty, $dtype:ident) => {
            let threads = DENSE_BLOCK_THREADS;
            table.add(stringify!($forward), "dense_blend", DType::$dtype, 1, threads, 1);
            table.add(stringify!($backward), "dense_blend_backward", DType::$dtype, 1, threads, 1);
        };
    }
    dense_tiles!(dense);
    let entry = "dense_blend_backward_merge_f32";
    table.add(entry, "dense_blend_backward", DType::F32, 1, DENSE_BLOCK_THREADS, 1);
}

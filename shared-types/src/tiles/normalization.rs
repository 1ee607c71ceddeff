//! The instances of the normalisations.

use super::Table;
use crate::dtype::DType;

/// Hands each instance of `activation_norm` to a macro:
/// `(entry, element, DType, lanes, vectors that a thread holds)`, and `spills` where some target's code
/// may: sm_70's two spill 32 bytes, sm_80's f16 8, at the registers of three blocks on a multiprocessor;
/// newer targets' spill none. Every block has [`NORM_BLOCK_THREADS`].
///
/// `_v16` instances move 16 bytes at a time, where a row's bytes are a multiple of 16; the others one
/// element.
#[macro_export]
macro_rules! activation_norm_tiles {
    ($instance:ident) => {
        $instance! { activation_norm_f32_v16, f32, F32, 4, 8 }
        $instance! { activation_norm_f32_v4, f32, F32, 1, 8 }
        $instance! { activation_norm_f16_v16, f16, F16, 8, 4, spills }
        $instance! { activation_norm_f16_v2, f16, F16, 1, 8 }
        $instance! { activation_norm_bf16_v16, bf16, Bf16, 8, 4, spills }
        $instance! { activation_norm_bf16_v2, bf16, Bf16, 1, 8 }
    };
}

/// Hands each instance of `activation_norm_backward` to a macro, as [`activation_norm_tiles`] does. Of
/// those that may spill, sm_70's do: 80 bytes in f32, 16 in bf16.
#[macro_export]
macro_rules! activation_norm_backward_tiles {
    ($instance:ident) => {
        $instance! { activation_norm_backward_f32_v16, f32, F32, 4, 4, spills }
        $instance! { activation_norm_backward_f32_v4, f32, F32, 1, 8 }
        $instance! { activation_norm_backward_f16_v16, f16, F16, 8, 2 }
        $instance! { activation_norm_backward_f16_v2, f16, F16, 1, 8 }
        $instance! { activation_norm_backward_bf16_v16, bf16, Bf16, 8, 2, spills }
        $instance! { activation_norm_backward_bf16_v2, bf16, Bf16, 1, 8 }
    };
}

/// Threads of a block of `activation_norm` and `activation_norm_backward`.
pub const NORM_BLOCK_THREADS: u32 = 256;

/// Blocks of `activation_norm` that fit on a multiprocessor, at least.
pub const NORM_FORWARD_MIN_BLOCKS: u32 = 3;

/// Blocks of `activation_norm_backward` that fit on a multiprocessor, at least.
pub const NORM_BACKWARD_MIN_BLOCKS: u32 = 2;

/// Columns of a block of `activation_norm_backward_merge_f32`.
pub const NORM_MERGE_COLUMNS: u32 = 32;

pub(super) const fn add(table: &mut Table) {
    macro_rules! norm {
        ($family:literal, $entry:expr, $dtype:ident, $lanes:literal, $min_blocks:expr) => {
            table.add($entry, $family, DType::$dtype, $lanes, NORM_BLOCK_THREADS, $min_blocks);
        };
    }
    macro_rules! activation_norm {
        ($entry:ident, $element:ty, $dtype:ident, $lanes:literal, $vectors:literal
         $(, $spills:ident)?) => {
            norm!("activation_norm", stringify!($entry), $dtype, $lanes, NORM_FORWARD_MIN_BLOCKS);
        };
    }
    activation_norm_tiles!(activation_norm);
    macro_rules! activation_norm_backward {
        ($entry:ident, $element:ty, $dtype:ident, $lanes:literal, $vectors:literal
         $(, $spills:ident)?) => {
            let entry = stringify!($entry);
            norm!("activation_norm_backward", entry, $dtype, $lanes, NORM_BACKWARD_MIN_BLOCKS);
        };
    }
    activation_norm_backward_tiles!(activation_norm_backward);
    norm!("activation_norm_backward", "activation_norm_backward_merge_f32", F32, 1, 1);
}

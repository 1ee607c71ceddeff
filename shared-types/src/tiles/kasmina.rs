//! The instances of the layer's kernels.

use super::Table;
use crate::dtype::DType;

/// Hands each instance of `blend_forward` to a macro:
/// `(entry, element, DType, lanes, rows of a group, block threads, blocks per SM)`, and `spills` where
/// some target's code may: sm_70's three spill 8 to 24 bytes, and the next smaller group costs every target more.
///
/// `_v16` instances move 16 bytes at a time, where the chunk's bytes are a multiple of 16; `_v4` and
/// `_v2` move less, so that any chunk size has one.
#[macro_export]
macro_rules! blend_forward_tiles {
    ($instance:ident) => {
        $instance! { blend_forward_f32_v16, f32, F32, 4, 4, 256, 2, spills }
        $instance! { blend_forward_f32_v4, f32, F32, 1, 8, 256, 2, spills }
        $instance! { blend_forward_f16_v16, f16, F16, 8, 2, 256, 2, spills }
        $instance! { blend_forward_f16_v4, f16, F16, 2, 4, 256, 2 }
        $instance! { blend_forward_f16_v2, f16, F16, 1, 4, 256, 2 }
        $instance! { blend_forward_bf16_v16, bf16, Bf16, 8, 2, 256, 2, spills }
        $instance! { blend_forward_bf16_v4, bf16, Bf16, 2, 4, 256, 2 }
        $instance! { blend_forward_bf16_v2, bf16, Bf16, 1, 4, 256, 2 }
    };
}

/// Hands each instance of `blend_forward_seed` to a macro, as [`blend_forward_tiles!`] does. An access is four elements of
/// any dtype: what a thread keeps for each of eight would not fit the registers of as many blocks. Eight blocks a
/// multiprocessor are one wave where fewer are two, so some words may spill: not on sm_90a in f32.
#[macro_export]
macro_rules! blend_forward_seed_tiles {
    ($instance:ident) => {
        $instance! { blend_forward_seed_f32, f32, F32, 4, 4, 128, 8, spills }
        $instance! { blend_forward_seed_f16, f16, F16, 4, 4, 128, 8, spills }
        $instance! { blend_forward_seed_bf16, bf16, Bf16, 4, 4, 128, 8, spills }
    };
}

/// Hands each instance of `blend_forward_tma` to a macro: `(entry, element, DType, lanes, rows of a group, block
/// threads, blocks per SM, architecture, rows that a thread has in registers at a time, whether the output is stored in
/// bulk)`.
///
/// `_bulk` instances write through shared memory, the others directly. Those that say so spill a few bytes ahead of
/// their loops.
#[macro_export]
macro_rules! blend_forward_tma_tiles {
    ($instance:ident) => {
        $instance! { blend_forward_tma_f32, f32, F32, 4, 4, 288, 2, 90, 2, false, spills }
        $instance! { blend_forward_tma_f16, f16, F16, 4, 8, 288, 2, 90, 1, false, spills }
        $instance! { blend_forward_tma_bf16, bf16, Bf16, 4, 8, 288, 2, 90, 2, false, spills }
        $instance! { blend_forward_tma_f32_bulk, f32, F32, 4, 4, 288, 2, 90, 2, true, spills }
        $instance! { blend_forward_tma_f16_bulk, f16, F16, 4, 8, 288, 2, 90, 1, true, spills }
        $instance! { blend_forward_tma_bf16_bulk, bf16, Bf16, 4, 8, 288, 2, 90, 1, true, spills }
    };
}

/// Hands each instance of `blend_backward` to a macro, as [`blend_forward_tiles!`] does. The widest spill a
/// few bytes ahead of their loops, in 16 bits everywhere, in f32 on sm_70.
#[macro_export]
macro_rules! blend_backward_tiles {
    ($instance:ident) => {
        $instance! { blend_backward_f32_v16, f32, F32, 4, 4, 256, 2, spills }
        $instance! { blend_backward_f32_v4, f32, F32, 1, 8, 256, 2, spills }
        $instance! { blend_backward_f16_v16, f16, F16, 8, 2, 256, 2, spills }
        $instance! { blend_backward_f16_v4, f16, F16, 2, 4, 256, 2 }
        $instance! { blend_backward_f16_v2, f16, F16, 1, 4, 256, 2, spills }
        $instance! { blend_backward_bf16_v16, bf16, Bf16, 8, 2, 256, 2, spills }
        $instance! { blend_backward_bf16_v4, bf16, Bf16, 2, 4, 256, 2 }
        $instance! { blend_backward_bf16_v2, bf16, Bf16, 1, 4, 256, 2, spills }
    };
}

/// As [`blend_forward_seed_tiles!`], of `blend_backward_seed`.
#[macro_export]
macro_rules! blend_backward_seed_tiles {
    ($instance:ident) => {
        $instance! { blend_backward_seed_f32, f32, F32, 4, 4, 128, 8, spills }
        $instance! { blend_backward_seed_f16, f16, F16, 4, 4, 128, 8, spills }
        $instance! { blend_backward_seed_bf16, bf16, Bf16, 4, 4, 128, 8, spills }
    };
}

/// Hands each instance of `blend_backward_tma` to a macro: `(entry, element, DType, lanes, rows of a group, block
/// threads, blocks per SM, architecture, rows that a thread has in registers at a time)`.
#[macro_export]
macro_rules! blend_backward_tma_tiles {
    ($instance:ident) => {
        $instance! { blend_backward_tma_f32, f32, F32, 4, 2, 288, 2, 90, 2 }
        $instance! { blend_backward_tma_f16, f16, F16, 4, 4, 288, 2, 90, 2 }
        $instance! { blend_backward_tma_bf16, bf16, Bf16, 4, 4, 288, 2, 90, 2 }
    };
}

/// Hands each instance of `parameter_gradients` to a macro: `(entry, family, lanes, block threads, whether a
/// thread may have several vectors of a chunk)`, and `spills` where some target's code may: sm_70's 32 bytes, and the
/// wide one of one lane 8 on sm_90a.
#[macro_export]
macro_rules! parameter_gradients_tiles {
    ($instance:ident) => {
        $instance! { parameter_gradients_f32_v16, "parameter_gradients", 4, 256, false, spills }
        $instance! { parameter_gradients_f32_v4, "parameter_gradients", 1, 256, false }
        $instance! { parameter_gradients_wide_f32_v16, "parameter_gradients", 4, 256, true, spills }
        $instance! { parameter_gradients_wide_f32_v4, "parameter_gradients", 1, 256, true, spills }
    };
}

/// Hands each pair of instances of `telemetry_reduce` to a macro:
/// `(entry for all values together, entry for rows, element, DType, lanes, vectors in flight of the one and
/// of the other)`. Every block has [`TELEMETRY_REDUCE_BLOCK_THREADS`].
#[macro_export]
macro_rules! telemetry_reduce_tiles {
    ($instance:ident) => {
        $instance! { telemetry_reduce_all_f32_v16, telemetry_reduce_rows_f32_v16, f32, F32, 4, 4, 4 }
        $instance! { telemetry_reduce_all_f32_v4, telemetry_reduce_rows_f32_v4, f32, F32, 1, 8, 4 }
        $instance! { telemetry_reduce_all_f16_v16, telemetry_reduce_rows_f16_v16, f16, F16, 8, 4, 2 }
        $instance! { telemetry_reduce_all_f16_v4, telemetry_reduce_rows_f16_v4, f16, F16, 2, 8, 4 }
        $instance! { telemetry_reduce_all_f16_v2, telemetry_reduce_rows_f16_v2, f16, F16, 1, 8, 4 }
        $instance! { telemetry_reduce_all_bf16_v16, telemetry_reduce_rows_bf16_v16, bf16, Bf16, 8, 4, 2 }
        $instance! { telemetry_reduce_all_bf16_v4, telemetry_reduce_rows_bf16_v4, bf16, Bf16, 2, 8, 4 }
        $instance! { telemetry_reduce_all_bf16_v2, telemetry_reduce_rows_bf16_v2, bf16, Bf16, 1, 8, 4 }
    };
}

/// Hands each kernel that has one instance to a macro: `(entry, family, lanes, block threads)`. The
/// elements are f32, and one block fits on a multiprocessor, at least.
#[macro_export]
macro_rules! single_tiles {
    ($instance:ident) => {
        $instance! { graft_schedule_f32, "graft_schedule", 1, 256 }
        $instance! { state_update_f32, "state_update", 1, 256 }
        $instance! { gradient_clip_value_f32, "gradient_clip", 1, 256 }
        $instance! { gradient_clip_norm_f32, "gradient_clip", 1, 256 }
        $instance! { gradient_clip_scale_f32, "gradient_clip", 1, 256 }
        $instance! { gradient_clip_adaptive_f32, "gradient_clip", 1, 256 }
    };
}

/// Threads of a block of `telemetry_reduce`.
pub const TELEMETRY_REDUCE_BLOCK_THREADS: u32 = 256;

/// Blocks of `telemetry_reduce` that fit on a multiprocessor, at least.
pub const TELEMETRY_REDUCE_MIN_BLOCKS: u32 = 3;

pub(super) const fn add(table: &mut Table) {
    macro_rules! blend_forward {
        ($entry:ident, $element:ty, $dtype:ident, $lanes:literal, $rows:literal, $block:literal,
         $min_blocks:literal $(, $spills:ident)?) => {
            let entry = stringify!($entry);
            table.add(entry, "blend_forward", DType::$dtype, $lanes, $block, $min_blocks);
        };
    }
    blend_forward_tiles!(blend_forward);
    macro_rules! blend_forward_seed {
        ($entry:ident, $element:ty, $dtype:ident, $lanes:literal, $rows:literal, $block:literal,
         $min_blocks:literal $(, $spills:ident)?) => {
            let entry = stringify!($entry);
            table.add(entry, "blend_forward_seed", DType::$dtype, $lanes, $block, $min_blocks);
        };
    }
    blend_forward_seed_tiles!(blend_forward_seed);
    macro_rules! blend_forward_tma {
        ($entry:ident, $element:ty, $dtype:ident, $lanes:literal, $rows:literal, $block:literal,
         $min_blocks:literal, $capability:literal, $subrows:literal, $bulk:literal $(, $spills:ident)?) => {
            let entry = stringify!($entry);
            table.add(entry, "blend_forward_tma", DType::$dtype, $lanes, $block, $min_blocks);
            table.needs($capability);
        };
    }
    blend_forward_tma_tiles!(blend_forward_tma);
    macro_rules! blend_backward {
        ($entry:ident, $element:ty, $dtype:ident, $lanes:literal, $rows:literal, $block:literal,
         $min_blocks:literal $(, $spills:ident)?) => {
            let entry = stringify!($entry);
            table.add(entry, "blend_backward", DType::$dtype, $lanes, $block, $min_blocks);
        };
    }
    blend_backward_tiles!(blend_backward);
    macro_rules! blend_backward_seed {
        ($entry:ident, $element:ty, $dtype:ident, $lanes:literal, $rows:literal, $block:literal,
         $min_blocks:literal $(, $spills:ident)?) => {
            let entry = stringify!($entry);
            table.add(entry, "blend_backward_seed", DType::$dtype, $lanes, $block, $min_blocks);
        };
    }
    blend_backward_seed_tiles!(blend_backward_seed);
    macro_rules! blend_backward_tma {
        ($entry:ident, $element:ty, $dtype:ident, $lanes:literal, $rows:literal, $block:literal,
         $min_blocks:literal, $capability:literal, $subrows:literal $(, $spills:ident)?) => {
            let entry = stringify!($entry);
            table.add(entry, "blend_backward_tma", DType::$dtype, $lanes, $block, $min_blocks);
            table.needs($capability);
        };
    }
    blend_backward_tma_tiles!(blend_backward_tma);
    macro_rules! telemetry_reduce {
        ($all:ident, $rows:ident, $element:ty, $dtype:ident, $lanes:literal, $vectors:literal,
         $row_vectors:literal) => {
            telemetry_reduce!(stringify!($all), $dtype, $lanes);
            telemetry_reduce!(stringify!($rows), $dtype, $lanes);
        };
        ($entry:expr, $dtype:ident, $lanes:literal) => {
            let (threads, blocks) = (TELEMETRY_REDUCE_BLOCK_THREADS, TELEMETRY_REDUCE_MIN_BLOCKS);
            table.add($entry, "telemetry_reduce", DType::$dtype, $lanes, threads, blocks);
        };
    }
    telemetry_reduce_tiles!(telemetry_reduce);
    macro_rules! single {
        ($entry:ident, $family:literal, $lanes:literal, $block:literal $(, $rest:tt)*) => {
            table.add(stringify!($entry), $family, DType::F32, $lanes, $block, 1);
        };
    }
    single_tiles!(single);
    parameter_gradients_tiles!(single);
}

//! The instances of `linear` and `linear_backward`.

use super::Table;
use crate::dtype::DType;

/// Hands each instance of `linear` without tensor cores to a macro: `(entry, element, DType, accumulator, lanes of a
/// store, tiles of [`LINEAR_SIMT_TILE`] along an output tile's edge, blocks that fit on a multiprocessor at least)`. They take every layout; blocks have
/// [`LINEAR_SIMT_BLOCK_THREADS`].
#[macro_export]
macro_rules! linear_simt_tiles {
    ($instance:ident) => {
        $instance! { linear_simt_f32_m128n128, f32, F32, f32, 4, 2, 2 }
        $instance! { linear_simt_f32_m64n64, f32, F32, f32, 4, 1, 2 }
        $instance! { linear_simt_f16_m64n64, f16, F16, f32, 4, 1, 2 }
        $instance! { linear_simt_bf16_m64n64, bf16, Bf16, f32, 4, 1, 2 }
        $instance! { linear_simt_e4m3_m64n64, E4m3, E4m3, f32, 4, 1, 2 }
        $instance! { linear_simt_f64_m64n64, f64, F64, f64, 2, 1, 2 }
        $instance! { linear_simt_f32_sums_f64_m64n64, f32, F32, f64, 2, 1, 2 }
    };
}

/// Hands each instance of `linear` on `mma.sync` to a macro: `(entry, element, DType,
/// layout, rows of a tile, columns of a tile)`; f32 is rounded to tf32. Compute capability 8.0, blocks of
/// [`LINEAR_MMA_BLOCK_THREADS`].
#[macro_export]
macro_rules! linear_mma_tiles {
    ($instance:ident) => {
        $instance! { linear_mma_bf16_nn_m128n128, bf16, Bf16, NN, 128, 128 }
        $instance! { linear_mma_bf16_nt_m128n128, bf16, Bf16, NT, 128, 128 }
        $instance! { linear_mma_bf16_tn_m128n128, bf16, Bf16, TN, 128, 128 }
        $instance! { linear_mma_bf16_tt_m128n128, bf16, Bf16, TT, 128, 128 }
        $instance! { linear_mma_bf16_nn_m64n64, bf16, Bf16, NN, 64, 64 }
        $instance! { linear_mma_bf16_nt_m64n64, bf16, Bf16, NT, 64, 64 }
        $instance! { linear_mma_bf16_tn_m64n64, bf16, Bf16, TN, 64, 64 }
        $instance! { linear_mma_bf16_tt_m64n64, bf16, Bf16, TT, 64, 64 }
        $instance! { linear_mma_f16_nn_m128n128, f16, F16, NN, 128, 128 }
        $instance! { linear_mma_f16_nt_m128n128, f16, F16, NT, 128, 128 }
        $instance! { linear_mma_f16_tn_m128n128, f16, F16, TN, 128, 128 }
        $instance! { linear_mma_f16_tt_m128n128, f16, F16, TT, 128, 128 }
        $instance! { linear_mma_f16_nn_m64n64, f16, F16, NN, 64, 64 }
        $instance! { linear_mma_f16_nt_m64n64, f16, F16, NT, 64, 64 }
        $instance! { linear_mma_f16_tn_m64n64, f16, F16, TN, 64, 64 }
        $instance! { linear_mma_f16_tt_m64n64, f16, F16, TT, 64, 64 }
        $instance! { linear_mma_f32_nn_m128n128, f32, F32, NN, 128, 128 }
        $instance! { linear_mma_f32_nt_m128n128, f32, F32, NT, 128, 128 }
        $instance! { linear_mma_f32_tn_m128n128, f32, F32, TN, 128, 128 }
        $instance! { linear_mma_f32_tt_m128n128, f32, F32, TT, 128, 128 }
        $instance! { linear_mma_f32_nn_m64n64, f32, F32, NN, 64, 64 }
        $instance! { linear_mma_f32_nt_m64n64, f32, F32, NT, 64, 64 }
        $instance! { linear_mma_f32_tn_m64n64, f32, F32, TN, 64, 64 }
        $instance! { linear_mma_f32_tt_m64n64, f32, F32, TT, 64, 64 }
    };
}

/// Hands each instance of `linear` on the tensor cores of warpgroups to a macro: `(entry, element, DType, layout, kind,
/// warpgroups, registers, window, stages, threads of a block)`. f32 is rounded to tf32. An output tile is 64 rows a
/// warpgroup by 2 columns a register of each thread, and transposed where the kind is `Swapped`. Blocks of a cluster may
/// share the k of a tile where the kind is `Shared` or `Swapped`. Where it is `Scaled`, sums of 128 k are added in f32, times
/// scales of blocks, and a tile has as many columns as share a scale. A window of registers is staged at once. Stages leave no room for
/// a second block of an SM: blocks that overlap their predecessors would else come to lie two on one. Compute capability
/// 9.0 alone.
#[macro_export]
macro_rules! linear_wgmma_tiles {
    ($instance:ident) => {
        $instance! { linear_wgmma_bf16_nn_m128n256, bf16, Bf16, NN, Whole, 2, 128, 32, 4, 384 }
        $instance! { linear_wgmma_bf16_nn_m64n128, bf16, Bf16, NN, Whole, 1, 64, 32, 8, 160 }
        $instance! { linear_wgmma_bf16_nn_m64n64, bf16, Bf16, NN, Shared, 1, 32, 32, 12, 160 }
        $instance! { linear_wgmma_bf16_nt_m128n256, bf16, Bf16, NT, Whole, 2, 128, 32, 4, 384 }
        $instance! { linear_wgmma_bf16_nt_m64n128, bf16, Bf16, NT, Whole, 1, 64, 32, 8, 160 }
        $instance! { linear_wgmma_bf16_nt_m64n64, bf16, Bf16, NT, Shared, 1, 32, 32, 12, 160 }
        $instance! { linear_wgmma_bf16_tn_m128n256, bf16, Bf16, TN, Whole, 2, 128, 32, 4, 384 }
        $instance! { linear_wgmma_bf16_tn_m64n128, bf16, Bf16, TN, Whole, 1, 64, 32, 8, 160 }
        $instance! { linear_wgmma_bf16_tn_m64n64, bf16, Bf16, TN, Shared, 1, 32, 32, 12, 160 }
        $instance! { linear_wgmma_bf16_tt_m128n256, bf16, Bf16, TT, Whole, 2, 128, 32, 4, 384 }
        $instance! { linear_wgmma_bf16_tt_m64n128, bf16, Bf16, TT, Whole, 1, 64, 32, 8, 160 }
        $instance! { linear_wgmma_bf16_tt_m64n64, bf16, Bf16, TT, Shared, 1, 32, 32, 12, 160 }
        $instance! { linear_wgmma_bf16_nt_m8n64_swapped, bf16, Bf16, NT, Swapped, 1, 4, 4, 16, 160 }
        $instance! { linear_wgmma_bf16_nt_m16n64_swapped, bf16, Bf16, NT, Swapped, 1, 8, 8, 16, 160 }
        $instance! { linear_wgmma_bf16_nt_m64n64_swapped, bf16, Bf16, NT, Swapped, 1, 32, 32, 12, 160 }
        $instance! { linear_wgmma_f16_nn_m128n256, f16, F16, NN, Whole, 2, 128, 32, 4, 384 }
        $instance! { linear_wgmma_f16_nn_m64n128, f16, F16, NN, Whole, 1, 64, 32, 8, 160 }
        $instance! { linear_wgmma_f16_nn_m64n64, f16, F16, NN, Shared, 1, 32, 32, 12, 160 }
        $instance! { linear_wgmma_f16_nt_m128n256, f16, F16, NT, Whole, 2, 128, 32, 4, 384 }
        $instance! { linear_wgmma_f16_nt_m64n128, f16, F16, NT, Whole, 1, 64, 32, 8, 160 }
        $instance! { linear_wgmma_f16_nt_m64n64, f16, F16, NT, Shared, 1, 32, 32, 12, 160 }
        $instance! { linear_wgmma_f16_tn_m128n256, f16, F16, TN, Whole, 2, 128, 32, 4, 384 }
        $instance! { linear_wgmma_f16_tn_m64n128, f16, F16, TN, Whole, 1, 64, 32, 8, 160 }
        $instance! { linear_wgmma_f16_tn_m64n64, f16, F16, TN, Shared, 1, 32, 32, 12, 160 }
        $instance! { linear_wgmma_f16_tt_m128n256, f16, F16, TT, Whole, 2, 128, 32, 4, 384 }
        $instance! { linear_wgmma_f16_tt_m64n128, f16, F16, TT, Whole, 1, 64, 32, 8, 160 }
        $instance! { linear_wgmma_f16_tt_m64n64, f16, F16, TT, Shared, 1, 32, 32, 12, 160 }
        $instance! { linear_wgmma_f16_nt_m8n64_swapped, f16, F16, NT, Swapped, 1, 4, 4, 16, 160 }
        $instance! { linear_wgmma_f16_nt_m16n64_swapped, f16, F16, NT, Swapped, 1, 8, 8, 16, 160 }
        $instance! { linear_wgmma_f16_nt_m64n64_swapped, f16, F16, NT, Swapped, 1, 32, 32, 12, 160 }
        $instance! { linear_wgmma_e4m3_nt_m128n256, E4m3, E4m3, NT, Whole, 2, 128, 32, 4, 384 }
        $instance! { linear_wgmma_e4m3_nt_m64n128, E4m3, E4m3, NT, Whole, 1, 64, 32, 8, 160 }
        $instance! { linear_wgmma_e4m3_nt_m64n64, E4m3, E4m3, NT, Shared, 1, 32, 32, 12, 160 }
        $instance! { linear_wgmma_e4m3_nt_m128n128_scaled, E4m3, E4m3, NT, Scaled, 2, 64, 32, 6, 384 }
        $instance! { linear_wgmma_e4m3_nt_m64n128_scaled, E4m3, E4m3, NT, Scaled, 1, 64, 32, 3, 160 }
        $instance! { linear_wgmma_f32_nt_m128n256, Tf32, F32, NT, Whole, 2, 128, 32, 4, 384 }
        $instance! { linear_wgmma_f32_nt_m64n128, Tf32, F32, NT, Whole, 1, 64, 32, 8, 160 }
        $instance! { linear_wgmma_f32_nt_m64n64, Tf32, F32, NT, Shared, 1, 32, 32, 12, 160 }
    };
}

/// Hands each instance of `linear_grouped_wgmma` to a macro, as [`linear_wgmma_tiles`](crate::linear_wgmma_tiles) does,
/// with numbers that are the same there: whole tiles alone. Compute capability 9.0 alone.
#[macro_export]
macro_rules! linear_grouped_wgmma_tiles {
    ($instance:ident) => {
        $instance! { linear_grouped_wgmma_bf16_nn_m128n256, bf16, Bf16, NN, Whole, 2, 128, 32, 4, 384 }
        $instance! { linear_grouped_wgmma_bf16_nn_m64n128, bf16, Bf16, NN, Whole, 1, 64, 32, 8, 160 }
        $instance! { linear_grouped_wgmma_bf16_nt_m128n256, bf16, Bf16, NT, Whole, 2, 128, 32, 4, 384 }
        $instance! { linear_grouped_wgmma_bf16_nt_m64n128, bf16, Bf16, NT, Whole, 1, 64, 32, 8, 160 }
        $instance! { linear_grouped_wgmma_bf16_tn_m128n256, bf16, Bf16, TN, Whole, 2, 128, 32, 4, 384 }
        $instance! { linear_grouped_wgmma_bf16_tn_m64n128, bf16, Bf16, TN, Whole, 1, 64, 32, 8, 160 }
        $instance! { linear_grouped_wgmma_bf16_tt_m128n256, bf16, Bf16, TT, Whole, 2, 128, 32, 4, 384 }
        $instance! { linear_grouped_wgmma_bf16_tt_m64n128, bf16, Bf16, TT, Whole, 1, 64, 32, 8, 160 }
        $instance! { linear_grouped_wgmma_f16_nn_m128n256, f16, F16, NN, Whole, 2, 128, 32, 4, 384 }
        $instance! { linear_grouped_wgmma_f16_nn_m64n128, f16, F16, NN, Whole, 1, 64, 32, 8, 160 }
        $instance! { linear_grouped_wgmma_f16_nt_m128n256, f16, F16, NT, Whole, 2, 128, 32, 4, 384 }
        $instance! { linear_grouped_wgmma_f16_nt_m64n128, f16, F16, NT, Whole, 1, 64, 32, 8, 160 }
        $instance! { linear_grouped_wgmma_f16_tn_m128n256, f16, F16, TN, Whole, 2, 128, 32, 4, 384 }
        $instance! { linear_grouped_wgmma_f16_tn_m64n128, f16, F16, TN, Whole, 1, 64, 32, 8, 160 }
        $instance! { linear_grouped_wgmma_f16_tt_m128n256, f16, F16, TT, Whole, 2, 128, 32, 4, 384 }
        $instance! { linear_grouped_wgmma_f16_tt_m64n128, f16, F16, TT, Whole, 1, 64, 32, 8, 160 }
        $instance! { linear_grouped_wgmma_e4m3_nt_m128n256, E4m3, E4m3, NT, Whole, 2, 128, 32, 4, 384 }
        $instance! { linear_grouped_wgmma_e4m3_nt_m64n128, E4m3, E4m3, NT, Whole, 1, 64, 32, 8, 160 }
        $instance! { linear_grouped_wgmma_e4m3_nt_m128n128_scaled, E4m3, E4m3, NT, Scaled, 2, 64, 32, 6, 384 }
        $instance! { linear_grouped_wgmma_e4m3_nt_m64n128_scaled, E4m3, E4m3, NT, Scaled, 1, 64, 32, 3, 160 }
        $instance! { linear_grouped_wgmma_f32_nt_m128n256, Tf32, F32, NT, Whole, 2, 128, 32, 4, 384 }
        $instance! { linear_grouped_wgmma_f32_nt_m64n128, Tf32, F32, NT, Whole, 1, 64, 32, 8, 160 }
    };
}

/// Hands each instance of `linear_repack` to a macro: `(entry, element, DType)`, for every type of the element's size.
#[macro_export]
macro_rules! linear_repack_tiles {
    ($instance:ident) => {
        $instance! { linear_repack_e4m3, u8, E4m3 }
        $instance! { linear_repack_f16, u16, F16 }
        $instance! { linear_repack_f32, u32, F32 }
    };
}

/// Hands each instance of `linear_repack` that converts f32 to a macro: `(entry, element of the result, its DType, the least
/// architecture)`. That of fp8 is for compute capability 9.0 alone, as are the products.
#[macro_export]
macro_rules! linear_convert_tiles {
    ($instance:ident) => {
        $instance! { linear_repack_f32_bf16, bf16, Bf16, 80 }
        $instance! { linear_repack_f32_f16, f16, F16, 80 }
        $instance! { linear_repack_f32_e4m3, E4m3, E4m3, "90a" }
    };
}

/// Hands each instance of `linear_backward` to a macro: `(entry, element, DType, accumulator)`. Every block has
/// [`LINEAR_BACKWARD_BLOCK_THREADS`].
#[macro_export]
macro_rules! linear_backward_tiles {
    ($instance:ident) => {
        $instance! { linear_backward_f32, f32, F32, f32 }
        $instance! { linear_backward_f16, f16, F16, f32 }
        $instance! { linear_backward_bf16, bf16, Bf16, f32 }
        $instance! { linear_backward_f64, f64, F64, f64 }
    };
}

/// Threads of a block of `linear` without tensor cores.
pub const LINEAR_SIMT_BLOCK_THREADS: u32 = 256;

/// Rows, and columns, of which its output tiles are made.
pub const LINEAR_SIMT_TILE: u32 = 64;

/// Threads of a block of `linear` on `mma.sync`.
pub const LINEAR_MMA_BLOCK_THREADS: u32 = 256;

/// Bytes of k of its tiles in shared memory.
pub const LINEAR_MMA_K_BYTES: u32 = 64;

/// Tiles of A and B that its shared memory holds at once.
pub const LINEAR_MMA_STAGES: u32 = 3;

/// Bytes of k of the tiles in shared memory of `linear` on warpgroups: the span of their swizzle.
pub const LINEAR_WGMMA_K_BYTES: u32 = 128;

/// Threads of a block of `linear_repack`.
pub const LINEAR_REPACK_BLOCK_THREADS: u32 = 256;

/// Rows, and columns, that a block of `linear_repack` takes.
pub const LINEAR_REPACK_TILE: u32 = 64;

/// Threads of a block of `linear_absmax`.
pub const LINEAR_ABSMAX_BLOCK_THREADS: u32 = 256;

/// Threads of a block of `linear_sample`.
pub const LINEAR_SAMPLE_BLOCK_THREADS: u32 = 256;

/// Threads of a block of `linear_backward`.
pub const LINEAR_BACKWARD_BLOCK_THREADS: u32 = 256;

/// Columns that a block of `linear_backward` takes.
pub const LINEAR_BACKWARD_COLUMNS: u32 = 32;

/// Rows that a block of `linear_backward` takes: a slab.
pub const LINEAR_BACKWARD_ROWS: u32 = 512;

pub(super) const fn add(table: &mut Table) {
    macro_rules! simt {
        ($entry:ident, $element:ty, $dtype:ident, $accumulator:ty, $lanes:literal,
         $groups:literal, $min_blocks:literal) => {
            let threads = LINEAR_SIMT_BLOCK_THREADS;
            table.add(stringify!($entry), "linear", DType::$dtype, 1, threads, $min_blocks);
        };
    }
    linear_simt_tiles!(simt);
    macro_rules! mma {
        ($entry:ident, $element:ty, $dtype:ident, $layout:ident, $m:literal,
         $n:literal) => {
            let lanes = 16 / DType::$dtype.size_bytes() as u32;
            let threads = LINEAR_MMA_BLOCK_THREADS;
            table.add(stringify!($entry), "linear", DType::$dtype, lanes, threads, 1);
            table.needs(80);
        };
    }
    linear_mma_tiles!(mma);
    macro_rules! wgmma {
        ($entry:ident, $element:ident, $dtype:ident, $layout:ident, $kind:ident, $groups:literal,
         $registers:literal, $window:literal, $stages:literal, $threads:literal) => {
            let lanes = 16 / DType::$dtype.size_bytes() as u32;
            table.add(stringify!($entry), "linear", DType::$dtype, lanes, $threads, 1);
            table.needs_exactly(90);
        };
    }
    linear_wgmma_tiles!(wgmma);
    linear_grouped_wgmma_tiles!(wgmma);
    macro_rules! repack {
        ($entry:ident, $element:ty, $dtype:ident) => {
            let threads = LINEAR_REPACK_BLOCK_THREADS;
            table.add(stringify!($entry), "linear_repack", DType::$dtype, 4, threads, 1);
            table.needs_exactly(90);
        };
    }
    linear_repack_tiles!(repack);
    macro_rules! convert {
        ($entry:ident, $element:ty, $dtype:ident, $arch:literal) => {
            let threads = LINEAR_REPACK_BLOCK_THREADS;
            table.add(stringify!($entry), "linear_repack", DType::F32, 1, threads, 1);
            match DType::$dtype {
                DType::E4m3 => table.needs_exactly(90),
                _ => table.needs(80),
            }
        };
    }
    linear_convert_tiles!(convert);
    let threads = LINEAR_ABSMAX_BLOCK_THREADS;
    table.add("linear_absmax_f32", "linear_absmax", DType::F32, 1, threads, 1);
    table.needs_exactly(90);
    macro_rules! backward {
        ($entry:ident, $element:ty, $dtype:ident, $accumulator:ty) => {
            let threads = LINEAR_BACKWARD_BLOCK_THREADS;
            table.add(stringify!($entry), "linear_backward", DType::$dtype, 1, threads, 1);
        };
    }
    linear_backward_tiles!(backward);
    let threads = LINEAR_SAMPLE_BLOCK_THREADS;
    table.add("linear_sample_f32", "linear_sample", DType::F32, 1, threads, 1);
}

//! The table of kernel instances: the only list of them. The kernels are made from it, and the host
//! chooses from it.

use crate::dtype::DType;

/// One kernel instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tile {
    /// Name of the entry in the PTX.
    pub entry: &'static str,
    /// The kernel family: the name of the operation's file.
    pub family: &'static str,
    /// Element type.
    pub dtype: DType,
    /// Elements of one memory access.
    pub lanes: u32,
    /// Threads of a block.
    pub block_threads: u32,
    /// Blocks that fit on a multiprocessor, at least.
    pub min_blocks_per_sm: u32,
    /// The least compute capability whose modules have the entry: 90 for 9.0.
    pub min_capability: u32,
}

/// The least compute capability that any module is for.
pub const OLDEST_CAPABILITY: u32 = 70;

/// Hands each instance of `blend_forward` to a macro:
/// `(entry, element, DType, lanes, rows of a group, block threads, blocks per SM)`, and `spills` where
/// some target's code may: sm_70's two spill 24 bytes, and the next smaller group costs every target more.
///
/// `_v16` instances move 16 bytes at a time, where the chunk's bytes are a multiple of 16; `_v4` and
/// `_v2` move less, so that any chunk size has one.
#[macro_export]
macro_rules! blend_forward_tiles {
    ($instance:ident) => {
        $instance! { blend_forward_f32_v16, f32, F32, 4, 4, 256, 2 }
        $instance! { blend_forward_f32_v4, f32, F32, 1, 8, 256, 2 }
        $instance! { blend_forward_f16_v16, f16, F16, 8, 2, 256, 2, spills }
        $instance! { blend_forward_f16_v4, f16, F16, 2, 4, 256, 2 }
        $instance! { blend_forward_f16_v2, f16, F16, 1, 4, 256, 2 }
        $instance! { blend_forward_bf16_v16, bf16, Bf16, 8, 2, 256, 2, spills }
        $instance! { blend_forward_bf16_v4, bf16, Bf16, 2, 4, 256, 2 }
        $instance! { blend_forward_bf16_v2, bf16, Bf16, 1, 4, 256, 2 }
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
        $instance! { blend_forward_tma_f32, f32, F32, 4, 4, 288, 2, 90, 2, false }
        $instance! { blend_forward_tma_f16, f16, F16, 4, 8, 288, 2, 90, 1, false }
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

/// Hands each triple of instances of the one-launch kernels of active inference to a macro: `(entry of one step, of
/// steps until they converge, of the power iteration, element, DType, lanes, vectors of a row that a thread holds, sweep,
/// warps of a team, rows that a thread holds, rows of a group, states at most)`, and `spills` where some
/// target's code may, a few bytes beside the loop over rows; 0 states: any number. Every block has
/// [`ACTIVE_INFERENCE_BLOCK_THREADS`].
#[macro_export]
macro_rules! active_inference_tiles {
    ($instance:ident) => {
        $instance! { belief_step_f64_c64, infer_until_converged_f64_c64, curvature_f64_c64, f64, F64, 2, 1, Teams, 1, 4, 4, 64, spills }
        $instance! { belief_step_f64_c256, infer_until_converged_f64_c256, curvature_f64_c256, f64, F64, 2, 4, Teams, 1, 2, 2, 256, spills }
        $instance! { belief_step_f64_c1024, infer_until_converged_f64_c1024, curvature_f64_c1024, f64, F64, 2, 4, Teams, 4, 2, 2, 1024, spills }
        $instance! { belief_step_f64_c4096, infer_until_converged_f64_c4096, curvature_f64_c4096, f64, F64, 2, 4, Teams, 16, 3, 1, 4096, spills }
        $instance! { belief_step_f64_wide, infer_until_converged_f64_wide, curvature_f64_wide, f64, F64, 2, 4, Wide, 16, 3, 1, 0, spills }
        $instance! { belief_step_f32_c64, infer_until_converged_f32_c64, curvature_f32_c64, f32, F32, 2, 1, Teams, 1, 4, 4, 64, spills }
        $instance! { belief_step_f32_c256, infer_until_converged_f32_c256, curvature_f32_c256, f32, F32, 4, 2, Teams, 1, 2, 2, 256, spills }
        $instance! { belief_step_f32_c1024, infer_until_converged_f32_c1024, curvature_f32_c1024, f32, F32, 4, 2, Teams, 4, 2, 2, 1024, spills }
        $instance! { belief_step_f32_c4096, infer_until_converged_f32_c4096, curvature_f32_c4096, f32, F32, 4, 2, Teams, 16, 3, 1, 4096, spills }
        $instance! { belief_step_f32_wide, infer_until_converged_f32_wide, curvature_f32_wide, f32, F32, 4, 2, Wide, 16, 3, 1, 0, spills }
    };
}

/// Hands each triple of instances whose J bulk copies bring to a macro, as [`active_inference_tiles!`] does: `(entries,
/// element, DType, lanes, vectors of a row that a thread takes)`. For models of up to 4096 states; compute capability 9.0.
#[macro_export]
macro_rules! active_inference_bulk_tiles {
    ($instance:ident) => {
        $instance! { belief_step_f64_bulk, infer_until_converged_f64_bulk, curvature_f64_bulk, f64, F64, 2, 8 }
        $instance! { belief_step_f32_bulk, infer_until_converged_f32_bulk, curvature_f32_bulk, f32, F32, 4, 4 }
    };
}

/// Hands each pair of instances of the stages that read J to a macro: `(entry of the accuracy, of the update, element,
/// DType, lanes)`. Every block has [`INFERENCE_STAGE_BLOCK_THREADS`], that of `fused_kl_complexity_f64` too.
#[macro_export]
macro_rules! inference_stage_tiles {
    ($instance:ident) => {
        $instance! { fused_accuracy_pipeline_f64, fused_belief_update_f64, f64, F64, 2 }
        $instance! { fused_accuracy_pipeline_f32, fused_belief_update_f32, f32, F32, 4 }
    };
}

/// Hands each pair of instances of `gemv` to a macro: `(entry, entry with the transpose, element, DType)`. Every block
/// has [`INFERENCE_STAGE_BLOCK_THREADS`].
#[macro_export]
macro_rules! gemv_tiles {
    ($instance:ident) => {
        $instance! { gemv_f64, gemv_transposed_f64, f64, F64 }
        $instance! { gemv_f32, gemv_transposed_f32, f32, F32 }
    };
}

/// Hands each pair of instances of `axpby` to a macro: `(entry, entry of the velocity, element, DType)`. Every block has
/// [`INFERENCE_STAGE_BLOCK_THREADS`].
#[macro_export]
macro_rules! axpby_tiles {
    ($instance:ident) => {
        $instance! { axpby_f64, velocity_f64, f64, F64 }
        $instance! { axpby_f32, velocity_f32, f32, F32 }
    };
}

/// Threads of a block of the stages of active inference, of `gemv` and of `axpby`.
pub const INFERENCE_STAGE_BLOCK_THREADS: u32 = 256;

/// Threads of a block of the one-launch kernels of active inference.
pub const ACTIVE_INFERENCE_BLOCK_THREADS: u32 = 512;

/// Threads of a block of `telemetry_reduce`.
pub const TELEMETRY_REDUCE_BLOCK_THREADS: u32 = 256;

/// Blocks of `telemetry_reduce` that fit on a multiprocessor, at least.
pub const TELEMETRY_REDUCE_MIN_BLOCKS: u32 = 3;

/// Threads of a block of `reduce`.
pub const REDUCE_BLOCK_THREADS: u32 = 256;

/// Blocks of `reduce` that fit on a multiprocessor, at least.
pub const REDUCE_MIN_BLOCKS: u32 = 4;

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

/// Every instance, in the order of the families.
pub static TILES: &[Tile] = ALL.0.split_at(ALL.1).0;

/// Room for the table, and how much of it is used.
const ALL: ([Tile; 256], usize) = {
    const NONE: Tile = Tile {
        entry: "",
        family: "",
        dtype: DType::F32,
        lanes: 0,
        block_threads: 0,
        min_blocks_per_sm: 0,
        min_capability: OLDEST_CAPABILITY,
    };
    let mut tiles = [NONE; 256];
    let mut used = 0;
    macro_rules! blend_forward {
        ($entry:ident, $element:ty, $dtype:ident, $lanes:literal, $rows:literal, $block:literal,
         $min_blocks:literal $(, $spills:ident)?) => {
            tiles[used] = Tile {
                entry: stringify!($entry),
                family: "blend_forward",
                dtype: DType::$dtype,
                lanes: $lanes,
                block_threads: $block,
                min_blocks_per_sm: $min_blocks,
                ..NONE
            };
            used += 1;
        };
    }
    blend_forward_tiles!(blend_forward);
    macro_rules! blend_forward_tma {
        ($entry:ident, $element:ty, $dtype:ident, $lanes:literal, $rows:literal, $block:literal,
         $min_blocks:literal, $arch:literal, $subrows:literal, $bulk:literal $(, $spills:ident)?) => {
            tiles[used] = Tile {
                entry: stringify!($entry),
                family: "blend_forward_tma",
                dtype: DType::$dtype,
                lanes: $lanes,
                block_threads: $block,
                min_blocks_per_sm: $min_blocks,
                min_capability: $arch,
            };
            used += 1;
        };
    }
    blend_forward_tma_tiles!(blend_forward_tma);
    macro_rules! blend_backward {
        ($entry:ident, $element:ty, $dtype:ident, $lanes:literal, $rows:literal, $block:literal,
         $min_blocks:literal $(, $spills:ident)?) => {
            tiles[used] = Tile {
                entry: stringify!($entry),
                family: "blend_backward",
                dtype: DType::$dtype,
                lanes: $lanes,
                block_threads: $block,
                min_blocks_per_sm: $min_blocks,
                ..NONE
            };
            used += 1;
        };
    }
    blend_backward_tiles!(blend_backward);
    macro_rules! blend_backward_tma {
        ($entry:ident, $element:ty, $dtype:ident, $lanes:literal, $rows:literal, $block:literal,
         $min_blocks:literal, $arch:literal, $subrows:literal $(, $spills:ident)?) => {
            tiles[used] = Tile {
                entry: stringify!($entry),
                family: "blend_backward_tma",
                dtype: DType::$dtype,
                lanes: $lanes,
                block_threads: $block,
                min_blocks_per_sm: $min_blocks,
                min_capability: $arch,
            };
            used += 1;
        };
    }
    blend_backward_tma_tiles!(blend_backward_tma);
    macro_rules! reduce {
        ($block:ident, $warp:ident, $op:ident, $element:ty, $dtype:ident, $lanes:literal,
         $vectors:literal) => {
            reduce!(@one stringify!($block), $dtype, $lanes);
            reduce!(@one stringify!($warp), $dtype, $lanes);
        };
        (@one $entry:expr, $dtype:ident, $lanes:literal) => {
            tiles[used] = Tile {
                entry: $entry,
                family: "reduce",
                dtype: DType::$dtype,
                lanes: $lanes,
                block_threads: REDUCE_BLOCK_THREADS,
                min_blocks_per_sm: REDUCE_MIN_BLOCKS,
                ..NONE
            };
            used += 1;
        };
    }
    reduce_tiles!(reduce);
    macro_rules! telemetry_reduce {
        ($all:ident, $rows:ident, $element:ty, $dtype:ident, $lanes:literal, $vectors:literal,
         $row_vectors:literal) => {
            telemetry_reduce!(@one stringify!($all), $dtype, $lanes);
            telemetry_reduce!(@one stringify!($rows), $dtype, $lanes);
        };
        (@one $entry:expr, $dtype:ident, $lanes:literal) => {
            tiles[used] = Tile {
                entry: $entry,
                family: "telemetry_reduce",
                dtype: DType::$dtype,
                lanes: $lanes,
                block_threads: TELEMETRY_REDUCE_BLOCK_THREADS,
                min_blocks_per_sm: TELEMETRY_REDUCE_MIN_BLOCKS,
                ..NONE
            };
            used += 1;
        };
    }
    macro_rules! norm {
        ($entry:expr, $family:expr, $dtype:ident, $lanes:literal, $min_blocks:expr) => {
            tiles[used] = Tile {
                entry: $entry,
                family: $family,
                dtype: DType::$dtype,
                lanes: $lanes,
                block_threads: NORM_BLOCK_THREADS,
                min_blocks_per_sm: $min_blocks,
                ..NONE
            };
            used += 1;
        };
    }
    telemetry_reduce_tiles!(telemetry_reduce);
    macro_rules! single {
        ($entry:ident, $family:literal, $lanes:literal, $block:literal $(, $rest:tt)*) => {
            tiles[used] = Tile {
                entry: stringify!($entry),
                family: $family,
                dtype: DType::F32,
                lanes: $lanes,
                block_threads: $block,
                min_blocks_per_sm: 1,
                ..NONE
            };
            used += 1;
        };
    }
    single_tiles!(single);
    parameter_gradients_tiles!(single);
    macro_rules! activation_norm {
        ($entry:ident, $element:ty, $dtype:ident, $lanes:literal, $vectors:literal
         $(, $spills:ident)?) => {
            let entry = stringify!($entry);
            norm!(entry, "activation_norm", $dtype, $lanes, NORM_FORWARD_MIN_BLOCKS);
        };
    }
    activation_norm_tiles!(activation_norm);
    macro_rules! activation_norm_backward {
        ($entry:ident, $element:ty, $dtype:ident, $lanes:literal, $vectors:literal
         $(, $spills:ident)?) => {
            let entry = stringify!($entry);
            norm!(entry, "activation_norm_backward", $dtype, $lanes, NORM_BACKWARD_MIN_BLOCKS);
        };
    }
    activation_norm_backward_tiles!(activation_norm_backward);
    norm!("activation_norm_backward_merge_f32", "activation_norm_backward", F32, 1, 1);
    macro_rules! inference {
        (@one $entry:expr, $family:literal, $dtype:ident, $lanes:expr, $block:expr) => {
            tiles[used] = Tile {
                entry: $entry,
                family: $family,
                dtype: DType::$dtype,
                lanes: $lanes,
                block_threads: $block,
                min_blocks_per_sm: 1,
                ..NONE
            };
            used += 1;
        };
        (@launch $entry:expr, $family:literal, $dtype:ident, $lanes:expr) => {
            inference!(@one $entry, $family, $dtype, $lanes, ACTIVE_INFERENCE_BLOCK_THREADS);
        };
        (@stage $entry:expr, $family:literal, $dtype:ident, $lanes:expr) => {
            inference!(@one $entry, $family, $dtype, $lanes, INFERENCE_STAGE_BLOCK_THREADS);
        };
        ($step:ident, $infer:ident, $curvature:ident, $element:ty, $dtype:ident, $lanes:literal,
         $vectors:literal, $sweep:ident, $team:literal, $depth:literal, $group:literal,
         $columns:literal $(, $spills:ident)?) => {
            inference!(@launch stringify!($step), "belief_step", $dtype, $lanes);
            inference!(@launch stringify!($infer), "infer_until_converged", $dtype, $lanes);
            inference!(@launch stringify!($curvature), "curvature", $dtype, $lanes);
        };
        ($step:ident, $infer:ident, $curvature:ident, $element:ty, $dtype:ident, $lanes:literal,
         $vectors:literal) => {
            inference!(@launch stringify!($step), "belief_step", $dtype, $lanes);
            tiles[used - 1].min_capability = 90;
            inference!(@launch stringify!($infer), "infer_until_converged", $dtype, $lanes);
            tiles[used - 1].min_capability = 90;
            inference!(@launch stringify!($curvature), "curvature", $dtype, $lanes);
            tiles[used - 1].min_capability = 90;
        };
        ($accuracy:ident, $update:ident, $element:ty, $dtype:ident, $lanes:literal) => {
            inference!(@stage stringify!($accuracy), "fused_accuracy_pipeline", $dtype, $lanes);
            inference!(@stage stringify!($update), "fused_belief_update", $dtype, 1);
        };
    }
    macro_rules! vectors {
        ($first:ident, $second:ident, $element:ty, $dtype:ident) => {
            vectors!(@one stringify!($first), $dtype);
            vectors!(@one stringify!($second), $dtype);
        };
        (@one $entry:expr, $dtype:ident) => {
            tiles[used] = Tile {
                entry: $entry,
                family: vector_family($entry),
                dtype: DType::$dtype,
                lanes: 1,
                block_threads: INFERENCE_STAGE_BLOCK_THREADS,
                min_blocks_per_sm: 1,
                ..NONE
            };
            used += 1;
        };
    }
    active_inference_tiles!(inference);
    active_inference_bulk_tiles!(inference);
    inference!(@stage "fused_kl_complexity_f64", "fused_kl_complexity", F64, 1);
    inference_stage_tiles!(inference);
    gemv_tiles!(vectors);
    axpby_tiles!(vectors);
    (tiles, used)
};

/// The family of an operation on vectors, by its entry's first letter.
const fn vector_family(entry: &str) -> &'static str {
    match entry.as_bytes()[0] {
        b'g' => "gemv",
        b'v' => "velocity",
        _ => "axpby",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_named_once_and_after_family_and_dtype() {
        assert_eq!(TILES.len(), 8 + 6 + 8 + 3 + 50 + 16 + 6 + 4 + 13 + 30 + 6 + 5 + 8);
        for (i, tile) in TILES.iter().enumerate() {
            assert!(tile.entry.starts_with(tile.family), "{}", tile.entry);
            assert!(tile.entry.split('_').any(|part| part == tile.dtype.name()), "{}", tile.entry);
            assert!(
                tile.block_threads % 32 == 0 && tile.lanes as usize * tile.dtype.size_bytes() <= 16
            );
            assert!(TILES[..i].iter().all(|other| other.entry != tile.entry), "{}", tile.entry);
        }
    }
}

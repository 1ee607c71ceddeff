//! The instances of the kernels of information and inference.

use super::{OLDEST_CAPABILITY, Table};
use crate::dtype::DType;
use crate::transfer_entropy::{TE_BLOCK_THREADS, TE_SMALL_MIN_BLOCKS};

/// Hands each instance of `fused_distance_kth` for few dimensions to a macro: `(entry, coordinates of y⁻ and of x⁻,
/// coordinates, points of a thread, W, G)`; it keeps W · G distances. All are f32, and find algorithm 1's radii.
#[macro_export]
macro_rules! fused_distance_kth_small_tiles {
    ($instance:ident) => {
        $instance! { fused_distance_kth_f32_d3_k4, 1, 3, 4, 4, 1 }
        $instance! { fused_distance_kth_f32_d3_k8, 1, 3, 2, 8, 1 }
        $instance! { fused_distance_kth_f32_d3_k16, 1, 3, 1, 8, 2 }
        $instance! { fused_distance_kth_f32_d3_k32, 1, 3, 1, 8, 4 }
        $instance! { fused_distance_kth_f32_d5_k4, 2, 5, 4, 4, 1 }
        $instance! { fused_distance_kth_f32_d5_k8, 2, 5, 2, 8, 1 }
        $instance! { fused_distance_kth_f32_d5_k16, 2, 5, 1, 8, 2 }
        $instance! { fused_distance_kth_f32_d5_k32, 2, 5, 1, 8, 4 }
        $instance! { fused_distance_kth_f32_d7_k4, 3, 7, 4, 4, 1 }
        $instance! { fused_distance_kth_f32_d7_k8, 3, 7, 2, 8, 1 }
        $instance! { fused_distance_kth_f32_d7_k16, 3, 7, 1, 8, 2 }
        $instance! { fused_distance_kth_f32_d7_k32, 3, 7, 1, 8, 4 }
    };
}

/// Hands each instance of `fused_distance_kth` for any dimensions to a macro: `(entry, element, DType, W, G)`. They keep
/// the neighbours' numbers, which algorithm 2 needs.
#[macro_export]
macro_rules! fused_distance_kth_tiles {
    ($instance:ident) => {
        $instance! { fused_distance_kth_f32_k4, f32, F32, 4, 1 }
        $instance! { fused_distance_kth_f32_k8, f32, F32, 8, 1 }
        $instance! { fused_distance_kth_f32_k16, f32, F32, 8, 2 }
        $instance! { fused_distance_kth_f32_k32, f32, F32, 8, 4 }
        $instance! { fused_distance_kth_f64_k4, f64, F64, 4, 1 }
        $instance! { fused_distance_kth_f64_k8, f64, F64, 8, 1 }
        $instance! { fused_distance_kth_f64_k16, f64, F64, 8, 2 }
        $instance! { fused_distance_kth_f64_k32, f64, F64, 8, 4 }
    };
}

/// Hands each instance of `fused_te_reduction` for few dimensions to a macro: `(entry, coordinates of y⁻ and of x⁻,
/// points of a thread)`, and `spills` where sm_70's code does, a few bytes. All are f32.
#[macro_export]
macro_rules! fused_te_reduction_small_tiles {
    ($instance:ident) => {
        $instance! { fused_te_reduction_f32_d3, 1, 4 }
        $instance! { fused_te_reduction_f32_d5, 2, 4 }
        $instance! { fused_te_reduction_f32_d7, 3, 4, spills }
    };
}

/// Hands each instance of `fused_te_reduction` for any dimensions to a macro: `(entry, element, DType)`.
#[macro_export]
macro_rules! fused_te_reduction_tiles {
    ($instance:ident) => {
        $instance! { fused_te_reduction_f32, f32, F32 }
        $instance! { fused_te_reduction_f64, f64, F64 }
    };
}

/// Hands each triple of instances of the one-launch kernels of active inference to a macro: `(entry of one step, of
/// steps until they converge, of the power iteration, element, DType, lanes, vectors of a row that a thread holds, sweep,
/// warps of a team, rows that a thread holds, rows of a group, states at most)`, and `spills` where some
/// target's code may: at the registers of 512 threads sm_70's keep up to 316 bytes in local memory, newer targets' up to
/// 184; 0 states: any number. Every block has
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
/// element, DType, lanes, vectors of a row that a thread takes)`, and `spills` as there. For models of up to 4096 states;
/// compute capability 9.0.
#[macro_export]
macro_rules! active_inference_bulk_tiles {
    ($instance:ident) => {
        $instance! { belief_step_f64_bulk, infer_until_converged_f64_bulk, curvature_f64_bulk, f64, F64, 2, 4, spills }
        $instance! { belief_step_f32_bulk, infer_until_converged_f32_bulk, curvature_f32_bulk, f32, F32, 4, 2, spills }
    };
}

/// Hands each instance of the belief step of small models to a macro: `(entry, element, DType)`. For models of up to
/// [`SMALL_INFERENCE_STATES`] states and observations; every block has [`SMALL_INFERENCE_BLOCK_THREADS`].
#[macro_export]
macro_rules! small_inference_tiles {
    ($instance:ident) => {
        $instance! { belief_step_f64_small, f64, F64 }
        $instance! { belief_step_f32_small, f32, F32 }
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

/// Hands each pair of instances of `axpby` to a macro: `(entry, entry of the velocity, element, DType)`. Every block has
/// [`INFERENCE_STAGE_BLOCK_THREADS`].
#[macro_export]
macro_rules! axpby_tiles {
    ($instance:ident) => {
        $instance! { axpby_f64, velocity_f64, f64, F64 }
        $instance! { axpby_f32, velocity_f32, f32, F32 }
    };
}

/// Threads of a block of the stages of active inference and of `axpby`.
pub const INFERENCE_STAGE_BLOCK_THREADS: u32 = 256;

/// Threads of a block of the one-launch kernels of active inference.
pub const ACTIVE_INFERENCE_BLOCK_THREADS: u32 = 512;

/// Threads of a block of the belief step of small models.
pub const SMALL_INFERENCE_BLOCK_THREADS: u32 = 384;

/// The most states, and observations, of a small model.
pub const SMALL_INFERENCE_STATES: usize = 64;

pub(super) const fn add(table: &mut Table) {
    transfer_entropy(table);
    active_inference(table);
    let threads = INFERENCE_STAGE_BLOCK_THREADS;
    macro_rules! axpby {
        ($axpby:ident, $velocity:ident, $element:ty, $dtype:ident) => {
            table.add(stringify!($axpby), "axpby", DType::$dtype, 1, threads, 1);
            table.add(stringify!($velocity), "velocity", DType::$dtype, 1, threads, 1);
        };
    }
    axpby_tiles!(axpby);
}

const fn transfer_entropy(table: &mut Table) {
    macro_rules! add {
        ($entry:expr, $family:literal, $dtype:ident, $min_blocks:expr) => {
            table.add($entry, $family, DType::$dtype, 1, TE_BLOCK_THREADS, $min_blocks);
        };
    }
    macro_rules! kth_small {
        ($entry:ident, $($rest:literal),*) => {
            add!(stringify!($entry), "fused_distance_kth", F32, TE_SMALL_MIN_BLOCKS);
        };
    }
    fused_distance_kth_small_tiles!(kth_small);
    macro_rules! kth {
        ($entry:ident, $element:ty, $dtype:ident, $($rest:literal),*) => {
            add!(stringify!($entry), "fused_distance_kth", $dtype, 1);
        };
    }
    fused_distance_kth_tiles!(kth);
    macro_rules! te_small {
        ($entry:ident, $($rest:literal),* $(, $spills:ident)?) => {
            add!(stringify!($entry), "fused_te_reduction", F32, TE_SMALL_MIN_BLOCKS);
        };
    }
    fused_te_reduction_small_tiles!(te_small);
    macro_rules! te {
        ($entry:ident, $element:ty, $dtype:ident) => {
            add!(stringify!($entry), "fused_te_reduction", $dtype, 1);
        };
    }
    fused_te_reduction_tiles!(te);
    add!("surrogate_rows_i32", "surrogate_rows", I32, 1);
}

const fn active_inference(table: &mut Table) {
    macro_rules! add {
        ($family:literal, $entry:ident, $dtype:ident, $lanes:literal, $capability:expr) => {
            let (entry, threads) = (stringify!($entry), ACTIVE_INFERENCE_BLOCK_THREADS);
            table.add(entry, $family, DType::$dtype, $lanes, threads, 1);
            table.needs($capability);
        };
    }
    macro_rules! teams {
        ($step:ident, $infer:ident, $curvature:ident, $element:ty, $dtype:ident, $lanes:literal,
         $($rest:tt)*) => {
            add!("belief_step", $step, $dtype, $lanes, OLDEST_CAPABILITY);
            add!("infer_until_converged", $infer, $dtype, $lanes, OLDEST_CAPABILITY);
            add!("curvature", $curvature, $dtype, $lanes, OLDEST_CAPABILITY);
        };
    }
    active_inference_tiles!(teams);
    macro_rules! bulk {
        ($step:ident, $infer:ident, $curvature:ident, $element:ty, $dtype:ident, $lanes:literal,
         $vectors:literal $(, $spills:ident)?) => {
            add!("belief_step", $step, $dtype, $lanes, 90);
            add!("infer_until_converged", $infer, $dtype, $lanes, 90);
            add!("curvature", $curvature, $dtype, $lanes, 90);
        };
    }
    active_inference_bulk_tiles!(bulk);
    macro_rules! small {
        ($entry:ident, $element:ty, $dtype:ident) => {
            let (entry, threads) = (stringify!($entry), SMALL_INFERENCE_BLOCK_THREADS);
            table.add(entry, "belief_step", DType::$dtype, 2, threads, 1);
        };
    }
    small_inference_tiles!(small);
    macro_rules! stage {
        ($family:literal, $entry:expr, $dtype:ident, $lanes:literal) => {
            let threads = INFERENCE_STAGE_BLOCK_THREADS;
            table.add($entry, $family, DType::$dtype, $lanes, threads, 1);
        };
    }
    stage!("fused_kl_complexity", "fused_kl_complexity_f64", F64, 1);
    macro_rules! stages {
        ($accuracy:ident, $update:ident, $element:ty, $dtype:ident, $lanes:literal) => {
            stage!("fused_accuracy_pipeline", stringify!($accuracy), $dtype, $lanes);
            stage!("fused_belief_update", stringify!($update), $dtype, 1);
        };
    }
    inference_stage_tiles!(stages);
}

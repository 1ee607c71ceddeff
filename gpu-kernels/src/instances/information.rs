//! The kernels of information and inference.

use kasmina_device::Kernel;
use kasmina_types::tiles::SMALL_INFERENCE_STATES;
use kasmina_types::transfer_entropy::TE_BLOCK_THREADS;
use kasmina_types::{
    ActiveInference, Axpby, DType, DistanceKth, InferenceStage, SurrogateRows, TeReduction,
};

use crate::information::active_inference::{
    bulk as inference_bulk, infer as inference_kernels, small as inference_small,
    stages as inference_stages, sweep as inference_sweep,
};
use crate::information::axpby as axpby_kernels;
use crate::information::transfer_entropy::{
    WIDE_TILE, fused_distance_kth as kth_kernels, fused_te_reduction as te_kernels,
    surrogate_rows as surrogate_kernels,
};

/// The one-launch kernels of active inference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Infer {
    /// One step, and the free energy before it.
    Step,
    /// Steps until they converge.
    UntilConverged,
    /// λmax.
    Curvature,
}

/// An instance of [`Infer`].
#[derive(Clone, Copy)]
pub struct InferInstance {
    /// The kernel.
    pub kernel: &'static Kernel<ActiveInference>,
    /// Rows of J that a block holds at once.
    pub block_rows: usize,
    /// Dynamic shared memory of a block.
    pub dynamic_shared_bytes: u32,
}

/// The instance for models of `states` states with J in `dtype`, f64 or f32: the narrowest team that has room.
pub fn active_inference(op: Infer, dtype: DType, states: usize) -> Option<InferInstance> {
    macro_rules! instance {
        ($step:ident, $infer:ident, $curvature:ident, $element:ty, $dtype:ident, $lanes:literal,
         $vectors:literal, $sweep:ident, $team:literal, $depth:literal, $group:literal,
         $columns:literal $(, $spills:ident)?) => {
            if dtype == DType::$dtype && ($columns == 0 || states <= $columns) {
                let teams = inference_sweep::WARPS / $team;
                // The staged vectors, and in their place the teams' sums.
                let staged = ($team * 32 * $lanes * $vectors) * if teams > 2 { teams } else { 2 };
                return Some(InferInstance {
                    kernel: match op {
                        Infer::Step => inference_kernels::$step::handle(),
                        Infer::UntilConverged => inference_kernels::$infer::handle(),
                        Infer::Curvature => inference_kernels::$curvature::handle(),
                    },
                    block_rows: teams * $depth,
                    dynamic_shared_bytes: if $columns == 0 { 0 } else { staged as u32 * 8 },
                });
            }
        };
    }
    kasmina_types::active_inference_tiles!(instance);
    None
}

/// The instance whose J bulk copies bring, where the states are many enough to be worth it and few enough to have room.
/// A GPU may be too old for it, or have too little shared memory.
pub fn active_inference_bulk(op: Infer, dtype: DType, states: usize) -> Option<InferInstance> {
    if !(BULK_STATES..=inference_bulk::CAPACITY).contains(&states) {
        return None;
    }
    macro_rules! instance {
        ($step:ident, $infer:ident, $curvature:ident, $element:ty, $dtype:ident, $lanes:literal,
         $vectors:literal $(, $spills:ident)?) => {
            if dtype == DType::$dtype {
                return Some(InferInstance {
                    kernel: match op {
                        Infer::Step => inference_kernels::$step::handle(),
                        Infer::UntilConverged => inference_kernels::$infer::handle(),
                        Infer::Curvature => inference_kernels::$curvature::handle(),
                    },
                    block_rows: 4,
                    dynamic_shared_bytes: inference_bulk::SHARED_BYTES as u32,
                });
            }
        };
    }
    kasmina_types::active_inference_bulk_tiles!(instance);
    None
}

/// The instance for models of a few states and observations, a block each.
pub fn active_inference_small(
    op: Infer,
    dtype: DType,
    observations: usize,
    states: usize,
) -> Option<InferInstance> {
    if op != Infer::Step || observations.max(states) > SMALL_INFERENCE_STATES {
        return None;
    }
    macro_rules! instance {
        ($entry:ident, $element:ty, $dtype:ident) => {
            if dtype == DType::$dtype {
                return Some(InferInstance {
                    kernel: inference_small::$entry::handle(),
                    block_rows: SMALL_INFERENCE_STATES,
                    dynamic_shared_bytes: 0,
                });
            }
        };
    }
    kasmina_types::small_inference_tiles!(instance);
    None
}

/// States from which on bulk copies bring J: fewer leave most of a place of the ring empty.
const BULK_STATES: usize = 1025;

/// The stages of a belief step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// KL(q ‖ prior).
    Complexity,
    /// Residuals and accuracies.
    Accuracy,
    /// The step from residuals.
    Update,
}

/// The kernel of a stage, with J in `dtype`, f64 or f32.
pub fn inference_stage(stage: Stage, dtype: DType) -> Option<&'static Kernel<InferenceStage>> {
    if stage == Stage::Complexity {
        return Some(inference_stages::fused_kl_complexity_f64::handle());
    }
    macro_rules! instance {
        ($accuracy:ident, $update:ident, $element:ty, $dtype:ident, $lanes:literal) => {
            if dtype == DType::$dtype {
                return Some(match stage {
                    Stage::Update => inference_stages::$update::handle(),
                    _ => inference_stages::$accuracy::handle(),
                });
            }
        };
    }
    kasmina_types::inference_stage_tiles!(instance);
    None
}

/// The kernel of α·x + β·y, or of (x − y)/α, in `dtype`, f64 or f32.
pub fn axpby(velocity: bool, dtype: DType) -> Option<&'static Kernel<Axpby>> {
    macro_rules! instance {
        ($axpby:ident, $velocity:ident, $element:ty, $dtype:ident) => {
            if dtype == DType::$dtype {
                return Some(if velocity {
                    axpby_kernels::$velocity::handle()
                } else {
                    axpby_kernels::$axpby::handle()
                });
            }
        };
    }
    kasmina_types::axpby_tiles!(instance);
    None
}

/// An instance of `fused_distance_kth`.
#[derive(Clone, Copy)]
pub struct DistanceKthInstance {
    /// The kernel.
    pub kernel: &'static Kernel<DistanceKth>,
    /// Type of series and distances.
    pub dtype: DType,
    /// Coordinates of y⁻ and of x⁻ that it is made for; `None` for any.
    pub small: Option<u32>,
    /// Points of a thread.
    pub points: u32,
    /// Neighbours that it keeps.
    pub capacity: u32,
    /// Candidates of a tile.
    pub tile: u32,
}

/// The instance of `fused_distance_kth` that keeps `k` neighbours with the least room to spare: for `small`
/// coordinates of y⁻ and x⁻ each, or for any.
pub fn fused_distance_kth(dtype: DType, small: Option<u32>, k: u32) -> Option<DistanceKthInstance> {
    let mut instances = Vec::new();
    macro_rules! few {
        ($entry:ident, $past:literal, $dims:literal, $points:literal, $w:literal, $g:literal) => {
            instances.push(DistanceKthInstance {
                kernel: kth_kernels::$entry::handle(),
                dtype: DType::F32,
                small: Some($past),
                points: $points,
                capacity: $w * $g,
                tile: TE_BLOCK_THREADS,
            });
        };
    }
    macro_rules! any {
        ($entry:ident, $element:ty, $dtype:ident, $w:literal, $g:literal) => {
            instances.push(DistanceKthInstance {
                kernel: kth_kernels::$entry::handle(),
                dtype: DType::$dtype,
                small: None,
                points: 1,
                capacity: $w * $g,
                tile: WIDE_TILE,
            });
        };
    }
    kasmina_types::fused_distance_kth_small_tiles!(few);
    kasmina_types::fused_distance_kth_tiles!(any);
    let fits = |i: &DistanceKthInstance| i.dtype == dtype && i.small == small && i.capacity >= k;
    instances.into_iter().filter(fits).min_by_key(|instance| instance.capacity)
}

/// An instance of `fused_te_reduction`.
#[derive(Clone, Copy)]
pub struct TeReductionInstance {
    /// The kernel.
    pub kernel: &'static Kernel<TeReduction>,
    /// Type of series and distances.
    pub dtype: DType,
    /// Coordinates of y⁻ and of x⁻ that it is made for; `None` for any.
    pub small: Option<u32>,
    /// Points of a thread.
    pub points: u32,
    /// Candidates of a tile.
    pub tile: u32,
}

/// The instance of `fused_te_reduction` for `small` coordinates of y⁻ and x⁻ each, or for any.
pub fn fused_te_reduction(dtype: DType, small: Option<u32>) -> Option<TeReductionInstance> {
    let mut instances = Vec::new();
    macro_rules! few {
        ($entry:ident, $dims:literal, $points:literal $(, $spills:ident)?) => {
            instances.push(TeReductionInstance {
                kernel: te_kernels::$entry::handle(),
                dtype: DType::F32,
                small: Some($dims),
                points: $points,
                tile: TE_BLOCK_THREADS,
            });
        };
    }
    macro_rules! any {
        ($entry:ident, $element:ty, $dtype:ident) => {
            instances.push(TeReductionInstance {
                kernel: te_kernels::$entry::handle(),
                dtype: DType::$dtype,
                small: None,
                points: 1,
                tile: WIDE_TILE,
            });
        };
    }
    kasmina_types::fused_te_reduction_small_tiles!(few);
    kasmina_types::fused_te_reduction_tiles!(any);
    instances.into_iter().find(|instance| instance.dtype == dtype && instance.small == small)
}

/// The kernel that makes the rows of surrogates.
pub fn surrogate_rows() -> &'static Kernel<SurrogateRows> {
    surrogate_kernels::surrogate_rows_i32::handle()
}

//! The kernels' handles by what they do: the tile table, looked up.

use kasmina_device::Kernel;
use kasmina_types::{
    ActivationNorm, ActivationNormBackward, ActiveInference, Axpby, BlendBackward,
    BlendBackwardTma, BlendForward, BlendForwardTma, DType, Gemv, GradientClip, GraftSchedule,
    InferenceStage, NormGradientMerge, ParameterGradients, ReduceOp, ReduceSegments,
    ReductionStrategy, StateUpdates, TelemetryReduce,
};

use crate::information::active_inference as inference_stages;
use crate::information::active_inference_bulk as inference_bulk;
use crate::information::active_inference_infer as inference_kernels;
use crate::information::active_inference_sweep as inference_sweep;
use crate::information::axpby as axpby_kernels;
use crate::information::gemv as gemv_kernels;
use crate::kasmina::blend_backward as backward_kernels;
use crate::kasmina::blend_backward_tma as backward_tma_kernels;
use crate::kasmina::blend_forward as blend_kernels;
use crate::kasmina::blend_forward_tma as tma_kernels;
use crate::kasmina::{
    gradient_clip, graft_schedule, parameter_gradients as parameter_kernels, state_update,
    telemetry_reduce as telemetry_kernels,
};
use crate::normalization::activation_norm as norm_kernels;
use crate::normalization::activation_norm_backward as norm_backward_kernels;
use crate::reduction::reduce as reduce_kernels;

/// An instance of one of the layer's passes whose threads load their rows themselves.
#[derive(Clone, Copy)]
pub struct PassInstance<P: 'static> {
    /// The kernel.
    pub kernel: &'static Kernel<P>,
    /// Element type.
    pub dtype: DType,
    /// Elements of one memory access; the chunk size is a multiple of it.
    pub lanes: u32,
    /// Rows that a thread takes together.
    pub rows: u32,
}

/// An instance of one of the layer's passes whose rows the copy engine fetches.
#[derive(Clone, Copy)]
pub struct TmaPassInstance<P: 'static> {
    /// The kernel.
    pub kernel: &'static Kernel<P>,
    /// Element type.
    pub dtype: DType,
    /// Elements of a vector; the chunk's bytes are a multiple of 16.
    pub lanes: u32,
    /// Rows that a thread takes together.
    pub rows: u32,
    /// Groups of rows that the dynamic shared memory holds.
    pub stages: u32,
    /// Arrays of which a group has a box.
    pub arrays: u32,
    /// Whether the output goes through shared memory.
    pub bulk_stores: bool,
}

/// The instances of `blend_forward` for `dtype`, the widest access first.
pub fn blend_forward(dtype: DType) -> impl Iterator<Item = PassInstance<BlendForward>> {
    let mut instances = Vec::new();
    macro_rules! instance {
        ($entry:ident, $element:ty, $dtype:ident, $lanes:literal, $rows:literal, $block:literal,
     $min_blocks:literal $(, $spills:ident)?) => {
            instances.push(PassInstance {
                kernel: blend_kernels::$entry::handle(),
                dtype: DType::$dtype,
                lanes: $lanes,
                rows: $rows,
            });
        };
    }
    kasmina_types::blend_forward_tiles!(instance);
    instances.into_iter().filter(move |instance| instance.dtype == dtype)
}

/// The instance of `blend_forward_tma` for `dtype` that stores in bulk, or the one that does not.
pub fn blend_forward_tma(
    dtype: DType,
    bulk_stores: bool,
) -> Option<TmaPassInstance<BlendForwardTma>> {
    let mut instances = Vec::new();
    macro_rules! instance {
        ($entry:ident, $element:ty, $dtype:ident, $lanes:literal, $rows:literal, $block:literal,
         $min_blocks:literal, $arch:literal, $subrows:literal, $bulk:literal $(, $spills:ident)?) => {
            instances.push(TmaPassInstance {
                kernel: tma_kernels::$entry::handle(),
                dtype: DType::$dtype,
                lanes: $lanes,
                rows: $rows,
                stages: tma_kernels::STAGES as u32,
                arrays: 1,
                bulk_stores: $bulk,
            });
        };
    }
    kasmina_types::blend_forward_tma_tiles!(instance);
    instances.into_iter().find(|i| i.dtype == dtype && i.bulk_stores == bulk_stores)
}

/// The instances of `blend_backward` for `dtype`, the widest access first.
pub fn blend_backward(dtype: DType) -> impl Iterator<Item = PassInstance<BlendBackward>> {
    let mut instances = Vec::new();
    macro_rules! instance {
        ($entry:ident, $element:ty, $dtype:ident, $lanes:literal, $rows:literal, $block:literal,
         $min_blocks:literal $(, $spills:ident)?) => {
            instances.push(PassInstance {
                kernel: backward_kernels::$entry::handle(),
                dtype: DType::$dtype,
                lanes: $lanes,
                rows: $rows,
            });
        };
    }
    kasmina_types::blend_backward_tiles!(instance);
    instances.into_iter().filter(move |instance| instance.dtype == dtype)
}

/// The instance of `blend_backward_tma` for `dtype`.
pub fn blend_backward_tma(dtype: DType) -> Option<TmaPassInstance<BlendBackwardTma>> {
    let mut instances = Vec::new();
    macro_rules! instance {
        ($entry:ident, $element:ty, $dtype:ident, $lanes:literal, $rows:literal, $block:literal,
         $min_blocks:literal, $arch:literal, $subrows:literal $(, $spills:ident)?) => {
            instances.push(TmaPassInstance {
                kernel: backward_tma_kernels::$entry::handle(),
                dtype: DType::$dtype,
                lanes: $lanes,
                rows: $rows,
                stages: backward_tma_kernels::STAGES as u32,
                // g and x.
                arrays: 2,
                bulk_stores: false,
            });
        };
    }
    kasmina_types::blend_backward_tma_tiles!(instance);
    instances.into_iter().find(|instance| instance.dtype == dtype)
}

/// An instance of `parameter_gradients`.
#[derive(Clone, Copy)]
pub struct ParameterGradientsInstance {
    /// The kernel.
    pub kernel: &'static Kernel<ParameterGradients>,
    /// Elements of one memory access; the chunk size is a multiple of it.
    pub lanes: u32,
    /// Whether a thread may have several vectors of a chunk.
    pub wide: bool,
}

impl ParameterGradientsInstance {
    /// Seeds that a block takes at once.
    pub fn teams(&self, chunk_size: usize) -> usize {
        let block = self.kernel.bounds().block_threads as usize;
        block / (chunk_size / self.lanes as usize).next_power_of_two().min(block)
    }
}

/// The instance of `parameter_gradients` for chunks of this size: the widest access that divides it.
pub fn parameter_gradients(chunk_size: usize) -> ParameterGradientsInstance {
    let mut instances = Vec::new();
    macro_rules! instance {
        ($entry:ident, $family:literal, $lanes:literal, $block:literal, $wide:literal $(, $spills:ident)?) => {
            instances.push(ParameterGradientsInstance {
                kernel: parameter_kernels::$entry::handle(),
                lanes: $lanes,
                wide: $wide,
            });
        };
    }
    kasmina_types::parameter_gradients_tiles!(instance);
    let fits = |instance: &ParameterGradientsInstance| {
        let lanes = instance.lanes as usize;
        let vectors = instance.kernel.bounds().block_threads as usize;
        chunk_size.is_multiple_of(lanes) && (instance.wide || chunk_size <= lanes * vectors)
    };
    let mut fitting: Vec<_> = instances.into_iter().filter(fits).collect();
    fitting.sort_by_key(|instance| (std::cmp::Reverse(instance.lanes), instance.wide));
    fitting[0]
}

/// Who takes a segment of a reduction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Team {
    /// A warp: short segments.
    Warp,
    /// A block: long ones, or parts of them.
    Block,
}

/// The instance of `reduce` for an operation, an element type and a team.
pub fn reduce(op: ReduceOp, dtype: DType, team: Team) -> &'static Kernel<ReduceSegments> {
    macro_rules! instance {
        ($block:ident, $warp:ident, $op:ident, $element:ty, $dtype:ident, $lanes:literal,
         $vectors:literal) => {
            if op == ReduceOp::$op && dtype == DType::$dtype {
                return match team {
                    Team::Block => reduce_kernels::$block::handle(),
                    Team::Warp => reduce_kernels::$warp::handle(),
                };
            }
        };
    }
    kasmina_types::reduce_tiles!(instance);
    unreachable!("the tile table has every operation and element type")
}

/// An instance of `telemetry_reduce`.
#[derive(Clone, Copy)]
pub struct TelemetryReduceInstance {
    /// The kernel.
    pub kernel: &'static Kernel<TelemetryReduce>,
    /// Element type.
    pub dtype: DType,
    /// Elements of one memory access; the chunk size is a multiple of it.
    pub lanes: u32,
    /// Accesses that a thread has in flight: rows that a warp takes together.
    pub vectors: u32,
}

/// The instances of `telemetry_reduce` for a strategy and `dtype`, the widest access first.
pub fn telemetry_reduce(
    strategy: ReductionStrategy,
    dtype: DType,
) -> impl Iterator<Item = TelemetryReduceInstance> {
    let by_rows = strategy != ReductionStrategy::Hierarchical;
    let mut instances = Vec::new();
    macro_rules! instance {
        ($all:ident, $rows:ident, $element:ty, $dtype:ident, $lanes:literal, $vectors:literal,
         $row_vectors:literal) => {
            instances.push(TelemetryReduceInstance {
                kernel: if by_rows {
                    telemetry_kernels::$rows::handle()
                } else {
                    telemetry_kernels::$all::handle()
                },
                dtype: DType::$dtype,
                lanes: $lanes,
                vectors: if by_rows { $row_vectors } else { $vectors },
            });
        };
    }
    kasmina_types::telemetry_reduce_tiles!(instance);
    instances.into_iter().filter(move |instance| instance.dtype == dtype)
}

/// The kernel of `graft_schedule`.
pub fn graft_schedule() -> &'static Kernel<GraftSchedule> {
    graft_schedule::graft_schedule_f32::handle()
}

/// The kernel of `state_update`.
pub fn state_update() -> &'static Kernel<StateUpdates> {
    state_update::state_update_f32::handle()
}

/// The kernels of `gradient_clip`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clip {
    /// Clips each value.
    Value,
    /// The norm of all.
    Norm,
    /// Scales all by what the norm asks for.
    Scale,
    /// Clips each unit by its own history.
    Adaptive,
}

/// The kernel of `gradient_clip` that does this.
pub fn gradient_clip(clip: Clip) -> &'static Kernel<GradientClip> {
    match clip {
        Clip::Value => gradient_clip::gradient_clip_value_f32::handle(),
        Clip::Norm => gradient_clip::gradient_clip_norm_f32::handle(),
        Clip::Scale => gradient_clip::gradient_clip_scale_f32::handle(),
        Clip::Adaptive => gradient_clip::gradient_clip_adaptive_f32::handle(),
    }
}

/// An instance of `activation_norm` or `activation_norm_backward`.
#[derive(Clone, Copy)]
pub struct NormInstance<P: 'static> {
    /// The kernel.
    pub kernel: &'static Kernel<P>,
    /// Element type.
    pub dtype: DType,
    /// Elements of one memory access; the columns are a multiple of it.
    pub lanes: u32,
    /// Accesses of a row that a thread holds.
    pub vectors: u32,
}

/// The instances of `activation_norm` for `dtype`, the widest access first.
pub fn activation_norm(dtype: DType) -> impl Iterator<Item = NormInstance<ActivationNorm>> {
    let mut instances = Vec::new();
    macro_rules! instance {
        ($entry:ident, $element:ty, $dtype:ident, $lanes:literal, $vectors:literal
         $(, $spills:ident)?) => {
            instances.push(NormInstance {
                kernel: norm_kernels::$entry::handle(),
                dtype: DType::$dtype,
                lanes: $lanes,
                vectors: $vectors,
            });
        };
    }
    kasmina_types::activation_norm_tiles!(instance);
    instances.into_iter().filter(move |instance| instance.dtype == dtype)
}

/// The instances of `activation_norm_backward` for `dtype`, the widest access first.
pub fn activation_norm_backward(
    dtype: DType,
) -> impl Iterator<Item = NormInstance<ActivationNormBackward>> {
    let mut instances = Vec::new();
    macro_rules! instance {
        ($entry:ident, $element:ty, $dtype:ident, $lanes:literal, $vectors:literal
         $(, $spills:ident)?) => {
            instances.push(NormInstance {
                kernel: norm_backward_kernels::$entry::handle(),
                dtype: DType::$dtype,
                lanes: $lanes,
                vectors: $vectors,
            });
        };
    }
    kasmina_types::activation_norm_backward_tiles!(instance);
    instances.into_iter().filter(move |instance| instance.dtype == dtype)
}

/// The kernel that adds the slabs' ∂γ and ∂β.
pub fn activation_norm_backward_merge() -> &'static Kernel<NormGradientMerge> {
    norm_backward_kernels::activation_norm_backward_merge_f32::handle()
}

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
         $vectors:literal) => {
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

/// The kernel of A·x, or of Aᵀ·x, in `dtype`, f64 or f32.
pub fn gemv(transposed: bool, dtype: DType) -> Option<&'static Kernel<Gemv>> {
    macro_rules! instance {
        ($gemv:ident, $transposed:ident, $element:ty, $dtype:ident) => {
            if dtype == DType::$dtype {
                return Some(if transposed {
                    gemv_kernels::$transposed::handle()
                } else {
                    gemv_kernels::$gemv::handle()
                });
            }
        };
    }
    kasmina_types::gemv_tiles!(instance);
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

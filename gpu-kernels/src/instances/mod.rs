//! The kernels' handles by what they do: the tile table, looked up.

mod dense;
mod gemv;
mod information;
mod linear;
mod manifold;

use kasmina_device::Kernel;
use kasmina_types::{
    ActivationNorm, ActivationNormBackward, BlendBackward, BlendBackwardTma, BlendForward,
    BlendForwardTma, DType, GradientClip, GraftSchedule, NormGradientMerge, ParameterGradients,
    ReduceOp, ReduceSegments, ReductionStrategy, StateUpdates, TelemetryReduce,
};

use crate::kasmina::blend_backward as backward_kernels;
use crate::kasmina::blend_backward_seed as backward_seed_kernels;
use crate::kasmina::blend_backward_tma as backward_tma_kernels;
use crate::kasmina::blend_forward as blend_kernels;
use crate::kasmina::blend_forward_seed as forward_seed_kernels;
use crate::kasmina::blend_forward_tma as tma_kernels;
use crate::kasmina::{
    gradient_clip, graft_schedule, parameter_gradients as parameter_kernels, state_update,
    telemetry_reduce as telemetry_kernels,
};
use crate::normalization::activation_norm as norm_kernels;
use crate::normalization::activation_norm_backward as norm_backward_kernels;
use crate::reduction::reduce as reduce_kernels;
pub use dense::{dense_blend, dense_blend_backward_merge};
pub use gemv::{GemvInstance, gemv};
pub use information::{
    DistanceKthInstance, Infer, InferInstance, Stage, TeReductionInstance, active_inference,
    active_inference_bulk, active_inference_small, axpby, fused_distance_kth, fused_te_reduction,
    inference_stage, surrogate_rows,
};

pub use linear::{
    LinearInstance, LinearWgmmaInstance, WgmmaKind, linear_absmax, linear_backward, linear_convert,
    linear_grouped_wgmma, linear_mma, linear_repack, linear_sample, linear_simt, linear_wgmma,
};

pub use manifold::{ResidentInstance, manifold, manifold_echo};

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

/// The instance of `blend_forward_seed` for `dtype`.
pub fn blend_forward_seed(dtype: DType) -> PassInstance<BlendForward> {
    macro_rules! instance {
        ($entry:ident, $element:ty, $dtype:ident, $lanes:literal, $rows:literal, $block:literal,
         $min_blocks:literal $(, $spills:ident)?) => {
            if dtype == DType::$dtype {
                return PassInstance {
                    kernel: forward_seed_kernels::$entry::handle(),
                    dtype,
                    lanes: $lanes,
                    rows: $rows,
                };
            }
        };
    }
    kasmina_types::blend_forward_seed_tiles!(instance);
    panic!("the layer's element types have instances")
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

/// The instance of `blend_backward_seed` for `dtype`.
pub fn blend_backward_seed(dtype: DType) -> PassInstance<BlendBackward> {
    macro_rules! instance {
        ($entry:ident, $element:ty, $dtype:ident, $lanes:literal, $rows:literal, $block:literal,
         $min_blocks:literal $(, $spills:ident)?) => {
            if dtype == DType::$dtype {
                return PassInstance {
                    kernel: backward_seed_kernels::$entry::handle(),
                    dtype,
                    lanes: $lanes,
                    rows: $rows,
                };
            }
        };
    }
    kasmina_types::blend_backward_seed_tiles!(instance);
    panic!("the layer's element types have instances")
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

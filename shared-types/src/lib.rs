//! What crosses the border between host and device: views of memory, parameter structs, telemetry
//! records, the seeds' lifecycle and the table of kernel instances.
//!
//! Everything here is plain data, `#[repr(C)]`, with its size, alignment and offsets asserted at
//! compile time. The crate is `no_std`, so that host and kernels read one declaration.
#![no_std]

// What `#[derive(FusionBuilder)]` leaves names this crate, here too.
extern crate self as kasmina_types;

pub mod activation;
pub mod active_inference;
pub mod blend_backward;
pub mod blend_forward;
pub mod blueprint;
pub mod dense_blend;
pub mod dtype;
pub mod fp8;
pub mod fusion;
pub mod gemv;
pub mod gradient_clip;
pub mod graft_schedule;
pub mod layer;
pub mod lifecycle;
pub mod linear;
pub mod linear_convert;
pub mod linear_sample;
pub mod linear_wgmma;
pub mod manifold;
pub mod normalization;
pub mod parameter_gradients;
pub mod reduction;
pub mod schedule;
pub mod seed_state;
pub mod state_update;
pub mod telemetry;
pub mod telemetry_reduce;
pub mod tensor_map;
pub mod tiles;
pub mod transfer_entropy;
pub mod view;

pub use activation::Activation;
pub use active_inference::{ActiveInference, Axpby, InferenceFigures, InferenceStage};
pub use blend_backward::{BlendBackward, BlendBackwardTma};
pub use blend_forward::{BlendForward, BlendForwardTma};
pub use blueprint::{BlueprintKind, BlueprintType};
pub use dense_blend::{DenseBlend, DenseBlendBackward, DenseMerge, DenseSeed, DenseUsers};
pub use dtype::DType;
pub use fp8::E4m3;
pub use fusion::FusionArguments;
pub use gemv::{Gemv, GemvCut};
pub use gradient_clip::{ClipFigures, ClipTotals, GradientClip};
pub use graft_schedule::GraftSchedule;
pub use half::{bf16, f16};
pub use layer::{LayerArrays, LayerPass, Numerical};
pub use lifecycle::SeedLifecycle;
pub use linear::{
    Layout, LinearBackward, LinearOutput, LinearParams, LinearProblem, LinearStrides, Scaling,
};
pub use linear_convert::{LINEAR_FP8_LARGEST, LinearAbsmax, LinearConvert};
pub use linear_sample::{LINEAR_SAMPLE_SUMS, LinearSample};
pub use linear_wgmma::{LinearGroupedWgmma, LinearRepack, LinearTile, LinearWgmmaParams};
pub use manifold::{
    ItemDescriptor, ItemPriority, ItemStatus, Manifold, ManifoldEcho, Need, Operation,
};
pub use normalization::{
    ActivationNorm, ActivationNormBackward, Norm, NormGradientMerge, NormOrder, NormPlan,
};
pub use parameter_gradients::ParameterGradients;
pub use reduction::{ReduceOp, ReduceSegments};
pub use schedule::BlendSchedule;
pub use seed_state::{EpochArrays, SeedArrays, StateUpdate, UpdateStatus};
pub use state_update::StateUpdates;
pub use telemetry::{SeedTelemetry, TelemetryPartial};
pub use telemetry_reduce::{ReductionStrategy, TelemetryReduce};
pub use tensor_map::{SimtTensorMap, TensorMapBytes, TensorMapHandle};
pub use tiles::Tile;
pub use transfer_entropy::{DistanceKth, SurrogateRows, TePoints, TeProblem, TeReduction};
pub use view::{In, Out};

/// Asserts a struct's size, alignment and field offsets at compile time.
#[macro_export]
macro_rules! assert_layout {
    ($type:ty, size = $size:expr, align = $align:expr, { $($field:ident: $offset:expr),* $(,)? }) => {
        const _: () = {
            assert!(core::mem::size_of::<$type>() == $size);
            assert!(core::mem::align_of::<$type>() == $align);
            $(assert!(core::mem::offset_of!($type, $field) == $offset);)*
        };
    };
}

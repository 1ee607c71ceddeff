//! The morphogenetic layer: seeds that germinate, train, graft and fossilize while their host network
//! runs.

mod blend_backward;
mod blend_forward;
pub mod checkpoint;
pub(crate) mod dense;
pub mod files;
mod geometry;
mod gradient_clip;
mod gradients;
mod graft;
mod graft_schedule;
mod layer;
mod options;
pub(crate) mod pass;
pub(crate) mod sample_states;
mod state;
mod state_update;
mod telemetry;
mod telemetry_reduce;
mod tuner;
mod variant;

pub use blend_backward::BlendBackward;
pub use blend_forward::{BlendForward, LayerElement};
pub use dense::LinearBlueprint;
pub use gradient_clip::{ClipMode, ClipReport, ClipTargets, ClipTotals, GradientClip};
pub(crate) use gradients::SumBuffers;
pub use gradients::{GradientBuffers, GradientValues};
pub use graft::GraftStates;
pub use graft_schedule::{EpochBuffers, EpochInputs, EpochValues, GraftSchedule};
pub use layer::{
    ArrayDifference, Blueprint, Checkpointing, ComparedKernel, ConfigError, EpochOutcome,
    EpochReport, EpochTable, EpochTableError, Figure, GradientClipping, GradientComparison,
    KasminaLayer, KasminaLayerBuilder, KernelChoice, KernelComparison, LayerConfig, LayerError,
    LayerReport, LayerStack, LinearProduct, LoadedBlueprint, ParameterAddresses, PerformanceReport,
    RegistryStatistics, SeedEpoch, SeedProgress, SeedReport, StabilityMode, TelemetryDifference,
    TelemetryRecord, TelemetryReduction, Transition, TransitionRules, in_rollout,
};
pub use options::{BlendOptions, KernelInfo, NumericalMode, Variant};
pub use state::{LayerState, SeedStates, StateError};
pub use state_update::{Refusal, StateUpdates, UpdateReport};
pub use telemetry::{TelemetryBuffers, TelemetryValues};
pub use telemetry_reduce::TelemetryReduce;
pub use tuner::{Tuning, VariantTime};

//! The morphogenetic layer: seeds that germinate, train, graft and fossilize while their host network
//! runs.

mod blend_backward;
mod blend_forward;
mod geometry;
mod gradients;
mod graft;
mod options;
mod state;
mod telemetry;
mod variant;

pub use blend_backward::BlendBackward;
pub use blend_forward::{BlendForward, LayerElement};
pub(crate) use gradients::BackwardBuffers;
pub use gradients::{GradientBuffers, GradientValues};
pub use graft::GraftStates;
pub use options::{BlendOptions, NumericalMode, Variant};
pub use state::{LayerState, SeedStates, StateError};
pub use telemetry::{TelemetryBuffers, TelemetryValues};

//! The morphogenetic layer: seeds that germinate, train, graft and fossilize while their host network
//! runs.

mod blend_forward;
pub mod checkpoint;
pub mod files;
mod geometry;
mod graft;
mod state;
mod telemetry;

pub use blend_forward::{BlendForward, LayerElement};
pub use graft::GraftStates;
pub use state::{LayerState, SeedStates, StateError};
pub use telemetry::{TelemetryBuffers, TelemetryValues};

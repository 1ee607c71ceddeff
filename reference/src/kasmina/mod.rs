//! The morphogenetic layer: its state, its forward pass and its telemetry.

mod blend_forward;
mod error;
mod state;
mod telemetry;

pub use blend_forward::blend_forward;
pub use error::LayerError;
pub use state::{BlueprintType, LayerState, is_active};
pub use telemetry::{DEAD_BELOW, SeedTelemetry, telemetry};

//! The morphogenetic layer: its state, its forward and backward pass and its telemetry.

mod blend_backward;
mod blend_forward;
mod error;
mod numerical;
mod state;
mod telemetry;

pub use blend_backward::{BlendGradients, GradientScales, blend_backward};
pub use blend_forward::{blend_forward, blend_forward_in_mode};
pub use error::LayerError;
pub use numerical::{NumericalMode, sanitise, unstable_seeds};
pub use state::{BlueprintType, LayerState, is_active, trains_blueprint};
pub use telemetry::{DEAD_BELOW, SeedTelemetry, telemetry};

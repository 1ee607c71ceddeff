//! The morphogenetic layer: its state, its forward pass and its telemetry.

mod blend_forward;
mod error;
mod gradient_clip;
mod graft_schedule;
mod state;
mod state_update;
mod telemetry;
mod telemetry_reduce;

pub use blend_forward::blend_forward;
pub use error::LayerError;
pub use gradient_clip::{Clip, Clipped, ParameterGradients, gradient_clip};
pub use graft_schedule::{Epoch, GraftState, graft_epoch};
pub use state::{BlueprintType, LayerState, is_active};
pub use state_update::{FieldValues, Refusal, SeedRecord, apply_update, may_become};
pub use telemetry::{DEAD_BELOW, SeedTelemetry, telemetry};
pub use telemetry_reduce::{RowStrategy, telemetry_by};

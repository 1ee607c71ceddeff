//! The morphogenetic layer: its state, its forward and backward pass and its telemetry.

mod blend_backward;
mod blend_forward;
mod dense_blend;
mod dense_blend_backward;
mod error;
mod gradient_clip;
mod graft_schedule;
mod numerical;
mod state;
mod state_update;
mod telemetry;
mod telemetry_reduce;

pub use blend_backward::{BlendGradients, GradientScales, blend_backward};
pub use blend_forward::{blend_forward, blend_forward_in_mode};
pub use dense_blend::{DenseSeed, dense_blend};
pub use dense_blend_backward::{DenseGradients, dense_blend_backward};
pub use error::LayerError;
pub use gradient_clip::{Clip, Clipped, ParameterGradients, gradient_clip};
pub use graft_schedule::{Epoch, GraftState, graft_epoch};
pub use numerical::{NumericalMode, sanitise, unstable_seeds};
pub use state::{BlueprintType, LayerState, is_active, trains_blueprint};
pub use state_update::{FieldValues, Refusal, SeedRecord, apply_update, may_become};
pub use telemetry::{DEAD_BELOW, SeedTelemetry, telemetry};
pub use telemetry_reduce::{RowStrategy, telemetry_by};

//! The layer's comparisons.

pub mod blend_backward;
pub mod blend_forward;
pub mod gradient_clip;
pub mod graft_schedule;
pub mod layer;
pub mod state_update;
pub mod telemetry_reduce;

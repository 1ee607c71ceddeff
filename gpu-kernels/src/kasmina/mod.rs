//! The Kasmina layer.

pub mod blend_forward;
mod coefficients;
pub mod gradient_clip;
pub mod graft_schedule;
mod moments;
pub mod state_update;
mod strip;
mod telemetry;
pub mod telemetry_reduce;

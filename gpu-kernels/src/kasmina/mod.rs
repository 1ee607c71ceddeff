//! The Kasmina layer.

pub mod blend_backward;
pub mod blend_forward;
mod blueprint_gradients;
mod coefficients;
mod moments;
mod parameter_gradients;
mod slopes;
mod strip;
mod telemetry;

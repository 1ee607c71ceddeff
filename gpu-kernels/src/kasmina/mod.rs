//! The Kasmina layer.

pub mod blend_forward;
mod coefficients;
mod moments;
mod strip;
mod telemetry;

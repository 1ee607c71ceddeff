//! The reference against known values, identities and brute force.

mod activation_norm;
mod active_inference;
mod blend_backward;
mod blend_forward;
mod dense_blend;
mod fusion;
mod gemv;
mod gradient_clip;
mod graft_schedule;
mod linear;
mod numeric;
mod reduce;
mod state_update;
mod telemetry;
mod telemetry_reduce;
mod transfer_entropy;

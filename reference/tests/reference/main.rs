//! The reference against known values, identities and brute force.

mod blend_backward;
mod blend_forward;
mod numeric;
mod reduce;
mod telemetry;

//! The reference against known values, identities and brute force.

mod activation_norm;
mod blend_forward;
mod numeric;
mod reduce;
mod telemetry;

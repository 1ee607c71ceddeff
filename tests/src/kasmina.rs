//! The layer's comparisons.

pub mod blend_backward;
pub mod blend_forward;

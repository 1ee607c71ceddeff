//! The layer's comparisons.

pub mod blend_forward;

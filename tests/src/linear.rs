//! Products of matrices.

pub mod forward;
pub mod gradients;

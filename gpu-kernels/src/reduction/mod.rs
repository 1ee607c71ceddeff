//! Reductions.

pub mod reduce;
pub mod reducer;

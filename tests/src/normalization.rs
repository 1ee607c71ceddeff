//! The normalisations' comparisons.

pub mod activation_norm;

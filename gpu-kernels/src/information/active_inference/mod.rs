//! Gaussian active inference: belief steps, free energies and curvatures in one launch each, and the stages of a step.

pub mod bulk;
pub mod columns;
pub mod infer;
pub mod small;
pub mod stages;
pub mod sums;
pub mod sweep;
pub mod teams;
pub mod wide;

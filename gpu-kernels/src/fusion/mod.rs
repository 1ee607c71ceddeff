//! Chains of stages that one kernel computes: the stages' functions, the templates, and the kernels of the declared chains.

pub mod chain;
pub mod kernels;
pub mod stages;

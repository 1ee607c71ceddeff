//! The Kasmina layer.

pub mod blend_backward;
pub mod blend_backward_seed;
#[cfg(any(not(target_arch = "nvptx64"), target_feature = "sm_90"))]
pub mod blend_backward_tma;
pub mod blend_forward;
pub mod blend_forward_seed;
#[cfg(any(not(target_arch = "nvptx64"), target_feature = "sm_90"))]
pub mod blend_forward_tma;
mod blueprint_seeds;
mod coefficients;
mod column_sums;
pub mod dense_blend;
pub mod dense_blend_backward;
pub mod gradient_clip;
pub mod graft_schedule;
mod moments;
pub mod parameter_gradients;
mod seed_block;
mod seed_finish;
mod seed_gradients;
mod seed_teams;
mod slopes;
mod softmax;
pub mod state_update;
pub(crate) mod strip;
pub(crate) mod team;
mod telemetry;
pub mod telemetry_reduce;

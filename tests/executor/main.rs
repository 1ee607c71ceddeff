//! The real kernels under the executor, compared with the f64 reference on ragged shapes, with block
//! and thread orders shuffled and every check of the executor on.

mod activation_norm;
mod active_inference;
mod blend_backward;
mod blend_backward_tma;
mod blend_forward;
mod blend_forward_tma;
mod fusion;
mod gemv;
mod gradient_clip;
mod graft_schedule;
mod layer;
mod linear;
mod linear_convert;
mod linear_fp8;
mod linear_grouped;
mod linear_hopper;
mod linear_sample;
mod persistent;
mod reduce;
mod state_update;
mod telemetry_reduce;
mod transfer_entropy;
mod vectors;

use kasmina::{Device, Executor};

/// The executor with its checks on and the order of blocks and threads drawn from `seed`.
fn shuffled(seed: u64) -> Device {
    Device::Simt(Executor::new().checks(true).shuffled(seed))
}

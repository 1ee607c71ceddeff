//! A launch without saying that the kernel's contract holds.

use kasmina_kernels::kasmina::blend_forward::BLEND_FORWARD_F32_V16;
use kasmina_types::BlendForward;

fn safe(params: BlendForward) {
    let _ = BLEND_FORWARD_F32_V16.run(&kasmina::Executor::new(), 1, 0, params);
}

fn main() {}

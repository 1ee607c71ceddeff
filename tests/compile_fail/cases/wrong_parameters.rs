//! A reduction's parameters to a layer's kernel.

use kasmina_device::Kernel;
use kasmina_kernels::kasmina::blend_forward::BLEND_FORWARD_F32_V16;
use kasmina_types::ReduceSegments;

fn launch<P: Copy + Send + Sync>(_kernel: &Kernel<P>, _params: P) {}

fn wrong(params: ReduceSegments) {
    launch(&BLEND_FORWARD_F32_V16, params);
}

fn main() {}

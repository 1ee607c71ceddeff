//! A kernel that does not say that it is unsafe.

use kasmina_device::kernel;
use kasmina_types::ReduceSegments;

#[kernel(block = 256)]
pub fn safe_kernel(p: ReduceSegments) {
    let _ = p;
}

fn main() {}

//! A block that is no whole number of warps.

use kasmina_device::kernel;
use kasmina_types::ReduceSegments;

#[kernel(block = 100)]
pub unsafe fn odd_block(p: ReduceSegments) {
    let _ = p;
}

fn main() {}

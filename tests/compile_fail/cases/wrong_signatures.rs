//! A kernel of two parameters, a generic one, one that returns, and one without a block size.

use kasmina_device::kernel;
use kasmina_types::ReduceSegments;

#[kernel(block = 256)]
pub unsafe fn two_parameters(p: ReduceSegments, n: u32) {
    let _ = (p, n);
}

#[kernel(block = 256)]
pub unsafe fn generic<T>(p: ReduceSegments) {
    let _ = p;
}

#[kernel(block = 256)]
pub unsafe fn returns(p: ReduceSegments) -> u32 {
    p.segments
}

#[kernel(min_blocks = 2)]
pub unsafe fn no_block(p: ReduceSegments) {
    let _ = p;
}

#[kernel(block = 256, blocks = 2)]
pub unsafe fn unknown_argument(p: ReduceSegments) {
    let _ = p;
}

fn main() {}

//! The layer in an element type that no kernel has, and a sum into the wrong type.

use kasmina::kasmina::BlendForward;
use kasmina::reduction::{Reduce, Segments};
use kasmina::{Buffer, Device};

fn main() {
    let device = Device::Cpu;
    let _ = BlendForward::<i32>::new(&device, 1, 1, 1);
    let values = Buffer::from_slice(&device, &[1.0_f32]).unwrap();
    let mut output = Buffer::<f64>::zeroed(&device, 1).unwrap();
    let _ = Reduce::new(&device).sum_into(&values, &Segments::Whole, &mut output);
}

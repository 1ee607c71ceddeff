//! Element types of products.

use half::{bf16, f16};
use kasmina_device::convert::Float;
use kasmina_types::E4m3;
use kasmina_types::dtype::Element;

/// An element type of A and B: f64, f32, f16, bf16 or fp8 e4m3.
pub trait LinearElement: Element {
    /// The value, exactly.
    fn to_f64(self) -> f64;
    /// The nearest value; what is too large for fp8 becomes ±448.
    fn nearest(value: f64) -> Self;
}

/// A type of C, R, bias, D and Z: f64 with f64, any of f32, f16 and bf16 with the others.
pub trait LinearResult: LinearElement {}

macro_rules! element {
    ($type:ty, |$x:ident| $to:expr, |$y:ident| $from:expr) => {
        impl LinearElement for $type {
            fn to_f64(self) -> f64 {
                let $x = self;
                $to
            }
            fn nearest($y: f64) -> Self {
                $from
            }
        }
    };
}

element!(f64, |x| x, |y| y);
element!(f32, |x| x.into(), |y| y as f32);
element!(f16, |x| f16::to_f64(x), |y| f16::from_f64(y));
element!(bf16, |x| bf16::to_f64(x), |y| bf16::from_f64(y));
element!(E4m3, |x| x.to_f32().into(), |y| E4m3::from_f32(y as f32));

impl LinearResult for f64 {}
impl LinearResult for f32 {}
impl LinearResult for f16 {}
impl LinearResult for bf16 {}

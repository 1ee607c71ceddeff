//! Dense linear algebra, on any device.

mod gemv;

pub use gemv::{Gemv, GemvElement, GemvShape};

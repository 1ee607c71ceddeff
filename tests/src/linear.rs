//! Dense linear algebra.

pub mod adaptive;
pub mod convert;
pub mod forward;
pub mod gemv;
pub mod gradients;
pub mod grouped;
pub mod random;

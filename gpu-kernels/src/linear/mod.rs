//! Dense linear algebra.

pub mod gemv;

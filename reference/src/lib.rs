//! The CPU mathematics that Kasmina's kernels are checked against.
//!
//! Every function is written from the formulas, shares no code with a kernel, and runs in parallel with a
//! result that does not depend on the number of threads. In `f64` it is the oracle; in `f32` it is the CPU
//! device. Data in f16 or bf16 is converted by the caller: to either type the conversion is exact.

pub mod fusion;
pub mod information;
pub mod kasmina;
pub mod linear;
pub mod normalization;
pub mod numeric;
mod real;
pub mod reduction;
mod summation;

pub use real::Real;

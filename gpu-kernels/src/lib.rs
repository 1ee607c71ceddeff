//! Kasmina's GPU kernels: one folder a domain, one kernel family a file. A kernel is a plain Rust
//! function that runs on a GPU, through the PTX in `ptx/`, and under the CPU executor.
#![cfg_attr(target_arch = "nvptx64", no_std)]
#![cfg_attr(target_arch = "nvptx64", feature(abi_ptx, asm_experimental_arch))]

pub mod fusion;
pub mod information;
#[cfg(not(target_arch = "nvptx64"))]
pub mod instances;
pub mod kasmina;
pub mod linear;
pub mod manifold;
pub mod normalization;
pub mod reduction;

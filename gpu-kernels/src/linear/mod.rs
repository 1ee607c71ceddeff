//! Products of matrices.

mod accumulator;
mod activation;
mod epilogue;
pub mod forward;
#[cfg(any(not(target_arch = "nvptx64"), target_feature = "sm_80"))]
pub mod forward_mma;
pub mod gradients;
mod place;
#[cfg(any(not(target_arch = "nvptx64"), target_feature = "sm_80"))]
mod tensor_tiles;

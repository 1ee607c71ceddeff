//! Dense linear algebra.

#[cfg(any(not(target_arch = "nvptx64"), target_feature = "sm_90a"))]
pub mod absmax;
mod accumulator;
mod activation;
mod epilogue;
pub mod forward;
#[cfg(any(not(target_arch = "nvptx64"), target_feature = "sm_80"))]
pub mod forward_mma;
#[cfg(any(not(target_arch = "nvptx64"), target_feature = "sm_90a"))]
pub mod forward_wgmma;
#[cfg(any(not(target_arch = "nvptx64"), target_feature = "sm_90a"))]
pub mod forward_wgmma_grouped;
#[cfg(any(not(target_arch = "nvptx64"), target_feature = "sm_90a"))]
mod gelu;
pub mod gemv;
pub mod gradients;
#[cfg(any(not(target_arch = "nvptx64"), target_feature = "sm_90a"))]
mod hopper;
mod place;
#[cfg(any(not(target_arch = "nvptx64"), target_feature = "sm_80"))]
pub mod repack;
pub mod sample;
#[cfg(any(not(target_arch = "nvptx64"), target_feature = "sm_80"))]
mod tensor_tiles;

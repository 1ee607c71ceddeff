//! The device standard library: what a kernel may call.
//!
//! Each facility is a module whose `mod.rs` holds signature and contract and picks its
//! implementation: `nvptx.rs` on a GPU, `simt.rs` under the CPU executor, where the same call also
//! checks itself. Kernels contain no `cfg`. Names follow `cuda_std` where it has one.
//!
//! | module | what it is for |
//! |---|---|
//! | [`thread`] | indices, block barriers, polling |
//! | [`warp`] | shuffles, votes, warp barriers |
//! | [`shared`] | shared memory, static ([`shared_array!`]) and dynamic |
//! | [`global`] | checked loads and stores of buffers |
//! | [`copy_async`] | copies of a thread's own from global to shared memory, beside its work (sm_80) |
//! | [`mma`] | matrix products of a warp on the tensor cores (sm_80), and how their operands come and go |
//! | [`mbarrier`] | barriers that count arrivals and bytes of bulk copies (sm_90) |
//! | [`tma`] | bulk copies between global and shared memory (sm_90) |
//! | [`cluster`] | blocks that reach each other's shared memory (sm_90) |
//! | [`pipeline`] | a ring of stages that bulk copies fill and warps empty (sm_90) |
//! | [`swizzle`] | how chunks of shared memory are permuted for bulk copies and tensor cores |
//! | [`wgmma`] | matrix products of a warpgroup on the tensor cores (sm_90a) |
//! | [`warpgroup`] | registers handed between warpgroups (sm_90a) |
//! | [`vector`] | several elements in one access, cache hints |
//! | [`atomic`] | atomics with scopes and orders, fences |
//! | [`math`] | fma, exp, log, tanh, erf, rsqrt and their approximations |
//! | [`convert`] | f16, bf16 and fp8 from and to f32 |
//! | [`reduce`] | warp and block reductions in a fixed order |
//! | [`grid`] | the last block to finish, without a second launch |
//! | [`unroll!`] | loops over register arrays |
//! | [`hint`] | what the compiler should not know |
//! | [`kernel`](mod@kernel) | a kernel's typed handle on the host |
#![cfg_attr(target_arch = "nvptx64", no_std)]
#![cfg_attr(
    target_arch = "nvptx64",
    feature(
        abi_unadjusted,
        asm_experimental_arch,
        core_intrinsics,
        link_llvm_intrinsics,
        stdarch_nvptx
    )
)]
#![cfg_attr(
    target_arch = "nvptx64",
    allow(internal_features, reason = "the device's intrinsics are internal to the compiler")
)]

// `shared_array!` names this crate, here too.
extern crate self as kasmina_device;

pub mod atomic;
pub mod cluster;
pub mod convert;
pub mod copy_async;
pub mod global;
pub mod grid;
pub mod hint;
#[cfg(not(target_arch = "nvptx64"))]
pub mod kernel;
pub mod math;
pub mod mbarrier;
pub mod mma;
pub mod pipeline;
pub mod reduce;
pub mod shared;
pub mod swizzle;
pub mod thread;
pub mod tma;
mod unroll;
pub mod vector;
pub mod warp;
pub mod warpgroup;
pub mod wgmma;
mod words;

pub use kasmina_macros::{kernel, shared_array};
#[cfg(not(target_arch = "nvptx64"))]
pub use kernel::{Kernel, LaunchBounds};

/// Device code has nowhere to unwind to: a panic is a trap, which the host sees as a failed launch.
#[cfg(target_arch = "nvptx64")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    // SAFETY: `trap` ends the kernel; nothing runs after it.
    unsafe { core::arch::nvptx::trap() }
}

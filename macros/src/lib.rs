//! `#[kernel]` and `shared_array!`, re-exported by `kasmina-device`; `#[derive(FusionBuilder)]`, re-exported by
//! `kasmina-types`, and what generates from it.

use proc_macro::TokenStream;

mod fusion;
mod kernel;
mod shared_array;

/// Makes a function a kernel.
///
/// The function takes one `#[repr(C)]` struct by value and returns nothing. On a GPU it becomes an
/// entry of its name; on the host it stays a function, beside a `static` of its name in capitals: the
/// typed handle (`kasmina_device::Kernel`) that launches are made with.
///
/// `#[kernel(block = 256, min_blocks = 4, cluster = [2, 1, 1], arch = 90, spills)]`: threads of a block
/// (required), blocks that must fit on a multiprocessor (1), blocks of a cluster (none), the compute
/// capability that the kernel needs (the oldest that is supported), and leave for the registers to spill,
/// which the builder otherwise refuses.
///
/// With `arch = 90` the entry exists in modules for compute capability 9.0 and newer only, with
/// `arch = "90a"` in those for that architecture alone. The kernel's helpers stand in a module of their own,
/// which is left out for older targets with
/// `#[cfg(any(not(target_arch = "nvptx64"), target_feature = "sm_90"))]`.
///
/// ```text
/// #[kernel(block = BLOCK)]
/// pub unsafe fn segment_sum(p: SegmentSum) { … }
/// ```
#[proc_macro_attribute]
pub fn kernel(attribute: TokenStream, item: TokenStream) -> TokenStream {
    kernel::expand(attribute.into(), item.into())
        .unwrap_or_else(syn::Error::into_compile_error)
        .into()
}

/// Declares an array in the block's shared memory: `shared_array![f32; 256]`. Type and length are
/// known where it stands, they cannot depend on a generic parameter.
#[proc_macro]
pub fn shared_array(input: TokenStream) -> TokenStream {
    shared_array::expand(input.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Declares a chain of stages that one kernel computes.
///
/// The struct has a field for each stage: its name is that of the function that computes the stage, its type says what it
/// does (`Map`, `Sum`, `Mean`, `Max`, `Min`, `Gemv`, `GemvTransposed` or `Matmul` of `kasmina_types::fusion::kind`).
/// `#[stage(1, inputs(a, b), scalars(c), tensor_eligible = false, reduction = false, precision = "fp64")]` gives its number,
/// the operands that it reads beside the value of the stage before (one for each value, and one for each segment or product),
/// whether tensor cores may compute it, whether it is a reduction, and the precision (`fp32` where none is said).
///
/// One kernel computes values one by one, then at most one contraction (everything but `Map`), then values one by one. Another
/// order does not compile; the error names the stage.
#[proc_macro_derive(FusionBuilder, attributes(stage))]
pub fn fusion_builder(input: TokenStream) -> TokenStream {
    fusion::derive(input.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// The kernels of a declared chain, fused and stage by stage, where a module `stages` has the stages' functions and `chain`
/// the templates: `kl_sum_fusion!(fusion_kernels);`.
#[proc_macro]
pub fn fusion_kernels(input: TokenStream) -> TokenStream {
    fusion::kernels(input.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// The reference of a declared chain, where a module `stages` has the reference's functions and `compose` the templates:
/// `kl_sum_fusion!(fusion_composition);`.
#[proc_macro]
pub fn fusion_composition(input: TokenStream) -> TokenStream {
    fusion::composition(input.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}

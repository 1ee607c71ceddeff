//! `#[kernel]` and `shared_array!`, re-exported by `kasmina-device`.

use proc_macro::TokenStream;

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

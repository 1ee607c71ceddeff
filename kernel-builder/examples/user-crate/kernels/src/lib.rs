//! Two kernels, written with nothing but `core`: an element-wise one and one with barriers.
//!
//! `#[kernel]` of `kasmina-macros` writes the attributes and the marker of the launch bounds; they stand
//! here by hand to show what the builder reads.
#![no_std]
#![feature(abi_ptx, stdarch_nvptx, asm_experimental_arch)]

use core::arch::{global_asm, nvptx};

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: `trap` ends the grid; there is nothing to unwind on a GPU.
    unsafe { nvptx::trap() }
}

global_asm!("// kasmina.kernel saxpy maxntid=256 minnctapersm=4");

/// `y[i] = a · x[i] + y[i]`, one thread an element.
///
/// # Safety
/// `x` is readable and `y` writable for `n` elements, and they do not overlap.
#[unsafe(no_mangle)]
pub unsafe extern "ptx-kernel" fn saxpy(a: f32, x: *const f32, y: *mut f32, n: u32) {
    // SAFETY: reading special registers has no precondition.
    let i =
        unsafe { nvptx::_block_idx_x() * nvptx::_block_dim_x() + nvptx::_thread_idx_x() } as u32;
    if i < n {
        // SAFETY: `i < n` and the caller's contract; no two threads share an `i`.
        unsafe { *y.add(i as usize) += a * *x.add(i as usize) };
    }
}

global_asm!(".shared .align 4 .b8 row_scale_first[4];");
global_asm!("// kasmina.kernel row_scale maxntid=128 minnctapersm=1");

/// The address of this block's word in shared memory: the first element of its row.
fn first() -> *mut f32 {
    let address: *mut f32;
    // SAFETY: `row_scale_first` is declared above; `cvta` makes its generic address.
    unsafe {
        core::arch::asm!(
            "{{ .reg .b64 shared; mov.u64 shared, row_scale_first; cvta.shared.u64 {out}, shared; }}",
            out = out(reg64) address,
            options(pure, nomem, nostack)
        )
    };
    address
}

/// Scales each of `rows` rows of 128 by its first element, which goes through shared memory, and lists them.
///
/// The shape `if leader {…} barrier; if leader {…}` in a loop is the one that MIR jump threading breaks.
///
/// # Safety
/// `values` is writable for `rows · 128` elements and `firsts` for `rows`; the block has 128 threads.
#[unsafe(no_mangle)]
pub unsafe extern "ptx-kernel" fn row_scale(values: *mut f32, firsts: *mut f32, rows: u32) {
    // SAFETY: reading special registers has no precondition.
    let thread = unsafe { nvptx::_thread_idx_x() } as usize;
    let mut row = 0;
    while row < rows as usize {
        // SAFETY: the leader alone touches the word between barriers, `thread < 128` keeps the element in
        // its row, and every thread of the block arrives at both barriers.
        unsafe {
            let value = values.add(row * 128 + thread);
            if thread == 0 {
                first().write_volatile(*value);
            }
            nvptx::_syncthreads();
            if thread == 0 {
                firsts.add(row).write(first().read_volatile());
            }
            *value *= first().read_volatile();
            nvptx::_syncthreads();
        }
        row += 1;
    }
}

//! Element by element: α·x + β·y, and with it velocities and projections by tiling.
//!
//! # Math
//! out\[i\] = α·x\[i mod p\] + β·y\[i\], p the elements of x: β·y rounded to f64, α·x added to it by fused
//! multiply-add, the result rounded to what is stored; without y, α·x\[i mod p\]. A velocity
//! (μ − μ_prev)/dt has α = 1/dt and β = −1/dt; the kernel for it divides, so that it is rounded as the formula is. A
//! projection by tiling has α = 1 and no y.
//!
//! # Layout
//! x `[p]`, y `[n]` or empty, out `[n]`, in the instance's type. out may not be x or y.
//!
//! # Traffic
//! Reads 16·n bytes and writes 8·n in f64; bound by memory.
//!
//! # Launch
//! Blocks of 256 threads over a persistent grid, 16 bytes of a thread at a time where the arrays are so aligned; no barriers.
//!
//! # Determinism
//! Bitwise: each element by itself.
//!
//! # Source
//! Original. Reference: `kasmina_reference::information::{axpby, velocity, tile_projection}`.

use kasmina_device::global::{Load, Store};
use kasmina_device::grid::BlockPlace;
use kasmina_device::vector::{LoadHint, StoreHint, Vector};
use kasmina_device::{hint, kernel, math, thread, unroll};
use kasmina_types::{Axpby, In, Out};

use super::scalar::Scalar;

const BLOCK: usize = kasmina_types::tiles::INFERENCE_STAGE_BLOCK_THREADS as usize;

/// Each element of the output from one of x and, where there is one, one of y; `L` of them are 16 bytes.
///
/// # Safety
/// As [`Axpby`] says.
#[inline(always)]
unsafe fn each<T: Scalar, const L: usize, const C: bool>(
    p: &Axpby<C>,
    place: BlockPlace,
    value: impl Fn(f64, f64) -> f64,
) {
    let (x, y, out): (In<T, C>, In<T, C>, Out<T>) = (p.x.cast(), p.y.cast(), p.out.cast());
    let (len, has_y) = (out.len(), !y.is_empty());
    let one = |x: T, y: T| T::narrow(value(x.wide(), y.wide()));
    let of_y = if has_y { p.y.as_ptr() as usize } else { 0 };
    let addresses = p.x.as_ptr() as usize | of_y | p.out.as_ptr() as usize;
    let in_vectors = addresses.is_multiple_of(16) && x.len() == len;
    let threads = thread::block_dim_x() as usize;
    let stride = place.blocks as usize * threads * L;
    // In a resident kernel no register is to hold it from operation to operation.
    let thread = hint::opaque(thread::thread_idx_x()) as usize;
    let mut i = (place.block as usize * threads + thread) * L;
    while i < len {
        if in_vectors && i + L <= len {
            // SAFETY: inside all arrays, whose vectors are aligned; the output's elements are this thread's.
            unsafe {
                let mut values: Vector<T, L> = x.load_vector(i, LoadHint::Cached);
                let other =
                    if has_y { y.load_vector(i, LoadHint::Cached) } else { Vector([T::ZERO; L]) };
                unroll!(k in L, at most 4 => { values.0[k] = one(values.0[k], other.0[k]); });
                out.store_vector(i, values, StoreHint::Cached);
            }
        } else {
            unroll!(k in L, at most 4 => {
                let i = i + k;
                if i < len {
                    let of_x = if x.len() == len { i } else { i % x.len().max(1) };
                    // SAFETY: inside x, y and the output, whose element is this thread's.
                    unsafe {
                        let other = if has_y { y.load(i) } else { T::ZERO };
                        out.store(i, one(x.load(of_x), other));
                    }
                }
            });
        }
        i += stride;
    }
}

/// α·x + β·y, in the blocks of a grid.
///
/// # Safety
/// As [`Axpby`] says.
#[inline(always)]
pub(crate) unsafe fn axpby<T: Scalar, const L: usize, const C: bool>(
    p: &Axpby<C>,
    place: BlockPlace,
) {
    // SAFETY: the caller's contract.
    unsafe { each::<T, L, C>(p, place, |x, y| math::fma_f64(p.alpha, x, p.beta * y)) }
}

macro_rules! instance {
    ($axpby:ident, $velocity:ident, $element:ty, $dtype:ident) => {
        /// α·x + β·y.
        ///
        /// # Safety
        /// As [`Axpby`] says.
        #[kernel(block = BLOCK as u32)]
        pub unsafe fn $axpby(p: Axpby) {
            // SAFETY: the entry's contract.
            unsafe {
                axpby::<$element, { 16 / size_of::<$element>() }, _>(&p, BlockPlace::of_launch())
            }
        }

        /// (x − y)/α.
        ///
        /// # Safety
        /// As [`Axpby`] says.
        #[kernel(block = BLOCK as u32)]
        pub unsafe fn $velocity(p: Axpby) {
            // SAFETY: the entry's contract.
            unsafe {
                each::<$element, { 16 / size_of::<$element>() }, _>(
                    &p,
                    BlockPlace::of_launch(),
                    |x, y| (x - y) / p.alpha,
                )
            }
        }
    };
}

kasmina_types::axpby_tiles!(instance);

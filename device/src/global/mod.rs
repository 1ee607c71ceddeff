//! Loads and stores of buffers: what a kernel does with its [`In`] and [`Out`] views.
//!
//! Under the executor each access is checked against the view's length, and for an [`Out`] against
//! the other threads of the block. On a GPU it is a bare access.

use bytemuck::Pod;
use kasmina_types::{In, Out};

use crate::vector::{LoadHint, StoreHint, Vector};
use crate::words::for_each_word;

#[cfg(target_arch = "nvptx64")]
mod nvptx;
#[cfg(not(target_arch = "nvptx64"))]
mod simt;

#[cfg(target_arch = "nvptx64")]
use nvptx as imp;
#[cfg(not(target_arch = "nvptx64"))]
use simt as imp;

/// Reading a buffer.
pub trait Load<T: Copy>: Copy {
    /// Reads element `index`.
    ///
    /// # Safety
    /// `index < self.len()`, and no thread writes the element without an order to this read.
    #[track_caller]
    unsafe fn load(&self, index: usize) -> T;

    /// Reads the `N` elements from `index` in one access.
    ///
    /// # Safety
    /// As [`Load::load`] for each of them; their address is a multiple of their size together.
    #[track_caller]
    unsafe fn load_vector<const N: usize>(&self, index: usize, hint: LoadHint) -> Vector<T, N>;
}

/// Writing a buffer.
pub trait Store<T: Copy>: Copy {
    /// Writes element `index`.
    ///
    /// # Safety
    /// `index < self.len()`, and no other thread accesses the element without an order to this write.
    #[track_caller]
    unsafe fn store(&self, index: usize, value: T);

    /// Writes the `N` elements from `index` in one access.
    ///
    /// # Safety
    /// As [`Store::store`] for each of them; their address is a multiple of their size together.
    #[track_caller]
    unsafe fn store_vector<const N: usize>(
        &self,
        index: usize,
        value: Vector<T, N>,
        hint: StoreHint,
    );
}

impl<T: Copy, const COHERENT: bool> Load<T> for In<T, COHERENT> {
    #[inline(always)]
    #[track_caller]
    unsafe fn load(&self, index: usize) -> T {
        // SAFETY: the caller's contract.
        unsafe { self.load_vector::<1>(index, LoadHint::Cached) }.0[0]
    }

    #[inline(always)]
    #[track_caller]
    unsafe fn load_vector<const N: usize>(&self, index: usize, hint: LoadHint) -> Vector<T, N> {
        // SAFETY: the caller's contract.
        unsafe {
            if COHERENT {
                imp::load(&Out::new(self.as_ptr().cast_mut(), self.len()), index)
            } else {
                imp::load_constant(self, index, hint)
            }
        }
    }
}

impl<T: Copy> Load<T> for Out<T> {
    #[inline(always)]
    #[track_caller]
    unsafe fn load(&self, index: usize) -> T {
        // SAFETY: the caller's contract.
        unsafe { imp::load::<T, 1>(self, index).0[0] }
    }

    #[inline(always)]
    #[track_caller]
    unsafe fn load_vector<const N: usize>(&self, index: usize, _hint: LoadHint) -> Vector<T, N> {
        // SAFETY: the caller's contract.
        unsafe { imp::load(self, index) }
    }
}

impl<T: Copy> Store<T> for Out<T> {
    #[inline(always)]
    #[track_caller]
    unsafe fn store(&self, index: usize, value: T) {
        // SAFETY: the caller's contract.
        unsafe { imp::store(self, index, Vector([value]), StoreHint::Cached) };
    }

    #[inline(always)]
    #[track_caller]
    unsafe fn store_vector<const N: usize>(
        &self,
        index: usize,
        value: Vector<T, N>,
        hint: StoreHint,
    ) {
        // SAFETY: the caller's contract.
        unsafe { imp::store(self, index, value, hint) };
    }
}

/// Reads plain data of any type from the words at `index`.
///
/// # Safety
/// As [`Load::load`] for each word of it.
#[inline(always)]
#[track_caller]
pub unsafe fn load_words<V: Pod>(view: &Out<u32>, index: usize) -> V {
    let mut value = V::zeroed();
    let words = (&raw mut value).cast::<u32>();
    for_each_word!(V, |i| {
        // SAFETY: the caller's contract; `i` stays below the words of `value`.
        unsafe { words.add(i).write_unaligned(view.load(index + i)) }
    });
    value
}

/// Writes plain data of any type to the words at `index`.
///
/// # Safety
/// As [`Store::store`] for each word of it.
#[inline(always)]
#[track_caller]
pub unsafe fn store_words<V: Pod>(view: &Out<u32>, index: usize, value: V) {
    let words = (&raw const value).cast::<u32>();
    for_each_word!(V, |i| {
        // SAFETY: the caller's contract; `i` stays below the words of `value`.
        unsafe { view.store(index + i, words.add(i).read_unaligned()) }
    });
}

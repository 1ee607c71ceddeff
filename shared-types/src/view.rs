//! Views of device memory as kernels receive them: an address and a length in elements.
//!
//! The address belongs to whichever memory the launch runs on: a GPU's, or the host's where the
//! executor runs the kernel. `kasmina-device` gives them their checked accesses.

use core::marker::PhantomData;

/// A buffer that a kernel reads and nobody writes while it runs. Where `COHERENT`, it may be written before a barrier or
/// an acquisition that the read comes after, as in a kernel that stays resident.
#[repr(C, align(16))]
pub struct In<T, const COHERENT: bool = false> {
    pointer: *const T,
    length: u64,
}

/// A buffer that a kernel writes, or reads and writes.
#[repr(C, align(16))]
pub struct Out<T> {
    pointer: *mut T,
    length: u64,
    _element: PhantomData<T>,
}

crate::assert_layout!(In<f32>, size = 16, align = 16, { pointer: 0, length: 8 });
crate::assert_layout!(Out<f32>, size = 16, align = 16, { pointer: 0, length: 8 });

impl<T> In<T> {
    /// A view of `length` elements from `pointer`.
    #[inline(always)]
    pub const fn new(pointer: *const T, length: usize) -> Self {
        Self { pointer, length: length as u64 }
    }
}

impl<T, const COHERENT: bool> In<T, COHERENT> {
    /// The address of the first element.
    #[inline(always)]
    pub const fn as_ptr(&self) -> *const T {
        self.pointer
    }

    /// How many elements there are.
    #[inline(always)]
    pub const fn len(&self) -> usize {
        self.length as usize
    }

    /// Whether there is nothing to read.
    #[inline(always)]
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The same bytes as elements of another type: the parameter structs are not generic, the
    /// kernels that take them are.
    #[inline(always)]
    pub const fn cast<U>(&self) -> In<U, COHERENT> {
        let bytes = self.length as usize * size_of::<T>();
        In { pointer: self.pointer.cast(), length: (bytes / size_of::<U>()) as u64 }
    }
}

impl<T> Out<T> {
    /// A view of `length` elements from `pointer`.
    #[inline(always)]
    pub const fn new(pointer: *mut T, length: usize) -> Self {
        Self { pointer, length: length as u64, _element: PhantomData }
    }

    /// The address of the first element.
    #[inline(always)]
    pub const fn as_ptr(&self) -> *mut T {
        self.pointer
    }

    /// How many elements there are.
    #[inline(always)]
    pub const fn len(&self) -> usize {
        self.length as usize
    }

    /// Whether there is nothing to write.
    #[inline(always)]
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The same bytes as elements of another type.
    #[inline(always)]
    pub const fn cast<U>(&self) -> Out<U> {
        let bytes = self.length as usize * size_of::<T>();
        Out::new(self.pointer.cast(), bytes / size_of::<U>())
    }
}

impl<T, const COHERENT: bool> Clone for In<T, COHERENT> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}
impl<T, const COHERENT: bool> Copy for In<T, COHERENT> {}

impl<T> Clone for Out<T> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Out<T> {}

// SAFETY: a view is an address and a length; only a kernel's `unsafe` accesses follow the address,
// under the contract of the launch that made the view.
unsafe impl<T: Send, const COHERENT: bool> Send for In<T, COHERENT> {}
// SAFETY: as above.
unsafe impl<T: Sync, const COHERENT: bool> Sync for In<T, COHERENT> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Out<T> {}
// SAFETY: as above; blocks that share an `Out` write disjoint elements or use atomics.
unsafe impl<T: Sync> Sync for Out<T> {}

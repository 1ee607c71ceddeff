//! Shared memory of a block.
//!
//! `shared_array![T; N]` declares an array for the block, at that place in the source; every thread
//! that passes there gets the same one. What nobody wrote is undefined; the executor reports a read
//! of it.

use bytemuck::Pod;

use crate::vector::Vector;
use crate::words::for_each_word;

#[cfg(target_arch = "nvptx64")]
mod nvptx;
#[cfg(not(target_arch = "nvptx64"))]
mod simt;

#[cfg(target_arch = "nvptx64")]
use nvptx as imp;
#[cfg(not(target_arch = "nvptx64"))]
use simt as imp;

/// An array of `N` elements in the block's static shared memory.
pub struct Shared<T, const N: usize> {
    array: imp::Array,
    _element: core::marker::PhantomData<T>,
}

impl<T, const N: usize> Clone for Shared<T, N> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}
impl<T, const N: usize> Copy for Shared<T, N> {}

/// The block's dynamic shared memory as elements of `T`.
pub struct DynamicShared<T> {
    array: imp::Array,
    length: usize,
    _element: core::marker::PhantomData<T>,
}

/// A place in shared memory, where an mbarrier is or a bulk copy begins. It knows how far its array goes.
#[derive(Clone, Copy)]
pub struct Place {
    array: imp::Array,
    #[cfg(not(target_arch = "nvptx64"))]
    array_bytes: usize,
    #[cfg(not(target_arch = "nvptx64"))]
    offset: usize,
}

impl Place {
    #[cfg(target_arch = "nvptx64")]
    #[inline(always)]
    fn new(array: imp::Array, _array_bytes: usize, offset: usize) -> Self {
        Self { array: array + offset as u32 }
    }

    #[cfg(not(target_arch = "nvptx64"))]
    fn new(array: imp::Array, array_bytes: usize, offset: usize) -> Self {
        Self { array, array_bytes, offset }
    }

    /// The 32-bit shared address.
    #[cfg(target_arch = "nvptx64")]
    #[inline(always)]
    pub(crate) fn address(self) -> u32 {
        self.array
    }

    /// The address, once the executor has seen that `bytes` from here are inside the array and aligned.
    #[cfg(not(target_arch = "nvptx64"))]
    #[track_caller]
    pub(crate) fn checked(
        self,
        bytes: usize,
        align: usize,
        access: kasmina_simt::rt::Access,
    ) -> *mut u8 {
        use kasmina_simt::rt::{Space, within};
        within(Space::Shared, self.array, self.array_bytes, self.offset, bytes, align, access);
        self.array.wrapping_add(self.offset)
    }

    /// Where its array begins, the array's bytes, and where in it the place is.
    #[cfg(not(target_arch = "nvptx64"))]
    pub(crate) fn parts(self) -> (*const u8, usize, usize) {
        (self.array, self.array_bytes, self.offset)
    }

    /// The same place in block `rank` of the cluster.
    #[cfg(not(target_arch = "nvptx64"))]
    #[track_caller]
    pub(crate) fn mapped(self, rank: u32) -> Self {
        Self { array: kasmina_simt::rt::map_shared(self.array, rank), ..self }
    }

    /// As an access that happens now, in any block of the cluster.
    #[cfg(not(target_arch = "nvptx64"))]
    #[track_caller]
    pub(crate) fn accessed_in_cluster(
        self,
        bytes: usize,
        access: kasmina_simt::rt::Access,
    ) -> *mut u8 {
        let Self { array, array_bytes, offset } = self;
        kasmina_simt::rt::access_cluster(array, array_bytes, offset, bytes, bytes, access);
        array.wrapping_add(offset)
    }

    /// As an access that happens now.
    #[cfg(not(target_arch = "nvptx64"))]
    #[track_caller]
    pub(crate) fn accessed(self, bytes: usize, access: kasmina_simt::rt::Access) -> *mut u8 {
        let Self { array, array_bytes, offset } = self;
        kasmina_simt::rt::access_shared(array, array_bytes, offset, bytes, bytes, access);
        array.wrapping_add(offset)
    }
}

macro_rules! accesses {
    ($self:ident, $bytes:expr) => {
        /// Where element `index` is, for an mbarrier or a bulk copy.
        #[inline(always)]
        pub fn place(&$self, index: usize) -> Place {
            Place::new($self.array, $bytes, index * size_of::<T>())
        }

        /// Reads element `index`.
        ///
        /// # Safety
        /// `index` is inside the array, somebody wrote the element, and a barrier orders that write
        /// before this read.
        #[inline(always)]
        #[track_caller]
        pub unsafe fn read(&$self, index: usize) -> T {
            // SAFETY: the caller's contract.
            unsafe { imp::load::<T, 1>($self.array, $bytes, index).0[0] }
        }

        /// Writes element `index`.
        ///
        /// # Safety
        /// `index` is inside the array, and no other thread accesses the element until a barrier.
        #[inline(always)]
        #[track_caller]
        pub unsafe fn write(&$self, index: usize, value: T) {
            // SAFETY: the caller's contract.
            unsafe { imp::store($self.array, $bytes, index, Vector([value])) };
        }

        /// Reads `M` elements from `index` in one access.
        ///
        /// # Safety
        /// As [`Self::read`] for each of them; `index` is a multiple of `M`.
        #[inline(always)]
        #[track_caller]
        pub unsafe fn read_vector<const M: usize>(&$self, index: usize) -> Vector<T, M> {
            // SAFETY: the caller's contract.
            unsafe { imp::load($self.array, $bytes, index) }
        }

        /// Writes `M` elements from `index` in one access.
        ///
        /// # Safety
        /// As [`Self::write`] for each of them; `index` is a multiple of `M`.
        #[inline(always)]
        #[track_caller]
        pub unsafe fn write_vector<const M: usize>(&$self, index: usize, value: Vector<T, M>) {
            // SAFETY: the caller's contract.
            unsafe { imp::store($self.array, $bytes, index, value) };
        }
    };
}

impl<T: Pod, const N: usize> Shared<T, N> {
    /// The array's alignment, that of the widest access.
    pub const ALIGN: usize = 16;

    /// What [`crate::shared_array!`] expands to.
    ///
    /// # Safety
    /// `address` is the 32-bit shared address of `N` elements of `T`, aligned to 16 bytes.
    #[cfg(target_arch = "nvptx64")]
    #[doc(hidden)]
    #[inline(always)]
    pub unsafe fn at(address: u32) -> Self {
        Self { array: address, _element: core::marker::PhantomData }
    }

    /// What [`crate::shared_array!`] expands to: `key` tells one declaration from another.
    #[cfg(not(target_arch = "nvptx64"))]
    #[doc(hidden)]
    #[inline(always)]
    #[track_caller]
    pub fn declared(key: u64) -> Self {
        let array = imp::declare(key, N * size_of::<T>(), Self::ALIGN);
        Self { array, _element: core::marker::PhantomData }
    }

    accesses!(self, N * size_of::<T>());

    /// The same array, of whose address the compiler knows nothing: addresses in it are computed where they are used, and no
    /// register holds them meanwhile.
    #[inline(always)]
    pub fn anew(self) -> Self {
        #[cfg(target_arch = "nvptx64")]
        let array = crate::hint::opaque(self.array);
        #[cfg(not(target_arch = "nvptx64"))]
        let array = self.array;
        Self { array, _element: core::marker::PhantomData }
    }

    /// What lies at element `index`, of any type.
    ///
    /// # Safety
    /// A value of that type is there, inside the array and aligned; a barrier came after it was written, and nobody writes it
    /// as long as the reference lives.
    #[inline(always)]
    #[track_caller]
    pub unsafe fn refer<'a, V>(&self, index: usize) -> &'a V {
        const { assert!(align_of::<V>() <= Self::ALIGN) };
        let (offset, bytes) = (index * size_of::<T>(), size_of::<V>());
        // SAFETY: the caller's contract.
        unsafe { &*imp::generic(self.array, N * size_of::<T>(), offset, bytes).cast() }
    }
}

impl<const N: usize> Shared<u32, N> {
    /// Leaves the array's address in word `index`, for [`Self::by_address`].
    ///
    /// # Safety
    /// As [`Self::write`].
    #[inline(always)]
    #[track_caller]
    pub unsafe fn leave_address(&self, index: usize) {
        #[cfg(target_arch = "nvptx64")]
        let address = self.array;
        #[cfg(not(target_arch = "nvptx64"))]
        let address = 0;
        // SAFETY: the caller's contract.
        unsafe { self.write(index, address) };
    }

    /// The same array, by the address in its word `index`: what is computed from it no register can hold from before that
    /// word was read, nor local memory.
    ///
    /// # Safety
    /// As [`Self::read`]; [`Self::leave_address`] wrote the word.
    #[inline(always)]
    #[track_caller]
    pub unsafe fn by_address(&self, index: usize) -> Self {
        // SAFETY: the caller's contract.
        let address = unsafe { self.read(index) };
        #[cfg(target_arch = "nvptx64")]
        return Self { array: address, _element: core::marker::PhantomData };
        #[cfg(not(target_arch = "nvptx64"))]
        {
            assert_eq!(address, 0, "no address was left");
            *self
        }
    }

    /// Reads plain data of any type from the words at `index`.
    ///
    /// # Safety
    /// As [`Self::read`] for each word of it.
    #[inline(always)]
    #[track_caller]
    pub unsafe fn read_words<V: Pod>(&self, index: usize) -> V {
        let mut value = V::zeroed();
        let words = (&raw mut value).cast::<u32>();
        for_each_word!(V, |i| {
            // SAFETY: the caller's contract; `i` stays below the words of `value`.
            unsafe { words.add(i).write_unaligned(self.read(index + i)) }
        });
        value
    }

    /// Writes plain data of any type to the words at `index`.
    ///
    /// # Safety
    /// As [`Self::write`] for each word of it.
    #[inline(always)]
    #[track_caller]
    pub unsafe fn write_words<V: Pod>(&self, index: usize, value: V) {
        let words = (&raw const value).cast::<u32>();
        for_each_word!(V, |i| {
            // SAFETY: the caller's contract; `i` stays below the words of `value`.
            unsafe { self.write(index + i, words.add(i).read_unaligned()) }
        });
    }
}

impl<T: Pod> DynamicShared<T> {
    /// The dynamic shared memory of the launch, from its beginning. It is aligned to 1024 bytes.
    #[inline(always)]
    #[track_caller]
    pub fn whole() -> Self {
        let (array, bytes) = imp::dynamic();
        Self { array, length: bytes / size_of::<T>(), _element: core::marker::PhantomData }
    }

    /// How many elements the launch asked for.
    #[inline(always)]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether the launch asked for none.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    accesses!(self, self.length * size_of::<T>());
}

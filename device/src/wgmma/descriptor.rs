//! How an operand lies in shared memory.

use core::marker::PhantomData;

use super::imp;
use crate::shared::Place;
use crate::swizzle::Swizzle;

/// Which of an operand's indices is contiguous in shared memory.
pub trait Major: Copy + sealed::Sealed {
    /// Whether M or N is, rather than K: the instruction's transpose immediate.
    const TRANSPOSED: bool;
}

/// K is contiguous: A of shape [M, K] by rows, B of shape [N, K] by rows.
#[derive(Clone, Copy, Debug)]
pub struct KMajor;

/// M, or N, is contiguous: A of shape [K, M] by rows, B of shape [K, N] by rows. For 16-bit elements alone.
#[derive(Clone, Copy, Debug)]
pub struct MnMajor;

impl Major for KMajor {
    const TRANSPOSED: bool = false;
}
impl Major for MnMajor {
    const TRANSPOSED: bool = true;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::KMajor {}
    impl Sealed for super::MnMajor {}
}

/// The strides of an operand in bytes. An operand is made of chunks of 16 bytes; eight chunks, or eight spans of the
/// swizzle, lie at regular distances and form an atom. With `S` the swizzle's span:
///
/// | major | swizzle | chunk of index i (M or N) and byte b along K | |
/// |---|---|---|---|
/// | K | none | (i mod 8) · 16 + ⌊i / 8⌋ · stride + ⌊b / 16⌋ · leading | |
/// | K | S | (i mod 8) · S + ⌊i / 8⌋ · stride + ⌊b / 16⌋ · 16 | leading is not used |
///
/// | major | swizzle | chunk of byte b along M or N, and k |
/// |---|---|---|
/// | MN | none | (k mod 8) · 16 + ⌊k / 8⌋ · leading + ⌊b / 16⌋ · stride |
/// | MN | S | (k mod 8) · S + ⌊k / 8⌋ · stride + (b mod S) + ⌊b / S⌋ · leading |
///
/// The place is where the sum of descriptor's address and this lies once it is swizzled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// How chunks are permuted.
    pub swizzle: Swizzle,
    /// The leading dimension's byte offset, a multiple of 16 below 256 KiB.
    pub leading_bytes: u32,
    /// The stride dimension's byte offset, likewise.
    pub stride_bytes: u32,
    /// (address of the pattern's beginning / 128) mod 8: 0 where the array is aligned to
    /// [`Swizzle::pattern_bytes`].
    pub base_offset: u32,
}

impl Layout {
    /// With a pattern that begins at a multiple of its length.
    ///
    /// # Panics
    /// Where an offset is not a multiple of 16 below 256 KiB; at compile time in a constant.
    #[inline(always)]
    pub const fn new(swizzle: Swizzle, leading_bytes: u32, stride_bytes: u32) -> Self {
        assert!(leading_bytes.is_multiple_of(16) && leading_bytes < 1 << 18, "multiples of 16");
        assert!(stride_bytes.is_multiple_of(16) && stride_bytes < 1 << 18, "multiples of 16");
        Self { swizzle, leading_bytes, stride_bytes, base_offset: 0 }
    }

    /// Rows of a swizzle's span one after the other, as a bulk copy leaves a box that is one span wide: K-major with
    /// as many k as a span holds.
    ///
    /// # Panics
    /// Without a swizzle.
    #[inline(always)]
    pub const fn rows(swizzle: Swizzle) -> Self {
        assert!(!matches!(swizzle, Swizzle::None), "rows of a span need a swizzle");
        Self::new(swizzle, 16, swizzle.pattern_bytes())
    }

    /// MN-major boxes of `k` rows that are one span wide, one box after the other along M or N, as bulk copies leave
    /// them.
    ///
    /// # Panics
    /// Without a swizzle.
    #[inline(always)]
    pub const fn columns(swizzle: Swizzle, k: u32) -> Self {
        assert!(!matches!(swizzle, Swizzle::None), "rows of a span need a swizzle");
        Self::new(swizzle, k * swizzle.span_bytes(), swizzle.pattern_bytes())
    }

    /// The bits of a descriptor beside the address.
    #[cfg(target_arch = "nvptx64")]
    #[inline(always)]
    pub(super) const fn bits(self) -> u64 {
        let mode: u64 = match self.swizzle {
            Swizzle::None => 0,
            Swizzle::Bytes128 => 1,
            Swizzle::Bytes64 => 2,
            Swizzle::Bytes32 => 3,
        };
        ((self.leading_bytes >> 4) as u64) << 16
            | ((self.stride_bytes >> 4) as u64) << 32
            | ((self.base_offset & 7) as u64) << 49
            | mode << 62
    }
}

/// An operand in shared memory.
#[derive(Clone, Copy)]
pub struct Descriptor<M> {
    pub(super) operand: imp::Operand,
    major: PhantomData<M>,
}

impl<M: Major> Descriptor<M> {
    /// The operand whose first element is at `place`, a multiple of 16 bytes.
    #[inline(always)]
    pub fn new(place: Place, layout: Layout) -> Self {
        Self { operand: imp::operand(place, layout), major: PhantomData }
    }

    /// The operand that begins `bytes` further, a multiple of 16: the next k of the same rows, where that lies in the
    /// same span, or another atom.
    #[inline(always)]
    #[must_use]
    pub fn plus(self, bytes: u32) -> Self {
        Self { operand: imp::plus(self.operand, bytes), ..self }
    }
}

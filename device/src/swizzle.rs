//! Swizzles of shared memory: what bulk copies write and products of warpgroups read without bank conflicts.

/// How 16-byte chunks are permuted within spans of 32, 64 or 128 bytes.
///
/// Bits 4 and up of an address, as many as a span has of them, are combined by exclusive or with as many bits from
/// 7 on. The pattern repeats every 256, 512 or 1024 bytes, and is a function of the address itself: what is
/// swizzled begins at a multiple of that. The same permutation takes a plain place to its swizzled one and back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Swizzle {
    /// Not at all.
    None,
    /// Within 32 bytes.
    Bytes32,
    /// Within 64 bytes.
    Bytes64,
    /// Within 128 bytes.
    Bytes128,
}

impl Swizzle {
    /// Bytes of a span; of one chunk where nothing is permuted.
    #[inline(always)]
    pub const fn span_bytes(self) -> u32 {
        match self {
            Self::None => 16,
            Self::Bytes32 => 32,
            Self::Bytes64 => 64,
            Self::Bytes128 => 128,
        }
    }

    /// Bytes after which the pattern begins anew: what a swizzled array is aligned to.
    #[inline(always)]
    pub const fn pattern_bytes(self) -> u32 {
        match self {
            Self::None => 16,
            swizzled => 8 * swizzled.span_bytes(),
        }
    }

    /// Where the byte at this address lies once it is swizzled. An offset does too, from a place that is aligned to
    /// [`Self::pattern_bytes`].
    #[inline(always)]
    pub const fn apply(self, address: u32) -> u32 {
        self.apply_from(address, 0)
    }

    /// As [`Self::apply`], for a pattern that begins `base_offset` · 128 bytes after such a place.
    #[inline(always)]
    pub(crate) const fn apply_from(self, address: u32, base_offset: u32) -> u32 {
        let chunks = self.span_bytes() / 16 - 1;
        address ^ ((((address >> 7).wrapping_sub(base_offset)) & chunks) << 4)
    }

    /// The swizzle of a tensor map, by its number.
    #[cfg(not(target_arch = "nvptx64"))]
    pub(crate) fn of_map(number: u8) -> Self {
        use kasmina_types::tensor_map::swizzle;
        match number {
            swizzle::BYTES_32 => Self::Bytes32,
            swizzle::BYTES_64 => Self::Bytes64,
            swizzle::BYTES_128 => Self::Bytes128,
            _ => Self::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Swizzle;

    /// In each row of 128 bytes chunk `c` lies where `c ^ (row % 8)` says; narrower spans change every second or
    /// fourth row.
    #[test]
    fn chunks_are_permuted_by_the_rows_of_128_bytes() {
        for (swizzle, chunks) in [
            (Swizzle::Bytes128, 7),
            (Swizzle::Bytes64, 3),
            (Swizzle::Bytes32, 1),
            (Swizzle::None, 0),
        ] {
            for row in 0..16 {
                for chunk in 0..8 {
                    let expected = row * 128 + (chunk ^ (row & chunks)) * 16 + 5;
                    assert_eq!(swizzle.apply(row * 128 + chunk * 16 + 5), expected, "{swizzle:?}");
                    assert_eq!(swizzle.apply(expected), row * 128 + chunk * 16 + 5);
                }
            }
            assert_eq!(swizzle.apply(swizzle.pattern_bytes()), swizzle.pattern_bytes());
        }
    }
}

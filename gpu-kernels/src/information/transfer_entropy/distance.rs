//! The types that distances are taken in.

use bytemuck::Pod;
use kasmina_device::math;
use kasmina_device::shared::Shared;
use kasmina_device::shared_array;
use kasmina_types::transfer_entropy::{TE_BLOCK_THREADS, TE_MAX_DIMS};

/// Candidates of a tile of the kernels for any dimensions.
pub(super) const WIDE_TILE: usize = 32;

/// Coordinates of such a tile.
pub(super) type Candidates<T> = Shared<T, { TE_MAX_DIMS * WIDE_TILE }>;

/// Coordinates of a block's points.
pub(super) type Queries<T> = Shared<T, { TE_MAX_DIMS * TE_BLOCK_THREADS as usize }>;

/// f32 or f64. Nothing here meets a NaN: the series are finite, and of a candidate that does not exist all
/// coordinates are infinite, of a point none.
pub(super) trait Distance: Pod + PartialOrd {
    const ZERO: Self;
    const INFINITY: Self;
    /// Below every distance.
    const BELOW_ALL: Self;

    /// |a − b|, rounded.
    fn between(a: Self, b: Self) -> Self;
    fn difference(a: Self, b: Self) -> Self;
    fn larger(a: Self, b: Self) -> Self;
    fn smaller(a: Self, b: Self) -> Self;
    /// The next distance; of ∞ itself.
    fn above(self) -> Self;
    /// The distance before; of 0, one below every distance.
    fn before(self) -> Self;

    fn candidates() -> Candidates<Self>;
    fn queries() -> Queries<Self>;
}

macro_rules! distance {
    ($type:ty, $larger:expr, $smaller:expr) => {
        const ZERO: Self = 0.0;
        const INFINITY: Self = <$type>::INFINITY;
        const BELOW_ALL: Self = -1.0;

        #[inline(always)]
        fn between(a: Self, b: Self) -> Self {
            (a - b).abs()
        }
        #[inline(always)]
        fn difference(a: Self, b: Self) -> Self {
            a - b
        }
        #[inline(always)]
        fn larger(a: Self, b: Self) -> Self {
            $larger(a, b)
        }
        #[inline(always)]
        fn smaller(a: Self, b: Self) -> Self {
            $smaller(a, b)
        }
        #[inline(always)]
        fn above(self) -> Self {
            if self < Self::INFINITY { Self::from_bits(self.to_bits() + 1) } else { self }
        }
        #[inline(always)]
        fn before(self) -> Self {
            if self > 0.0 { Self::from_bits(self.to_bits() - 1) } else { Self::BELOW_ALL }
        }
    };
}

impl Distance for f32 {
    distance!(f32, math::max, math::min);

    #[inline(always)]
    fn candidates() -> Candidates<Self> {
        shared_array![f32; TE_MAX_DIMS * WIDE_TILE]
    }
    #[inline(always)]
    fn queries() -> Queries<Self> {
        shared_array![f32; TE_MAX_DIMS * TE_BLOCK_THREADS as usize]
    }
}

impl Distance for f64 {
    distance!(f64, |a: f64, b: f64| if a > b { a } else { b }, |a: f64, b: f64| if a < b {
        a
    } else {
        b
    });

    #[inline(always)]
    fn candidates() -> Candidates<Self> {
        shared_array![f64; TE_MAX_DIMS * WIDE_TILE]
    }
    #[inline(always)]
    fn queries() -> Queries<Self> {
        shared_array![f64; TE_MAX_DIMS * TE_BLOCK_THREADS as usize]
    }
}

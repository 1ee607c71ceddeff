//! The five operations as states that absorb elements, merge, and finish.

use bytemuck::{Pod, Zeroable};
use kasmina_device::convert::Float;
use kasmina_device::vector::Vector;
use kasmina_device::{math, unroll};
use kasmina_types::{bf16, dtype::Element, f16};

/// Arithmetic that accumulations need.
pub trait Number: Pod + PartialOrd {
    /// 0.
    const ZERO: Self;
    /// Smaller than all: the neutral element of max.
    const LOWEST: Self;
    /// Larger than all: the neutral element of min.
    const HIGHEST: Self;
    /// a + b.
    fn add(self, other: Self) -> Self;
    /// The larger; NaN where one is.
    fn maximum(self, other: Self) -> Self;
    /// The smaller; NaN where one is.
    fn minimum(self, other: Self) -> Self;
}

/// Division and multiplication besides, for moments.
pub trait Real: Number {
    /// A count as a number, rounded.
    fn from_count(count: u64) -> Self;
    /// a − b.
    fn sub(self, other: Self) -> Self;
    /// a / b.
    fn div(self, other: Self) -> Self;
    /// a·b + c, rounded once.
    fn mul_add(self, b: Self, c: Self) -> Self;
}

/// An element type with the types that it accumulates in.
pub trait Reducible: Element {
    /// Sums.
    type Sum: Number;
    /// Extremes.
    type Extreme: Number;
    /// Means and variances.
    type Moment: Real;
    /// The element in its sums' type: exact.
    fn to_sum(self) -> Self::Sum;
    /// The element in its extremes' type: exact.
    fn to_extreme(self) -> Self::Extreme;
    /// The element in its moments' type: exact.
    fn to_moment(self) -> Self::Moment;
}

/// A reduction of elements of `T`.
pub trait Reducer<T: Reducible> {
    /// What a thread carries.
    type State: Pod;
    /// What a segment is reduced to.
    type Output: Pod;
    /// Nothing absorbed.
    fn identity() -> Self::State;
    /// Absorbs `U` vectors of `L` elements.
    fn absorb<const L: usize, const U: usize>(
        state: Self::State,
        group: &[Vector<T, L>; U],
    ) -> Self::State;
    /// What the two have absorbed together.
    fn merge(a: Self::State, b: Self::State) -> Self::State;
    /// The result for a segment of `count` elements.
    fn finish(state: Self::State, count: u64) -> Self::Output;
}

/// Σx.
pub struct Sum;
/// The largest.
pub struct Max;
/// The smallest.
pub struct Min;
/// Σx / n.
pub struct Mean;
/// Σ(x − mean)² / n.
pub struct Variance;

/// Folds a group pairwise: vectors with vectors, then lanes with lanes; `L` and `U` are powers of two.
#[inline(always)]
fn fold_group<T: Copy, N: Number, const L: usize, const U: usize>(
    group: &[Vector<T, L>; U],
    convert: impl Fn(T) -> N,
    combine: impl Fn(N, N) -> N,
) -> N {
    const { assert!(L.is_power_of_two() && U.is_power_of_two()) };
    let mut rows = [[N::ZERO; L]; U];
    unroll!(u in U => {
        unroll!(l in L => {
            rows[u][l] = convert(group[u].0[l]);
        });
    });
    // Halves of 4, 2, 1: those that the group has.
    unroll!(step in 3 => {
        let height = 4 >> step;
        if height < U {
            unroll!(u in 4 => {
                if u < height {
                    unroll!(l in L => { rows[u][l] = combine(rows[u][l], rows[u + height][l]); });
                }
            });
        }
    });
    unroll!(step in 3 => {
        let width = 4 >> step;
        if width < L {
            unroll!(l in 4 => {
                if l < width {
                    rows[0][l] = combine(rows[0][l], rows[0][l + width]);
                }
            });
        }
    });
    rows[0][0]
}

impl<T: Reducible> Reducer<T> for Sum {
    type State = T::Sum;
    type Output = T::Sum;
    #[inline(always)]
    fn identity() -> T::Sum {
        T::Sum::ZERO
    }
    #[inline(always)]
    fn absorb<const L: usize, const U: usize>(state: T::Sum, group: &[Vector<T, L>; U]) -> T::Sum {
        state.add(fold_group(group, T::to_sum, Number::add))
    }
    #[inline(always)]
    fn merge(a: T::Sum, b: T::Sum) -> T::Sum {
        a.add(b)
    }
    #[inline(always)]
    fn finish(state: T::Sum, _count: u64) -> T::Sum {
        state
    }
}

macro_rules! extreme {
    ($name:ident, $combine:ident, $identity:ident) => {
        impl<T: Reducible> Reducer<T> for $name {
            type State = T::Extreme;
            type Output = T::Extreme;
            #[inline(always)]
            fn identity() -> T::Extreme {
                T::Extreme::$identity
            }
            #[inline(always)]
            fn absorb<const L: usize, const U: usize>(
                state: T::Extreme,
                group: &[Vector<T, L>; U],
            ) -> T::Extreme {
                state.$combine(fold_group(group, T::to_extreme, Number::$combine))
            }
            #[inline(always)]
            fn merge(a: T::Extreme, b: T::Extreme) -> T::Extreme {
                a.$combine(b)
            }
            #[inline(always)]
            fn finish(state: T::Extreme, _count: u64) -> T::Extreme {
                state
            }
        }
    };
}

extreme!(Max, maximum, LOWEST);
extreme!(Min, minimum, HIGHEST);

impl<T: Reducible> Reducer<T> for Mean {
    type State = T::Moment;
    type Output = T::Moment;
    #[inline(always)]
    fn identity() -> T::Moment {
        T::Moment::ZERO
    }
    #[inline(always)]
    fn absorb<const L: usize, const U: usize>(
        state: T::Moment,
        group: &[Vector<T, L>; U],
    ) -> T::Moment {
        state.add(fold_group(group, T::to_moment, Number::add))
    }
    #[inline(always)]
    fn merge(a: T::Moment, b: T::Moment) -> T::Moment {
        a.add(b)
    }
    #[inline(always)]
    fn finish(state: T::Moment, count: u64) -> T::Moment {
        state.div(T::Moment::from_count(count))
    }
}

/// Count, mean and sum of squared deviations, ready to be merged.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Moments<N> {
    count: N,
    mean: N,
    m2: N,
}

// SAFETY: `repr(C)`, three fields of one plain type, hence no padding.
unsafe impl<N: Pod> Pod for Moments<N> {}
// SAFETY: as above.
unsafe impl<N: Pod> Zeroable for Moments<N> {}

impl<N: Real> Moments<N> {
    /// Chan's merge. With nothing on both sides it stays nothing, rather than 0/0.
    #[inline(always)]
    fn merge(a: Self, b: Self) -> Self {
        let count = a.count.add(b.count);
        if count == N::ZERO {
            return a;
        }
        let delta = b.mean.sub(a.mean);
        let share = b.count.div(count);
        let mean = delta.mul_add(share, a.mean);
        // Not δ²·weight: the square of a large δ overflows where the product need not.
        let weighted = delta.mul_add(a.count.mul_add(share, N::ZERO), N::ZERO);
        Self { count, mean, m2: delta.mul_add(weighted, a.m2.add(b.m2)) }
    }
}

impl<T: Reducible> Reducer<T> for Variance {
    type State = Moments<T::Moment>;
    type Output = T::Moment;
    #[inline(always)]
    fn identity() -> Self::State {
        Moments::zeroed()
    }
    #[inline(always)]
    fn absorb<const L: usize, const U: usize>(
        state: Self::State,
        group: &[Vector<T, L>; U],
    ) -> Self::State {
        let count = T::Moment::from_count((L * U) as u64);
        let mean = fold_group(group, T::to_moment, Number::add).div(count);
        let mut m2 = T::Moment::ZERO;
        unroll!(u in U => {
            unroll!(l in L => {
                let deviation = group[u].0[l].to_moment().sub(mean);
                m2 = deviation.mul_add(deviation, m2);
            });
        });
        Moments::merge(state, Moments { count, mean, m2 })
    }
    #[inline(always)]
    fn merge(a: Self::State, b: Self::State) -> Self::State {
        Moments::merge(a, b)
    }
    #[inline(always)]
    fn finish(state: Self::State, count: u64) -> T::Moment {
        state.m2.div(T::Moment::from_count(count))
    }
}

macro_rules! float_number {
    ($type:ident, $fma:path, $maximum:expr, $minimum:expr) => {
        impl Number for $type {
            const ZERO: Self = 0.0;
            const LOWEST: Self = $type::NEG_INFINITY;
            const HIGHEST: Self = $type::INFINITY;
            #[inline(always)]
            fn add(self, other: Self) -> Self {
                self + other
            }
            #[inline(always)]
            fn maximum(self, other: Self) -> Self {
                $maximum(self, other)
            }
            #[inline(always)]
            fn minimum(self, other: Self) -> Self {
                $minimum(self, other)
            }
        }

        impl Real for $type {
            #[inline(always)]
            fn from_count(count: u64) -> Self {
                count as $type
            }
            #[inline(always)]
            fn sub(self, other: Self) -> Self {
                self - other
            }
            #[inline(always)]
            fn div(self, other: Self) -> Self {
                self / other
            }
            #[inline(always)]
            fn mul_add(self, b: Self, c: Self) -> Self {
                $fma(self, b, c)
            }
        }
    };
}

float_number!(f32, math::fma, math::maximum, math::minimum);
float_number!(
    f64,
    math::fma_f64,
    |a: f64, b: f64| if a > b || a.is_nan() { a } else { b },
    |a: f64, b: f64| if a < b || a.is_nan() { a } else { b }
);

macro_rules! integer_number {
    ($type:ident) => {
        impl Number for $type {
            const ZERO: Self = 0;
            const LOWEST: Self = $type::MIN;
            const HIGHEST: Self = $type::MAX;
            #[inline(always)]
            fn add(self, other: Self) -> Self {
                self.wrapping_add(other)
            }
            #[inline(always)]
            fn maximum(self, other: Self) -> Self {
                self.max(other)
            }
            #[inline(always)]
            fn minimum(self, other: Self) -> Self {
                self.min(other)
            }
        }
    };
}

integer_number!(i32);
integer_number!(i64);

macro_rules! reducible {
    ($type:ty: $sum:ty, $extreme:ty, $moment:ty, |$x:ident| $wide:expr) => {
        impl Reducible for $type {
            type Sum = $sum;
            type Extreme = $extreme;
            type Moment = $moment;
            #[inline(always)]
            fn to_sum(self) -> $sum {
                let $x = self;
                $wide as $sum
            }
            #[inline(always)]
            fn to_extreme(self) -> $extreme {
                let $x = self;
                $wide as $extreme
            }
            #[inline(always)]
            fn to_moment(self) -> $moment {
                let $x = self;
                $wide as $moment
            }
        }
    };
}

reducible!(f32: f32, f32, f32, |x| x);
reducible!(f16: f32, f32, f32, |x| Float::to_f32(x));
reducible!(bf16: f32, f32, f32, |x| Float::to_f32(x));
reducible!(f64: f64, f64, f64, |x| x);
reducible!(i32: i64, i32, f64, |x| x);

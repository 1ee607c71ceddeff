//! What sums are taken in, f32 or f64, and the types that operands and results are stored in.

use bytemuck::Pod;
use kasmina_device::convert::{E4m3, Float};
use kasmina_device::global::{Load, Store};
use kasmina_device::math;
use kasmina_device::vector::{LoadHint, StoreHint, Vector};
use kasmina_device::{shared::DynamicShared, unroll};
use kasmina_types::{In, LinearOutput, Out, bf16, f16};

use super::activation::differentiate_f64;
use crate::normalization::activation::{Precision, activate, differentiate};

/// f32 or f64.
pub(crate) trait Accumulator: Pod + PartialEq {
    /// Zero.
    const ZERO: Self;

    /// The nearest value.
    fn of(value: f64) -> Self;

    /// a·b + c, rounded once.
    fn fma(a: Self, b: Self, c: Self) -> Self;

    /// a + b.
    fn add(a: Self, b: Self) -> Self;

    /// a·b.
    fn mul(a: Self, b: Self) -> Self;

    /// Its bits, in the lower half of a word where they are 32.
    fn to_bits(self) -> u64;

    /// The number of these bits.
    fn from_bits(bits: u64) -> Self;

    /// Four neighbours in shared memory.
    ///
    /// # Safety
    /// As `DynamicShared::read_vector`; `index` is a multiple of 4.
    unsafe fn read4(smem: &DynamicShared<Self>, index: usize) -> [Self; 4];

    /// As [`Self::read4`], the other way.
    ///
    /// # Safety
    /// As `DynamicShared::write_vector`; `index` is a multiple of 4.
    unsafe fn write4(smem: &DynamicShared<Self>, index: usize, values: [Self; 4]);

    /// Applies the activation of code `kind`; `half` where the results are stored in 16 bits.
    fn activate<const L: usize>(half: bool, kind: u32, x: &mut [Self; L]);

    /// The GELU of code `kind` of the doubles of x, as exactly as results of 16 bits need it.
    #[cfg(any(not(target_arch = "nvptx64"), target_feature = "sm_90a"))]
    fn gelu_of_halves<const L: usize>(kind: u32, x: &mut [Self; L]);

    /// As [`Self::activate`], with the derivatives.
    fn differentiate<const L: usize>(
        half: bool,
        kind: u32,
        x: &mut [Self; L],
        slopes: &mut [Self; L],
    );

    /// `count` values of the output type of code `output` from `index` on, and zeros; in one access where `whole`.
    ///
    /// # Safety
    /// The values are inside; where `whole`, they are `L`, and aligned to their size together.
    unsafe fn load<const L: usize>(
        from: &In<u8>,
        output: u32,
        index: usize,
        count: usize,
        whole: bool,
    ) -> [Self; L];

    /// As [`Self::load`], the other way.
    ///
    /// # Safety
    /// As [`Self::load`]; no other thread accesses the values.
    unsafe fn store<const L: usize>(
        to: &Out<u8>,
        output: u32,
        index: usize,
        values: [Self; L],
        count: usize,
        whole: bool,
    );
}

/// A type that values are stored in, accumulated in `A`.
pub(crate) trait Stored<A>: Pod {
    /// Exactly.
    fn widen(self) -> A;
    /// The nearest value.
    fn narrow(value: A) -> Self;
}

macro_rules! stored {
    ($($type:ty),*) => {$(
        impl Stored<f32> for $type {
            #[inline(always)]
            fn widen(self) -> f32 {
                self.to_f32()
            }
            #[inline(always)]
            fn narrow(value: f32) -> Self {
                Self::from_f32(value)
            }
        }
    )*};
}
stored!(f32, f16, bf16, E4m3);

impl Stored<f64> for f64 {
    #[inline(always)]
    fn widen(self) -> f64 {
        self
    }
    #[inline(always)]
    fn narrow(value: f64) -> Self {
        value
    }
}

impl Stored<f64> for f32 {
    #[inline(always)]
    fn widen(self) -> f64 {
        f64::from(self)
    }
    #[inline(always)]
    fn narrow(value: f64) -> Self {
        value as f32
    }
}

/// # Safety
/// As [`Accumulator::load`].
#[inline(always)]
unsafe fn load_as<T: Stored<A>, A: Accumulator, const L: usize>(
    from: &In<u8>,
    index: usize,
    count: usize,
    whole: bool,
) -> [A; L] {
    let from: In<T> = from.cast();
    let mut values = [A::ZERO; L];
    if whole {
        // SAFETY: the caller's contract.
        let loaded = unsafe { from.load_vector::<L>(index, LoadHint::Cached) }.0;
        // Not `map`, which may become a call.
        unroll!(l in L, at most 4 => { values[l] = loaded[l].widen(); });
        return values;
    }
    unroll!(l in L, at most 4 => {
        if l < count {
            // SAFETY: one of the `count` values.
            values[l] = unsafe { from.load(index + l) }.widen();
        }
    });
    values
}

/// # Safety
/// As [`Accumulator::store`].
#[inline(always)]
unsafe fn store_as<T: Stored<A>, A: Accumulator, const L: usize>(
    to: &Out<u8>,
    index: usize,
    values: [A; L],
    count: usize,
    whole: bool,
) {
    let to: Out<T> = to.cast();
    if whole {
        // SAFETY: the caller's contract.
        unsafe { to.store_vector(index, Vector(values).map(T::narrow), StoreHint::Cached) };
        return;
    }
    unroll!(l in L, at most 4 => {
        if l < count {
            // SAFETY: one of the `count` values.
            unsafe { to.store(index + l, T::narrow(values[l])) };
        }
    });
}

macro_rules! accesses {
    ($first:ty, $($code:ident: $type:ty),*) => {
        #[inline(always)]
        unsafe fn load<const L: usize>(
            from: &In<u8>,
            output: u32,
            index: usize,
            count: usize,
            whole: bool,
        ) -> [Self; L] {
            $(if output == LinearOutput::$code as u32 {
                // SAFETY: the caller's contract.
                return unsafe { load_as::<$type, Self, L>(from, index, count, whole) };
            })*
            // SAFETY: the caller's contract.
            unsafe { load_as::<$first, Self, L>(from, index, count, whole) }
        }

        #[inline(always)]
        unsafe fn store<const L: usize>(
            to: &Out<u8>,
            output: u32,
            index: usize,
            values: [Self; L],
            count: usize,
            whole: bool,
        ) {
            $(if output == LinearOutput::$code as u32 {
                // SAFETY: the caller's contract.
                return unsafe { store_as::<$type, Self, L>(to, index, values, count, whole) };
            })*
            // SAFETY: the caller's contract.
            unsafe { store_as::<$first, Self, L>(to, index, values, count, whole) };
        }
    };
}

impl Accumulator for f32 {
    const ZERO: Self = 0.0;

    #[inline(always)]
    fn of(value: f64) -> Self {
        value as f32
    }

    #[inline(always)]
    fn fma(a: Self, b: Self, c: Self) -> Self {
        math::fma(a, b, c)
    }

    #[inline(always)]
    fn add(a: Self, b: Self) -> Self {
        a + b
    }

    #[inline(always)]
    fn mul(a: Self, b: Self) -> Self {
        a * b
    }

    #[inline(always)]
    fn to_bits(self) -> u64 {
        u64::from(f32::to_bits(self))
    }

    #[inline(always)]
    fn from_bits(bits: u64) -> Self {
        f32::from_bits(bits as u32)
    }

    #[inline(always)]
    unsafe fn read4(smem: &DynamicShared<Self>, index: usize) -> [Self; 4] {
        // SAFETY: the caller's contract.
        unsafe { smem.read_vector::<4>(index) }.0
    }

    #[inline(always)]
    unsafe fn write4(smem: &DynamicShared<Self>, index: usize, values: [Self; 4]) {
        // SAFETY: the caller's contract.
        unsafe { smem.write_vector(index, Vector(values)) };
    }

    #[inline(always)]
    fn activate<const L: usize>(half: bool, kind: u32, x: &mut [Self; L]) {
        let precision = if half { Precision::Half } else { Precision::Full };
        activate(precision, kind, x);
    }

    #[cfg(any(not(target_arch = "nvptx64"), target_feature = "sm_90a"))]
    #[inline(always)]
    fn gelu_of_halves<const L: usize>(kind: u32, x: &mut [Self; L]) {
        super::gelu::gelu_of_halves(kind, x);
    }

    #[inline(always)]
    fn differentiate<const L: usize>(
        half: bool,
        kind: u32,
        x: &mut [Self; L],
        slopes: &mut [Self; L],
    ) {
        let precision = if half { Precision::Half } else { Precision::Full };
        differentiate(precision, kind, x, slopes);
    }

    accesses!(f32, F16: f16, Bf16: bf16);
}

impl Accumulator for f64 {
    const ZERO: Self = 0.0;

    #[inline(always)]
    fn of(value: f64) -> Self {
        value
    }

    #[inline(always)]
    fn fma(a: Self, b: Self, c: Self) -> Self {
        math::fma_f64(a, b, c)
    }

    #[inline(always)]
    fn add(a: Self, b: Self) -> Self {
        a + b
    }

    #[inline(always)]
    fn mul(a: Self, b: Self) -> Self {
        a * b
    }

    #[inline(always)]
    fn to_bits(self) -> u64 {
        f64::to_bits(self)
    }

    #[inline(always)]
    fn from_bits(bits: u64) -> Self {
        f64::from_bits(bits)
    }

    #[inline(always)]
    unsafe fn read4(smem: &DynamicShared<Self>, index: usize) -> [Self; 4] {
        // SAFETY: the caller's contract.
        let ([a, b], [c, d]) =
            unsafe { (smem.read_vector::<2>(index).0, smem.read_vector::<2>(index + 2).0) };
        [a, b, c, d]
    }

    #[inline(always)]
    unsafe fn write4(smem: &DynamicShared<Self>, index: usize, [a, b, c, d]: [Self; 4]) {
        // SAFETY: the caller's contract.
        unsafe {
            smem.write_vector(index, Vector([a, b]));
            smem.write_vector(index + 2, Vector([c, d]));
        }
    }

    #[inline(always)]
    fn activate<const L: usize>(_half: bool, kind: u32, x: &mut [Self; L]) {
        unroll!(l in L, at most 4 => { x[l] = differentiate_f64(kind, x[l]).0; });
    }

    #[cfg(any(not(target_arch = "nvptx64"), target_feature = "sm_90a"))]
    #[inline(always)]
    fn gelu_of_halves<const L: usize>(kind: u32, x: &mut [Self; L]) {
        unroll!(l in L, at most 4 => { x[l] = differentiate_f64(kind, 2.0 * x[l]).0; });
    }

    #[inline(always)]
    fn differentiate<const L: usize>(
        _half: bool,
        kind: u32,
        x: &mut [Self; L],
        slopes: &mut [Self; L],
    ) {
        unroll!(l in L, at most 4 => { (x[l], slopes[l]) = differentiate_f64(kind, x[l]); });
    }

    accesses!(f32, F64: f64);
}

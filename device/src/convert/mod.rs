//! Conversions between f32 and the narrow formats, rounding to nearest even.

pub use kasmina_types::E4m3;
use kasmina_types::{bf16, f16};

#[cfg(target_arch = "nvptx64")]
mod nvptx;
#[cfg(not(target_arch = "nvptx64"))]
mod simt;

#[cfg(not(target_feature = "sm_89"))]
mod fp8;

#[cfg(target_arch = "nvptx64")]
use nvptx as imp;
#[cfg(not(target_arch = "nvptx64"))]
use simt as imp;

/// An element that kernels compute with in f32.
pub trait Float: kasmina_types::dtype::Element {
    /// The same value in f32: exact.
    fn to_f32(self) -> f32;
    /// The nearest value of this type; ties to even, too large to ∞ where it has one.
    fn from_f32(value: f32) -> Self;
}

impl Float for f32 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        value
    }
}

impl Float for f16 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        imp::f16_to_f32(self)
    }
    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        imp::f32_to_f16(value)
    }
}

impl Float for bf16 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        imp::f32_to_bf16(value)
    }
}

/// Two of them in a word, the first in the lower half: one instruction from compute capability 8.0 on.
pub trait Packed: Float {
    /// As [`Float::from_f32`].
    fn pack(low: f32, high: f32) -> u32;
}

impl Packed for f16 {
    #[inline(always)]
    fn pack(low: f32, high: f32) -> u32 {
        imp::pack_f16(low, high)
    }
}

impl Packed for bf16 {
    #[inline(always)]
    fn pack(low: f32, high: f32) -> u32 {
        imp::pack_bf16(low, high)
    }
}

/// An 8-bit float with 5 bits of exponent and 2 of mantissa: with infinities, largest value 57344.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct E5m2(pub u8);

/// What is too large for it, infinities too, becomes ±448. NaN stays NaN.
impl Float for E4m3 {
    #[inline(always)]
    fn to_f32(self) -> f32 {
        imp::e4m3_to_f32(self.0)
    }
    #[inline(always)]
    fn from_f32(value: f32) -> Self {
        Self(imp::f32_to_e4m3(value))
    }
}

impl E5m2 {
    /// Exact.
    #[inline(always)]
    pub fn to_f32(self) -> f32 {
        imp::e5m2_to_f32(self.0)
    }
    /// The nearest value; what is too large, infinities too, becomes ±57344. NaN stays NaN.
    #[inline(always)]
    pub fn from_f32_saturating(value: f32) -> Self {
        Self(imp::f32_to_e5m2(value))
    }
}

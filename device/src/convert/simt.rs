//! `half`'s conversions, and fp8 in integer arithmetic.

use kasmina_types::{bf16, f16};

pub(super) use super::fp8::{e4m3_to_f32, e5m2_to_f32, f32_to_e4m3, f32_to_e5m2};

pub(super) fn f16_to_f32(value: f16) -> f32 {
    value.to_f32()
}

pub(super) fn f32_to_f16(value: f32) -> f16 {
    f16::from_f32(value)
}

pub(super) fn f32_to_bf16(value: f32) -> bf16 {
    bf16::from_f32(value)
}

pub(super) fn pack_f16(low: f32, high: f32) -> u32 {
    u32::from(f32_to_f16(low).to_bits()) | u32::from(f32_to_f16(high).to_bits()) << 16
}

pub(super) fn pack_bf16(low: f32, high: f32) -> u32 {
    u32::from(f32_to_bf16(low).to_bits()) | u32::from(f32_to_bf16(high).to_bits()) << 16
}

//! `cvt`, and integer arithmetic on the targets that lack it.

use core::arch::asm;

use kasmina_types::{bf16, f16};

#[inline(always)]
pub(super) fn f16_to_f32(value: f16) -> f32 {
    half_bits_to_f32(value.to_bits())
}

#[inline(always)]
fn half_bits_to_f32(bits: u16) -> f32 {
    let value: f32;
    // SAFETY: arithmetic on registers.
    unsafe {
        asm!("cvt.f32.f16 {}, {};", out(reg32) value, in(reg16) bits, options(pure, nomem, nostack));
    }
    value
}

#[inline(always)]
pub(super) fn f32_to_f16(value: f32) -> f16 {
    let bits: u16;
    // SAFETY: arithmetic on registers.
    unsafe {
        asm!("cvt.rn.f16.f32 {}, {};", out(reg16) bits, in(reg32) value,
            options(pure, nomem, nostack));
    }
    f16::from_bits(bits)
}

#[cfg(target_feature = "sm_80")]
#[inline(always)]
pub(super) fn f32_to_bf16(value: f32) -> bf16 {
    let bits: u16;
    // SAFETY: arithmetic on registers.
    unsafe {
        asm!("cvt.rn.bf16.f32 {}, {};", out(reg16) bits, in(reg32) value,
            options(pure, nomem, nostack));
    }
    bf16::from_bits(bits)
}

macro_rules! pack {
    ($($name:ident = $instruction:literal, $one:ident);*) => {$(
        #[cfg(target_feature = "sm_80")]
        #[inline(always)]
        pub(super) fn $name(low: f32, high: f32) -> u32 {
            let word: u32;
            // SAFETY: arithmetic on registers; the instruction's first operand goes to the upper half.
            unsafe {
                asm!(concat!($instruction, " {}, {}, {};"), out(reg32) word, in(reg32) high,
                    in(reg32) low, options(pure, nomem, nostack));
            }
            word
        }

        #[cfg(not(target_feature = "sm_80"))]
        #[inline(always)]
        pub(super) fn $name(low: f32, high: f32) -> u32 {
            u32::from($one(low).to_bits()) | u32::from($one(high).to_bits()) << 16
        }
    )*};
}
pack!(pack_f16 = "cvt.rn.f16x2.f32", f32_to_f16; pack_bf16 = "cvt.rn.bf16x2.f32", f32_to_bf16);

/// Adding just under half a unit, and one more where the last bit is set, rounds to even.
#[cfg(not(target_feature = "sm_80"))]
#[inline(always)]
pub(super) fn f32_to_bf16(value: f32) -> bf16 {
    let bits = value.to_bits();
    if bits & 0x7fff_ffff > 0x7f80_0000 {
        return bf16::from_bits(0x7fff);
    }
    bf16::from_bits(((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) as u16)
}

#[cfg(target_feature = "sm_89")]
mod hardware {
    use super::asm;

    macro_rules! fp8 {
        ($encode:ident, $decode:ident, $format:literal) => {
            #[inline(always)]
            pub(in super::super) fn $encode(value: f32) -> u8 {
                let pair: u16;
                // SAFETY: arithmetic on registers; the value goes to the lower half of the pair.
                unsafe {
                    asm!(concat!("cvt.rn.satfinite.", $format, "x2.f32 {}, {}, {};"),
                        out(reg16) pair, in(reg32) 0.0_f32, in(reg32) value,
                        options(pure, nomem, nostack));
                }
                pair as u8
            }

            #[inline(always)]
            pub(in super::super) fn $decode(bits: u8) -> f32 {
                let pair: u32;
                // SAFETY: arithmetic on registers.
                unsafe {
                    asm!(concat!("cvt.rn.f16x2.", $format, "x2 {}, {};"),
                        out(reg32) pair, in(reg16) u16::from(bits), options(pure, nomem, nostack));
                }
                super::half_bits_to_f32(pair as u16)
            }
        };
    }

    fp8!(f32_to_e4m3, e4m3_to_f32, "e4m3");
    fp8!(f32_to_e5m2, e5m2_to_f32, "e5m2");
}

#[cfg(not(target_feature = "sm_89"))]
pub(super) use super::fp8::{e4m3_to_f32, e5m2_to_f32, f32_to_e4m3, f32_to_e5m2};
#[cfg(target_feature = "sm_89")]
pub(super) use hardware::{e4m3_to_f32, e5m2_to_f32, f32_to_e4m3, f32_to_e5m2};

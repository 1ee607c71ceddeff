//! fp8 in integer arithmetic, for targets without the instructions (before sm_89).

/// A small float's shape.
struct Format {
    mantissa_bits: u32,
    bias: i32,
    /// Bits of the largest finite magnitude.
    largest: u8,
    nan: u8,
    /// Magnitudes above this are infinite (equal) or NaN; `None` where only `nan` itself is special.
    infinity: Option<u8>,
}

const E4M3: Format = Format { mantissa_bits: 3, bias: 7, largest: 0x7e, nan: 0x7f, infinity: None };
const E5M2: Format =
    Format { mantissa_bits: 2, bias: 15, largest: 0x7b, nan: 0x7f, infinity: Some(0x7c) };

/// 2ⁿ for the exponents that fp8 has.
#[inline(always)]
fn exp2_integer(n: i32) -> f32 {
    f32::from_bits(((n + 127) as u32) << 23)
}

#[inline(always)]
fn decode(bits: u8, format: &Format) -> f32 {
    let magnitude = bits & 0x7f;
    let exponent = i32::from(magnitude >> format.mantissa_bits);
    let mantissa = f32::from(magnitude & ((1 << format.mantissa_bits) - 1));
    let unit = 1.0 / (1u32 << format.mantissa_bits) as f32;
    let value = match format.infinity {
        Some(infinity) if magnitude == infinity => f32::INFINITY,
        Some(infinity) if magnitude > infinity => f32::NAN,
        None if magnitude == format.nan => f32::NAN,
        _ if exponent == 0 => mantissa * unit * exp2_integer(1 - format.bias),
        _ => (1.0 + mantissa * unit) * exp2_integer(exponent - format.bias),
    };
    if bits & 0x80 == 0 { value } else { -value }
}

#[inline(always)]
fn encode_saturating(value: f32, format: &Format) -> u8 {
    let bits = value.to_bits();
    let sign = ((bits >> 24) & 0x80) as u8;
    let magnitude = bits & 0x7fff_ffff;
    if magnitude > 0x7f80_0000 {
        return sign | format.nan;
    }
    // The exponent of the result's last place, no smaller than that of the subnormals.
    let exponent = ((magnitude >> 23) as i32 - 127).max(1 - format.bias);
    let step = exponent - format.mantissa_bits as i32;
    // Scaled so that one step is 1; f32 holds it exactly, and adding 1.5·2²³ rounds to even.
    let scaled = f32::from_bits(magnitude) * exp2_integer(-step);
    let rounded = if scaled < 4096.0 { (scaled + 12_582_912.0) - 12_582_912.0 } else { 4096.0 };
    // Rounding up to the next power of two carries into the exponent by itself.
    let biased = (exponent + format.bias - 1) << format.mantissa_bits;
    let code = biased + rounded as i32;
    sign | code.min(i32::from(format.largest)) as u8
}

#[inline(always)]
pub(super) fn e4m3_to_f32(bits: u8) -> f32 {
    decode(bits, &E4M3)
}

#[inline(always)]
pub(super) fn e5m2_to_f32(bits: u8) -> f32 {
    decode(bits, &E5M2)
}

#[inline(always)]
pub(super) fn f32_to_e4m3(value: f32) -> u8 {
    encode_saturating(value, &E4M3)
}

#[inline(always)]
pub(super) fn f32_to_e5m2(value: f32) -> u8 {
    encode_saturating(value, &E5M2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        assert_eq!(e4m3_to_f32(0x38), 1.0);
        assert_eq!(e4m3_to_f32(0x7e), 448.0);
        assert_eq!(e4m3_to_f32(0x01), 2f32.powi(-9));
        assert!(e4m3_to_f32(0xff).is_nan());
        assert_eq!(e5m2_to_f32(0x3c), 1.0);
        assert_eq!(e5m2_to_f32(0x7b), 57344.0);
        assert_eq!(e5m2_to_f32(0xfc), f32::NEG_INFINITY);
        assert!(e5m2_to_f32(0x7d).is_nan());
    }

    #[test]
    fn every_finite_code_survives_the_round_trip() {
        for code in 0..=255u8 {
            let value = e4m3_to_f32(code);
            if value.is_finite() {
                assert_eq!(f32_to_e4m3(value), code, "e4m3 {code:#x} = {value}");
            }
            let value = e5m2_to_f32(code);
            if value.is_finite() {
                assert_eq!(f32_to_e5m2(value), code, "e5m2 {code:#x} = {value}");
            }
        }
    }

    /// Nearest, ties to even, by comparison with every code.
    #[test]
    fn encoding_rounds_to_nearest_even() {
        for i in -2000..2000 {
            let value = i as f32 * 0.237;
            let chosen = f32_to_e4m3(value);
            let error = (e4m3_to_f32(chosen) - value).abs();
            for code in (0..=255u8).filter(|&code| e4m3_to_f32(code).is_finite()) {
                let other = (e4m3_to_f32(code) - value).abs();
                assert!(
                    error < other
                        || error == other && (chosen & 1 == 0 || code == chosen)
                        || e4m3_to_f32(code) == e4m3_to_f32(chosen),
                    "{value}: {chosen:#x} or {code:#x}"
                );
            }
        }
    }

    #[test]
    fn what_is_too_large_saturates_and_nan_stays() {
        for large in [449.0, 480.0, 1e30, f32::INFINITY] {
            assert_eq!(e4m3_to_f32(f32_to_e4m3(large)), 448.0);
            assert_eq!(e4m3_to_f32(f32_to_e4m3(-large)), -448.0);
        }
        assert_eq!(e5m2_to_f32(f32_to_e5m2(f32::INFINITY)), 57344.0);
        assert!(e4m3_to_f32(f32_to_e4m3(f32::NAN)).is_nan());
        assert_eq!(f32_to_e4m3(1e-30), 0);
        assert_eq!(f32_to_e4m3(-0.0), 0x80);
    }
}

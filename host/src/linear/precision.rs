//! In which precision a product is computed, and the rule that chooses it.

use std::fmt;

use kasmina_types::DType;

use super::error::LinearError;
use super::shape::LinearShape;

/// How products are multiplied and added.
///
/// [`Self::Auto`] takes, for A and B of
///
/// | elements | precision |
/// |---|---|
/// | f64 | `F64` |
/// | f32, on tensor cores of compute capability 8.0 or newer, of no product of a matrix and a vector that `gemv` computes | `Bf16` where the stated tolerance is 4e-3 or more, m·n·k is 2³² or more and m·n is 1536·(m + n) or more, in [`super::Linear::forward`] without adaptive precision alone; else `Tf32` where the tolerance is 1e-3 or more and m·n·k is 2²¹ or more |
/// | other f32 | `F32` where the tolerance is 1e-6 or more; else `F64` |
/// | f16, bf16 | their own: products of them are exact, sums are f32 |
/// | fp8 | `Fp8Fast` where the stated tolerance is [`Self::error_bound_of`] its k or more; else `Fp8` where it is 1e-2 or more; else `F32` |
///
/// # Conversion of f32
/// [`super::Linear::forward`] takes f32 in every precision. For `Bf16`, `F16`, `Fp8` and `Fp8Fast` it rounds A and B on the
/// device first, to nearest, ties to even, in memory that is kept between calls.
///
/// | precision | what is rounded to | what is not finite, and what is too large |
/// |---|---|---|
/// | `Bf16` | bf16, which has the range of f32 | stays; the largest f32 become ±∞ |
/// | `F16` | f16: 11 bits of magnitudes from 6.1e-5 to 65504, fewer below | stays; from 65520 on ±∞ |
/// | `Fp8`, `Fp8Fast` | x / s in fp8 e4m3, with one s = max \|x\| / 448 over all finite x for A and one for B: 4 bits of magnitudes down to 3.5e-5·max \|x\|, fewer below. s is at least 1.2e-38, and 1 of zeros | NaN, infinities too: fp8 has none |
///
/// NaN stays NaN. A device without tensor cores for the type computes in f32 from the operands as they are, and the CPU in f64.
/// [`super::GroupedPlan`] and [`super::Linear::backward`] convert nothing: there such a precision of f32 is refused, and
/// `Auto` takes tf32 at most.
///
/// # Sums of fp8
/// Products of fp8 are exact. The tensor cores of compute capability 9.0 add them in registers of f32, of which they keep 14
/// bits: 32 products and the sum so far are cut off, towards 0, below 2⁻¹³ of the power of two in the largest of them. So a
/// sum of k products of one sign loses up to k·2⁻¹⁵ of itself (a tenth at k = 4096; beyond 2¹⁵ products of like size nothing
/// is added any more), one of products of independent signs about √k·5e-5. `Fp8Fast` adds all of k this way. `Fp8` adds
/// 128 k this way and such sums in f32: it loses 2⁻⁸ and 8e-4 at most, whatever k. These figures are of that model of the
/// hardware, which its vendor does not document; the executor does not show it: its tensor cores add in f32.
///
/// A device without tensor cores for what was chosen, or asked for, computes in f32 instead: [`super::Chosen`] says so.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// By the rule.
    #[default]
    Auto,
    /// Sums in f64: of f64, or of f32.
    F64,
    /// Products and sums in f32, without tensor cores: of every type but f64. Sums of a row or a column of results of f32
    /// may be f64, where `gemv` computes it.
    F32,
    /// f32 rounded to 10 bits of mantissa, sums in f32.
    Tf32,
    /// bf16, or f32 rounded to it, sums in f32.
    Bf16,
    /// f16, or f32 rounded to it, sums in f32.
    F16,
    /// fp8 e4m3, or f32 scaled and rounded to it, sums of 128 k by the tensor cores, and sums of these in f32. The only one
    /// with scales for blocks.
    Fp8,
    /// The same with sums by the tensor cores alone: what cuBLASLt calls fast accumulation. With scales for blocks it is `Fp8`.
    Fp8Fast,
}

/// m·n·k from which on tensor cores pay for f32: below, the launch is most of the time.
pub(super) const TENSOR_WORK: u128 = 1 << 21;

impl Precision {
    /// Every precision.
    pub const ALL: [Self; 8] = [
        Self::Auto,
        Self::F64,
        Self::F32,
        Self::Tf32,
        Self::Bf16,
        Self::F16,
        Self::Fp8,
        Self::Fp8Fast,
    ];

    /// The name as it stands on the command line and in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::F64 => "f64",
            Self::F32 => "f32",
            Self::Tf32 => "tf32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
            Self::Fp8 => "fp8",
            Self::Fp8Fast => "fp8-fast",
        }
    }

    /// ‖D − D₆₄‖ / ‖D₆₄‖ that it stays below, in Frobenius norms, where D₆₄ is the product in f64 of the operands as they
    /// are given: what the rounding of operands, products, sums and results (of the precision's own type; f32 for
    /// `Tf32`, of 16 bits for fp8) brings in together, where the operands' roundings are independent, and not most results
    /// lie far in a GELU's negative tail. Operands of f32 that are rounded to fp8 bring in [`Self::FP8_CONVERSION`] besides.
    /// For `Auto` it is that of no precision: 0. For `Fp8Fast` it holds where k is 1024 or less, or where signs are
    /// independent and k is 2¹⁹ or less: see [`Self::error_bound_of`].
    pub const fn error_bound(self) -> f64 {
        match self {
            Self::Auto => 0.0,
            Self::F64 => 1e-12,
            Self::F32 => 1e-6,
            Self::Tf32 => 1e-3,
            Self::Bf16 => 4e-3,
            Self::F16 => 6e-4,
            Self::Fp8 => 1e-2,
            Self::Fp8Fast => 4e-2,
        }
    }

    /// As [`Self::error_bound`], for sums of `k` products whatever their signs: of `Fp8Fast` the greater of 1e-2 and k·2⁻¹⁵,
    /// at most 1.
    pub fn error_bound_of(self, k: usize) -> f64 {
        match self {
            Self::Fp8Fast => (k as f64 / 32_768.0).clamp(Self::Fp8.error_bound(), 1.0),
            _ => self.error_bound(),
        }
    }

    /// What the rounding of f32 operands to fp8 adds to [`Self::error_bound`], where few magnitudes are below 3.5e-5 of the
    /// largest: each element is off by up to 1/16 of itself, by 2.6e-2 in the root of the mean square.
    pub const FP8_CONVERSION: f64 = 5e-2;

    /// As [`Self::resolved`], where f32 may be converted. `has` says whether the device has the tensor cores for a precision, of
    /// f32 with the conversion to it.
    pub(crate) fn resolved_converting(
        self,
        dtype: DType,
        tolerance: f64,
        shape: &LinearShape,
        has: impl Fn(Self) -> bool,
    ) -> Result<Self, LinearError> {
        let by_rule = tolerance >= Self::Bf16.error_bound() && shape.pays_conversion();
        match (dtype, self) {
            (DType::F32, Self::Bf16 | Self::F16 | Self::Fp8 | Self::Fp8Fast) => {
                Ok(if has(self) { self } else { Self::F32 })
            }
            (DType::F32, Self::Auto) if by_rule && has(Self::Bf16) => Ok(Self::Bf16),
            _ => self.resolved(dtype, tolerance, shape, has(Self::Tf32)),
        }
    }

    /// The precision for elements of `dtype`, by the rule where it is `Auto`, where nothing is converted. Of f32 `tensor_cores` says whether the
    /// device multiplies tf32.
    pub(crate) fn resolved(
        self,
        dtype: DType,
        tolerance: f64,
        shape: &LinearShape,
        tensor_cores: bool,
    ) -> Result<Self, LinearError> {
        let own = match dtype {
            DType::F64 => Self::F64,
            DType::F16 => Self::F16,
            DType::Bf16 => Self::Bf16,
            DType::E4m3 => Self::Fp8,
            DType::F32 | DType::I32 => Self::F32,
        };
        let expected = match dtype {
            DType::F64 => "f64",
            DType::F32 => "f64, f32, tf32",
            DType::F16 => "f32, f16",
            DType::Bf16 => "f32, bf16",
            DType::E4m3 => "f32, fp8, fp8-fast",
            DType::I32 => "none",
        };
        let chosen = match (dtype, self) {
            (DType::F32, Self::Auto) => {
                if tolerance >= Self::Tf32.error_bound() && shape.work() >= TENSOR_WORK {
                    Self::Tf32
                } else if tolerance >= Self::F32.error_bound() {
                    Self::F32
                } else {
                    Self::F64
                }
            }
            (DType::E4m3, Self::Auto) => {
                let allowed = |precision: &Self| tolerance >= precision.error_bound_of(shape.k);
                [Self::Fp8Fast, Self::Fp8].into_iter().find(allowed).unwrap_or(Self::F32)
            }
            (DType::E4m3, Self::Fp8Fast) => self,
            (_, Self::Auto) => own,
            (DType::F32, Self::F64 | Self::Tf32) => self,
            (DType::F32 | DType::F16 | DType::Bf16 | DType::E4m3, Self::F32) => self,
            _ if self == own => own,
            (DType::F32, _) => return Err(LinearError::Conversion { precision: self }),
            _ => return Err(LinearError::Precision { dtype, precision: self, expected }),
        };
        Ok(if chosen == Self::Tf32 && !tensor_cores { Self::F32 } else { chosen })
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use kasmina_types::Layout;

    use super::*;

    fn chosen(dtype: DType, tolerance: f64, edge: usize, tensor_cores: bool) -> Precision {
        let shape = LinearShape::new(Layout::NN, edge, edge, edge);
        Precision::Auto.resolved(dtype, tolerance, &shape, tensor_cores).unwrap()
    }

    #[test]
    fn auto_takes_the_fastest_that_the_tolerance_allows() {
        assert_eq!(chosen(DType::F32, 1e-2, 512, true), Precision::Tf32);
        assert_eq!(chosen(DType::F32, 1e-3, 128, true), Precision::Tf32);
        assert_eq!(chosen(DType::F32, 1e-3, 127, true), Precision::F32);
        assert_eq!(chosen(DType::F32, 1e-3, 512, false), Precision::F32);
        assert_eq!(chosen(DType::F32, 9e-4, 512, true), Precision::F32);
        assert_eq!(chosen(DType::F32, 1e-7, 512, true), Precision::F64);
        assert_eq!(chosen(DType::F64, 1.0, 512, true), Precision::F64);
        assert_eq!(chosen(DType::Bf16, 1e-9, 512, false), Precision::Bf16);
        assert_eq!(chosen(DType::E4m3, 1e-2, 512, false), Precision::Fp8);
        assert_eq!(chosen(DType::E4m3, 1e-2, 320, false), Precision::Fp8Fast);
        assert_eq!(chosen(DType::E4m3, 4e-2, 1024, true), Precision::Fp8Fast);
        assert_eq!(chosen(DType::E4m3, 4e-2, 4096, true), Precision::Fp8);
        assert_eq!(chosen(DType::E4m3, 1.0, 1 << 20, true), Precision::Fp8Fast);
        assert_eq!(chosen(DType::E4m3, 9e-3, 64, true), Precision::F32);
        assert_eq!(chosen(DType::E4m3, 1e-9, 64, true), Precision::F32);
    }

    fn converting(
        precision: Precision,
        tolerance: f64,
        [m, n, k]: [usize; 3],
        has: impl Fn(Precision) -> bool,
    ) -> Precision {
        let shape = LinearShape::new(Layout::NN, m, n, k);
        precision.resolved_converting(DType::F32, tolerance, &shape, has).unwrap()
    }

    #[test]
    fn auto_converts_what_is_large_enough() {
        let of = |tolerance, shape| converting(Precision::Auto, tolerance, shape, |_| true);
        assert_eq!(of(4e-3, [4096, 4096, 256]), Precision::Bf16);
        assert_eq!(of(1.0, [3072, 3072, 2048]), Precision::Bf16);
        assert_eq!(of(3.9e-3, [4096, 4096, 2048]), Precision::Tf32);
        assert_eq!(of(4e-3, [4096, 4096, 255]), Precision::Tf32);
        // Few results for the operands' elements.
        assert_eq!(of(4e-3, [3072, 3071, 4096]), Precision::Tf32);
        assert_eq!(of(4e-3, [64, 1 << 14, 1 << 14]), Precision::Tf32);
        assert_eq!(of(1e-5, [2048, 2048, 2048]), Precision::F32);
        assert_eq!(of(1e-7, [2048, 2048, 2048]), Precision::F64);
        let large = [4096; 3];
        let tf32_alone = |precision| precision == Precision::Tf32;
        assert_eq!(converting(Precision::Auto, 1e-2, large, tf32_alone), Precision::Tf32);
        assert_eq!(converting(Precision::Auto, 1e-2, large, |_| false), Precision::F32);
        let own = LinearShape::new(Layout::NN, 4096, 4096, 4096);
        let f16 = Precision::Auto.resolved_converting(DType::F16, 1e-2, &own, |_| true).unwrap();
        assert_eq!(f16, Precision::F16);
    }

    #[test]
    fn f32_has_every_precision_where_it_is_converted() {
        for precision in Precision::ALL.into_iter().filter(|&one| one != Precision::Auto) {
            assert_eq!(converting(precision, 1e-9, [3; 3], |_| true), precision);
            let without = converting(precision, 1e-9, [3; 3], |_| false);
            let is_f64 = precision == Precision::F64;
            assert_eq!(without, if is_f64 { precision } else { Precision::F32 });
        }
    }

    #[test]
    fn what_a_type_has_not_is_refused_by_name() {
        let shape = LinearShape::new(Layout::NN, 1, 1, 1);
        for (dtype, precision) in [
            (DType::F64, Precision::F32),
            (DType::Bf16, Precision::F16),
            (DType::F32, Precision::Fp8),
            (DType::Bf16, Precision::Fp8Fast),
        ] {
            let why = precision.resolved(dtype, 1.0, &shape, true).unwrap_err().to_string();
            assert!(why.contains(precision.name()) && why.contains(dtype.name()), "{why}");
        }
    }
}

//! How far a result is from the reference, and how far it may be.

use thiserror::Error;

use crate::summation::pairwise_sum;

/// The arrays of a comparison differ in length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "comparison: expected {expected} values as in the reference, got {got}; compare equal shapes"
)]
pub struct LengthMismatch {
    /// Length of the reference.
    pub expected: usize,
    /// Length of the output.
    pub got: usize,
}

/// The distance of an output from its reference.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Comparison {
    /// Largest |out − ref| / max(|ref|, scale); infinite where a NaN or an infinity is not matched.
    pub max_rel_error: f64,
    /// ‖out − ref‖ / ‖ref‖ over the finite values; infinite where a NaN or an infinity is not matched.
    pub norm_rel_error: f64,
    /// Where `max_rel_error` was found; `None` when nothing differs.
    pub worst_index: Option<usize>,
    /// First index where the one is NaN, +∞ or −∞ and the other is not.
    pub first_mismatch: Option<usize>,
}

/// Compares against the reference's own magnitude: `scale` is the root mean square of its finite values.
///
/// An element much smaller than its neighbours is thus judged by their size, as the rounding of a blend or
/// a reduction is. An all-zero reference must be met exactly.
///
/// # Errors
/// Different lengths.
pub fn compare(out: &[f64], reference: &[f64]) -> Result<Comparison, LengthMismatch> {
    compare_to_scale(out, reference, root_mean_square(reference))
}

/// Compares with a `scale` ≥ 0 below which errors count as absolute.
///
/// A scale that is not finite counts as 0. For a sum whose terms cancel it is Σ|v|, the magnitude that its rounding errors are proportional to.
///
/// # Errors
/// Different lengths.
pub fn compare_to_scale(
    out: &[f64],
    reference: &[f64],
    scale: f64,
) -> Result<Comparison, LengthMismatch> {
    if out.len() != reference.len() {
        return Err(LengthMismatch { expected: reference.len(), got: out.len() });
    }
    // An infinite scale would hide every error.
    let scale = if scale.is_finite() { scale } else { 0.0 };
    let mut comparison = Comparison {
        max_rel_error: 0.0,
        norm_rel_error: 0.0,
        worst_index: None,
        first_mismatch: None,
    };
    let mut differences = vec![0.0; out.len()];
    for (i, (&o, &r)) in out.iter().zip(reference).enumerate() {
        if o == r || (o.is_nan() && r.is_nan()) {
            continue;
        }
        let error = if o.is_finite() && r.is_finite() {
            differences[i] = o - r;
            // 0/0 cannot be: o ≠ r. With r = 0 and scale = 0 the error is infinite.
            differences[i].abs() / r.abs().max(scale)
        } else {
            comparison.first_mismatch.get_or_insert(i);
            f64::INFINITY
        };
        if error > comparison.max_rel_error {
            (comparison.max_rel_error, comparison.worst_index) = (error, Some(i));
        }
    }
    comparison.norm_rel_error = match (comparison.first_mismatch, comparison.worst_index) {
        (Some(_), _) => f64::INFINITY,
        (None, None) => 0.0,
        (None, Some(_)) => root_mean_square(&differences) / root_mean_square(reference),
    };
    Ok(comparison)
}

/// Of the finite values; 0 when there are none. Scaled by the largest, so that no square overflows.
fn root_mean_square(values: &[f64]) -> f64 {
    let finite: Vec<f64> = values.iter().copied().filter(|v| v.is_finite()).collect();
    let largest = finite.iter().fold(0.0, |largest: f64, v| largest.max(v.abs()));
    if largest == 0.0 {
        return 0.0;
    }
    largest * (pairwise_sum(&finite, |v| (v / largest).powi(2)) / finite.len() as f64).sqrt()
}

/// The type that a result is stored in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// IEEE single precision.
    F32,
    /// IEEE double precision.
    F64,
    /// 32-bit or wider integers.
    I32,
}

/// The largest error that is accepted, for both errors of a [`Comparison`].
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Tolerance(f64);

impl Tolerance {
    /// For a result stored as `dtype`, each value of which was accumulated, in f32 at least, from
    /// `reduction_len` terms; 1 for an elementwise result.
    ///
    /// An elementwise result may be off by about ten roundings of f16 or bf16 and by what a few hundred f32
    /// roundings leave after cancellation. A tree of n terms has log₂ n levels, of which eight count as much
    /// as the elements themselves. Integers must agree exactly.
    pub fn for_dtype(dtype: Dtype, reduction_len: usize) -> Self {
        let elementwise = match dtype {
            Dtype::F16 => 4e-3,
            Dtype::Bf16 => 2e-2,
            Dtype::F32 => 1e-5,
            Dtype::F64 => 1e-12,
            Dtype::I32 => 0.0,
        };
        let levels = (reduction_len.max(1) as f64).log2();
        Self(elementwise * (1.0 + levels / 8.0))
    }

    /// The limit as a number.
    pub fn limit(self) -> f64 {
        self.0
    }

    /// Whether both relative errors are within the limit.
    pub fn accepts(self, comparison: &Comparison) -> bool {
        comparison.max_rel_error <= self.0 && comparison.norm_rel_error <= self.0
    }
}

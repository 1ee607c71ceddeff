//! Some results of a product of f32 in f64, and with operands rounded to tf32.

use ndarray::ArrayView2;

use crate::summation::pairwise_sum;

/// The sums of one result, with terms t_k = a_ik · b_kj.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SampledSums {
    /// Σ t_k.
    pub exact: f64,
    /// Σ of the products of operands rounded to tf32.
    pub tf32: f64,
    /// Σ t_k².
    pub squares: f64,
}

/// Problem, row and column of a sample, of so many of each: the outputs 2·sample and 2·sample + 1 of the generator
/// splitmix64 from state 0. The upper half of the first is the row, its lower half the column, and the lower half of the
/// second the problem, as fractions of 2³².
pub fn sampled_place(sample: u64, [batch, m, n]: [usize; 3]) -> (usize, usize, usize) {
    let output = |number: u64| {
        let mut bits = number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        for (shift, factor) in [(30, 0xBF58_476D_1CE4_E5B9_u64), (27, 0x94D0_49BB_1331_11EB)] {
            bits ^= bits >> shift;
            bits = bits.wrapping_mul(factor);
        }
        bits ^ (bits >> 31)
    };
    let of = |fraction: u32, count: usize| ((u128::from(fraction) * count as u128) >> 32) as usize;
    let number = sample.wrapping_mul(2);
    let (first, second) = (output(number), output(number.wrapping_add(1)));
    (of(second as u32, batch), of((first >> 32) as u32, m), of(first as u32, n))
}

/// The sums of result (i, j) of A `[m, k]` times B `[k, n]`. tf32 has 10 bits of mantissa: the nearest value where `rounds`,
/// else the next one towards 0.
pub fn sampled_sums(
    a: ArrayView2<'_, f32>,
    b: ArrayView2<'_, f32>,
    (i, j): (usize, usize),
    rounds: bool,
) -> SampledSums {
    let pairs: Vec<(f32, f32)> = a.row(i).iter().copied().zip(b.column(j).to_vec()).collect();
    let term = |&(x, y): &(f32, f32)| f64::from(x) * f64::from(y);
    SampledSums {
        exact: pairwise_sum(&pairs, term),
        tf32: pairwise_sum(&pairs, |&(x, y)| tf32(x, rounds) * tf32(y, rounds)),
        squares: pairwise_sum(&pairs, |pair| term(pair).powi(2)),
    }
}

/// A finite f32 with 10 bits of mantissa; ties away from 0.
fn tf32(value: f32, rounds: bool) -> f64 {
    let value = f64::from(value);
    if value == 0.0 {
        return value;
    }
    // Subnormal values of f32 have the unit of the smallest normal ones.
    let exponent = value.abs().log2().floor().max(-126.0);
    let unit = 2_f64.powi(exponent as i32 - 10);
    let quotient = value / unit;
    unit * if rounds { quotient.round() } else { quotient.trunc() }
}

//! Values in fp8, with the scale that makes most of it.

use kasmina_types::E4m3;

use super::element::LinearElement;

/// The largest value of fp8 e4m3.
const LARGEST: f64 = 448.0;

/// The values divided by a scale and rounded to fp8 e4m3, and the scale: the largest magnitude becomes 448. What is not
/// finite has no part in the scale; of zeros it is 1.
pub fn quantized<T: LinearElement>(values: &[T]) -> (Vec<E4m3>, f32) {
    let magnitudes = values.iter().map(|value| value.to_f64().abs());
    let largest = magnitudes.filter(|magnitude| magnitude.is_finite()).fold(0.0, f64::max);
    let scale = if largest > 0.0 { (largest / LARGEST) as f32 } else { 1.0 };
    // Of the smallest magnitudes the quotient is no f32.
    let scale = if scale > 0.0 { scale } else { f32::MIN_POSITIVE };
    let of = |value: &T| E4m3::nearest(value.to_f64() / f64::from(scale));
    (values.iter().map(of).collect(), scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_value_is_kept() {
        let (values, scale) = quantized(&[0.5_f32, -7.0, f32::INFINITY, 0.0]);
        let back: Vec<f64> = values.iter().map(|v| v.to_f64() * f64::from(scale)).collect();
        assert!((back[1] + 7.0).abs() < 1e-6 && (back[0] - 0.5).abs() < 0.5 / 16.0, "{back:?}");
        assert_eq!((back[3], values[2].to_f64()), (0.0, 448.0));
        assert_eq!(quantized(&[0.0_f64; 3]).1, 1.0);
    }
}

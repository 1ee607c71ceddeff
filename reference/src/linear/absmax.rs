//! The scale that values are rounded to fp8 e4m3 with.

/// The largest value of fp8 e4m3.
const LARGEST: f64 = 448.0;

/// max |x| / 448 over the finite values, at least the smallest normal f32; 1 where all of them are 0, or there are none.
pub fn absmax_scale(values: impl IntoIterator<Item = f64>) -> f64 {
    let magnitudes = values.into_iter().map(f64::abs).filter(|magnitude| magnitude.is_finite());
    let largest = magnitudes.fold(0.0, f64::max);
    if largest == 0.0 { 1.0 } else { (largest / LARGEST).max(f32::MIN_POSITIVE.into()) }
}

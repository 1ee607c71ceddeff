//! What may be done to a series before: never by default.

use std::f64::consts::TAU;

use super::surrogate_rows::philox4x32;

/// Mean and standard deviation, with n.
fn moments(series: &[f64]) -> (f64, f64) {
    let count = series.len() as f64;
    let mean = series.iter().sum::<f64>() / count;
    let squares: f64 = series.iter().map(|value| (value - mean).powi(2)).sum();
    (mean, (squares / count).sqrt())
}

/// The series with mean 0 and standard deviation 1 (with n).
pub fn standardize(series: &[f64]) -> Vec<f64> {
    // Brought to 1 first, so that neither sum nor square overflows or vanishes.
    let largest = series.iter().fold(0.0, |most: f64, value| most.max(value.abs()));
    let scaled: Vec<f64> = series.iter().map(|value| value / largest).collect();
    let (mean, std) = moments(&scaled);
    scaled.iter().map(|value| (value - mean) / std).collect()
}

/// The series less its mean, with Gaussian noise of `amplitude` standard deviations of its own: what parts equal
/// values. At the size of an offset the noise might be lost to rounding. `stream` tells apart the series that share a
/// seed.
pub fn add_noise(series: &[f64], amplitude: f64, seed: u64, stream: u32) -> Vec<f64> {
    let (mean, std) = moments(series);
    let scale = std * amplitude;
    let key = [seed as u32, (seed >> 32) as u32];
    let unit = |word: u32| (f64::from(word) + 0.5) / 4_294_967_296.0;
    let noisy = |(i, value): (usize, &f64)| {
        let words = philox4x32([i as u32, u32::MAX, 0, stream], key);
        let radius = (-2.0 * unit(words[0]).ln()).sqrt();
        value - mean + scale * radius * (TAU * unit(words[1])).cos()
    };
    series.iter().enumerate().map(noisy).collect()
}

//! ψ at whole numbers.

/// Euler's constant.
const GAMMA: f64 = 0.577_215_664_901_532_9;

/// ψ(n) for n ≥ 1; −∞ at 0, its limit from above.
///
/// Below 16 the sum ψ(n) = −γ + Σ 1/i, from there on the asymptotic series, whose first term left out is
/// below 1e-17.
pub fn digamma(n: u32) -> f64 {
    match n {
        0 => f64::NEG_INFINITY,
        1..16 => (1..n).map(|i| 1.0 / f64::from(i)).sum::<f64>() - GAMMA,
        _ => {
            let x = f64::from(n);
            let y = 1.0 / (x * x);
            // Σ B₂ₙ / (2n · x²ⁿ), n from 1 to 6.
            let series = [
                1.0 / 12.0,
                -1.0 / 120.0,
                1.0 / 252.0,
                -1.0 / 240.0,
                1.0 / 132.0,
                -691.0 / 32760.0,
            ];
            let tail = series.iter().rev().fold(0.0, |sum, b| (sum + b) * y);
            x.ln() - 0.5 / x - tail
        }
    }
}

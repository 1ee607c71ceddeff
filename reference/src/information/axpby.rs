//! Element by element: α·x + β·y, velocities, and projections by tiling.

/// α·x + β·y of vectors of one length; of two lengths, up to the shorter.
pub fn axpby(alpha: f64, x: &[f64], beta: f64, y: &[f64]) -> Vec<f64> {
    x.iter().zip(y).map(|(x, y)| alpha * x + beta * y).collect()
}

/// (μ − μ_prev)/dt.
pub fn velocity(mean: &[f64], previous: &[f64], dt: f64) -> Vec<f64> {
    mean.iter().zip(previous).map(|(now, before)| (now - before) / dt).collect()
}

/// `x` over and over, `len` elements: element i is x[i mod n]. Of no elements, none.
pub fn tile_projection(x: &[f64], len: usize) -> Vec<f64> {
    x.iter().copied().cycle().take(len).collect()
}

//! Clipping of the gradients of a layer's parameters.
//!
//! The parameters are cut into units: a blueprint's weights and scale, and the α of every seed that has it.

/// How to clip.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Clip {
    /// Each value to ± this.
    ByValue(f64),
    /// All by one factor, so that the norm of all is no more than this.
    GlobalNorm(f64),
    /// Each unit by one factor, so that its norm is no more than `factor` times its running norm.
    Adaptive {
        /// Multiple of the running norm.
        factor: f64,
        /// Share of the running norm that stays.
        decay: f64,
    },
}

/// The gradients, and where they belong.
#[derive(Debug)]
pub struct ParameterGradients<'a> {
    /// ∂L/∂w, `chunk_size` from each offset.
    pub weights: &'a mut [f64],
    /// ∂L/∂s, one for each blueprint.
    pub scales: &'a mut [f64],
    /// ∂L/∂α, one for each seed.
    pub alpha: &'a mut [f64],
    /// Blueprint of each seed.
    pub blueprint_id: &'a [u16],
    /// Where each blueprint's weights begin.
    pub blueprint_offset: &'a [u32],
    /// Weights of a blueprint.
    pub chunk_size: usize,
}

/// What was found and done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Clipped {
    /// √Σ g² over the finite values, before.
    pub norm: f64,
    /// The factor; of several the smallest.
    pub coefficient: f64,
    /// Values that are NaN or infinite.
    pub nonfinite: u32,
    /// Values that were clipped one by one.
    pub clipped_values: u32,
    /// Units that were scaled down.
    pub clipped_units: u32,
    /// Units with a value that is not finite.
    pub nonfinite_units: u32,
}

/// Clips in place. `running_norm` has one for each unit, which only the adaptive way uses: `None` before
/// the first.
///
/// Values that are not finite stay. One of them leaves all gradients as they are where the norm of all
/// decides, and its unit and the unit's running norm where that does. A unit of zeros leaves its running
/// norm alone. The running norm takes in the norm from before clipping.
///
/// # Panics
/// A weight outside of `weights`, or lengths that do not fit.
pub fn gradient_clip(
    clip: Clip,
    gradients: &mut ParameterGradients<'_>,
    running_norm: &mut [Option<f64>],
) -> Clipped {
    let mut units: Vec<Vec<&mut f64>> = Vec::new();
    units.resize_with(gradients.scales.len().max(1), Vec::new);
    // Each weight is handed out once: rows do not overlap.
    let mut row_of = vec![usize::MAX; gradients.weights.len()];
    // Backwards, so that a row that several ids share, as those that are not loaded do, is the first's.
    for (unit, &offset) in gradients.blueprint_offset.iter().enumerate().rev() {
        row_of[offset as usize..][..gradients.chunk_size].fill(unit);
    }
    for (weight, &unit) in gradients.weights.iter_mut().zip(&row_of) {
        if unit != usize::MAX {
            units[unit].push(weight);
        }
    }
    for (unit, scale) in gradients.scales.iter_mut().enumerate() {
        units[unit].push(scale);
    }
    for (alpha, &id) in gradients.alpha.iter_mut().zip(gradients.blueprint_id) {
        units[usize::from(id)].push(alpha);
    }

    let squares: Vec<f64> = units
        .iter()
        .map(|unit| unit.iter().filter(|g| g.is_finite()).map(|g| **g * **g).sum())
        .collect();
    let broken: Vec<u32> =
        units.iter().map(|unit| unit.iter().filter(|g| !g.is_finite()).count() as u32).collect();
    let norm = squares.iter().sum::<f64>().sqrt();
    let nonfinite = broken.iter().sum();
    let nonfinite_units = broken.iter().filter(|&&count| count > 0).count() as u32;
    let mut clipped = Clipped {
        norm,
        coefficient: 1.0,
        nonfinite,
        clipped_values: 0,
        clipped_units: 0,
        nonfinite_units,
    };
    let coefficients: Vec<f64> = match clip {
        Clip::ByValue(limit) => {
            for g in units.iter_mut().flatten().filter(|g| g.is_finite() && g.abs() > limit) {
                **g = limit.copysign(**g);
                clipped.clipped_values += 1;
            }
            return clipped;
        }
        Clip::GlobalNorm(limit) => {
            let shrinks = nonfinite == 0 && norm > limit;
            vec![if shrinks { limit / norm } else { 1.0 }; units.len()]
        }
        Clip::Adaptive { factor, decay } => {
            let mut adapt = |unit: usize| {
                let norm = squares[unit].sqrt();
                if broken[unit] > 0 || norm == 0.0 {
                    return 1.0;
                }
                let running = &mut running_norm[unit];
                let coefficient = running.map_or(1.0, |r: f64| (factor * r / norm).min(1.0));
                *running = Some(running.map_or(norm, |r| decay * r + (1.0 - decay) * norm));
                coefficient
            };
            (0..squares.len()).map(&mut adapt).collect()
        }
    };
    for (unit, &coefficient) in units.iter_mut().zip(&coefficients) {
        if coefficient < 1.0 {
            clipped.clipped_units += 1;
            unit.iter_mut().for_each(|g| **g *= coefficient);
        }
    }
    clipped.coefficient = coefficients.into_iter().fold(1.0, f64::min);
    clipped
}

//! Clipping of the gradients of a layer's parameters.
//!
//! By value and by the norm of all, the parameters are cut into units: a blueprint's weights and scale, and the α
//! of every seed that has it. The adaptive way goes seed by seed.

/// How to clip.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Clip {
    /// Each value to ± this.
    ByValue(f64),
    /// All by one factor, so that the norm of all is no more than this.
    GlobalNorm(f64),
    /// Each seed by a factor c of its own, so that its norm n is no more than `factor` times its running norm:
    /// n² is the square of its α's gradient and those of what it adds to ∂L/∂w. Its α's gradient is multiplied
    /// by c. What its blueprint's weights and scale have is a sum over seeds: it is multiplied by the mean of
    /// their c, weighed with the norms of what they add.
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
    /// Norm of what each seed adds to ∂L/∂w, for the adaptive way alone.
    pub seed_norms: &'a [f64],
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
    /// Units, in the adaptive way seeds, that were scaled down.
    pub clipped_units: u32,
    /// Units with a value that is not finite; in the adaptive way seeds whose norm is not.
    pub nonfinite_units: u32,
}

/// Clips in place. `running_norm` has one for each seed, which only the adaptive way uses: `None` before
/// the first.
///
/// Values that are not finite stay. One of them leaves all gradients as they are where the norm of all
/// decides. In the adaptive way a seed whose norm is not finite stays as it is, its running norm too, and so
/// do weights and scale of a blueprint that has such a seed, or such a value. A seed whose norm is 0 leaves its
/// running norm alone. The running norm takes in the norm from before clipping.
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
    match clip {
        Clip::ByValue(limit) => {
            for g in units.iter_mut().flatten().filter(|g| g.is_finite() && g.abs() > limit) {
                **g = limit.copysign(**g);
                clipped.clipped_values += 1;
            }
        }
        Clip::GlobalNorm(limit) if nonfinite == 0 && norm > limit => {
            clipped.coefficient = limit / norm;
            clipped.clipped_units = units.len() as u32;
            units.iter_mut().flatten().for_each(|g| **g *= clipped.coefficient);
        }
        Clip::GlobalNorm(_) => {}
        Clip::Adaptive { factor, decay } => {
            let whole: Vec<bool> = broken.iter().map(|&count| count == 0).collect();
            let shared = clip_seeds([factor, decay], gradients, running_norm, whole, &mut clipped);
            for (weight, &unit) in gradients.weights.iter_mut().zip(&row_of) {
                *weight *= shared.get(unit).unwrap_or(&1.0);
            }
            gradients.scales.iter_mut().zip(&shared).for_each(|(scale, factor)| *scale *= factor);
        }
    }
    clipped
}

/// Clips each seed's α adaptively, and returns what each blueprint's weights and scale are to be multiplied
/// by: 1 unless they are `whole` and so are the norms of its seeds.
fn clip_seeds(
    [factor, decay]: [f64; 2],
    gradients: &mut ParameterGradients<'_>,
    running_norm: &mut [Option<f64>],
    mut whole: Vec<bool>,
    clipped: &mut Clipped,
) -> Vec<f64> {
    // Of each blueprint's seeds: the norms of what they add, as held and as they are.
    let (mut held, mut all) = (vec![0.0; whole.len()], vec![0.0; whole.len()]);
    clipped.nonfinite_units = 0;
    for (seed, alpha) in gradients.alpha.iter_mut().enumerate() {
        let unit = usize::from(gradients.blueprint_id[seed]);
        let added = gradients.seed_norms[seed];
        let norm = added.hypot(*alpha);
        if !norm.is_finite() {
            clipped.nonfinite_units += 1;
            whole[unit] = false;
            continue;
        }
        let mut coefficient = 1.0;
        if norm > 0.0 {
            let running = &mut running_norm[seed];
            coefficient = running.map_or(1.0, |r: f64| (factor * r / norm).min(1.0));
            *running = Some(running.map_or(norm, |r| decay * r + (1.0 - decay) * norm));
        }
        if coefficient < 1.0 {
            *alpha *= coefficient;
            clipped.clipped_units += 1;
            clipped.coefficient = clipped.coefficient.min(coefficient);
        }
        held[unit] += coefficient * added;
        all[unit] += added;
    }
    let share = |unit: usize| {
        if whole[unit] && held[unit] < all[unit] { held[unit] / all[unit] } else { 1.0 }
    };
    (0..whole.len()).map(share).collect()
}

//! The backward pass: what a loss's gradient at the output says of input, blueprints and blend factors.
//!
//! With g = ∂L/∂y and a = clip(α, 0, 1), term by term from `y = (1−a)·x + a·T(x)`. A seed's lifecycle says
//! what passes: a TRAINING seed is the identity for ∂x while its blueprint receives the gradient of T with
//! a = 1; a STABILIZATION, EVALUATING or FOSSILIZED one has a frozen blueprint.
//!
//! ∂x is in the type of the input. The parameters' gradients are sums over the batch, in f64 along a fixed
//! tree, each with a scale that the rounding errors of another summation may be judged by.
//!
//! What is not finite follows the terms. Each is a product, so that 0·∞ is NaN: a closed relu's derivative is 0,
//! whatever x is, but an infinite g times that 0 is NaN. What lies outside a chunk is no factor 0, there is no such
//! term: a CONV_FILTER's ∂w₁ and ∂w₂ know nothing of an infinite g₀, and nothing of an infinite last x.

use ndarray::{Array2, ArrayView2};
use rayon::prelude::*;

use super::blend_forward::{Blueprint, prepare_blueprints};
use super::state::{TRAINING, trains_blueprint};
use super::{BlueprintType, LayerError, LayerState, NumericalMode, is_active};
use crate::{Real, summation::pairwise_sum};

/// The gradients of a layer of S seeds of C columns and P blueprints.
#[derive(Debug, Clone, PartialEq)]
pub struct BlendGradients<T> {
    /// `[batch, S·C]`, ∂L/∂x.
    pub grad_input: Array2<T>,
    /// `[P, C]`, ∂L/∂w; 0 for blueprints that no seed trains, and for the weights that a CONV_FILTER has
    /// beyond its taps.
    pub grad_weights: Array2<f64>,
    /// `[P]`, ∂L/∂s.
    pub grad_scales: Vec<f64>,
    /// `[S]`, ∂L/∂α; 0 where α is clipped.
    pub grad_alpha: Vec<f64>,
    /// `[S]`, norm of the seed's own part of ∂L/∂w, over its C weights.
    pub gradient_norm: Vec<f64>,
    /// `[S]`, population variance of that part.
    pub gradient_variance: Vec<f64>,
    /// `[S]`, its largest magnitude, NaN aside: the norm tells of those.
    pub gradient_max: Vec<f64>,
    /// How large the sums behind these would be if their terms had random signs.
    pub scales: GradientScales,
}

/// Natural sizes of the sums of [`BlendGradients`]: the root of the sum of their terms' squares, or the
/// magnitude of the sums that they are made of where that is larger.
#[derive(Debug, Clone, PartialEq)]
pub struct GradientScales {
    /// `[P, C]`.
    pub weights: Array2<f64>,
    /// `[P]`.
    pub scales: Vec<f64>,
    /// `[S]`.
    pub alpha: Vec<f64>,
    /// `[S]`, of the norm.
    pub norm: Vec<f64>,
    /// `[S]`, of the largest magnitude.
    pub max: Vec<f64>,
}

/// A sum and its natural size.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    value: f64,
    scale: f64,
}

impl Sum {
    fn times(self, factor: f64) -> Self {
        Self { value: self.value * factor, scale: self.scale * factor.abs() }
    }

    /// The sum of sums.
    fn of(parts: &[Self]) -> Self {
        let value = pairwise_sum(parts, |part| part.value);
        let squares = pairwise_sum(parts, |part| part.scale * part.scale);
        Self { value, scale: squares.sqrt().max(value.abs()) }
    }
}

/// What one seed adds.
struct SeedGradients {
    weights: Vec<Sum>,
    scale: Sum,
    alpha: Sum,
}

/// All gradients of the layer for the input `x` and the gradient `g` at its output, `[batch, S·C]` both.
///
/// # Errors
/// As [`super::blend_forward`]; a `g` whose shape is not that of `x`; flags that are not one for each seed.
pub fn blend_backward<T: Real, W: Real>(
    x: ArrayView2<'_, T>,
    g: ArrayView2<'_, T>,
    state: &LayerState<'_, W>,
    mode: NumericalMode<'_>,
) -> Result<BlendGradients<T>, LayerError> {
    state.validate()?;
    state.validate_mode(mode)?;
    let (seeds, chunk) = (state.num_seeds(), state.chunk_size());
    for width in [x.ncols(), g.ncols()] {
        if width != seeds * chunk {
            return Err(LayerError::InputWidth { seeds, expected: seeds * chunk, got: width });
        }
    }
    if x.nrows() != g.nrows() {
        return Err(LayerError::Rows { expected: x.nrows(), got: g.nrows() });
    }

    let used = |lifecycle| is_active(lifecycle) || trains_blueprint(lifecycle);
    let blueprints = prepare_blueprints::<T, W>(state, used);
    let (x, g) = (x.as_standard_layout(), g.as_standard_layout());
    let contiguous = "standard layout is contiguous";
    let layer = Layer {
        x: x.as_slice().expect(contiguous),
        g: g.as_slice().expect(contiguous),
        batch: x.nrows(),
        seeds,
        chunk,
    };

    let mut grad_input = layer.g.to_vec();
    grad_input.par_chunks_exact_mut(chunk).enumerate().for_each(|(index, out)| {
        let seed = index % seeds;
        let blueprint = &blueprints[usize::from(state.blueprint_id[seed])];
        if let (true, Some(blueprint)) = (is_active(state.lifecycle[seed]), blueprint) {
            let alpha = T::from_f64(clip(state.alpha[seed]));
            let (x, g) = (&layer.x[index * chunk..][..chunk], &layer.g[index * chunk..][..chunk]);
            for (i, out) in out.iter_mut().enumerate() {
                *out = mode.apply(seed, blueprint.grad_input(x, g, i, alpha));
            }
        }
    });

    let per_seed: Vec<Option<SeedGradients>> = (0..seeds)
        .into_par_iter()
        .map(|seed| {
            let blueprint = blueprints[usize::from(state.blueprint_id[seed])].as_ref()?;
            trains_blueprint(state.lifecycle[seed])
                .then(|| layer.seed_gradients(state, seed, blueprint))
        })
        .collect();
    let parameters = gather(&per_seed, state);
    let grad_input =
        Array2::from_shape_vec((layer.batch, seeds * chunk), grad_input).expect("as x has");
    Ok(BlendGradients { grad_input, ..parameters })
}

/// Adds the seeds' parts by blueprint, in the order of the seeds.
fn gather<T: Real, W: Real>(
    per_seed: &[Option<SeedGradients>],
    state: &LayerState<'_, W>,
) -> BlendGradients<T> {
    let (blueprints, chunk) = (state.blueprint_weights.nrows(), state.chunk_size());
    let users = |id: usize| {
        let is = move |seed: &usize| usize::from(state.blueprint_id[*seed]) == id;
        (0..per_seed.len()).filter(is).filter_map(|seed| per_seed[seed].as_ref())
    };
    let total = |parts: Vec<Sum>| Sum::of(&parts);
    let weights: Vec<Sum> = (0..blueprints)
        .flat_map(|id| (0..chunk).map(move |i| (id, i)))
        .map(|(id, i)| total(users(id).map(|seed| seed.weights[i]).collect()))
        .collect();
    let scales: Vec<Sum> =
        (0..blueprints).map(|id| total(users(id).map(|seed| seed.scale).collect())).collect();
    let of_seed = |figure: &dyn Fn(&SeedGradients) -> f64| -> Vec<f64> {
        per_seed.iter().map(|seed| seed.as_ref().map_or(0.0, figure)).collect()
    };
    let matrix = |values: Vec<f64>| {
        Array2::from_shape_vec((blueprints, chunk), values).expect("one for each weight")
    };
    let largest = |values: &mut dyn Iterator<Item = f64>| values.fold(0.0, f64::max);
    BlendGradients {
        grad_input: Array2::from_shape_vec((0, 0), Vec::new()).expect("nothing of no shape"),
        grad_weights: matrix(weights.iter().map(|sum| sum.value).collect()),
        grad_scales: scales.iter().map(|sum| sum.value).collect(),
        grad_alpha: of_seed(&|seed| seed.alpha.value),
        gradient_norm: of_seed(&|seed| pairwise_sum(&seed.weights, |w| w.value * w.value).sqrt()),
        gradient_variance: of_seed(&|seed| {
            let mean = pairwise_sum(&seed.weights, |w| w.value) / chunk as f64;
            pairwise_sum(&seed.weights, |w| (w.value - mean).powi(2)) / chunk as f64
        }),
        gradient_max: of_seed(&|seed| largest(&mut seed.weights.iter().map(|w| w.value.abs()))),
        scales: GradientScales {
            weights: matrix(weights.iter().map(|sum| sum.scale).collect()),
            scales: scales.iter().map(|sum| sum.scale).collect(),
            alpha: of_seed(&|seed| seed.alpha.scale),
            norm: of_seed(&|seed| pairwise_sum(&seed.weights, |w| w.scale * w.scale).sqrt()),
            max: of_seed(&|seed| largest(&mut seed.weights.iter().map(|w| w.scale))),
        },
    }
}

/// α clipped to 0…1.
fn clip<W: Real>(alpha: W) -> f64 {
    alpha.as_f64().clamp(0.0, 1.0)
}

/// Input and gradient with their shape.
struct Layer<'a, T> {
    x: &'a [T],
    g: &'a [T],
    batch: usize,
    seeds: usize,
    chunk: usize,
}

impl<T: Real> Layer<'_, T> {
    fn seed_gradients<W: Real>(
        &self,
        state: &LayerState<'_, W>,
        seed: usize,
        blueprint: &Blueprint<T>,
    ) -> SeedGradients {
        let lifecycle = state.lifecycle[seed];
        let a = if lifecycle == TRAINING { 1.0 } else { clip(state.alpha[seed]) };
        let Blueprint { kind, weights, scale } = blueprint;
        let s = scale.as_f64();
        let w = |i: usize| weights[i].as_f64();
        let rows: Vec<(&[T], &[T])> = (0..self.batch)
            .map(|row| {
                let at = (row * self.seeds + seed) * self.chunk;
                (&self.x[at..][..self.chunk], &self.g[at..][..self.chunk])
            })
            .collect();
        // Σ over the batch of a term of column i.
        type Term<'a, T> = &'a (dyn Fn(&[T], usize) -> f64 + Sync);
        let column = |i: usize, term: Term<'_, T>| {
            let value = pairwise_sum(&rows, |(x, g)| g[i].as_f64() * term(x, i));
            let squares = pairwise_sum(&rows, |(x, g)| (g[i].as_f64() * term(x, i)).powi(2));
            Sum { value, scale: squares.sqrt().max(value.abs()) }
        };
        let columns =
            |term: Term<'_, T>| -> Vec<Sum> { (0..self.chunk).map(|i| column(i, term)).collect() };
        let x_at = |x: &[T], i: usize| x[i].as_f64();
        let open = |x: &[T], i: usize| x[i].as_f64() * w(i) > 0.0;

        let (grad_weights, grad_scale) = match kind {
            BlueprintType::ResidualBlock => {
                let sums = columns(&|_, _| 1.0);
                let by_weight: Vec<Sum> = (0..self.chunk).map(|i| sums[i].times(w(i))).collect();
                (scaled(&sums, a * s), Sum::of(&by_weight).times(a))
            }
            BlueprintType::AttentionHead => {
                let h = scaled(&columns(&x_at), a);
                let mean: Vec<Sum> = (0..self.chunk).map(|i| h[i].times(w(i))).collect();
                let mean = Sum::of(&mean);
                let weights = (0..self.chunk).map(|i| Sum {
                    value: w(i) * (h[i].value - mean.value),
                    scale: w(i) * (h[i].scale + mean.scale),
                });
                (weights.collect(), Sum::default())
            }
            BlueprintType::MlpExpansion => {
                let sums = columns(&|x, i| if open(x, i) { x_at(x, i) } else { 0.0 });
                let by_weight: Vec<Sum> = (0..self.chunk).map(|i| sums[i].times(w(i))).collect();
                (scaled(&sums, a * s), Sum::of(&by_weight).times(a))
            }
            BlueprintType::ConvFilter => {
                let taps: Vec<Sum> = (0..self.chunk.min(3))
                    .map(|tap| {
                        let left = |x: &[T], i: usize| x_at(x, i - tap);
                        let with_neighbour: Vec<Sum> =
                            (tap..self.chunk).map(|i| column(i, &left)).collect();
                        Sum::of(&with_neighbour)
                    })
                    .collect();
                let by_weight: Vec<Sum> =
                    taps.iter().enumerate().map(|(tap, sum)| sum.times(w(tap))).collect();
                let mut weights = scaled(&taps, a * s);
                weights.resize(self.chunk, Sum::default());
                (weights, Sum::of(&by_weight).times(a))
            }
            BlueprintType::Scale => {
                let sums = columns(&x_at);
                let by_weight: Vec<Sum> = (0..self.chunk).map(|i| sums[i].times(w(i))).collect();
                (scaled(&sums, a * s), Sum::of(&by_weight).times(a))
            }
        };
        let alpha = state.alpha[seed].as_f64();
        let blends = is_active(lifecycle) && 0.0 < alpha && alpha < 1.0;
        let difference = |x: &[T], i: usize| match kind {
            // Whatever x is.
            BlueprintType::ResidualBlock => s * w(i),
            _ => (blueprint.transform(x, i) - x[i]).as_f64(),
        };
        let grad_alpha = if blends { Sum::of(&columns(&difference)) } else { Sum::default() };
        SeedGradients { weights: grad_weights, scale: grad_scale, alpha: grad_alpha }
    }
}

fn scaled(sums: &[Sum], factor: f64) -> Vec<Sum> {
    sums.iter().map(|sum| sum.times(factor)).collect()
}

impl<T: Real> Blueprint<T> {
    /// ∂x at element `i` of a chunk.
    fn grad_input(&self, x: &[T], g: &[T], i: usize, a: T) -> T {
        let (w, s) = (&self.weights, self.scale);
        let keep = T::one() - a;
        match self.kind {
            BlueprintType::ResidualBlock => g[i],
            BlueprintType::AttentionHead => g[i] * (keep + a * w[i]),
            BlueprintType::MlpExpansion => {
                let open = x[i] * w[i] > T::zero();
                g[i] * (keep + if open { a * s * w[i] } else { T::zero() })
            }
            BlueprintType::ConvFilter => {
                // g is 0 outside its chunk.
                let right = (g.len() - 1 - i).min(2);
                let taps = (1..=right).fold(w[0] * g[i], |sum, tap| sum + w[tap] * g[i + tap]);
                keep * g[i] + a * s * taps
            }
            BlueprintType::Scale => g[i] * (keep + a * s * w[i]),
        }
    }
}

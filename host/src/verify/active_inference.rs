//! `belief_step`, `infer_until_converged` and the stages: rows for J in f64 and in f32. On the digits the model is a
//! Bayesian linear regression of what an image shows on its pixels.

use kasmina_reference::information::active_inference::{self as reference, InferOptions};
use kasmina_reference::numeric::{self, Dtype, Tolerance};
use kasmina_types::DType;
use ndarray::{Array1, Array2};

use super::random::Limits;
use super::tally::{Compared, Mismatch, Tally};
use super::units::{self, Units};
use super::{Check, Inputs, Scale, Source, Timing, reordered, time};
use crate::device::Device;
use crate::digits::{PIXELS, WHITE};
use crate::error::Error;
use crate::information::active_inference::{
    ActiveInference, Belief, FreeEnergy, GaussianModel, InferenceOptions, InferenceStages, Inferred,
};

const STEPS: usize = 3;
/// Of whole inferences: prior standard deviations from the posterior mean.
const CONVERGED: f64 = 1e-9;
const MAX_STEPS: usize = 20_000;
/// Models of more states are not compared with the posterior, which takes n³ operations.
const POSTERIOR_STATES: usize = 300;

pub(super) fn checks() -> Vec<Check> {
    [DType::F64, DType::F32]
        .into_iter()
        .flat_map(|dtype| {
            [
                check("belief_step", dtype, steps),
                check("infer_until_converged", dtype, inferences),
                check("inference_stages", dtype, stages),
            ]
        })
        .collect()
}

type Compare = fn(&Device, &Case, &mut Tally, bool) -> Result<(), Error>;

fn check(name: &'static str, dtype: DType, compare: Compare) -> Check {
    Check::new(name, dtype, move |device, source, tally| {
        let timed = matches!(source.inputs, Inputs::Digits(_));
        for case in cases(device, source, dtype) {
            tally.case();
            compare(device, &case, tally, timed)
                .map_err(|source| Mismatch::Run { case: case.name.clone(), source })?;
        }
        Ok(())
    })
}

/// Models of one shape with beliefs to begin with.
struct Case {
    name: String,
    models: Vec<GaussianModel>,
    beliefs: Vec<Belief>,
    options: InferenceOptions,
}

fn cases(device: &Device, source: &Source, dtype: DType) -> Vec<Case> {
    let mut units = Units::of(source);
    match &source.inputs {
        Inputs::Digits(digits) => {
            // The executor works through fewer images.
            let most = if matches!(device, Device::Simt(_)) { 200 } else { digits.labels.len() };
            let cut = |images: usize, models: usize| {
                let jacobian = |model: usize| {
                    let pixels = &digits.pixels[model * images * PIXELS..][..images * PIXELS];
                    let grey = |&g: &u8| f64::from(g) / f64::from(WHITE);
                    Array2::from_shape_vec((images, PIXELS), pixels.iter().map(grey).collect())
                        .expect("a row for each image")
                };
                let built = (0..models).map(|model| {
                    let labels = &digits.labels[model * images..][..images];
                    let model = GaussianModel::builder(jacobian(model))
                        .offset(Array1::from_elem(images, 4.5))
                        .observation(labels.iter().map(|&l| f64::from(l)).collect::<Array1<_>>())
                        // All data together weigh less than the prior: few steps, which the executor has time for.
                        .obs_precision(Array1::from_elem(images, 0.05 / images as f64))
                        .build()
                        .expect("the digits make a valid model");
                    let belief = model.prior();
                    (model, belief)
                });
                Case::of(format!("{models} × {images} images"), built, dtype)
            };
            vec![cut(1, 1), cut(7, 2), cut(40, 3), cut(most, 1)]
        }
        &Inputs::Random(_) => {
            let scale = source.scale(device);
            let limits = Limits::of(scale);
            let (cases, rows, columns) = match scale {
                Scale::Small => (3, 100, 50),
                Scale::Medium => (6, 500, 300),
                Scale::Large => (8, limits.batch / 2, 1200),
            };
            let mut shapes: Vec<_> = (0..cases)
                .map(|_| (1 + units.below(3), 1 + units.below(rows), 1 + units.below(columns)))
                .map(|(models, m, n)| (models, m, n, Spectrum::Close))
                .collect();
            // The kernels for many states, which random shapes of the executor's do not come to.
            let many = [(20, 200), (10, 700), (3, 2000), (3, 5000)];
            shapes.extend(many.map(|(m, n)| (1, m, n, Spectrum::Apart)));
            shapes
                .into_iter()
                .map(|(models, m, n, spectrum)| {
                    let built: Vec<_> = (0..models)
                        .map(|_| {
                            let mut values = |len: usize, low: f64, high: f64| -> Vec<f64> {
                                let value = |unit: f32| low + (high - low) * f64::from(unit);
                                (0..len).map(|_| value(units.unit())).collect()
                            };
                            let model = random_model(m, n, spectrum, &mut values);
                            let (mean, variance) = (values(n, -1.0, 1.0), values(n, 0.05, 1.0));
                            (model, Belief { mean, variance })
                        })
                        .collect();
                    let name = format!("{models} × {m} observations of {n} states");
                    Case::of(name, built.into_iter(), dtype)
                })
                .collect()
        }
    }
}

/// How the curvatures of a random model lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spectrum {
    /// As they come.
    Close,
    /// One of about 3.5 and the others below 2: power iteration and belief steps end early, for the executor.
    Apart,
}

/// A model whose curvature does not grow with its size, of `values(count, low, high)`; the bench's too.
pub(crate) fn random_model(
    m: usize,
    n: usize,
    spectrum: Spectrum,
    values: &mut dyn FnMut(usize, f64, f64) -> Vec<f64>,
) -> GaussianModel {
    let size = 1.0 / ((m + n) as f64).sqrt();
    let mut jacobian =
        Array2::from_shape_vec((m, n), values(m * n, -size, size)).expect("m · n values");
    let (precision, variance) = match spectrum {
        Spectrum::Close => ([0.2, 4.0], [0.3, 2.0]),
        Spectrum::Apart => {
            let scale = (7.5 / n as f64).sqrt() / size;
            jacobian.row_mut(0).mapv_inplace(|j| scale * j);
            ([0.8, 1.2], [0.9, 1.1])
        }
    };
    GaussianModel::builder(jacobian)
        .offset(Array1::from(values(m, -1.0, 1.0)))
        .obs_precision(Array1::from(values(m, precision[0], precision[1])))
        .observation(Array1::from(values(m, -2.0, 2.0)))
        .prior_mean(Array1::from(values(n, -1.0, 1.0)))
        .prior_var(Array1::from(values(n, variance[0], variance[1])))
        .build()
        .expect("values in range")
}

impl Case {
    fn of(
        name: String,
        built: impl Iterator<Item = (GaussianModel, Belief)>,
        dtype: DType,
    ) -> Self {
        let options = InferenceOptions { jacobian: dtype, ..InferenceOptions::default() };
        let (models, beliefs): (Vec<_>, Vec<_>) = built.unzip();
        Self { name, models, beliefs, options }
    }

    fn on(&self, device: &Device) -> Result<ActiveInference, Error> {
        let mut inference = ActiveInference::new(device, &self.models, self.options)?;
        inference.set_beliefs(&self.beliefs)?;
        Ok(inference)
    }

    /// Of J, once for each model.
    fn bytes(&self) -> u64 {
        let model = &self.models[0];
        let elements = self.models.len() * model.observations() * model.states();
        (elements * self.options.jacobian.size_bytes()) as u64
    }

    /// Judges values whose errors are proportional to `scale`.
    fn judge(&self, what: &str, got: &[f64], expected: &[f64], scale: f64, tally: &mut Tally) {
        let model = &self.models[0];
        let terms = model.states().max(model.observations());
        let tolerance = 10.0 * Tolerance::for_dtype(Dtype::F64, terms).limit();
        self.judge_within(what, got, expected, scale, tolerance, tally);
    }

    fn judge_within(
        &self,
        what: &str,
        got: &[f64],
        expected: &[f64],
        scale: f64,
        tolerance: f64,
        tally: &mut Tally,
    ) {
        let comparison = numeric::compare_to_scale(got, expected, scale).expect("as many in each");
        let index = comparison.first_mismatch.or(comparison.worst_index).unwrap_or(0);
        let (Some(&got), Some(&expected)) = (got.get(index), expected.get(index)) else { return };
        let error = comparison.max_rel_error;
        let compared = Compared { got, expected, error, tolerance };
        tally.judge(&self.name, &compared, || format!("{what}[{index}]"));
    }

    /// Each term's rounding counts: sums of one term for each state and observation.
    fn judge_energy(&self, got: &FreeEnergy, expected: &FreeEnergy, tally: &mut Tally) {
        let parts = |f: &FreeEnergy| [f.complexity, f.accuracy_plugin, f.accuracy_expected];
        let (model, belief) = (&self.models[0], &self.beliefs[0]);
        let scale = (model.states() + model.observations()) as f64
            + belief.mean.iter().fold(0.0, |sum: f64, m| sum + m * m);
        self.judge("free energy", &parts(got), &parts(expected), scale, tally);
    }

    fn same_bits(&self, what: &'static str, a: &[f64], b: &[f64], tally: &mut Tally) {
        let words = |values: &[f64]| -> Vec<u32> {
            values.iter().flat_map(|v| [v.to_bits() as u32, (v.to_bits() >> 32) as u32]).collect()
        };
        units::same_bits(&self.name, what, &words(a), &words(b), tally);
    }
}

fn means(beliefs: &[Belief]) -> Vec<f64> {
    beliefs.iter().flat_map(|belief| belief.mean.iter().copied()).collect()
}

fn steps(device: &Device, case: &Case, tally: &mut Tally, timed: bool) -> Result<(), Error> {
    let (mut one, mut twin) = (case.on(device)?, case.on(&reordered(device))?);
    let mut now = case.beliefs.clone();
    for _ in 0..STEPS {
        one.step()?;
        twin.step()?;
        let (got, energies) = (one.beliefs()?, one.last_free_energies()?);
        case.same_bits("mean", &means(&got), &means(&twin.beliefs()?), tally);
        for (i, model) in one.models().iter().enumerate() {
            let model = model.reference();
            let before = reference::free_energy(&model, &now[i]);
            case.judge_energy(&energies[i], &before, tally);
            now[i].mean = reference::belief_step(&model, &now[i].mean, one.kappas()[i]);
            case.judge("mean", &got[i].mean, &now[i].mean, 1.0, tally);
        }
    }
    if timed {
        let seconds = time::median_seconds(device, || one.step())?;
        tally.timing(Timing { seconds, bytes: case.bytes() });
    }
    Ok(())
}

fn inferences(device: &Device, case: &Case, tally: &mut Tally, timed: bool) -> Result<(), Error> {
    let (mut one, mut twin) = (case.on(device)?, case.on(&reordered(device))?);
    let got = one.infer_until_converged(CONVERGED, MAX_STEPS)?;
    let again = twin.infer_until_converged(CONVERGED, MAX_STEPS)?;
    let flat = |found: &[Inferred]| -> Vec<f64> {
        found.iter().flat_map(|found| found.belief.mean.iter().copied()).collect()
    };
    case.same_bits("mean", &flat(&got), &flat(&again), tally);
    for (i, (model, got)) in one.models().iter().zip(&got).enumerate() {
        let options = InferOptions {
            kappa: one.kappas()[i],
            max_steps: MAX_STEPS,
            tolerance: Some(CONVERGED),
            trace_points: 0,
        };
        let expected = reference::infer(&model.reference(), &case.beliefs[i], options);
        // Where the bound crosses the tolerance rounding may decide: a step that is smaller than that.
        case.judge_within("mean", &got.belief.mean, &expected.mean, 1.0, 1e-8, tally);
        case.judge_energy(&got.free_energy, &expected.free_energy, tally);
        let steps = (got.steps as f64, expected.steps as f64);
        let error = if (steps.0 - steps.1).abs() <= 1.0 && got.converged == expected.converged {
            0.0
        } else {
            f64::INFINITY
        };
        let compared = Compared { got: steps.0, expected: steps.1, error, tolerance: 0.0 };
        tally.judge(&case.name, &compared, || "the number of steps".to_owned());
        if model.states() <= POSTERIOR_STATES && got.converged {
            let exact = model.posterior()?;
            case.judge_within("posterior", &got.belief.mean, &exact.mean, 1.0, 1e-8, tally);
        }
    }
    if timed {
        let steps: usize = got.iter().map(|found| found.steps).max().unwrap_or(0).max(1);
        let bytes = case.bytes() * steps as u64;
        let seconds = time::median_seconds(device, || one.queue_inference(None, steps))?;
        tally.timing(Timing { seconds, bytes });
    }
    Ok(())
}

fn stages(device: &Device, case: &Case, tally: &mut Tally, timed: bool) -> Result<(), Error> {
    let (model, belief) = (&case.models[0], &case.beliefs[0]);
    let on = |device: &Device| -> Result<InferenceStages, Error> {
        let mut stages = InferenceStages::new(device, std::slice::from_ref(model), case.options)?;
        stages.set_beliefs(std::slice::from_ref(belief))?;
        Ok(stages)
    };
    let (mut one, mut twin) = (on(device)?, on(&reordered(device))?);
    let run = |stages: &mut InferenceStages| -> Result<(Vec<f64>, Vec<f64>, FreeEnergy), Error> {
        let complexity = stages.complexity()?[0];
        let (accuracy_plugin, accuracy_expected) = stages.accuracy()?[0];
        stages.update()?;
        let energy = FreeEnergy { complexity, accuracy_plugin, accuracy_expected };
        let residuals = stages.residuals()?.into_iter().collect();
        Ok((residuals, stages.beliefs()?.remove(0).mean, energy))
    };
    let (residuals, mean, energy) = run(&mut one)?;
    let (_, again, _) = run(&mut twin)?;
    case.same_bits("mean", &mean, &again, tally);
    let stored = one.models()[0].reference();
    case.judge("residual", &residuals, &reference::residual(&stored, &belief.mean), 1.0, tally);
    case.judge_energy(&energy, &reference::free_energy(&stored, belief), tally);
    let moved = reference::belief_step(&stored, &belief.mean, one.kappas()[0]);
    case.judge("mean", &mean, &moved, 1.0, tally);
    if timed {
        let seconds = time::median_seconds(device, || one.update())?;
        tally.timing(Timing { seconds, bytes: case.bytes() });
    }
    Ok(())
}

//! `gradient_clip_*`: a row for each mode; several steps, some with values that are not finite.

use kasmina_reference::kasmina::{Clip, ParameterGradients, gradient_clip};
use kasmina_types::DType;

use super::tally::{Mismatch, Tally};
use super::units::{self, Units};
use super::{Check, Inputs, Timing, reordered, time};
use crate::buffer::Buffer;
use crate::device::Device;
use crate::error::Error;
use crate::kasmina::{ClipMode, ClipReport, ClipTargets, GradientClip, LayerState, SeedStates};

const BLUEPRINTS: usize = 9;
const STEPS: usize = 3;

pub(super) fn checks() -> Vec<Check> {
    let adaptive = ClipMode::Adaptive { factor: 0.75, decay: 0.9 };
    vec![
        check("gradient_clip_value", ClipMode::ByValue(0.4)),
        check("gradient_clip_norm", ClipMode::GlobalNorm(1.5)),
        check("gradient_clip_adaptive", adaptive),
    ]
}

fn check(name: &'static str, mode: ClipMode) -> Check {
    Check::new(name, DType::F32, move |device, source, tally| {
        let mut units = Units::of(source);
        let timed = matches!(source.inputs, Inputs::Digits(_));
        for chunk_size in units::sizes(device, source, [1, 64, 500, 4096]) {
            let case = Case::new(chunk_size, mode, &mut units);
            tally.case();
            let runs = run(device, &case, timed)
                .and_then(|first| Ok((first, run(&reordered(device), &case, false)?)));
            match runs {
                Ok((first, second)) => {
                    for (a, b) in first.steps.iter().zip(&second.steps) {
                        for ((what, a), (_, b)) in
                            arrays(&a.gradients).into_iter().zip(arrays(&b.gradients))
                        {
                            units::same_bits(
                                &case.name,
                                what,
                                &units::bits(a),
                                &units::bits(b),
                                tally,
                            );
                        }
                    }
                    judge(&case, &first, tally);
                    if let Some(seconds) = first.seconds {
                        let values: usize =
                            arrays(&case.steps[0]).iter().map(|(_, values)| values.len()).sum();
                        let bytes = 8 * values as u64;
                        tally.timing(Timing { seconds, bytes });
                    }
                }
                Err(source) => return Err(Mismatch::Run { case: case.name, source }),
            }
        }
        Ok(())
    })
}

#[derive(Clone)]
struct Gradients {
    weights: Vec<f32>,
    scales: Vec<f32>,
    alpha: Vec<f32>,
    seed_norms: Vec<f32>,
}

fn arrays(gradients: &Gradients) -> [(&'static str, &[f32]); 3] {
    [
        ("grad_weights", &gradients.weights),
        ("grad_scales", &gradients.scales),
        ("grad_alpha", &gradients.alpha),
    ]
}

struct Case {
    name: String,
    mode: ClipMode,
    seeds: SeedStates,
    steps: Vec<Gradients>,
}

impl Case {
    fn new(chunk_size: usize, mode: ClipMode, units: &mut Units) -> Self {
        let num_seeds = 1 + units.below(40);
        let seeds = SeedStates {
            lifecycle: vec![3; num_seeds],
            blueprint_id: (0..num_seeds).map(|_| units.below(BLUEPRINTS) as u16).collect(),
            alpha: vec![0.5; num_seeds],
            blueprint_type: vec![4; BLUEPRINTS],
            blueprint_weights: vec![1.0; BLUEPRINTS * chunk_size],
            blueprint_scales: vec![1.0; BLUEPRINTS],
            chunk_size,
        };
        let steps = (0..STEPS)
            .map(|step| {
                let mut values = |count: usize| -> Vec<f32> {
                    (0..count).map(|_| (1 + step) as f32 * (units.unit() - 0.5)).collect()
                };
                let mut weights = values(BLUEPRINTS * chunk_size);
                let (scales, alpha) = (values(BLUEPRINTS), values(num_seeds));
                if step == 1 {
                    weights[chunk_size] = f32::NAN;
                }
                let mut seed_norms: Vec<f32> =
                    values(num_seeds).into_iter().map(f32::abs).collect();
                if step == 1 {
                    seed_norms[0] = f32::INFINITY;
                }
                Gradients { weights, scales, alpha, seed_norms }
            })
            .collect();
        let name = format!("{BLUEPRINTS} blueprints of {chunk_size}, {num_seeds} seeds");
        Self { name, mode, seeds, steps }
    }
}

struct Step {
    gradients: Gradients,
    report: ClipReport,
}

struct Results {
    steps: Vec<Step>,
    running_norms: Vec<f32>,
    seconds: Option<f64>,
}

fn run(device: &Device, case: &Case, timed: bool) -> Result<Results, Error> {
    let state = LayerState::new(device, case.seeds.clone())?;
    let (seeds, chunk) = (state.num_seeds(), state.chunk_size());
    let mut clip = GradientClip::new(device, seeds, BLUEPRINTS, chunk, case.mode)?;
    let (mut steps, mut seconds, mut running_norms) = (Vec::new(), None, Vec::new());
    for (number, step) in case.steps.iter().enumerate() {
        let mut weights = Buffer::from_slice(device, &step.weights)?;
        let mut scales = Buffer::from_slice(device, &step.scales)?;
        let mut alpha = Buffer::from_slice(device, &step.alpha)?;
        let seed_norms = Buffer::from_slice(device, &step.seed_norms)?;
        let (w, s, a, norms) = (&mut weights, &mut scales, &mut alpha, &seed_norms);
        clip.run(&state, ClipTargets { weights: w, scales: s, alpha: a, seed_norms: norms })?;
        let gradients = Gradients {
            weights: weights.to_vec()?,
            scales: scales.to_vec()?,
            alpha: alpha.to_vec()?,
            seed_norms: step.seed_norms.clone(),
        };
        steps.push(Step { gradients, report: clip.report()? });
        running_norms = clip.running_norms()?;
        if timed && number + 1 == STEPS {
            let once = || {
                let (w, s, a, norms) = (&mut weights, &mut scales, &mut alpha, &seed_norms);
                clip.run(&state, ClipTargets { weights: w, scales: s, alpha: a, seed_norms: norms })
            };
            seconds = Some(time::median_seconds(device, once)?);
        }
    }
    Ok(Results { steps, running_norms, seconds })
}

fn judge(case: &Case, results: &Results, tally: &mut Tally) {
    let clip = match case.mode {
        ClipMode::None => return,
        ClipMode::ByValue(limit) => Clip::ByValue(limit.into()),
        ClipMode::GlobalNorm(limit) => Clip::GlobalNorm(limit.into()),
        ClipMode::Adaptive { factor, decay } => {
            Clip::Adaptive { factor: factor.into(), decay: decay.into() }
        }
    };
    let chunk = case.seeds.chunk_size;
    let offsets: Vec<u32> = (0..BLUEPRINTS).map(|b| (b * chunk) as u32).collect();
    let mut running = vec![None; case.seeds.num_seeds()];
    for (before, step) in case.steps.iter().zip(&results.steps) {
        let wide = |values: &[f32]| values.iter().map(|&g| f64::from(g)).collect::<Vec<_>>();
        let (mut weights, mut scales, mut alpha) =
            (wide(&before.weights), wide(&before.scales), wide(&before.alpha));
        let gradients = &mut ParameterGradients {
            weights: &mut weights,
            scales: &mut scales,
            alpha: &mut alpha,
            blueprint_id: &case.seeds.blueprint_id,
            blueprint_offset: &offsets,
            seed_norms: &wide(&before.seed_norms),
            chunk_size: chunk,
        };
        let expected = gradient_clip(clip, gradients, &mut running);
        for ((what, got), expected) in
            arrays(&step.gradients).into_iter().zip([&weights, &scales, &alpha])
        {
            units::judge_rounded(&case.name, what, got, expected, 0.0, tally);
        }
        let report = &step.report;
        let (got, wanted) =
            ([report.norm, report.coefficient], [expected.norm, expected.coefficient]);
        units::judge_rounded(&case.name, "report", &got.map(|v| v as f32), &wanted, 0.0, tally);
        let got =
            [report.nonfinite, report.nonfinite_units, report.clipped_values, report.clipped_units];
        let wanted = [
            expected.nonfinite,
            expected.nonfinite_units,
            expected.clipped_values,
            expected.clipped_units,
        ];
        units::judge_words(&case.name, "counts", &got, &wanted, tally);
    }
    let expected: Vec<f64> = running.iter().map(|norm| norm.unwrap_or(f64::NAN)).collect();
    units::judge_rounded(&case.name, "running_norm", &results.running_norms, &expected, 0.0, tally);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::{Source, Status};

    #[test]
    fn one_wrong_gradient_count_or_norm_fails() {
        let mode = ClipMode::Adaptive { factor: 0.75, decay: 0.9 };
        let case = Case::new(7, mode, &mut Units::of(&Source::random(3)));
        let verdict = |change: fn(&mut Results)| {
            let mut results = run(&Device::Cpu, &case, false).unwrap();
            change(&mut results);
            let mut tally = Tally::default();
            judge(&case, &results, &mut tally);
            tally.into_row("gradient_clip".into(), DType::F32, "cpu").status
        };
        assert_eq!(verdict(|_| {}), Status::Pass);
        for (name, change) in [
            ("grad_weights[3]", (|r| r.steps[2].gradients.weights[3] *= 1.001) as fn(&mut Results)),
            ("counts[0]", |r| r.steps[1].report.nonfinite = 0),
            ("running_norm[4]", |r| r.running_norms[4] += 0.1),
            ("report[0]", |r| r.steps[0].report.norm *= 1.01),
        ] {
            let Status::Fail { reason } = verdict(change) else { panic!("{name} passed") };
            assert!(reason.contains(name), "{reason}");
        }
    }
}

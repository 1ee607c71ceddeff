//! `gradient_clip` against the reference, for every mode.

use kasmina::kasmina::{ClipMode, ClipReport, ClipTargets, ClipTotals, GradientClip, LayerState};
use kasmina::{Buffer, Device, Error};
use kasmina_reference::kasmina::{Clip, Clipped, ParameterGradients, gradient_clip};

use super::blend_forward::{Case, mixed_states};
use crate::{Numbers, assert_near};

/// One step's gradients.
#[derive(Clone)]
struct Gradients {
    weights: Vec<f32>,
    scales: Vec<f32>,
    alpha: Vec<f32>,
    seed_norms: Vec<f32>,
}

impl Gradients {
    fn random(state: &LayerState, numbers: &mut Numbers, broken: bool) -> Self {
        let chunk = state.chunk_size();
        // Each step has another size, so that running norms are passed and kept.
        let size = numbers.in_range(0.1, 3.0);
        let mut values = |count: usize| -> Vec<f32> {
            (0..count).map(|_| size * numbers.in_range(-1.0, 1.0)).collect()
        };
        let blueprints = state.num_blueprints();
        let (mut weights, mut scales) = (values(blueprints * chunk), values(blueprints));
        let mut alpha = values(state.num_seeds());
        let mut seed_norms: Vec<f32> =
            values(state.num_seeds()).into_iter().map(f32::abs).collect();
        if broken {
            let any = numbers.below(weights.len());
            weights[any] = f32::NAN;
            let any = numbers.below(scales.len());
            scales[any] = f32::INFINITY;
            let any = numbers.below(alpha.len());
            alpha[any] = f32::NEG_INFINITY;
            let any = numbers.below(seed_norms.len());
            seed_norms[any] = f32::NAN;
        }
        // A seed that trains α alone, and one that trains nothing.
        let any = numbers.below(alpha.len());
        seed_norms[any] = 0.0;
        let any = numbers.below(alpha.len());
        (alpha[any], seed_norms[any]) = (0.0, 0.0);
        // A blueprint that nobody trains.
        weights[chunk..2 * chunk].fill(0.0);
        scales[1] = 0.0;
        Self { weights, scales, alpha, seed_norms }
    }
}

fn reference_mode(mode: ClipMode) -> Option<Clip> {
    Some(match mode {
        ClipMode::None => return None,
        ClipMode::ByValue(limit) => Clip::ByValue(limit.into()),
        ClipMode::GlobalNorm(limit) => Clip::GlobalNorm(limit.into()),
        ClipMode::Adaptive { factor, decay } => {
            Clip::Adaptive { factor: factor.into(), decay: decay.into() }
        }
    })
}

/// Several steps of one mode, compared with the f64 reference; two plans must agree bit for bit.
#[track_caller]
pub fn check(device: &Device, mode: ClipMode, case: Case) {
    let states = mixed_states(case);
    let state = LayerState::new(device, states.clone()).expect("a state");
    let (seeds, blueprints, chunk) = (case.num_seeds, states.num_blueprints(), case.chunk_size);
    let plan = || GradientClip::new(device, seeds, blueprints, chunk, mode).expect("a plan");
    let (mut clip, mut twin) = (plan(), plan());
    let mut running = vec![None; seeds];
    let offsets: Vec<u32> = (0..blueprints).map(|b| (b * chunk) as u32).collect();
    let mut numbers = Numbers::new(case.seed ^ 0x5eed);
    let mut totals = ClipTotals::default();
    for step in 0..4 {
        let broken = case.broken_inputs && step % 2 == 1;
        let before = Gradients::random(&state, &mut numbers, broken);
        let after = run(device, &state, &mut clip, &before);
        let again = run(device, &state, &mut twin, &before);
        let report = clip.report().expect("a report");
        assert_eq!(format!("{report:?}"), format!("{:?}", twin.report().expect("a report")));
        for (a, b) in arrays(&after).iter().zip(arrays(&again)) {
            assert!(bits(a.1) == bits(b.1), "{}: two runs, two results", a.0);
        }
        let Some(mode) = reference_mode(mode) else {
            for (a, b) in arrays(&before).iter().zip(arrays(&after)) {
                assert!(bits(a.1) == bits(b.1), "{} changed", a.0);
            }
            assert_eq!(clip.totals().expect("totals"), totals, "nothing was clipped");
            continue;
        };
        let wide = |values: &[f32]| values.iter().map(|&g| f64::from(g)).collect::<Vec<_>>();
        let (mut weights, mut scales, mut alpha) =
            (wide(&before.weights), wide(&before.scales), wide(&before.alpha));
        let expected = gradient_clip(
            mode,
            &mut ParameterGradients {
                weights: &mut weights,
                scales: &mut scales,
                alpha: &mut alpha,
                blueprint_id: &states.blueprint_id,
                blueprint_offset: &offsets,
                seed_norms: &wide(&before.seed_norms),
                chunk_size: chunk,
            },
            &mut running,
        );
        for ((name, got), expected) in arrays(&after).into_iter().zip([&weights, &scales, &alpha]) {
            assert_near(&format!("{name} of step {step}"), &wide(got), expected, 1e-6, 1e-6);
        }
        for ((name, was), (_, is)) in arrays(&before).into_iter().zip(arrays(&after)) {
            for (was, is) in was.iter().zip(is).filter(|(was, _)| !was.is_finite()) {
                assert_eq!(was.to_bits(), is.to_bits(), "a broken value of {name} changed");
            }
        }
        compare_reports(&report, &expected);
        totals.runs += 1;
        totals.nonfinite += u64::from(expected.nonfinite);
        totals.clipped_values += u64::from(expected.clipped_values);
        totals.clipped_units += u64::from(expected.clipped_units);
        assert_eq!(clip.totals().expect("totals"), totals, "after step {step}");
        let norms = clip.running_norms().expect("norms");
        let expected: Vec<f64> = running.iter().map(|norm| norm.unwrap_or(f64::NAN)).collect();
        assert_near("running norms", &wide(&norms), &expected, 1.0, 1e-6);
    }
    // One seed forgets, the others keep what they have.
    let seed = seeds / 2;
    let before = clip.running_norms().expect("norms");
    clip.reset_seed(seed).expect("a seed");
    let after = clip.running_norms().expect("norms");
    for (index, (was, is)) in before.iter().zip(&after).enumerate() {
        let expected = if index == seed { f32::NAN } else { *was };
        assert!(
            is.is_nan() == expected.is_nan() && (is.is_nan() || *is == expected),
            "seed {index}"
        );
    }
    clip.reset_seed(seeds).expect_err("no such seed");
    clip.reset().expect("memory");
    assert!(clip.running_norms().expect("norms").iter().all(|norm| norm.is_nan()));
    assert_eq!(clip.totals().expect("totals"), totals, "the totals stay");
}

#[track_caller]
fn compare_reports(got: &ClipReport, expected: &Clipped) {
    assert_near("norm", &[got.norm], &[expected.norm], 0.0, 1e-12);
    assert_near("coefficient", &[got.coefficient], &[expected.coefficient], 0.0, 1e-6);
    let counts = (got.nonfinite, got.nonfinite_units, got.clipped_values, got.clipped_units);
    let wanted = (
        expected.nonfinite,
        expected.nonfinite_units,
        expected.clipped_values,
        expected.clipped_units,
    );
    assert_eq!(counts, wanted, "{got:?}");
}

fn run(
    device: &Device,
    state: &LayerState,
    clip: &mut GradientClip,
    gradients: &Gradients,
) -> Gradients {
    let buffer = |values: &[f32]| Buffer::from_slice(device, values).expect("memory");
    let mut weights = buffer(&gradients.weights);
    let (mut scales, mut alpha) = (buffer(&gradients.scales), buffer(&gradients.alpha));
    let (w, s, a, norms) = (&mut weights, &mut scales, &mut alpha, &buffer(&gradients.seed_norms));
    let targets = ClipTargets { weights: w, scales: s, alpha: a, seed_norms: norms };
    clip.run(state, targets).unwrap_or_else(|why| panic!("{why}"));
    let values = |buffer: &Buffer<f32>| buffer.to_vec().expect("a result");
    Gradients {
        weights: values(&weights),
        scales: values(&scales),
        alpha: values(&alpha),
        seed_norms: gradients.seed_norms.clone(),
    }
}

fn arrays(gradients: &Gradients) -> [(&'static str, &[f32]); 3] {
    [
        ("grad_weights", &gradients.weights),
        ("grad_scales", &gradients.scales),
        ("grad_alpha", &gradients.alpha),
    ]
}

fn bits(values: &[f32]) -> &[u32] {
    bytemuck::cast_slice(values)
}

/// Every mode, and limits that clip all, some and none.
#[track_caller]
pub fn check_every_mode(device: &Device, case: Case) {
    for mode in [
        ClipMode::None,
        ClipMode::ByValue(0.5),
        ClipMode::GlobalNorm(0.75),
        ClipMode::GlobalNorm(1e9),
        ClipMode::Adaptive { factor: 1.0, decay: 0.9 },
        ClipMode::Adaptive { factor: 0.25, decay: 0.0 },
    ] {
        check(device, mode, case);
    }
}

/// Gradients whose squares no f32 holds are scaled as others are.
#[track_caller]
pub fn check_large_values(device: &Device) {
    let case = Case { batch: 1, num_seeds: 3, chunk_size: 5, seed: 1, broken_inputs: false };
    let states = mixed_states(case);
    let state = LayerState::new(device, states.clone()).expect("a state");
    let blueprints = states.num_blueprints();
    let mut clip =
        GradientClip::new(device, 3, blueprints, 5, ClipMode::GlobalNorm(2.0)).expect("a plan");
    let huge = Gradients {
        weights: vec![3e38; blueprints * 5],
        scales: vec![-3e38; blueprints],
        alpha: vec![3e38; 3],
        seed_norms: vec![0.0; 3],
    };
    let after = run(device, &state, &mut clip, &huge);
    let values: Vec<f32> = arrays(&after).iter().flat_map(|(_, values)| values.to_vec()).collect();
    let norm = values.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
    assert!((norm / 2.0 - 1.0).abs() < 1e-6, "{norm}");
    let report = clip.report().expect("a report");
    assert_eq!((report.nonfinite, report.clipped_units as usize), (0, blueprints));
}

/// Settings and buffers that mean nothing are refused.
#[track_caller]
pub fn check_refusals(device: &Device) {
    for mode in [
        ClipMode::ByValue(-1.0),
        ClipMode::ByValue(0.0),
        ClipMode::GlobalNorm(0.0),
        ClipMode::ByValue(f32::NAN),
        ClipMode::GlobalNorm(f32::INFINITY),
        ClipMode::Adaptive { factor: 0.0, decay: 0.5 },
        ClipMode::Adaptive { factor: 1.0, decay: 1.0 },
        ClipMode::Adaptive { factor: 1.0, decay: f32::NAN },
    ] {
        let refused = GradientClip::new(device, 1, 1, 1, mode);
        assert!(matches!(refused, Err(Error::Setting { .. })), "{mode:?}: {refused:?}");
    }
    let case = Case { batch: 1, num_seeds: 2, chunk_size: 3, seed: 1, broken_inputs: false };
    let states = mixed_states(case);
    let blueprints = states.num_blueprints();
    let state = LayerState::new(device, states).expect("a state");
    let mut clip =
        GradientClip::new(device, 2, blueprints, 3, ClipMode::ByValue(1.0)).expect("one");
    let zeros = |len| Buffer::<f32>::zeroed(device, len).expect("memory");
    let (mut weights, mut scales, mut alpha) = (zeros(blueprints * 3), zeros(blueprints), zeros(3));
    let (w, s, a, norms) = (&mut weights, &mut scales, &mut alpha, &zeros(2));
    let targets = ClipTargets { weights: w, scales: s, alpha: a, seed_norms: norms };
    let refused = clip.run(&state, targets);
    assert!(matches!(refused, Err(Error::Length { buffer: "grad_alpha", .. })), "{refused:?}");
}

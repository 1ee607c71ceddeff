//! `blend_backward` against the reference, and the numerical modes of both passes.

use kasmina::kasmina::{
    BlendBackward, BlendForward, BlendOptions, GradientBuffers, GradientValues, LayerElement,
    LayerState, NumericalMode, SeedStates, TelemetryBuffers, Variant,
};
use kasmina::{Buffer, Device};
use kasmina_reference::kasmina as reference;
use kasmina_reference::numeric::compare_to_scale;
use ndarray::ArrayView2;

use super::blend_forward::{Case, bits, mixed_states};
use crate::{Narrow, Numbers, assert_near};

/// Relative error that an f32 sum over the batch may have, of its natural size.
const SUM_TOLERANCE: f64 = 1e-5;

/// What a run has written.
struct Results<T> {
    grad_input: Vec<T>,
    gradients: GradientValues,
}

/// Runs the case twice on `device` and compares all gradients with the f64 reference, those of seeds that
/// pass them on bit for bit, and the two runs bit for bit.
#[track_caller]
pub fn check<T: Narrow + LayerElement>(device: &Device, case: Case) {
    check_states::<T>(device, case, mixed_states(case));
}

/// As [`check`], of a shape of which a block takes a seed.
#[track_caller]
pub fn check_by_seed<T: Narrow + LayerElement>(device: &Device, case: Case) {
    let Case { batch, num_seeds, chunk_size, .. } = case;
    let backward = BlendBackward::<T>::new(device, batch, num_seeds, chunk_size).expect("a plan");
    let kernel = backward.kernel().expect("a kernel runs");
    assert!(kernel.entry.contains("_seed_"), "{case:?}: {}", kernel.entry);
    check::<T>(device, case);
}

/// As [`check`], of a shape that is too long for that, with an access of 16 bytes.
#[track_caller]
pub fn check_plain<T: Narrow + LayerElement>(device: &Device, case: Case) {
    let Case { batch, num_seeds, chunk_size, .. } = case;
    let backward = BlendBackward::<T>::new(device, batch, num_seeds, chunk_size).expect("a plan");
    let kernel = backward.kernel().expect("a kernel runs");
    assert!(kernel.entry.ends_with("_v16"), "{case:?}: {}", kernel.entry);
    check::<T>(device, case);
}

/// As [`check`], in a variant.
#[track_caller]
pub fn check_variant<T: Narrow + LayerElement>(device: &Device, case: Case, variant: Variant) {
    check_inputs(device, case, &mixed_states(case), &inputs::<T>(case), variant);
}

/// As [`check`], for states of the caller's.
#[track_caller]
pub fn check_states<T: Narrow + LayerElement>(device: &Device, case: Case, states: SeedStates) {
    check_inputs(device, case, &states, &inputs::<T>(case), Variant::Auto);
}

/// As [`check_states`], for an input and a gradient of the caller's.
#[track_caller]
fn check_inputs<T: Narrow + LayerElement>(
    device: &Device,
    case: Case,
    states: &SeedStates,
    (x, g): &(Vec<T>, Vec<T>),
    variant: Variant,
) {
    let first = run(device, case, states, (x, g), variant);
    let second = run(device, case, states, (x, g), variant);
    assert!(bits(&first.grad_input) == bits(&second.grad_input), "{case:?}: two runs, two ∂x");
    for ((name, a), (_, b)) in first.gradients.arrays().zip(second.gradients.arrays()) {
        assert!(bits(a) == bits(b), "{case:?}: two runs, two {name}: {a:?} and {b:?}");
    }
    compare(case, states, (x, g), &first);
}

/// One element of x or g that is not finite, in each column of a seed of each type, and each such value: it spreads
/// to the same gradients as in the reference.
#[track_caller]
pub fn check_broken_elements<T: Narrow + LayerElement>(
    device: &Device,
    chunk_size: usize,
    variant: Variant,
) {
    let case = Case { batch: 3, num_seeds: 5, chunk_size, seed: 5, broken_inputs: false };
    let mut states = mixed_states(case);
    for seed in 0..5 {
        states.lifecycle[seed] = 3;
        states.blueprint_id[seed] = 1 + seed as u16;
        states.blueprint_type[1 + seed] = seed as u8;
        states.alpha[seed] = 0.5;
    }
    let whole = inputs::<T>(case);
    for column in 0..chunk_size {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for in_g in [false, true] {
                let mut broken = whole.clone();
                let values = if in_g { &mut broken.1 } else { &mut broken.0 };
                for seed in 0..5 {
                    values[(5 + seed) * chunk_size + column] = T::narrow(value);
                }
                check_inputs(device, case, &states, &broken, variant);
            }
        }
    }
}

fn inputs<T: Narrow>(case: Case) -> (Vec<T>, Vec<T>) {
    let mut numbers = Numbers::new(case.seed ^ 0xbac4);
    let elements = case.batch * case.num_seeds * case.chunk_size;
    let mut values = || -> Vec<T> {
        let mut values: Vec<T> =
            (0..elements).map(|_| T::narrow(numbers.in_range(-3.0, 3.0))).collect();
        if case.broken_inputs {
            for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0] {
                values[numbers.below(elements)] = T::narrow(broken);
            }
        }
        values
    };
    (values(), values())
}

/// Gradients of one run into poisoned buffers.
fn run<T: Narrow + LayerElement>(
    device: &Device,
    case: Case,
    states: &SeedStates,
    (x, g): (&[T], &[T]),
    variant: Variant,
) -> Results<T> {
    let state = LayerState::new(device, states.clone()).expect("a valid state");
    let input = Buffer::from_slice(device, x).expect("memory");
    let grad_output = Buffer::from_slice(device, g).expect("memory");
    let mut grad_input = Buffer::<T>::zeroed(device, x.len()).expect("memory");
    grad_input.fill_bytes(0xff).expect("memory");
    let mut gradients = GradientBuffers::new(device, &state).expect("memory");
    gradients.fill_bytes(0xff).expect("memory");
    let Case { batch, num_seeds, chunk_size, .. } = case;
    let options = BlendOptions { variant, ..BlendOptions::default() };
    let mut backward =
        BlendBackward::<T>::with_options(device, batch, num_seeds, chunk_size, options)
            .expect("a plan");
    assert!(variant == Variant::Auto || backward.variant() == variant, "{case:?}");
    // Twice into the same buffers: the scratch memory must be ready for another launch.
    for _ in 0..2 {
        backward
            .run(&state, &input, &grad_output, &mut grad_input, &mut gradients)
            .unwrap_or_else(|why| panic!("{case:?}: {why}"));
    }
    Results {
        grad_input: grad_input.to_vec().expect("a result"),
        gradients: gradients.read().expect("a result"),
    }
}

#[track_caller]
fn compare<T: Narrow + LayerElement>(
    case: Case,
    states: &SeedStates,
    (x, g): (&[T], &[T]),
    results: &Results<T>,
) {
    let hidden = case.num_seeds * case.chunk_size;
    let wide = |values: &[T]| -> Vec<f64> { values.iter().map(|v| v.wide()).collect() };
    let (wide_x, wide_g) = (wide(x), wide(g));
    let matrix = |values| ArrayView2::from_shape((case.batch, hidden), values).expect("the shape");
    let fast = reference::NumericalMode::Fast;
    let expected =
        reference::blend_backward(matrix(&wide_x), matrix(&wide_g), &layer(states), fast)
            .expect("a valid state");

    // The formula's 0·∞ may be the kernel's ∞, for the kernel factors it: both are 'not finite'.
    let settled = |v: f64| if v.is_finite() { v } else { f64::NAN };
    let got: Vec<f64> = results.grad_input.iter().map(|v| settled(v.wide())).collect();
    let want: Vec<f64> = expected.grad_input.iter().map(|&v| settled(v)).collect();
    assert_near(&format!("∂x of {case:?}"), &got, &want, 1.0, T::TOLERANCE);
    for (i, (g, dx)) in g.iter().zip(&results.grad_input).enumerate() {
        let seed = i % hidden / case.chunk_size;
        let active = reference::is_active(states.lifecycle[seed]) && states.blueprint_id[seed] != 0;
        assert!(active || bits(&[*g]) == bits(&[*dx]), "{case:?}: ∂x[{i}] of an identity");
    }

    let variance_scales: Vec<f64> =
        expected.scales.norm.iter().map(|norm| norm * norm / case.chunk_size as f64).collect();
    let weights = expected.grad_weights.as_standard_layout().into_owned();
    let weight_scales = expected.scales.weights.as_standard_layout().into_owned();
    let got = &results.gradients;
    for (what, got, want, scales) in [
        (
            "∂w",
            &got.grad_weights,
            weights.as_slice().expect("row-major"),
            weight_scales.as_slice().expect("row-major"),
        ),
        ("∂s", &got.grad_scales, &expected.grad_scales, &expected.scales.scales),
        ("∂α", &got.grad_alpha, &expected.grad_alpha, &expected.scales.alpha),
        ("norm", &got.gradient_norm, &expected.gradient_norm, &expected.scales.norm),
        ("variance", &got.gradient_variance, &expected.gradient_variance, &variance_scales),
        ("max", &got.gradient_max, &expected.gradient_max, &expected.scales.max),
    ] {
        assert_eq!(got.len(), want.len(), "{what} of {case:?}");
        for (i, ((&got, &want), &scale)) in got.iter().zip(want).zip(scales).enumerate() {
            let (got, want) = (settled(got.into()), settled(want));
            let comparison = compare_to_scale(&[got], &[want], scale).expect("one of each");
            assert!(
                comparison.max_rel_error <= SUM_TOLERANCE,
                "{what}[{i}] of {case:?}: {got} is not near {want} (scale {scale}), {:?}",
                blueprint_of(states, what, i)
            );
        }
    }
}

/// What a failed comparison says of the seed or blueprint.
fn blueprint_of(states: &SeedStates, what: &str, i: usize) -> (Option<u8>, u8) {
    let of_seed = |seed: usize| {
        (Some(states.lifecycle[seed]), states.blueprint_type[states.blueprint_id[seed] as usize])
    };
    match what {
        "∂w" => (None, states.blueprint_type[i / states.chunk_size]),
        "∂s" => (None, states.blueprint_type[i]),
        _ => of_seed(i),
    }
}

fn layer(states: &SeedStates) -> reference::LayerState<'_, f32> {
    let weights = (states.num_blueprints(), states.chunk_size);
    reference::LayerState {
        lifecycle: &states.lifecycle,
        blueprint_id: &states.blueprint_id,
        alpha: &states.alpha,
        blueprint_type: &states.blueprint_type,
        blueprint_weights: ArrayView2::from_shape(weights, &states.blueprint_weights)
            .expect("the state's shape"),
        blueprint_scales: &states.blueprint_scales,
    }
}

/// Many seeds that all train, a few blueprints for all of them.
#[track_caller]
pub fn check_shared_blueprints<T: Narrow + LayerElement>(device: &Device, case: Case) {
    let mut states = mixed_states(case);
    let training = [2, 3, 6];
    for (seed, state) in states.lifecycle.iter_mut().enumerate() {
        *state = training[seed % 3];
    }
    for id in &mut states.blueprint_id {
        *id = 1 + *id % 3;
    }
    check_states::<T>(device, case, states);
}

/// Output and ∂x in the strict and the adaptive mode, and the flags that decide on the latter.
#[track_caller]
pub fn check_modes<T: Narrow + LayerElement>(device: &Device, case: Case, variant: Variant) {
    let states = mixed_states(case);
    // Of an infinite value the formula's order decides between ∞, which is clamped, and NaN, which is not.
    let (x, g): (Vec<T>, Vec<T>) = inputs(case);
    let open = |v: &mut T| {
        if v.wide().is_infinite() {
            *v = T::narrow(f32::NAN);
        }
    };
    let [x, g] = [x, g].map(|mut values| {
        values.iter_mut().for_each(open);
        values
    });
    let hidden = case.num_seeds * case.chunk_size;
    let wide = |values: &[T]| -> Vec<f64> { values.iter().map(|v| v.wide()).collect() };
    let (wide_x, wide_g) = (wide(&x), wide(&g));
    let matrix = |values| ArrayView2::from_shape((case.batch, hidden), values).expect("the shape");
    let unstable = reference::unstable_seeds(
        &reference::telemetry(matrix(&wide_x), case.num_seeds).expect("the shape"),
    );
    let (low, high) = (-1.5_f32, 2.0_f32);
    let (wide_low, wide_high) = (f64::from(low), f64::from(high));
    let calm = vec![0; case.num_seeds];
    for (numerical, modes) in [
        (
            NumericalMode::Strict { low, high },
            [reference::NumericalMode::Strict { low: wide_low, high: wide_high }; 2],
        ),
        (
            NumericalMode::Adaptive { low, high },
            // A first step is fast; what it sees decides on what follows.
            [&calm, &unstable].map(|unstable| reference::NumericalMode::Adaptive {
                low: wide_low,
                high: wide_high,
                unstable,
            }),
        ),
    ] {
        let options = BlendOptions { numerical, variant, ..BlendOptions::default() };
        let shape = (case.batch, case.num_seeds, case.chunk_size);
        let mut forward =
            BlendForward::<T>::with_options(device, shape.0, shape.1, shape.2, options)
                .expect("a plan");
        let mut backward =
            BlendBackward::<T>::with_options(device, shape.0, shape.1, shape.2, options)
                .expect("a plan");
        let mut state = LayerState::new(device, states.clone()).expect("a valid state");
        let input = Buffer::from_slice(device, &x).expect("memory");
        let grad_output = Buffer::from_slice(device, &g).expect("memory");
        let mut output = Buffer::<T>::zeroed(device, x.len()).expect("memory");
        let mut telemetry = TelemetryBuffers::new(device, case.num_seeds).expect("memory");
        let mut gradients = GradientBuffers::new(device, &state).expect("memory");
        for mode in modes {
            output.fill_bytes(0xff).expect("memory");
            forward.run(&mut state, &input, &mut output, &mut telemetry).expect("a run");
            let y = reference::blend_forward_in_mode(matrix(&wide_x), &layer(&states), mode);
            compare_settled("y", case, mode, &output, &y.expect("a valid state"));
        }
        let mut grad_input = output;
        grad_input.fill_bytes(0xff).expect("memory");
        backward.run(&state, &input, &grad_output, &mut grad_input, &mut gradients).expect("a run");
        let expected =
            reference::blend_backward(matrix(&wide_x), matrix(&wide_g), &layer(&states), modes[1]);
        let expected = expected.expect("a valid state").grad_input;
        compare_settled("∂x", case, modes[1], &grad_input, &expected);
    }
}

#[track_caller]
fn compare_settled<T: Narrow>(
    what: &str,
    case: Case,
    mode: reference::NumericalMode<'_>,
    got: &Buffer<T>,
    want: &ndarray::Array2<f64>,
) {
    let settled = |v: f64| if v.is_finite() { v } else { f64::NAN };
    let got: Vec<f64> = got.to_vec().expect("a result").iter().map(|v| settled(v.wide())).collect();
    let want: Vec<f64> = want.iter().map(|&v| settled(v)).collect();
    assert_near(&format!("{what} of {case:?} in {mode:?}"), &got, &want, 1.0, T::TOLERANCE);
}

/// Without telemetry the output is the same, and the telemetry's arrays stay as they are.
#[track_caller]
pub fn check_without_telemetry<T: Narrow + LayerElement>(device: &Device, case: Case) {
    let mut state = LayerState::new(device, mixed_states(case)).expect("a valid state");
    let (x, _) = inputs::<T>(case);
    let input = Buffer::from_slice(device, &x).expect("memory");
    let mut telemetry = TelemetryBuffers::new(device, case.num_seeds).expect("memory");
    let mut outputs = Vec::new();
    for on in [true, false] {
        let options = BlendOptions { telemetry: on, ..BlendOptions::default() };
        let (batch, seeds, chunk) = (case.batch, case.num_seeds, case.chunk_size);
        let mut forward =
            BlendForward::<T>::with_options(device, batch, seeds, chunk, options).expect("a plan");
        let mut output = Buffer::<T>::zeroed(device, x.len()).expect("memory");
        output.fill_bytes(0xff).expect("memory");
        telemetry.fill_bytes(0xff).expect("memory");
        forward.run(&mut state, &input, &mut output, &mut telemetry).expect("a run");
        outputs.push(output.to_vec().expect("a result"));
        let untouched = telemetry.read().expect("a result").count.iter().all(|&n| n == u32::MAX);
        assert_eq!(untouched, !on, "{case:?}");
    }
    assert!(bits(&outputs[0]) == bits(&outputs[1]), "{case:?}: telemetry changed the output");
}

/// A gradient array of the wrong length is refused, whichever it is, and so are bounds that hold nothing.
#[track_caller]
pub fn check_refusals(device: &Device) {
    let case = Case { batch: 4, num_seeds: 3, chunk_size: 8, seed: 0, broken_inputs: false };
    let state = LayerState::new(device, mixed_states(case)).expect("a valid state");
    let buffer = |len| Buffer::<f32>::zeroed(device, len).expect("memory");
    let mut backward = BlendBackward::<f32>::new(device, 4, 3, 8).expect("a plan");
    type Spoil = fn(&mut GradientBuffers, Buffer<f32>);
    let spoils: [(&str, Spoil); 6] = [
        ("gradients.grad_weights", |g, short| g.grad_weights = short),
        ("gradients.grad_scales", |g, short| g.grad_scales = short),
        ("gradients.grad_alpha", |g, short| g.grad_alpha = short),
        ("gradients.gradient_norm", |g, short| g.gradient_norm = short),
        ("gradients.gradient_variance", |g, short| g.gradient_variance = short),
        ("gradients.gradient_max", |g, short| g.gradient_max = short),
    ];
    for (name, spoil) in spoils {
        let mut gradients = GradientBuffers::new(device, &state).expect("memory");
        spoil(&mut gradients, buffer(2));
        let refused =
            backward.run(&state, &buffer(96), &buffer(96), &mut buffer(96), &mut gradients);
        assert!(
            matches!(refused, Err(kasmina::Error::Length { buffer, got: 2, .. }) if buffer == name),
            "{name}: {refused:?}"
        );
    }
    let mut gradients = GradientBuffers::new(device, &state).expect("memory");
    for (name, lengths) in
        [("input", [95, 96, 96]), ("grad_output", [96, 97, 96]), ("grad_input", [96, 96, 0])]
    {
        let [x, g, dx] = lengths.map(buffer);
        let mut dx = dx;
        let refused = backward.run(&state, &x, &g, &mut dx, &mut gradients);
        assert!(
            matches!(refused, Err(kasmina::Error::Length { buffer, .. }) if buffer == name),
            "{name}: {refused:?}"
        );
    }
    let numerical = NumericalMode::Strict { low: 1.0, high: 0.0 };
    let options = BlendOptions { numerical, ..BlendOptions::default() };
    let refused = BlendBackward::<f32>::with_options(device, 4, 3, 8, options).map(drop);
    assert!(matches!(refused, Err(kasmina::Error::Bounds { .. })), "{refused:?}");
}

/// The descriptors of buffers that were seen before are not made again, and a variant is refused where it cannot run.
#[track_caller]
pub fn check_tensor_maps(device: &Device) {
    let case = Case { batch: 9, num_seeds: 3, chunk_size: 8, seed: 0, broken_inputs: false };
    let options = BlendOptions { variant: Variant::Tma, ..BlendOptions::default() };
    let plan =
        |device, chunk, options| BlendBackward::<f32>::with_options(device, 9, 3, chunk, options);
    let mut backward = plan(device, 8, options).expect("a plan");
    let state = LayerState::new(device, mixed_states(case)).expect("a valid state");
    let buffer = |value: f32| Buffer::from_slice(device, &[value; 216]).expect("memory");
    let (x, gradients) = (buffer(5.0), [1.0, 2.0, 3.0].map(buffer));
    let mut grad_input = buffer(0.0);
    let mut sums = GradientBuffers::new(device, &state).expect("memory");
    for round in 0..5 {
        for (i, g) in gradients.iter().enumerate() {
            backward.run(&state, &x, g, &mut grad_input, &mut sums).expect("a run");
            // The first seed is dormant: what comes out says which gradient was read.
            assert_eq!(grad_input.to_vec().expect("a result")[0], 1.0 + i as f32, "round {round}");
        }
    }
    let maps = backward.tensor_maps().expect("this variant has them");
    assert_eq!((maps.misses, maps.hits, maps.evictions), (4, 26, 0));

    let bulk = BlendOptions { variant: Variant::TmaBulkStores, ..options };
    for refused in [plan(device, 7, options), plan(&Device::Cpu, 8, options), plan(device, 8, bulk)]
    {
        let refused = refused.err();
        assert!(matches!(refused, Some(kasmina::Error::Variant { .. })), "{refused:?}");
    }
}

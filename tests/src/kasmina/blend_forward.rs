//! `blend_forward` against the reference.

use kasmina::kasmina::{
    BlendForward, BlendOptions, LayerElement, LayerState, SeedStates, TelemetryBuffers, Variant,
};
use kasmina::{Buffer, Device};
use kasmina_reference::kasmina as reference;
use ndarray::ArrayView2;

use crate::{Narrow, Numbers, assert_near};

/// A shape, and the seed of everything else.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Rows.
    pub batch: usize,
    /// Seeds.
    pub num_seeds: usize,
    /// Columns of a seed.
    pub chunk_size: usize,
    /// Seed of states, weights and inputs.
    pub seed: u64,
    /// Whether a few inputs are NaN or infinite.
    pub broken_inputs: bool,
}

/// States that mix every lifecycle, every blueprint type, and seeds without a blueprint.
pub fn mixed_states(case: Case) -> SeedStates {
    let mut numbers = Numbers::new(case.seed);
    let blueprints = 7;
    SeedStates {
        lifecycle: (0..case.num_seeds).map(|s| ((s as u64 + case.seed) % 11) as u8).collect(),
        blueprint_id: (0..case.num_seeds).map(|_| numbers.below(blueprints) as u16).collect(),
        // Outside [0, 1] too: it is clipped.
        alpha: (0..case.num_seeds).map(|_| numbers.in_range(-0.2, 1.2)).collect(),
        blueprint_type: (0..blueprints).map(|b| (b % 5) as u8).collect(),
        blueprint_weights: (0..blueprints * case.chunk_size)
            .map(|_| numbers.in_range(-2.0, 2.0))
            .collect(),
        blueprint_scales: (0..blueprints).map(|_| numbers.in_range(-1.5, 1.5)).collect(),
        chunk_size: case.chunk_size,
    }
}

/// `check_options` with the default ones.
#[track_caller]
pub fn check<T: Narrow + LayerElement>(device: &Device, case: Case) {
    check_options::<T>(device, case, BlendOptions::default());
}

/// `check_options` with a variant.
#[track_caller]
pub fn check_variant<T: Narrow + LayerElement>(device: &Device, case: Case, variant: Variant) {
    check_options::<T>(device, case, BlendOptions { variant, ..BlendOptions::default() });
}

/// Runs the case twice on `device` and compares output and telemetry with the f64 reference, the
/// identity bit for bit, and the two runs bit for bit.
#[track_caller]
fn check_options<T: Narrow + LayerElement>(device: &Device, case: Case, options: BlendOptions) {
    let states = mixed_states(case);
    let mut numbers = Numbers::new(case.seed ^ 0x5eed);
    let elements = case.batch * case.num_seeds * case.chunk_size;
    let mut x: Vec<T> = (0..elements).map(|_| T::narrow(numbers.in_range(-3.0, 3.0))).collect();
    if case.broken_inputs {
        for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0] {
            x[numbers.below(elements)] = T::narrow(broken);
        }
    }
    let (y, telemetry) = run(device, case, &states, &x, options);
    let (again, telemetry_again) = run(device, case, &states, &x, options);
    assert!(bits(&y) == bits(&again), "{case:?}: two runs, two outputs");
    // NaN differs from itself, its text does not.
    assert_eq!(format!("{telemetry:?}"), format!("{telemetry_again:?}"), "{case:?}");

    let wide: Vec<f64> = x.iter().map(|x| x.wide()).collect();
    let hidden = case.num_seeds * case.chunk_size;
    let wide = ArrayView2::from_shape((case.batch, hidden), &wide).expect("the case's shape");
    let weights = (states.num_blueprints(), case.chunk_size);
    let layer = reference::LayerState {
        lifecycle: &states.lifecycle,
        blueprint_id: &states.blueprint_id,
        alpha: &states.alpha,
        blueprint_type: &states.blueprint_type,
        blueprint_weights: ArrayView2::from_shape(weights, &states.blueprint_weights)
            .expect("the state's shape"),
        blueprint_scales: &states.blueprint_scales,
    };
    let expected = reference::blend_forward(wide, &layer).expect("a valid state");
    // The formula's 0·∞ may be the kernel's ∞, for the kernel factors it: both are 'not finite'.
    let settled = |y: f64| if y.is_finite() { y } else { f64::NAN };
    let got: Vec<f64> = y.iter().map(|y| settled(y.wide())).collect();
    let expected: Vec<f64> = expected.iter().map(|&y| settled(y)).collect();
    assert_near(&format!("output of {case:?}"), &got, &expected, 1.0, T::TOLERANCE);
    for (i, (x, y)) in x.iter().zip(&y).enumerate() {
        let seed = i % hidden / case.chunk_size;
        let active = reference::is_active(states.lifecycle[seed]) && states.blueprint_id[seed] != 0;
        if !active {
            assert!(bits(&[*x]) == bits(&[*y]), "{case:?}: element {i} of an identity changed");
        }
    }

    let seen = reference::telemetry(wide, case.num_seeds).expect("a valid shape");
    let counts = |values: &[u32]| values.iter().map(|&v| u64::from(v)).collect::<Vec<_>>();
    assert_eq!(counts(&telemetry.count), seen.count, "{case:?}");
    assert_eq!(counts(&telemetry.nonfinite), seen.nonfinite, "{case:?}");
    for (what, got, expected) in [
        ("mean", &telemetry.mean, &seen.mean),
        ("variance", &telemetry.variance, &seen.variance),
        ("min", &telemetry.min, &seen.min),
        ("max", &telemetry.max, &seen.max),
        ("dead_ratio", &telemetry.dead_ratio, &seen.dead_ratio),
        ("snr", &telemetry.snr, &seen.snr),
    ] {
        let got: Vec<f64> = got.iter().map(|&v| v.into()).collect();
        // A seed of one value has variance 0, so that its signal-to-noise is 10⁴ times its mean.
        assert_near(&format!("{what} of {case:?}"), &got, expected, 1.0, 2e-5);
    }
}

/// As [`check`], of a shape of which a block takes a seed.
#[track_caller]
pub fn check_by_seed<T: Narrow + LayerElement>(device: &Device, case: Case) {
    let Case { batch, num_seeds, chunk_size, .. } = case;
    let forward = BlendForward::<T>::new(device, batch, num_seeds, chunk_size).expect("a plan");
    let kernel = forward.kernel().expect("a kernel runs");
    assert!(kernel.entry.contains("_seed_"), "{case:?}: {}", kernel.entry);
    check::<T>(device, case);
}

/// Output and telemetry of one run into poisoned buffers.
fn run<T: Narrow + LayerElement>(
    device: &Device,
    case: Case,
    states: &SeedStates,
    x: &[T],
    options: BlendOptions,
) -> (Vec<T>, kasmina::kasmina::TelemetryValues) {
    let mut state = LayerState::new(device, states.clone()).expect("a valid state");
    let input = Buffer::from_slice(device, x).expect("memory");
    let mut output = Buffer::<T>::zeroed(device, x.len()).expect("memory");
    output.fill_bytes(0xff).expect("memory");
    let mut telemetry = TelemetryBuffers::new(device, case.num_seeds).expect("memory");
    telemetry.fill_bytes(0xff).expect("memory");
    let Case { batch, num_seeds, chunk_size, .. } = case;
    let mut forward =
        BlendForward::<T>::with_options(device, batch, num_seeds, chunk_size, options)
            .expect("a plan");
    assert!(options.variant == Variant::Auto || forward.variant() == options.variant, "{case:?}");
    // Twice into the same buffers: the scratch memory must be ready for another launch.
    for _ in 0..2 {
        forward
            .run(&mut state, &input, &mut output, &mut telemetry)
            .unwrap_or_else(|why| panic!("{case:?}: {why}"));
    }
    (output.to_vec().expect("a result"), telemetry.read().expect("a result"))
}

pub(crate) fn bits<T: bytemuck::Pod>(values: &[T]) -> &[u8] {
    bytemuck::cast_slice(values)
}

/// Telemetry of values whose squares no f32 holds.
#[track_caller]
pub fn check_large_values(device: &Device) {
    let case = Case { batch: 40, num_seeds: 3, chunk_size: 8, seed: 0, broken_inputs: false };
    for value in [1e20_f32, -3e38] {
        let x = vec![value; 40 * 24];
        let (_, telemetry) = run(device, case, &mixed_states(case), &x, BlendOptions::default());
        for seed in 0..3 {
            assert_eq!(telemetry.nonfinite[seed], 0, "{value}");
            assert!(telemetry.variance[seed].abs() <= value.abs() * 1e-5, "{value}: {telemetry:?}");
            assert!((telemetry.mean[seed] / value - 1.0).abs() < 1e-5, "{value}: {telemetry:?}");
        }
    }
}

/// A telemetry array of the wrong length is refused, whichever it is.
#[track_caller]
pub fn check_short_telemetry(device: &Device) {
    let case = Case { batch: 4, num_seeds: 3, chunk_size: 8, seed: 0, broken_inputs: false };
    let mut state = LayerState::new(device, mixed_states(case)).expect("a valid state");
    let input = Buffer::from_slice(device, &[1.0_f32; 96]).expect("memory");
    let mut output = Buffer::<f32>::zeroed(device, 96).expect("memory");
    let mut forward = BlendForward::<f32>::new(device, 4, 3, 8).expect("a plan");
    let mut telemetry = TelemetryBuffers::new(device, 3).expect("memory");
    telemetry.snr = Buffer::zeroed(device, 2).expect("memory");
    let refused = forward.run(&mut state, &input, &mut output, &mut telemetry);
    assert!(
        matches!(refused, Err(kasmina::Error::Length { buffer: "telemetry.snr", got: 2, .. })),
        "{refused:?}"
    );
}

/// The descriptors of buffers that were seen before are not made again, and a variant is refused where it cannot run.
#[track_caller]
pub fn check_tensor_maps(device: &Device) {
    let case = Case { batch: 9, num_seeds: 3, chunk_size: 8, seed: 0, broken_inputs: false };
    let options = BlendOptions { variant: Variant::Tma, ..BlendOptions::default() };
    let mut forward = BlendForward::<f32>::with_options(device, 9, 3, 8, options).expect("a plan");
    let mut state = LayerState::new(device, mixed_states(case)).expect("a valid state");
    let mut telemetry = TelemetryBuffers::new(device, 3).expect("memory");
    let inputs: Vec<_> = (1..4)
        .map(|value| Buffer::from_slice(device, &[value as f32; 216]).expect("memory"))
        .collect();
    let mut output = Buffer::<f32>::zeroed(device, 216).expect("memory");
    for round in 0..5 {
        for (i, input) in inputs.iter().enumerate() {
            forward.run(&mut state, input, &mut output, &mut telemetry).expect("a run");
            // The first seed is dormant: what comes out says which input was read.
            assert_eq!(output.to_vec().expect("a result")[0], 1.0 + i as f32, "round {round}");
        }
    }
    let maps = forward.tensor_maps().expect("this variant has them");
    assert_eq!((maps.misses, maps.hits, maps.evictions), (3, 12, 0));

    let refused = BlendForward::<f32>::with_options(device, 9, 3, 7, options).err();
    assert!(matches!(refused, Some(kasmina::Error::Variant { .. })), "{refused:?}");
    let refused = BlendForward::<f32>::with_options(&Device::Cpu, 9, 3, 8, options).err();
    assert!(matches!(refused, Some(kasmina::Error::Variant { .. })), "{refused:?}");
}

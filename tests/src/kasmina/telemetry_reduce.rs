//! `telemetry_reduce` against the reference, for every strategy.

use kasmina::kasmina::{LayerElement, TelemetryBuffers, TelemetryReduce, TelemetryValues};
use kasmina::types::ReductionStrategy;
use kasmina::{Buffer, Device, Error};
use kasmina_reference::kasmina::{RowStrategy, telemetry_by};
use ndarray::ArrayView2;

use super::blend_forward::Case;
use crate::{Narrow, Numbers, assert_near};

/// Every strategy on the case: figures as the reference's, and the same bits twice.
#[track_caller]
pub fn check<T: Narrow + LayerElement>(device: &Device, case: Case) {
    let mut numbers = Numbers::new(case.seed);
    let elements = case.batch * case.num_seeds * case.chunk_size;
    let mut x: Vec<T> = (0..elements).map(|_| T::narrow(numbers.in_range(-3.0, 3.0))).collect();
    if case.broken_inputs {
        for broken in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -0.0, 1e-9] {
            x[numbers.below(elements)] = T::narrow(broken);
        }
        // A row of a chunk without a number, and a seed without one in any row.
        let row = numbers.below(case.batch) * case.num_seeds * case.chunk_size;
        x[row..row + case.chunk_size].fill(T::narrow(f32::NAN));
        if case.num_seeds > 2 {
            for row in x.chunks_mut(case.num_seeds * case.chunk_size) {
                row[case.chunk_size..2 * case.chunk_size].fill(T::narrow(f32::INFINITY));
            }
        }
    }
    for (strategy, by) in [
        (ReductionStrategy::Hierarchical, RowStrategy::Hierarchical),
        (ReductionStrategy::Mean, RowStrategy::Mean),
        (ReductionStrategy::Max, RowStrategy::Max),
    ] {
        let telemetry = run(device, case, strategy, &x);
        let again = run(device, case, strategy, &x);
        // NaN differs from itself, its text does not.
        assert_eq!(format!("{telemetry:?}"), format!("{again:?}"), "{case:?}");
        let wide: Vec<f64> = x.iter().map(|x| x.wide()).collect();
        let shape = (case.batch, case.num_seeds * case.chunk_size);
        let wide = ArrayView2::from_shape(shape, &wide).expect("the case's shape");
        let seen = telemetry_by(wide, case.num_seeds, by).expect("a valid shape");
        let counts = |values: &[u32]| values.iter().map(|&v| u64::from(v)).collect::<Vec<_>>();
        assert_eq!(counts(&telemetry.count), seen.count, "{strategy} {case:?}");
        assert_eq!(counts(&telemetry.nonfinite), seen.nonfinite, "{strategy} {case:?}");
        for (what, got, expected) in [
            ("mean", &telemetry.mean, &seen.mean),
            ("variance", &telemetry.variance, &seen.variance),
            ("min", &telemetry.min, &seen.min),
            ("max", &telemetry.max, &seen.max),
            ("dead_ratio", &telemetry.dead_ratio, &seen.dead_ratio),
            ("snr", &telemetry.snr, &seen.snr),
        ] {
            let got: Vec<f64> = got.iter().map(|&v| v.into()).collect();
            let what = format!("{strategy} {what} of {case:?}");
            assert_near(&what, &got, expected, 1.0, 3e-5);
        }
    }
}

fn run<T: Narrow + LayerElement>(
    device: &Device,
    case: Case,
    strategy: ReductionStrategy,
    x: &[T],
) -> TelemetryValues {
    let input = Buffer::from_slice(device, x).expect("memory");
    let mut telemetry = TelemetryBuffers::new(device, case.num_seeds).expect("memory");
    telemetry.fill_bytes(0xff).expect("memory");
    let Case { batch, num_seeds, chunk_size, .. } = case;
    let mut reduce =
        TelemetryReduce::<T>::new(device, batch, num_seeds, chunk_size, strategy).expect("a plan");
    // Twice into the same buffers: the scratch memory must be ready for another launch.
    for _ in 0..2 {
        reduce
            .run(&input, &mut telemetry)
            .unwrap_or_else(|why| panic!("{strategy} {case:?}: {why}"));
    }
    telemetry.read().expect("a result")
}

/// Values whose sums and squares no f32 holds.
#[track_caller]
pub fn check_large_values(device: &Device) {
    let case = Case { batch: 40, num_seeds: 3, chunk_size: 8, seed: 0, broken_inputs: false };
    for value in [1e20_f32, -3e38] {
        for strategy in ReductionStrategy::ALL {
            let telemetry = run(device, case, strategy, &vec![value; 40 * 24]);
            for seed in 0..3 {
                assert_eq!(telemetry.nonfinite[seed], 0, "{value}");
                let variance = telemetry.variance[seed].abs();
                assert!(variance <= value.abs() * 1e-5, "{strategy} {value}: {telemetry:?}");
                let mean = telemetry.mean[seed] / value;
                assert!((mean - 1.0).abs() < 1e-5, "{strategy} {value}: {telemetry:?}");
            }
        }
    }
}

/// Shapes and buffers that do not fit are refused.
#[track_caller]
pub fn check_refusals(device: &Device) {
    let strategy = ReductionStrategy::Mean;
    let refused = TelemetryReduce::<f32>::new(device, 0, 1, 1, strategy).map(drop);
    assert!(matches!(refused, Err(Error::Length { buffer: "batch", .. })), "{refused:?}");
    let refused = TelemetryReduce::<f32>::new(device, 1 << 20, 1, 1 << 20, strategy).map(drop);
    assert!(matches!(refused, Err(Error::TooLarge { .. })), "{refused:?}");
    let mut reduce = TelemetryReduce::<f32>::new(device, 4, 3, 8, strategy).expect("a plan");
    let mut telemetry = TelemetryBuffers::new(device, 3).expect("memory");
    let short = Buffer::<f32>::zeroed(device, 95).expect("memory");
    let refused = reduce.run(&short, &mut telemetry);
    assert!(matches!(refused, Err(Error::Length { buffer: "input", got: 95, .. })), "{refused:?}");
    telemetry.snr = Buffer::zeroed(device, 2).expect("memory");
    let input = Buffer::<f32>::zeroed(device, 96).expect("memory");
    let refused = reduce.run(&input, &mut telemetry);
    assert!(matches!(refused, Err(Error::Length { buffer: "telemetry.snr", .. })), "{refused:?}");
}

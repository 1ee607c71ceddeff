//! Telemetry: hand-made values, brute force, what non-finite values do.

use kasmina_reference::kasmina::{DEAD_BELOW, LayerError, SeedTelemetry, telemetry};
use ndarray::{Array2, array};
use proptest::{collection::vec, prelude::*};

#[test]
fn values_of_two_seeds_by_hand() {
    let x = array![[1.0, 3.0, 0.0, 1e-9], [5.0, 7.0, -1e-9, 4.0]];
    let t = telemetry(x.view(), 2).unwrap();
    let mean = (1e-9 - 1e-9 + 4.0) / 4.0;
    assert_eq!(t.count, [4, 4]);
    assert_eq!(t.nonfinite, [0, 0]);
    assert_eq!(t.mean, [4.0, mean]);
    assert_eq!(t.variance[0], 5.0);
    assert!((t.variance[1] - 3.0).abs() < 1e-14);
    assert_eq!((t.min[0], t.max[0]), (1.0, 7.0));
    assert_eq!((t.min[1], t.max[1]), (-1e-9, 4.0));
    assert_eq!(t.dead_ratio, [0.0, 0.75]);
    assert!((t.snr[0] - 4.0 / (5.0_f64 + 1e-8).sqrt()).abs() < 1e-15);
}

#[test]
fn the_line_of_dead_values_is_the_same_for_f32_and_f64() {
    let edge = 1e-8_f32;
    let x = array![[edge, edge.next_down(), -edge.next_down(), -edge]];
    assert_eq!(telemetry(x.view(), 1).unwrap().dead_ratio, [0.5]);
    assert_eq!(telemetry(x.mapv(f64::from).view(), 1).unwrap().dead_ratio, [0.5]);
    assert_eq!(DEAD_BELOW, f64::from(edge));
}

#[test]
fn non_finite_values_are_counted_and_left_out() {
    let x = array![[f32::NAN, 2.0, f32::NAN], [f32::INFINITY, 4.0, f32::NEG_INFINITY]];
    let t = telemetry(x.view(), 3).unwrap();
    assert_eq!(t.count, [2, 2, 2]);
    assert_eq!(t.nonfinite, [2, 0, 2]);
    assert_eq!((t.mean[1], t.variance[1], t.min[1], t.max[1]), (3.0, 1.0, 2.0, 4.0));
    for seed in [0, 2] {
        let none = [t.mean[seed], t.variance[seed], t.min[seed], t.max[seed], t.snr[seed]];
        assert!(none.iter().all(|v| v.is_nan()), "{none:?}");
        assert_eq!(t.dead_ratio[seed], 0.0);
    }
}

#[test]
fn an_empty_batch_has_no_statistics() {
    let t = telemetry(Array2::<f64>::zeros((0, 4)).view(), 2).unwrap();
    assert_eq!(t.count, [0, 0]);
    assert!(t.mean[0].is_nan() && t.variance[1].is_nan() && t.dead_ratio[0].is_nan());
}

#[test]
fn a_constant_has_no_variance() {
    let t = telemetry(Array2::from_elem((300, 6), 0.1_f32).view(), 3).unwrap();
    assert!(t.variance.iter().all(|&v| v < 1e-30), "{:?}", t.variance);
    assert!((t.snr[0] - 0.1_f64 / 1e-4).abs() < 1e-4);
}

#[test]
fn a_large_offset_costs_no_accuracy() {
    let plain = Array2::from_shape_fn((64, 32), |(i, j)| ((i * 32 + j) % 17) as f64);
    let shifted = plain.mapv(|v| v + 1e9);
    let (plain, shifted) =
        (telemetry(plain.view(), 4).unwrap(), telemetry(shifted.view(), 4).unwrap());
    for (a, b) in plain.variance.iter().zip(&shifted.variance) {
        assert!((a - b).abs() < 1e-9 * a, "{a} {b}");
    }
}

#[test]
fn widths_that_do_not_divide_are_refused() {
    let x = Array2::<f32>::zeros((2, 7));
    assert_eq!(
        telemetry(x.view(), 2).unwrap_err(),
        LayerError::InputWidth { seeds: 2, expected: 8, got: 7 }
    );
    assert_eq!(telemetry(x.view(), 0).unwrap_err(), LayerError::Empty { what: "seeds" });
    let empty = Array2::<f32>::zeros((2, 0));
    assert_eq!(telemetry(empty.view(), 2).unwrap_err(), LayerError::Empty { what: "chunk_size" });
}

/// Any f32, special values often.
fn value() -> impl Strategy<Value = f32> {
    prop_oneof![
        6 => -100.0..100.0_f32,
        1 => -2e-8..2e-8_f32,
        1 => prop::sample::select(vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0]),
    ]
}

fn input() -> impl Strategy<Value = (Array2<f32>, usize)> {
    (1_usize..20, 1_usize..6, 1_usize..30).prop_flat_map(|(batch, seeds, chunk)| {
        vec(value(), batch * seeds * chunk).prop_map(move |values| {
            (Array2::from_shape_vec((batch, seeds * chunk), values).expect("as many values"), seeds)
        })
    })
}

/// The definition, seed by seed, on a copy of its values.
fn brute_force(x: &Array2<f32>, seeds: usize) -> Vec<[f64; 8]> {
    let chunk = x.ncols() / seeds;
    (0..seeds)
        .map(|seed| {
            let all: Vec<f64> = x
                .indexed_iter()
                .filter(|((_, column), _)| column / chunk == seed)
                .map(|(_, &v)| f64::from(v))
                .collect();
            let finite: Vec<f64> = all.iter().copied().filter(|v| v.is_finite()).collect();
            let n = finite.len() as f64;
            let mean = finite.iter().sum::<f64>() / n;
            let variance = finite.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
            let dead = all.iter().filter(|v| v.abs() < DEAD_BELOW).count() as f64;
            let or_nan = |v: f64| if finite.is_empty() { f64::NAN } else { v };
            [
                all.len() as f64,
                (all.len() - finite.len()) as f64,
                mean,
                variance,
                or_nan(finite.iter().copied().fold(f64::INFINITY, f64::min)),
                or_nan(finite.iter().copied().fold(f64::NEG_INFINITY, f64::max)),
                dead / all.len() as f64,
                mean.abs() / (variance + 1e-8).sqrt(),
            ]
        })
        .collect()
}

fn figures(t: &SeedTelemetry, seed: usize) -> [f64; 8] {
    [
        t.count[seed] as f64,
        t.nonfinite[seed] as f64,
        t.mean[seed],
        t.variance[seed],
        t.min[seed],
        t.max[seed],
        t.dead_ratio[seed],
        t.snr[seed],
    ]
}

proptest! {
    #[test]
    fn agrees_with_brute_force((x, seeds) in input()) {
        let t = telemetry(x.view(), seeds).unwrap();
        for (seed, want) in brute_force(&x, seeds).iter().enumerate() {
            for (got, want) in figures(&t, seed).iter().zip(want) {
                let same = got == want || (got.is_nan() && want.is_nan());
                prop_assert!(same || (got - want).abs() < 1e-9 * want.abs().max(1e-3), "{got} {want}");
            }
        }
    }

    #[test]
    fn the_order_of_rows_does_not_matter((x, seeds) in input()) {
        let mut reversed = x.clone();
        reversed.invert_axis(ndarray::Axis(0));
        let (a, b) = (telemetry(x.view(), seeds).unwrap(), telemetry(reversed.view(), seeds).unwrap());
        for seed in 0..seeds {
            for (a, b) in figures(&a, seed).iter().zip(figures(&b, seed)) {
                prop_assert!((a.is_nan() && b.is_nan()) || (a - b).abs() <= 1e-9 * a.abs().max(1e-3));
            }
        }
    }
}

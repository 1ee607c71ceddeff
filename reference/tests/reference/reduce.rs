//! Reductions: exact cases, NaN and empty inputs, brute force, accuracy where a naive sum has none.

use approx::assert_relative_eq;
use kasmina_reference::reduction::{
    ReduceError, max, mean, min, segmented, sum, try_segmented, variance,
};
use proptest::{collection::vec, prelude::*};

#[test]
fn small_cases_by_hand() {
    let v = [3.0_f32, -1.0, 4.0, 2.0];
    assert_eq!(sum(&v), 8.0);
    assert_eq!(max(&v), Ok(4.0));
    assert_eq!(min(&v), Ok(-1.0));
    assert_eq!(mean(&v), 2.0);
    assert_eq!(variance(&v), 3.5);
}

#[test]
fn integers_do_not_overflow() {
    let v = vec![i32::MAX; 5000];
    assert_eq!(sum(&v), 5000 * i64::from(i32::MAX));
    assert_eq!(mean(&v), f64::from(i32::MAX));
    assert_eq!(variance(&v), 0.0);
    assert_eq!(max(&[i32::MIN, 7, -3]), Ok(7));
    assert_eq!(min(&[i32::MIN, 7, -3]), Ok(i32::MIN));
}

#[test]
fn empty_inputs() {
    assert_eq!(sum::<f64>(&[]), 0.0);
    assert_eq!(sum::<i32>(&[]), 0);
    assert!(mean::<f32>(&[]).is_nan() && variance::<i32>(&[]).is_nan());
    assert_eq!(max::<f32>(&[]), Err(ReduceError::Empty { op: "max" }));
    assert_eq!(min::<i32>(&[]), Err(ReduceError::Empty { op: "min" }));
}

#[test]
fn nan_reaches_every_result_from_every_place() {
    for place in [0, 1, 70_000, 99_999] {
        let mut v = vec![1.0_f32; 100_000];
        v[place] = f32::NAN;
        assert!(sum(&v).is_nan() && mean(&v).is_nan() && variance(&v).is_nan());
        assert!(max(&v).unwrap().is_nan() && min(&v).unwrap().is_nan());
    }
}

#[test]
fn infinities() {
    let v = [1.0, f64::INFINITY, 2.0];
    assert_eq!((sum(&v), mean(&v)), (f64::INFINITY, f64::INFINITY));
    assert_eq!((max(&v), min(&v)), (Ok(f64::INFINITY), Ok(1.0)));
    assert!(variance(&v).is_nan());
    assert!(sum(&[f64::INFINITY, f64::NEG_INFINITY]).is_nan());
}

#[test]
fn long_sums_keep_their_accuracy() {
    // Added one after the other, the relative error is 1.6e-10.
    let v = vec![0.1_f64; 10_000_001];
    assert_relative_eq!(sum(&v), 1_000_000.1, max_relative = 1e-14);
    let ramp: Vec<i32> = (0..1_000_001).collect();
    assert_eq!(sum(&ramp), 500_000_500_000);
    // (n² − 1) / 12 for n consecutive integers.
    let n = 1_000_001.0_f64;
    assert_relative_eq!(variance(&ramp), (n * n - 1.0) / 12.0, max_relative = 1e-14);
}

#[test]
fn variance_of_shifted_data() {
    let plain: Vec<f64> = (0..10_000).map(|i| f64::from(i % 7)).collect();
    let shifted: Vec<f64> = plain.iter().map(|v| v + 1e9).collect();
    assert_relative_eq!(variance(&shifted), variance(&plain), max_relative = 1e-9);
}

#[test]
fn the_bits_do_not_depend_on_the_number_of_threads() {
    let v: Vec<f64> = (0..300_000).map(|i| (f64::from(i) * 0.7).sin()).collect();
    let run = |threads| {
        let pool = rayon_pool(threads);
        pool.install(|| (sum(&v).to_bits(), variance(&v).to_bits()))
    };
    assert_eq!(run(1), run(3));
}

fn rayon_pool(threads: usize) -> rayon::ThreadPool {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads start")
}

#[test]
fn segments() {
    let v = [1, 2, 3, 4, 5];
    let offsets = [0, 2, 2, 5];
    assert_eq!(segmented(&v, &offsets, sum), Ok(vec![3, 0, 12]));
    let means = segmented(&v, &offsets, mean).unwrap();
    assert!(means[0] == 1.5 && means[1].is_nan() && means[2] == 4.0);
    assert_eq!(try_segmented(&v, &[0, 2, 5], max), Ok(vec![2, 5]));
    assert_eq!(
        try_segmented(&v, &offsets, min),
        Err(ReduceError::Segment {
            segment: 1,
            source: Box::new(ReduceError::Empty { op: "min" })
        })
    );
    assert_eq!(segmented::<i32, i64>(&[], &[0], sum), Ok(vec![]));
}

#[test]
fn offsets_that_do_not_cut_the_values_are_refused() {
    let error = |offsets: &[usize]| segmented(&[1, 2, 3], offsets, sum).unwrap_err();
    assert_eq!(error(&[]), ReduceError::NoOffsets);
    assert_eq!(error(&[1, 3]), ReduceError::Offset { index: 0, expected: 0, got: 1 });
    assert_eq!(error(&[0, 2, 1, 3]), ReduceError::Offset { index: 2, expected: 2, got: 1 });
    assert_eq!(error(&[0, 2]), ReduceError::Offset { index: 1, expected: 3, got: 2 });
    assert_eq!(error(&[0, 4]), ReduceError::Offset { index: 1, expected: 3, got: 4 });
}

proptest! {
    #[test]
    fn agrees_with_brute_force(v in vec(-1e3..1e3_f32, 1..3000)) {
        let exact: f64 = v.iter().map(|&v| f64::from(v)).sum();
        let n = v.len() as f64;
        let squares: f64 = v.iter().map(|&v| (f64::from(v) - exact / n).powi(2)).sum();
        prop_assert!((sum(&v) - exact).abs() < 1e-9);
        prop_assert!((mean(&v) - exact / n).abs() < 1e-9);
        prop_assert!((variance(&v) - squares / n).abs() <= 1e-12 * squares);
        prop_assert_eq!(max(&v).unwrap(), v.iter().copied().fold(f32::MIN, f32::max));
        prop_assert_eq!(min(&v).unwrap(), v.iter().copied().fold(f32::MAX, f32::min));
    }

    #[test]
    fn f32_and_f64_agree_to_the_bit(v in vec(-1e3..1e3_f32, 0..3000)) {
        let wide: Vec<f64> = v.iter().map(|&v| f64::from(v)).collect();
        prop_assert_eq!(sum(&v).to_bits(), sum(&wide).to_bits());
        prop_assert_eq!(variance(&v).to_bits(), variance(&wide).to_bits());
    }

    #[test]
    fn segments_of_integers_add_up(v in vec(any::<i32>(), 0..500), cuts in vec(0_usize..=500, 0..9)) {
        let mut offsets: Vec<usize> = cuts.into_iter().map(|cut| cut.min(v.len())).collect();
        offsets.extend([0, v.len()]);
        offsets.sort_unstable();
        let parts = segmented(&v, &offsets, sum).unwrap();
        prop_assert_eq!(parts.len(), offsets.len() - 1);
        prop_assert_eq!(parts.iter().sum::<i64>(), sum(&v));
    }
}

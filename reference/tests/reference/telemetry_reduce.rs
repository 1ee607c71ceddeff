//! Telemetry by rows: by hand, and against the figures of each row.

use kasmina_reference::kasmina::{LayerError, RowStrategy, telemetry, telemetry_by};
use ndarray::{Array2, Axis, array};
use proptest::{collection::vec, prelude::*};

#[test]
fn two_rows_by_hand() {
    let x = array![[1.0, 3.0, 0.0, 0.0], [5.0, 9.0, 2.0, 2.0]];
    let mean = telemetry_by(x.view(), 2, RowStrategy::Mean).unwrap();
    assert_eq!((&mean.mean, &mean.variance), (&vec![4.5, 1.0], &vec![2.5, 0.0]));
    assert_eq!((&mean.min, &mean.max), (&vec![3.0, 1.0], &vec![6.0, 1.0]));
    assert_eq!((&mean.dead_ratio, &mean.count), (&vec![0.0, 0.5], &vec![4, 4]));
    assert!((mean.snr[1] - 2.0 / 1e-4 / 2.0).abs() < 1e-6);
    let max = telemetry_by(x.view(), 2, RowStrategy::Max).unwrap();
    assert_eq!((&max.mean, &max.variance), (&vec![7.0, 2.0], &vec![4.0, 0.0]));
    assert_eq!((&max.min, &max.max), (&vec![5.0, 2.0], &vec![9.0, 2.0]));
    assert_eq!(max.dead_ratio, [0.0, 1.0]);
}

#[test]
fn rows_without_a_number_are_left_out() {
    let nan = f64::NAN;
    let x = array![[nan, nan, nan, nan], [-5.0, nan, nan, f64::INFINITY]];
    for strategy in [RowStrategy::Mean, RowStrategy::Max] {
        let t = telemetry_by(x.view(), 2, strategy).unwrap();
        assert_eq!((t.mean[0], t.min[0], t.dead_ratio[0]), (-5.0, -5.0, 0.0));
        assert_eq!((&t.count, &t.nonfinite), (&vec![4, 4], &vec![3, 4]));
        let none = [t.mean[1], t.variance[1], t.min[1], t.max[1], t.dead_ratio[1], t.snr[1]];
        assert!(none.iter().all(|v| v.is_nan()), "{none:?}");
    }
}

#[test]
fn widths_that_do_not_divide_are_refused() {
    let x = Array2::<f32>::zeros((2, 7));
    let refused = telemetry_by(x.view(), 2, RowStrategy::Max).unwrap_err();
    assert_eq!(refused, LayerError::InputWidth { seeds: 2, expected: 8, got: 7 });
}

proptest! {
    #[test]
    fn agrees_with_each_rows_telemetry(
        rows in 1_usize..150, seeds in 1_usize..4, chunk in 1_usize..6,
        values in vec(-9.0..9.0_f64, 150 * 3 * 5),
    ) {
        let width = seeds * chunk;
        let x = Array2::from_shape_vec((rows, width), values[..rows * width].to_vec()).unwrap();
        let all = telemetry_by(x.view(), seeds, RowStrategy::Hierarchical).unwrap();
        prop_assert_eq!(&all, &telemetry(x.view(), seeds).unwrap());
        let each: Vec<_> = x
            .axis_iter(Axis(0))
            .map(|row| telemetry(row.insert_axis(Axis(0)), seeds).unwrap())
            .collect();
        let mean = telemetry_by(x.view(), seeds, RowStrategy::Mean).unwrap();
        let max = telemetry_by(x.view(), seeds, RowStrategy::Max).unwrap();
        for s in 0..seeds {
            let sum: f64 = each.iter().map(|t| t.snr[s]).sum();
            prop_assert!((mean.snr[s] - sum / rows as f64).abs() < 1e-9 * mean.snr[s].max(1.0));
            let sum: f64 = each.iter().map(|t| t.variance[s]).sum();
            prop_assert!((mean.variance[s] - sum / rows as f64).abs() < 1e-11);
            // Rows of one length: the mean of means is the mean of all, the largest maximum that of all.
            prop_assert!((mean.mean[s] - all.mean[s]).abs() < 1e-11);
            prop_assert_eq!(max.max[s], all.max[s]);
            prop_assert_eq!(max.min[s], each.iter().map(|t| t.min[s]).fold(f64::MIN, f64::max));
        }
    }
}

//! Products of a matrix and a vector: known values, and against products of matrices.

use approx::assert_relative_eq;
use kasmina_reference::linear::{Linear, gemv, gemv_transposed, linear};
use ndarray::{Array2, array};
use proptest::prelude::*;

#[test]
fn known_values() {
    let a = array![[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]];
    assert_eq!(gemv(2.0, a.view(), &[1.0, 0.0, -1.0], 1.0, &[1.0, 2.0]), [-3.0, -2.0]);
    assert_eq!(
        gemv_transposed(1.0, a.view(), &[1.0, -1.0], 0.5, &[2.0, 0.0, 4.0]),
        [-2.0, -3.0, -1.0]
    );
    // Nothing to add up is 0.
    assert_eq!(gemv(1.0, Array2::zeros((2, 0)).view(), &[], 0.5, &[2.0, 4.0]), [1.0, 2.0]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A column is a matrix; and (A·x)·y = x·(Aᵀ·y).
    #[test]
    fn identities(
        (rows, columns) in (1usize..20, 1usize..20),
        values in prop::collection::vec(-1.0..1.0, 20 * 22),
    ) {
        let a = Array2::from_shape_fn((rows, columns), |(i, j)| values[i * columns + j]);
        let (x, y) = (&values[400..][..columns], &values[420..][..rows]);
        let got = gemv(1.0, a.view(), x, 0.0, y);
        let column = Array2::from_shape_fn((columns, 1), |(j, _)| x[j]);
        let expected = linear(&Linear::new(a.view(), column.view())).unwrap();
        for (got, expected) in got.iter().zip(&expected) {
            assert_relative_eq!(*got, *expected, epsilon = 1e-13);
        }
        let back = gemv_transposed(1.0, a.view(), y, 0.0, x);
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        assert_relative_eq!(dot(&got, y), dot(&back, x), epsilon = 1e-12);
    }
}

//! The comparison that every other test relies on: it must find what is wrong.

use kasmina_reference::numeric::{
    Comparison, Dtype, LengthMismatch, Tolerance, compare, compare_to_scale,
};

const TIGHT: Dtype = Dtype::F32;

#[test]
fn equal_arrays_have_no_error() {
    let v = [0.0, -1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
    let same = Comparison {
        max_rel_error: 0.0,
        norm_rel_error: 0.0,
        worst_index: None,
        first_mismatch: None,
    };
    assert_eq!(compare(&v, &v), Ok(same));
    assert_eq!(compare(&[], &[]), Ok(same));
    assert!(Tolerance::for_dtype(Dtype::I32, 1).accepts(&same));
}

#[test]
fn errors_are_relative_to_the_element_or_to_the_scale() {
    // Root mean square of the reference: 5.
    let reference = [7.0, 1.0, -5.0, 5.0];
    let large = compare(&[7.7, 1.0, -5.0, 5.0], &reference).unwrap();
    assert!((large.max_rel_error - 0.1).abs() < 1e-12);
    assert!((large.norm_rel_error - 0.07).abs() < 1e-12);
    let small = compare(&[7.0, 1.0, -5.0, 5.0 + 1e-3], &reference).unwrap();
    assert_eq!(small.worst_index, Some(3));
    assert!(
        (compare(&[7.0, 1.5, -5.0, 5.0], &reference).unwrap().max_rel_error - 0.1).abs() < 1e-12
    );
    assert!((compare_to_scale(&[2.0], &[1.0], 100.0).unwrap().max_rel_error - 0.01).abs() < 1e-12);
}

#[test]
fn unmatched_non_finite_values_are_infinite_errors() {
    let reference = [1.0, f64::NAN, f64::INFINITY, 2.0];
    for (index, wrong) in
        [(0, f64::NAN), (0, f64::INFINITY), (1, 1.0), (2, f64::NEG_INFINITY), (2, 1e30)]
    {
        let mut out = reference;
        out[index] = wrong;
        let comparison = compare(&out, &reference).unwrap();
        assert_eq!(comparison.first_mismatch, Some(index));
        assert_eq!(comparison.max_rel_error, f64::INFINITY);
        assert_eq!(comparison.norm_rel_error, f64::INFINITY);
        assert!(!Tolerance::for_dtype(Dtype::Bf16, usize::MAX).accepts(&comparison));
    }
}

#[test]
fn nothing_hides_behind_zero_or_overflow() {
    let zero = compare(&[0.0, 1e-300], &[0.0, 0.0]).unwrap();
    assert_eq!(zero.max_rel_error, f64::INFINITY);
    let huge = compare(&[1.1e300, 1e300], &[1e300, 1e300]).unwrap();
    assert!((huge.max_rel_error - 0.1).abs() < 1e-12, "{huge:?}");
    assert!(huge.norm_rel_error > 0.05);
    let scale = compare_to_scale(&[1.1], &[1.0], f64::INFINITY).unwrap();
    assert!((scale.max_rel_error - 0.1).abs() < 1e-12);
    assert_eq!(compare(&[1.0], &[]), Err(LengthMismatch { expected: 0, got: 1 }));
}

#[test]
fn tolerances_grow_with_the_tree_and_are_exact_for_integers() {
    let limit = |dtype, n| Tolerance::for_dtype(dtype, n).limit();
    assert_eq!(limit(TIGHT, 0), 1e-5);
    assert_eq!(limit(TIGHT, 256), 2e-5);
    assert_eq!(limit(Dtype::I32, 1 << 20), 0.0);
    assert!(limit(Dtype::F64, 1) < limit(TIGHT, 1));
    assert!(limit(TIGHT, 1) < limit(Dtype::F16, 1) && limit(Dtype::F16, 1) < limit(Dtype::Bf16, 1));
    let off = compare(&[1.0 + 2e-5], &[1.0]).unwrap();
    assert!(!Tolerance::for_dtype(TIGHT, 1).accepts(&off));
    assert!(Tolerance::for_dtype(TIGHT, 512).accepts(&off));
}

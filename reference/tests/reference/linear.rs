//! Products of matrices: known values, identities, differences, refusals.

use approx::assert_relative_eq;
use kasmina_reference::linear::{
    Linear, LinearError, absmax_scale, linear, linear_backward, sampled_place, sampled_sums,
};
use kasmina_reference::normalization::Activation;
use ndarray::{Array2, array};
use proptest::prelude::*;

fn matrix(rows: usize, columns: usize, seed: u64) -> Array2<f64> {
    Array2::from_shape_fn((rows, columns), |(i, j)| {
        let mixed = (seed + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (i * 1000 + j + 1) as u64;
        (mixed.wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 40) as f64 / f64::from(1 << 24) * 2.0 - 1.0
    })
}

#[test]
fn the_scale_of_fp8_makes_448_of_the_largest() {
    assert_eq!(absmax_scale([1.0, -896.0, 3.5]), 2.0);
    assert_eq!(absmax_scale([f64::NAN, 448.0, f64::NEG_INFINITY]), 1.0);
    assert_eq!((absmax_scale([0.0, -0.0]), absmax_scale([])), (1.0, 1.0));
    assert_eq!(absmax_scale([1e-44]), f64::from(f32::MIN_POSITIVE));
}

#[test]
fn known_values() {
    let (a, b) = (array![[1.0, 2.0], [3.0, -4.0]], array![[5.0, 0.0, 1.0], [-1.0, 2.0, 0.5]]);
    let c = array![[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]];
    let operands = Linear {
        alpha: 2.0,
        bias: Some(&[0.5, -0.5, 0.0]),
        addition: Some((3.0, c.view())),
        activation: Activation::Relu,
        residual: Some(c.view()),
        ..Linear::new(a.view(), b.view())
    };
    // A·B = [3, 4, 2; 19, −8, 1].
    let expected = array![[10.5, 11.5, 8.0], [46.5, 2.0, 10.0]];
    assert_eq!(linear(&operands).unwrap(), expected);
    let transposed = array![[5.0, -1.0], [0.0, 2.0], [1.0, 0.5]];
    assert_eq!(linear(&Linear { b: transposed.t(), ..operands }).unwrap(), expected);
}

/// Nothing to add up is 0.
#[test]
fn no_inner_dimension() {
    let (a, b) = (Array2::<f64>::zeros((2, 0)), Array2::zeros((0, 3)));
    let d = linear(&Linear { bias: Some(&[1.0, 2.0, 3.0]), ..Linear::new(a.view(), b.view()) });
    assert_eq!(d.unwrap(), array![[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]]);
}

#[test]
fn refusals() {
    let (a, b, c) = (matrix(2, 3, 1), matrix(4, 5, 2), matrix(2, 4, 3));
    let inner = LinearError::Inner { expected: 3, got: 4 };
    assert_eq!(linear(&Linear::new(a.view(), b.view())).unwrap_err(), inner);
    let b = matrix(3, 5, 2);
    let operands = Linear::new(a.view(), b.view());
    let said = |operands: Linear<'_, f64>| linear(&operands).unwrap_err().to_string();
    assert_eq!(
        said(Linear { bias: Some(&[1.0]), ..operands }),
        "`bias`: expected 5 elements, one for each column of the product, got 1"
    );
    for (matrix, operands) in [
        ("c", Linear { addition: Some((1.0, c.view())), ..operands }),
        ("residual", Linear { residual: Some(c.view()), ..operands }),
    ] {
        let words = format!("`{matrix}`: expected the product's shape (2, 5), got (2, 4)");
        assert_eq!(said(operands), words);
    }
    let error = linear_backward(&operands, c.view()).unwrap_err();
    assert!(error.to_string().starts_with("`grad_output`: expected"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// (A·B)·C = A·(B·C), and (A·B)ᵀ = Bᵀ·Aᵀ.
    #[test]
    fn products_are_associative(m in 1usize..9, k in 1usize..9, l in 1usize..9, n in 1usize..9, seed: u32) {
        let (a, b, c) = (matrix(m, k, seed.into()), matrix(k, l, 7), matrix(l, n, 9));
        let times = |a: &Array2<f64>, b: &Array2<f64>| linear(&Linear::new(a.view(), b.view())).unwrap();
        let (left, right) = (times(&times(&a, &b), &c), times(&a, &times(&b, &c)));
        for (left, right) in left.iter().zip(&right) {
            assert_relative_eq!(*left, *right, epsilon = 1e-12);
        }
        let transposed = linear(&Linear::new(b.t(), a.t())).unwrap();
        for (left, right) in times(&a, &b).iter().zip(transposed.t()) {
            assert_relative_eq!(*left, *right, epsilon = 1e-13);
        }
    }

    /// Every gradient is the difference quotient of L = Σ G·D.
    #[test]
    fn gradients_are_difference_quotients(m in 1usize..6, k in 1usize..6, n in 1usize..6, seed: u32, which in 0usize..7) {
        let seed = u64::from(seed);
        let (mut a, mut b) = (matrix(m, k, seed), matrix(k, n, seed + 1));
        let (mut c, g) = (matrix(m, n, seed + 2), matrix(m, n, seed + 3));
        let mut bias = matrix(1, n, seed + 4).into_raw_vec_and_offset().0;
        // Away from ReLU's corner, which a step of h could cross.
        let activation = Activation::ALL[which];
        if activation == Activation::Relu {
            bias.iter_mut().for_each(|bias| *bias += 20.0);
        }
        let of = |a: &Array2<f64>, b: &Array2<f64>, c: &Array2<f64>, bias: &[f64]| -> f64 {
            let operands = Linear {
                alpha: 0.75, bias: Some(bias), addition: Some((-0.5, c.view())), activation,
                ..Linear::new(a.view(), b.view())
            };
            (linear(&operands).unwrap() * &g).sum()
        };
        let operands = Linear {
            alpha: 0.75, bias: Some(&bias), addition: Some((-0.5, c.view())), activation,
            ..Linear::new(a.view(), b.view())
        };
        let found = linear_backward(&operands, g.view()).unwrap();
        let (bias_before, c_before) = (bias.clone(), c.clone());
        let (a_before, b_before) = (a.clone(), b.clone());
        let h = 1e-6;
        a[(m - 1, k - 1)] += h;
        b[(k - 1, 0)] += h;
        c[(0, n - 1)] += h;
        bias[0] += h;
        let before = of(&a_before, &b_before, &c_before, &bias_before);
        for (after, gradient) in [
            (of(&a, &b_before, &c_before, &bias_before), found.a[(m - 1, k - 1)]),
            (of(&a_before, &b, &c_before, &bias_before), found.b[(k - 1, 0)]),
            (of(&a_before, &b_before, &c, &bias_before), -0.5 * found.z[(0, n - 1)]),
            (of(&a_before, &b_before, &c_before, &bias), found.bias[0]),
        ] {
            assert_relative_eq!((after - before) / h, gradient, epsilon = 2e-5);
        }
    }
}

/// splitmix64 from state 0 begins with e220a8397b1dcdaf and 6e789e6aa1b965f4.
#[test]
fn sampled_places_are_fractions_of_splitmix64() {
    assert_eq!(sampled_place(0, [10, 1000, 1000]), (6, 883, 480));
    let places: Vec<_> = (0..1000).map(|sample| sampled_place(sample, [2, 3, 5])).collect();
    for (problem, i, j) in (0..2).flat_map(|p| (0..15).map(move |at| (p, at / 5, at % 5))) {
        let count = places.iter().filter(|&&place| place == (problem, i, j)).count();
        assert!((10..60).contains(&count), "{count} of ({problem}, {i}, {j})");
    }
}

#[test]
fn sampled_sums_are_those_of_the_terms() {
    let unit = 2_f32.powi(-10);
    // The second operand is half of the last bit of tf32 above 1, the third below it.
    let a = array![[2.0_f32, 1.0 + 0.5 * unit, -1.0 - 0.25 * unit]];
    let b = array![[3.0_f32], [1.0], [4.0]];
    let exact = 6.0 + 1.0 - 4.0 + f64::from(unit) * (0.5 - 1.0);
    for (rounds, tf32) in [(true, 3.0 + f64::from(unit)), (false, 3.0)] {
        let got = sampled_sums(a.view(), b.view(), (0, 0), rounds);
        assert_eq!((got.exact, got.tf32), (exact, tf32));
        assert!((got.squares - 53.0).abs() < 0.01);
    }
}

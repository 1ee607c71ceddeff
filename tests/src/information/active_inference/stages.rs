//! The stages of a belief step, and the vector operations beside them, against the reference.

use kasmina::information::active_inference::{InferenceOptions, InferenceStages};
use kasmina::information::{axpby, gemv, gemv_transposed, tile_projection, velocity};
use kasmina::types::dtype::Element;
use kasmina::{Buffer, Device};
use kasmina_reference::information as reference;
use ndarray::ArrayView2;
use num_traits::{AsPrimitive, FromPrimitive};

use super::{Case, model};
use crate::{Numbers, assert_near};

/// Complexity, accuracy and update, one after the other.
#[track_caller]
pub fn check_stages(device: &Device, case: Case) {
    let (model, belief) = model(&case, 0);
    let options = InferenceOptions {
        kappa: Some(0.1),
        jacobian: case.jacobian,
        ..InferenceOptions::default()
    };
    let mut stages =
        InferenceStages::new(device, std::slice::from_ref(&model), options).expect("a model");
    stages.set_beliefs(std::slice::from_ref(&belief)).expect("a belief that fits");
    let expected = model.free_energy(&belief).expect("a belief that fits");
    let scale = (case.observations + case.states) as f64;
    let complexity = stages.complexity().expect("a result")[0];
    assert_near("complexity", &[complexity], &[expected.complexity], scale, 1e-11);
    let (plugin, exact) = stages.accuracy().expect("a result")[0];
    let want = [expected.accuracy_plugin, expected.accuracy_expected];
    assert_near("accuracy", &[plugin, exact], &want, scale, 1e-11);
    assert_eq!(stages.accuracy().expect("a result")[0], (plugin, exact), "two runs, two results");

    let (jacobian, target) = (model.jacobian(), &model.observation() - &model.offset());
    let mean = ndarray::ArrayView1::from(&belief.mean);
    let residual = &target - &jacobian.dot(&mean);
    let got = stages.residuals().expect("a result");
    assert_near("residual", &got.into_raw_vec_and_offset().0, &residual.to_vec(), 1.0, 1e-11);
    let direction = jacobian.t().dot(&(&residual * &model.obs_precision()))
        - (&mean - &model.prior_mean()) / model.prior_var();
    let moved = &mean + &(direction * 0.1);
    stages.update().expect("a step");
    let got = stages.beliefs().expect("a result").remove(0);
    assert_near("mean", &got.mean, &moved.to_vec(), 1.0, 1e-11);
    assert_eq!(got.variance, belief.variance);
}

/// An element type with its rounding error.
pub trait Value: Element + AsPrimitive<f64> + FromPrimitive + PartialEq + std::fmt::Debug {
    /// Relative error of one rounding to it.
    const TOLERANCE: f64;
}

impl Value for f64 {
    const TOLERANCE: f64 = 1e-12;
}
impl Value for f32 {
    const TOLERANCE: f64 = 1e-6;
}

fn values<T: Value>(len: usize, numbers: &mut Numbers) -> Vec<T> {
    (0..len).map(|_| T::from_f32(numbers.in_range(-1.0, 1.0)).expect("a float")).collect()
}

fn wide<T: Value>(values: &[T]) -> Vec<f64> {
    values.iter().map(|v| v.as_()).collect()
}

/// A·x and Aᵀ·x, with β and without; without, y may be NaN.
#[track_caller]
pub fn check_gemv<T: Value>(device: &Device, rows: usize, columns: usize, seed: u64) {
    let mut numbers = Numbers::new(seed);
    let matrix: Vec<T> = values(rows * columns, &mut numbers);
    let (long, short) = (values::<T>(rows, &mut numbers), values::<T>(columns, &mut numbers));
    let on_device = Buffer::from_slice(device, &matrix).expect("memory");
    let wide_matrix = wide(&matrix);
    let view = ArrayView2::from_shape((rows, columns), &wide_matrix).expect("the shape");
    for (transposed, x, y) in [(false, &short, &long), (true, &long, &short)] {
        for (alpha, beta) in [(1.0, 0.0), (-0.5, 2.0)] {
            let x_device = Buffer::from_slice(device, x).expect("memory");
            let run = || {
                let mut out = Buffer::from_slice(device, y).expect("memory");
                if beta == 0.0 {
                    out.fill_bytes(0xff).expect("memory");
                }
                if transposed {
                    gemv_transposed(device, alpha, &on_device, &x_device, beta, &mut out)
                } else {
                    gemv(device, alpha, &on_device, &x_device, beta, &mut out)
                }
                .unwrap_or_else(|why| panic!("{why}"));
                out.to_vec().expect("a result")
            };
            let got = run();
            assert_eq!(got, run(), "two runs, two results");
            let expected = if transposed {
                reference::gemv_transposed(alpha, view, &wide(x), beta, &wide(y))
            } else {
                reference::gemv(alpha, view, &wide(x), beta, &wide(y))
            };
            let scale = x.len() as f64;
            let what = format!("{rows} × {columns}, transposed: {transposed}");
            assert_near(&what, &wide(&got), &expected, scale, T::TOLERANCE);
        }
    }
    let other = Buffer::<T>::zeroed(device, columns + 1).expect("memory");
    let mut out = Buffer::<T>::zeroed(device, rows).expect("memory");
    gemv(device, 1.0, &on_device, &other, 0.0, &mut out).expect_err("x is too long");
}

/// α·x + β·y, velocities and projections.
#[track_caller]
pub fn check_vectors<T: Value>(device: &Device, len: usize, seed: u64) {
    let mut numbers = Numbers::new(seed);
    let (x, y): (Vec<T>, Vec<T>) = (values(len, &mut numbers), values(len, &mut numbers));
    let buffer = |values: &[T]| Buffer::from_slice(device, values).expect("memory");
    let (x_device, y_device) = (buffer(&x), buffer(&y));
    let mut out = Buffer::<T>::zeroed(device, len).expect("memory");
    let wide_out = |out: &Buffer<T>| wide(&out.to_vec().expect("a result"));
    out.fill_bytes(0xff).expect("memory");
    axpby(device, 0.3, &x_device, -1.7, &y_device, &mut out).expect("vectors");
    let expected = reference::axpby(0.3, &wide(&x), -1.7, &wide(&y));
    assert_near("axpby", &wide_out(&out), &expected, 1.0, T::TOLERANCE);
    out.fill_bytes(0xff).expect("memory");
    velocity(device, &x_device, &y_device, 0.01, &mut out).expect("vectors");
    let expected = reference::velocity(&wide(&x), &wide(&y), 0.01);
    assert_near("velocity", &wide_out(&out), &expected, 100.0, T::TOLERANCE);
    velocity(device, &x_device, &y_device, 0.0, &mut out).expect_err("no time");
    for tiles in [0, 1, 5] {
        let mut long = Buffer::<T>::zeroed(device, tiles * len + len / 2).expect("memory");
        long.fill_bytes(0xff).expect("memory");
        tile_projection(device, &x_device, &mut long).expect("vectors");
        let expected = reference::tile_projection(&wide(&x), long.len());
        assert_eq!(wide_out(&long), expected, "{tiles} tiles");
    }
    let none = Buffer::<T>::zeroed(device, 0).expect("memory");
    tile_projection(device, &none, &mut out).expect_err("nothing to tile");
    let longer = Buffer::<T>::zeroed(device, len + 1).expect("memory");
    axpby(device, 1.0, &longer, 1.0, &y_device, &mut out).expect_err("x is too long");
}

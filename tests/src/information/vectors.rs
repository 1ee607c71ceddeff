//! `gemv`, `axpby` and the operations beside them against the reference.

use kasmina::information::{axpby, gemv, gemv_transposed, tile_projection, velocity};
use kasmina::types::dtype::Element;
use kasmina::{Buffer, Device};
use kasmina_reference::information as reference;
use ndarray::ArrayView2;
use num_traits::{AsPrimitive, FromPrimitive};

use crate::Numbers;

/// An element type with its unit in the last place.
pub trait Value: Element + AsPrimitive<f64> + FromPrimitive + PartialEq + std::fmt::Debug {
    /// The distance from 1 to the next value.
    const EPSILON: f64;
}

impl Value for f64 {
    const EPSILON: f64 = f64::EPSILON;
}
impl Value for f32 {
    const EPSILON: f64 = f32::EPSILON as f64;
}

fn values<T: Value>(len: usize, numbers: &mut Numbers) -> Vec<T> {
    (0..len).map(|_| T::from_f32(numbers.in_range(-1.0, 1.0)).expect("a float")).collect()
}

fn wide<T: Value>(values: &[T]) -> Vec<f64> {
    values.iter().map(|v| v.as_()).collect()
}

fn magnitudes(values: &[f64]) -> Vec<f64> {
    values.iter().map(|v| v.abs()).collect()
}

/// Sums of `terms` terms in f64, each rounded once to what is stored: off by a unit in the last place, and by what the
/// additions leave of `sizes`, the sums of the terms' magnitudes.
#[track_caller]
fn assert_rounded_once<T: Value>(
    what: &str,
    got: &[T],
    expected: &[f64],
    sizes: &[f64],
    terms: usize,
) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (i, ((got, expected), size)) in wide(got).iter().zip(expected).zip(sizes).enumerate() {
        let additions = (terms + 4) as f64 * f64::EPSILON * size;
        let limit = T::EPSILON * expected.abs() + additions;
        let error = (got - expected).abs();
        assert!(error <= limit, "{what}[{i}]: {got} is {error} from {expected}, limit {limit}");
    }
}

/// A·x and Aᵀ·x, with β and without; without, y may be NaN.
#[track_caller]
pub fn check_gemv<T: Value>(device: &Device, rows: usize, columns: usize, seed: u64) {
    let mut numbers = Numbers::new(seed);
    let matrix: Vec<T> = values(rows * columns, &mut numbers);
    let (long, short) = (values::<T>(rows, &mut numbers), values::<T>(columns, &mut numbers));
    let on_device = Buffer::from_slice(device, &matrix).expect("memory");
    let flat = wide(&matrix);
    let sizes = magnitudes(&flat);
    let view = ArrayView2::from_shape((rows, columns), &flat).expect("the shape");
    let size_view = ArrayView2::from_shape((rows, columns), &sizes).expect("the shape");
    for (transposed, x, y) in [(false, &short, &long), (true, &long, &short)] {
        for (alpha, beta) in [(1.0_f64, 0.0_f64), (-0.5, 2.0)] {
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
            let product = if transposed { reference::gemv_transposed } else { reference::gemv };
            let (x, y) = (wide(x), wide(y));
            let expected = product(alpha, view, &x, beta, &y);
            let (x_size, y_size) = (magnitudes(&x), magnitudes(&y));
            let sizes = product(alpha.abs(), size_view, &x_size, beta.abs(), &y_size);
            let what = format!("{rows} × {columns}, transposed: {transposed}, β = {beta}");
            assert_rounded_once(&what, &got, &expected, &sizes, x.len());
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
    let (x, y) = (wide(&x), wide(&y));
    let mut out = Buffer::<T>::zeroed(device, len).expect("memory");
    out.fill_bytes(0xff).expect("memory");
    axpby(device, 0.3, &x_device, -1.7, &y_device, &mut out).expect("vectors");
    let expected = reference::axpby(0.3, &x, -1.7, &y);
    let sizes = reference::axpby(0.3, &magnitudes(&x), 1.7, &magnitudes(&y));
    assert_rounded_once("axpby", &out.to_vec().expect("a result"), &expected, &sizes, 1);
    out.fill_bytes(0xff).expect("memory");
    velocity(device, &x_device, &y_device, 0.01, &mut out).expect("vectors");
    // The formula's own roundings, and one to what is stored.
    let expected: Vec<T> = reference::velocity(&x, &y, 0.01)
        .into_iter()
        .map(|v| T::from_f64(v).expect("a float"))
        .collect();
    assert_eq!(out.to_vec().expect("a result"), expected, "velocity");
    velocity(device, &x_device, &y_device, 0.0, &mut out).expect_err("no time");
    for tiles in [0, 1, 5] {
        let mut long = Buffer::<T>::zeroed(device, tiles * len + len / 2).expect("memory");
        long.fill_bytes(0xff).expect("memory");
        tile_projection(device, &x_device, &mut long).expect("vectors");
        let expected = reference::tile_projection(&x, long.len());
        assert_eq!(wide(&long.to_vec().expect("a result")), expected, "{tiles} tiles");
    }
    let none = Buffer::<T>::zeroed(device, 0).expect("memory");
    tile_projection(device, &none, &mut out).expect_err("nothing to tile");
    let longer = Buffer::<T>::zeroed(device, len + 1).expect("memory");
    axpby(device, 1.0, &longer, 1.0, &y_device, &mut out).expect_err("x is too long");
}

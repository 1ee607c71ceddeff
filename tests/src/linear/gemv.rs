//! `gemv` against the reference.

use half::bf16;
use kasmina::linear::{Gemv, GemvElement, GemvShape};
use kasmina::{Buffer, Device};
use kasmina_reference::linear as reference;
use ndarray::ArrayView2;

use crate::Numbers;

/// An element type with its unit in the last place.
pub trait Value: GemvElement + PartialEq + std::fmt::Debug {
    /// The distance from 1 to the next value.
    const EPSILON: f64;
    /// The same of the type that sums are taken in.
    const SUM_EPSILON: f64 = f64::EPSILON;
}

impl Value for f64 {
    const EPSILON: f64 = f64::EPSILON;
}
impl Value for f32 {
    const EPSILON: f64 = f32::EPSILON as f64;
}
impl Value for bf16 {
    const EPSILON: f64 = 1.0 / 128.0;
    const SUM_EPSILON: f64 = f32::EPSILON as f64;
}

pub(crate) fn values<T: Value>(len: usize, numbers: &mut Numbers) -> Vec<T> {
    (0..len).map(|_| T::from_f32(numbers.in_range(-1.0, 1.0)).expect("a float")).collect()
}

pub(crate) fn wide<T: Value>(values: &[T]) -> Vec<f64> {
    values.iter().map(|v| v.as_()).collect()
}

pub(crate) fn magnitudes(values: &[f64]) -> Vec<f64> {
    values.iter().map(|v| v.abs()).collect()
}

/// Sums of `terms` terms, each rounded once to what is stored: off by a unit in the last place, and by what the
/// additions leave of `sizes`, the sums of the terms' magnitudes.
#[track_caller]
pub(crate) fn assert_rounded_once<T: Value>(
    what: &str,
    got: &[T],
    expected: &[f64],
    sizes: &[f64],
    terms: usize,
) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (i, ((got, expected), size)) in wide(got).iter().zip(expected).zip(sizes).enumerate() {
        let additions = (terms + 4) as f64 * T::SUM_EPSILON * size;
        let limit = T::EPSILON * expected.abs() + additions;
        let error = (got - expected).abs();
        assert!(error <= limit, "{what}[{i}]: {got} is {error} from {expected}, limit {limit}");
    }
}

/// A·x and Aᵀ·x of a batch, with β and without; without, y may be NaN.
#[track_caller]
pub fn check_gemv<T: Value>(device: &Device, shape: [usize; 3], seed: u64) {
    let [batch, rows, columns] = shape;
    let mut numbers = Numbers::new(seed);
    let matrix: Vec<T> = values(batch * rows * columns, &mut numbers);
    let long = values::<T>(batch * rows, &mut numbers);
    let short = values::<T>(batch * columns, &mut numbers);
    let on_device = Buffer::from_slice(device, &matrix).expect("memory");
    let flat = wide(&matrix);
    let straight = GemvShape { batch, ..GemvShape::new(rows, columns) };
    for (shape, x, y) in [(straight, &short, &long), (straight.transposed(), &long, &short)] {
        let mut gemv = Gemv::<T>::new(device, shape).expect("a shape");
        for (alpha, beta) in [(1.0_f64, 0.0_f64), (-0.5, 2.0)] {
            let x_device = Buffer::from_slice(device, x).expect("memory");
            let mut run = || {
                let mut out = Buffer::from_slice(device, y).expect("memory");
                if beta == 0.0 {
                    out.fill_bytes(0xff).expect("memory");
                }
                gemv.run(alpha, &on_device, &x_device, beta, &mut out)
                    .unwrap_or_else(|why| panic!("{why}"));
                out.to_vec().expect("a result")
            };
            let got = run();
            assert_eq!(got, run(), "two runs, two results");
            let what = format!("{shape:?}, β = {beta}");
            let (x, y) = (wide(x), wide(y));
            let product = |alpha, values: &[f64], x: &[f64], beta, y: &[f64]| {
                let view = ArrayView2::from_shape((rows, columns), values).expect("the shape");
                let product =
                    if shape.transposed { reference::gemv_transposed } else { reference::gemv };
                product(alpha, view, x, beta, y)
            };
            for number in 0..batch {
                let of = |len: usize| number * len..(number + 1) * len;
                let (terms, outputs) = (of(shape.terms()), of(shape.outputs()));
                let (a, x) = (&flat[of(rows * columns)], &x[terms]);
                let expected = product(alpha, a, x, beta, &y[outputs.clone()]);
                let size = |values: &[f64]| magnitudes(values);
                let y_size = size(&y[outputs.clone()]);
                let sizes = product(alpha.abs(), &size(a), &size(x), beta.abs(), &y_size);
                assert_rounded_once(&what, &got[outputs], &expected, &sizes, shape.terms());
            }
        }
    }
    let other = Buffer::<T>::zeroed(device, batch * columns + 1).expect("memory");
    let mut out = Buffer::<T>::zeroed(device, batch * rows).expect("memory");
    let mut gemv = Gemv::new(device, straight).expect("a shape");
    gemv.run(1.0, &on_device, &other, 0.0, &mut out).expect_err("x is too long");
}

/// Shapes that no kernel's counts hold.
pub fn check_refusals(device: &Device) {
    let shape = GemvShape::new(1 << 32, 1);
    let why = Gemv::<f32>::new(device, shape).err().expect("too many rows").to_string();
    assert!(why.contains("rows is 4294967296"), "{why}");
    let shape = GemvShape { batch: 1 << 30, ..GemvShape::new(1 << 30, 1 << 30) };
    Gemv::<f32>::new(device, shape).err().expect("too many elements");
}

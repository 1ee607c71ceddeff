//! `gemv`, `axpby` and the operations beside them: rows for f64 and f32, and for bf16 of `gemv`.

use kasmina_reference::information as reference;
use kasmina_reference::linear::{gemv as product, gemv_transposed as product_transposed};
use kasmina_types::{DType, bf16};
use ndarray::ArrayView2;

use super::tally::{Compared, Mismatch, Tally};
use super::units::{self, Units};
use super::{Check, Inputs, Timing, reordered, time};
use crate::buffer::Buffer;
use crate::device::Device;
use crate::error::Error;
use crate::information::{axpby, tile_projection, velocity};
use crate::linear::{Gemv, GemvElement, GemvShape};

pub(super) fn checks() -> Vec<Check> {
    vec![
        check::<f64>("gemv", DType::F64, products),
        check::<f32>("gemv", DType::F32, products),
        check::<bf16>("gemv", DType::Bf16, products),
        check::<f64>("axpby", DType::F64, vectors),
        check::<f32>("axpby", DType::F32, vectors),
    ]
}

trait Number: GemvElement {
    /// The distance from 1 to the next value.
    const EPSILON: f64;
    /// The same of the type that sums are taken in.
    const SUM_EPSILON: f64 = f64::EPSILON;
}

impl Number for f64 {
    const EPSILON: f64 = f64::EPSILON;
}
impl Number for f32 {
    const EPSILON: f64 = f32::EPSILON as f64;
}
impl Number for bf16 {
    const EPSILON: f64 = 1.0 / 128.0;
    const SUM_EPSILON: f64 = f32::EPSILON as f64;
}

/// What a result should be.
struct Expected {
    values: Vec<f64>,
    /// The sums of the terms' magnitudes.
    sizes: Vec<f64>,
    /// Terms of each.
    terms: usize,
}

/// A case's operands and how its results are judged.
struct Case<'a, T> {
    name: String,
    matrix: Vec<T>,
    /// As many as rows, and as columns.
    long: Vec<T>,
    short: Vec<T>,
    timed: bool,
    tally: &'a mut Tally,
}

type Run<T> = fn(&Device, &mut Case<'_, T>) -> Result<(), Error>;

fn check<T: Number>(name: &'static str, dtype: DType, run: Run<T>) -> Check {
    Check::new(name, dtype, move |device, source, tally| {
        let mut units = Units::of(source);
        let timed = matches!(source.inputs, Inputs::Digits(_));
        for size in units::sizes(device, source, [1, 64, 333, 500]) {
            let (rows, columns) = (size.min(700), 1 + units.below(700.min(size) + 1));
            let mut values = |len: usize| -> Vec<T> {
                (0..len).map(|_| T::from_f32(units.unit() - 0.25).expect("a float")).collect()
            };
            tally.case();
            let mut case = Case {
                name: format!("{rows} × {columns}"),
                matrix: values(rows * columns),
                long: values(rows),
                short: values(columns),
                timed,
                tally,
            };
            let name = case.name.clone();
            run(device, &mut case).map_err(|source| Mismatch::Run { case: name, source })?;
        }
        Ok(())
    })
}

fn wide<T: Number>(values: &[T]) -> Vec<f64> {
    values.iter().map(|v| v.as_()).collect()
}

impl<T: Number> Case<'_, T> {
    /// Runs an operation twice, on `before` or on NaN, and judges it. Sums are in f64, or f32, and rounded once to what is
    /// stored: off by a unit in the last place, and by what the additions leave of the terms' sizes.
    fn judge(
        &mut self,
        device: &Device,
        what: &'static str,
        before: Option<&[T]>,
        expected: &Expected,
        run: impl Fn(&Device, &mut Buffer<T>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let once = |device: &Device| {
            let mut out = Buffer::<T>::zeroed(device, expected.values.len())?;
            match before {
                Some(values) => out.copy_from_slice(values)?,
                None => out.fill_bytes(0xFF)?,
            }
            run(device, &mut out)?;
            out.to_vec()
        };
        let (got, again) = (once(device)?, once(&reordered(device))?);
        let (a, b): (&[u16], &[u16]) = (bytemuck::cast_slice(&got), bytemuck::cast_slice(&again));
        units::same_bits(&self.name, what, a, b, self.tally);
        let additions = (expected.terms + 4) as f64 * T::SUM_EPSILON / T::EPSILON;
        let (values, sizes) = (&expected.values, &expected.sizes);
        let mut worst = Compared { got: 0.0, expected: 0.0, error: 0.0, tolerance: T::EPSILON };
        let mut index = 0;
        for (i, (got, (&expected, size))) in
            wide(&got).into_iter().zip(values.iter().zip(sizes)).enumerate()
        {
            let scale = expected.abs() + additions * size;
            let error = if got == expected { 0.0 } else { (got - expected).abs() / scale };
            // NaN where the reference has none.
            let error = if error.is_nan() { f64::INFINITY } else { error };
            if i == 0 || error > worst.error {
                (worst, index) = (Compared { got, expected, error, ..worst }, i);
            }
        }
        self.tally.judge(&self.name, &worst, || format!("{what}[{index}]"));
        Ok(())
    }
}

fn magnitudes(values: &[f64]) -> Vec<f64> {
    values.iter().map(|v| v.abs()).collect()
}

fn products<T: Number>(device: &Device, case: &mut Case<'_, T>) -> Result<(), Error> {
    let (rows, columns) = (case.long.len(), case.short.len());
    let matrix = Buffer::from_slice(device, &case.matrix)?;
    let (long, short) = (case.long.clone(), case.short.clone());
    let (wide_long, wide_short) = (wide(&long), wide(&short));
    let (on_long, on_short) =
        (Buffer::from_slice(device, &long)?, Buffer::from_slice(device, &short)?);
    let flat = wide(&case.matrix);
    let sizes = magnitudes(&flat);
    let shape = GemvShape::new(rows, columns);
    let view = ArrayView2::from_shape((rows, columns), &flat).expect("rows of columns");
    let size_view = ArrayView2::from_shape((rows, columns), &sizes).expect("rows of columns");
    let (long_size, short_size) = (magnitudes(&wide_long), magnitudes(&wide_short));
    for (beta, straight, transposed) in [
        (0.0, "y", "y by the transpose"),
        (-1.5, "y and what was there", "y by the transpose and what was there"),
    ] {
        let kept = |values| if beta == 0.0 { None } else { Some(values) };
        let expected = Expected {
            values: product(0.5, view, &wide_short, beta, &wide_long),
            sizes: product(0.5, size_view, &short_size, beta.abs(), &long_size),
            terms: columns,
        };
        case.judge(device, straight, kept(&long[..]), &expected, |device, y| {
            Gemv::new(device, shape)?.run(0.5, &matrix, &on_short, beta, y)
        })?;
        let expected = Expected {
            values: product_transposed(0.5, view, &wide_long, beta, &wide_short),
            sizes: product_transposed(0.5, size_view, &long_size, beta.abs(), &short_size),
            terms: rows,
        };
        case.judge(device, transposed, kept(&short[..]), &expected, |device, y| {
            Gemv::new(device, shape.transposed())?.run(0.5, &matrix, &on_long, beta, y)
        })?;
    }
    if case.timed {
        let mut y = Buffer::<T>::zeroed(device, rows)?;
        let mut gemv = Gemv::new(device, shape)?;
        let seconds =
            time::median_seconds(device, || gemv.run(1.0, &matrix, &on_short, 0.0, &mut y))?;
        case.tally.timing(Timing { seconds, bytes: (rows * columns * size_of::<T>()) as u64 });
    }
    Ok(())
}

fn vectors<T: Number>(device: &Device, case: &mut Case<'_, T>) -> Result<(), Error> {
    let len = case.matrix.len();
    let x = Buffer::from_slice(device, &case.matrix)?;
    let reversed: Vec<T> = case.matrix.iter().rev().copied().collect();
    let y = Buffer::from_slice(device, &reversed)?;
    let (wide_x, wide_y) = (wide(&case.matrix), wide(&reversed));
    let (x_size, y_size) = (magnitudes(&wide_x), magnitudes(&wide_y));
    let of = |values, sizes| Expected { values, sizes, terms: 1 };
    let expected = of(
        reference::axpby(0.3, &wide_x, -1.7, &wide_y),
        reference::axpby(0.3, &x_size, 1.7, &y_size),
    );
    case.judge(device, "α·x + β·y", None, &expected, |device, out| {
        axpby(device, 0.3, &x, -1.7, &y, out)
    })?;
    let expected = of(
        reference::velocity(&wide_x, &wide_y, 0.25),
        reference::axpby(4.0, &x_size, 4.0, &y_size),
    );
    case.judge(device, "velocity", None, &expected, |device, out| {
        velocity(device, &x, &y, 0.25, out)
    })?;
    let projected = 2 * len + len / 2;
    let expected = of(reference::tile_projection(&wide_x, projected), vec![0.0; projected]);
    case.judge(device, "projection", None, &expected, |device, out| {
        tile_projection(device, &x, out)
    })?;
    if case.timed {
        let mut out = Buffer::<T>::zeroed(device, len)?;
        let seconds = time::median_seconds(device, || axpby(device, 0.3, &x, 0.5, &y, &mut out))?;
        case.tally.timing(Timing { seconds, bytes: (3 * len * size_of::<T>()) as u64 });
    }
    Ok(())
}

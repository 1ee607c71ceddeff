//! `gemv`, `axpby` and the operations beside them: rows for f64 and f32.

use kasmina_reference::information as reference;
use kasmina_reference::numeric::{self, Dtype, Tolerance};
use kasmina_types::DType;
use kasmina_types::dtype::Element;
use ndarray::ArrayView2;
use num_traits::{AsPrimitive, FromPrimitive};

use super::tally::{Compared, Mismatch, Tally};
use super::units::{self, Units};
use super::{Check, Inputs, Timing, reordered, time};
use crate::buffer::Buffer;
use crate::device::Device;
use crate::error::Error;
use crate::information::{axpby, gemv, gemv_transposed, tile_projection, velocity};

pub(super) fn checks() -> Vec<Check> {
    vec![
        check::<f64>("gemv", DType::F64, Dtype::F64, products),
        check::<f32>("gemv", DType::F32, Dtype::F32, products),
        check::<f64>("axpby", DType::F64, Dtype::F64, vectors),
        check::<f32>("axpby", DType::F32, Dtype::F32, vectors),
    ]
}

trait Number: Element + AsPrimitive<f64> + FromPrimitive {}
impl<T: Element + AsPrimitive<f64> + FromPrimitive> Number for T {}

/// A case's operands and how its results are judged.
struct Case<'a, T> {
    name: String,
    dtype: Dtype,
    matrix: Vec<T>,
    /// As many as rows, and as columns.
    long: Vec<T>,
    short: Vec<T>,
    timed: bool,
    tally: &'a mut Tally,
}

type Run<T> = fn(&Device, &mut Case<'_, T>) -> Result<(), Error>;

fn check<T: Number>(name: &'static str, tag: DType, dtype: Dtype, run: Run<T>) -> Check {
    Check::new(name, tag, move |device, source, tally| {
        let mut units = Units::of(source);
        let timed = matches!(source.0, Inputs::Digits(_));
        for size in units::sizes(device, source, [1, 64, 333, 500]) {
            let (rows, columns) = (size.min(700), 1 + units.below(700.min(size) + 1));
            let mut values = |len: usize| -> Vec<T> {
                (0..len).map(|_| T::from_f32(units.unit() - 0.25).expect("a float")).collect()
            };
            tally.case();
            let mut case = Case {
                name: format!("{rows} × {columns}"),
                dtype,
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
    /// Runs an operation into a filled output, twice, and judges it by elements of `scale`.
    fn judge(
        &mut self,
        device: &Device,
        what: &'static str,
        expected: &[f64],
        scale: f64,
        run: impl Fn(&Device, &mut Buffer<T>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let once = |device: &Device| {
            let mut out = Buffer::<T>::zeroed(device, expected.len())?;
            out.fill_bytes(0xFF)?;
            run(device, &mut out)?;
            out.to_vec()
        };
        let (got, again) = (once(device)?, once(&reordered(device))?);
        let (a, b): (&[u32], &[u32]) = (bytemuck::cast_slice(&got), bytemuck::cast_slice(&again));
        units::same_bits(&self.name, what, a, b, self.tally);
        let got = wide(&got);
        let comparison = numeric::compare_to_scale(&got, expected, scale).expect("as many in each");
        let index = comparison.first_mismatch.or(comparison.worst_index).unwrap_or(0);
        let (got, expected) = (got[index], expected[index]);
        // Sums are in f64: what is stored is rounded once.
        let tolerance = Tolerance::for_dtype(self.dtype, 1).limit();
        let error = comparison.max_rel_error;
        let compared = Compared { got, expected, error, tolerance };
        self.tally.judge(&self.name, &compared, || format!("{what}[{index}]"));
        Ok(())
    }
}

fn products<T: Number>(device: &Device, case: &mut Case<'_, T>) -> Result<(), Error> {
    let (rows, columns) = (case.long.len(), case.short.len());
    let matrix = Buffer::from_slice(device, &case.matrix)?;
    let (long, short) =
        (Buffer::from_slice(device, &case.long)?, Buffer::from_slice(device, &case.short)?);
    let flat = wide(&case.matrix);
    let view = ArrayView2::from_shape((rows, columns), &flat).expect("rows of columns");
    let zeros = (vec![0.0; rows], vec![0.0; columns]);
    let expected = reference::gemv(0.5, view, &wide(&case.short), 0.0, &zeros.0);
    case.judge(device, "y", &expected, columns as f64, |device, y| {
        gemv(device, 0.5, &matrix, &short, 0.0, y)
    })?;
    let expected = reference::gemv_transposed(0.5, view, &wide(&case.long), 0.0, &zeros.1);
    case.judge(device, "y by the transpose", &expected, rows as f64, |device, y| {
        gemv_transposed(device, 0.5, &matrix, &long, 0.0, y)
    })?;
    if case.timed {
        let mut y = Buffer::<T>::zeroed(device, rows)?;
        let seconds =
            time::median_seconds(device, || gemv(device, 1.0, &matrix, &short, 0.0, &mut y))?;
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
    let expected = reference::axpby(0.3, &wide_x, -1.7, &wide_y);
    case.judge(device, "α·x + β·y", &expected, 1.0, |device, out| {
        axpby(device, 0.3, &x, -1.7, &y, out)
    })?;
    let expected = reference::velocity(&wide_x, &wide_y, 0.25);
    case.judge(device, "velocity", &expected, 1.0, |device, out| {
        velocity(device, &x, &y, 0.25, out)
    })?;
    let expected = reference::tile_projection(&wide_x, 2 * len + len / 2);
    case.judge(device, "projection", &expected, 1.0, |device, out| {
        tile_projection(device, &x, out)
    })?;
    if case.timed {
        let mut out = Buffer::<T>::zeroed(device, len)?;
        let seconds = time::median_seconds(device, || axpby(device, 0.3, &x, 0.5, &y, &mut out))?;
        case.tally.timing(Timing { seconds, bytes: (3 * len * size_of::<T>()) as u64 });
    }
    Ok(())
}

//! Matrix times vector.

use kasmina_reference::information as reference;
use kasmina_types::dtype::Element;
use num_traits::{AsPrimitive, FromPrimitive};

use crate::buffer::{Buffer, check_length};
use crate::device::Device;
use crate::driver::launchers::KernelDevice;
use crate::driver::launchers::gemv::{self as launcher, Arguments};
use crate::error::Error;

const OP: &str = "gemv";

/// y ← α·A·x + β·y; A is row-major, `[y, x]`, f64 or f32. Products and sums are in f64; where β is 0, y is not read.
///
/// # Errors
/// Elements that are neither f64 nor f32, a matrix that is not `[y, x]`, buffers on another device, or a failed call.
pub fn gemv<T: Element + AsPrimitive<f64> + FromPrimitive>(
    device: &Device,
    alpha: f64,
    matrix: &Buffer<T>,
    x: &Buffer<T>,
    beta: f64,
    y: &mut Buffer<T>,
) -> Result<(), Error> {
    let (rows, columns) = (y.len(), x.len());
    run(device, Arguments { transposed: false, rows, columns, alpha, matrix, x, beta, y })
}

/// y ← α·Aᵀ·x + β·y; A is row-major, `[x, y]`. As [`gemv`].
///
/// # Errors
/// As [`gemv`].
pub fn gemv_transposed<T: Element + AsPrimitive<f64> + FromPrimitive>(
    device: &Device,
    alpha: f64,
    matrix: &Buffer<T>,
    x: &Buffer<T>,
    beta: f64,
    y: &mut Buffer<T>,
) -> Result<(), Error> {
    let (rows, columns) = (x.len(), y.len());
    run(device, Arguments { transposed: true, rows, columns, alpha, matrix, x, beta, y })
}

fn run<T: Element + AsPrimitive<f64> + FromPrimitive>(
    device: &Device,
    a: Arguments<'_, T>,
) -> Result<(), Error> {
    launcher::instance(a.transposed, T::DTYPE)?;
    let limit = u64::from(u32::MAX / 2);
    let got = a.rows.max(a.columns) as u64;
    if got > limit {
        return Err(Error::TooLarge { op: OP, what: "rows or columns", got, limit });
    }
    a.matrix.check_device(OP, "matrix", device)?;
    a.x.check_device(OP, "x", device)?;
    a.y.check_device(OP, "y", device)?;
    check_length(OP, "matrix", a.rows.saturating_mul(a.columns), a.matrix.len())?;
    if let Some(kernels) = KernelDevice::of(device) {
        return launcher::launch(kernels, a);
    }
    let (matrix, x) = (wide(a.matrix)?, wide(a.x)?);
    let y = if a.beta == 0.0 { vec![0.0; a.y.len()] } else { wide(a.y)? };
    let matrix = ndarray::ArrayView2::from_shape((a.rows, a.columns), &matrix)
        .expect("the length is checked");
    let result = if a.transposed {
        reference::gemv_transposed(a.alpha, matrix, &x, a.beta, &y)
    } else {
        reference::gemv(a.alpha, matrix, &x, a.beta, &y)
    };
    a.y.copy_from_slice(&narrow(OP, &result)?)
}

/// A buffer's values in f64.
pub(super) fn wide<T: Element + AsPrimitive<f64>>(buffer: &Buffer<T>) -> Result<Vec<f64>, Error> {
    Ok(buffer.to_vec()?.into_iter().map(AsPrimitive::as_).collect())
}

/// Each value rounded to the element type: an error of types that do not take every f64.
pub(super) fn narrow<T: Element + FromPrimitive>(
    op: &'static str,
    values: &[f64],
) -> Result<Vec<T>, Error> {
    let value = |&v: &f64| T::from_f64(v).ok_or_else(|| launcher::unsupported(op, T::DTYPE));
    values.iter().map(value).collect()
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;
    use crate::information::{axpby, tile_projection, velocity};

    fn refuses<T: Element + AsPrimitive<f64> + FromPrimitive>(device: &Device) {
        let one = Buffer::<T>::zeroed(device, 1).unwrap();
        let mut out = Buffer::<T>::zeroed(device, 1).unwrap();
        for result in [
            gemv(device, f64::NAN, &one, &one, 0.0, &mut out),
            gemv_transposed(device, 1e300, &one, &one, 0.0, &mut out),
            axpby(device, f64::NAN, &one, 1.0, &one, &mut out),
            velocity(device, &one, &one, 0.1, &mut out),
            tile_projection(device, &one, &mut out),
        ] {
            let why = result.unwrap_err();
            assert!(matches!(&why, Error::Dtype { got, .. } if *got == T::DTYPE), "{why}");
            assert!(why.to_string().contains(&format!("{}, expected f32 or f64", T::DTYPE)));
        }
    }

    #[test]
    fn every_device_refuses_the_same_types() {
        for device in [Device::Cpu, Device::simt()] {
            refuses::<i32>(&device);
            refuses::<f16>(&device);
            refuses::<bf16>(&device);
        }
    }

    #[test]
    fn every_device_refuses_the_same_lengths() {
        for device in [Device::Cpu, Device::simt()] {
            let one = Buffer::<f64>::zeroed(&device, 1).unwrap();
            let mut none = Buffer::<f64>::zeroed(&device, 0).unwrap();
            axpby(&device, 1.0, &one, 1.0, &one, &mut none).unwrap_err();
            tile_projection(&device, &one, &mut none).unwrap();
            let empty = Buffer::<f64>::zeroed(&device, 0).unwrap();
            axpby(&device, 1.0, &empty, 1.0, &empty, &mut none).unwrap();
        }
    }
}

//! Element by element: α·x + β·y, velocities, projections by tiling.

use kasmina_reference::information as reference;
use kasmina_types::dtype::Element;
use num_traits::{AsPrimitive, FromPrimitive};

use crate::buffer::Buffer;
use crate::device::Device;
use crate::driver::launchers::KernelDevice;
use crate::driver::launchers::axpby::{self as launcher, Arguments};
use crate::error::Error;

/// out ← α·x + β·y, f64 or f32, each element computed in f64.
///
/// # Errors
/// Elements that are neither f64 nor f32, buffers of different lengths or on another device, or a failed call.
pub fn axpby<T: Element + AsPrimitive<f64> + FromPrimitive>(
    device: &Device,
    alpha: f64,
    x: &Buffer<T>,
    beta: f64,
    y: &Buffer<T>,
    out: &mut Buffer<T>,
) -> Result<(), Error> {
    let y = Some(y);
    let arguments = Arguments { op: "axpby", velocity: false, alpha, x, beta, y, out };
    run(device, arguments, |x, y, _| reference::axpby(alpha, x, beta, y))
}

/// out ← (mean − previous)/dt, f64 or f32, each element computed in f64.
///
/// # Errors
/// A `dt` that is 0 or not finite; else as [`axpby`].
pub fn velocity<T: Element + AsPrimitive<f64> + FromPrimitive>(
    device: &Device,
    mean: &Buffer<T>,
    previous: &Buffer<T>,
    dt: f64,
    out: &mut Buffer<T>,
) -> Result<(), Error> {
    const OP: &str = "velocity";
    if dt == 0.0 || !dt.is_finite() {
        let expected = "a finite number that is not 0";
        return Err(Error::Setting { op: OP, setting: "dt", got: dt, expected });
    }
    let (y, beta) = (Some(previous), 0.0);
    let arguments = Arguments { op: OP, velocity: true, alpha: dt, x: mean, beta, y, out };
    run(device, arguments, |x, y, _| reference::velocity(x, y, dt))
}

/// out ← x over and over: out\[i\] = x\[i mod the elements of x\], f64 or f32.
///
/// # Errors
/// An `x` of no elements; else as [`axpby`].
pub fn tile_projection<T: Element + AsPrimitive<f64> + FromPrimitive>(
    device: &Device,
    x: &Buffer<T>,
    out: &mut Buffer<T>,
) -> Result<(), Error> {
    let (op, y) = ("tile_projection", None);
    let arguments = Arguments { op, velocity: false, alpha: 1.0, x, beta: 0.0, y, out };
    run(device, arguments, |x, _, len| reference::tile_projection(x, len))
}

fn run<T: Element + AsPrimitive<f64> + FromPrimitive>(
    device: &Device,
    a: Arguments<'_, T>,
    on_cpu: impl FnOnce(&[f64], &[f64], usize) -> Vec<f64>,
) -> Result<(), Error> {
    launcher::instance(a.op, a.velocity, T::DTYPE)?;
    a.x.check_device(a.op, "x", device)?;
    a.out.check_device(a.op, "out", device)?;
    if let Some(y) = a.y {
        y.check_device(a.op, "y", device)?;
    }
    a.check_lengths()?;
    if let Some(kernels) = KernelDevice::of(device) {
        return launcher::launch(kernels, a);
    }
    let x = a.x.to_f64()?;
    let y = a.y.map_or_else(|| Ok(Vec::new()), Buffer::to_f64)?;
    let values = on_cpu(&x, &y, a.out.len());
    a.out.copy_from_f64(a.op, &values)
}

#[cfg(test)]
mod tests {
    use half::{bf16, f16};

    use super::*;

    fn refuses<T: Element + AsPrimitive<f64> + FromPrimitive>(device: &Device) {
        let one = Buffer::<T>::zeroed(device, 1).unwrap();
        let mut out = Buffer::<T>::zeroed(device, 1).unwrap();
        for result in [
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

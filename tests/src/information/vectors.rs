//! `axpby` and the operations beside it against the reference.

use kasmina::information::{axpby, tile_projection, velocity};
use kasmina::{Buffer, Device};
use kasmina_reference::information as reference;

use crate::Numbers;
use crate::linear::gemv::{Value, assert_rounded_once, magnitudes, values, wide};

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

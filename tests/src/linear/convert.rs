//! Products of f32 in narrower precisions: the device converts A and B.

use half::{bf16, f16};
use kasmina::linear::{
    Chosen, GroupFusion, GroupedPlan, GroupedProblem, Layout, Linear, LinearError, LinearOptions,
    LinearResult, LinearShape, Operands, Precision,
};
use kasmina::types::DType;
use kasmina::{Buffer, Device, Error};

use super::forward::{Case, check};
use crate::Numbers;

/// The precisions that f32 is converted for.
pub const PRECISIONS: [Precision; 4] =
    [Precision::Bf16, Precision::F16, Precision::Fp8, Precision::Fp8Fast];

/// The value nearest to `value` among those with so many bits of mantissa and normal from 2^`least` on; ties to even. Beyond
/// `largest` that is ±`beyond`.
fn nearest(value: f64, mantissa: i32, least: i32, (largest, beyond): (f64, f64)) -> f64 {
    if value == 0.0 || value.is_nan() {
        return value;
    }
    if value.is_infinite() {
        return beyond.copysign(value);
    }
    let mut exponent = value.abs().log2().floor() as i32;
    // The logarithm is rounded.
    exponent += i32::from(value.abs() >= 2f64.powi(exponent + 1));
    exponent -= i32::from(value.abs() < 2f64.powi(exponent));
    let unit = 2f64.powi(exponent.max(least) - mantissa);
    let rounded = (value / unit).round_ties_even() * unit;
    if rounded.abs() > largest { beyond.copysign(value) } else { rounded }
}

/// What a value becomes in a type, by arithmetic of its own.
pub fn rounded(dtype: DType, value: f32) -> f64 {
    let wide = f64::from(value);
    match dtype {
        DType::Bf16 => nearest(wide, 7, -126, (bf16::MAX.to_f64(), f64::INFINITY)),
        DType::F16 => nearest(wide, 10, -14, (65504.0, f64::INFINITY)),
        DType::E4m3 if wide.is_infinite() => f64::NAN,
        DType::E4m3 => nearest(wide, 3, -6, (448.0, 448.0)),
        other => unreachable!("nothing is converted to {other}"),
    }
}

/// A product of matrices that have no more than A and B.
fn product<O: LinearResult>(
    device: &Device,
    precision: Precision,
    shape: &LinearShape,
    (a, b): (&[f32], &[f32]),
) -> (Vec<f64>, Chosen) {
    let of = |values: &[f32]| Buffer::from_slice(device, values).expect("memory");
    let (a, b) = (of(a), of(b));
    let linear = Linear::new(device, LinearOptions { precision, ..Default::default() });
    let mut d = Buffer::<O>::zeroed(device, shape.m * shape.n).expect("memory");
    d.fill_bytes(0xff).expect("memory");
    let chosen = linear
        .and_then(|linear| linear.forward(shape, &Operands::new(&a, &b), &mut d, None))
        .expect("a product");
    let d = d.to_vec().expect("a result").into_iter().map(O::to_f64).collect();
    (d, chosen)
}

/// Values of every size that the type has, and between: the middle of two neighbours, which goes to the even one, just above
/// and just below it.
fn ties(dtype: DType, numbers: &mut Numbers) -> Vec<f32> {
    let (mantissa, exponents) = match dtype {
        DType::Bf16 => (7, -90..90),
        DType::F16 => (10, -26..15),
        _ => (3, -12..8),
    };
    let mut values = vec![0.0, -0.0];
    for exponent in exponents {
        let unit = 2f64.powi(exponent - mantissa);
        for _ in 0..4 {
            let whole = (1 << mantissa) + numbers.below((1 << mantissa) - 1);
            let middle = ((whole as f64 + 0.5) * unit) as f32;
            for value in [middle.next_down(), middle, middle.next_up(), whole as f32 * unit as f32]
            {
                values.extend([value, -value]);
            }
        }
    }
    values
}

/// A times the unit matrix: what A is rounded to. Of fp8 the values are of a tensor whose largest is 448, so that its scale
/// is 1.
#[track_caller]
pub fn check_rounding(device: &Device) {
    const K: usize = 48;
    for precision in PRECISIONS {
        let dtype = match precision {
            Precision::Bf16 => DType::Bf16,
            Precision::F16 => DType::F16,
            _ => DType::E4m3,
        };
        let mut a = ties(dtype, &mut Numbers::new(3));
        a.resize(a.len().next_multiple_of(K), 448.0);
        *a.last_mut().expect("values") = 448.0;
        let mut unit = vec![0.0; K * K];
        (0..K).for_each(|i| unit[i * K + i] = 1.0);
        let m = a.len() / K;
        for layout in [Layout::NN, Layout::NT] {
            let shape = LinearShape::new(layout, m, K, K);
            let (d, chosen) = product::<f32>(device, precision, &shape, (&a, &unit));
            if matches!(chosen.precision, Precision::F64 | Precision::F32) {
                assert!(d.iter().zip(&a).all(|(&got, &value)| got == f64::from(value)));
                continue;
            }
            assert_eq!(chosen.precision, precision);
            for (&got, &value) in d.iter().zip(&a) {
                let expected = rounded(dtype, value);
                // 1 is 448 times its scale.
                let apart = if dtype == DType::E4m3 { 1e-6 * expected.abs() } else { 0.0 };
                assert!((got - expected).abs() <= apart, "{precision} of {value:e}: {got:e}");
            }
        }
    }
}

/// What is not finite reaches the results of its row, and no others; zeros stay zeros, and no magnitude is too small.
#[track_caller]
pub fn check_special_values(device: &Device) {
    let (m, n, k) = (40, 24, 70);
    let shape = LinearShape::new(Layout::NT, m, n, k);
    let numbers = &mut Numbers::new(8);
    let mut values =
        |len: usize| -> Vec<f32> { (0..len).map(|_| numbers.in_range(0.5, 1.0)).collect() };
    let (a, b) = (values(m * k), values(n * k));
    for precision in PRECISIONS {
        for special in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut a = a.clone();
            a[7 * k + 3] = special;
            let (d, _) = product::<f32>(device, precision, &shape, (&a, &b));
            for (at, value) in d.iter().enumerate() {
                assert_eq!(value.is_finite(), at / n != 7, "{precision} of {special}: {at}");
            }
            let every = vec![special; m * k];
            let (d, _) = product::<bf16>(device, precision, &shape, (&every, &b));
            assert!(d.iter().all(|value| !value.is_finite()), "{precision} of {special} alone");
        }
        let zeros = vec![0.0; m * k];
        let (d, _) = product::<f16>(device, precision, &shape, (&zeros, &b));
        assert!(d.iter().all(|&value| value == 0.0), "{precision} of zeros");
        // Magnitudes that f16 does not have, and subnormal ones, which fp8 is scaled from.
        let scales: &[f32] = match precision {
            Precision::F16 => &[1.0, 1e-3],
            Precision::Bf16 => &[1.0, 1e30, 1e-30],
            _ => &[1.0, 1e30, 1e-30, 1e-37, 1e-39],
        };
        for &scale in scales {
            let scaled: Vec<f32> = a.iter().map(|&value| value * scale).collect();
            let (d, chosen) = product::<f32>(device, precision, &shape, (&scaled, &b));
            for (at, got) in d.iter().enumerate() {
                let (i, j) = (at / n, at % n);
                let term = |x: usize| f64::from(scaled[i * k + x]) * f64::from(b[j * k + x]);
                let expected: f64 = (0..k).map(term).sum();
                let error = (got - expected).abs();
                assert!(error <= 0.05 * expected, "{precision} of {scale:e} by {chosen:?}: {at}");
            }
        }
    }
}

/// Which kernel computes an aligned product and one of odd sizes, in every layout, with whatever the seed fuses to it.
#[track_caller]
pub fn check_kernels(device: &Device, case: &Case) -> Vec<Chosen> {
    let mut every = Vec::new();
    for precision in PRECISIONS {
        let case = Case { precision, ..*case };
        every.push(check::<f32, f32>(device, &case));
        check::<f32, f16>(device, &case);
        check::<f32, bf16>(device, &case);
    }
    every
}

/// One `Linear` for shapes that grow and shrink: what is kept from one call is not seen by the next.
#[track_caller]
pub fn check_kept_memory(device: &Device) {
    for precision in PRECISIONS {
        let options = LinearOptions { precision, ..Default::default() };
        let kept = Linear::new(device, options).expect("options");
        for (turn, (m, n, k)) in
            [(5, 9, 17), (70, 40, 130), (5, 9, 17), (33, 2, 64)].into_iter().enumerate()
        {
            let layout = Layout::ALL[turn];
            let shape = LinearShape::new(layout, m, n, k);
            let numbers = &mut Numbers::new(turn as u64);
            let mut values = |len: usize| -> Vec<f32> {
                (0..len).map(|_| numbers.in_range(-1.0, 1.0) / (turn + 1) as f32).collect()
            };
            let (a, b) = (values(m * k), values(n * k));
            let (expected, _) = product::<f32>(device, precision, &shape, (&a, &b));
            let of = |values: &[f32]| Buffer::from_slice(device, values).expect("memory");
            let (a, b) = (of(&a), of(&b));
            let mut d = Buffer::<f32>::zeroed(device, m * n).expect("memory");
            kept.forward(&shape, &Operands::new(&a, &b), &mut d, None).expect("a product");
            let got = d.to_vec().expect("a result");
            assert!(got.iter().zip(&expected).all(|(&got, &expected)| f64::from(got) == expected));
        }
    }
}

/// Groups convert nothing: they refuse such precisions of f32 by name, and their rule takes tf32 at most.
#[track_caller]
pub fn check_groups(device: &Device) {
    let plan = |options, edge| {
        let problem = GroupedProblem::new(Layout::NT, edge, edge, edge);
        let none = GroupFusion::default();
        GroupedPlan::<f32, f32>::new(device, Layout::NT, options, none, &[problem])
    };
    for precision in PRECISIONS {
        let options = LinearOptions { precision, ..Default::default() };
        let why = plan(options, 4).err().expect("nothing to convert with");
        assert!(matches!(why, Error::Linear(LinearError::Conversion { .. })), "{why}");
        let why = why.to_string();
        assert!(why.contains(precision.name()) && why.contains("Linear::forward"), "{why}");
    }
    let options = LinearOptions { tolerance: 1e-2, ..Default::default() };
    let chosen = plan(options, 4096).expect("a plan").chosen();
    assert!(!PRECISIONS.contains(&chosen.precision), "{chosen:?}");
}

/// Of large products the rule takes bf16 at tolerances from its bound on, where the device has it, and tf32 below; of those
/// that have few results for their operands, tf32.
#[track_caller]
pub fn check_rule(device: &Device) {
    for (m, n, k, tolerance, expected) in [
        (3072, 3072, 512, 4e-3, Precision::Bf16),
        (3072, 3072, 512, 3.9e-3, Precision::Tf32),
        (3072, 1024, 2048, 4e-3, Precision::Tf32),
    ] {
        let of = |len| Buffer::from_slice(device, &vec![0.5_f32; len]).expect("memory");
        let (a, b) = (of(m * k), of(n * k));
        let options = LinearOptions { tolerance, ..Default::default() };
        let linear = Linear::new(device, options).expect("options");
        let mut d = Buffer::<f32>::zeroed(device, m * n).expect("memory");
        let shape = LinearShape::new(Layout::NT, m, n, k);
        let chosen =
            linear.forward(&shape, &Operands::new(&a, &b), &mut d, None).expect("a product");
        assert_eq!(chosen.precision, expected, "{m}×{n}×{k} at {tolerance}: {chosen:?}");
        // Every operand and every sum is exact.
        assert!(d.to_vec().expect("a result").iter().all(|&value| value == 0.25 * k as f32));
    }
}

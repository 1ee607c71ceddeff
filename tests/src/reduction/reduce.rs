//! `reduce` against the reference.

use half::{bf16, f16};
use kasmina::reduction::{Reduce, ReduceElement, SegmentOffsets, Segments};
use kasmina::{Buffer, Device};
use kasmina_reference::reduction as reference;

use crate::{Numbers, assert_near};

/// An array's length, its cut, and the seed of its values.
#[derive(Clone, Debug)]
pub struct Case {
    /// Elements.
    pub len: usize,
    /// How it is cut.
    pub cut: Cut,
    /// Seed of the values.
    pub seed: u64,
    /// Whether one element is NaN (where there is such a thing).
    pub nan: bool,
}

/// How an array is cut.
#[derive(Clone, Debug)]
pub enum Cut {
    /// Not at all.
    Whole,
    /// Into rows.
    Rows(usize),
    /// At these places, in any order.
    At(Vec<usize>),
}

/// An element type with its exact value.
pub trait Value: ReduceElement {
    /// A value from a number in [−4, 4).
    fn of(number: f32) -> Self;
    /// NaN, or anything.
    fn broken() -> Self;
    /// The value in the reference's type.
    fn wide(self) -> f64;
    /// Relative error that the accumulation may make.
    const TOLERANCE: f64;
}

macro_rules! value {
    ($type:ty, $tolerance:literal, |$n:ident| $of:expr, $broken:expr, |$x:ident| $wide:expr) => {
        impl Value for $type {
            fn of($n: f32) -> Self {
                $of
            }
            fn broken() -> Self {
                $broken
            }
            fn wide(self) -> f64 {
                let $x = self;
                $wide
            }
            const TOLERANCE: f64 = $tolerance;
        }
    };
}

value!(f32, 1e-5, |n| n, f32::NAN, |x| x.into());
value!(f16, 1e-5, |n| f16::from_f32(n), f16::NAN, |x| x.into());
value!(bf16, 1e-5, |n| bf16::from_f32(n), bf16::NAN, |x| x.into());
value!(f64, 1e-13, |n| f64::from(n) * 1.000_000_1, f64::NAN, |x| x);
value!(i32, 1e-13, |n| (n * 5e8) as i32, i32::MIN, |x| x.into());

/// Runs the five operations on `device` and compares them with the f64 reference, and two runs with
/// each other bit for bit.
#[track_caller]
pub fn check<T: Value>(device: &Device, case: &Case)
where
    T::Sum: Into64,
    T::Extreme: Into64,
    T::Moment: Into64,
{
    let mut numbers = Numbers::new(case.seed);
    // Off centre: a variance by sums of squares would lose digits.
    let mut values: Vec<T> = (0..case.len).map(|_| T::of(numbers.in_range(-1.0, 4.0))).collect();
    if case.nan && case.len > 0 {
        values[numbers.below(case.len)] = T::broken();
    }
    let wide: Vec<f64> = values.iter().map(|v| v.wide()).collect();
    let offsets: Vec<u64> = match &case.cut {
        Cut::Whole => vec![0, case.len as u64],
        Cut::Rows(columns) => (0..=case.len / columns).map(|row| (row * columns) as u64).collect(),
        Cut::At(places) => {
            let mut offsets: Vec<u64> = places.iter().map(|&place| place as u64).collect();
            offsets.sort_unstable();
            offsets
        }
    };
    let on_device = SegmentOffsets::new(device, &offsets).expect("ascending");
    let segments = match case.cut {
        Cut::Whole => Segments::Whole,
        Cut::Rows(columns) => Segments::Rows(columns),
        Cut::At(_) => Segments::Offsets(&on_device),
    };
    let ranges: Vec<&[f64]> =
        offsets.windows(2).map(|pair| &wide[pair[0] as usize..pair[1] as usize]).collect();
    let nowhere_empty = ranges.iter().all(|range| !range.is_empty());

    let input = Buffer::from_slice(device, &values).expect("memory");
    let reduce = Reduce::new(device);
    let compare = |what: &str, run: &dyn Fn() -> Vec<f64>, expected: &dyn Fn(&[f64]) -> f64| {
        let (got, again) = (run(), run());
        assert_eq!(format!("{got:?}"), format!("{again:?}"), "{what} of {case:?}: two runs");
        for (segment, range) in ranges.iter().enumerate() {
            let scale = range.iter().filter(|v| v.is_finite()).fold(0.0, |s: f64, v| s + v.abs());
            let scale = if what == "sum" { scale } else { scale / range.len().max(1) as f64 };
            let scale = if what == "variance" { scale * scale } else { scale };
            let (got, expected) = ([got[segment]], [expected(range)]);
            assert_near(
                &format!("{what} of segment {segment} of {case:?}"),
                &got,
                &expected,
                scale,
                T::TOLERANCE,
            );
        }
    };
    compare("sum", &|| wide_values(reduce.sum(&input, &segments)), &|v| reference::sum(v));
    compare("mean", &|| wide_values(reduce.mean(&input, &segments)), &|v| reference::mean(v));
    compare("variance", &|| wide_values(reduce.variance(&input, &segments)), &|v| {
        reference::variance(v)
    });
    if nowhere_empty {
        let some = "no segment is empty";
        compare("max", &|| wide_values(reduce.max(&input, &segments)), &|v| {
            reference::max(v).expect(some)
        });
        compare("min", &|| wide_values(reduce.min(&input, &segments)), &|v| {
            reference::min(v).expect(some)
        });
    } else {
        let refused = |result: Result<_, kasmina::Error>| {
            matches!(result, Err(kasmina::Error::EmptySegment { .. }))
        };
        assert!(refused(reduce.max(&input, &segments)) && refused(reduce.min(&input, &segments)));
    }
}

/// A result as f64.
pub trait Into64: bytemuck::Pod {
    /// The value; i64 beyond 2⁵³ is rounded.
    fn into_64(self) -> f64;
}
impl Into64 for f32 {
    fn into_64(self) -> f64 {
        self.into()
    }
}
impl Into64 for f64 {
    fn into_64(self) -> f64 {
        self
    }
}
impl Into64 for i32 {
    fn into_64(self) -> f64 {
        self.into()
    }
}
impl Into64 for i64 {
    fn into_64(self) -> f64 {
        self as f64
    }
}

fn wide_values<O: Into64>(result: Result<Buffer<O>, kasmina::Error>) -> Vec<f64> {
    let buffer = result.unwrap_or_else(|why| panic!("{why}"));
    buffer.to_vec().expect("a result").into_iter().map(Into64::into_64).collect()
}

/// Means and variances of values whose squares the element type does not hold.
#[track_caller]
pub fn check_large_values(device: &Device) {
    let reduce = Reduce::new(device);
    let input = Buffer::from_slice(device, &[1e20_f32; 5000]).expect("memory");
    let variance =
        reduce.variance(&input, &Segments::Whole).and_then(|v| v.to_vec()).expect("a result");
    assert!(variance[0].abs() <= 1e15, "{variance:?}");
    let input = Buffer::from_slice(device, &[1e200_f64; 5000]).expect("memory");
    let variance =
        reduce.variance(&input, &Segments::Whole).and_then(|v| v.to_vec()).expect("a result");
    assert!(variance[0].abs() <= 1e190, "{variance:?}");
}

//! `reduce_*`: a row for each operation and element type; whole arrays, rows, and segments of any lengths.

use std::sync::Arc;

use bytemuck::Pod;
use half::{bf16, f16};
use kasmina_reference::numeric::{self, Dtype, Tolerance};
use kasmina_reference::reduction::{self as reference, Element as ReferenceElement};
use kasmina_types::ReduceOp;
use kasmina_types::dtype::DType;
use rand::RngExt;
use rand::rngs::StdRng;

use super::random::{self, Limits, Sample};
use super::tally::{Compared, Mismatch, Tally};
use super::{Check, Inputs, Source, Timing, reordered, time};
use crate::buffer::Buffer;
use crate::device::Device;
use crate::digits::{Digits, PIXELS};
use crate::error::Error;
use crate::reduction::{Reduce, ReduceElement, SegmentOffsets, Segments};

pub(super) fn checks() -> Vec<Check> {
    let of = |op| {
        [check::<f32>(op), check::<f16>(op), check::<bf16>(op), check::<f64>(op), check::<i32>(op)]
    };
    ReduceOp::ALL.into_iter().flat_map(of).collect()
}

fn check<T>(op: ReduceOp) -> Check
where
    T: ReduceElement<Sum: Number, Extreme: Number, Moment: Number> + Sample,
{
    Check::new(format!("reduce_{op}"), T::DTYPE, move |device, source, tally| {
        let timed = matches!(source.inputs, Inputs::Digits(_));
        for case in cases::<T>(device, source, op) {
            tally.case();
            let runs = run(device, op, &case, timed)
                .and_then(|first| Ok((first, run(&reordered(device), op, &case, false)?)));
            match runs {
                Ok((first, second)) => {
                    if let Some(timing) = first.timing {
                        tally.timing(timing);
                    }
                    compare_runs(&case, &first, &second, tally);
                    judge(op, &case, &first.values, tally);
                }
                Err(source) => return Err(Mismatch::Run { case: case.name, source }),
            }
        }
        Ok(())
    })
}

struct Case<T> {
    name: String,
    values: Vec<T>,
    cut: Cut,
}

enum Cut {
    Whole,
    Rows(usize),
    Offsets(Vec<u64>),
}

impl<T> Case<T> {
    fn new(values: Vec<T>, cut: Cut) -> Self {
        let name = match &cut {
            Cut::Whole => format!("all of {}", values.len()),
            Cut::Rows(columns) => format!("{} rows of {columns}", values.len() / columns),
            Cut::Offsets(offsets) => format!("{} segments of {}", offsets.len() - 1, values.len()),
        };
        Self { name, values, cut }
    }

    /// Where each segment begins and the last ends.
    fn bounds(&self) -> Vec<usize> {
        match &self.cut {
            Cut::Whole => vec![0, self.values.len()],
            Cut::Rows(columns) => (0..=self.values.len()).step_by(*columns).collect(),
            Cut::Offsets(offsets) => offsets.iter().map(|&offset| offset as usize).collect(),
        }
    }
}

fn cases<T: Sample>(
    device: &Device,
    source: &Source,
    op: ReduceOp,
) -> Box<dyn Iterator<Item = Case<T>>> {
    match &source.inputs {
        Inputs::Digits(digits) => Box::new(digit_cases(Arc::clone(digits))),
        &Inputs::Random(seed) => {
            let (limits, mut rng) = (Limits::of(source.scale(device)), random::generator(seed));
            Box::new((0..limits.cases).map(move |index| random_case(&mut rng, limits, op, index)))
        }
    }
}

/// The whole data set; each image; each pixel over the images; the images of each digit.
fn digit_cases<T: Sample>(digits: Arc<Digits>) -> impl Iterator<Item = Case<T>> {
    let images = digits.labels.len();
    let index = |image: usize, pixel: usize| image * PIXELS + pixel;
    let in_order: Vec<usize> = (0..images * PIXELS).collect();
    let by_pixel =
        (0..PIXELS).flat_map(|pixel| (0..images).map(move |image| index(image, pixel))).collect();
    let mut sorted: Vec<usize> = (0..images).collect();
    sorted.sort_by_key(|&image| digits.labels[image]);
    let offset = |digit| sorted.partition_point(|&image| digits.labels[image] < digit) * PIXELS;
    let offsets = (0..=10).map(|digit| offset(digit) as u64).collect();
    let by_digit =
        sorted.iter().flat_map(|&image| (0..PIXELS).map(move |pixel| index(image, pixel)));
    let cuts = [
        (in_order.clone(), Cut::Whole),
        (in_order, Cut::Rows(PIXELS)),
        (by_pixel, Cut::Rows(images)),
        (by_digit.collect(), Cut::Offsets(offsets)),
    ];
    cuts.into_iter().map(move |(order, cut)| {
        Case::new(order.iter().map(|&i| T::from_grey(digits.pixels[i])).collect(), cut)
    })
}

fn random_case<T: Sample>(rng: &mut StdRng, limits: Limits, op: ReduceOp, index: usize) -> Case<T> {
    // The first case is the largest that the limits allow.
    let count = if index == 0 { limits.elements } else { random::length(rng, limits.elements) };
    let specials = index % 4 == 3;
    match index % 3 {
        0 => Case::new(random::values(rng, count, specials), Cut::Whole),
        1 => {
            let columns = random::length(rng, count);
            let rows = count / columns;
            Case::new(random::values(rng, rows * columns, specials), Cut::Rows(columns))
        }
        _ => {
            let may_be_empty = !matches!(op, ReduceOp::Max | ReduceOp::Min);
            let longest = random::length(rng, count);
            // Neither the first value nor the last need be in a segment.
            let mut end = rng.random_range(0..count.min(8)) as u64;
            let mut offsets = vec![end];
            loop {
                let empty = may_be_empty && rng.random_range(0..8) == 0;
                end += if empty { 0 } else { random::length(rng, longest) as u64 };
                if end > count as u64 {
                    break;
                }
                offsets.push(end);
            }
            Case::new(random::values(rng, count, specials), Cut::Offsets(offsets))
        }
    }
}

/// What a run has written: as numbers, and as bits.
struct Results {
    values: Vec<f64>,
    bits: Vec<u8>,
    element_bytes: usize,
    timing: Option<Timing>,
}

fn run<T>(device: &Device, op: ReduceOp, case: &Case<T>, timed: bool) -> Result<Results, Error>
where
    T: ReduceElement<Sum: Number, Extreme: Number, Moment: Number>,
{
    let input = &Buffer::from_slice(device, &case.values)?;
    let offsets = match &case.cut {
        Cut::Offsets(offsets) => Some(SegmentOffsets::new(device, offsets)?),
        Cut::Whole | Cut::Rows(_) => None,
    };
    let cut = &match (&case.cut, &offsets) {
        (Cut::Rows(columns), _) => Segments::Rows(*columns),
        (_, Some(offsets)) => Segments::Offsets(offsets),
        (_, None) => Segments::Whole,
    };
    let (reduce, count) = (Reduce::new(device), case.bounds().len() - 1);
    let bytes = input.len() * size_of::<T>();
    let run = Run { device, count, bytes: timed.then_some(bytes as u64) };
    match op {
        ReduceOp::Sum => run.results(|output| reduce.sum_into(input, cut, output)),
        ReduceOp::Max => run.results(|output| reduce.max_into(input, cut, output)),
        ReduceOp::Min => run.results(|output| reduce.min_into(input, cut, output)),
        ReduceOp::Mean => run.results(|output| reduce.mean_into(input, cut, output)),
        ReduceOp::Variance => run.results(|output| reduce.variance_into(input, cut, output)),
    }
}

struct Run<'a> {
    device: &'a Device,
    /// Segments.
    count: usize,
    /// Bytes read, if it is to be timed.
    bytes: Option<u64>,
}

impl Run<'_> {
    /// Runs on an output that holds what no result is, so that a value that is not written shows.
    fn results<O: Number>(
        &self,
        into: impl Fn(&mut Buffer<O>) -> Result<(), Error>,
    ) -> Result<Results, Error> {
        let mut output = Buffer::zeroed(self.device, self.count)?;
        output.fill_bytes(0xFF)?;
        into(&mut output)?;
        let results = output.to_vec()?;
        let timing = match self.bytes {
            Some(bytes) => {
                let seconds = time::median_seconds(self.device, || into(&mut output))?;
                Some(Timing { seconds, bytes })
            }
            None => None,
        };
        Ok(Results {
            values: results.iter().map(|&value| value.as_f64()).collect(),
            bits: bytemuck::cast_slice(&results).to_vec(),
            element_bytes: size_of::<O>(),
            timing,
        })
    }
}

/// A result's type.
trait Number: Pod {
    fn as_f64(self) -> f64;
}

macro_rules! number {
    ($($type:ty),*) => {$(
        impl Number for $type {
            fn as_f64(self) -> f64 {
                self as f64
            }
        }
    )*};
}

number!(f32, f64, i32, i64);

/// Two runs must have given the same bits.
fn compare_runs<T>(case: &Case<T>, first: &Results, second: &Results, tally: &mut Tally) {
    let differs = |&byte: &usize| first.bits[byte] != second.bits[byte];
    if let Some(byte) = (0..first.bits.len()).find(differs) {
        let (case, index) = (case.name.clone(), byte / first.element_bytes);
        tally.fail(Mismatch::Nondeterministic { case, what: "output", index });
    }
}

/// Compares each segment with the reference.
fn judge<T: ReduceElement>(op: ReduceOp, case: &Case<T>, results: &[f64], tally: &mut Tally) {
    let values: Vec<T::Reference> = case.values.iter().map(|&v| v.to_reference()).collect();
    for (segment, (bounds, &got)) in case.bounds().windows(2).zip(results).enumerate() {
        let values = &values[bounds[0]..bounds[1]];
        let (expected, scale) = expected(op, values);
        let comparison = numeric::compare_to_scale(&[got], &[expected], scale)
            .expect("one value is as many as one");
        let tolerance = Tolerance::for_dtype(stored(op, T::DTYPE), values.len()).limit();
        let error = comparison.max_rel_error;
        tally.judge(&case.name, &Compared { got, expected, error, tolerance }, || {
            format!("{op} of segment {segment}, {} values,", values.len())
        });
    }
}

/// The reference's value of a segment, and the magnitude that rounding errors are proportional to.
fn expected<R: ReferenceElement>(op: ReduceOp, values: &[R]) -> (f64, f64) {
    let extreme = "an extreme of no values was refused before it ran";
    let magnitude = || values.iter().map(|value| value.as_f64().abs()).sum::<f64>();
    match op {
        ReduceOp::Sum => (R::sum_as_f64(reference::sum(values)), magnitude()),
        ReduceOp::Max => (reference::max(values).expect(extreme).as_f64(), 0.0),
        ReduceOp::Min => (reference::min(values).expect(extreme).as_f64(), 0.0),
        ReduceOp::Mean => (reference::mean(values), magnitude() / values.len() as f64),
        ReduceOp::Variance => {
            let (mean, variance) = (reference::mean(values), reference::variance(values));
            // The variance of nearly equal values is small beside their rounding errors.
            (variance, variance + 1e-3 * mean * mean)
        }
    }
}

/// What a result is stored in: extremes are exact, and sums of integers are.
fn stored(op: ReduceOp, dtype: DType) -> Dtype {
    match (op, dtype) {
        (ReduceOp::Max | ReduceOp::Min, _) | (ReduceOp::Sum, DType::I32) => Dtype::I32,
        (_, DType::F64 | DType::I32) => Dtype::F64,
        (_, DType::F32 | DType::F16 | DType::Bf16 | DType::E4m3) => Dtype::F32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::{Row, Status};

    /// Segments of 3, 0 and 997 values that begin at the second of 1002.
    fn case<T: Sample>() -> Case<T> {
        let values = random::values(&mut random::generator(9), 1002, false);
        Case::new(values, Cut::Offsets(vec![1, 4, 4, 1001]))
    }

    fn verdict<T>(op: ReduceOp, change: impl FnOnce(&mut [f64])) -> Row
    where
        T: ReduceElement<Sum: Number, Extreme: Number, Moment: Number> + Sample,
    {
        let case = case::<T>();
        let mut results = run(&Device::Cpu, op, &case, false).unwrap();
        change(&mut results.values);
        let mut tally = Tally::default();
        judge(op, &case, &results.values, &mut tally);
        tally.into_row(format!("reduce_{op}"), T::DTYPE, "cpu")
    }

    #[test]
    fn one_wrong_segment_fails() {
        for op in [ReduceOp::Sum, ReduceOp::Mean, ReduceOp::Variance] {
            assert_eq!(verdict::<f32>(op, |_| {}).status, Status::Pass);
            let Status::Fail { reason } = verdict::<f32>(op, |r| r[2] *= 1.01).status else {
                panic!("{op} passed")
            };
            assert!(reason.contains(&format!("{op} of segment 2, 997 values")), "{reason}");
            assert!(verdict::<f32>(op, |r| r[0] = f64::NAN).failed());
            assert!(verdict::<f32>(op, |r| r[1] = 1e-3).failed());
        }
    }

    #[test]
    fn integers_must_be_exact() {
        assert_eq!(verdict::<i32>(ReduceOp::Sum, |_| {}).status, Status::Pass);
        assert!(verdict::<i32>(ReduceOp::Sum, |r| r[2] += 1.0).failed());
    }

    #[test]
    fn a_second_run_with_other_bits_fails() {
        let case = case::<f16>();
        let first = run(&Device::Cpu, ReduceOp::Sum, &case, false).unwrap();
        let compared = |second: &Results| {
            let mut tally = Tally::default();
            compare_runs(&case, &first, second, &mut tally);
            tally.into_row("reduce_sum".into(), DType::F16, "cpu").failed()
        };
        let mut second = run(&reordered(&Device::Cpu), ReduceOp::Sum, &case, false).unwrap();
        assert!(!compared(&second));
        second.bits[9] ^= 1;
        assert!(compared(&second));
    }

    #[test]
    fn an_extreme_of_nothing_fails_the_row_and_says_so() {
        let case = case::<f32>();
        let refused = run(&Device::Cpu, ReduceOp::Max, &case, false).err().unwrap();
        assert!(refused.to_string().contains("segment 1"), "{refused}");
    }
}

//! `telemetry_reduce_*`: a row for each strategy and element type.

use half::{bf16, f16};
use kasmina_reference::kasmina::{RowStrategy, SeedTelemetry, telemetry_by};
use kasmina_reference::numeric::{self, Dtype, Tolerance};
use kasmina_types::ReductionStrategy;
use ndarray::ArrayView2;

use super::random::{self, Limits, Sample};
use super::tally::{Compared, Mismatch, Tally};
use super::{Check, Inputs, Source, Timing, reordered, time, units};
use crate::buffer::Buffer;
use crate::device::Device;
use crate::digits::PIXELS;
use crate::error::Error;
use crate::kasmina::{LayerElement, TelemetryBuffers, TelemetryReduce, TelemetryValues};

pub(super) fn checks() -> Vec<Check> {
    let of = |strategy| [check::<f32>(strategy), check::<f16>(strategy), check::<bf16>(strategy)];
    ReductionStrategy::ALL.into_iter().flat_map(of).collect()
}

fn check<T: LayerElement + Sample>(strategy: ReductionStrategy) -> Check {
    let name = format!("telemetry_reduce_{strategy}");
    Check::new(name, T::DTYPE, move |device, source, tally| {
        let timed = matches!(source.inputs, Inputs::Digits(_));
        for case in cases::<T>(device, source) {
            tally.case();
            let runs = run(device, strategy, &case, timed)
                .and_then(|first| Ok((first, run(&reordered(device), strategy, &case, false)?)));
            match runs {
                Ok(((first, seconds), (second, _))) => {
                    if let Some(seconds) = seconds {
                        let bytes = size_of_val(case.input.as_slice()) as u64;
                        tally.timing(Timing { seconds, bytes });
                    }
                    let (a, b) = (figures(&first), figures(&second));
                    for ((what, a), (_, b)) in a.into_iter().zip(b) {
                        units::same_bits(&case.name, what, &units::bits(a), &units::bits(b), tally);
                    }
                    judge(strategy, &case, &first, tally);
                }
                Err(source) => return Err(Mismatch::Run { case: case.name, source }),
            }
        }
        Ok(())
    })
}

struct Case<T> {
    name: String,
    shape: [usize; 3],
    input: Vec<T>,
}

impl<T> Case<T> {
    fn new([batch, seeds, chunk]: [usize; 3], input: Vec<T>) -> Self {
        let name = format!("{batch} × {seeds} seeds × {chunk}");
        Self { name, shape: [batch, seeds, chunk], input }
    }
}

fn cases<T: Sample>(device: &Device, source: &Source) -> Vec<Case<T>> {
    match &source.inputs {
        Inputs::Digits(digits) => [(16, 4), (8, 8), (64, 1), (1, 64)]
            .map(|(seeds, chunk)| {
                let input: Vec<T> = digits.pixels.iter().map(|&grey| T::from_grey(grey)).collect();
                Case::new([input.len() / PIXELS, seeds, chunk], input)
            })
            .into(),
        &Inputs::Random(seed) => {
            let (limits, mut rng) = (Limits::of(source.scale(device)), random::generator(seed));
            (0..limits.cases)
                .map(|index| {
                    let chunk = random::length(&mut rng, limits.chunk);
                    let seeds = random::length(&mut rng, (limits.elements / chunk).clamp(1, 40));
                    let most = (limits.elements / (seeds * chunk)).clamp(1, limits.batch);
                    let batch = random::length(&mut rng, most);
                    let input = random::values(&mut rng, batch * seeds * chunk, index % 4 == 3);
                    Case::new([batch, seeds, chunk], input)
                })
                .collect()
        }
    }
}

fn run<T: LayerElement>(
    device: &Device,
    strategy: ReductionStrategy,
    case: &Case<T>,
    timed: bool,
) -> Result<(TelemetryValues, Option<f64>), Error> {
    let [batch, seeds, chunk] = case.shape;
    let mut reduce = TelemetryReduce::<T>::new(device, batch, seeds, chunk, strategy)?;
    let input = Buffer::from_slice(device, &case.input)?;
    let mut telemetry = TelemetryBuffers::new(device, seeds)?;
    telemetry.fill_bytes(0xFF)?;
    reduce.run(&input, &mut telemetry)?;
    let values = telemetry.read()?;
    let mut seconds = None;
    if timed {
        seconds = Some(time::median_seconds(device, || reduce.run(&input, &mut telemetry))?);
    }
    Ok((values, seconds))
}

fn figures(values: &TelemetryValues) -> [(&'static str, &[f32]); 6] {
    [
        ("mean", &values.mean),
        ("variance", &values.variance),
        ("min", &values.min),
        ("max", &values.max),
        ("dead_ratio", &values.dead_ratio),
        ("snr", &values.snr),
    ]
}

fn judge<T: LayerElement>(
    strategy: ReductionStrategy,
    case: &Case<T>,
    got: &TelemetryValues,
    tally: &mut Tally,
) {
    let [batch, seeds, chunk] = case.shape;
    let x: Vec<f64> = case.input.iter().map(|x| f64::from(x.to_f32())).collect();
    let by = match strategy {
        ReductionStrategy::Hierarchical => RowStrategy::Hierarchical,
        ReductionStrategy::Mean => RowStrategy::Mean,
        ReductionStrategy::Max => RowStrategy::Max,
    };
    let view = ArrayView2::from_shape((batch, seeds * chunk), &x).expect("the case's shape");
    let expected = telemetry_by(view, seeds, by).expect("the case's shape");
    let counts = |values: &[u64]| values.iter().map(|&v| v as u32).collect::<Vec<_>>();
    units::judge_words(&case.name, "count", &got.count, &counts(&expected.count), tally);
    units::judge_words(
        &case.name,
        "nonfinite",
        &got.nonfinite,
        &counts(&expected.nonfinite),
        tally,
    );

    let SeedTelemetry { mean, variance, min, max, dead_ratio, snr, .. } = &expected;
    // Rounding errors are proportional to the values' magnitude, here at most the largest.
    let finite = x.iter().filter(|x| x.is_finite());
    let largest = finite.fold(0.0, |largest: f64, x| largest.max(x.abs()));
    let tolerance = Tolerance::for_dtype(Dtype::F32, batch * chunk).limit();
    for seed in 0..seeds {
        let noise = largest / (variance[seed] + 1e-8).sqrt();
        let spread = variance[seed] + 1e-3 * largest * largest;
        let expected = [mean, variance, min, max, dead_ratio, snr].map(|values| values[seed]);
        let scales = [largest, spread, largest, largest, 1.0, noise];
        for (((what, got), expected), scale) in figures(got).into_iter().zip(expected).zip(scales) {
            let got = f64::from(got[seed]);
            let comparison = numeric::compare_to_scale(&[got], &[expected], scale)
                .expect("one value is as many as one");
            let error = comparison.max_rel_error;
            let compared = Compared { got, expected, error, tolerance };
            tally.judge(&case.name, &compared, || format!("telemetry_{what}[{seed}]"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::Status;
    use kasmina_types::DType;

    #[test]
    fn one_wrong_figure_fails() {
        let values = random::values::<f32>(&mut random::generator(5), 20 * 8 * 8, false);
        let case = Case::new([20, 8, 8], values);
        for strategy in ReductionStrategy::ALL {
            let verdict = |change: fn(&mut TelemetryValues)| {
                let (mut values, _) = run(&Device::Cpu, strategy, &case, false).unwrap();
                change(&mut values);
                let mut tally = Tally::default();
                judge(strategy, &case, &values, &mut tally);
                tally.into_row("telemetry_reduce".into(), DType::F32, "cpu").status
            };
            assert_eq!(verdict(|_| {}), Status::Pass);
            for (name, change) in [
                ("count[6]", (|t| t.count[6] += 1) as fn(&mut TelemetryValues)),
                ("mean[6]", |t| t.mean[6] += 1e-3),
                ("variance[6]", |t| t.variance[6] *= 1.001),
                ("min[6]", |t| t.min[6] += 1e-3),
                ("max[6]", |t| t.max[6] += 1e-3),
                ("dead_ratio[6]", |t| t.dead_ratio[6] += 1.0 / 160.0),
                ("snr[6]", |t| t.snr[6] += 1e-2),
                ("nonfinite[6]", |t| t.nonfinite[6] = 1),
            ] {
                let Status::Fail { reason } = verdict(change) else { panic!("{name} passed") };
                assert!(reason.contains(name), "{reason}");
            }
        }
    }
}

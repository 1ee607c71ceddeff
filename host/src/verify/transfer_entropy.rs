//! `transfer_entropy`: what the past of one series tells of another, by both algorithms, by brute force and pruned, with
//! surrogates.

use kasmina_types::DType;

use super::random::{self, Limits};
use super::tally::{Compared, Mismatch, Tally};
use super::{Check, Inputs, Scale, Source, Timing, reordered, time};
use crate::device::Device;
use crate::error::Error;
use crate::information::TransferEntropy;
use crate::information::transfer_entropy::{
    Algorithm, Method, Precision, SurrogateKind, TransferEntropyResult,
};
use crate::macroeconomy::Growth;
use ndarray::ArrayView1;
use rand::RngExt;
use rand::rngs::StdRng;

/// Counts are those of the reference, for both round each difference of coordinates once. What is left is the order of an
/// f64 sum of parts that are below 10.
const TOLERANCE: f64 = 1e-12;

pub(super) fn checks() -> Vec<Check> {
    [(Precision::F32, DType::F32), (Precision::F64, DType::F64)]
        .into_iter()
        .map(|(precision, dtype)| {
            Check::new("transfer_entropy", dtype, move |device, source, tally| {
                let cases = cases(device, source, precision);
                let cases = cases.map_err(|reason| Mismatch::Inputs { reason })?;
                for (number, case) in cases.iter().enumerate() {
                    tally.case();
                    let timed = number == 0 && matches!(source.inputs, Inputs::Digits(_));
                    let runs = run(device, case, timed).and_then(|first| {
                        let second = case.estimate(&reordered(device))?;
                        Ok((first, second, case.estimate(&Device::Cpu)?))
                    });
                    match runs {
                        Ok(((first, timing), second, expected)) => {
                            judge(case, &first, &expected, tally);
                            same_bits(case, &first, &second, tally);
                            if let Some(timing) = timing {
                                tally.timing(timing);
                            }
                        }
                        Err(source) => {
                            return Err(Mismatch::Run { case: case.name.clone(), source });
                        }
                    }
                }
                Ok(())
            })
        })
        .collect()
}

struct Case {
    name: String,
    target: Vec<f64>,
    source: Vec<f64>,
    options: TransferEntropy,
}

impl Case {
    fn estimate(&self, device: &Device) -> Result<TransferEntropyResult, Error> {
        let (target, source) = (ArrayView1::from(&self.target), ArrayView1::from(&self.source));
        self.options.estimate(device, target, source)
    }
}

/// Growth of consumption and of investment, each way; or random processes.
fn cases(device: &Device, source: &Source, precision: Precision) -> Result<Vec<Case>, String> {
    let random = match &source.inputs {
        Inputs::Digits(_) => {
            let Growth { consumption, investment } = Growth::load()?;
            let options = TransferEntropy::new().precision(precision).local(true).seed(1);
            let to_investment = |what: &str, options| Case {
                name: format!("growth of consumption to investment, {what}"),
                target: investment.clone(),
                source: consumption.clone(),
                options,
            };
            let to_consumption = |what: &str, options| Case {
                name: format!("growth of investment to consumption, {what}"),
                target: consumption.clone(),
                source: investment.clone(),
                options,
            };
            let one = options.clone().surrogates(9);
            let two = options.clone().algorithm(Algorithm::Two).k(8).theiler(2);
            let long = options.target_history(3).source_history(3).method(Method::Pruned);
            let cases = vec![
                to_investment("algorithm 1", one.clone()),
                to_consumption("algorithm 1", one),
                to_investment("algorithm 2", two),
                to_consumption("histories of 3, pruned", long),
            ];
            return Ok(cases);
        }
        &Inputs::Random(seed) => seed,
    };
    let (limits, mut rng) = (Limits::of(source.scale(device)), random::generator(random ^ 0x7e));
    let most = if source.scale(device) == Scale::Small { 200 } else { 1500 };
    Ok((0..limits.cases.min(8)).map(|_| random_case(&mut rng, most, precision)).collect())
}

fn random_case(rng: &mut StdRng, most: usize, precision: Precision) -> Case {
    let samples = rng.random_range(90..most);
    let kinds = [SurrogateKind::Permute, SurrogateKind::Rotate, SurrogateKind::Block(7)];
    let algorithm = if rng.random_bool(0.3) { Algorithm::Two } else { Algorithm::One };
    let options = TransferEntropy::new()
        .precision(precision)
        .local(true)
        .k(rng.random_range(1..=32))
        .target_history(rng.random_range(1..=4))
        .source_history(rng.random_range(1..=4))
        .delay(rng.random_range(1..=3))
        .theiler(rng.random_range(0..4))
        .algorithm(algorithm)
        .method(if rng.random_bool(0.5) { Method::Brute } else { Method::Pruned })
        .surrogates(rng.random_range(0..3))
        .surrogate_kind(kinds[rng.random_range(0..3)])
        .seed(rng.random());
    let grain = if rng.random_bool(0.3) { 4.0 } else { 1e6 };
    let source: Vec<f64> =
        (0..samples).map(|_| (rng.random_range(-1.0..1.0_f64) * grain).round() / grain).collect();
    let mut target = vec![0.0];
    for t in 1..samples {
        let noise = (rng.random_range(-1.0..1.0_f64) * grain).round() / grain;
        target.push(0.5 * target[t - 1] + source[t - 1] + noise);
    }
    let name = format!("{samples} samples, {options:?}");
    Case { name, target, source, options }
}

fn run(
    device: &Device,
    case: &Case,
    timed: bool,
) -> Result<(TransferEntropyResult, Option<Timing>), Error> {
    let (target, source) = (ArrayView1::from(&case.target), ArrayView1::from(&case.source));
    let mut prepared = case.options.prepare(device, target, source, &[])?;
    prepared.run()?;
    let result = prepared.results()?.remove(0);
    let mut timing = None;
    if timed {
        let seconds = time::median_seconds(device, || prepared.run())?;
        // Both series, in f64 as they are given.
        timing = Some(Timing { seconds, bytes: 16 * case.target.len() as u64 });
    }
    Ok((result, timing))
}

fn judge(
    case: &Case,
    got: &TransferEntropyResult,
    expected: &TransferEntropyResult,
    tally: &mut Tally,
) {
    let mut one = |what: &str, got: f64, expected: f64, tolerance: f64| {
        let error = (got - expected).abs();
        let error = if error.is_nan() { f64::INFINITY } else { error };
        let compared = Compared { got, expected, error, tolerance };
        tally.judge(&case.name, &compared, || what.to_owned());
    };
    one("the transfer entropy", got.te_nats, expected.te_nats, TOLERANCE);
    one("the number of ties", got.ties as f64, expected.ties as f64, 0.0);
    for (i, (got, expected)) in got.surrogates.iter().zip(&expected.surrogates).enumerate() {
        one(&format!("surrogate {i}"), *got, *expected, TOLERANCE);
    }
    let local = |result: &TransferEntropyResult| result.local.clone().unwrap_or_default();
    for (i, (got, expected)) in local(got).iter().zip(local(expected)).enumerate() {
        one(&format!("the part of point {i}"), *got, expected, TOLERANCE);
    }
}

fn same_bits(
    case: &Case,
    first: &TransferEntropyResult,
    second: &TransferEntropyResult,
    tally: &mut Tally,
) {
    let bits = |result: &TransferEntropyResult| -> Vec<u64> {
        let parts = result.local.iter().flatten();
        let all = std::iter::once(&result.te_nats).chain(&result.surrogates).chain(parts);
        all.map(|value| value.to_bits()).collect()
    };
    let (first, second) = (bits(first), bits(second));
    if let Some(index) = (0..first.len()).find(|&i| first.get(i) != second.get(i)) {
        let (case, what) = (case.name.clone(), "the transfer entropy and its parts");
        tally.fail(Mismatch::Nondeterministic { case, what, index });
    }
}

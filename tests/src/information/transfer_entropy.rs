//! Transfer entropy on a device against the reference on the CPU.
//!
//! Both take distances in the same type and round each difference once, so that every count is the same: what may
//! differ is the rounding of f64 sums, of some 1e3 terms below 10. Hence the tolerance of 1e-12.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use kasmina::information::TransferEntropy;
use kasmina::information::transfer_entropy::{
    Algorithm, Method, Precision, SurrogateKind, TransferEntropyResult,
};
use kasmina::{Device, Error};
use ndarray::{Array1, Array2};

use crate::Numbers;

const TOLERANCE: f64 = 1e-12;

/// Series of a coupled process, all of `samples`; of values that repeat often if `ties`.
pub fn series(samples: usize, count: usize, seed: u64, ties: bool) -> Array2<f64> {
    let mut numbers = Numbers::new(seed);
    let mut series = Array2::zeros((count, samples));
    for t in 0..samples {
        for i in 0..count {
            let noise: f32 = (0..4).map(|_| numbers.in_range(-1.0, 1.0)).sum();
            let past = if t > 0 { series[(i, t - 1)] } else { 0.0 };
            let other = if t > 0 { series[((i + count - 1) % count, t - 1)] } else { 0.0 };
            let value = 0.5 * past + 0.4 * other + f64::from(noise);
            series[(i, t)] = if ties { (2.0 * value).round() / 2.0 } else { value };
        }
    }
    series
}

/// Options that fit a case, and its series: target, source, then conditions.
#[derive(Clone, Debug)]
pub struct Case {
    /// Samples.
    pub samples: usize,
    /// Seed of the series.
    pub seed: u64,
    /// Whether values repeat often.
    pub ties: bool,
    /// The options.
    pub options: TransferEntropy,
    /// Conditions of the options.
    pub conditions: usize,
}

impl Case {
    /// Run on a device.
    pub fn run(
        &self,
        device: &Device,
        options: &TransferEntropy,
    ) -> Result<TransferEntropyResult, Error> {
        let series = series(self.samples, 2 + self.conditions, self.seed, self.ties);
        let conditions: Vec<_> = (0..self.conditions).map(|i| series.row(2 + i)).collect();
        options.estimate_given(device, series.row(0), series.row(1), &conditions)
    }
}

/// Compares a case with the reference, its two methods with each other bit for bit, and a second run with the first.
#[track_caller]
pub fn check(device: &Device, case: &Case) {
    let options = case.options.clone().local(true);
    let expected = case.run(&Device::Cpu, &options).unwrap();
    let got = case.run(device, &options).unwrap();
    same(&got, &expected, &format!("{case:?}"));
    let again = case.run(device, &options).unwrap();
    assert_eq!(bits(&again), bits(&got), "{case:?}: a second run");

    let brute = case.run(device, &options.clone().method(Method::Brute)).unwrap();
    let pruned = case.run(device, &options.method(Method::Pruned)).unwrap();
    same(&pruned, &expected, &format!("{case:?}, pruned"));
    let local = |result: &TransferEntropyResult| -> Vec<u64> {
        result.local.as_ref().unwrap().iter().map(|part| part.to_bits()).collect()
    };
    assert_eq!(local(&brute), local(&pruned), "{case:?}: brute force and pruned");
    assert_eq!(bits(&brute), bits(&pruned), "{case:?}: brute force and pruned");
}

fn bits(result: &TransferEntropyResult) -> (u64, Vec<u64>, usize) {
    let surrogates = result.surrogates.iter().map(|te| te.to_bits()).collect();
    (result.te_nats.to_bits(), surrogates, result.ties)
}

#[track_caller]
fn same(got: &TransferEntropyResult, expected: &TransferEntropyResult, what: &str) {
    let near = |a: f64, b: f64| (a - b).abs() <= TOLERANCE;
    assert!(
        near(got.te_nats, expected.te_nats),
        "{what}: expected {}, got {}",
        expected.te_nats,
        got.te_nats
    );
    assert_eq!(got.points, expected.points);
    assert_eq!(got.ties, expected.ties, "{what}");
    assert_eq!(got.surrogates.len(), expected.surrogates.len());
    for (i, (got, expected)) in got.surrogates.iter().zip(&expected.surrogates).enumerate() {
        assert!(near(*got, *expected), "{what}, surrogate {i}: expected {expected}, got {got}");
    }
    let (got, expected) = (got.local.as_ref().unwrap(), expected.local.as_ref().unwrap());
    assert_eq!(got.len(), expected.len());
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert!(near(*got, *expected), "{what}, point {i}: expected {expected}, got {got}");
    }
}

/// Options of every kind, by a number.
pub fn options(numbers: &mut Numbers) -> (TransferEntropy, usize) {
    let (k, l) = (1 + numbers.below(4), 1 + numbers.below(4));
    let conditions = if numbers.below(3) == 0 { 1 + numbers.below(2) } else { 0 };
    let kinds = [SurrogateKind::Permute, SurrogateKind::Rotate, SurrogateKind::Block(9)];
    let mut options = TransferEntropy::new()
        .k([1, 2, 3, 4, 5, 8, 11, 16, 23, 32][numbers.below(10)])
        .target_history(k)
        .source_history(l)
        .target_step(1 + numbers.below(2))
        .source_step(1 + numbers.below(2))
        .delay(1 + numbers.below(3))
        .algorithm(if numbers.below(3) == 0 { Algorithm::Two } else { Algorithm::One })
        .theiler(if numbers.below(3) == 0 { numbers.below(12) } else { 0 })
        .precision(if numbers.below(4) == 0 { Precision::F64 } else { Precision::F32 })
        .surrogates(numbers.below(3) as u32)
        .surrogate_kind(kinds[numbers.below(3)])
        .seed(numbers.below(1000) as u64);
    for _ in 0..conditions {
        options = options.condition(1 + numbers.below(2), 1 + numbers.below(2));
    }
    (options, conditions)
}

/// Cases of random options, of up to `samples` each.
pub fn check_random(device: &Device, seeds: std::ops::Range<u64>, samples: usize) {
    for seed in seeds {
        let mut numbers = Numbers::new(seed);
        let (options, conditions) = options(&mut numbers);
        let samples = 90 + numbers.below(samples - 90);
        let ties = numbers.below(3) == 0;
        check(device, &Case { samples, seed, ties, options, conditions });
    }
}

/// 32 dimensions, the most there are, in both types.
pub fn check_many_dimensions(device: &Device, samples: usize) {
    for precision in [Precision::F32, Precision::F64] {
        let options = TransferEntropy::new()
            .target_history(14)
            .source_history(11)
            .condition(6, 2)
            .precision(precision);
        check(device, &Case { samples, seed: 5, ties: false, options, conditions: 1 });
    }
}

/// A matrix and a scan give what single estimates give.
pub fn check_batches(device: &Device, samples: usize) {
    let series = series(samples, 3, 8, false);
    let options = TransferEntropy::new().surrogates(3).seed(4);
    let near = |a: f64, b: f64| assert!((a - b).abs() <= TOLERANCE, "{a} and {b}");
    let matrix = options.matrix(device, series.view()).unwrap();
    let reference = options.matrix(&Device::Cpu, series.view()).unwrap();
    for ((source, target), &te) in matrix.te_nats.indexed_iter() {
        if source == target {
            assert!(te.is_nan() && matrix.p_values.as_ref().unwrap()[(source, target)].is_nan());
            continue;
        }
        let at = (source, target);
        near(te, reference.te_nats[at]);
        let single = options.estimate(device, series.row(target), series.row(source)).unwrap();
        near(te, single.te_nats);
        assert_eq!(matrix.p_values.as_ref().unwrap()[at], reference.p_values.as_ref().unwrap()[at]);
    }
    let delays = [1, 2, 5, 9];
    let (target, source) = (series.row(0), series.row(2));
    let options = options.local(true);
    let scan = options.scan(device, target, source, &[], &delays).unwrap();
    for (found, delay) in scan.iter().zip(delays) {
        let options = options.clone().delay(delay);
        let single = options.estimate(&Device::Cpu, target, source).unwrap();
        near(found.te_nats, single.te_nats);
        assert_eq!((found.points, found.first), (samples - delay, delay));
        let (found, single) = (found.local.as_ref().unwrap(), single.local.unwrap());
        assert_eq!(found.len(), samples - delay);
        for (&found, &single) in found.iter().zip(&single) {
            near(found, single);
        }
    }
    // One lot after another: problem by problem, and a few together.
    for problems in [1, 5] {
        let in_lots = options.clone().scratch_bytes(problems * samples * (4 * 4 + 8 + 8));
        let mut prepared = in_lots.prepare_matrix(device, series.view()).unwrap();
        // What a lot leaves in the memory that they share is not the next one's.
        for _ in 0..2 {
            prepared.run().unwrap();
        }
        let found = prepared.results().unwrap();
        let mut at_once = options.prepare_matrix(device, series.view()).unwrap();
        at_once.run().unwrap();
        if prepared.launches() > 0 {
            assert!(prepared.launches() > at_once.launches());
        }
        for (found, expected) in found.iter().zip(at_once.results().unwrap()) {
            near(found.te_nats, expected.te_nats);
            let surrogates = found.surrogates.iter().zip(&expected.surrogates);
            surrogates.for_each(|(&a, &b)| near(a, b));
            assert_eq!((&found.local, found.ties), (&expected.local, expected.ties));
        }
    }
}

/// What is refused, and what it says.
pub fn check_refusals(device: &Device) {
    let x = Array1::from_iter((0..50).map(|i| f64::from(i * i % 17)));
    let refused = |options: &TransferEntropy, x: &Array1<f64>| {
        options.estimate(device, x.view(), x.view()).unwrap_err().to_string()
    };
    let options = TransferEntropy::new();
    let says = |options: TransferEntropy, words: &str| {
        let message = refused(&options, &x);
        assert!(message.contains(words), "{message}");
    };
    says(options.clone().k(49), "`k` is 49, expected at most 32");
    says(options.clone().k(0), "`k` is 0, expected 1 to 32");
    says(options.clone().theiler(usize::MAX), "some point has no other outside its window");
    says(options.clone().k(30).theiler(12), "outside its Theiler window");
    says(options.clone().target_history(0), "`target_history`: expected at least 1");
    says(options.clone().delay(0), "`delay`: expected at least 1");
    says(options.clone().delay(50), "reach back 50 samples, expected at most 49");
    says(options.clone().target_history(20).source_history(12), "33 dimensions");
    says(options.clone().noise(0.0), "`noise` is 0");
    says(options.clone().surrogates(1).surrogate_kind(SurrogateKind::Block(0)), "blocks of 0 rows");
    says(options.clone().condition(1, 1), "got 0 condition series, expected 1");
    let constant = Array1::from_elem(50, 2.5);
    assert!(refused(&options, &constant).contains("expected values that vary, got 50 equal ones"));
    let mut gap = x.clone();
    gap[7] = f64::NAN;
    assert!(refused(&options, &gap).contains("not at sample 7"));
    gap[7] = 1e300;
    assert!(refused(&options, &gap).contains("too large or too small for differences in f32"));
    // Each fits, but not their difference.
    let of = |scale: f64, offset: f64| x.mapv(|value| offset + scale * (value - 8.0));
    for (options, scale) in [
        (options.clone(), 0.4e38),
        (options.clone().precision(Precision::F64), 0.2e308),
        (options.clone(), 1e-60),
    ] {
        assert!(refused(&options, &of(scale, 0.0)).contains("too large or too small"), "{scale}");
    }
    assert!(refused(&options, &of(1e-3, 1e6)).contains("a thousand steps of f32"));
    assert!(refused(&options.clone().noise(1e-9), &of(1.0, 0.0)).contains("lost in f32"));
    // Standardised, the scale does not matter, be its squares beyond f64.
    let plain = options.clone().standardize(true).precision(Precision::F64);
    let scaled = |exponent: i32| {
        let series = of(2_f64.powi(exponent), 0.0);
        plain.estimate(device, x.view(), series.view()).unwrap().te_nats
    };
    assert_eq!([scaled(-530), scaled(600)], [scaled(0); 2]);
    // Noise parts what is tied.
    let tied = options.clone().precision(Precision::F64);
    let count = |options: &TransferEntropy| {
        options.estimate(device, x.view(), of(-1.0, 3.0).view()).unwrap().ties
    };
    assert!(count(&tied) > 0);
    assert_eq!(count(&tied.clone().noise(1e-8)), 0);
    // Also where a step of f64 at the size of the series is more than the noise.
    let far = of(-1.0, 1e9);
    let far = |options: &TransferEntropy| {
        options.estimate(device, far.view(), of(1.0, -3e9).view()).unwrap().ties
    };
    assert!(far(&tied) > 0);
    assert_eq!(far(&tied.clone().noise(1e-8)), 0);
    assert!(refused(&tied.noise(1e-17), &x).contains("lost in f64"));
    let many = options.clone().surrogates(u32::MAX);
    assert!(refused(&many, &x).contains("estimates and surrogates, expected at most"));
    says(options.clone().delay(usize::MAX), "expected at most 49; shorten them");
    let blocks = options.clone().surrogates(1).surrogate_kind(SurrogateKind::Block(30));
    says(blocks.clone(), "blocks of 30 rows of 49");
    // A length counts where there are surrogates.
    let x_of = x.mapv(|value| value * value);
    assert!(blocks.surrogates(0).estimate(device, x.view(), x_of.view()).is_ok());
    let rotated = options.clone().surrogates(49).surrogate_kind(SurrogateKind::Rotate);
    says(rotated, "49 rotated surrogates of 49 points, expected at most 48");
    let one = x.slice(ndarray::s![..1]);
    let message = options.estimate(device, one, one).unwrap_err().to_string();
    assert!(message.contains("at least 2 samples"), "{message}");
    let short = x.slice(ndarray::s![..40]);
    let message = options.estimate(device, x.view(), short).unwrap_err().to_string();
    assert!(message.contains("expected 50 samples"), "{message}");
}

/// The values of `te_case.json`, of its first `most` rows: within 1e-5 nats in f32, 1e-12 in f64.
pub fn check_case(device: &Device, most: usize) {
    let csv = include_str!("../../../reference/tests/cases/te_case.csv");
    let json = include_str!("../../../reference/tests/cases/te_case.json");
    let rows = csv.lines().skip(1).map(|line| {
        let mut cells = line.split(',').skip(1).map(|cell| cell.parse::<f64>().unwrap());
        (cells.next().unwrap(), cells.next().unwrap())
    });
    let (x, y): (Vec<f64>, Vec<f64>) = rows.unzip();
    let (x, y) = (Array1::from(x), Array1::from(y));
    let case: serde_json::Value = serde_json::from_str(json).unwrap();
    let rows = ["main", "extra"].into_iter().flat_map(|part| case[part].as_array().unwrap());
    for row in rows.take(most) {
        let number = |field: &str| row[field].as_u64().unwrap() as usize;
        let (source, target) = if row["source"] == "x" { (&x, &y) } else { (&y, &x) };
        let options = TransferEntropy::new()
            .k(number("knn"))
            .target_history(number("target_history"))
            .source_history(number("source_history"))
            .delay(number("delay"));
        for (precision, tolerance) in [(Precision::F32, 1e-5), (Precision::F64, 1e-12)] {
            for method in [Method::Brute, Method::Pruned] {
                for (field, options) in [
                    ("te_alg1_strict_nats", options.clone()),
                    ("te_alg2_wibral_nats", options.clone().algorithm(Algorithm::Two)),
                    ("te_alg1_theiler10_nats", options.clone().theiler(10)),
                ] {
                    let options = options.precision(precision).method(method);
                    let got = options.estimate(device, target.view(), source.view()).unwrap();
                    let expected = row[field].as_f64().unwrap();
                    assert!(
                        (got.te_nats - expected).abs() <= tolerance,
                        "{options:?}, {field}: expected {expected}, got {}",
                        got.te_nats
                    );
                    assert_eq!(got.points, number("points"));
                }
            }
        }
    }
}

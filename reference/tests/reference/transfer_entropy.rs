//! Transfer entropy: values of other programs, analytic values, identities, ties, surrogates.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use kasmina_reference::information::transfer_entropy::*;
use ndarray::{Array1, ArrayView1};
use serde::Deserialize;

/// x and y of the case, exact in f32.
fn case_series() -> (Array1<f64>, Array1<f64>) {
    let lines = include_str!("../cases/te_case.csv").lines().skip(1);
    let rows = lines.map(|line| {
        let mut cells = line.split(',').skip(1).map(|cell| cell.parse::<f64>().unwrap());
        (cells.next().unwrap(), cells.next().unwrap())
    });
    let (x, y): (Vec<f64>, Vec<f64>) = rows.unzip();
    (x.into(), y.into())
}

#[derive(Deserialize)]
struct Case {
    main: Vec<Row>,
    extra: Vec<Row>,
    lag_scan_xy_k1_l1: Vec<LagRow>,
    circular_shift_surrogates: std::collections::BTreeMap<String, Shifts>,
}

#[derive(Deserialize)]
struct Row {
    source: String,
    target_history: usize,
    source_history: usize,
    delay: usize,
    knn: usize,
    points: usize,
    te_alg1_strict_nats: f64,
    te_alg2_wibral_nats: f64,
    te_alg1_theiler10_nats: f64,
    ties_at_kth_distance: usize,
    sums: Sums,
    first5: Vec<First>,
}

#[derive(Deserialize)]
struct Sums {
    n_target_full: u64,
    n_source_cond: u64,
    n_cond: u64,
    eps_sum: f64,
}

#[derive(Deserialize)]
struct First {
    eps: f64,
    n_yz: u32,
    n_xz: u32,
    n_z: u32,
    local: f64,
}

#[derive(Deserialize)]
struct LagRow {
    delay: usize,
    te_alg1_nats: f64,
}

#[derive(Deserialize)]
struct Shifts {
    shifts: Vec<usize>,
    te: Vec<f64>,
    mean: f64,
    std_ddof1: f64,
    p_plus_one: f64,
    effective_te: f64,
}

fn case() -> Case {
    serde_json::from_str(include_str!("../cases/te_case.json")).unwrap()
}

const ONE: Search = Search { k: 4, algorithm: Algorithm::One, theiler: 0 };

#[track_caller]
fn close(got: f64, expected: f64, tolerance: f64) {
    assert!((got - expected).abs() <= tolerance, "expected {expected}, got {got}");
}

#[test]
fn every_value_of_the_case() {
    let (x, y) = case_series();
    let case = case();
    for row in case.main.iter().chain(&case.extra) {
        let (source, target) = if row.source == "x" { (&x, &y) } else { (&y, &x) };
        let spec = Embedding::new(row.target_history, row.source_history, row.delay);
        let points = embed(target.view(), source.view(), &[], &spec).unwrap();
        assert_eq!(points.len(), row.points);
        let search = Search { k: row.knn, ..ONE };
        let one = estimate(&points, None, &search).unwrap();
        close(one.te_nats, row.te_alg1_strict_nats, 1e-12);
        assert_eq!(one.ties, row.ties_at_kth_distance);
        let total = |i: usize| one.counts.iter().map(|counts| u64::from(counts[i])).sum::<u64>();
        assert_eq!(total(0), row.sums.n_cond);
        assert_eq!(total(1), row.sums.n_target_full);
        assert_eq!(total(2), row.sums.n_source_cond);
        let near = nearest(&points, None, &search).unwrap();
        close(near.epsilon.iter().sum(), row.sums.eps_sum, 1e-9);
        for (i, first) in row.first5.iter().enumerate() {
            assert_eq!(one.counts[i], [first.n_z, first.n_yz, first.n_xz]);
            close(near.epsilon[i], first.eps, 1e-15);
            close(one.local[i], first.local, 1e-12);
        }
        let two = estimate(&points, None, &Search { algorithm: Algorithm::Two, ..search }).unwrap();
        close(two.te_nats, row.te_alg2_wibral_nats, 1e-12);
        let theiler = estimate(&points, None, &Search { theiler: 10, ..search }).unwrap();
        close(theiler.te_nats, row.te_alg1_theiler10_nats, 1e-12);

        // The values are exact in f32, and so are the orders of their rounded differences: the case says so.
        let narrow = |series: &Array1<f64>| series.mapv(|value| value as f32);
        let points = embed(narrow(target).view(), narrow(source).view(), &[], &spec).unwrap();
        let single = estimate(&points, None, &search).unwrap();
        close(single.te_nats, row.te_alg1_strict_nats, 1e-12);
    }
    for row in &case.lag_scan_xy_k1_l1 {
        let points = embed(y.view(), x.view(), &[], &Embedding::new(1, 1, row.delay)).unwrap();
        close(estimate(&points, None, &ONE).unwrap().te_nats, row.te_alg1_nats, 1e-12);
    }
}

#[test]
fn rotated_sources_give_the_values_of_the_case() {
    let (x, y) = case_series();
    for (name, shifts) in case().circular_shift_surrogates {
        let history = if name.contains('1') { 1 } else { 3 };
        let (source, target) = if name.ends_with("reverse") { (&y, &x) } else { (&x, &y) };
        let spec = Embedding::new(history, history, 1);
        let points = embed(target.view(), source.view(), &[], &spec).unwrap();
        let mut found = Vec::new();
        for (&shift, &expected) in shifts.shifts.iter().zip(&shifts.te) {
            // The case rotates the series: the row of time t has what the source was `shift` samples before.
            let samples = source.len();
            let rotated: Array1<f64> =
                (0..samples).map(|t| source[(t + samples - shift) % samples]).collect();
            let points = embed(target.view(), rotated.view(), &[], &spec).unwrap();
            let te = estimate(&points, None, &ONE).unwrap().te_nats;
            close(te, expected, 1e-12);
            found.push(te);
        }
        let te = estimate(&points, None, &ONE).unwrap().te_nats;
        let significance = significance(te, &found).unwrap();
        close(significance.mean, shifts.mean, 1e-12);
        close(significance.std, shifts.std_ddof1, 1e-12);
        close(significance.p_value, shifts.p_plus_one, 1e-12);
        close(significance.effective_te_nats, shifts.effective_te, 1e-12);
    }
}

#[derive(Deserialize)]
struct Gaussian {
    sets: Vec<Set>,
}

#[derive(Deserialize)]
struct Set {
    name: String,
    #[serde(rename = "A")]
    a: Vec<Vec<Vec<f64>>>,
    noise_cov: Vec<Vec<f64>>,
    variables: Vec<String>,
    te: Vec<Analytic>,
}

#[derive(Deserialize)]
struct Analytic {
    source: String,
    target: String,
    target_history: usize,
    source_history: usize,
    delay: usize,
    conditions: Vec<AnalyticCondition>,
    te_nats: f64,
}

#[derive(Deserialize)]
struct AnalyticCondition {
    var: String,
    history: usize,
    delay: usize,
}

/// A realisation of a set's process, one array for each variable.
fn realise(set: &Set, samples: usize, seed: u64) -> Vec<Array1<f64>> {
    let n = set.variables.len();
    // The noise's Cholesky factor.
    let mut factor = vec![vec![0.0; n]; n];
    for i in 0..n {
        for j in 0..=i {
            let rest: f64 = (0..j).map(|m| factor[i][m] * factor[j][m]).sum();
            let left = set.noise_cov[i][j] - rest;
            factor[i][j] = if i == j { left.sqrt() } else { left / factor[j][j] };
        }
    }
    let unit = |counter: [u32; 4]| {
        let words = philox4x32(counter, [seed as u32, 77]);
        let uniform = |word: u32| (f64::from(word) + 0.5) / 4_294_967_296.0;
        (-2.0 * uniform(words[0]).ln()).sqrt() * (std::f64::consts::TAU * uniform(words[1])).cos()
    };
    let burn_in = 300;
    let mut values: Vec<Vec<f64>> = Vec::new();
    for t in 0..samples + burn_in {
        let draws: Vec<f64> = (0..n).map(|i| unit([t as u32, i as u32, 0, 0])).collect();
        let mut now: Vec<f64> =
            (0..n).map(|i| (0..=i).map(|j| factor[i][j] * draws[j]).sum()).collect();
        for (lag, a) in set.a.iter().enumerate().filter(|(lag, _)| *lag < t) {
            for i in 0..n {
                now[i] += (0..n).map(|j| a[i][j] * values[t - 1 - lag][j]).sum::<f64>();
            }
        }
        values.push(now);
    }
    (0..n).map(|i| values[burn_in..].iter().map(|now| now[i]).collect()).collect()
}

/// The estimate of a row of a set, from one realisation.
fn of_row(set: &Set, row: &Analytic, series: &[Array1<f64>]) -> f64 {
    let series = |name: &str| {
        let index = set.variables.iter().position(|variable| variable == name).unwrap();
        series[index].view()
    };
    let conditions: Vec<_> = row
        .conditions
        .iter()
        .map(|&AnalyticCondition { ref var, history, delay }| Condition {
            series: series(var),
            past: Past { history, step: 1, delay },
        })
        .collect();
    let spec = Embedding::new(row.target_history, row.source_history, row.delay);
    let points = embed(series(&row.target), series(&row.source), &conditions, &spec).unwrap();
    estimate(&points, None, &ONE).unwrap().te_nats
}

/// Means of many realisations beside the analytic values, by the Monte Carlo rows of the sets: an estimate from 2000
/// samples scatters by 0.0151 in three dimensions, about the value itself, and by 0.0127 at histories of 3, about a value
/// that is too low by 9 % of itself; twice that share is let pass. Scatter goes with 1/√samples, and the mean of `runs`
/// stays within three times its own.
///
/// So 0.01 nats are told from 0 in three dimensions, and 0.016 in more.
#[test]
fn analytic_values_of_gaussian_processes() {
    let sets: Gaussian = serde_json::from_str(include_str!("../cases/te_gaussian.json")).unwrap();
    for set in &sets.sets {
        let realised = |runs, samples| -> Vec<_> {
            (0..runs).map(|seed| realise(set, samples, seed)).collect()
        };
        let (many, long) = (realised(48, 1000), realised(4, 3000));
        // A history of 50 is the limit of long ones, beyond what an estimator of neighbours resolves.
        for row in set.te.iter().filter(|row| row.target_history <= 3) {
            let given: usize = row.conditions.iter().map(|condition| condition.history).sum();
            let few = row.target_history + row.source_history + given == 2;
            let (runs, samples, scatter, bias) =
                if few { (&many, 1000.0, 0.0151, 0.0) } else { (&long, 3000.0, 0.0127, 0.18) };
            let (count, of_run) = (runs.len() as f64, |series: &Vec<_>| of_row(set, row, series));
            let mean = runs.iter().map(of_run).sum::<f64>() / count;
            let tolerance = 3.0 * scatter * (2000.0 / samples / count).sqrt() + bias * row.te_nats;
            assert!(
                (mean - row.te_nats).abs() < tolerance,
                "{}: {} to {}, delay {}: expected {} ± {tolerance}, got {mean}",
                set.name,
                row.source,
                row.target,
                row.delay,
                row.te_nats
            );
        }
    }
}

/// Straight from the definition, for a series of few values where most distances are tied.
fn by_definition(x: &[f64], y: &[f64], k: usize, algorithm: Algorithm) -> f64 {
    let n = x.len() - 1;
    let z = |i: usize, j: usize| (y[i] - y[j]).abs();
    let next = |i: usize, j: usize| (y[i + 1] - y[j + 1]).abs();
    let source = |i: usize, j: usize| (x[i] - x[j]).abs();
    let psi = |m: usize| digamma(m as u32);
    let mut total = 0.0;
    for i in 0..n {
        let mut others: Vec<(f64, usize)> = (0..n)
            .filter(|&j| j != i)
            .map(|j| (z(i, j).max(next(i, j)).max(source(i, j)), j))
            .collect();
        others.sort_by(|a, b| a.partial_cmp(b).unwrap());
        let near = &others[..k];
        let count = |test: &dyn Fn(usize) -> bool| (0..n).filter(|&j| j != i && test(j)).count();
        total += match algorithm {
            Algorithm::One => {
                let eps = near[k - 1].0;
                psi(k) + psi(count(&|j| z(i, j) < eps) + 1)
                    - psi(count(&|j| z(i, j) < eps && next(i, j) < eps) + 1)
                    - psi(count(&|j| z(i, j) < eps && source(i, j) < eps) + 1)
            }
            Algorithm::Two => {
                let most = |d: &dyn Fn(usize, usize) -> f64| {
                    near.iter().map(|&(_, j)| d(i, j)).fold(0.0, f64::max)
                };
                let (ez, ey, ex) = (most(&z), most(&next), most(&source));
                let (nz, nyz, nxz) = (
                    count(&|j| z(i, j) <= ez),
                    count(&|j| z(i, j) <= ez && next(i, j) <= ey),
                    count(&|j| z(i, j) <= ez && source(i, j) <= ex),
                );
                psi(k) - 2.0 / k as f64 + psi(nz) - psi(nyz) + 1.0 / nyz as f64 - psi(nxz)
                    + 1.0 / nxz as f64
            }
        };
    }
    total / n as f64
}

#[test]
fn series_full_of_ties() {
    let pseudo = |i: u32, s: u32| f64::from(philox4x32([i, s, 0, 0], [5, 6])[0] % 7);
    let x: Vec<f64> = (0..240).map(|i| pseudo(i, 0)).collect();
    let y: Vec<f64> = (0..240)
        .map(|i| (pseudo(i, 1) + if i > 0 { x[i as usize - 1] } else { 0.0 }).min(8.0))
        .collect();
    let points =
        embed(ArrayView1::from(&y), ArrayView1::from(&x), &[], &Embedding::new(1, 1, 1)).unwrap();
    for algorithm in [Algorithm::One, Algorithm::Two] {
        for k in [1, 3, 4, 9] {
            let got = estimate(&points, None, &Search { k, algorithm, theiler: 0 }).unwrap();
            close(got.te_nats, by_definition(&x, &y, k, algorithm), 1e-12);
            assert!(got.ties > 100);
        }
    }
}

#[test]
fn digamma_is_that_of_the_harmonic_numbers() {
    let mut expected = -0.577_215_664_901_532_9;
    for n in 1..2000_u32 {
        assert!((digamma(n) - expected).abs() < 2e-14, "{n}");
        expected += 1.0 / f64::from(n);
    }
}

/// The generator's published vectors.
#[test]
fn philox_is_the_published_one() {
    assert_eq!(philox4x32([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
    assert_eq!(
        philox4x32([u32::MAX; 4], [u32::MAX; 2]),
        [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
    );
}

#[test]
fn surrogates_are_bijections_of_their_kind() {
    for n in [1, 2, 3, 5, 16, 17, 100, 1023] {
        for surrogate in 0..4 {
            for kind in [SurrogateKind::Permute, SurrogateKind::Rotate, SurrogateKind::Block(7)] {
                let rows = surrogate_rows(kind, n, 42, 3, surrogate);
                let mut sorted = rows.clone();
                sorted.sort_unstable();
                assert!(sorted.iter().enumerate().all(|(i, &row)| i as u32 == row), "{kind:?} {n}");
                let steps = rows.windows(2).filter(|pair| pair[1] != pair[0] + 1).count();
                match kind {
                    SurrogateKind::Rotate if n > 1 => assert!(rows[0] != 0 && steps <= 1),
                    SurrogateKind::Block(length) => {
                        assert!(steps < n.div_ceil(length as usize).max(1))
                    }
                    _ => {}
                }
            }
        }
    }
    let rows = |seed, stream, surrogate| {
        surrogate_rows(SurrogateKind::Permute, 1000, seed, stream, surrogate)
    };
    assert_ne!(rows(1, 0, 0), rows(1, 0, 1));
    assert_ne!(rows(1, 0, 0), rows(1, 1, 0));
    assert_ne!(rows(1, 0, 0), rows(1 << 32, 0, 0));
    // A random permutation of 1000 has 1 fixed point on average, and its rows no correlation with their places.
    let fixed: usize = (0..50)
        .map(|s| rows(9, 0, s).iter().enumerate().filter(|&(i, &row)| i as u32 == row).count())
        .sum();
    assert!((20..90).contains(&fixed), "{fixed}");
    let slope: f64 = rows(9, 0, 0)
        .iter()
        .enumerate()
        .map(|(i, &row)| (i as f64 - 499.5) * (f64::from(row) - 499.5))
        .sum();
    assert!(
        slope.abs() / (1000.0 * 1000.0 * 1000.0 / 12.0) < 0.16,
        "five standard deviations are 0.16"
    );
}

#[test]
fn blocks_are_a_third_of_the_points_at_most() {
    for (points, length) in [(0, 1), (3, 1), (4, 1), (5, 1), (6, 2), (9, 3), (20, 4), (2000, 44)] {
        assert_eq!(default_block_length(points), length, "{points}");
    }
}

#[test]
fn coupling_is_significant_and_its_absence_is_not() {
    let (x, y) = case_series();
    let spec = Embedding::new(1, 1, 1);
    for (source, target, coupled) in [(&x, &y, true), (&y, &x, false)] {
        let part = |series: &Array1<f64>| series.slice(ndarray::s![..600]).to_owned();
        let points = embed(part(target).view(), part(source).view(), &[], &spec).unwrap();
        let te = estimate(&points, None, &ONE).unwrap().te_nats;
        for kind in [
            SurrogateKind::Permute,
            SurrogateKind::Rotate,
            SurrogateKind::Block(default_block_length(600)),
        ] {
            let found = surrogates(&points, &ONE, kind, 39, 7, 0).unwrap();
            let significance = significance(te, &found).unwrap();
            assert_eq!(significance.p_value < 0.05, coupled, "{kind:?}: {significance:?}");
        }
    }
}

/// Of independent pairs, p-values are spread evenly: of 60, 6 ± 2.3 are at most 0.1, and their mean is 0.5 ± 0.04.
#[test]
fn p_values_of_independent_pairs_are_uniform() {
    let unit = |t: usize, pair: u32, which: u32| {
        f64::from(philox4x32([t as u32, pair, which, 0], [11, 12])[0]) / 4_294_967_296.0
    };
    let p_values: Vec<f64> = (0..60)
        .map(|pair| {
            let series =
                |which| -> Array1<f64> { (0..150).map(|t| unit(t, pair, which)).collect() };
            let (x, y) = (series(0), series(1));
            let points = embed(y.view(), x.view(), &[], &Embedding::new(1, 1, 1)).unwrap();
            let te = estimate(&points, None, &ONE).unwrap().te_nats;
            let found = surrogates(&points, &ONE, SurrogateKind::Permute, 19, 3, pair).unwrap();
            significance(te, &found).unwrap().p_value
        })
        .collect();
    let small = p_values.iter().filter(|&&p| p <= 0.1).count();
    let mean = p_values.iter().sum::<f64>() / 60.0;
    assert!((1..=14).contains(&small) && (0.38..0.65).contains(&mean), "{small} {mean}");
}

#[test]
fn what_is_refused() {
    let series = Array1::from_iter((0..20).map(f64::from));
    let broken = Array1::from_elem(20, f64::NAN);
    let spec = Embedding::new(1, 1, 1);
    let refuse = |target: &Array1<f64>, source: &Array1<f64>, spec: &Embedding| {
        embed(target.view(), source.view(), &[], spec).unwrap_err().to_string()
    };
    assert!(refuse(&series, &broken, &spec).contains("series `source`: expected finite values"));
    assert!(refuse(&series, &series, &Embedding::new(0, 1, 1)).contains("`target_history`"));
    assert!(refuse(&series, &series, &Embedding::new(1, 1, 0)).contains("`delay`"));
    let far = |delay| refuse(&series, &series, &Embedding::new(1, 2, delay));
    assert!(far(19).contains(
        "20 samples: histories, steps and delays reach back 20 samples, expected at most 19"
    ));
    assert!(far(usize::MAX).contains("expected at most 19"));
    let short = Array1::zeros(19);
    assert!(refuse(&series, &short, &spec).contains("expected 20 samples"));
    let points = embed(series.view(), series.view(), &[], &spec).unwrap();
    for (k, theiler, words) in [
        (0, 0, "`k` is 0, expected 1 to 18"),
        (19, 0, "`k` is 19, expected 1 to 18, as many"),
        (5, 7, "`k` is 5, expected 1 to 4, as many"),
        (1, 9, "19 points and a Theiler window of 9 samples"),
        (1, usize::MAX, "some point has no other outside its window"),
    ] {
        let search = Search { k, algorithm: Algorithm::One, theiler };
        let message = estimate(&points, None, &search).unwrap_err().to_string();
        assert!(message.contains(words), "{message}");
    }
    assert!(estimate(&points, None, &Search { k: 18, ..ONE }).is_ok());
    let rows = vec![19; 19];
    assert!(matches!(
        estimate(&points, Some(&rows), &ONE),
        Err(TransferEntropyError::Rows { got: 19, .. })
    ));
}

#[test]
fn noise_and_standardisation() {
    let series: Vec<f64> = (0..1000).map(|i| f64::from(i % 10) * 3.0 + 100.0).collect();
    let standard = standardize(&series);
    close(standard.iter().sum::<f64>(), 0.0, 1e-9);
    close(standard.iter().map(|v| v * v).sum::<f64>(), 1000.0, 1e-9);
    let noisy = add_noise(&standard, 1e-3, 4, 0);
    let differences: Vec<f64> = noisy.iter().zip(&standard).map(|(a, b)| a - b).collect();
    let std = (differences.iter().map(|v| v * v).sum::<f64>() / 1000.0).sqrt();
    assert!((0.9e-3..1.1e-3).contains(&std), "{std}");
    assert_ne!(noisy, add_noise(&standard, 1e-3, 4, 1));
    // An offset of whole numbers changes nothing, be its step more than the noise.
    let whole: Vec<f64> = (0..1000).map(|i| f64::from(i % 7)).collect();
    let far: Vec<f64> = whole.iter().map(|v| v + 1e9).collect();
    for (a, b) in add_noise(&whole, 1e-8, 4, 0).iter().zip(add_noise(&far, 1e-8, 4, 0)) {
        // The means differ by a step of the sum of a thousand, for each pair alike.
        close(*a, b, 1e-6);
    }
    let mut parted = add_noise(&far, 1e-8, 4, 0);
    parted.sort_by(f64::total_cmp);
    assert!(parted.windows(2).all(|pair| pair[0] < pair[1]));
    // Powers of two scale exactly, also where squares are beyond f64.
    for exponent in [-600, 600] {
        let scaled: Vec<f64> = series.iter().map(|v| v * 2_f64.powi(exponent)).collect();
        assert_eq!(standardize(&scaled), standard);
    }
}

//! An estimate, or a batch of them, that is ready to run.

use kasmina_reference::information::transfer_entropy::{self as reference, significance};
use kasmina_types::transfer_entropy::{TE_MAX_DIMS, TE_MAX_K};
use ndarray::ArrayView1;

use super::input::{self, Named};
use super::plan::{Common, Found, Lags, Plan, Problem};
use super::{
    Mixing, Past, Precision, SurrogateKind, TransferEntropy, TransferEntropyError,
    TransferEntropyResult, default_block_length,
};
use crate::device::Device;
use crate::driver::launchers::KernelDevice;
use crate::error::Error;

/// Values of all series together: the kernels' offsets are 32-bit.
const MOST_VALUES: usize = u32::MAX as usize / 2;

/// Estimates and surrogates together: each takes some hundred bytes before anything is launched.
const MOST_ESTIMATES: usize = 1 << 24;

/// Which pairs of series a batch has.
#[derive(Debug, Clone, Copy)]
pub enum Pairs<'a> {
    /// Target and source, the first two, at each of these delays; the others are conditions.
    Delays(&'a [usize]),
    /// Every ordered pair.
    All,
}

/// An estimate, or a batch of them, whose series are on the device: it runs without copies or allocations.
pub struct PreparedTransferEntropy {
    options: TransferEntropy,
    device: Device,
    kind: SurrogateKind,
    /// The pairs themselves, each followed by its surrogates.
    problems: Vec<Problem>,
    work: Work,
    has_run: bool,
}

enum Work {
    /// The plan of a device that runs kernels.
    Kernels(Box<Plan>),
    /// The reference's points, and what it found.
    Reference(ReferenceSeries, Option<Found>),
}

enum ReferenceSeries {
    F32(Vec<Vec<f32>>),
    F64(Vec<Vec<f64>>),
}

impl PreparedTransferEntropy {
    pub(super) fn new(
        options: &TransferEntropy,
        device: &Device,
        series: Vec<Named>,
        pairs: Pairs<'_>,
    ) -> Result<Self, Error> {
        device.refuse_capture("transfer entropy")?;
        let pair_list = check(options, &series, pairs)?;
        let series = input::prepare(options, series)?;
        let samples = series[0].values.len();
        let estimates = pair_list.len().saturating_mul(1 + options.surrogates as usize);
        for (what, most, got) in [
            ("values of all series", MOST_VALUES, series.len().saturating_mul(samples)),
            ("estimates and surrogates", MOST_ESTIMATES, estimates),
        ] {
            if got > most {
                return Err(TransferEntropyError::TooMany { what, most, got }.into());
            }
        }
        let pairs = pair_list.iter().map(|&pair| pair_of(options, samples, pair));
        let pairs = pairs.collect::<Result<Vec<_>, _>>()?;
        let fewest = pairs.iter().map(|pair| pair.points).min().unwrap_or(0);
        let kind = surrogate_kind(options, fewest)?;
        let surrogates = |(stream, &pair): (usize, &Problem)| {
            let of_pair = move |surrogate| Some((surrogate, stream as u32));
            let numbers = std::iter::once(None).chain((0..options.surrogates).map(of_pair));
            numbers.map(move |surrogate| Problem { surrogate, ..pair })
        };
        let problems: Vec<Problem> = pairs.iter().enumerate().flat_map(surrogates).collect();
        let narrow = match options.precision {
            Precision::F32 => Some(input::narrow(&series)),
            Precision::F64 => None,
        };
        let wide = || series.iter().map(|named| named.values.clone()).collect::<Vec<_>>();
        let work = match KernelDevice::of(device) {
            Some(kernels) => {
                let common = common(options, kind, &series);
                Work::Kernels(match &narrow {
                    Some(series) => {
                        Box::new(Plan::new(device, kernels, series, &problems, common)?)
                    }
                    None => Box::new(Plan::new(device, kernels, &wide(), &problems, common)?),
                })
            }
            None => {
                let series = match narrow {
                    Some(series) => ReferenceSeries::F32(series),
                    None => ReferenceSeries::F64(wide()),
                };
                Work::Reference(series, None)
            }
        };
        Ok(Self {
            options: options.clone(),
            device: device.clone(),
            kind,
            problems,
            work,
            has_run: false,
        })
    }

    /// Queues the work; on the CPU, does it.
    ///
    /// # Errors
    /// A failed call of the device.
    pub fn run(&mut self) -> Result<(), Error> {
        self.has_run = false;
        match &mut self.work {
            Work::Kernels(plan) => plan.run()?,
            Work::Reference(series, found) => {
                let (options, kind, problems) = (&self.options, self.kind, &self.problems);
                *found = Some(match series {
                    ReferenceSeries::F32(series) => on_cpu(options, kind, series, problems),
                    ReferenceSeries::F64(series) => on_cpu(options, kind, series, problems),
                }?);
            }
        }
        self.has_run = true;
        Ok(())
    }

    /// Launches of a run; none on the CPU.
    pub fn launches(&self) -> usize {
        match &self.work {
            Work::Kernels(plan) => plan.launches(),
            Work::Reference(..) => 0,
        }
    }

    /// Pairs of points of a run, over all estimates and surrogates.
    pub fn pairs_of_points(&self) -> u64 {
        self.problems.iter().map(|problem| (problem.points as u64).pow(2)).sum()
    }

    /// Waits for the last run and reads what it found, pair by pair.
    ///
    /// # Errors
    /// [`TransferEntropyError::NotRun`] before [`Self::run`] has succeeded, or a failed call of the device.
    pub fn results(&self) -> Result<Vec<TransferEntropyResult>, Error> {
        if !self.has_run {
            return Err(TransferEntropyError::NotRun.into());
        }
        let read;
        let found = match &self.work {
            Work::Kernels(plan) => {
                read = plan.read()?;
                &read
            }
            Work::Reference(_, found) => found.as_ref().ok_or(TransferEntropyError::NotRun)?,
        };
        let of_pair = 1 + self.options.surrogates as usize;
        let pairs = self.problems.chunks(of_pair).enumerate();
        Ok(pairs
            .map(|(i, problems)| {
                let te = &found.te[i * of_pair..(i + 1) * of_pair];
                let local = self.options.local.then(|| found.local[i].clone());
                TransferEntropyResult {
                    te_nats: te[0],
                    points: problems[0].points,
                    k: self.options.k,
                    significance: significance(te[0], &te[1..]),
                    surrogates: te[1..].to_vec(),
                    ties: found.ties[i * of_pair] as usize,
                    local,
                    first: problems[0].first,
                    device: self.device.name(),
                }
            })
            .collect())
    }
}

/// The pairs and their delays, once the options fit them.
fn check(
    options: &TransferEntropy,
    series: &[Named],
    pairs: Pairs<'_>,
) -> Result<Vec<(usize, usize, usize)>, TransferEntropyError> {
    let zero =
        |option| TransferEntropyError::Unfit(reference::TransferEntropyError::Zero { option });
    for (option, value) in [
        ("target_history", options.target.history),
        ("target_step", options.target.step),
        ("source_history", options.source.history),
        ("source_step", options.source.step),
        ("delay", options.source.delay),
    ] {
        if value == 0 {
            return Err(zero(option));
        }
    }
    if options.conditions.iter().any(|past| past.history == 0 || past.delay == 0) {
        return Err(zero("condition"));
    }
    let histories = options.conditions.iter().map(|past| past.history);
    let histories = histories.fold(0, usize::saturating_add);
    let got = options
        .target
        .history
        .saturating_add(options.source.history)
        .saturating_add(histories)
        .saturating_add(1);
    if got > TE_MAX_DIMS {
        return Err(TransferEntropyError::Dimensions { got });
    }
    if options.k > TE_MAX_K as usize {
        return Err(TransferEntropyError::TooManyNeighbours { got: options.k });
    }
    let expected = options.conditions.len();
    match pairs {
        Pairs::Delays(delays) => {
            let got = series.len() - 2;
            if got != expected {
                return Err(TransferEntropyError::Conditions { expected, got });
            }
            if delays.is_empty() {
                return Err(TransferEntropyError::TooFew { what: "delay", expected: 1, got: 0 });
            }
            if delays.contains(&0) {
                return Err(zero("delay"));
            }
            Ok(delays.iter().map(|&delay| (0, 1, delay)).collect())
        }
        Pairs::All => {
            let got = series.len();
            if got < 2 {
                return Err(TransferEntropyError::TooFew { what: "series", expected: 2, got });
            }
            if expected > 0 {
                return Err(TransferEntropyError::Conditions { expected, got: 0 });
            }
            let delay = options.source.delay;
            let of =
                |target| (0..got).filter(move |&s| s != target).map(move |s| (target, s, delay));
            Ok((0..got).flat_map(of).collect())
        }
    }
}

/// A pair at a delay, if the series have the points for it.
fn pair_of(
    options: &TransferEntropy,
    samples: usize,
    (target, source, delay): (usize, usize, usize),
) -> Result<Problem, TransferEntropyError> {
    let first = first_sample(options, delay);
    if samples <= first {
        return Err(reference::TransferEntropyError::Reach { reach: first, samples }.into());
    }
    let points = samples - first;
    search(options).check(points).map_err(|error| match error {
        reference::TransferEntropyError::Neighbours { most, got } => {
            reference::TransferEntropyError::Neighbours { most: most.min(TE_MAX_K as usize), got }
        }
        error => error,
    })?;
    Ok(Problem { target, source, delay, first, points, surrogate: None })
}

/// How surrogates of that many points at the fewest are made; without surrogates, anything will do.
fn surrogate_kind(
    options: &TransferEntropy,
    points: usize,
) -> Result<SurrogateKind, TransferEntropyError> {
    let kind = match options.mixing {
        Mixing::Kind(kind) => kind,
        Mixing::Blocks => SurrogateKind::Block(default_block_length(points)),
    };
    let surrogates = options.surrogates;
    match kind {
        _ if surrogates == 0 => Ok(kind),
        SurrogateKind::Block(got) if !(1..=(points / 3).max(1)).contains(&(got as usize)) => {
            Err(TransferEntropyError::Blocks { got, points })
        }
        SurrogateKind::Rotate if surrogates as usize >= points => {
            let (most, got) = (points - 1, surrogates);
            Err(TransferEntropyError::Rotations { got, most, points })
        }
        _ => Ok(kind),
    }
}

fn to_reference(past: Past) -> reference::Past {
    let Past { history, step, delay } = past;
    reference::Past { history, step, delay }
}

fn search(options: &TransferEntropy) -> reference::Search {
    let (k, algorithm, theiler) = (options.k, options.algorithm, options.theiler);
    reference::Search { k, algorithm, theiler }
}

/// The t of the first point: the largest reach of a past.
fn first_sample(options: &TransferEntropy, delay: usize) -> usize {
    let reach = |past: Past| to_reference(past).reach();
    let conditions = options.conditions.iter().map(|&past| reach(past));
    let source = Past { delay, ..options.source };
    conditions.fold(reach(options.target).max(reach(source)), usize::max)
}

fn common(options: &TransferEntropy, kind: SurrogateKind, series: &[Named]) -> Common {
    let lags = |past: Past, from: usize| {
        (0..past.history).map(|i| from + i * past.step).collect::<Vec<_>>()
    };
    // The conditions come after target and source.
    let conditions = options.conditions.iter().enumerate();
    debug_assert!(options.conditions.len() + 2 <= series.len());
    Common {
        k: options.k,
        algorithm: options.algorithm,
        theiler: options.theiler,
        method: options.method,
        target: lags(options.target, 1),
        source: lags(options.source, 0),
        conditions: conditions
            .map(|(i, &past)| Lags { series: 2 + i, lags: lags(past, past.delay) })
            .collect(),
        kind,
        seed: options.seed,
        local: options.local,
        scratch_bytes: options.scratch_bytes,
    }
}

/// All problems by the reference.
fn on_cpu<T: kasmina_reference::Real>(
    options: &TransferEntropy,
    kind: SurrogateKind,
    series: &[Vec<T>],
    problems: &[Problem],
) -> Result<Found, TransferEntropyError> {
    let conditions: Vec<_> = options
        .conditions
        .iter()
        .zip(series.iter().skip(2))
        .map(|(&past, series)| reference::Condition {
            series: ArrayView1::from(series),
            past: to_reference(past),
        })
        .collect();
    let search = search(options);
    let (mut te, mut ties, mut local) = (Vec::new(), Vec::new(), Vec::new());
    for pair in problems.chunks(1 + options.surrogates as usize) {
        let Problem { target, source, delay, .. } = pair[0];
        let embedding = reference::Embedding {
            target: to_reference(options.target),
            source: to_reference(Past { delay, ..options.source }),
        };
        let [target, source] = [target, source].map(|i| ArrayView1::from(&series[i]));
        let points = reference::embed(target, source, &conditions, &embedding)?;
        let estimate = reference::estimate(&points, None, &search)?;
        te.push(estimate.te_nats);
        ties.push(estimate.ties as u32);
        if options.local {
            local.push(estimate.local);
        }
        if let Some((_, stream)) = pair.get(1).and_then(|problem| problem.surrogate) {
            let (count, seed) = (options.surrogates, options.seed);
            let of = reference::surrogates(&points, &search, kind, count, seed, stream)?;
            ties.resize(ties.len() + of.len(), 0);
            te.extend(of);
        }
    }
    Ok(Found { te, ties, local })
}

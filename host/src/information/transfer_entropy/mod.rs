//! Transfer entropy between time series, in nats, by the estimators of Kraskov, Stögbauer and Grassberger.
//!
//! ```
//! use kasmina::{Device, information::TransferEntropy};
//! use ndarray::Array1;
//!
//! # fn main() -> Result<(), kasmina::Error> {
//! let noise = |seed: u32| {
//!     Array1::from_iter((0..400_u32).map(|i| {
//!         let mixed = (i ^ seed).wrapping_mul(0x9E37_79B9) ^ i.wrapping_mul(0x85EB_CA6B).rotate_left(13);
//!         f64::from(mixed.wrapping_mul(0xC2B2_AE35)) / f64::from(u32::MAX)
//!     }))
//! };
//! let (x, own) = (noise(1), noise(2));
//! // A target that follows the source one sample later.
//! let y = Array1::from_iter((0..400).map(|t| own[t] + if t > 0 { 2.0 * x[t - 1] } else { 0.0 }));
//! let options = TransferEntropy::new().surrogates(19).seed(7);
//! let found = options.estimate(&Device::Cpu, y.view(), x.view())?;
//! assert!(found.te_nats > 0.2 && found.significance.unwrap().p_value <= 0.05);
//! # Ok(())
//! # }
//! ```

mod error;
mod input;
mod order;
mod plan;
mod prepared;
mod table;

pub use error::TransferEntropyError;
pub use kasmina_reference::information::transfer_entropy::{
    Algorithm, Significance, SurrogateKind, default_block_length,
};
use ndarray::{Array2, ArrayView1, ArrayView2};
pub use prepared::{Pairs, PreparedTransferEntropy};
pub use table::{SeriesTable, SeriesTableError, Transform};

use crate::device::Device;
use crate::error::Error;

/// What distances are taken in. ψ and sums are in f64 always.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Precision {
    /// f32: the series are rounded to it.
    #[default]
    F32,
    /// f64.
    F64,
}

/// How candidates are looked through. The result is the same, bit for bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Method {
    /// By the number of points.
    #[default]
    Auto,
    /// Every pair.
    Brute,
    /// Near points are brought together first, and far ones left out.
    Pruned,
}

/// A past: `history` values, `step` samples apart, the newest `delay` samples before y_t.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Past {
    history: usize,
    step: usize,
    delay: usize,
}

/// How surrogates are made.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Mixing {
    /// As said.
    Kind(SurrogateKind),
    /// In blocks of a length that follows from the points.
    Blocks,
}

/// The options of an estimate. Its methods run it.
///
/// The default: K = 4, histories and delay of 1, algorithm 1, no Theiler window, no surrogates, f32, the series as they
/// are.
#[derive(Debug, Clone, PartialEq)]
pub struct TransferEntropy {
    k: usize,
    target: Past,
    source: Past,
    conditions: Vec<Past>,
    algorithm: Algorithm,
    theiler: usize,
    surrogates: u32,
    mixing: Mixing,
    seed: u64,
    precision: Precision,
    method: Method,
    standardize: bool,
    noise: Option<f64>,
    local: bool,
    scratch_bytes: usize,
}

impl Default for TransferEntropy {
    fn default() -> Self {
        Self::new()
    }
}

/// An estimate.
#[derive(Debug, Clone, PartialEq)]
pub struct TransferEntropyResult {
    /// The transfer entropy, in nats. Noise may bring it below 0.
    pub te_nats: f64,
    /// Points of the joint space.
    pub points: usize,
    /// K.
    pub k: usize,
    /// What the surrogates say, if there are any.
    pub significance: Option<Significance>,
    /// The surrogates' estimates, in their order.
    pub surrogates: Vec<f64>,
    /// Points whose K-th neighbour is as far as another that is not among the K.
    pub ties: usize,
    /// Each point's part, whose mean the estimate is, if [`TransferEntropy::local`] asked for it. The first is that of
    /// sample [`Self::first`].
    pub local: Option<Vec<f64>>,
    /// The sample of the first point's y_t.
    pub first: usize,
    /// [`Device::name`] of where it ran.
    pub device: &'static str,
}

impl TransferEntropyResult {
    /// Whether so many distances are tied, in more than one point of twenty, that the estimate is off: it is made for
    /// continuous values. [`TransferEntropy::noise`] parts equal ones. A few ties there are among continuous values as
    /// well: neighbouring points share coordinates, hence distances.
    pub fn has_many_ties(&self) -> bool {
        self.ties * 20 > self.points
    }
}

/// The estimates of all ordered pairs of series.
#[derive(Debug, Clone, PartialEq)]
pub struct TransferEntropyMatrix {
    /// In nats, `[source, target]`; NaN on the diagonal.
    pub te_nats: Array2<f64>,
    /// The p-values, `[source, target]`, NaN on the diagonal, if there are surrogates.
    pub p_values: Option<Array2<f64>>,
    /// The estimates less the mean of their surrogates, if there are any.
    pub effective_te_nats: Option<Array2<f64>>,
    /// Points with a tie, `[source, target]`; 0 on the diagonal.
    pub ties: Array2<usize>,
    /// Points of the joint space.
    pub points: usize,
    /// K.
    pub k: usize,
    /// [`Device::name`] of where it ran.
    pub device: &'static str,
}

impl TransferEntropy {
    /// The default options.
    pub fn new() -> Self {
        let past = Past { history: 1, step: 1, delay: 1 };
        Self {
            k: 4,
            target: past,
            source: past,
            conditions: Vec::new(),
            algorithm: Algorithm::One,
            theiler: 0,
            surrogates: 0,
            mixing: Mixing::Kind(SurrogateKind::Permute),
            seed: 0,
            precision: Precision::F32,
            method: Method::Auto,
            standardize: false,
            noise: None,
            local: false,
            scratch_bytes: 512 << 20,
        }
    }

    /// Neighbours K, 1 to 32: few for little bias, many for little scatter.
    pub fn k(self, k: usize) -> Self {
        Self { k, ..self }
    }

    /// Values of the target's past.
    pub fn target_history(self, history: usize) -> Self {
        Self { target: Past { history, ..self.target }, ..self }
    }

    /// Values of the source's past.
    pub fn source_history(self, history: usize) -> Self {
        Self { source: Past { history, ..self.source }, ..self }
    }

    /// Samples between two values of the target's past.
    pub fn target_step(self, step: usize) -> Self {
        Self { target: Past { step, ..self.target }, ..self }
    }

    /// Samples between two values of the source's past.
    pub fn source_step(self, step: usize) -> Self {
        Self { source: Past { step, ..self.source }, ..self }
    }

    /// Samples from the newest value of the source's past to the target's next.
    pub fn delay(self, delay: usize) -> Self {
        Self { source: Past { delay, ..self.source }, ..self }
    }

    /// Conditions on the past of one series more: `history` values, one sample apart, the newest `delay` samples before
    /// the target's next.
    pub fn condition(mut self, history: usize, delay: usize) -> Self {
        self.conditions.push(Past { history, step: 1, delay });
        self
    }

    /// Which estimator.
    pub fn algorithm(self, algorithm: Algorithm) -> Self {
        Self { algorithm, ..self }
    }

    /// Points up to so many samples before or after a point are no neighbours of it.
    pub fn theiler(self, theiler: usize) -> Self {
        Self { theiler, ..self }
    }

    /// Surrogates to compare the estimate with; p-values are at least 1 / (surrogates + 1).
    pub fn surrogates(self, surrogates: u32) -> Self {
        Self { surrogates, ..self }
    }

    /// How surrogates are made: permuted rows, unless said otherwise.
    pub fn surrogate_kind(self, kind: SurrogateKind) -> Self {
        Self { mixing: Mixing::Kind(kind), ..self }
    }

    /// Surrogates of permuted blocks of √n rows ([`default_block_length`]), n the number of points: in a scan, of the
    /// delay with the fewest.
    pub fn surrogate_blocks(self) -> Self {
        Self { mixing: Mixing::Blocks, ..self }
    }

    /// Seed of surrogates and noise.
    pub fn seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// What distances are taken in.
    pub fn precision(self, precision: Precision) -> Self {
        Self { precision, ..self }
    }

    /// How candidates are looked through.
    pub fn method(self, method: Method) -> Self {
        Self { method, ..self }
    }

    /// Brings each series to mean 0 and standard deviation 1 first. Off unless asked for.
    pub fn standardize(self, standardize: bool) -> Self {
        Self { standardize, ..self }
    }

    /// Takes the mean of each series away, which no distance sees, and adds Gaussian noise of `amplitude` standard
    /// deviations, from the seed. Off unless asked for.
    pub fn noise(self, amplitude: f64) -> Self {
        Self { noise: Some(amplitude), ..self }
    }

    /// Keeps each point's part of an estimate.
    pub fn local(self, local: bool) -> Self {
        Self { local, ..self }
    }

    /// About how much device memory estimates and surrogates that run together may take beside their results, 512 MiB
    /// unless said otherwise. More of them run one lot after another, with the same results. One alone may take more.
    pub fn scratch_bytes(self, scratch_bytes: usize) -> Self {
        Self { scratch_bytes, ..self }
    }

    /// The transfer entropy from `source` to `target`.
    ///
    /// # Errors
    /// Series or options that do not fit ([`TransferEntropyError`]), or a failed call of the device.
    pub fn estimate(
        &self,
        device: &Device,
        target: ArrayView1<'_, f64>,
        source: ArrayView1<'_, f64>,
    ) -> Result<TransferEntropyResult, Error> {
        self.estimate_given(device, target, source, &[])
    }

    /// As [`Self::estimate`], given the pasts of `conditions`, one series for each [`Self::condition`].
    ///
    /// # Errors
    /// As [`Self::estimate`].
    pub fn estimate_given(
        &self,
        device: &Device,
        target: ArrayView1<'_, f64>,
        source: ArrayView1<'_, f64>,
        conditions: &[ArrayView1<'_, f64>],
    ) -> Result<TransferEntropyResult, Error> {
        let mut prepared = self.prepare(device, target, source, conditions)?;
        prepared.run()?;
        Ok(prepared.results()?.remove(0))
    }

    /// The transfer entropies for `delays`, in one batch; [`Self::delay`] does not count.
    ///
    /// # Errors
    /// As [`Self::estimate`], and no delays.
    pub fn scan(
        &self,
        device: &Device,
        target: ArrayView1<'_, f64>,
        source: ArrayView1<'_, f64>,
        conditions: &[ArrayView1<'_, f64>],
        delays: &[usize],
    ) -> Result<Vec<TransferEntropyResult>, Error> {
        let pairs = Pairs::Delays(delays);
        let series = input::series_of_pair(target, source, conditions);
        let mut prepared = PreparedTransferEntropy::new(self, device, series, pairs)?;
        prepared.run()?;
        prepared.results()
    }

    /// The transfer entropies of all ordered pairs of the rows of `series`, `[series, samples]`, in one batch.
    ///
    /// # Errors
    /// As [`Self::estimate`], fewer than two series, or conditions.
    pub fn matrix(
        &self,
        device: &Device,
        series: ArrayView2<'_, f64>,
    ) -> Result<TransferEntropyMatrix, Error> {
        let mut prepared = self.prepare_matrix(device, series)?;
        prepared.run()?;
        let count = series.nrows();
        let results = prepared.results()?;
        let pairs = || (0..count).flat_map(|target| (0..count).map(move |source| (source, target)));
        let of = |value: &dyn Fn(&TransferEntropyResult) -> f64| {
            let mut matrix = Array2::from_elem((count, count), f64::NAN);
            let others = pairs().filter(|(source, target)| source != target);
            for (at, result) in others.zip(&results) {
                matrix[at] = value(result);
            }
            matrix
        };
        let significant = |value: &dyn Fn(&Significance) -> f64| {
            let some = self.surrogates > 0;
            some.then(|| of(&|result| result.significance.as_ref().map_or(f64::NAN, value)))
        };
        Ok(TransferEntropyMatrix {
            te_nats: of(&|result| result.te_nats),
            p_values: significant(&|s| s.p_value),
            effective_te_nats: significant(&|s| s.effective_te_nats),
            ties: of(&|result| result.ties as f64).mapv(|ties| ties as usize),
            points: results[0].points,
            k: self.k,
            device: device.name(),
        })
    }

    /// Copies the series to the device and plans the estimate: what may run many times.
    ///
    /// # Errors
    /// As [`Self::estimate`].
    pub fn prepare(
        &self,
        device: &Device,
        target: ArrayView1<'_, f64>,
        source: ArrayView1<'_, f64>,
        conditions: &[ArrayView1<'_, f64>],
    ) -> Result<PreparedTransferEntropy, Error> {
        let series = input::series_of_pair(target, source, conditions);
        let delays = [self.source.delay];
        PreparedTransferEntropy::new(self, device, series, Pairs::Delays(&delays))
    }

    /// As [`Self::prepare`], for all ordered pairs of the rows of `series`. The results come target by target, then
    /// source by source.
    ///
    /// # Errors
    /// As [`Self::matrix`].
    pub fn prepare_matrix(
        &self,
        device: &Device,
        series: ArrayView2<'_, f64>,
    ) -> Result<PreparedTransferEntropy, Error> {
        PreparedTransferEntropy::new(self, device, input::series_of_rows(series), Pairs::All)
    }
}

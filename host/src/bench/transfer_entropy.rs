//! Transfer entropy as cases: one long pair, a pair with surrogates, a matrix of many series.
//!
//! All of it is arithmetic on series that fit any cache, so these are timed warm alone.

use ndarray::{Array2, ArrayView1};

use super::data;
use super::timer::{Cache, Lane, Mode};
use super::{BenchError, Prepared, within};
use crate::device::Device;
use crate::information::TransferEntropy;
use crate::information::transfer_entropy::{Method, PreparedTransferEntropy};
use kasmina_reference::numeric::{Dtype, Tolerance};

/// What is estimated; K = 4, f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Work {
    /// Samples of a series.
    pub(super) samples: usize,
    /// Values of the pasts of target and source.
    pub(super) history: usize,
    pub(super) of: Of,
}

/// Which estimates there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Of {
    /// One, from every pair of points.
    Brute,
    /// One, with far candidates left out.
    Pruned,
    /// One, with so many surrogates.
    Surrogates(u32),
    /// All ordered pairs of so many series.
    Matrix(usize),
}

impl Work {
    pub(super) fn variant(self) -> &'static str {
        match self.of {
            Of::Brute => "brute",
            Of::Pruned => "pruned",
            Of::Surrogates(_) => "surrogates",
            Of::Matrix(_) => "matrix",
        }
    }

    /// `[samples, dimensions]`, then surrogates or series.
    pub(super) fn shape(self) -> Vec<usize> {
        let mut shape = vec![self.samples, 2 * self.history + 1];
        match self.of {
            Of::Brute | Of::Pruned => {}
            Of::Surrogates(count) => shape.push(count as usize),
            Of::Matrix(series) => shape.push(series),
        }
        shape
    }

    fn series(self) -> usize {
        match self.of {
            Of::Matrix(series) => series,
            _ => 2,
        }
    }

    /// Of the series, in f32.
    pub(super) fn bytes(self) -> u64 {
        (self.series() * self.samples * 4) as u64
    }

    /// Cycles of one multiprocessor at the least: both passes look at all pairs of points. For 32 pairs in D dimensions
    /// the distances take 2·D instructions and the counts 2·D + 3, as the kernels' headers derive, and each of its four
    /// quarters issues one a cycle. None where the data say how many pairs are left out.
    pub(super) fn cycles(self) -> Option<f64> {
        let problems = match self.of {
            Of::Pruned => return None,
            Of::Brute => 1,
            Of::Surrogates(count) => 1 + count as usize,
            Of::Matrix(series) => series * (series - 1),
        };
        let points = (self.samples - self.history) as f64;
        let dimensions = (2 * self.history + 1) as f64;
        Some(problems as f64 * points * points * (4.0 * dimensions + 3.0) / (32.0 * 4.0))
    }

    /// What takes milliseconds needs no graph to be timed.
    pub(super) fn lanes(self, device: &Device) -> Vec<Lane> {
        let modes: &[Mode] = match (device, self.of) {
            (Device::Cuda(_), Of::Brute | Of::Pruned) => &[Mode::Event, Mode::Graph],
            (Device::Cuda(_), _) => &[Mode::Event],
            _ => &[Mode::Wall],
        };
        modes.iter().map(|&mode| Lane { mode, cache: Cache::Warm }).collect()
    }

    fn options(self) -> TransferEntropy {
        let options =
            TransferEntropy::new().target_history(self.history).source_history(self.history);
        match self.of {
            Of::Brute => options.method(Method::Brute),
            Of::Pruned => options.method(Method::Pruned),
            Of::Surrogates(count) => options.surrogates(count).seed(1),
            Of::Matrix(_) => options,
        }
    }
}

/// Series each of which follows the one before it, a sample later.
fn series(work: Work) -> Array2<f64> {
    let (count, samples) = (work.series(), work.samples);
    let noise: Vec<f32> = data::draw(1, count * samples);
    let mut series = Array2::zeros((count, samples));
    for t in 1..samples {
        for i in 0..count {
            let before = series[((i + count - 1) % count, t - 1)];
            let own = series[(i, t - 1)];
            let value: f64 = 0.5 * own + 0.4 * before + f64::from(noise[i * samples + t]);
            // What f32 holds, so that both devices have the same values.
            series[(i, t)] = f64::from(value as f32);
        }
    }
    series
}

/// Makes the series and checks one result: of a batch the first few, against the reference.
pub(super) fn prepare(device: &Device, work: Work) -> Result<Prepared, BenchError> {
    let series = series(work);
    let options = work.options();
    let row = |i: usize| -> ArrayView1<'_, f64> { series.row(i) };
    let mut prepared: PreparedTransferEntropy = match work.of {
        Of::Matrix(_) => options.prepare_matrix(device, series.view())?,
        _ => options.prepare(device, row(0), row(1), &[])?,
    };
    prepared.run()?;
    let results = prepared.results()?;
    let few = options.clone().surrogates(match work.of {
        Of::Surrogates(count) => count.min(3),
        _ => 0,
    });
    let (mut got, mut expected) = (Vec::new(), Vec::new());
    // Those to the first series, of which each other one is the source.
    let checked = (work.series() - 1).min(3);
    for (i, result) in results.iter().take(checked).enumerate() {
        let one = few.estimate(&Device::Cpu, row(0), row(i + 1))?;
        expected.push(one.te_nats);
        expected.extend(&one.surrogates);
        got.push(result.te_nats);
        got.extend(result.surrogates.iter().take(one.surrogates.len()));
    }
    let tolerance = Tolerance::for_dtype(Dtype::F64, work.samples);
    let max_rel_error = within("the transfer entropies", &got, &expected, tolerance)?;
    let call = move |_: usize| prepared.run();
    Ok(Prepared { call: Box::new(call), sets: 1, max_rel_error, tolerance: tolerance.limit() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cycles_are_those_of_both_passes() {
        let cycles = |history, of| Work { samples: 2000 + history, history, of }.cycles();
        // 31 instructions for 32 pairs of 4e6, four at a time.
        assert_eq!(cycles(3, Of::Brute), Some(968_750.0));
        assert_eq!(cycles(1, Of::Surrogates(2)), Some(3.0 * 468_750.0));
        assert_eq!(cycles(1, Of::Matrix(3)), Some(6.0 * 468_750.0));
        assert_eq!(cycles(3, Of::Pruned), None);
    }

    #[test]
    fn every_kind_is_right_on_the_cpu_and_under_the_executor() {
        for device in [Device::Cpu, Device::simt()] {
            for of in [Of::Brute, Of::Pruned, Of::Surrogates(2), Of::Matrix(3)] {
                let work = Work { samples: 120, history: 2, of };
                let prepared = prepare(&device, work).expect("a right result");
                assert!(prepared.max_rel_error <= prepared.tolerance, "{of:?}");
            }
        }
    }
}

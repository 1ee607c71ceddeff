//! Precision that follows the data: some results are recomputed in f64, and the calls after them are made with what the
//! tolerance allows.

use kasmina_types::DType;

use super::element::LinearElement;
use super::error::LinearError;
use super::precision::{Precision, TENSOR_WORK};
use super::shape::LinearShape;
use crate::buffer::Buffer;
use crate::device::Device;
use crate::driver::launchers::KernelDevice;
use crate::driver::launchers::linear_sample::{self as launcher, Sums};
use crate::error::Error;

/// How [`Precision::Auto`] of f32 adapts to the data, where [`super::LinearOptions::adaptive`] says so.
///
/// The first forward pass and every `every`-th after it is followed by a check: a launch that recomputes `samples` results of
/// op(A)·op(B), at places that change from check to check, in f64 and with operands rounded to tf32. The host reads it with
/// the next check, `every` calls later, so that nothing waits for it; what was read there holds from that call on.
/// The estimates, of the relative error in the norm, are
///
/// ```text
/// tf32: √(Σ(s₃₂ − s)² / Σs²) + f32's    f32: 2.5e-8·√(1 + κ·(⅙·Σq/Σs² + ⅓))
/// ```
///
/// with s a sampled result in f64, s₃₂ the same of operands rounded to tf32, q the sum of its terms' squares, and κ the terms
/// that one sum in f32 adds, min(k, 2048). Both grow where results are small beside their terms.
///
/// A precision whose estimate is above the tolerance is left for the next that is more exact: tf32, f32, f64. bf16, which the
/// rule takes for large products at tolerances from 4e-3 on, is not among them. One that is
/// faster is taken up where `margin` times its estimate is still within the tolerance. Between, nothing changes; nor where
/// a sample is not finite.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adaptive {
    /// Forward passes from one check to the next, 1 or more.
    pub every: u32,
    /// Results that a check recomputes, from 1 to 65536.
    pub samples: u32,
    /// By how much the estimate of a faster precision is below the tolerance where it is taken up, 1 or more.
    pub margin: f64,
}

impl Default for Adaptive {
    /// A check every 64 calls, of 256 results, and a margin of 2.
    fn default() -> Self {
        Self { every: 64, samples: 256, margin: 2.0 }
    }
}

/// What adaptive precision has found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Adapted {
    /// The precision that the data and the tolerance ask for. A product may be computed in another: small ones and those of
    /// `gemv` in f32 and not in tf32, as are those of a device without tensor cores, and results in f16 and bf16 never in f64.
    pub level: Precision,
    /// Checks that were read.
    pub checks: u64,
    /// The estimates of the last of them that had any: for tf32, and for f32.
    pub estimates: Option<[f64; 2]>,
}

/// Where it stands.
pub(super) struct State {
    options: Adaptive,
    tolerance: f64,
    adapted: Adapted,
    calls: u64,
    /// The terms of the results that are being recomputed.
    pending: Option<usize>,
    sums: Option<Sums>,
}

/// From the fastest to the most exact.
const LEVELS: [Precision; 3] = [Precision::Tf32, Precision::F32, Precision::F64];

/// The root of the mean square of a rounding to f32, relative to the value.
const ROUNDING: f64 = 2.5e-8;

/// Terms that one sum in f32 adds at most.
const MOST_TERMS: usize = 2048;

impl State {
    pub(super) fn new(
        options: Adaptive,
        precision: Precision,
        tolerance: f64,
    ) -> Result<Self, LinearError> {
        let Adaptive { every, samples, margin } = options;
        let refused = |setting, got: &dyn std::fmt::Display, expected| {
            Err(LinearError::Adaptive { setting, got: got.to_string(), expected })
        };
        if precision != Precision::Auto {
            return refused("precision", &precision, "`auto`");
        }
        if every == 0 {
            return refused("adaptive.every", &every, "1 or more");
        }
        if !(1..=65_536).contains(&samples) {
            return refused("adaptive.samples", &samples, "1 to 65536");
        }
        if !margin.is_finite() || margin < 1.0 {
            return refused("adaptive.margin", &margin, "a number of 1 or more");
        }
        // Where it begins is the rule's.
        let level = *LEVELS
            .iter()
            .find(|level| tolerance >= level.error_bound())
            .unwrap_or(&Precision::F64);
        let adapted = Adapted { level, checks: 0, estimates: None };
        Ok(Self { options, tolerance, adapted, calls: 0, pending: None, sums: None })
    }

    /// The precision for the next call, after what the last check found, if it is to be read now.
    pub(super) fn precision(
        &mut self,
        device: &Device,
        shape: &LinearShape,
        output: DType,
    ) -> Result<Precision, Error> {
        if self.is_due(device)
            && let (Some(terms), Some(sums)) = (self.pending, &self.sums)
        {
            self.adopt(estimates(&sums.wait()?, terms));
            self.pending = None;
        }
        let narrow = matches!(output, DType::F16 | DType::Bf16);
        Ok(match self.adapted.level {
            Precision::Tf32 if shape.work() < TENSOR_WORK => Precision::F32,
            Precision::F64 if narrow => Precision::F32,
            level => level,
        })
    }

    /// Counts a call that was queued, and queues a check of it where one is due. Inside the capture of a graph nothing is
    /// checked or counted.
    pub(super) fn called<T: LinearElement>(
        &mut self,
        device: &Device,
        shape: &LinearShape,
        operands: (&Buffer<T>, &Buffer<T>),
    ) -> Result<Adapted, Error> {
        let due = self.is_due(device);
        let results = shape.m > 0 && shape.n > 0 && shape.batch > 0;
        if let (true, true, Some(kernels)) = (due, results, KernelDevice::of(device)) {
            let samples = self.options.samples;
            let sums = match &mut self.sums {
                Some(sums) => sums,
                none => none.insert(Sums::new(device, samples)?),
            };
            let seed = (self.calls / u64::from(self.options.every)).wrapping_mul(samples.into());
            launcher::launch(kernels, shape, operands, seed, sums)?;
            self.pending = Some(shape.k);
        }
        if !device.is_capturing() {
            self.calls += 1;
        }
        Ok(self.adapted)
    }

    fn is_due(&self, device: &Device) -> bool {
        self.calls.is_multiple_of(self.options.every.into()) && !device.is_capturing()
    }

    fn adopt(&mut self, estimates: Option<[f64; 2]>) {
        self.adapted.checks += 1;
        let Some(errors) = estimates else { return };
        self.adapted.estimates = estimates;
        let error = |at: usize| errors.get(at).copied().unwrap_or(0.0);
        let now = LEVELS.iter().position(|&level| level == self.adapted.level).unwrap_or(0);
        let mut next = now;
        while next + 1 < LEVELS.len() && error(next) > self.tolerance {
            next += 1;
        }
        if next == now {
            while next > 0 && error(next - 1) * self.options.margin <= self.tolerance {
                next -= 1;
            }
        }
        self.adapted.level = LEVELS[next];
    }
}

/// The errors of tf32 and of f32, relative, in the norm; none where a sample is not finite.
fn estimates(samples: &[[f64; 3]], terms: usize) -> Option<[f64; 2]> {
    let mut sums = [0.0_f64; 3];
    for &[exact, tf32, squares] in samples {
        sums[0] += exact * exact;
        sums[1] += (tf32 - exact).powi(2);
        sums[2] += squares;
    }
    let [exact, tf32, squares] = sums;
    if sums.iter().any(|sum| !sum.is_finite()) {
        return None;
    }
    if squares == 0.0 {
        // Zeros are exact in every precision.
        return Some([0.0; 2]);
    }
    // A sum rounds its partial sums: of terms in no order, that of i of κ has a mean square of (i/κ)²·s² + (i/κ)·(1 − i/κ)·q.
    // Terms that cancel altogether leave nothing to be relative to: infinite.
    let added = terms.min(MOST_TERMS) as f64;
    let f32 = ROUNDING * (1.0 + added * (squares / exact / 6.0 + 1.0 / 3.0)).sqrt();
    Some([if tf32 == 0.0 { f32 } else { (tf32 / exact).sqrt() + f32 }, f32])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(tolerance: f64) -> State {
        State::new(Adaptive::default(), Precision::Auto, tolerance).unwrap()
    }

    #[test]
    fn it_raises_lowers_and_stays() {
        let mut state = state(1e-3);
        assert_eq!(state.adapted.level, Precision::Tf32);
        for (errors, expected) in [
            // Within the tolerance.
            (Some([8e-4, 1e-7]), Precision::Tf32),
            (Some([2e-3, 1e-7]), Precision::F32),
            // Allowed, but not by the margin.
            (Some([8e-4, 1e-7]), Precision::F32),
            (None, Precision::F32),
            (Some([4e-4, 1e-7]), Precision::Tf32),
            (Some([f64::INFINITY, f64::INFINITY]), Precision::F64),
            (Some([1.0, 9e-4]), Precision::F64),
            (Some([1.0, 5e-4]), Precision::F32),
            (Some([1.0, 2e-3]), Precision::F64),
            (Some([0.0, 0.0]), Precision::Tf32),
        ] {
            state.adopt(errors);
            assert_eq!(state.adapted.level, expected, "{errors:?}");
        }
        assert_eq!((state.adapted.checks, state.adapted.estimates), (10, Some([0.0, 0.0])));
    }

    #[test]
    fn estimates_are_relative_to_the_results() {
        // Terms of size 1 with random signs: as large a sum as its terms' root mean square.
        let [tf32, f32] = estimates(&[[10.0, 10.003, 100.0]], 100).unwrap();
        assert!((tf32 - 3e-4).abs() < 1e-5 && (f32 - 1.8e-7).abs() < 1e-8, "{tf32:e}, {f32:e}");
        let cancelled = estimates(&[[0.01, 0.013, 100.0]], 100).unwrap();
        assert!(cancelled[0] > 0.1 && cancelled[1] > 5e-5, "{cancelled:?}");
        assert_eq!(estimates(&[[0.0, 1e-3, 100.0]], 100), Some([f64::INFINITY; 2]));
        assert_eq!(estimates(&[[0.0; 3]; 4], 100), Some([0.0; 2]));
        assert_eq!(estimates(&[[f64::NAN, 0.0, 1.0], [1.0; 3]], 100), None);
        assert_eq!(estimates(&[[1.0, f64::INFINITY, 1.0]], 100), None);
    }

    #[test]
    fn options_that_mean_nothing_are_refused() {
        let good = Adaptive::default();
        let refused = |options, precision| State::new(options, precision, 1e-3).err().unwrap();
        for (options, precision, what) in [
            (Adaptive { every: 0, ..good }, Precision::Auto, "every"),
            (Adaptive { samples: 0, ..good }, Precision::Auto, "samples"),
            (Adaptive { samples: 70_000, ..good }, Precision::Auto, "samples"),
            (Adaptive { margin: f64::NAN, ..good }, Precision::Auto, "margin"),
            (Adaptive { margin: 0.5, ..good }, Precision::Auto, "margin"),
            (good, Precision::Tf32, "precision"),
        ] {
            let why = refused(options, precision).to_string();
            assert!(why.contains(what), "{why}");
        }
    }
}

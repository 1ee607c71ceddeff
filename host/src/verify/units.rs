//! Numbers for the families that take no tensor: the digits' grey values, or random ones; and comparisons
//! of what they write.

use std::sync::Arc;

use kasmina_reference::numeric::{self, Dtype, Tolerance};
use rand::RngExt;
use rand::rngs::StdRng;

use super::random::{self, Limits};
use super::tally::{Compared, Mismatch, Tally};
use super::{Inputs, Source};
use crate::device::Device;
use crate::digits::{Digits, WHITE};

/// A stream of numbers.
pub(super) struct Units {
    digits: Option<Arc<Digits>>,
    next: usize,
    rng: StdRng,
}

impl Units {
    pub(super) fn of(source: &Source) -> Self {
        match &source.inputs {
            Inputs::Digits(digits) => {
                Self { digits: Some(Arc::clone(digits)), next: 0, rng: random::generator(0) }
            }
            &Inputs::Random(seed) => Self { digits: None, next: 0, rng: random::generator(seed) },
        }
    }

    /// A number of [0, 1]: the next pixel's, or a random one.
    pub(super) fn unit(&mut self) -> f32 {
        match &self.digits {
            Some(digits) => {
                self.next = (self.next + 1) % digits.pixels.len();
                f32::from(digits.pixels[self.next]) / f32::from(WHITE)
            }
            None => self.rng.random_range(0.0..=1.0),
        }
    }

    /// A choice below `bound`, drawn.
    pub(super) fn below(&mut self, bound: usize) -> usize {
        self.rng.random_range(0..bound)
    }
}

/// The sizes to run: four fixed ones for the digits, else random ones up to what the device works through.
pub(super) fn sizes(device: &Device, source: &Source, fixed: [usize; 4]) -> Vec<usize> {
    match &source.inputs {
        Inputs::Digits(_) => fixed.to_vec(),
        &Inputs::Random(seed) => {
            let (limits, mut rng) = (Limits::of(source.scale(device)), random::generator(!seed));
            (0..limits.cases).map(|_| random::length(&mut rng, limits.batch)).collect()
        }
    }
}

/// Judges a rounded array, with `scale` for the errors of values near 0.
pub(super) fn judge_rounded(
    case: &str,
    what: &str,
    got: &[f32],
    expected: &[f64],
    scale: f64,
    tally: &mut Tally,
) {
    let got: Vec<f64> = got.iter().map(|&value| value.into()).collect();
    let comparison = numeric::compare_to_scale(&got, expected, scale).expect("as many in each");
    let index = comparison.first_mismatch.or(comparison.worst_index).unwrap_or(0);
    let (Some(&got), Some(&expected)) = (got.get(index), expected.get(index)) else { return };
    let error = comparison.max_rel_error;
    let tolerance = Tolerance::for_dtype(Dtype::F32, 1).limit();
    let compared = Compared { got, expected, error, tolerance };
    tally.judge(case, &compared, || format!("{what}[{index}]"));
}

/// Judges arrays of words that must agree in each bit.
pub(super) fn judge_words(
    case: &str,
    what: &str,
    got: &[u32],
    expected: &[u32],
    tally: &mut Tally,
) {
    for (index, (&got, &expected)) in got.iter().zip(expected).enumerate() {
        let error = if got == expected { 0.0 } else { f64::INFINITY };
        let (got, expected) = (f64::from(got), f64::from(expected));
        let compared = Compared { got, expected, error, tolerance: 0.0 };
        tally.judge(case, &compared, || format!("{what}[{index}]"));
    }
    if got.len() != expected.len() {
        let (got, expected) = (got.len() as f64, expected.len() as f64);
        let compared = Compared { got, expected, error: f64::INFINITY, tolerance: 0.0 };
        tally.judge(case, &compared, || format!("the length of {what}"));
    }
}

/// Fails where two runs gave other bits.
pub(super) fn same_bits<W: PartialEq>(
    case: &str,
    what: &'static str,
    first: &[W],
    second: &[W],
    tally: &mut Tally,
) {
    let differs = (0..first.len().max(second.len())).find(|&i| first.get(i) != second.get(i));
    if let Some(index) = differs {
        tally.fail(Mismatch::Nondeterministic { case: case.to_owned(), what, index });
    }
}

/// The bits of values.
pub(super) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

//! What a check has seen so far.

use kasmina_types::DType;

use super::{Row, Status, Timing};
use crate::error::Error;

/// Something that fails a row.
#[derive(Debug, thiserror::Error)]
pub(super) enum Mismatch {
    #[error(
        "{case}: {what} is {got:e}, the reference {expected:e}: \
         relative error {error:.2e}, tolerance {tolerance:.2e}"
    )]
    TooFar { case: String, what: String, got: f64, expected: f64, error: f64, tolerance: f64 },
    #[error("{case}: seed {seed} is the identity, but row {row}, column {column} changed its bits")]
    Identity { case: String, seed: usize, row: usize, column: usize },
    #[error("{case}: a second run gave `{what}[{index}]` other bits")]
    Nondeterministic { case: String, what: &'static str, index: usize },
    #[error("{case}: `{got}` runs, expected one with `{expected}` in its name")]
    Kernel { case: String, expected: &'static str, got: &'static str },
    #[error("{reason}")]
    Inputs { reason: String },
    #[error("{case}: {source}")]
    Run { case: String, source: Error },
}

/// One value beside its reference.
pub(super) struct Compared {
    pub(super) got: f64,
    pub(super) expected: f64,
    pub(super) error: f64,
    pub(super) tolerance: f64,
}

/// The makings of a row.
#[derive(Default)]
pub(super) struct Tally {
    cases: usize,
    /// Error and tolerance of the value nearest to, or furthest past, its tolerance.
    worst: Option<(f64, f64)>,
    timing: Option<Timing>,
    first_mismatch: Option<Mismatch>,
    lacks: Option<String>,
}

impl Tally {
    /// The device cannot run it, for this reason.
    pub(super) fn skip(&mut self, reason: String) {
        self.lacks = Some(reason);
    }

    /// Counts a case.
    pub(super) fn case(&mut self) {
        self.cases += 1;
    }

    /// Keeps the timing of the case that moves the most bytes.
    pub(super) fn timing(&mut self, timing: Timing) {
        if self.timing.is_none_or(|kept| kept.bytes < timing.bytes) {
            self.timing = Some(timing);
        }
    }

    /// Takes a value into account; past its tolerance it is a mismatch.
    pub(super) fn judge(&mut self, case: &str, compared: &Compared, what: impl FnOnce() -> String) {
        let &Compared { got, expected, error, tolerance } = compared;
        if self.worst.is_none_or(|worst| share(worst) < share((error, tolerance))) {
            self.worst = Some((error, tolerance));
        }
        if error > tolerance {
            let (case, what) = (case.to_owned(), what());
            self.fail(Mismatch::TooFar { case, what, got, expected, error, tolerance });
        }
    }

    /// Fails the row; the first reason is the one that is told.
    pub(super) fn fail(&mut self, mismatch: Mismatch) {
        self.first_mismatch.get_or_insert(mismatch);
    }

    pub(super) fn into_row(self, kernel: String, dtype: DType, device: &'static str) -> Row {
        let (max_rel_error, tolerance) = self.worst.unwrap_or((f64::NAN, 0.0));
        let status = match (self.first_mismatch, self.lacks) {
            (Some(mismatch), _) => Status::Fail { reason: mismatch.to_string() },
            (None, Some(reason)) => Status::Skipped { reason },
            (None, None) => Status::Pass,
        };
        let (cases, timing) = (self.cases, self.timing);
        Row { kernel, dtype, device, cases, max_rel_error, tolerance, timing, status }
    }
}

/// How much of its tolerance an error uses up.
fn share((error, tolerance): (f64, f64)) -> f64 {
    if error == 0.0 { 0.0 } else { error / tolerance }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(pairs: &[(f64, f64)]) -> Row {
        let mut tally = Tally::default();
        for &(error, tolerance) in pairs {
            let compared = Compared { got: 1.0, expected: 2.0, error, tolerance };
            tally.judge("the case", &compared, || format!("the value {error}"));
        }
        tally.into_row("k".into(), DType::F32, "cpu")
    }

    #[test]
    fn the_worst_is_the_one_that_uses_up_most_of_its_tolerance() {
        let row = judged(&[(0.5, 1.0), (0.2, 0.25), (0.0, 0.0)]);
        assert_eq!((row.max_rel_error, row.tolerance), (0.2, 0.25));
        assert_eq!(row.status, Status::Pass);
    }

    #[test]
    fn no_error_is_too_small_for_a_tolerance_of_nothing() {
        let row = judged(&[(0.5, 1.0), (1e-300, 0.0), (2.0, 1.0)]);
        assert_eq!((row.max_rel_error, row.tolerance), (1e-300, 0.0));
        let Status::Fail { reason } = row.status else { panic!("{:?}", row.status) };
        assert!(reason.starts_with("the case: the value"), "{reason}");
    }

    #[test]
    fn json_has_null_for_what_is_no_number() {
        let json = serde_json::to_value(judged(&[(f64::INFINITY, 1.0)])).unwrap();
        assert_eq!(json["max_rel_error"], serde_json::Value::Null);
        assert_eq!(json["status"], "fail");
        assert!(json["reason"].is_string() && json.get("time_us").is_none());
    }
}

//! Series as an estimate takes them: checked, and prepared where the options ask for it.

use kasmina_reference::information::transfer_entropy::{self as reference, add_noise, standardize};
use ndarray::{ArrayView1, ArrayView2};

use super::{Precision, TransferEntropy, TransferEntropyError};

/// A series and what to call it.
pub(super) struct Named {
    pub(super) name: String,
    pub(super) values: Vec<f64>,
}

impl Named {
    fn new(name: impl Into<String>, values: ArrayView1<'_, f64>) -> Self {
        Self { name: name.into(), values: values.to_vec() }
    }
}

/// Target, source, conditions.
pub(super) fn series_of_pair(
    target: ArrayView1<'_, f64>,
    source: ArrayView1<'_, f64>,
    conditions: &[ArrayView1<'_, f64>],
) -> Vec<Named> {
    let mut series = vec![Named::new("target", target), Named::new("source", source)];
    let named =
        |(i, &values): (usize, &ArrayView1<'_, f64>)| Named::new(format!("condition {i}"), values);
    series.extend(conditions.iter().enumerate().map(named));
    series
}

/// The rows of a matrix.
pub(super) fn series_of_rows(series: ArrayView2<'_, f64>) -> Vec<Named> {
    let rows = series.rows().into_iter().enumerate();
    rows.map(|(i, values)| Named::new(format!("row {i}"), values)).collect()
}

/// Checks each series, and standardises it and adds noise as the options say.
pub(super) fn prepare(
    options: &TransferEntropy,
    series: Vec<Named>,
) -> Result<Vec<Named>, TransferEntropyError> {
    if let Some(got) = options.noise.filter(|noise| !(noise.is_finite() && *noise > 0.0)) {
        return Err(TransferEntropyError::Noise { got });
    }
    let expected = series.first().map_or(0, |first| first.values.len());
    let prepared = series.into_iter().enumerate().map(|(stream, Named { name, mut values })| {
        let got = values.len();
        let unfit = |error| Err(TransferEntropyError::Unfit(error));
        if got != expected {
            return unfit(reference::TransferEntropyError::Length { series: name, expected, got });
        }
        if let Some(index) = values.iter().position(|value| !value.is_finite()) {
            return unfit(reference::TransferEntropyError::NonFinite { series: name, index });
        }
        if got < 2 {
            return unfit(reference::TransferEntropyError::TooShort { expected: 2, got });
        }
        if values.iter().all(|&value| value == values[0]) {
            return unfit(reference::TransferEntropyError::Constant { series: name, got });
        }
        if options.standardize {
            values = standardize(&values);
        }
        if let Some(amplitude) = options.noise {
            values = add_noise(&values, amplitude, options.seed, stream as u32);
        }
        let extent = Extent::of(&values);
        let narrow = options.precision == Precision::F32;
        let (least, most, step) = if narrow {
            (f64::from(f32::MIN_POSITIVE), f64::from(f32::MAX), f64::from(f32::EPSILON))
        } else {
            (f64::MIN_POSITIVE, f64::MAX, f64::EPSILON)
        };
        // Not so either of a series that preparing made NaN.
        if !(extent.largest <= most && (least..=most).contains(&extent.spread())) {
            return Err(TransferEntropyError::Range { series: name, narrow });
        }
        if narrow && extent.largest * RESOLUTION > extent.spread() {
            return Err(TransferEntropyError::Resolution { series: name });
        }
        if let Some(got) = options.noise {
            // The mean is 0: a step at the largest value, in standard deviations.
            let squares: f64 = values.iter().map(|value| value * value).sum();
            let least = extent.largest * step / (squares / values.len() as f64).sqrt();
            if got < least {
                return Err(TransferEntropyError::NoiseLost { series: name, got, least, narrow });
            }
        }
        Ok(Named { name, values })
    });
    prepared.collect()
}

/// The share of a series' largest magnitude that its values have to differ by for f32 to tell them apart.
const RESOLUTION: f64 = 1e3 * f32::EPSILON as f64;

/// How far a series reaches.
struct Extent {
    low: f64,
    high: f64,
    largest: f64,
}

impl Extent {
    fn of(values: &[f64]) -> Self {
        let none = Self { low: f64::INFINITY, high: f64::NEG_INFINITY, largest: 0.0 };
        values.iter().fold(none, |extent, &value| Self {
            low: extent.low.min(value),
            high: extent.high.max(value),
            // Unlike `f64::max`, keeps NaN.
            largest: if extent.largest >= value.abs() { extent.largest } else { value.abs() },
        })
    }

    fn spread(&self) -> f64 {
        self.high - self.low
    }
}

/// The series in f32, which [`prepare`] found them to fit.
pub(super) fn narrow(series: &[Named]) -> Vec<Vec<f32>> {
    series.iter().map(|named| named.values.iter().map(|&value| value as f32).collect()).collect()
}

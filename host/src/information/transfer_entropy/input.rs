//! Series as an estimate takes them: checked, and prepared where the options ask for it.

use kasmina_reference::information::transfer_entropy::{self as reference, add_noise, standardize};
use ndarray::{ArrayView1, ArrayView2};

use super::{TransferEntropy, TransferEntropyError};

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
    rows.map(|(i, values)| Named::new(format!("{i}"), values)).collect()
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
        if values.iter().all(|&value| value == values[0]) {
            return unfit(reference::TransferEntropyError::Constant { series: name, got });
        }
        if options.standardize {
            values = standardize(&values);
        }
        if let Some(amplitude) = options.noise {
            values = add_noise(&values, amplitude, options.seed, stream as u32);
        }
        Ok(Named { name, values })
    });
    prepared.collect()
}

/// The series in f32.
pub(super) fn narrow(series: &[Named]) -> Result<Vec<Vec<f32>>, TransferEntropyError> {
    let rounded = series.iter().map(|Named { name, values }| {
        let values: Vec<f32> = values.iter().map(|&value| value as f32).collect();
        match values.iter().position(|value| !value.is_finite()) {
            Some(index) => Err(TransferEntropyError::BeyondF32 { series: name.clone(), index }),
            None => Ok(values),
        }
    });
    rounded.collect()
}

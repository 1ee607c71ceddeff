//! What the epochs of `kasmina layer step` bring: `--loss`, or a table in a CSV file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::kasmina::EpochValues;

/// Figures that do not describe the epochs.
#[derive(Debug, thiserror::Error)]
pub(super) enum MetricsError {
    #[error("--loss has {got} values, expected 1, or one for each of the {epochs} epochs")]
    Losses { got: usize, epochs: usize },
    #[error("--loss {got}: expected a finite number")]
    Loss { got: f32 },
    #[error("{}: {why}", .path.display())]
    Csv { path: PathBuf, why: csv::Error },
    #[error(
        "{}: line {line}: `{column}` is {got}, expected {expected}",
        .path.display()
    )]
    Value { path: PathBuf, line: u64, column: &'static str, got: String, expected: String },
    #[error("{}: no rows; the columns are epoch, seed, loss, drift, gradient_norm", .path.display())]
    Empty { path: PathBuf },
    #[error("{}: no row of epoch {epoch}; add one, or say how many --epochs there are", .path.display())]
    Gap { path: PathBuf, epoch: usize },
}

/// The figures of the epochs; NaN where none is known.
pub(super) struct Metrics {
    seeds: usize,
    epochs: usize,
    /// Of every seed, in every epoch or in one after the other.
    losses: Vec<f32>,
    rows: BTreeMap<usize, Vec<Row>>,
}

/// A row of the table.
#[derive(Deserialize)]
struct Row {
    epoch: usize,
    #[serde(default)]
    seed: Option<usize>,
    #[serde(default)]
    loss: Option<f32>,
    #[serde(default)]
    drift: Option<f32>,
    #[serde(default)]
    gradient_norm: Option<f32>,
}

impl Metrics {
    /// Losses of every seed: one for each epoch, or one for all.
    pub(super) fn of_losses(
        losses: &[f32],
        epochs: Option<usize>,
        seeds: usize,
    ) -> Result<Self, MetricsError> {
        if let Some(&got) = losses.iter().find(|loss| !loss.is_finite()) {
            return Err(MetricsError::Loss { got });
        }
        let epochs = epochs.unwrap_or(losses.len());
        if losses.len() > 1 && losses.len() != epochs {
            return Err(MetricsError::Losses { got: losses.len(), epochs });
        }
        Ok(Self { seeds, epochs, losses: losses.to_vec(), rows: BTreeMap::new() })
    }

    /// A table with the columns `epoch`, from 0, and whichever there are of `seed`, `loss`, `drift` and
    /// `gradient_norm`. A row without a seed is of every seed; a later row overrides an earlier one.
    pub(super) fn read(
        path: &Path,
        epochs: Option<usize>,
        seeds: usize,
    ) -> Result<Self, MetricsError> {
        let csv = |why| MetricsError::Csv { path: path.to_owned(), why };
        let mut reader =
            csv::ReaderBuilder::new().trim(csv::Trim::All).from_path(path).map_err(csv)?;
        let headers = reader.headers().map_err(csv)?.clone();
        let mut rows = BTreeMap::<usize, Vec<Row>>::new();
        for record in reader.records() {
            let record = record.map_err(csv)?;
            let row: Row = record.deserialize(Some(&headers)).map_err(csv)?;
            row.check(epochs, seeds).map_err(|(column, got, expected)| MetricsError::Value {
                path: path.to_owned(),
                line: record.position().map_or(0, csv::Position::line),
                column,
                got,
                expected,
            })?;
            rows.entry(row.epoch).or_default().push(row);
        }
        if rows.is_empty() {
            return Err(MetricsError::Empty { path: path.to_owned() });
        }
        let epochs = match epochs {
            Some(epochs) => epochs,
            None => match (0..).zip(rows.keys()).find(|(expected, epoch)| expected != *epoch) {
                Some((epoch, _)) => return Err(MetricsError::Gap { path: path.to_owned(), epoch }),
                None => rows.len(),
            },
        };
        Ok(Self { seeds, epochs, losses: Vec::new(), rows })
    }

    /// How many epochs there are.
    pub(super) fn epochs(&self) -> usize {
        self.epochs
    }

    /// What an epoch brings.
    pub(super) fn epoch(&self, epoch: usize) -> EpochValues {
        let unknown = || vec![f32::NAN; self.seeds];
        let loss = match &self.losses[..] {
            [] => f32::NAN,
            [one] => *one,
            each => each[epoch],
        };
        let mut values = EpochValues {
            loss: vec![loss; self.seeds],
            drift: unknown(),
            gradient_norm: unknown(),
        };
        for row in self.rows.get(&epoch).into_iter().flatten() {
            let range = row.seed.map_or(0..self.seeds, |seed| seed..seed + 1);
            for (figure, values) in [
                (row.loss, &mut values.loss),
                (row.drift, &mut values.drift),
                (row.gradient_norm, &mut values.gradient_norm),
            ] {
                if let Some(figure) = figure {
                    values[range.clone()].fill(figure);
                }
            }
        }
        values
    }
}

impl Row {
    /// Column, value and what was expected, of the first that is wrong.
    fn check(
        &self,
        epochs: Option<usize>,
        seeds: usize,
    ) -> Result<(), (&'static str, String, String)> {
        if let Some(epochs) = epochs.filter(|&epochs| self.epoch >= epochs) {
            let expected = format!("less than {epochs}, as many as --epochs asks for");
            return Err(("epoch", self.epoch.to_string(), expected));
        }
        if let Some(seed) = self.seed.filter(|&seed| seed >= seeds) {
            let expected = format!("less than {seeds}, the number of seeds");
            return Err(("seed", seed.to_string(), expected));
        }
        for (column, figure) in
            [("loss", self.loss), ("drift", self.drift), ("gradient_norm", self.gradient_norm)]
        {
            if let Some(got) = figure.filter(|figure| !figure.is_finite()) {
                return Err((column, got.to_string(), "a finite number, or nothing".into()));
            }
        }
        Ok(())
    }
}

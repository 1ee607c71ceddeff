//! What epochs say of the seeds, from a table in a CSV file.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use csv::StringRecord;

use super::epoch::EpochReport;
use super::rules::SeedEpoch;

/// The figures of epochs, one [`EpochReport`] each.
///
/// In a file it is CSV with the column `epoch`, from 0, and any of `seed`, `gradient_norm`, and the fields
/// of [`SeedEpoch`]. A row without a seed is of every seed, a later row overrides an earlier one, and a
/// field that is empty says nothing.
///
/// ```
/// use kasmina::kasmina::EpochTable;
///
/// # fn main() -> Result<(), kasmina::kasmina::EpochTableError> {
/// let csv = "epoch,seed,loss,stability\n0,,0.5,1\n0,1,0.25,\n";
/// let table = EpochTable::from_reader("a table", csv.as_bytes(), None, 2)?;
/// let report = table.report(0);
/// assert_eq!((report.seeds[0].loss, report.seeds[1].loss), (0.5, 0.25));
/// assert_eq!(report.seeds[1].stability, 1.0);
/// assert!(report.seeds[0].improvement.is_nan());
///
/// let why = EpochTable::from_reader("a table", "epoch,los\n".as_bytes(), None, 2).unwrap_err();
/// assert!(why.to_string().contains("unknown column `los`"));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct EpochTable {
    seeds: usize,
    epochs: usize,
    /// Of every seed, in every epoch or in one after the other.
    losses: Vec<f32>,
    rows: BTreeMap<usize, Vec<Row>>,
    has_norms: bool,
}

/// Figures that do not describe the epochs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EpochTableError {
    /// Losses that are neither one nor one for each epoch.
    #[error("losses: there are {got}, expected 1, or one for each of the {epochs} epochs")]
    Losses {
        /// How many there are.
        got: usize,
        /// Epochs.
        epochs: usize,
    },
    /// A loss that is no number.
    #[error("loss {got}: expected a finite number")]
    Loss {
        /// The loss.
        got: f32,
    },
    /// A file that cannot be read.
    #[error("cannot read {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Text that is no table.
    #[error("{}: {why}", .path.display())]
    Csv {
        /// The file.
        path: PathBuf,
        /// The parser's words, with the line.
        why: csv::Error,
    },
    /// A column that means nothing, or that is there twice.
    #[error("{}: {what} column `{column}`; the columns are {}", .path.display(), NAMES.join(", "))]
    Column {
        /// The file.
        path: PathBuf,
        /// Unknown, second or missing.
        what: &'static str,
        /// The column.
        column: String,
    },
    /// A value that its column cannot have.
    #[error("{}: line {line}: `{column}` is {got:?}, expected {expected}", .path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The line of the row, from 1.
        line: u64,
        /// The column.
        column: &'static str,
        /// What stands there.
        got: String,
        /// What can stand there.
        expected: String,
    },
    /// A table without rows.
    #[error("{}: no rows; the columns are {}", .path.display(), NAMES.join(", "))]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// An epoch between others that nothing is said of.
    #[error("{}: no row of epoch {epoch}; add one, or say how many epochs there are", .path.display())]
    Gap {
        /// The file.
        path: PathBuf,
        /// The first such epoch.
        epoch: usize,
    },
}

/// Every column, as a file names it.
const NAMES: [&str; 11] = [
    "epoch",
    "seed",
    "loss",
    "drift",
    "gradient_norm",
    "reconstruction_loss",
    "performance_gain",
    "stability",
    "error_rate",
    "errors",
    "improvement",
];

/// The field of a column that is a number of the seed.
fn field<'a>(epoch: &'a mut SeedEpoch, column: &str) -> Option<&'a mut f32> {
    Some(match column {
        "loss" => &mut epoch.loss,
        "drift" => &mut epoch.drift,
        "reconstruction_loss" => &mut epoch.reconstruction_loss,
        "performance_gain" => &mut epoch.performance_gain,
        "stability" => &mut epoch.stability,
        "error_rate" => &mut epoch.error_rate,
        "improvement" => &mut epoch.improvement,
        _ => return None,
    })
}

#[derive(Debug, Clone)]
struct Row {
    seed: Option<usize>,
    figures: Vec<Figure>,
}

#[derive(Debug, Clone, Copy)]
enum Figure {
    /// A number of [`SeedEpoch`], by its column.
    Number(&'static str, f32),
    Errors(u32),
    GradientNorm(f32),
}

impl EpochTable {
    /// The losses of every seed: one for each epoch, or one for all.
    ///
    /// # Errors
    /// A loss that is not finite, or another number of them.
    pub fn of_losses(
        losses: &[f32],
        epochs: Option<usize>,
        seeds: usize,
    ) -> Result<Self, EpochTableError> {
        if let Some(&got) = losses.iter().find(|loss| !loss.is_finite()) {
            return Err(EpochTableError::Loss { got });
        }
        let epochs = epochs.unwrap_or(losses.len());
        if losses.len() > 1 && losses.len() != epochs {
            return Err(EpochTableError::Losses { got: losses.len(), epochs });
        }
        let (losses, rows) = (losses.to_vec(), BTreeMap::new());
        Ok(Self { seeds, epochs, losses, rows, has_norms: false })
    }

    /// Reads a file, of `epochs` epochs or of as many as it has, of `seeds` seeds.
    ///
    /// # Errors
    /// A file that cannot be read, a column that is unknown, missing or there twice, a value that is not
    /// finite or out of range, or an epoch that is left out where nobody says how many there are.
    pub fn read(path: &Path, epochs: Option<usize>, seeds: usize) -> Result<Self, EpochTableError> {
        let file = File::open(path)
            .map_err(|source| EpochTableError::Read { path: path.to_owned(), source })?;
        Self::from_reader(path, file, epochs, seeds)
    }

    /// As [`Self::read`], from anywhere; `name` is what errors call it.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn from_reader(
        name: impl Into<PathBuf>,
        source: impl Read,
        epochs: Option<usize>,
        seeds: usize,
    ) -> Result<Self, EpochTableError> {
        let path = name.into();
        let csv = |why| EpochTableError::Csv { path: path.clone(), why };
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(source);
        let columns = columns(&path, reader.headers().map_err(csv)?)?;
        let mut rows = BTreeMap::<usize, Vec<Row>>::new();
        for record in reader.records() {
            let record = record.map_err(csv)?;
            let cells = columns.iter().copied().zip(&record);
            let (epoch, row) =
                row(cells, epochs, seeds).map_err(|wrong| EpochTableError::Value {
                    path: path.clone(),
                    line: record.position().map_or(0, csv::Position::line),
                    column: wrong.column,
                    got: wrong.got.to_owned(),
                    expected: wrong.expected,
                })?;
            rows.entry(epoch).or_default().push(row);
        }
        if rows.is_empty() {
            return Err(EpochTableError::Empty { path });
        }
        let epochs = match epochs {
            Some(epochs) => epochs,
            None => match (0..).zip(rows.keys()).find(|(expected, epoch)| expected != *epoch) {
                Some((epoch, _)) => return Err(EpochTableError::Gap { path, epoch }),
                None => rows.len(),
            },
        };
        let has_norms = columns.contains(&"gradient_norm");
        Ok(Self { seeds, epochs, losses: Vec::new(), rows, has_norms })
    }

    /// How many epochs there are.
    pub fn epochs(&self) -> usize {
        self.epochs
    }

    /// What an epoch says of the seeds; of one that is not in the table, nothing.
    pub fn report(&self, epoch: usize) -> EpochReport {
        let loss = match &self.losses[..] {
            [] => f32::NAN,
            [one] => *one,
            each => each.get(epoch).copied().unwrap_or(f32::NAN),
        };
        let every = SeedEpoch { loss, ..SeedEpoch::default() };
        let mut report = EpochReport::uniform(self.seeds, every);
        let mut norms = self.has_norms.then(|| vec![f32::NAN; self.seeds]);
        for row in self.rows.get(&epoch).into_iter().flatten() {
            for seed in row.seed.map_or(0..self.seeds, |seed| seed..seed + 1) {
                for figure in &row.figures {
                    match *figure {
                        Figure::Errors(errors) => report.seeds[seed].errors = errors,
                        Figure::Number(column, number) => {
                            *field(&mut report.seeds[seed], column).expect("a number's column") =
                                number;
                        }
                        Figure::GradientNorm(norm) => {
                            norms.as_mut().expect("the column is there")[seed] = norm;
                        }
                    }
                }
            }
        }
        report.gradient_norm = norms;
        report
    }
}

/// The columns of a header, each known and there once, `epoch` among them.
fn columns(path: &Path, headers: &StringRecord) -> Result<Vec<&'static str>, EpochTableError> {
    let wrong = |what, column: &str| {
        Err(EpochTableError::Column { path: path.to_owned(), what, column: column.to_owned() })
    };
    let mut columns = Vec::with_capacity(headers.len());
    for header in headers {
        let Some(&name) = NAMES.iter().find(|&&name| name == header) else {
            return wrong("unknown", header);
        };
        if columns.contains(&name) {
            return wrong("a second", name);
        }
        columns.push(name);
    }
    if columns.contains(&"epoch") { Ok(columns) } else { wrong("no", "epoch") }
}

struct Wrong<'a> {
    column: &'static str,
    got: &'a str,
    expected: String,
}

/// The epoch of a row, and what it says.
fn row<'a>(
    cells: impl Iterator<Item = (&'static str, &'a str)>,
    epochs: Option<usize>,
    seeds: usize,
) -> Result<(usize, Row), Wrong<'a>> {
    let (mut epoch, mut row) = (0, Row { seed: None, figures: Vec::new() });
    for (column, got) in cells {
        let wrong = |expected: String| Wrong { column, got, expected };
        match column {
            "epoch" => {
                let parsed = got.parse().ok();
                let expected = match epochs {
                    Some(epochs) => format!("less than {epochs}, the number of epochs"),
                    None => "a whole number from 0".into(),
                };
                let inside = |&epoch: &usize| epochs.is_none_or(|epochs| epoch < epochs);
                epoch = parsed.filter(inside).ok_or_else(|| wrong(expected))?;
            }
            _ if got.is_empty() => {}
            "seed" => {
                let seed = got.parse().ok().filter(|&seed| seed < seeds);
                let expected = || wrong(format!("less than {seeds}, the number of seeds"));
                row.seed = Some(seed.ok_or_else(expected)?);
            }
            "errors" => {
                let expected = || wrong("a whole number from 0, or nothing".into());
                row.figures.push(Figure::Errors(got.parse().map_err(|_| expected())?));
            }
            _ => {
                let number = got.parse().ok().filter(|number: &f32| number.is_finite());
                let number = number.ok_or_else(|| wrong("a finite number, or nothing".into()))?;
                row.figures.push(match column {
                    "gradient_norm" => Figure::GradientNorm(number),
                    _ => Figure::Number(column, number),
                });
            }
        }
    }
    Ok((epoch, row))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(csv: &str) -> Result<EpochTable, EpochTableError> {
        EpochTable::from_reader("t", csv.as_bytes(), None, 3)
    }

    /// Every field of a seed's epoch has a column of its own.
    #[test]
    fn every_field_is_read() {
        let header = NAMES.join(",");
        let table = table(&format!("{header}\n0,2,1,2,3,4,5,6,7,8,9\n")).expect("a table");
        let report = table.report(0);
        let expected = SeedEpoch {
            loss: 1.0,
            drift: 2.0,
            reconstruction_loss: 4.0,
            performance_gain: 5.0,
            stability: 6.0,
            error_rate: 7.0,
            errors: 8,
            improvement: 9.0,
        };
        assert_eq!(report.seeds[2], expected);
        let norms = report.gradient_norm.expect("a column");
        assert!(norms[0].is_nan() && norms[2] == 3.0, "{norms:?}");
        let said = format!("{:?}", report.seeds[0]);
        assert_eq!(said, format!("{:?}", SeedEpoch::default()));
        // A field that has no column would be left out of the test above.
        let fields = serde_json::to_value(expected).expect("a JSON form");
        for name in fields.as_object().expect("fields").keys() {
            assert!(NAMES.contains(&name.as_str()), "{name}");
        }
        assert_eq!(fields.as_object().expect("fields").len() + 3, NAMES.len());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (csv, said) in [
            ("epoch,performence_gain\n0,1\n", "unknown column `performence_gain`"),
            ("epoch,performence_gain\n0,1\n", "performance_gain, stability"),
            ("Epoch,loss\n0,1\n", "unknown column `Epoch`"),
            ("epoch,loss,\n0,1,\n", "unknown column ``"),
            ("epoch,loss,loss\n0,1,1\n", "a second column `loss`"),
            ("seed,loss\n0,1\n", "no column `epoch`"),
            ("", "no column `epoch`"),
            ("epoch,loss\n0,1\n1,x\n", "line 3: `loss` is \"x\", expected a finite number"),
            ("epoch,loss\n0,1\n1,1e99\n", "line 3: `loss` is \"1e99\""),
            ("epoch,stability\n0,-inf\n", "line 2: `stability` is \"-inf\""),
            ("epoch,gradient_norm\n0,nan\n", "line 2: `gradient_norm` is \"nan\""),
            ("epoch,errors\n0,-1\n", "line 2: `errors` is \"-1\""),
            ("epoch,errors\n0,1.5\n", "line 2: `errors` is \"1.5\""),
            ("epoch,seed\n0,3\n", "line 2: `seed` is \"3\", expected less than 3"),
            ("epoch,seed\n,1\n", "line 2: `epoch` is \"\""),
            ("epoch,seed\n-1,1\n", "line 2: `epoch` is \"-1\""),
            ("epoch,seed\n1,1\n", "no row of epoch 0"),
            ("epoch,loss\n", "no rows"),
            ("epoch,loss\n0\n", "1 field"),
        ] {
            let why = table(csv).expect_err(csv).to_string();
            assert!(why.contains(said) && why.starts_with("t: "), "{said:?} is not in {why}");
        }
    }

    #[test]
    fn epochs_without_rows_say_nothing() {
        let table = EpochTable::from_reader("t", "epoch,loss\n1,2\n".as_bytes(), Some(3), 1);
        let table = table.expect("a table");
        assert_eq!(table.epochs(), 3);
        assert!(table.report(0).seeds[0].loss.is_nan());
        assert_eq!(table.report(1).seeds[0].loss, 2.0);
        assert!(table.report(7).seeds[0].loss.is_nan());
        assert!(table.report(0).gradient_norm.is_none());
    }
}

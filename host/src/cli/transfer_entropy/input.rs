//! Series from a CSV file.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use ndarray::{Array1, ArrayView1};

use crate::cli::Failure;

/// What is done to the values of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Transform {
    /// Nothing
    None,
    /// x_t − x_{t−1}
    Difference,
    /// ln(x_t / x_{t−1}), of values above 0
    Growth,
}

impl Transform {
    /// The transformed series, or the first place that growth cannot be taken of.
    fn apply(self, values: &Array1<f64>) -> Result<Array1<f64>, usize> {
        let pairs = || values.windows(2).into_iter();
        match self {
            Self::None => Ok(values.clone()),
            Self::Difference => Ok(pairs().map(|pair| pair[1] - pair[0]).collect()),
            Self::Growth => match values.iter().position(|&value| value <= 0.0) {
                Some(place) => Err(place),
                None => Ok(pairs().map(|pair| (pair[1] / pair[0]).ln()).collect()),
            },
        }
    }
}

/// The columns of a file.
pub(super) struct Table {
    path: PathBuf,
    names: Vec<String>,
    cells: Vec<Vec<String>>,
    /// The line that each value stands in.
    lines: Vec<usize>,
    /// Each as a series, or the first place with something else and what was expected there.
    columns: Vec<Result<Array1<f64>, (usize, &'static str)>>,
}

impl Table {
    /// Reads a file with a header line, and transforms its columns.
    pub(super) fn read(path: &Path, transform: Transform) -> Result<Self, Failure> {
        let read = || -> anyhow::Result<Self> {
            let text = std::fs::read(path)?;
            let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(&text[..]);
            let names: Vec<String> = reader.headers()?.iter().map(str::to_owned).collect();
            if let Some(name) = names
                .iter()
                .enumerate()
                .find_map(|(i, name)| names[..i].contains(name).then_some(name))
            {
                return Err(anyhow!(
                    "two columns are called `{name}`; give each a name of its own"
                ));
            }
            if let [name] = &names[..]
                && let Some(separator) = [";", "\t"].into_iter().find(|s| name.contains(*s))
            {
                return Err(anyhow!("expected commas between columns, got {separator:?}"));
            }
            let mut cells = vec![Vec::new(); names.len()];
            let mut lines = Vec::new();
            let (mut line, mut counted) = (1, 0);
            for record in reader.records() {
                let record = record?;
                // The position is that of the empty lines before, if there are any.
                let from = record.position().map_or(0, |position| position.byte() as usize);
                let empty = text[from..].iter().take_while(|byte| b"\r\n".contains(byte)).count();
                line += text[counted..from + empty].iter().filter(|&&byte| byte == b'\n').count();
                counted = from + empty;
                lines.push(line);
                for (column, cell) in cells.iter_mut().zip(&record) {
                    column.push(cell.to_owned());
                }
            }
            let series = |cells: &Vec<String>| {
                let values = numbers(cells).map_err(|place| (place, "a finite number"))?;
                let above_0 = "a number above 0, for its growth";
                transform.apply(&values).map_err(|place| (place, above_0))
            };
            let columns = cells.iter().map(series).collect();
            Ok(Self { path: path.to_owned(), names, cells, lines, columns })
        };
        let table = read().with_context(|| format!("cannot read {}", path.display()));
        let table = table.map_err(Failure::usage)?;
        if table.lines.is_empty() {
            let path = path.display();
            return Err(Failure::usage(anyhow!(
                "{path}: expected lines of values below the header"
            )));
        }
        Ok(table)
    }

    /// Values of a series.
    pub(super) fn samples(&self) -> usize {
        self.columns.iter().flatten().map(Array1::len).next().unwrap_or(self.lines.len())
    }

    /// The names of the columns that [`Self::series`] leaves out.
    pub(super) fn others(&self) -> Vec<&str> {
        let series = self.series();
        self.names.iter().map(String::as_str).filter(|name| !series.contains(name)).collect()
    }

    /// The names of the columns that can be series: numbers, and neither all the same nor all as far apart.
    pub(super) fn series(&self) -> Vec<&str> {
        let varies = |column: &Array1<f64>| {
            let steps: Vec<f64> = column.windows(2).into_iter().map(|p| p[1] - p[0]).collect();
            steps.iter().any(|step| *step != steps[0])
        };
        let named = self.names.iter().zip(&self.columns);
        let fit = named.filter(|(_, column)| column.as_ref().is_ok_and(varies));
        fit.map(|(name, _)| name.as_str()).collect()
    }

    /// A column by its name.
    pub(super) fn column(&self, name: &str) -> Result<ArrayView1<'_, f64>, Failure> {
        let path = self.path.display();
        let Some(index) = self.names.iter().position(|known| known == name) else {
            let nearest = self
                .names
                .iter()
                .max_by(|a, b| strsim::jaro(a, name).total_cmp(&strsim::jaro(b, name)));
            let hint = nearest
                .filter(|nearest| strsim::jaro(nearest, name) > 0.7)
                .map_or(String::new(), |nearest| format!("; did you mean `{nearest}`?"));
            return Err(Failure::usage(anyhow!(
                "{path} has no column `{name}`, but {}{hint}",
                self.names.join(", ")
            )));
        };
        match &self.columns[index] {
            Ok(column) => Ok(column.view()),
            &Err((place, expected)) => {
                let (line, cell) = (self.lines[place], &self.cells[index][place]);
                Err(Failure::usage(anyhow!(
                    "{path}, line {line}, column `{name}`: expected {expected}, got `{cell}`"
                )))
            }
        }
    }
}

/// The numbers of a column, all finite, or the first place with something else.
fn numbers(cells: &[String]) -> Result<Array1<f64>, usize> {
    let cells = cells.iter().enumerate();
    let number = |cell: &String| cell.parse().ok().filter(|value: &f64| value.is_finite());
    cells.map(|(place, cell)| number(cell).ok_or(place)).collect()
}

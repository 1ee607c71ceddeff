//! Series from a CSV file.

use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use ndarray::{Array1, ArrayView1};

use crate::cli::Failure;

/// The columns of a file.
pub(super) struct Table {
    path: PathBuf,
    names: Vec<String>,
    cells: Vec<Vec<String>>,
    /// The columns that hold numbers alone.
    columns: Vec<Option<Array1<f64>>>,
}

impl Table {
    /// Reads a file with a header line.
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let read = || -> anyhow::Result<Self> {
            let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_path(path)?;
            let names: Vec<String> = reader.headers()?.iter().map(str::to_owned).collect();
            let mut cells = vec![Vec::new(); names.len()];
            for record in reader.records() {
                for (column, cell) in cells.iter_mut().zip(&record?) {
                    column.push(cell.to_owned());
                }
            }
            let columns = cells.iter().map(|cells| numbers(cells).ok()).collect();
            Ok(Self { path: path.to_owned(), names, cells, columns })
        };
        let table = read().with_context(|| format!("cannot read {}", path.display()));
        let table = table.map_err(Failure::usage)?;
        if table.samples() == 0 {
            let path = path.display();
            return Err(Failure::usage(anyhow!(
                "{path}: expected lines of values below the header"
            )));
        }
        Ok(table)
    }

    /// Values of a column.
    pub(super) fn samples(&self) -> usize {
        self.cells.first().map_or(0, Vec::len)
    }

    /// The names of the columns that hold numbers alone.
    pub(super) fn numeric(&self) -> Vec<&str> {
        let named = self.names.iter().zip(&self.columns);
        named.filter(|(_, column)| column.is_some()).map(|(name, _)| name.as_str()).collect()
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
            Some(column) => Ok(column.view()),
            None => {
                let wrong = numbers(&self.cells[index]).err();
                let (line, cell) = wrong.unwrap_or_default();
                Err(Failure::usage(anyhow!(
                    "{path}, line {line}, column `{name}`: expected a number, got `{cell}`"
                )))
            }
        }
    }
}

/// The numbers of a column, or the first line with something else.
fn numbers(cells: &[String]) -> Result<Array1<f64>, (usize, String)> {
    let parsed = cells.iter().enumerate().map(|(i, cell)| {
        // The header is line 1.
        cell.parse::<f64>().map_err(|_| (i + 2, cell.clone()))
    });
    parsed.collect()
}

//! Series from a CSV file.

use std::io;
use std::path::{Path, PathBuf};

use ndarray::{Array1, ArrayView1};

/// What is done to the values of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Transform {
    /// Nothing.
    #[default]
    None,
    /// x_t − x_{t−1}.
    Difference,
    /// ln(x_t / x_{t−1}), of values above 0.
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

/// The columns of a CSV file with a header line, each a series where it has finite numbers alone.
///
/// ```
/// use kasmina::information::transfer_entropy::{SeriesTable, Transform};
///
/// # fn main() -> Result<(), kasmina::information::transfer_entropy::SeriesTableError> {
/// let csv = "day,x\nMon,1\nTue,3\nWed,7\nThu,8\n";
/// let table = SeriesTable::from_bytes("a table", csv.as_bytes(), Transform::Difference)?;
/// assert_eq!((table.samples(), table.series()), (3, vec!["x"]));
/// assert_eq!(table.column("x")?.to_vec(), [2.0, 4.0, 1.0]);
///
/// let why = table.column("day").unwrap_err().to_string();
/// assert_eq!(why, "a table, line 2, column `day`: expected a finite number, got `Mon`");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct SeriesTable {
    path: PathBuf,
    names: Vec<String>,
    cells: Vec<Vec<String>>,
    /// The line that each value stands in.
    lines: Vec<usize>,
    /// Each as a series, or the first place with something else and what was expected there.
    columns: Vec<Result<Array1<f64>, (usize, &'static str)>>,
}

/// A file that is no table of series, or a column that is none.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SeriesTableError {
    /// A file that cannot be read.
    #[error("cannot read {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Text that is no table.
    #[error("cannot read {}: {why}", .path.display())]
    Csv {
        /// The file.
        path: PathBuf,
        /// The parser's words, with the line.
        why: csv::Error,
    },
    /// Two columns of one name.
    #[error("{}: two columns are called `{name}`; give each a name of its own", .path.display())]
    SameName {
        /// The file.
        path: PathBuf,
        /// The name.
        name: String,
    },
    /// Columns that are not parted by commas.
    #[error("{}: expected commas between columns, got {separator:?}", .path.display())]
    Separator {
        /// The file.
        path: PathBuf,
        /// What seems to part them.
        separator: &'static str,
    },
    /// A table without values.
    #[error("{}: expected lines of values below the header", .path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A column that there is not.
    #[error(
        "{} has no column `{name}`, but {}{}", .path.display(), .names.join(", "),
        .nearest.as_ref().map_or(String::new(), |name| format!("; did you mean `{name}`?"))
    )]
    NoColumn {
        /// The file.
        path: PathBuf,
        /// Which was asked for.
        name: String,
        /// Those that there are.
        names: Vec<String>,
        /// The one that may be meant.
        nearest: Option<String>,
    },
    /// A value that is none of a series.
    #[error("{}, line {line}, column `{column}`: expected {expected}, got `{got}`", .path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The column.
        column: String,
        /// What can stand there.
        expected: &'static str,
        /// What stands there.
        got: String,
    },
}

/// How alike two names are, from 0 to 1, where one may be meant for the other.
const ALIKE: f64 = 0.7;

impl SeriesTable {
    /// Reads a file, and transforms its columns.
    ///
    /// # Errors
    /// A file that cannot be read, is no table, or has columns of one name, or no values.
    pub fn read(path: &Path, transform: Transform) -> Result<Self, SeriesTableError> {
        let text = std::fs::read(path)
            .map_err(|source| SeriesTableError::Read { path: path.to_owned(), source })?;
        Self::from_bytes(path, &text, transform)
    }

    /// As [`Self::read`], of a file's bytes; `name` is what errors call it.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn from_bytes(
        name: impl Into<PathBuf>,
        text: &[u8],
        transform: Transform,
    ) -> Result<Self, SeriesTableError> {
        let path = name.into();
        let csv = |why| SeriesTableError::Csv { path: path.clone(), why };
        let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(text);
        let names: Vec<String> = reader.headers().map_err(csv)?.iter().map(str::to_owned).collect();
        if let Some((_, name)) =
            names.iter().enumerate().find(|(i, name)| names[..*i].contains(name))
        {
            let name = name.clone();
            return Err(SeriesTableError::SameName { path, name });
        }
        if let [name] = &names[..]
            && let Some(separator) = [";", "\t"].into_iter().find(|s| name.contains(*s))
        {
            return Err(SeriesTableError::Separator { path, separator });
        }
        let mut cells = vec![Vec::new(); names.len()];
        let mut lines = Vec::new();
        let (mut line, mut counted) = (1, 0);
        for record in reader.records() {
            let record = record.map_err(csv)?;
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
        if lines.is_empty() {
            return Err(SeriesTableError::Empty { path });
        }
        let series = |cells: &Vec<String>| {
            let values = numbers(cells).map_err(|place| (place, "a finite number"))?;
            let above_0 = "a number above 0, for its growth";
            transform.apply(&values).map_err(|place| (place, above_0))
        };
        let columns = cells.iter().map(series).collect();
        Ok(Self { path, names, cells, lines, columns })
    }

    /// The names of all columns.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Values of a series.
    pub fn samples(&self) -> usize {
        self.columns.iter().flatten().map(Array1::len).next().unwrap_or(self.lines.len())
    }

    /// The names of the columns that can be series: numbers, and neither all the same nor all as far apart.
    pub fn series(&self) -> Vec<&str> {
        let varies = |column: &Array1<f64>| {
            let steps: Vec<f64> = column.windows(2).into_iter().map(|p| p[1] - p[0]).collect();
            steps.iter().any(|step| *step != steps[0])
        };
        let named = self.names.iter().zip(&self.columns);
        let fit = named.filter(|(_, column)| column.as_ref().is_ok_and(varies));
        fit.map(|(name, _)| name.as_str()).collect()
    }

    /// A column by its name.
    ///
    /// # Errors
    /// No such column, or one with something else than finite numbers, those above 0 where growth is taken.
    pub fn column(&self, name: &str) -> Result<ArrayView1<'_, f64>, SeriesTableError> {
        let path = || self.path.clone();
        let Some(index) = self.names.iter().position(|known| known == name) else {
            let alike = |known: &String| strsim::jaro(known, name);
            let nearest = self.names.iter().max_by(|a, b| alike(a).total_cmp(&alike(b)));
            let nearest = nearest.filter(|nearest| alike(nearest) > ALIKE).cloned();
            let (name, names) = (name.to_owned(), self.names.clone());
            return Err(SeriesTableError::NoColumn { path: path(), name, names, nearest });
        };
        match &self.columns[index] {
            Ok(column) => Ok(column.view()),
            &Err((place, expected)) => Err(SeriesTableError::Value {
                path: path(),
                line: self.lines[place],
                column: name.to_owned(),
                expected,
                got: self.cells[index][place].clone(),
            }),
        }
    }
}

/// The numbers of a column, all finite, or the first place with something else.
fn numbers(cells: &[String]) -> Result<Array1<f64>, usize> {
    let cells = cells.iter().enumerate();
    let number = |cell: &String| cell.parse().ok().filter(|value: &f64| value.is_finite());
    cells.map(|(place, cell)| number(cell).ok_or(place)).collect()
}

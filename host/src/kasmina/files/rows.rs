//! Rows of numbers as lines of text.

use std::io::{self, BufRead, Read};

/// Rows of one length, a line of comma-separated numbers each. Lines without anything are none.
///
/// ```
/// use kasmina::kasmina::files::RowReader;
///
/// let mut rows = RowReader::new("1,2\n\n 3, 4e0\n5\n".as_bytes(), 2);
/// let mut values = Vec::new();
/// assert!(rows.read_into(&mut values).unwrap() && rows.read_into(&mut values).unwrap());
/// assert_eq!(values, [1.0, 2.0, 3.0, 4.0]);
/// let why = rows.read_into(&mut values).unwrap_err().to_string();
/// assert_eq!(why, "line 4: 1 numbers, expected 2, one for each column");
/// ```
#[derive(Debug)]
pub struct RowReader<R> {
    input: R,
    columns: usize,
    line: u64,
    bytes: Vec<u8>,
}

/// Text that is no row.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RowError {
    /// A row of another length.
    #[error("line {line}: {got} numbers, expected {expected}, one for each column")]
    Columns {
        /// The line, from 1.
        line: u64,
        /// Columns.
        expected: usize,
        /// Its numbers.
        got: usize,
    },
    /// Something else than a number.
    #[error("line {line}, column {column}: `{got}`, expected a finite number")]
    Number {
        /// The line, from 1.
        line: u64,
        /// The column, from 1.
        column: usize,
        /// What stands there, or its beginning.
        got: String,
    },
    /// A line without end.
    #[error("line {line}: more than {limit} bytes, expected {expected} numbers")]
    TooLong {
        /// The line, from 1.
        line: u64,
        /// What a line may have.
        limit: u64,
        /// Columns.
        expected: usize,
    },
    /// What cannot be read.
    #[error("line {line}: {source}")]
    Read {
        /// The line, from 1.
        line: u64,
        /// The system's answer.
        source: io::Error,
    },
}

/// Bytes of a number at most: more digits than any needs.
const NUMBER_BYTES: u64 = 512;

/// Characters of what is no number that an error shows.
const SHOWN: usize = 40;

impl<R: BufRead> RowReader<R> {
    /// Rows of `columns` numbers.
    pub fn new(input: R, columns: usize) -> Self {
        Self { input, columns, line: 0, bytes: Vec::new() }
    }

    /// Adds the next row to `values`. False at the end, where there is none.
    ///
    /// # Errors
    /// A line that is no row; the numbers before the wrong one may have been added then.
    pub fn read_into(&mut self, values: &mut Vec<f32>) -> Result<bool, RowError> {
        loop {
            self.line += 1;
            self.bytes.clear();
            let (line, expected) = (self.line, self.columns);
            let limit = NUMBER_BYTES.saturating_mul((expected as u64).saturating_add(8));
            let taken = self.input.by_ref().take(limit).read_until(b'\n', &mut self.bytes);
            if taken.map_err(|source| RowError::Read { line, source })? == 0 {
                return Ok(false);
            }
            if self.bytes.len() as u64 == limit && !self.bytes.ends_with(b"\n") {
                return Err(RowError::TooLong { line, limit, expected });
            }
            let text = String::from_utf8_lossy(&self.bytes);
            let text = text.trim();
            if text.is_empty() {
                continue;
            }
            let got = text.split(',').count();
            if got != expected {
                return Err(RowError::Columns { line, expected, got });
            }
            for (column, cell) in (1..).zip(text.split(',').map(str::trim)) {
                let value = cell.parse().ok().filter(|value: &f32| value.is_finite());
                let got = || cell.chars().take(SHOWN).collect();
                values.push(value.ok_or_else(|| RowError::Number { line, column, got: got() })?);
            }
            return Ok(true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of a text as rows of three numbers.
    fn rows(text: &[u8]) -> Result<Vec<f32>, RowError> {
        let (mut rows, mut values) = (RowReader::new(text, 3), Vec::new());
        while rows.read_into(&mut values)? {}
        Ok(values)
    }

    #[test]
    fn lines_are_rows() {
        let values = rows(b"1,2,3\n\n 4, 5e0 ,-6\r\n7,8,9").unwrap();
        assert_eq!(values, [1.0, 2.0, 3.0, 4.0, 5.0, -6.0, 7.0, 8.0, 9.0]);
        for text in ["", "\n \n"] {
            assert!(rows(text.as_bytes()).unwrap().is_empty());
        }
    }

    #[test]
    fn lines_that_are_no_rows_are_refused_with_their_number() {
        for (text, said) in [
            (&b"1,2,3\n1,2\n"[..], "line 2: 2 numbers, expected 3"),
            (b"1,2,3\n\n1,2,3,4\n", "line 3: 4 numbers, expected 3"),
            (b"1,,3\n", "line 1, column 2: ``, expected a finite number"),
            (b"a,b,c\n", "line 1, column 1: `a`"),
            (b"1,2,nan\n", "line 1, column 3: `nan`"),
            (b"1,2,1e99\n", "line 1, column 3: `1e99`"),
            (b"1,2,\xff\n", "line 1, column 3"),
        ] {
            let why = rows(text).unwrap_err().to_string();
            assert!(why.contains(said), "{why}");
        }
    }

    #[test]
    fn a_line_without_end_is_refused() {
        let mut rows = RowReader::new(io::BufReader::new(io::repeat(b'1')), 3);
        let why = rows.read_into(&mut Vec::new()).unwrap_err();
        assert!(matches!(why, RowError::TooLong { line: 1, .. }), "{why}");
    }
}

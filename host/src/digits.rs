//! The real data that ships with the project: 1797 handwritten digits of 8 × 8 grey values. Source and
//! licence stand in `data/README.md`.

const CSV: &[u8] = include_bytes!("../../data/digits.csv");

/// Grey values run from 0 to this.
pub(crate) const WHITE: u8 = 16;

/// Pixels of an image.
pub(crate) const PIXELS: usize = 64;

/// Images of the data set.
const IMAGES: usize = 1797;

/// The digits as they are read.
#[derive(Debug)]
pub(crate) struct Digits {
    /// Grey values, `[1797, 64]` row-major, 0 to [`WHITE`].
    pub(crate) pixels: Vec<u8>,
    /// What each image shows, 0 to 9, `[1797]`.
    pub(crate) labels: Vec<u8>,
}

/// A data set that is not the one that ships with the project; restore `data/digits.csv`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DigitsError {
    /// A line that is no line of 65 numbers from 0 to 255.
    #[error("data/digits.csv: {0}; restore the file")]
    Csv(#[from] csv::Error),
    /// A line that is too short or too long.
    #[error("data/digits.csv: line {line} has {got} values, expected {expected}; restore the file")]
    Columns {
        /// The line, from 1.
        line: usize,
        /// Values of a line.
        expected: usize,
        /// Values found.
        got: usize,
    },
    /// A number out of range.
    #[error("data/digits.csv: line {line} has {got}, expected 0 to {most}; restore the file")]
    Value {
        /// The line, from 1.
        line: usize,
        /// The largest that may stand there.
        most: u8,
        /// What stands there.
        got: u8,
    },
    /// Too few or too many lines.
    #[error("data/digits.csv: {got} lines, expected {expected}; restore the file")]
    Lines {
        /// Lines of the data set.
        expected: usize,
        /// Lines found.
        got: usize,
    },
}

impl Digits {
    /// Reads the copy that the build carries.
    ///
    /// # Errors
    /// A file that was changed before the build.
    pub(crate) fn load() -> Result<Self, DigitsError> {
        Self::parse(CSV)
    }

    fn parse(csv: &[u8]) -> Result<Self, DigitsError> {
        let mut digits = Self { pixels: Vec::with_capacity(IMAGES * PIXELS), labels: Vec::new() };
        let mut reader =
            csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(csv);
        for (line, values) in reader.deserialize::<Vec<u8>>().enumerate() {
            let (line, values) = (line + 1, values?);
            let Some((&label, pixels)) = values.split_last().filter(|_| values.len() == PIXELS + 1)
            else {
                let (expected, got) = (PIXELS + 1, values.len());
                return Err(DigitsError::Columns { line, expected, got });
            };
            check(line, WHITE, pixels)?;
            check(line, 9, &[label])?;
            digits.pixels.extend_from_slice(pixels);
            digits.labels.push(label);
        }
        match digits.labels.len() {
            IMAGES => Ok(digits),
            got => Err(DigitsError::Lines { expected: IMAGES, got }),
        }
    }
}

fn check(line: usize, most: u8, values: &[u8]) -> Result<(), DigitsError> {
    match values.iter().find(|&&value| value > most) {
        Some(&got) => Err(DigitsError::Value { line, most, got }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The figures of `data/README.md`.
    #[test]
    fn the_data_set_is_the_documented_one() {
        let digits = Digits::load().unwrap();
        let squares = digits.pixels.iter().map(|&g| u32::from(g).pow(2)).sum::<u32>();
        assert_eq!(digits.pixels.iter().map(|&g| u32::from(g)).sum::<u32>(), 561_718);
        assert_eq!(squares, 6_907_012);
        assert_eq!(digits.pixels.iter().filter(|&&g| g == 0).count(), 56_272);
        assert_eq!(digits.labels.iter().map(|&l| u32::from(l)).sum::<u32>(), 8070);
    }

    #[test]
    fn a_changed_file_is_refused_with_the_line() {
        let text = std::str::from_utf8(CSV).unwrap();
        let refused = |text: &str| Digits::parse(text.as_bytes()).unwrap_err().to_string();
        assert!(refused(&text.replacen("0,0,5,", "0,0,17,", 1)).contains("line 1 has 17"));
        assert!(refused(&text.replacen("0,0,5,", "0,0,", 1)).contains("line 1 has 64 values"));
        assert!(refused(&text.replacen("0,0,5,", "0,x,5,", 1)).contains("digits.csv"));
        let (_, all_but_one) = text.split_once('\n').unwrap();
        assert!(refused(all_but_one).contains("1796 lines, expected 1797"));
    }
}

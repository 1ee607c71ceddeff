//! The real time series that ship with the project: output, consumption and investment of the United States by
//! quarters, 1959 to 2009. Source and licence stand in `data/README.md`.

const CSV: &[u8] = include_bytes!("../../data/macroeconomy.csv");

/// Quarters of the data set.
const QUARTERS: usize = 203;

/// Growth from quarter to quarter, in per cent: 100·ln(x_t / x_{t−1}), `[202]` each.
#[derive(Debug)]
pub(crate) struct Growth {
    /// Of private consumption.
    pub(crate) consumption: Vec<f64>,
    /// Of private investment.
    pub(crate) investment: Vec<f64>,
}

impl Growth {
    /// Reads the data set.
    ///
    /// # Errors
    /// A file that was changed before the build: what is wrong with it.
    pub(crate) fn load() -> Result<Self, String> {
        let restore = |what: &str| format!("data/macroeconomy.csv: {what}; restore the file");
        let mut reader = csv::Reader::from_reader(CSV);
        let (mut consumption, mut investment) = (Vec::new(), Vec::new());
        for record in reader.deserialize::<(u32, u32, f64, f64, f64)>() {
            let (_, _, _, consumed, invested) =
                record.map_err(|error| restore(&error.to_string()))?;
            consumption.push(consumed);
            investment.push(invested);
        }
        if consumption.len() != QUARTERS {
            let lines = consumption.len();
            return Err(restore(&format!("{lines} quarters, expected {QUARTERS}")));
        }
        let growth = |values: Vec<f64>| {
            values.windows(2).map(|pair| 100.0 * (pair[1] / pair[0]).ln()).collect()
        };
        Ok(Self { consumption: growth(consumption), investment: growth(investment) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_set_is_the_one_that_the_readme_names() {
        let growth = Growth::load().unwrap();
        assert_eq!(growth.consumption.len(), QUARTERS - 1);
        assert_eq!(growth.investment.len(), QUARTERS - 1);
        assert!(
            growth.investment.iter().chain(&growth.consumption).all(|value| value.abs() < 30.0)
        );
    }
}

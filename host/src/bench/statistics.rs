//! What many samples of one time come to.

use serde::{Deserialize, Serialize};

/// Median and spread of samples, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    /// How many samples there are.
    pub samples: usize,
    /// The middle one; of an even number, the mean of the two in the middle.
    pub median_us: f64,
    /// The shortest.
    pub min_us: f64,
    /// The longest.
    pub max_us: f64,
}

impl Statistics {
    /// Of samples in any order; `None` where there are none.
    pub fn of(samples_us: &[f64]) -> Option<Self> {
        let mut sorted = samples_us.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (&min_us, &max_us) = (sorted.first()?, sorted.last()?);
        let middle = sorted.len() / 2;
        let median_us = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            (sorted[middle - 1] + sorted[middle]) / 2.0
        };
        Some(Self { samples: sorted.len(), median_us, min_us, max_us })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_odd_number_is_a_sample_and_of_an_even_number_between_two() {
        let odd = Statistics::of(&[9.0, 1.0, 4.0]).unwrap();
        assert_eq!(odd, Statistics { samples: 3, median_us: 4.0, min_us: 1.0, max_us: 9.0 });
        let even = Statistics::of(&[9.0, 1.0, 4.0, 6.0]).unwrap();
        assert_eq!(even, Statistics { samples: 4, median_us: 5.0, min_us: 1.0, max_us: 9.0 });
    }

    #[test]
    fn one_slow_sample_moves_the_largest_alone() {
        let mut samples = vec![2.0; 30];
        samples[17] = 500.0;
        let statistics = Statistics::of(&samples).unwrap();
        assert_eq!((statistics.median_us, statistics.max_us), (2.0, 500.0));
    }

    #[test]
    fn nothing_has_no_median() {
        assert_eq!(Statistics::of(&[]), None);
    }
}

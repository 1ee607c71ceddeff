//! Whether results of a group share elements.

use super::error::LinearError;
use super::shape::Extent;

/// Refuses results of which two share an element. Those that end before the next begins are not looked at in pairs.
pub(super) fn check_disjoint(
    what: &'static str,
    results: impl Iterator<Item = Extent>,
) -> Result<(), LinearError> {
    let mut results: Vec<_> =
        results.enumerate().filter(|(_, extent)| extent.elements() > 0).collect();
    results.sort_by_key(|(_, extent)| extent.stride);
    for (i, (first, one)) in results.iter().enumerate() {
        let end = one.stride + one.elements() as u64;
        for (second, other) in results[i + 1..].iter().take_while(|(_, other)| other.stride < end) {
            if overlap(one, other) {
                let (first, second) = (*first.min(second), *first.max(second));
                return Err(LinearError::GroupOverlap { what, first, second });
            }
        }
    }
    Ok(())
}

/// Whether two matrices share an element, of which the second does not begin before the first.
fn overlap(one: &Extent, other: &Extent) -> bool {
    let ld = one.ld as u64;
    if one.ld == other.ld && ld > 0 {
        // Each row of the second begins so far behind the beginning of a row of the first.
        let ahead = other.stride - one.stride;
        let (row, column) = (ahead / ld, ahead % ld);
        let rows = one.rows as u64;
        return column < one.columns as u64 && row < rows
            || column + other.columns as u64 > ld && row + 1 < rows;
    }
    let begin = |extent: &Extent, row: usize| extent.stride + (row * extent.ld) as u64;
    let (mut i, mut j) = (0, 0);
    while i < one.rows && j < other.rows {
        let (a, b) = (begin(one, i), begin(other, j));
        if a < b + other.columns as u64 && b < a + one.columns as u64 {
            return true;
        }
        if a < b { i += 1 } else { j += 1 }
    }
    false
}

#[cfg(test)]
mod tests {
    use kasmina_types::{Layout, LinearStrides};

    use super::*;
    use crate::linear::LinearShape;

    /// `[rows, columns]` from `begin` on, rows `ld` apart.
    fn result(begin: usize, rows: usize, columns: usize, ld: usize) -> Extent {
        let strides = LinearStrides { d: begin as u64, ..LinearStrides::default() };
        LinearShape { ldd: ld, strides, ..LinearShape::new(Layout::NN, rows, columns, 0) }.d()
    }

    /// Against the elements one by one.
    #[test]
    fn overlaps_are_those_of_elements() {
        let elements = |extent: &Extent| -> Vec<usize> {
            let begin = extent.stride as usize;
            (0..extent.rows)
                .flat_map(|row| (0..extent.columns).map(move |column| (row, column)))
                .map(|(row, column)| begin + row * extent.ld + column)
                .collect()
        };
        let shapes = [(1, 1, 1), (1, 3, 3), (2, 2, 5), (3, 2, 5), (4, 1, 2), (2, 5, 5), (3, 3, 4)];
        let mut met = 0;
        for (rows, columns, ld) in shapes {
            let one = result(3, rows, columns, ld);
            for (rows, columns, ld) in shapes {
                for begin in 3..30 {
                    let other = result(begin, rows, columns, ld);
                    let own = elements(&one);
                    let expected = elements(&other).iter().any(|at| own.contains(at));
                    assert_eq!(overlap(&one, &other), expected, "{one:?} {other:?}");
                    met += usize::from(expected);
                }
            }
        }
        assert!(met > 100, "{met}");
    }
}

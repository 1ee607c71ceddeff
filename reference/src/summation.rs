//! Summation in f64 along one fixed tree: the rounding error grows with the logarithm of the length, and the
//! bits do not depend on the number of threads.

use std::ops::Add;

/// A leaf is summed in `LANES` interleaved running sums.
const LEAF: usize = 1024;
const LANES: usize = 8;
/// Below this length a split costs more than it saves; the tree is the same either way.
const PARALLEL_ABOVE: usize = 1 << 15;

/// Σ `term(v)` over `values`; zero when there are none.
pub(crate) fn pairwise_sum<V: Sync>(values: &[V], term: impl Fn(&V) -> f64 + Copy + Sync) -> f64 {
    fold(values, &|leaf: &[V]| {
        let mut lanes = [0.0; LANES];
        for group in leaf.chunks(LANES) {
            for (lane, value) in lanes.iter_mut().zip(group) {
                *lane += term(value);
            }
        }
        lanes.into_iter().fold(0.0, f64::add)
    })
}

fn fold<V: Sync>(values: &[V], leaf: &(impl Fn(&[V]) -> f64 + Sync)) -> f64 {
    if values.len() <= LEAF {
        return leaf(values);
    }
    let (left, right) = values.split_at(values.len() / 2);
    if values.len() > PARALLEL_ABOVE {
        let (left, right) = rayon::join(|| fold(left, leaf), || fold(right, leaf));
        left + right
    } else {
        fold(left, leaf) + fold(right, leaf)
    }
}

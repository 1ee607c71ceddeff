//! An order of points in which near ones stand together, and boxes around them: what lets a search leave
//! candidates out.

use std::cmp::Ordering;

use kasmina_types::transfer_entropy::{TE_BOX_DIMS, TE_BOX_POINTS};
use num_traits::Float;

const BOX: usize = TE_BOX_POINTS as usize;

/// Below this a half is ordered by the thread that has it.
const PARALLEL_ABOVE: usize = 1 << 13;

/// Points ordered by halving: the widest coordinate is cut where a box ends, near its median. `coordinates` has
/// [`TE_BOX_DIMS`] at most.
pub(super) fn by_halves<T: Float + Send + Sync>(coordinates: &[&[T]], points: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..points as u32).collect();
    halve(coordinates, &mut order);
    order
}

fn halve<T: Float + Send + Sync>(coordinates: &[&[T]], order: &mut [u32]) {
    if order.len() <= BOX {
        return;
    }
    let width = |coordinate: &&&[T]| {
        let (low, high) = extent(coordinate, order);
        high - low
    };
    let widest = coordinates
        .iter()
        .max_by(|a, b| width(a).partial_cmp(&width(b)).unwrap_or(Ordering::Equal));
    let Some(widest) = widest else { return };
    let middle = (order.len() / BOX).div_ceil(2) * BOX;
    order.select_nth_unstable_by(middle, |&a, &b| {
        let by_value = widest[a as usize].partial_cmp(&widest[b as usize]);
        by_value.unwrap_or(Ordering::Equal).then(a.cmp(&b))
    });
    let (low, high) = order.split_at_mut(middle);
    if low.len() > PARALLEL_ABOVE {
        rayon::join(|| halve(coordinates, low), || halve(coordinates, high));
    } else {
        halve(coordinates, low);
        halve(coordinates, high);
    }
}

fn extent<T: Float>(coordinate: &[T], order: &[u32]) -> (T, T) {
    order.iter().fold((T::infinity(), T::neg_infinity()), |(low, high), &point| {
        let value = coordinate[point as usize];
        (low.min(value), high.max(value))
    })
}

/// The least and the largest value of each coordinate in each box of the order.
pub(super) fn boxes<T: Float>(coordinates: &[&[T]], order: &[u32]) -> Vec<T> {
    let mut boxes = Vec::with_capacity(order.len().div_ceil(BOX) * TE_BOX_DIMS * 2);
    for points in order.chunks(BOX) {
        for dimension in 0..TE_BOX_DIMS {
            let (low, high) = match coordinates.get(dimension) {
                Some(coordinate) => extent(coordinate, points),
                None => (T::zero(), T::zero()),
            };
            boxes.extend([low, high]);
        }
    }
    boxes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_point_is_in_one_box_that_holds_it() {
        let values: Vec<f64> = (0..1000).map(|i| f64::from(i * 7919 % 1009)).collect();
        let other: Vec<f64> = (0..1000).map(|i| f64::from(i % 13)).collect();
        let coordinates = [&values[..], &other[..]];
        let order = by_halves(&coordinates, 1000);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert!(sorted.iter().enumerate().all(|(i, &point)| i as u32 == point));
        let boxes = boxes(&coordinates, &order);
        assert_eq!(boxes.len(), 8 * 6);
        let mut widths = 0.0;
        for (points, bounds) in order.chunks(BOX).zip(boxes.chunks(6)) {
            for &point in points {
                let point = point as usize;
                assert!((bounds[0]..=bounds[1]).contains(&values[point]));
                assert!((bounds[2]..=bounds[3]).contains(&other[point]));
            }
            assert_eq!(bounds[4..], [0.0, 0.0]);
            widths += bounds[1] - bounds[0];
        }
        // Eight boxes that halve the wide coordinate cover about its width once.
        assert!(widths < 2.0 * 1009.0, "{widths}");
    }
}

//! The K nearest of each point in the joint space, maximum norm.

use ndarray::Axis;
use rayon::prelude::*;

use super::embedding::Points;
use super::error::TransferEntropyError;
use crate::Real;

/// Which estimator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// One radius for all subspaces, counted strictly: Kraskov's first, in Frenzel and Pompe's form.
    One,
    /// A radius for each of y_t, x⁻ and y⁻, counted up to and with it: Wibral's.
    Two,
}

/// What both passes over the points have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Search {
    /// K.
    pub k: usize,
    /// The estimator.
    pub algorithm: Algorithm,
    /// Points up to so many steps before or after a point are no neighbours of it: the Theiler window.
    pub theiler: usize,
}

impl Search {
    /// Other points that a point has at least, outside its Theiler window.
    pub fn available(&self, points: usize) -> usize {
        points.saturating_sub(1).saturating_sub(self.theiler.saturating_mul(2))
    }

    /// # Errors
    /// Points that have no neighbours, or K of 0, or more than the neighbours that there are.
    pub fn check(&self, points: usize) -> Result<(), TransferEntropyError> {
        let most = self.available(points);
        if most == 0 {
            return Err(TransferEntropyError::NoNeighbours { points, theiler: self.theiler });
        }
        if self.k == 0 || self.k > most {
            return Err(TransferEntropyError::Neighbours { most, got: self.k });
        }
        Ok(())
    }
}

/// What is known of each point's neighbourhood.
#[derive(Debug, Clone, PartialEq)]
pub struct Neighbours<T> {
    /// The distance to the K-th nearest other point.
    pub epsilon: Vec<T>,
    /// The largest distances of the K nearest in y⁻, in y_t and in x⁻. Of equally distant ones those with the lower
    /// index count.
    pub largest: Vec<[T; 3]>,
    /// Whether another point, not among the K, is as far as the K-th.
    pub tied: Vec<bool>,
}

/// The distances from one point to all in y⁻, y_t and x⁻.
pub(super) struct Distances<T> {
    pub(super) past: Vec<T>,
    pub(super) next: Vec<T>,
    pub(super) source: Vec<T>,
}

impl<T: Real> Distances<T> {
    pub(super) fn new(points: usize) -> Self {
        let zeros = vec![T::zero(); points];
        Self { past: zeros.clone(), next: zeros.clone(), source: zeros }
    }

    /// Measures those from point `i`. The points in its Theiler window, itself among them, are infinitely far.
    pub(super) fn measure(
        &mut self,
        points: &Points<T>,
        source: &[Vec<T>],
        i: usize,
        theiler: usize,
    ) {
        self.past.fill(T::zero());
        self.source.fill(T::zero());
        for row in points.past.axis_iter(Axis(0)) {
            grow(&mut self.past, row.to_slice().expect("rows are contiguous"), i);
        }
        for row in source {
            grow(&mut self.source, row, i);
        }
        self.next.fill(T::zero());
        grow(&mut self.next, &points.next, i);
        let window = i.saturating_sub(theiler)..i.saturating_add(theiler + 1).min(points.len());
        for distances in [&mut self.past, &mut self.next, &mut self.source] {
            distances[window.clone()].fill(T::infinity());
        }
    }

    pub(super) fn joint(&self, j: usize) -> T {
        larger(larger(self.past[j], self.next[j]), self.source[j])
    }
}

fn larger<T: Real>(a: T, b: T) -> T {
    if a > b { a } else { b }
}

fn grow<T: Real>(distances: &mut [T], row: &[T], i: usize) {
    let value = row[i];
    for (distance, &other) in distances.iter_mut().zip(row) {
        *distance = larger(*distance, (other - value).abs());
    }
}

/// x⁻ with the rows that a surrogate gives each point.
pub(super) fn source_rows<T: Real>(
    points: &Points<T>,
    rows: Option<&[u32]>,
) -> Result<Vec<Vec<T>>, TransferEntropyError> {
    let expected = points.len();
    if let Some(rows) = rows {
        let beyond = rows.iter().map(|&row| row as usize).find(|&row| row >= expected);
        if let Some(got) = beyond.or((rows.len() != expected).then_some(rows.len())) {
            return Err(TransferEntropyError::Rows { expected, got });
        }
    }
    let of_coordinate = |row: ndarray::ArrayView1<'_, T>| match rows {
        None => row.to_vec(),
        Some(rows) => rows.iter().map(|&from| row[from as usize]).collect(),
    };
    Ok(points.source.axis_iter(Axis(0)).map(of_coordinate).collect())
}

/// The K + 1 nearest, by distance and then by index.
pub(super) fn nearest_of<T: Real>(distances: &Distances<T>, k: usize) -> Vec<(T, usize)> {
    let mut list: Vec<(T, usize)> = Vec::with_capacity(k + 2);
    let mut worst = T::infinity();
    for j in 0..distances.past.len() {
        let distance = distances.joint(j);
        if distance < worst {
            let place = list.partition_point(|&(other, _)| other <= distance);
            list.insert(place, (distance, j));
            list.truncate(k + 1);
            if list.len() > k {
                worst = list[k].0;
            }
        }
    }
    list
}

/// What is known of the neighbourhood of one point.
pub(super) fn neighbourhood<T: Real>(distances: &Distances<T>, k: usize) -> (T, [T; 3], bool) {
    let list = nearest_of(distances, k);
    let epsilon = list[k - 1].0;
    let mut largest = [T::zero(); 3];
    for &(_, j) in &list[..k] {
        for (most, of) in
            largest.iter_mut().zip([&distances.past, &distances.next, &distances.source])
        {
            *most = larger(*most, of[j]);
        }
    }
    (epsilon, largest, list.get(k).is_some_and(|&(next, _)| next == epsilon))
}

/// The neighbourhoods of all points. With `rows`, point i has the x⁻ of point `rows[i]`.
///
/// # Errors
/// K that the points do not have, or rows that do not fit them.
pub fn nearest<T: Real>(
    points: &Points<T>,
    rows: Option<&[u32]>,
    search: &Search,
) -> Result<Neighbours<T>, TransferEntropyError> {
    search.check(points.len())?;
    let source = source_rows(points, rows)?;
    let found: Vec<(T, [T; 3], bool)> = (0..points.len())
        .into_par_iter()
        .map_init(
            || Distances::new(points.len()),
            |distances, i| {
                distances.measure(points, &source, i, search.theiler);
                neighbourhood(distances, search.k)
            },
        )
        .collect();
    Ok(Neighbours {
        epsilon: found.iter().map(|found| found.0).collect(),
        largest: found.iter().map(|found| found.1).collect(),
        tied: found.iter().map(|found| found.2).collect(),
    })
}

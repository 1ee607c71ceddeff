//! The nearest seen so far, in registers: ascending, `W · G` of them, and the one after them.
//!
//! Where fewer are wanted the first places hold a value below every distance, so that the last is always the
//! K-th. Places not taken yet hold a value that is above the K-th for sure. What a full list pushes out is never
//! nearer than what was pushed out later and kept out, so that the smallest of it is the one after the K-th; a candidate
//! that is as near as the last must be offered, one that is farther need not.

use kasmina_device::unroll;
use kasmina_types::transfer_entropy::TE_NONE;

use super::distance::Distance;

/// A list of the nearest.
pub(super) trait Nearest<T: Distance>: Copy {
    /// Whether the neighbours' numbers are kept.
    const NUMBERED: bool;
    /// Places.
    const CAPACITY: usize;

    /// A list for `k` neighbours nearer than `fill`.
    fn new(k: u32, fill: T) -> Self;
    /// The K-th.
    fn worst(&self) -> T;
    /// The one after it, if anything as near as the K-th is there.
    fn next(&self) -> T;
    /// Takes a candidate that is as near as the K-th or nearer.
    fn insert(&mut self, distance: T, number: u32);
    /// A list of what `load` has at each place, and last the one after them: all loads are on their way together.
    fn gather(load: impl FnMut(usize) -> (T, u32)) -> Self;
    /// Hands over place, distance and number of each, and last of the one after them.
    fn each(&self, f: impl FnMut(usize, T, u32));
}

/// Distances alone.
#[derive(Clone, Copy)]
pub(super) struct Distances<T, const W: usize, const G: usize> {
    near: [[T; W]; G],
    next: T,
}

/// Distances and numbers; of equally near ones the lower number comes first.
#[derive(Clone, Copy)]
pub(super) struct Numbered<T, const W: usize, const G: usize> {
    near: [[T; W]; G],
    numbers: [[u32; W]; G],
    next: T,
}

/// What stands at place `at` of a new list.
#[inline(always)]
fn filled<T: Distance>(at: usize, capacity: usize, k: u32, fill: T) -> T {
    if at + (k as usize) < capacity { T::BELOW_ALL } else { fill }
}

impl<T: Distance, const W: usize, const G: usize> Nearest<T> for Distances<T, W, G> {
    const NUMBERED: bool = false;
    const CAPACITY: usize = W * G;

    #[inline(always)]
    fn new(k: u32, fill: T) -> Self {
        let mut near = [[fill; W]; G];
        unroll!(g in G => {
            unroll!(w in W => { near[g][w] = filled(g * W + w, W * G, k, fill); });
        });
        Self { near, next: fill }
    }

    #[inline(always)]
    fn worst(&self) -> T {
        self.near[G - 1][W - 1]
    }

    #[inline(always)]
    fn next(&self) -> T {
        self.next
    }

    #[inline(always)]
    fn insert(&mut self, distance: T, _number: u32) {
        let mut carried = distance;
        unroll!(g in G => {
            unroll!(w in W => {
                let here = self.near[g][w];
                self.near[g][w] = T::smaller(here, carried);
                carried = T::larger(here, carried);
            });
        });
        self.next = T::smaller(self.next, carried);
    }

    #[inline(always)]
    fn gather(mut load: impl FnMut(usize) -> (T, u32)) -> Self {
        let mut list = Self::new(0, T::ZERO);
        unroll!(g in G => {
            unroll!(w in W => { list.near[g][w] = load(g * W + w).0; });
        });
        list.next = load(W * G).0;
        list
    }

    #[inline(always)]
    fn each(&self, mut f: impl FnMut(usize, T, u32)) {
        unroll!(g in G => {
            unroll!(w in W => { f(g * W + w, self.near[g][w], TE_NONE); });
        });
        f(W * G, self.next, TE_NONE);
    }
}

impl<T: Distance, const W: usize, const G: usize> Nearest<T> for Numbered<T, W, G> {
    const NUMBERED: bool = true;
    const CAPACITY: usize = W * G;

    #[inline(always)]
    fn new(k: u32, fill: T) -> Self {
        let near = Distances::<T, W, G>::new(k, fill).near;
        Self { near, numbers: [[TE_NONE; W]; G], next: fill }
    }

    #[inline(always)]
    fn worst(&self) -> T {
        self.near[G - 1][W - 1]
    }

    #[inline(always)]
    fn next(&self) -> T {
        self.next
    }

    #[inline(always)]
    fn insert(&mut self, distance: T, number: u32) {
        let (mut carried, mut carried_number) = (distance, number);
        unroll!(g in G => {
            unroll!(w in W => {
                let (here, here_number) = (self.near[g][w], self.numbers[g][w]);
                let goes = carried < here || (carried == here && carried_number < here_number);
                self.near[g][w] = if goes { carried } else { here };
                self.numbers[g][w] = if goes { carried_number } else { here_number };
                carried = if goes { here } else { carried };
                carried_number = if goes { here_number } else { carried_number };
            });
        });
        let _ = carried_number;
        self.next = T::smaller(self.next, carried);
    }

    #[inline(always)]
    fn gather(mut load: impl FnMut(usize) -> (T, u32)) -> Self {
        let mut list = Self::new(0, T::ZERO);
        unroll!(g in G => {
            unroll!(w in W => {
                (list.near[g][w], list.numbers[g][w]) = load(g * W + w);
            });
        });
        list.next = load(W * G).0;
        list
    }

    #[inline(always)]
    fn each(&self, mut f: impl FnMut(usize, T, u32)) {
        unroll!(g in G => {
            unroll!(w in W => { f(g * W + w, self.near[g][w], self.numbers[g][w]); });
        });
        f(W * G, self.next, TE_NONE);
    }
}

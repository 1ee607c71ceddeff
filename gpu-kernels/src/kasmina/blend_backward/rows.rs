//! The rows of g and x that a thread of `blend_backward` works on: a group of them.

use kasmina_device::convert::Float;
use kasmina_device::global::Load;
use kasmina_device::vector::Vector;
use kasmina_device::{hint, unroll};
use kasmina_types::In;

use super::{Group, LOADS, Walk};
use crate::kasmina::slopes::Slopes;

impl<T: Float, const L: usize, const R: usize> Walk<T, L, R> {
    /// The columns of row `r` of a group, from those of the row before it. Opaque, for the registers that the
    /// offsets of a group's rows from the three arrays would take.
    #[inline(always)]
    pub(super) fn row(&self, r: usize, before: usize) -> usize {
        if r == 0 {
            before
        } else {
            hint::opaque_index(before + self.stride as usize * self.hidden)
        }
    }

    #[inline(always)]
    pub(super) fn nothing(&self) -> Group<T, L, R> {
        [Vector([T::zeroed(); L]); R]
    }

    /// Loads the vectors of `N` rows, the first at element `at`.
    ///
    /// # Safety
    /// The rows exist; rows and columns are multiples of `L` elements.
    #[inline(always)]
    pub(super) unsafe fn load<const N: usize>(&self, from: &In<T>, at: usize) -> Group<T, L, N> {
        let mut group = [Vector([T::zeroed(); L]); N];
        let mut at = at;
        unroll!(r in N => {
            at = self.row(r, at);
            // SAFETY: the caller's contract.
            group[r] = unsafe { from.load_vector(at, LOADS) };
        });
        group
    }

    /// x of `N` rows, or 1 in its place where the seed needs none.
    ///
    /// # Safety
    /// As [`Self::load`].
    #[inline(always)]
    pub(super) unsafe fn load_input<const N: usize>(
        &self,
        at: usize,
        c: &Slopes<L>,
    ) -> Group<T, L, N> {
        if c.reads_input {
            // SAFETY: the caller's contract.
            unsafe { self.load(&self.input, at) }
        } else {
            [Vector([T::from_f32(1.0); L]); N]
        }
    }
}

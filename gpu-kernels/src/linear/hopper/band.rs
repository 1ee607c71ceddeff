//! From a warpgroup's sums to results of any kind: sums are staged in shared memory, 64 rows by 64 columns, and results are made
//! in vectors of four neighbours, of which each is one access.

use kasmina_device::shared::DynamicShared;
use kasmina_device::vector::Vector;
use kasmina_device::{hint, unroll};
use kasmina_types::LinearWgmmaParams;

use super::super::epilogue::Epilogue;
use super::super::place::Place;
use super::shared_map::BAND;
use super::store::Team;

/// The element of a band of sums at row r and column c of D: groups of eight columns are permuted within rows, so that
/// pairs of a fragment are written, and vectors read, without many conflicts.
#[inline(always)]
const fn staged(r: usize, c: usize) -> usize {
    r * BAND + (c ^ (r % 8 * 8))
}

/// Stages a window of sums, as D has them: transposed where `SWAPPED`.
///
/// # Safety
/// The warpgroup's threads are done with what was there.
#[inline(always)]
pub(crate) unsafe fn stage<const W: usize, const SWAPPED: bool>(team: &Team, window: [f32; W]) {
    let shared = DynamicShared::<f32>::whole();
    // As in `by_bulk_stores`.
    let t = hint::opaque_index(team.t);
    let (lane, first) = (t % 32, team.staging / 4);
    let row = t / 32 * 16 + lane / 4;
    unroll!(q in W / 4 => {
        let column = 8 * q + lane % 4 * 2;
        let x = [window[4 * q], window[4 * q + 1], window[4 * q + 2], window[4 * q + 3]];
        // SAFETY: inside the band, each value one thread's; pairs are even.
        unsafe {
            if SWAPPED {
                shared.write(first + staged(column, row), x[0]);
                shared.write(first + staged(column + 1, row), x[1]);
                shared.write(first + staged(column, row + 8), x[2]);
                shared.write(first + staged(column + 1, row + 8), x[3]);
            } else {
                shared.write_vector(first + staged(row, column), Vector([x[0], x[1]]));
                shared.write_vector(first + staged(row + 8, column), Vector([x[2], x[3]]));
            }
        }
    });
}

/// A band of staged sums, of which results are made in vectors of four neighbours: every thread has the same four columns in
/// each of its rows.
#[derive(Clone, Copy)]
pub(crate) struct Band<const W: usize, const SWAPPED: bool> {
    epilogue: Epilogue<f32, true>,
    // 32 bits, for they lie beside the sums.
    /// Row of D of its first.
    row: u32,
    /// The thread's first column in the band.
    of_band: u32,
    /// The same in D.
    column: u32,
    bias: [f32; 4],
}

impl<const W: usize, const SWAPPED: bool> Band<W, SWAPPED> {
    /// Vectors of a row.
    const ACROSS: usize = if SWAPPED { BAND / 4 } else { W / 2 };
    const VECTORS: usize = 2 * W * BAND / 4;

    /// The band whose first row and column of D are `first`; its bias is asked for.
    ///
    /// # Safety
    /// p is as [`LinearWgmmaParams`] says, and the place inside D.
    #[inline(always)]
    pub(crate) unsafe fn new(
        p: &LinearWgmmaParams,
        place: &Place,
        team: &Team,
        first: (usize, usize),
    ) -> Self {
        // Threads are a multiple of the vectors of a row, and so is the first vector of a block's share.
        const { assert!(128 % Self::ACROSS == 0 && Self::VECTORS % (8 * Self::ACROSS) == 0) };
        // SAFETY: the caller's contract.
        let epilogue = unsafe { Epilogue::<f32, true>::new(&p.linear, place, 4) };
        let of_band = hint::opaque_index(team.t) % Self::ACROSS * 4;
        let column = first.1 + of_band;
        let mut bias = [0.0; 4];
        if column < place.problem.n as usize {
            // SAFETY: inside D.
            bias = unsafe { epilogue.bias(&p.linear, place, column) };
        }
        Self { epilogue, row: first.0 as u32, of_band: of_band as u32, column: column as u32, bias }
    }

    /// Makes the results of share `rank` of `blocks`, 1, 2, 4 or 8, of the band. `sums` gives four values at an element of
    /// shared memory.
    ///
    /// # Safety
    /// All threads of the warpgroup call it; the band is written, and ordered before.
    #[inline(always)]
    pub(crate) unsafe fn finish(
        &self,
        p: &LinearWgmmaParams,
        place: &Place,
        team: &Team,
        (rank, blocks): (u32, u32),
        sums: impl Fn(usize) -> [f32; 4],
    ) {
        let share = Self::VECTORS as u32 >> blocks.trailing_zeros();
        let mut vector = share * rank + hint::opaque(team.t as u32);
        let end = share * (rank + 1);
        while vector < end {
            let r = vector / Self::ACROSS as u32;
            let (row, column) = (self.row + r, self.column);
            if row < place.problem.m && column < place.problem.n {
                let x = sums(team.staging / 4 + staged(r as usize, self.of_band as usize));
                let at = (row as usize, column as usize);
                // SAFETY: inside D; each vector is one thread's of one block.
                unsafe { self.epilogue.finish(&p.linear, place, at, self.bias, x) };
            }
            vector += 128;
        }
    }
}

//! From a warpgroup's sums to results.
//!
//! Where D has a tensor map and nothing but bias and activation is wanted, results are made in registers, put into
//! boxes in shared memory, and leave by bulk stores while the next are made. Else the sums are staged, 64 rows by 64
//! columns, and results are made in vectors of four neighbours, of which each is one access.

use kasmina_device::convert::Packed;
use kasmina_device::shared::DynamicShared;
use kasmina_device::vector::Vector;
use kasmina_device::{hint, math, mma, thread, tma, unroll};
use kasmina_types::{Activation, LinearOutput, LinearWgmmaParams, TensorMapHandle, bf16, f16};

use super::super::accumulator::Accumulator;
use super::super::epilogue::Epilogue;
use super::super::gelu::{gelu_of_four, takes_halves};
use super::super::place::Place;
use super::SPAN;
use super::shared_map::{BAND, BOX_BYTES, STAGING_BYTES, SharedMap};

/// A warpgroup's part of a tile.
#[derive(Clone, Copy)]
pub(crate) struct Team {
    /// Which warpgroup.
    pub(crate) group: usize,
    /// The thread in it.
    pub(crate) t: usize,
    /// Byte of shared memory where it stages.
    staging: usize,
    /// Element of shared memory, of f32, where its bias is.
    bias: usize,
}

impl Team {
    #[inline(always)]
    pub(crate) fn new<const R: usize>(map: &SharedMap, group: usize, t: usize) -> Self {
        let bias = map.bias / 4 + group * 2 * R;
        Self { group, t, staging: map.staging + group * STAGING_BYTES, bias }
    }

    /// Waits for all of the warpgroup's threads.
    #[inline(always)]
    pub(crate) fn sync(&self) {
        thread::sync_team(1 + self.group as u32, 128);
    }

    /// Asks for the bias of the tile's columns, zeros where there is none: for thread t's, t and t + 128.
    ///
    /// # Safety
    /// p is as [`LinearWgmmaParams`] says, and the place inside D.
    #[inline(always)]
    pub(crate) unsafe fn ask_bias<const R: usize>(
        &self,
        p: &LinearWgmmaParams,
        place: &Place,
    ) -> [f32; 2] {
        let p = &p.linear;
        let mut bias = [0.0; 2];
        unroll!(i in 2 => {
            let at = self.t + 128 * i;
            let column = place.column + at;
            if at < 2 * R && !p.bias.is_empty() && column < place.problem.n as usize {
                let from = place.problem.bias as usize + column;
                // SAFETY: the column is one of D's.
                [bias[i]] = unsafe { f32::load::<1>(&p.bias, p.output, from, 1, false) };
            }
        });
        bias
    }

    /// Puts the bias, times what the sums' activation wants of them, where the warpgroup reads it.
    ///
    /// # Safety
    /// All threads of the warpgroup call it, after all have read the last tile's.
    #[inline(always)]
    pub(crate) unsafe fn keep_bias<const R: usize>(&self, p: &LinearWgmmaParams, bias: [f32; 2]) {
        let shared = DynamicShared::<f32>::whole();
        let factor = before_activation(p);
        unroll!(i in 2 => {
            let at = self.t + 128 * i;
            if at < 2 * R {
                // SAFETY: the warpgroup's own place; each value is one thread's.
                unsafe { shared.write(self.bias + at, factor * bias[i]) };
            }
        });
    }
}

/// What sums and bias are multiplied by before the activation.
#[inline(always)]
fn before_activation(p: &LinearWgmmaParams) -> f32 {
    if takes_halves(p.linear.activation, p.linear.output) { 0.5 } else { 1.0 }
}

/// Results by bulk stores to what map `d` describes. `boxes` counts those of the block so far; `window` gives the sums of 64 columns.
///
/// # Safety
/// All threads of the warpgroup call it, the bias was kept and a barrier passed; D has a map, and there are neither C
/// nor R nor Z.
#[inline(always)]
pub(crate) unsafe fn by_bulk_stores<const R: usize, const W: usize>(
    p: &LinearWgmmaParams,
    d: TensorMapHandle,
    place: &Place,
    team: &Team,
    boxes: &mut u32,
    window: impl Fn(usize) -> [f32; W],
) {
    // SAFETY: the caller's contract.
    let scale = unsafe { Epilogue::<f32, true>::new(&p.linear, place, 4) }.scale();
    let scale = scale * before_activation(p);
    if (R / W).is_multiple_of(2) {
        // As it was: no register need keep it.
        *boxes = 0;
    }
    let output = p.linear.output;
    let row = (place.row + 64 * team.group) as i32;
    let mut i = 0;
    while i < R / W {
        let sums = window(i);
        // Columns from the tile's first.
        let from = 64 * i;
        let column = (place.column + from) as i32;
        // Else places in the boxes would be kept through the products.
        let team = &Team { t: hint::opaque_index(team.t), ..*team };
        // All results come before the first is put, so that they are computed side by side.
        let mut x = [[0.0; 8]; 4];
        unroll!(j in 4, at most 4 => {
            // SAFETY: the bias is there.
            x[j] = unsafe { with_bias(team, scale, from + 16 * j, octet::<W>(&sums, j)) };
        });
        activate(p.linear.activation, output, &mut x);
        // SAFETY: the next box is the warpgroup's until it is closed.
        unsafe {
            if output == LinearOutput::F32 as u32 {
                unroll!(half in 2, at most 2 => {
                    let at = team.staging + (*boxes as usize & 1) * BOX_BYTES;
                    put_f32(team, at, 0, x[2 * half]);
                    put_f32(team, at, 16, x[2 * half + 1]);
                    close(d, place, team, at, column + 32 * half as i32, row);
                    *boxes += 1;
                });
            } else {
                let at = team.staging + (*boxes as usize & 1) * BOX_BYTES;
                if output == LinearOutput::F16 as u32 {
                    unroll!(j in 4, at most 4 => { put_halves::<f16>(team, at, j, x[j]); });
                } else {
                    unroll!(j in 4, at most 4 => { put_halves::<bf16>(team, at, j, x[j]); });
                }
                close(d, place, team, at, column, row);
                *boxes += 1;
            }
        }
        i += 1;
    }
}

/// Eight sums: of two rows eight apart, two neighbouring columns, and the two eight further.
#[inline(always)]
fn octet<const W: usize>(sums: &[f32; W], j: usize) -> [f32; 8] {
    let mut x = [0.0; 8];
    unroll!(e in 8 => { x[e] = if 8 * j + e < W { sums[8 * j + e] } else { 0.0 }; });
    x
}

/// scale · x + bias, as `keep_bias` left it, of an octet whose first column is `column` of the tile.
///
/// # Safety
/// The bias is there.
#[inline(always)]
unsafe fn with_bias(team: &Team, scale: f32, column: usize, x: [f32; 8]) -> [f32; 8] {
    let shared = DynamicShared::<f32>::whole();
    let at = team.bias + column + team.t % 4 * 2;
    // SAFETY: inside the tile's bias; even.
    let (Vector([a, b]), Vector([c, d])) =
        unsafe { (shared.read_vector::<2>(at), shared.read_vector::<2>(at + 8)) };
    let bias = [a, b, a, b, c, d, c, d];
    let mut z = [0.0; 8];
    unroll!(e in 8 => { z[e] = math::fma(scale, x[e], bias[e]); });
    z
}

/// The activation of a window. The usual ones are looked up once for all: code that runs once is mostly waited for.
#[inline(always)]
fn activate(activation: u32, output: u32, x: &mut [[f32; 8]; 4]) {
    if activation == Activation::None as u32 {
        return;
    }
    if takes_halves(activation, output) {
        gelu_of_four(activation, x);
        return;
    }
    unroll!(j in 4, at most 4 => { <f32 as Accumulator>::activate(true, activation, &mut x[j]); });
}

/// Sends the box at byte `at` off. The one before has been read then, and its place is the next one's.
///
/// # Safety
/// All threads of the warpgroup have written their part of it, and call this.
#[inline(always)]
unsafe fn close(d: TensorMapHandle, place: &Place, team: &Team, at: usize, column: i32, row: i32) {
    tma::fence_proxy_async();
    if team.t == 0 {
        tma::wait_stores_read::<0>();
    }
    team.sync();
    if team.t == 0 {
        let shared = DynamicShared::<u8>::whole();
        // SAFETY: the box is written, fenced and ordered by the barrier; it is not written again before the next one was
        // closed, which waits for its store. Tiles do not overlap.
        unsafe { tma::store_3d(shared.place(at), d, [column, row, place.number as i32]) };
        tma::commit_stores();
    }
}

/// Puts an octet, the `j`th of the box, into the box at byte `at`, as 16-bit numbers.
///
/// # Safety
/// All lanes of the warp are here; the box is this warpgroup's to write.
#[inline(always)]
unsafe fn put_halves<T: Packed>(team: &Team, at: usize, j: usize, x: [f32; 8]) {
    let shared = DynamicShared::<u8>::whole();
    let lane = team.t % 32;
    // Lanes name rows of four matrices: upper and lower rows of the left, then of the right eight columns.
    let row = team.t / 32 * 16 + lane / 8 % 2 * 8 + lane % 8;
    let chunk = (2 * j + lane / 16) ^ (row % 8);
    let words =
        [T::pack(x[0], x[1]), T::pack(x[2], x[3]), T::pack(x[4], x[5]), T::pack(x[6], x[7])];
    let to = shared.place(at + row * SPAN + 16 * chunk);
    // SAFETY: the caller's contract; rows of 16 bytes inside the box.
    unsafe { mma::store_matrices::<[u32; 4], false>(to, words) };
}

/// Puts an octet whose first column is `column` of the box into the box at byte `at`.
///
/// # Safety
/// The box is this warpgroup's to write.
#[inline(always)]
unsafe fn put_f32(team: &Team, at: usize, column: usize, x: [f32; 8]) {
    let shared = DynamicShared::<f32>::whole();
    let lane = team.t % 32;
    let row = team.t / 32 * 16 + lane / 4;
    unroll!(right in 2 => {
        let chunk = ((column + 8 * right + lane % 4 * 2) / 4) ^ (row % 8);
        let index = at / 4 + row * (SPAN / 4) + 4 * chunk + lane % 2 * 2;
        let pair = |e: usize| Vector([x[4 * right + e], x[4 * right + e + 1]]);
        // SAFETY: inside the box, each pair one thread's; even. The row eight further has the same swizzle.
        unsafe {
            shared.write_vector(index, pair(0));
            shared.write_vector(index + 8 * (SPAN / 4), pair(2));
        }
    });
}

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
    /// Row of D of its first.
    row: usize,
    /// The thread's first column in the band, and in D.
    columns: (usize, usize),
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
        Self { epilogue, row: first.0, columns: (of_band, column), bias }
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
        let log = blocks.trailing_zeros();
        let share = Self::VECTORS >> log;
        let mut vector = share * rank as usize + hint::opaque_index(team.t);
        let end = share * (rank as usize + 1);
        let (of_band, column) = self.columns;
        while vector < end {
            let r = vector / Self::ACROSS;
            let row = self.row + r;
            if row < place.problem.m as usize && column < place.problem.n as usize {
                let x = sums(team.staging / 4 + staged(r, of_band));
                // SAFETY: inside D; each vector is one thread's of one block.
                unsafe { self.epilogue.finish(&p.linear, place, (row, column), self.bias, x) };
            }
            vector += 128;
        }
    }
}

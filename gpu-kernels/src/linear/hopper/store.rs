//! From a warpgroup's sums to results, where D has a tensor map and nothing but bias and activation is wanted: results are
//! made in registers, put into boxes in shared memory, and leave by bulk stores while the next are made. `band` has the
//! other way.

use kasmina_device::convert::Packed;
use kasmina_device::shared::DynamicShared;
use kasmina_device::vector::Vector;
use kasmina_device::wgmma::Fragment;
use kasmina_device::{hint, math, mma, thread, tma, unroll};
use kasmina_types::{Activation, LinearOutput, LinearWgmmaParams, TensorMapHandle, bf16, f16};

use super::super::accumulator::Accumulator;
use super::super::epilogue::Epilogue;
use super::super::gelu::{gelu_of_four, takes_halves};
use super::super::place::Place;
use super::SPAN;
use super::shared_map::{BOX_BYTES, STAGING_BYTES, SharedMap};

/// A warpgroup's part of a tile.
#[derive(Clone, Copy)]
pub(crate) struct Team {
    /// Which warpgroup.
    pub(crate) group: usize,
    /// The thread in it.
    pub(crate) t: usize,
    /// Byte of shared memory where it stages.
    pub(super) staging: usize,
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

/// Results by bulk stores to what map `d` describes. `boxes` counts those of the warpgroup so far, but for a multiple of
/// two; `window` gives the sums of 64 columns.
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

/// As [`by_bulk_stores`], of sums in registers, for results of 16 bits with one of the usual activations, whose code is
/// written out for the whole tile: without branches it is fetched ahead. Says whether it was one.
///
/// # Safety
/// As [`by_bulk_stores`].
#[inline(always)]
pub(crate) unsafe fn by_usual_stores<const R: usize, const W: usize>(
    p: &LinearWgmmaParams,
    d: TensorMapHandle,
    place: &Place,
    team: &Team,
    boxes: &mut u32,
    f: &Fragment<R>,
) -> bool {
    const TANH: u32 = Activation::GeluTanh as u32;
    const ERF: u32 = Activation::GeluErf as u32;
    const RELU: u32 = Activation::Relu as u32;
    let (activation, output) = (p.linear.activation, p.linear.output);
    if output != LinearOutput::Bf16 as u32 && output != LinearOutput::F16 as u32 {
        return false;
    }
    let whole = (p, d, place);
    // SAFETY: the caller's contract.
    unsafe {
        if activation == TANH {
            written_out::<R, W>(whole, team, boxes, f, |x| gelu_of_four(TANH, x));
        } else if activation == ERF {
            written_out::<R, W>(whole, team, boxes, f, |x| gelu_of_four(ERF, x));
        } else if activation == RELU || activation == Activation::None as u32 {
            let lowest = if activation == RELU { 0.0 } else { f32::NEG_INFINITY };
            written_out::<R, W>(whole, team, boxes, f, |x| at_least(lowest, x));
        } else {
            return false;
        }
    }
    true
}

/// # Safety
/// As [`by_usual_stores`].
#[inline(always)]
unsafe fn written_out<const R: usize, const W: usize>(
    (p, d, place): (&LinearWgmmaParams, TensorMapHandle, &Place),
    team: &Team,
    boxes: &mut u32,
    f: &Fragment<R>,
    activate: impl Fn(&mut [[f32; 8]; 4]),
) {
    // SAFETY: the caller's contract.
    let scale = unsafe { Epilogue::<f32, true>::new(&p.linear, place, 4) }.scale();
    let scale = scale * before_activation(p);
    let is_f16 = p.linear.output == LinearOutput::F16 as u32;
    let row = (place.row + 64 * team.group) as i32;
    // As in `by_bulk_stores`.
    let team = &Team { t: hint::opaque_index(team.t), ..*team };
    unroll!(i in R / W, at most 4 => {
        let sums = f.window::<W>(i);
        let mut x = [[0.0; 8]; 4];
        unroll!(j in 4, at most 4 => {
            // SAFETY: the bias is there.
            x[j] = unsafe { with_bias(team, scale, 64 * i + 16 * j, octet::<W>(&sums, j)) };
        });
        activate(&mut x);
        let at = team.staging + (*boxes as usize & 1) * BOX_BYTES;
        // SAFETY: the next box is the warpgroup's until it is closed.
        unsafe {
            if is_f16 {
                unroll!(j in 4, at most 4 => { put_halves::<f16>(team, at, j, x[j]); });
            } else {
                unroll!(j in 4, at most 4 => { put_halves::<bf16>(team, at, j, x[j]); });
            }
            close(d, place, team, at, (place.column + 64 * i) as i32, row);
        }
        *boxes += 1;
    });
}

/// No less than `lowest`; NaN stays.
#[inline(always)]
fn at_least(lowest: f32, x: &mut [[f32; 8]; 4]) {
    unroll!(j in 4, at most 4 => {
        unroll!(l in 8 => { x[j][l] = if x[j][l] <= lowest { lowest } else { x[j][l] }; });
    });
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

//! Products of matrices without tensor cores: D = act(α·op(A)·op(B) + bias + β·C) + R.
//!
//! # Math
//! Z = α·s·op(A)·op(B) + bias + β·C, D = act(Z) + R; s is the product of the scales of fp8 operands, one for a tensor or
//! one for a block. f16, bf16 and fp8 are multiplied in f32, f32 in f32 or f64, f64 in f64: one fused multiply-add for
//! each product, k ascending, from 0. What is stored is rounded once.
//!
//! # Layout
//! | buffer | shape | type | access |
//! |---|---|---|---|
//! | `a` | `[m, k]`, transposed `[k, m]`, rows `lda` apart | the instance's | in |
//! | `b` | `[k, n]`, transposed `[n, k]`, rows `ldb` apart | the instance's | in |
//! | `c`, `residual` | `[m, n]`, rows `ldc`, `ldr` apart | the output type | in |
//! | `bias` | `[n]` | the output type | in |
//! | `d`, `z` | `[m, n]`, rows `ldd`, `ldz` apart | the output type | out, every element written |
//! | `a_scale`, `b_scale` | as `Scaling` says | f32 | in |
//! | `partials` | `[tiles, parts]` of an output tile | the accumulator's | scratch |
//! | `arrivals` | `[tiles]` | u32 | scratch, zero before and after |
//!
//! # Traffic
//! 2·m·n·k operations; A is read ⌈n / tile⌉ times, B ⌈m / tile⌉ times, mostly from the L2 cache. Bound by the f32 or f64
//! units: 4096³ in f32 at 67 TFLOP/s: 2.05 ms.
//!
//! # Launch
//! Blocks of 256 threads, one for each part of each output tile of 64 or 128 squared; a thread has 4 × 4 elements of
//! each 64 × 64. Dynamic shared memory for two tiles of 16 k of each operand, whose place the sums take at the end. Any
//! shape, layout and distance of rows, no alignment beyond the element's. Every thread meets every barrier.
//!
//! # Determinism
//! Bitwise: the order of a sum depends on k and `parts` alone; parts are added in their order.
//!
//! # Source
//! Original. Reference: `kasmina_reference::linear::forward`.

use kasmina_device::convert::E4m3;
use kasmina_device::global::Load;
use kasmina_device::shared::DynamicShared;
use kasmina_device::{kernel, thread, unroll};
use kasmina_types::linear::{SCALE_BLOCK_K, SCALE_BLOCK_N};
use kasmina_types::tiles::{LINEAR_SIMT_BLOCK_THREADS, LINEAR_SIMT_TILE};
use kasmina_types::{In, Layout, LinearParams, Scaling, bf16, f16};

use super::accumulator::{Accumulator, Stored};
use super::epilogue::finish_tile;
use super::place::Place;

const THREADS: usize = LINEAR_SIMT_BLOCK_THREADS as usize;
const TILE: usize = LINEAR_SIMT_TILE as usize;
/// Threads along an edge of the tile.
const SIDE: usize = 16;
/// k of the tiles in shared memory.
const K: usize = 16;
/// What keeps rows of the tiles in shared memory in different banks, and vectors aligned.
const PAD: usize = 4;

const _: () = assert!(SIDE * SIDE == THREADS && 4 * SIDE == TILE);

/// Dynamic shared memory of an instance whose output tiles have `groups` times `TILE` along an edge, with sums of
/// `size` bytes: two tiles of each operand, which are more than a band of the sums.
pub const fn shared_bytes(groups: usize, size: usize) -> usize {
    4 * K * (groups * TILE + PAD) * size
}

const _: () = assert!(4 * K * (TILE + PAD) >= TILE * (TILE + PAD));

/// One operand's tiles: `rows` is m or n.
struct Operand<T> {
    values: In<T>,
    /// Its first element, and the distance of its array's rows.
    base: usize,
    ld: usize,
    /// Whether neighbours in memory are neighbours along k.
    k_major: bool,
    /// First row of the tile, and rows of the operand.
    first: usize,
    rows: usize,
    /// Scales by blocks: of rows and of k. Empty where there are none.
    scales: In<f32>,
    scale_base: usize,
    scale_rows: usize,
    scale_columns: usize,
}

impl<T: Copy> Operand<T> {
    /// The row and the k, within a tile of `G · TILE` rows, of the thread's element `e`.
    #[inline(always)]
    fn place<const G: usize>(&self, thread: usize, e: usize) -> (usize, usize) {
        if self.k_major {
            (thread / K + e * (THREADS / K), thread % K)
        } else {
            (thread % (G * TILE), thread / (G * TILE) + e * (THREADS / (G * TILE)))
        }
    }

    /// An element, scaled; zero outside.
    ///
    /// # Safety
    /// The operand is as the problem says.
    #[inline(always)]
    unsafe fn element<A: Accumulator>(&self, row: usize, k: usize, k_end: usize) -> A
    where
        T: Stored<A>,
    {
        let row = self.first + row;
        if row >= self.rows || k >= k_end {
            return A::ZERO;
        }
        let offset = if self.k_major { row * self.ld + k } else { k * self.ld + row };
        // SAFETY: the row and the k are inside the operand.
        let value = unsafe { self.values.load(self.base + offset) }.widen();
        if self.scales.is_empty() {
            return value;
        }
        let at = row / self.scale_rows * self.scale_columns + k / SCALE_BLOCK_K;
        // SAFETY: every block of the operand has its scale.
        A::mul(value, A::of(unsafe { self.scales.load(self.scale_base + at) }.into()))
    }

    /// The thread's elements of the tile at `k`.
    ///
    /// # Safety
    /// As [`Self::element`].
    #[inline(always)]
    unsafe fn load<A: Accumulator, const G: usize>(
        &self,
        thread: usize,
        k: usize,
        k_end: usize,
    ) -> [[A; 4]; G]
    where
        T: Stored<A>,
    {
        let mut values = [[A::ZERO; 4]; G];
        unroll!(g in G, at most 2 => {
            unroll!(i in 4, at most 4 => {
                let (row, along) = self.place::<G>(thread, 4 * g + i);
                // SAFETY: the caller's contract.
                values[g][i] = unsafe { self.element(row, k + along, k_end) };
            });
        });
        values
    }

    /// Puts what [`Self::load`] gave into the tile at `base` of `smem`, `[K, pitch]`.
    ///
    /// # Safety
    /// The tile is inside, and nobody reads it until a barrier.
    #[inline(always)]
    unsafe fn put<A: Accumulator, const G: usize>(
        &self,
        smem: &DynamicShared<A>,
        base: usize,
        thread: usize,
        values: &[[A; 4]; G],
    ) {
        unroll!(g in G, at most 2 => {
            unroll!(i in 4, at most 4 => {
                let (row, along) = self.place::<G>(thread, 4 * g + i);
                // SAFETY: inside the tile, and this thread's alone.
                unsafe { smem.write(base + along * (G * TILE + PAD) + row, values[g][i]) };
            });
        });
    }
}

/// A thread's row of sums, and what one k adds to it.
#[inline(always)]
fn add_row<A: Accumulator, const G: usize>(sums: &mut [[A; 4]; G], a: A, row: &[[A; 4]; G]) {
    unroll!(h in G, at most 2 => { add_four(&mut sums[h], a, row[h]); });
}

#[inline(always)]
fn add_four<A: Accumulator>(sums: &mut [A; 4], a: A, row: [A; 4]) {
    unroll!(j in 4, at most 4 => { sums[j] = A::fma(a, row[j], sums[j]); });
}

/// Puts a thread's row of sums at `index` of `smem`.
///
/// # Safety
/// Each four are inside, and nobody else accesses them until a barrier.
#[inline(always)]
unsafe fn stage_row<A: Accumulator, const G: usize>(
    smem: &DynamicShared<A>,
    index: usize,
    sums: &[[A; 4]; G],
) {
    unroll!(h in G, at most 2 => {
        // SAFETY: the caller's contract.
        unsafe { A::write4(smem, index + h * TILE, sums[h]) };
    });
}

/// # Safety
/// As [`LinearParams`] says; a block for each part of each tile, with [`shared_bytes`].
#[inline(always)]
unsafe fn product<T: Stored<A>, A: Accumulator, const L: usize, const G: usize>(p: LinearParams) {
    let tile = (G * TILE) as u32;
    // SAFETY: the grid has a block for each part of each tile.
    let place = unsafe { Place::of(&p, thread::block_idx_x(), tile, tile) };
    let at = &place.problem;
    let (m, n, k) = (at.m as usize, at.n as usize, at.k as usize);
    let (k_begin, k_end) = place.k_range(p.parts, K as u32);
    let scaled = p.scaling == Scaling::Block as u32;
    let none = In::new(core::ptr::null(), 0);
    let scale_columns = k.div_ceil(SCALE_BLOCK_K);
    let a = Operand::<T> {
        values: p.a.cast(),
        base: at.a as usize,
        ld: at.lda as usize,
        k_major: p.layout == Layout::NN as u32 || p.layout == Layout::NT as u32,
        first: place.row,
        rows: m,
        scales: if scaled { p.a_scale } else { none },
        scale_base: place.number * m * scale_columns,
        scale_rows: 1,
        scale_columns,
    };
    let b = Operand::<T> {
        values: p.b.cast(),
        base: at.b as usize,
        ld: at.ldb as usize,
        k_major: p.layout == Layout::NT as u32 || p.layout == Layout::TT as u32,
        first: place.column,
        rows: n,
        scales: if scaled { p.b_scale } else { none },
        scale_base: place.number * n.div_ceil(SCALE_BLOCK_N) * scale_columns,
        scale_rows: SCALE_BLOCK_N,
        scale_columns,
    };
    let thread = thread::thread_idx_x() as usize;
    let (x, y) = (4 * (thread % SIDE), 4 * (thread / SIDE));
    let smem = DynamicShared::<A>::whole();
    let pitch = G * TILE + PAD;
    let size = K * pitch;

    // sums[g][i][h][j] is the element in row g·TILE + y + i and column h·TILE + x + j.
    let mut sums = [[[[A::ZERO; 4]; G]; 4]; G];
    let mut k = k_begin;
    let mut buffer = 0;
    // SAFETY: the operands are the problem's; the two buffers take turns, each with A's tile and B's, and a barrier lies
    // between a buffer's writes and its reads, and between these and the next writes.
    unsafe {
        let (of_a, of_b) = (a.load::<A, G>(thread, k, k_end), b.load::<A, G>(thread, k, k_end));
        a.put(&smem, 0, thread, &of_a);
        b.put(&smem, size, thread, &of_b);
    }
    while k < k_end {
        // Orders this buffer's writes before its reads, and the reads of the other, two turns ago, before its writes.
        thread::sync_threads();
        let next = k + K;
        // SAFETY: as above; past the end there are zeros, which nobody reads.
        let (of_a, of_b) =
            unsafe { (a.load::<A, G>(thread, next, k_end), b.load::<A, G>(thread, next, k_end)) };
        let base = buffer * 2 * size;
        let mut along = 0;
        while along < K {
            let (mut column, mut row) = ([[A::ZERO; 4]; G], [[A::ZERO; 4]; G]);
            unroll!(g in G, at most 2 => {
                let at = base + along * pitch + g * TILE;
                // SAFETY: written before the barrier.
                unsafe {
                    column[g] = A::read4(&smem, at + y);
                    row[g] = A::read4(&smem, at + size + x);
                }
            });
            unroll!(g in G, at most 2 => {
                unroll!(i in 4, at most 4 => { add_row(&mut sums[g][i], column[g][i], &row); });
            });
            along += 1;
        }
        buffer ^= 1;
        // SAFETY: as above.
        unsafe {
            a.put(&smem, buffer * 2 * size, thread, &of_a);
            b.put(&smem, buffer * 2 * size + size, thread, &of_b);
        }
        k = next;
    }

    let stage = |band: usize| {
        unroll!(g in G, at most 2 => {
            if g == band {
                unroll!(i in 4, at most 4 => {
                    // SAFETY: inside the band, and this thread's alone.
                    unsafe { stage_row(&smem, (y + i) * pitch + x, &sums[g][i]) };
                });
            }
        });
    };
    // SAFETY: every thread is here; a band has room where the tiles were.
    unsafe {
        if G == 1 {
            finish_tile::<A, L, TILE, TILE, { TILE + PAD }, THREADS>(&p, &place, G, &smem, stage);
        } else {
            finish_tile::<A, L, TILE, { 2 * TILE }, { 2 * TILE + PAD }, THREADS>(
                &p, &place, G, &smem, stage,
            );
        }
    }
}

macro_rules! instance {
    ($entry:ident, $element:ty, $dtype:ident, $accumulator:ty, $lanes:literal, $groups:literal,
     $min_blocks:literal) => {
        /// A block for each part of each output tile.
        ///
        /// # Safety
        /// As [`LinearParams`] says.
        #[kernel(block = LINEAR_SIMT_BLOCK_THREADS, min_blocks = $min_blocks)]
        pub unsafe fn $entry(p: LinearParams) {
            // SAFETY: the entry's contract.
            unsafe { product::<$element, $accumulator, $lanes, $groups>(p) }
        }
    };
}

kasmina_types::linear_simt_tiles!(instance);

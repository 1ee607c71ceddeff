//! Products of matrices on the tensor cores of compute capability 8.0: D = act(α·op(A)·op(B) + bias + β·C) + R.
//!
//! # Math
//! As `forward`. bf16 and f16 are multiplied exactly; f32 is rounded to tf32, 10 bits of mantissa, before. Sums are f32,
//! by `mma.sync`, k ascending in steps of 16 (tf32: 8), from 0; within a step they are the hardware's.
//!
//! # Layout
//! As `forward`, without scales; an instance is for one layout.
//!
//! # Traffic
//! 2·m·n·k operations; A is read ⌈n / tile⌉ times, B ⌈m / tile⌉ times, mostly from the L2 cache. Bound by the tensor
//! cores: 4096³ in bf16 at 312 TFLOP/s: 440 µs.
//!
//! # Launch
//! Blocks of 256 threads, one for each part of each output tile of 128 or 64 squared: two warps along m, four along n.
//! Three stages of 64 bytes of k of both operands in dynamic shared memory, filled by `cp.async`, whose place the sums
//! take at the end. Any shape and distance of rows: rows that are not aligned to 16 bytes are gathered element by
//! element. Every thread meets every barrier.
//!
//! # Determinism
//! Bitwise: the order of a sum depends on k and `parts` alone; parts are added in their order.
//!
//! # Source
//! Original. Reference: `kasmina_reference::linear::forward`.

use kasmina_device::mma::Fragment16x8;
use kasmina_device::shared::DynamicShared;
use kasmina_device::vector::Vector;
use kasmina_device::{copy_async, kernel, thread, unroll};
use kasmina_types::tiles::{LINEAR_MMA_BLOCK_THREADS, LINEAR_MMA_STAGES};
use kasmina_types::{Layout, LinearParams, bf16, f16};

use super::epilogue::finish_tile;
use super::place::Place;
use super::tensor_tiles::{Input, K_BYTES, Operand, STEPS};

const THREADS: usize = LINEAR_MMA_BLOCK_THREADS as usize;
const STAGES: usize = LINEAR_MMA_STAGES as usize;
/// Warps along m and along n.
const WARPS_M: usize = 2;
const WARPS_N: usize = 4;
/// What keeps rows of the staged sums in different banks.
const PAD: usize = 8;
/// Elements of a store.
const LANES: usize = 4;

const _: () = assert!(WARPS_M * WARPS_N * 32 == THREADS);

/// Dynamic shared memory of an instance with output tiles of `rows` × `columns`: the stages, which are more than a band
/// of the sums.
pub const fn shared_bytes(rows: usize, columns: usize) -> usize {
    STAGES * (rows + columns) * K_BYTES
}

const _: () = assert!(shared_bytes(128, 128) >= 64 * (128 + PAD) * 4);
const _: () = assert!(shared_bytes(64, 64) >= 32 * (64 + PAD) * 4);

/// A warp's sums: `M` times 16 rows by `N` times twice 8 columns.
type Sums<const M: usize, const N: usize> = [[[Fragment16x8; 2]; N]; M];

/// Adds what one step along k gives. `places` are where A's tile is, the warp's first row of it, and as much of B.
///
/// # Safety
/// All lanes of the warp are here; both tiles are written, and a barrier orders that before.
#[inline(always)]
unsafe fn multiply<
    T: Input,
    const A_MAJOR: bool,
    const B_MAJOR: bool,
    const ROWS: usize,
    const COLUMNS: usize,
    const M: usize,
    const N: usize,
>(
    sums: &mut Sums<M, N>,
    smem: &DynamicShared<u8>,
    (a, row, b, column): (usize, usize, usize, usize),
    step: usize,
) {
    let (mut of_a, mut of_b) = ([[0; 4]; M], [[[0; 2]; 2]; N]);
    // SAFETY: the caller's contract.
    unsafe {
        unroll!(i in M, at most 4 => {
            of_a[i] = Operand::<T>::sixteen_rows::<ROWS, A_MAJOR>(smem, a, row + 16 * i, step);
        });
        unroll!(j in N, at most 2 => {
            of_b[j] = Operand::<T>::twice_eight_rows::<COLUMNS, B_MAJOR>(smem, b, column + 16 * j, step);
        });
        unroll!(i in M, at most 4 => {
            unroll!(j in N, at most 2 => {
                sums[i][j][0].multiply_add::<T::Product>(of_a[i], of_b[j][0]);
                sums[i][j][1].multiply_add::<T::Product>(of_a[i], of_b[j][1]);
            });
        });
    }
}

/// Puts 16 × 16 sums at `index` of `staged`.
///
/// # Safety
/// They are inside, and nobody else accesses them until a barrier.
#[inline(always)]
unsafe fn put<const PITCH: usize>(
    staged: &DynamicShared<f32>,
    index: usize,
    sums: &[Fragment16x8; 2],
) {
    let lane = thread::lane_idx() as usize;
    unroll!(e in 2, at most 2 => {
        let [a, b, c, d] = sums[e].registers;
        let at = index + 8 * e + Fragment16x8::column(lane, 0);
        // SAFETY: the caller's contract; columns are even.
        unsafe {
            staged.write_vector(at + Fragment16x8::row(lane, 0) * PITCH, Vector([a, b]));
            staged.write_vector(at + Fragment16x8::row(lane, 2) * PITCH, Vector([c, d]));
        }
    });
}

/// # Safety
/// As [`LinearParams`] says; a block for each part of each tile of `ROWS` × `COLUMNS`, with [`shared_bytes`].
/// `BAND` is 16·M, half of `ROWS`; `COLUMNS` is 64·N, and `PITCH` has [`PAD`] more.
#[inline(always)]
unsafe fn product<
    T: Input,
    const A_MAJOR: bool,
    const B_MAJOR: bool,
    const ROWS: usize,
    const COLUMNS: usize,
    const BAND: usize,
    const PITCH: usize,
    const M: usize,
    const N: usize,
>(
    p: LinearParams,
) {
    // SAFETY: the grid has a block for each part of each tile.
    let place = unsafe { Place::of(&p, thread::block_idx_x(), ROWS as u32, COLUMNS as u32) };
    let at = &place.problem;
    let k_tile = Operand::<T>::K;
    let (k_begin, k_end) = place.k_range(p.parts, k_tile as u32);
    let a = Operand::<T>::new(p.a.cast(), at.a as usize, at.lda as usize, place.row, at.m as usize);
    let b =
        Operand::<T>::new(p.b.cast(), at.b as usize, at.ldb as usize, place.column, at.n as usize);
    let smem = DynamicShared::<u8>::whole();
    let stage_bytes = (ROWS + COLUMNS) * K_BYTES;
    let warp = thread::warp_idx() as usize;
    let (warp_m, warp_n) = (warp / WARPS_N, warp % WARPS_N);

    let bring = |k: usize, stage: usize| {
        if k < k_end {
            let base = stage * stage_bytes;
            // SAFETY: the stage's last reads lie before the last barrier; the operands are the problem's.
            unsafe {
                a.bring::<ROWS, A_MAJOR>(&smem, base, k, k_end);
                b.bring::<COLUMNS, B_MAJOR>(&smem, base + ROWS * K_BYTES, k, k_end);
            }
        }
        // An empty group too, so that the count of those under way is always the same.
        copy_async::commit_group();
    };
    let mut stage = 0;
    while stage + 1 < STAGES {
        bring(k_begin + stage * k_tile, stage);
        stage += 1;
    }

    let mut sums: Sums<M, N> = [[[Fragment16x8::ZERO; 2]; N]; M];
    let mut k = k_begin;
    let (mut full, mut empty) = (0, STAGES - 1);
    while k < k_end {
        copy_async::wait_group::<{ LINEAR_MMA_STAGES - 2 }>();
        // Orders every thread's copies of this stage before its reads, and the reads of the stage before it before
        // what is brought there now.
        thread::sync_threads();
        bring(k + (STAGES - 1) * k_tile, empty);
        let base = full * stage_bytes;
        let places = (base, warp_m * M * 16, base + ROWS * K_BYTES, warp_n * N * 16);
        let mut step = 0;
        while step < STEPS {
            // SAFETY: all lanes are here; both tiles are written, before the barrier.
            unsafe {
                multiply::<T, A_MAJOR, B_MAJOR, ROWS, COLUMNS, M, N>(
                    &mut sums, &smem, places, step,
                );
            }
            step += 1;
        }
        full = if full + 1 == STAGES { 0 } else { full + 1 };
        empty = if empty + 1 == STAGES { 0 } else { empty + 1 };
        k += k_tile;
    }

    let staged = DynamicShared::<f32>::whole();
    let stage = |band: usize| {
        if band == warp_m {
            unroll!(i in M, at most 4 => {
                unroll!(j in N, at most 2 => {
                    let at = 16 * i * PITCH + (warp_n * N + j) * 16;
                    // SAFETY: inside the band, and this thread's alone.
                    unsafe { put::<PITCH>(&staged, at, &sums[i][j]) };
                });
            });
        }
    };
    // SAFETY: every thread is here; a band has room where the stages were, all of whose copies were waited for: those
    // left in groups are empty.
    unsafe {
        finish_tile::<f32, LANES, BAND, COLUMNS, PITCH, THREADS>(
            &p, &place, WARPS_M, &staged, stage,
        );
    }
}

macro_rules! instance {
    ($entry:ident, $element:ty, $dtype:ident, $layout:ident, 128, 128) => {
        instance!(@ $entry, $element, $layout, 128, 128, 64, 136, 4, 2);
    };
    ($entry:ident, $element:ty, $dtype:ident, $layout:ident, 64, 64) => {
        instance!(@ $entry, $element, $layout, 64, 64, 32, 72, 2, 1);
    };
    (@ $entry:ident, $element:ty, $layout:ident, $rows:literal, $columns:literal, $band:literal,
     $pitch:literal, $m:literal, $n:literal) => {
        /// A block for each part of each output tile.
        ///
        /// # Safety
        /// As [`LinearParams`] says; the layout is the instance's, and nothing is scaled.
        #[kernel(block = LINEAR_MMA_BLOCK_THREADS, arch = 80)]
        pub unsafe fn $entry(p: LinearParams) {
            const A_MAJOR: bool = !Layout::$layout.transposed_a();
            const B_MAJOR: bool = Layout::$layout.transposed_b();
            // SAFETY: the entry's contract.
            unsafe {
                product::<$element, A_MAJOR, B_MAJOR, $rows, $columns, $band, $pitch, $m, $n>(p)
            }
        }
    };
}

kasmina_types::linear_mma_tiles!(instance);

//! Which output tile of which problem a block has, and which part of its k.

use kasmina_device::global::Load;
use kasmina_device::vector::LoadHint;
use kasmina_types::{In, LinearParams, LinearProblem};

/// Tile rows that blocks which follow one another share: their tiles of B stay in the L2 cache meanwhile.
const GROUP: u32 = 8;

/// 32-bit words of a [`LinearProblem`].
const WORDS: usize = size_of::<LinearProblem>() / 4;

/// One block's work.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    /// The problem; of a batch, this one's operands.
    pub(crate) problem: LinearProblem,
    /// Its number in the batch, or the group.
    pub(crate) number: usize,
    /// First row of D.
    pub(crate) row: usize,
    /// First column of D.
    pub(crate) column: usize,
    /// The tile's number among all.
    pub(crate) tile: usize,
    /// Which of the tile's parts.
    pub(crate) part: usize,
}

impl Place {
    /// The work of a block, with output tiles of `rows` × `columns`. Parts of a tile are neighbouring blocks.
    ///
    /// # Safety
    /// `p` is as [`LinearParams`] says, `block < p.tiles · p.parts`, and p has no work if it has no tile.
    #[inline(always)]
    pub(crate) unsafe fn of(p: &LinearParams, block: u32, rows: u32, columns: u32) -> Self {
        let (tile, part) = (block / p.parts, block % p.parts);
        let (problem, number, local) = if p.problems.is_empty() {
            let of_one = p.tiles / p.batch;
            let number = tile / of_one;
            (batched(p, u64::from(number)), number, tile % of_one)
        } else {
            // SAFETY: the caller's contract.
            let (problem, number) = unsafe { grouped(p, tile) };
            (problem, number, tile - problem.first_tile)
        };
        let (tile_rows, tile_columns) = (problem.m.div_ceil(rows), problem.n.div_ceil(columns));
        let band = GROUP * tile_columns;
        let first = local / band * GROUP;
        let left = tile_rows - first;
        let height = if left < GROUP { left } else { GROUP };
        let (row, column) = (first + local % band % height, local % band / height);
        Self {
            problem,
            number: number as usize,
            row: (row * rows) as usize,
            column: (column * columns) as usize,
            tile: tile as usize,
            part: part as usize,
        }
    }

    /// Where the part's k begins and ends: whole units of `unit`, but for the last.
    #[inline(always)]
    pub(crate) fn k_range(&self, parts: u32, unit: u32) -> (usize, usize) {
        let k = self.problem.k as usize;
        let share = self.problem.k.div_ceil(unit).div_ceil(parts) as usize * unit as usize;
        let begin = self.part * share;
        let end = begin + share;
        (if begin < k { begin } else { k }, if end < k { end } else { k })
    }
}

/// Problem `number` of the batch.
#[inline(always)]
pub(super) fn batched(p: &LinearParams, number: u64) -> LinearProblem {
    let LinearProblem { a, b, c, bias, residual, d, z, .. } = p.problem;
    let strides = &p.strides;
    LinearProblem {
        a: a + number * strides.a,
        b: b + number * strides.b,
        c: c + number * strides.c,
        bias: bias + number * strides.bias,
        residual: residual + number * strides.residual,
        d: d + number * strides.d,
        z: z + number * strides.z,
        ..p.problem
    }
}

/// The problem of a group that the tile is of: the last whose first tile is not after it. Problems without tiles share
/// their first with the one behind them.
///
/// # Safety
/// There are problems, and the first tile of the first is 0.
#[inline(always)]
unsafe fn grouped(p: &LinearParams, tile: u32) -> (LinearProblem, u32) {
    let words: In<u32> = p.problems.cast();
    let (mut low, mut high) = (0, p.batch);
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        // SAFETY: a problem's number; its first tile is its fourth word.
        if unsafe { words.load(middle as usize * WORDS + 3) } <= tile {
            low = middle;
        } else {
            high = middle;
        }
    }
    // SAFETY: a problem's number.
    (unsafe { problem_at(p, low) }, low)
}

/// Problem `number` of a group.
///
/// # Safety
/// There is such a problem.
#[inline(always)]
pub(super) unsafe fn problem_at(p: &LinearParams, number: u32) -> LinearProblem {
    let words: In<u32> = p.problems.cast();
    let base = number as usize * WORDS;
    // SAFETY: four words inside the problem, whose size is a multiple of 16 bytes.
    let four = |i: usize| unsafe { words.load_vector::<4>(base + 4 * i, LoadHint::Cached) }.0;
    let ([m, n, k, first_tile], [lda, ldb, ldc, ldr], [ldd, ldz, ..]) = (four(0), four(1), four(2));
    let two = |i: usize| {
        let [low, high, second_low, second_high] = four(i);
        let join = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        (join(low, high), join(second_low, second_high))
    };
    let ((a, b), (c, bias), (residual, d), (z, _)) = (two(3), two(4), two(5), two(6));
    let (_padding, _padding_end) = ([0; 2], 0);
    LinearProblem {
        m,
        n,
        k,
        first_tile,
        lda,
        ldb,
        ldc,
        ldr,
        ldd,
        ldz,
        _padding,
        a,
        b,
        c,
        bias,
        residual,
        d,
        z,
        _padding_end,
    }
}

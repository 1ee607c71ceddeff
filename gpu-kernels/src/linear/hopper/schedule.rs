//! Which output tile a block has, of which problem, and which part of its k.

use core::hint::assert_unchecked;

use kasmina_device::hint;
use kasmina_types::LinearWgmmaParams;

use super::super::place::{Place, batched};

/// Tile rows that blocks which follow one another share: their tiles of the second operand stay in the L2 cache.
const GROUP: u32 = 8;

/// How the tiles of all problems follow one another. A division by what might be 0 would be a call, and a call keeps
/// warpgroups from their registers; none of these is 0.
#[derive(Clone, Copy)]
pub(crate) struct Schedule {
    /// Parts of tiles in all.
    pub(crate) works: u32,
    parts: u32,
    of_one: u32,
    rows: u32,
    columns: u32,
    tile_rows: u32,
    tile_columns: u32,
    k_tiles: u32,
    swapped: bool,
}

/// A part of a tile. Rows are of the product as the tensor cores see it: columns of D where the instance is swapped.
#[derive(Clone, Copy)]
pub(crate) struct Work {
    pub(crate) number: u32,
    pub(crate) tile: u32,
    pub(crate) part: u32,
    pub(crate) row: u32,
    pub(crate) column: u32,
}

impl Work {
    /// The same, from which places are computed anew: no register keeps them.
    #[inline(always)]
    pub(crate) fn opaque(self) -> Self {
        Self { number: hint::opaque(self.number), ..self }
    }
}

impl Schedule {
    /// Tiles of `rows` × `columns`; `sharers` of them, a power of two, lie one below the other and count as one.
    ///
    /// # Safety
    /// p is as [`LinearWgmmaParams`] says.
    #[inline(always)]
    pub(crate) unsafe fn new(
        p: &LinearWgmmaParams,
        (rows, sharers): (u32, u32),
        columns: u32,
        swapped: bool,
    ) -> Self {
        let &LinearWgmmaParams { tile_rows, tile_columns, k_tiles, .. } = p;
        let (tiles, parts) = (p.linear.tiles, p.linear.parts);
        Self {
            works: tiles * parts,
            parts,
            of_one: p.tiles_of_one,
            rows: rows << sharers.trailing_zeros(),
            columns,
            tile_rows,
            tile_columns,
            k_tiles,
            swapped,
        }
    }

    /// Work `index`, `below` rows further. Parts of a tile are neighbours.
    ///
    /// # Safety
    /// `index < self.works`.
    #[inline(always)]
    pub(crate) unsafe fn work(&self, index: u32, below: u32) -> Work {
        // SAFETY: a tile has a part, and a problem tiles.
        unsafe { assert_unchecked(self.parts > 0 && self.of_one > 0) };
        let (tile, part) =
            if self.parts == 1 { (index, 0) } else { (index / self.parts, index % self.parts) };
        let (number, local) =
            if tile < self.of_one { (0, tile) } else { (tile / self.of_one, tile % self.of_one) };
        let band = GROUP * self.tile_columns;
        // SAFETY: the product of two counts of tiles fits.
        unsafe { assert_unchecked(band > 0) };
        let first = local / band * GROUP;
        let left = self.tile_rows - first;
        let height = if left < GROUP { left } else { GROUP };
        // SAFETY: the tile is one of the problem's, so its band has a row.
        unsafe { assert_unchecked(height > 0) };
        let within = local % band;
        Work {
            number,
            tile,
            part,
            row: (first + within % height) * self.rows + below,
            column: within / height * self.columns,
        }
    }

    /// Which part of its tile work `index` is.
    ///
    /// # Safety
    /// `index < self.works`.
    #[inline(always)]
    pub(crate) unsafe fn part(&self, index: u32) -> u32 {
        // SAFETY: a tile has a part.
        unsafe { assert_unchecked(self.parts > 0) };
        if self.parts == 1 { 0 } else { index % self.parts }
    }

    /// The tiles of k, from the first to before the last, of part `part` of `parts`.
    #[inline(always)]
    pub(crate) fn k_range(&self, part: u32, parts: u32) -> (u32, u32) {
        // SAFETY: there is a part.
        unsafe { assert_unchecked(parts > 0) };
        (self.k_tiles * part / parts, self.k_tiles * (part + 1) / parts)
    }

    /// Parts that leave their sums in memory.
    #[inline(always)]
    pub(crate) fn parts(&self) -> u32 {
        self.parts
    }

    /// The work's place in D.
    #[inline(always)]
    pub(crate) fn place(&self, p: &LinearWgmmaParams, work: &Work) -> Place {
        let (row, column) =
            if self.swapped { (work.column, work.row) } else { (work.row, work.column) };
        Place {
            problem: batched(&p.linear, u64::from(work.number)),
            number: work.number as usize,
            row: row as usize,
            column: column as usize,
            tile: work.tile as usize,
            part: work.part as usize,
        }
    }
}

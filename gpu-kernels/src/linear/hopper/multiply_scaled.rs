//! The products of a warpgroup over the tiles of k, where each tile's are summed apart: the tensor cores' sums of fp8 keep
//! few bits, and blocks of k have scales of their own.

use kasmina_device::global::Load;
use kasmina_device::hint;
use kasmina_device::wgmma::{Accumulator, Fragment, InOrder, Major, Multiply, Shape, State};
use kasmina_types::linear::{SCALE_BLOCK_K, SCALE_BLOCK_N};
use kasmina_types::{In, LinearParams, Scaling};

use super::super::place::Place;
use super::SPAN;
use super::multiply::issue;
use super::shared_map::SharedMap;
use super::stage::{Barriers, Turn};

/// The scales of a thread's two rows and of the tile's columns, for one tile of k after the other; 1 where there are none
/// for blocks.
#[derive(Clone, Copy)]
pub(crate) struct Scales {
    a: In<f32>,
    b: In<f32>,
    blocks: bool,
    upper: usize,
    lower: usize,
    column: usize,
}

/// As they are in memory: of the upper row, of the lower one, of the columns.
type Raw = [f32; 3];

const _: () = assert!(SPAN == SCALE_BLOCK_K, "a tile of k has one scale");

impl Scales {
    /// None for blocks.
    #[inline(always)]
    pub(crate) fn none() -> Self {
        let none = In::new(core::ptr::null(), 0);
        Self { a: none, b: none, blocks: false, upper: 0, lower: 0, column: 0 }
    }

    /// From tile `first` of k on, for rows `row` and `row` + 8 of D.
    ///
    /// # Safety
    /// p is as [`LinearParams`] says; the place's column is inside D, and its tile of as many columns as share a scale.
    #[inline(always)]
    pub(crate) unsafe fn new(p: &LinearParams, place: &Place, row: usize, first: u32) -> Self {
        let (m, n) = (place.problem.m as usize, place.problem.n as usize);
        let along = place.problem.k.div_ceil(SCALE_BLOCK_K as u32) as usize;
        let of_a = place.number * m * along + first as usize;
        // Rows past the last are multiplied by what there is.
        let inside = |row: usize| if row < m { row } else { m - 1 };
        let of_b = place.number * n.div_ceil(SCALE_BLOCK_N) + place.column / SCALE_BLOCK_N;
        Self {
            a: p.a_scale,
            b: p.b_scale,
            blocks: p.scaling == Scaling::Block as u32,
            upper: of_a + inside(row) * along,
            lower: of_a + inside(row + 8) * along,
            column: of_b * along + first as usize,
        }
    }

    /// Those of the next tile. They are asked for here, and come while its products are made.
    ///
    /// # Safety
    /// There is such a tile.
    #[inline(always)]
    unsafe fn next(&mut self) -> Raw {
        if !self.blocks {
            return [1.0; 3];
        }
        // SAFETY: each block of each row and of the columns has a scale, and the caller's contract.
        let raw =
            unsafe { [self.a.load(self.upper), self.a.load(self.lower), self.b.load(self.column)] };
        self.upper += 1;
        self.lower += 1;
        self.column += 1;
        // Else they would be loaded where they are used.
        let here = |scale: f32| f32::from_bits(hint::opaque(scale.to_bits()));
        [here(raw[0]), here(raw[1]), here(raw[2])]
    }
}

/// Adds up the products of `count` tiles, 1 or more, in the order in which they come, from 0: each tile's by the tensor
/// cores, from 0, and these sums, times their scales, in f32. The rest is as in [`super::multiply::multiply`]. While they
/// are added the tensor cores work for another warpgroup, of this block or of another one on the multiprocessor.
///
/// # Safety
/// All threads of the warpgroup are here, with the same arguments, the scales their own rows'; one thread of the block
/// loads as many stages.
#[inline(always)]
pub(crate) unsafe fn multiply_scaled<E, MA: Major, MB: Major, const R: usize, const STAGES: usize>(
    map: &SharedMap,
    barriers: &Barriers,
    turn: &mut Turn,
    (group, sharers): (usize, u32),
    mut scales: Scales,
    count: u32,
) -> Fragment<R>
where
    E: InOrder<MA> + InOrder<MB>,
    State<R>: Multiply<E> + Shape,
{
    let mut sums = Fragment::<R>::zeroed();
    let mut left = count;
    while left > 0 {
        // SAFETY: the caller's contract; the stage is released when its products were waited for.
        unsafe {
            let [upper, lower, columns] = scales.next();
            let mut d = Accumulator::<R>::unset();
            issue::<E, MA, MB, R>(&mut d, map, barriers, *turn, group, false);
            let products = d.wait::<0>();
            barriers.release(turn.stage(), sharers);
            sums.add_scaled(&products, [upper * columns, lower * columns]);
        }
        turn.advance(STAGES);
        left -= 1;
    }
    sums
}

//! Products of matrices of any shapes, a list of them in one launch, on the tensor cores of warpgroups, compute capability
//! 9.0: D = act(α·op(A)·op(B) + bias + β·C) + R.
//!
//! # Math
//! As `forward_wgmma`, with its sums for each type.
//!
//! # Layout
//! As `forward_wgmma`, problem by problem: operands come by tensor maps of each problem's own. Scales are for tensors.
//!
//! # Traffic
//! As `forward_wgmma`; of each tile 16 bytes more, of each problem up to three tensor maps of 128 bytes.
//!
//! # Launch
//! Persistent blocks, no more than are resident: block b has tiles b, b + blocks, … of a list, in which the host has put
//! problems with long sums first. One thread loads stages of 128 bytes of k of both operands, and one or two warpgroups
//! multiply 64 rows each, as in `forward_wgmma`; there are neither clusters nor parts. Each thread that has the copy engine
//! follow a tensor map acquires it when it comes to the problem: the loading one a tile ahead.
//!
//! # Determinism
//! Bitwise: the order of a sum depends on its k alone.
//!
//! # Source
//! Original. Reference: `kasmina_reference::linear::forward`.

use kasmina_device::convert::E4m3;
use kasmina_device::global::Load;
use kasmina_device::shared::DynamicShared;
use kasmina_device::vector::LoadHint;
use kasmina_device::wgmma::{InOrder, KMajor, Major, MnMajor, Multiply, Shape, State, Tf32};
use kasmina_device::{hint, kernel, thread, tma, warp, warpgroup};
use kasmina_types::{
    In, LinearGroupedWgmma, LinearProblem, LinearTile, TensorMapHandle, bf16, f16,
};

use super::forward_wgmma::{LOADING_REGISTERS, MULTIPLYING_REGISTERS};
use super::hopper::band::{Band, stage};
use super::hopper::multiply::multiply;
use super::hopper::multiply_scaled::{Scales, multiply_scaled};
use super::hopper::shared_map::SharedMap;
use super::hopper::stage::{Barriers, Sharing, Turn, load_tile};
use super::hopper::store::{Team, by_bulk_stores, by_usual_stores};
use super::hopper::tile_k;
use super::place::{Place, problem_at};

/// Which of a problem's tensor maps.
const MAP_A: usize = 0;
const MAP_B: usize = 1;
const MAP_D: usize = 2;

/// No problem's number.
const NONE: u32 = u32::MAX;

/// Tile `index` of the list.
///
/// # Safety
/// p is as [`LinearGroupedWgmma`] says, and has such a tile.
#[inline(always)]
unsafe fn tile_at(p: &LinearGroupedWgmma, index: u32) -> LinearTile {
    let words: In<u32> = p.tiles.cast();
    // SAFETY: the caller's contract; four words, aligned as a tile is.
    let [problem, row, column, k] =
        unsafe { words.load_vector::<4>(4 * index as usize, LoadHint::Cached) }.0;
    LinearTile { problem, row, column, k }
}

/// A tensor map of a problem.
#[inline(always)]
fn map_of(p: &LinearGroupedWgmma, problem: u32, which: usize) -> TensorMapHandle {
    TensorMapHandle::new(p.maps.as_ptr().wrapping_add(3 * problem as usize + which))
}

/// The tile's place in D. It has no number: there is no batch.
#[inline(always)]
fn place_of(tile: &LinearTile, problem: LinearProblem) -> Place {
    let (row, column) = (tile.row as usize, tile.column as usize);
    Place { problem, number: 0, row, column, tile: 0, part: 0 }
}

/// # Safety
/// As [`LinearGroupedWgmma`] says; blocks of `GROUPS` · 128 threads and a warp, or a warpgroup where `MOVES`, with
/// [`super::forward_wgmma::shared_bytes`], no more than tiles.
#[inline(always)]
unsafe fn product<
    E,
    MA: Major,
    MB: Major,
    const R: usize,
    const W: usize,
    const GROUPS: usize,
    const STAGES: usize,
    const SCALED: bool,
    const MOVES: bool,
>(
    p: LinearGroupedWgmma,
) where
    E: InOrder<MA> + InOrder<MB>,
    State<R>: Multiply<E> + Shape,
{
    let map = const { SharedMap::new(GROUPS, R, STAGES) };
    let barriers = Barriers::new(&map, STAGES);
    let (thread, loads) = (warpgroup::thread_idx(), warpgroup::index() == GROUPS as u32);
    let (rows, columns, along_k) = (64 * GROUPS, 2 * R, tile_k::<E>() as u32);
    if thread::thread_idx_x() == 0 {
        let warps = GROUPS as u32 * 4;
        // SAFETY: one thread initialises the barriers, before the barrier below.
        unsafe { barriers.init(warps) };
    }
    thread::sync_threads();
    thread::await_previous_grid();

    let (tiles, step) = (p.product.linear.tiles, thread::grid_dim_x());
    let mut turn = Turn::FIRST;
    let mut index = thread::block_idx_x();

    if loads {
        if MOVES {
            // SAFETY: the whole warpgroup is here.
            unsafe { warpgroup::lower_registers::<LOADING_REGISTERS>() };
        }
        if thread != 0 {
            return;
        }
        let acquire = |problem: u32| {
            let (a, b) = (map_of(&p, problem, MAP_A), map_of(&p, problem, MAP_B));
            // SAFETY: maps are in global memory.
            unsafe {
                tma::acquire_map(a);
                tma::acquire_map(b);
                tma::prefetch_map(a);
                tma::prefetch_map(b);
            }
        };
        let sharing = (Sharing::alone(rows), Sharing::alone(columns));
        // SAFETY: there is a tile for each block.
        let mut tile = unsafe { tile_at(&p, index) };
        acquire(tile.problem);
        while index < tiles {
            index += step;
            // SAFETY: below the number of tiles.
            let next = if index < tiles { unsafe { tile_at(&p, index) } } else { tile };
            if next.problem != tile.problem {
                acquire(next.problem);
            }
            let (a, b) = (map_of(&p, tile.problem, MAP_A), map_of(&p, tile.problem, MAP_B));
            let mut k = 0;
            while k < tile.k {
                let (at, full) = (turn.stage() * map.stage_bytes, barriers.full(turn.stage()));
                // SAFETY: the stage is free once its empty barrier's phase before is over; both tiles are of the bytes
                // that are announced, those past the operands' ends too; the maps were acquired.
                unsafe {
                    barriers.empty(turn.stage()).wait(!turn.parity);
                    full.arrive_expect_tx(map.stage_bytes as u32);
                    load_tile::<MA>(at, a, tile.row, &sharing.0, k, 0, full);
                    let at = at + map.first_bytes;
                    load_tile::<MB>(at, b, tile.column, &sharing.1, k, 0, full);
                }
                turn.advance(STAGES);
                k += along_k;
            }
            tile = next;
        }
        return;
    }

    if MOVES {
        // SAFETY: the whole warpgroup is here; the loading one gives what both take.
        unsafe { warpgroup::raise_registers::<MULTIPLYING_REGISTERS>() };
    }
    let bulk = p.product.bulk != 0;
    let group = warpgroup::index() as usize;
    let team = Team::new::<R>(&map, group, thread as usize);
    let mut boxes = 0;
    let mut acquired = NONE;
    while index < tiles {
        // SAFETY: all threads of the warpgroup are here, each time with the same; the tile is below the number of tiles,
        // and what each part asks for is said there.
        unsafe {
            let LinearTile { problem, k, .. } = tile_at(&p, index);
            if bulk {
                if thread == 0 && problem != acquired {
                    tma::acquire_map(map_of(&p, problem, MAP_D));
                }
                // The products want the warp whole.
                warp::sync_warp(warp::FULL_MASK);
                acquired = problem;
            }
            // Read again where it is used: else registers keep what is known of the tile beside the sums.
            let find = || {
                let tile = tile_at(&p, hint::opaque(index));
                (place_of(&tile, problem_at(&p.product.linear, tile.problem)), tile.problem)
            };
            let (who, count) = ((group, 1), k.div_ceil(along_k));
            let ask = || if bulk { team.ask_bias::<R>(&p.product, &find().0) } else { [0.0; 2] };
            let (f, bias) = if SCALED {
                let bias = ask();
                let scales = Scales::none();
                let f = multiply_scaled::<E, MA, MB, R, STAGES>(
                    &map, &barriers, &mut turn, who, scales, count,
                );
                (f, bias)
            } else {
                multiply::<E, MA, MB, _, R, STAGES>(&map, &barriers, &mut turn, who, count, ask)
            };
            if bulk {
                team.keep_bias::<R>(&p.product, bias);
            }
            // The bias is there, and the staging free.
            team.sync();
            if bulk {
                let (place, problem) = find();
                let (to, window) = (map_of(&p, problem, MAP_D), |i: usize| f.window::<W>(i));
                if !by_usual_stores::<R, W>(&p.product, to, &place, &team, &mut boxes, &f) {
                    by_bulk_stores::<R, W>(&p.product, to, &place, &team, &mut boxes, window);
                }
            } else {
                let shared = DynamicShared::<f32>::whole();
                let mut i = 0;
                while i < R / W {
                    stage::<W, false>(&team, f.window::<W>(i));
                    team.sync();
                    let (place, _) = find();
                    let at = (place.row + 64 * group, place.column + 2 * W * i);
                    let band = Band::<W, false>::new(&p.product, &place, &team, at);
                    let sums = |at: usize| shared.read_vector::<4>(at).0;
                    band.finish(&p.product, &place, &team, (0, 1), sums);
                    team.sync();
                    i += 1;
                }
            }
            index += step;
        }
    }
    if bulk && thread == 0 {
        // The block's shared memory is not given back before.
        tma::wait_stores::<0>();
    }
}

macro_rules! instance {
    ($entry:ident, $element:ty, $dtype:ident, $layout:ident, $kind:ident, $groups:literal, $registers:literal,
     $window:literal, $stages:literal, $threads:literal) => {
        /// One layout, one shape of tile.
        ///
        /// # Safety
        /// As [`LinearGroupedWgmma`] says, and the module on the launch.
        #[kernel(block = $threads, arch = "90a", awaits)]
        pub unsafe fn $entry(p: LinearGroupedWgmma) {
            const MOVES: bool = $threads == ($groups + 1) * 128;
            // SAFETY: the entry's contract.
            unsafe { instance!(@ $kind, $layout, $element, $registers, $window, $groups, $stages)(p) }
        }
    };
    (@ Whole, $layout:ident, $($rest:tt),*) => { instance!(@@ $layout, false, $($rest),*) };
    (@ Scaled, $layout:ident, $($rest:tt),*) => { instance!(@@ $layout, true, $($rest),*) };
    (@@ NN, $($rest:tt),*) => { instance!(@@@ KMajor, MnMajor, $($rest),*) };
    (@@ NT, $($rest:tt),*) => { instance!(@@@ KMajor, KMajor, $($rest),*) };
    (@@ TN, $($rest:tt),*) => { instance!(@@@ MnMajor, MnMajor, $($rest),*) };
    (@@ TT, $($rest:tt),*) => { instance!(@@@ MnMajor, KMajor, $($rest),*) };
    (@@@ $a:ty, $b:ty, $scaled:literal, $element:ty, $registers:literal, $window:literal, $groups:literal,
     $stages:literal) => {
        product::<$element, $a, $b, $registers, $window, $groups, $stages, $scaled, MOVES>
    };
}

kasmina_types::linear_grouped_wgmma_tiles!(instance);

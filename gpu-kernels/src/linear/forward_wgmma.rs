//! Products of matrices on the tensor cores of warpgroups, compute capability 9.0: D = act(α·op(A)·op(B) + bias + β·C) + R.
//!
//! # Math
//! As `forward`. bf16, f16 and fp8 are multiplied exactly; of f32 the 13 lowest bits are ignored (tf32). Sums are f32, by
//! `wgmma`, k ascending in steps of 32 bytes, from 0; within a step they are the hardware's. Of fp8 these keep 14 bits: in
//! a step the 32 products and the sum so far are cut off below 2⁻¹³ of the largest's power of two. So `_scaled` instances
//! make a sum of each 128 k by `wgmma`, and add these, times their blocks' scales if there are any, in f32: of products of
//! one sign a sum loses up to 2⁻⁸ of itself, of independent signs about 8e-4, whatever k. The other instances of fp8 are
//! what cuBLASLt calls fast accumulation: k · 2⁻¹⁵, √k · 5e-5. Activations are made of the special-function unit's
//! approximations, to 2e-5; the GELU of 16-bit results to 2⁻¹¹ of |z|.
//!
//! # Layout
//! As `forward`, but scales for blocks are for `_scaled` instances alone; an instance is for one layout. Operands come by
//! tensor maps: addresses and distances of rows are multiples of 16 bytes. fp8 and f32 lie along k, which is NT.
//!
//! # Traffic
//! 2·m·n·k operations; A is read ⌈n / tile⌉ times, B ⌈m / tile⌉ times, mostly from the L2 cache. Bound by the tensor
//! cores: 4096³ in bf16 at 989 TFLOP/s: 139 µs; by the L2 cache where tiles are small.
//!
//! # Launch
//! Persistent blocks, no more than are resident, that take output tiles one after the other; one thread loads stages of
//! 128 bytes of k of both operands, and one or two warpgroups multiply 64 rows each. Blocks may share the k of a tile
//! through memory (`parts`), or, in a cluster of 2 with a tile each, one below the other, load the second operand for each
//! other, each half of it. Or, of shared instances, a cluster for each tile, of 2 to 8 blocks that share its k and add
//! their sums through shared memory; swapped instances always, of 1 to 8, and compute Dᵀ, for few rows. Results leave by
//! bulk stores while the next are made, or in vectors, as D allows. With two warpgroups the loading one gives registers to
//! them. Of `_scaled` instances additions take place while another warpgroup's products are made, or, with one warpgroup,
//! the next tile's of k, in other registers.
//! Tensor maps are complete before the grid is queued: they are acquired before the wait for the one before it.
//!
//! # Determinism
//! Bitwise: the order of a sum depends on k, `parts` and the cluster's size alone; parts are added in their order.
//!
//! # Source
//! Original. Reference: `kasmina_reference::linear::forward`.

use kasmina_device::convert::E4m3;
use kasmina_device::shared::DynamicShared;
use kasmina_device::wgmma::{
    Fragment, InOrder, KMajor, Major, MnMajor, Multiply, Shape, State, Tf32,
};
use kasmina_device::{cluster, hint, kernel, thread, tma, warpgroup};
use kasmina_types::{LinearWgmmaParams, bf16, f16};

use super::hopper::band::{Band, stage};
use super::hopper::multiply::multiply;
use super::hopper::multiply_scaled::{Scales, multiply_scaled};
use super::hopper::parts::{Parts, is_last, sum_of_cluster};
use super::hopper::schedule::Schedule;
use super::hopper::shared_map::SharedMap;
use super::hopper::stage::{Barriers, Sharing, Turn, load_tile};
use super::hopper::store::{Team, by_bulk_stores, by_usual_stores};
use super::hopper::tile_k;

/// Registers of a thread that loads, and of one that multiplies, where one warpgroup gives some to two others.
pub(super) const LOADING_REGISTERS: u32 = 40;
pub(super) const MULTIPLYING_REGISTERS: u32 = 232;

/// Dynamic shared memory of an instance.
pub const fn shared_bytes(groups: usize, registers: usize, stages: usize) -> usize {
    SharedMap::new(groups, registers, stages).bytes
}

/// # Safety
/// As [`LinearWgmmaParams`] says; blocks of `GROUPS` · 128 threads and a warp, or a warpgroup where `MOVES`, with
/// [`shared_bytes`]. Where `SHARED`, a cluster for each tile if they are of more than one block, or `SWAPPED`, and then
/// neither parts nor a map of D. Else clusters of 1, or of 2 without parts; then `tiles` counts pairs, and boxes of the
/// second operand are half as high. Where `SCALED`, tiles have the columns of a block of scales.
#[inline(always)]
unsafe fn product<
    E,
    MA: Major,
    MB: Major,
    const R: usize,
    const W: usize,
    const GROUPS: usize,
    const STAGES: usize,
    const SHARED: bool,
    const SWAPPED: bool,
    const SCALED: bool,
    const MOVES: bool,
>(
    p: LinearWgmmaParams,
) where
    E: InOrder<MA> + InOrder<MB>,
    State<R>: Multiply<E> + Shape,
{
    let map = const { SharedMap::new(GROUPS, R, STAGES) };
    let barriers = Barriers::new(&map, STAGES);
    let (rank, blocks) = (cluster::rank(), cluster::size());
    // Blocks that load the second operand for each other, and have tiles one below the other.
    let sharers = if SHARED { 1 } else { blocks };
    let (thread, loads) = (warpgroup::thread_idx(), warpgroup::index() == GROUPS as u32);
    let (rows, columns, along_k) = (64 * GROUPS, 2 * R, tile_k::<E>() as u32);
    // SAFETY: one thread initialises the barriers, before the barrier below; maps are in global memory, and the host
    // wrote them before it queued this grid.
    unsafe {
        if thread::thread_idx_x() == 0 {
            let warps = GROUPS as u32 * 4;
            barriers.init(warps * sharers);
        }
        if thread == 0 && loads {
            tma::acquire_map(p.first);
            tma::acquire_map(p.second);
        } else if thread == 0 && p.bulk != 0 {
            tma::acquire_map(p.d);
        }
    }
    if SHARED || blocks > 1 {
        cluster::sync();
    } else {
        thread::sync_threads();
    }
    thread::await_previous_grid();

    // SAFETY: the caller's contract.
    let schedule = unsafe { Schedule::new(&p, (rows as u32, sharers), columns as u32, SWAPPED) };
    let below = if SHARED { 0 } else { rank * rows as u32 };
    // Clusters are of 1, 2, 4 or 8 blocks.
    let log = blocks.trailing_zeros();
    let (first, step) = (thread::block_idx_x() >> log, thread::grid_dim_x() >> log);
    // Else a block has its tiles for itself, or shares them through memory.
    let in_cluster = SWAPPED || (SHARED && blocks > 1);
    let range = |part: u32| {
        if in_cluster {
            schedule.k_range(rank, blocks)
        } else {
            schedule.k_range(part, schedule.parts())
        }
    };
    let mut turn = Turn::FIRST;
    let mut index = first;

    if loads {
        if MOVES {
            // SAFETY: the whole warpgroup is here.
            unsafe { warpgroup::lower_registers::<LOADING_REGISTERS>() };
        }
        if thread != 0 {
            return;
        }
        let strides = &p.linear.strides;
        // Operands that all problems share have one index.
        let (of_first, of_second) =
            if SWAPPED { (strides.b, strides.a) } else { (strides.a, strides.b) };
        let sharing = (Sharing::alone(rows), Sharing::of(columns, rank, sharers));
        while index < schedule.works {
            // SAFETY: below the number of works.
            let work = unsafe { schedule.work(index, below) };
            let (mut k, end) = range(work.part);
            let number = |stride: u64| if stride == 0 { 0 } else { work.number };
            while k < end {
                let (at, full) = (turn.stage() * map.stage_bytes, barriers.full(turn.stage()));
                // SAFETY: the stage is free, in each block that this one loads for, once its empty barrier's phase before
                // is over; both tiles are of the bytes that are announced, those past the operands' ends too.
                unsafe {
                    barriers.empty(turn.stage()).wait(!turn.parity);
                    full.arrive_expect_tx(map.stage_bytes as u32);
                    let (of_first, of_second) = (number(of_first), number(of_second));
                    let along = k * along_k;
                    load_tile::<MA>(at, p.first, work.row, &sharing.0, along, of_first, full);
                    let at = at + map.first_bytes;
                    load_tile::<MB>(at, p.second, work.column, &sharing.1, along, of_second, full);
                }
                turn.advance(STAGES);
                k += 1;
            }
            index += step;
        }
        return;
    }

    if MOVES {
        // SAFETY: the whole warpgroup is here; the loading one gives what both take.
        unsafe { warpgroup::raise_registers::<MULTIPLYING_REGISTERS>() };
    }
    let group = warpgroup::index() as usize;
    let team = Team::new::<R>(&map, group, thread as usize);
    let mut boxes = 0;
    while index < schedule.works {
        // SAFETY: all threads of the warpgroup are here, each time with the same, and the index is below the number of works;
        // what each part asks for is said there.
        unsafe {
            let (begin, end) = range(schedule.part(index));
            let (who, count) = ((group, sharers), end - begin);
            // The tile's place takes divisions, its bias a way to memory.
            let find = || {
                let work = schedule.work(hint::opaque(index), below);
                let place = schedule.place(&p, &work);
                let bias = if p.bulk != 0 { team.ask_bias::<R>(&p, &place) } else { [0.0; 2] };
                (work, bias)
            };
            let (f, (work, bias)) = if SCALED {
                let found = find();
                let place = schedule.place(&p, &found.0);
                let row = place.row + Fragment::<R>::row(thread as usize, 0) + 64 * group;
                let scales = Scales::new(&p.linear, &place, row, begin);
                let f = multiply_scaled::<E, MA, MB, R, STAGES>(
                    &map, &barriers, &mut turn, who, scales, count,
                );
                (f, found)
            } else {
                multiply::<E, MA, MB, _, R, STAGES>(&map, &barriers, &mut turn, who, count, find)
            };
            index += step;
            if p.bulk != 0 {
                team.keep_bias::<R>(&p, bias);
            }
            let place = schedule.place(&p, &work.opaque());
            if in_cluster {
                let (row, column) = if SWAPPED { (0, 64 * group) } else { (64 * group, 0) };
                let at = (place.row + row, place.column + column);
                let band = Band::<W, SWAPPED>::new(&p, &place, &team, at);
                stage::<W, SWAPPED>(&team, f.window::<W>(0));
                // Sums of all blocks are there from the first barrier on, and read before the second is over; threads that
                // have ended count as come.
                cluster::sync();
                let share = (rank, blocks);
                band.finish(&p, &place, &team, share, |index| sum_of_cluster(index, blocks));
                cluster::sync();
                return;
            }
            let t = hint::opaque_index(team.t);
            let parts = Parts::new::<R>(&p.linear, place.tile, (group, GROUPS), t);
            let split = schedule.parts() > 1;
            if split {
                parts.leave::<R, W>(place.part, &f);
                if !is_last(&p.linear, place.tile, map.last, GROUPS as u32 * 128) {
                    continue;
                }
            }
            let window = |i: usize| if split { parts.window::<W>(i) } else { f.window::<W>(i) };
            // The bias is there, and the staging free.
            team.sync();
            if p.bulk != 0 {
                let usual =
                    !split && by_usual_stores::<R, W>(&p, p.d, &place, &team, &mut boxes, &f);
                if usual {
                    continue;
                }
                by_bulk_stores::<R, W>(&p, p.d, &place, &team, &mut boxes, window);
            } else {
                let shared = DynamicShared::<f32>::whole();
                let mut i = 0;
                while i < R / W {
                    stage::<W, false>(&team, window(i));
                    team.sync();
                    // Anew for each window: else registers keep them beside the sums.
                    let place = schedule.place(&p, &work.opaque());
                    let at = (place.row + 64 * group, place.column + 2 * W * i);
                    let band = Band::<W, false>::new(&p, &place, &team, at);
                    band.finish(&p, &place, &team, (0, 1), |at| shared.read_vector::<4>(at).0);
                    team.sync();
                    i += 1;
                }
            }
        }
    }
    if p.bulk != 0 && thread == 0 {
        // The block's shared memory is not given back before.
        tma::wait_stores::<0>();
    }
    if sharers > 1 {
        // The others release stages here; threads that have ended count as come.
        cluster::sync();
    }
}

macro_rules! instance {
    ($entry:ident, $element:ty, $dtype:ident, $layout:ident, $kind:ident, $groups:literal, $registers:literal,
     $window:literal, $stages:literal, $threads:literal) => {
        /// One layout, one shape of tile.
        ///
        /// # Safety
        /// As [`LinearWgmmaParams`] says, and the module on the launch.
        #[kernel(block = $threads, arch = "90a", awaits)]
        pub unsafe fn $entry(p: LinearWgmmaParams) {
            const MOVES: bool = $threads == ($groups + 1) * 128;
            // SAFETY: the entry's contract.
            unsafe { instance!(@ $kind, $layout, $element, $registers, $window, $groups, $stages)(p) }
        }
    };
    (@ Whole, $layout:ident, $($rest:tt),*) => { instance!(@@ $layout, false, false, false, $($rest),*) };
    (@ Shared, $layout:ident, $($rest:tt),*) => { instance!(@@ $layout, true, false, false, $($rest),*) };
    (@ Swapped, NT, $($rest:tt),*) => { instance!(@@ NT, true, true, false, $($rest),*) };
    (@ Scaled, NT, $($rest:tt),*) => { instance!(@@ NT, false, false, true, $($rest),*) };
    (@@ NN, $($rest:tt),*) => { instance!(@@@ KMajor, MnMajor, $($rest),*) };
    (@@ NT, $($rest:tt),*) => { instance!(@@@ KMajor, KMajor, $($rest),*) };
    (@@ TN, $($rest:tt),*) => { instance!(@@@ MnMajor, MnMajor, $($rest),*) };
    (@@ TT, $($rest:tt),*) => { instance!(@@@ MnMajor, KMajor, $($rest),*) };
    (@@@ $a:ty, $b:ty, $shared:literal, $swapped:literal, $scaled:literal, $element:ty, $registers:literal,
     $window:literal, $groups:literal, $stages:literal) => {
        product::<$element, $a, $b, $registers, $window, $groups, $stages, $shared, $swapped, $scaled, MOVES>
    };
}

kasmina_types::linear_wgmma_tiles!(instance);

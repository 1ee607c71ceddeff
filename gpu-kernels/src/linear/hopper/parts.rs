//! Sums of blocks that share the k of a tile: through memory, where the last block to come adds them, or through the
//! shared memory of a cluster, where each block adds a share of the tile.

use kasmina_device::atomic::{self, Order, Scope};
use kasmina_device::global::{Load, Store};
use kasmina_device::shared::DynamicShared;
use kasmina_device::vector::{LoadHint, StoreHint, Vector};
use kasmina_device::wgmma::Fragment;
use kasmina_device::{cluster, thread, unroll};
use kasmina_types::{LinearParams, Out};

/// Threads of a warpgroup.
const THREADS: usize = 128;

/// Where a warpgroup's sums of a part lie: `[R / 4, 128]` vectors of four registers.
#[derive(Clone, Copy)]
pub(crate) struct Parts {
    values: Out<f32>,
    /// The thread's first value of part 0.
    first: usize,
    /// Values from one part to the next.
    stride: usize,
    count: u32,
}

impl Parts {
    /// Of tile `tile` of `R` · 128 values for each of `groups` warpgroups.
    #[inline(always)]
    pub(crate) fn new<const R: usize>(
        p: &LinearParams,
        tile: usize,
        (group, groups): (usize, usize),
        t: usize,
    ) -> Self {
        let stride = groups * THREADS * R;
        let first = tile * p.parts as usize * stride + group * THREADS * R + 4 * t;
        Self { values: p.partials.cast(), first, stride, count: p.parts }
    }

    /// Leaves the sums of part `part`.
    ///
    /// # Safety
    /// The part is this block's.
    #[inline(always)]
    pub(crate) unsafe fn leave<const R: usize, const W: usize>(
        &self,
        part: usize,
        f: &Fragment<R>,
    ) {
        let mut i = 0;
        while i < R / W {
            let window = f.window::<W>(i);
            unroll!(q in W / 4 => {
                let at = self.first + part * self.stride + (i * (W / 4) + q) * 4 * THREADS;
                let four = [window[4 * q], window[4 * q + 1], window[4 * q + 2], window[4 * q + 3]];
                // SAFETY: inside the part, which is the caller's; vectors are aligned, as the scratch is.
                unsafe { self.values.store_vector(at, Vector(four), StoreHint::Cached) };
            });
            i += 1;
        }
    }

    /// The sums of all parts, in their order, of window `i`.
    ///
    /// # Safety
    /// All parts were left, and their blocks' arrivals seen.
    #[inline(always)]
    pub(crate) unsafe fn window<const W: usize>(&self, i: usize) -> [f32; W] {
        // SAFETY: all zero bits are a number in each f32.
        let mut window: [f32; W] = unsafe { core::mem::zeroed() };
        let mut part = 0;
        while part < self.count as usize {
            unroll!(q in W / 4 => {
                let at = self.first + part * self.stride + (i * (W / 4) + q) * 4 * THREADS;
                // SAFETY: the caller's contract.
                let Vector(four) = unsafe { self.values.load_vector::<4>(at, LoadHint::Cached) };
                unroll!(e in 4 => { window[4 * q + e] += four[e]; });
            });
            part += 1;
        }
        window
    }
}

/// Says to the consuming threads of the block whether it is the last to have left its part of the tile, and then shows
/// them all parts. The word at byte `last` of shared memory is for nothing else.
///
/// # Safety
/// As [`kasmina_device::grid::team_arrive_is_last`], for the `team` threads from 0 on.
#[inline(always)]
pub(crate) unsafe fn is_last(p: &LinearParams, tile: usize, last: usize, team: u32) -> bool {
    let words = DynamicShared::<u32>::whole();
    // The first barrier orders every thread's stores before thread 0, whose arrival releases them; the second its
    // acquisition, and the answer, before every thread.
    thread::sync_team(TEAM, team);
    if thread::thread_idx_x() == 0 {
        // SAFETY: the caller's contract; after the last arrival nobody else touches the count, and only this thread
        // writes the word between the two barriers.
        unsafe {
            let before = atomic::fetch_add(&p.arrivals, tile, 1, Order::AcqRel, Scope::Device);
            let is_last = before + 1 == p.parts;
            if is_last {
                atomic::store(&p.arrivals, tile, 0, Order::Relaxed, Scope::Device);
            }
            words.write(last / 4, u32::from(is_last));
        }
    }
    thread::sync_team(TEAM, team);
    // SAFETY: thread 0 wrote it before the barrier.
    unsafe { words.read(last / 4) != 0 }
}

/// The barrier of all consuming threads; warpgroup g has 1 + g.
const TEAM: u32 = 8;

/// The sum of four values at word `index` of the shared memory of each block of the cluster, of 1, 2, 4 or 8, in their order.
///
/// # Safety
/// As [`cluster::RemotePlace::read_four`] in each of them.
#[inline(always)]
pub(crate) unsafe fn sum_of_cluster(index: usize, blocks: u32) -> [f32; 4] {
    let mut sums = [0.0; 4];
    // SAFETY: the caller's contract.
    unsafe {
        if blocks == 1 {
            add_blocks::<1>(&mut sums, index, 0);
        } else if blocks == 2 {
            add_blocks::<2>(&mut sums, index, 0);
        } else {
            add_blocks::<4>(&mut sums, index, 0);
            if blocks == 8 {
                add_blocks::<4>(&mut sums, index, 4);
            }
        }
    }
    sums
}

/// Adds the values of `N` blocks, at most 4, from `first` on. All are on their way before a sum waits for one.
///
/// # Safety
/// As [`sum_of_cluster`], and there are as many blocks.
#[inline(always)]
unsafe fn add_blocks<const N: usize>(sums: &mut [f32; 4], index: usize, first: u32) {
    let shared = DynamicShared::<f32>::whole();
    let mut values = [[0; 4]; N];
    unroll!(i in N, at most 4 => {
        let place = cluster::map(shared.place(index), first + i as u32);
        // SAFETY: the caller's contract.
        values[i] = unsafe { place.read_four() };
    });
    unroll!(i in N, at most 4 => {
        unroll!(e in 4, at most 4 => { sums[e] += f32::from_bits(values[i][e]); });
    });
}

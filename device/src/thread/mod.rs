//! Where a thread stands in its grid, and the barriers of its block.

#[cfg(target_arch = "nvptx64")]
mod nvptx;
#[cfg(not(target_arch = "nvptx64"))]
mod simt;

#[cfg(target_arch = "nvptx64")]
use nvptx as imp;
#[cfg(not(target_arch = "nvptx64"))]
use simt as imp;

macro_rules! index {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[inline(always)]
        #[track_caller]
        pub fn $name() -> u32 {
            imp::$name()
        }
    )*};
}

index! {
    /// The thread's x in its block.
    thread_idx_x,
    /// The thread's y in its block.
    thread_idx_y,
    /// The thread's z in its block.
    thread_idx_z,
    /// The block's x in the grid.
    block_idx_x,
    /// The block's y in the grid.
    block_idx_y,
    /// The block's z in the grid.
    block_idx_z,
    /// Threads of a block along x.
    block_dim_x,
    /// Threads of a block along y.
    block_dim_y,
    /// Threads of a block along z.
    block_dim_z,
    /// Blocks of the grid along x.
    grid_dim_x,
    /// Blocks of the grid along y.
    grid_dim_y,
    /// Blocks of the grid along z.
    grid_dim_z,
}

/// The thread's index in a one-dimensional grid.
#[inline(always)]
#[track_caller]
pub fn index_1d() -> u32 {
    block_idx_x() * block_dim_x() + thread_idx_x()
}

/// The thread's position in its warp, 0 to 31.
#[inline(always)]
#[track_caller]
pub fn lane_idx() -> u32 {
    imp::lane_idx()
}

/// The warp's position in its one-dimensional block.
#[inline(always)]
#[track_caller]
pub fn warp_idx() -> u32 {
    thread_idx_x() / crate::warp::WARP_SIZE
}

/// Waits for every thread of the block, and orders all memory accesses before it, in the block's
/// eyes, before all after it (`bar.sync 0`). Every thread of the block calls it, from the same place.
#[inline(always)]
#[track_caller]
pub fn sync_threads() {
    imp::sync_threads();
}

/// [`sync_threads`], and whether the predicate holds in some thread of the block (`bar.red.or`).
#[inline(always)]
#[track_caller]
pub fn sync_threads_or(predicate: bool) -> bool {
    imp::sync_threads_or(predicate)
}

/// Waits until `threads` threads of the block have come to barrier `id`, and orders all their memory
/// accesses before it before all after it (`barrier.cta.sync.aligned`, sm_70). For teams of whole warps that
/// meet without the rest of the block.
///
/// All lanes of a warp call it together. `id` is one of 1 to 15 (0 is [`sync_threads`]'), `threads` a
/// multiple of 32, and both are the same for all who meet.
#[inline(always)]
#[track_caller]
pub fn sync_team(id: u32, threads: u32) {
    imp::sync_team(id, threads);
}

/// [`sync_team`], and whether the predicate holds in some thread of the team
/// (`barrier.cta.red.or.aligned`, sm_70).
#[inline(always)]
#[track_caller]
pub fn sync_team_or(id: u32, threads: u32, predicate: bool) -> bool {
    imp::sync_team_or(id, threads, predicate)
}

/// Lets others run: what a thread calls in a loop that polls memory. `nanoseconds` is a hint.
#[inline(always)]
#[track_caller]
pub fn spin_wait(nanoseconds: u32) {
    imp::spin_wait(nanoseconds);
}

/// Waits until the grids that this one depends on have ended and their memory is visible, then lets
/// the grid that depends on this one be placed (`griddepcontrol.wait`, then `.launch_dependents`; sm_90
/// and newer, nothing before). A launch may ask to be placed while its predecessor ends: the host sees
/// to it that only kernels of targets that wait are launched so. `#[kernel]` puts this call first; one that
/// `awaits` itself calls it once, before it touches what the grid before it wrote or any memory that it writes itself. Where
/// that grid is always the same, as in a plan of two launches, memory that it leaves alone may be touched before: it let
/// this one be placed only after its own wait, so that all grids before it have ended.
#[inline(always)]
pub fn await_previous_grid() {
    imp::await_previous_grid();
}

/// Cycles of the multiprocessor's clock since some moment: a register, where [`clock_ns`] is a trip through the device.
#[inline(always)]
#[track_caller]
pub fn clock() -> u64 {
    imp::clock()
}

/// Nanoseconds since some fixed moment, in steps of the device's choice.
#[inline(always)]
#[track_caller]
pub fn clock_ns() -> u64 {
    imp::clock_ns()
}

//! The executor's threads.

use kasmina_simt::rt;

macro_rules! index {
    ($($name:ident = $call:ident[$axis:literal]),* $(,)?) => {$(
        #[inline(always)]
        #[track_caller]
        pub(super) fn $name() -> u32 {
            rt::$call()[$axis]
        }
    )*};
}

index! {
    thread_idx_x = thread_idx[0], thread_idx_y = thread_idx[1], thread_idx_z = thread_idx[2],
    block_idx_x = block_idx[0], block_idx_y = block_idx[1], block_idx_z = block_idx[2],
    block_dim_x = block_dim[0], block_dim_y = block_dim[1], block_dim_z = block_dim[2],
    grid_dim_x = grid_dim[0], grid_dim_y = grid_dim[1], grid_dim_z = grid_dim[2],
}

#[inline(always)]
#[track_caller]
pub(super) fn lane_idx() -> u32 {
    rt::linear_thread() % crate::warp::WARP_SIZE
}

#[inline(always)]
#[track_caller]
pub(super) fn sync_threads() {
    rt::barrier();
}

#[inline(always)]
#[track_caller]
pub(super) fn sync_threads_or(predicate: bool) -> bool {
    rt::barrier_count(predicate) != 0
}

#[inline(always)]
#[track_caller]
pub(super) fn sync_team(id: u32, threads: u32) {
    rt::named_barrier(id, threads);
}

#[inline(always)]
#[track_caller]
pub(super) fn sync_team_or(id: u32, threads: u32, predicate: bool) -> bool {
    rt::named_barrier_count(id, threads, predicate) != 0
}

#[inline(always)]
#[track_caller]
pub(super) fn spin_wait(_nanoseconds: u32) {
    rt::spin();
}

/// A cycle of the executor is a nanosecond.
#[inline(always)]
#[track_caller]
pub(super) fn clock() -> u64 {
    rt::clock()
}

#[inline(always)]
#[track_caller]
pub(super) fn clock_ns() -> u64 {
    rt::clock()
}

/// The executor runs one grid after the other.
#[inline(always)]
pub(super) fn await_previous_grid() {}

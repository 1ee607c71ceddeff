//! Special registers and `bar.sync`.

use core::arch::{asm, nvptx};

macro_rules! register {
    ($($name:ident = $intrinsic:ident),* $(,)?) => {$(
        #[inline(always)]
        pub(super) fn $name() -> u32 {
            // SAFETY: reads a special register.
            unsafe { nvptx::$intrinsic() as u32 }
        }
    )*};
}

register! {
    thread_idx_x = _thread_idx_x, thread_idx_y = _thread_idx_y, thread_idx_z = _thread_idx_z,
    block_idx_x = _block_idx_x, block_idx_y = _block_idx_y, block_idx_z = _block_idx_z,
    block_dim_x = _block_dim_x, block_dim_y = _block_dim_y, block_dim_z = _block_dim_z,
    grid_dim_x = _grid_dim_x, grid_dim_y = _grid_dim_y, grid_dim_z = _grid_dim_z,
}

#[inline(always)]
pub(super) fn lane_idx() -> u32 {
    let lane: u32;
    // SAFETY: reads a special register.
    unsafe { asm!("mov.u32 {}, %laneid;", out(reg32) lane, options(pure, nomem, nostack)) };
    lane
}

#[inline(always)]
pub(super) fn sync_threads() {
    // SAFETY: the caller's contract: every thread of the block arrives here.
    unsafe { nvptx::_syncthreads() };
}

unsafe extern "unadjusted" {
    #[link_name = "llvm.nvvm.barrier0.or"]
    fn barrier0_or(predicate: i32) -> i32;
    #[link_name = "llvm.nvvm.barrier.cta.sync.aligned.count"]
    fn barrier_sync(id: u32, threads: u32);
    #[link_name = "llvm.nvvm.barrier.cta.red.or.aligned.count"]
    fn barrier_or(id: u32, threads: u32, predicate: bool) -> bool;
}

#[inline(always)]
pub(super) fn sync_threads_or(predicate: bool) -> bool {
    // SAFETY: as above.
    unsafe { barrier0_or(i32::from(predicate)) != 0 }
}

#[inline(always)]
pub(super) fn sync_team(id: u32, threads: u32) {
    // SAFETY: the caller's contract: the team's warps all arrive.
    unsafe { barrier_sync(id, threads) };
}

#[inline(always)]
pub(super) fn sync_team_or(id: u32, threads: u32, predicate: bool) -> bool {
    // SAFETY: as above.
    unsafe { barrier_or(id, threads, predicate) }
}

#[inline(always)]
pub(super) fn spin_wait(nanoseconds: u32) {
    // Before PTX 6.3 there is nothing to wait with: the caller polls without a pause.
    #[cfg(not(target_feature = "ptx63"))]
    let _ = nanoseconds;
    #[cfg(target_feature = "ptx63")]
    // SAFETY: suspends the thread for about that long.
    unsafe {
        asm!("nanosleep.u32 {};", in(reg32) nanoseconds, options(nostack))
    };
}

#[inline(always)]
pub(super) fn clock() -> u64 {
    let time: u64;
    // SAFETY: reads a special register; not `pure`, for two readings differ.
    unsafe { asm!("mov.u64 {}, %clock64;", out(reg64) time, options(nomem, nostack)) };
    time
}

#[inline(always)]
pub(super) fn clock_ns() -> u64 {
    let time: u64;
    // SAFETY: reads a special register; not `pure`, for two readings may differ.
    unsafe { asm!("mov.u64 {}, %globaltimer;", out(reg64) time, options(nomem, nostack)) };
    time
}

#[inline(always)]
pub(super) fn await_previous_grid() {
    #[cfg(target_feature = "sm_90")]
    // SAFETY: orders what follows after the grids before; clobbers memory, so that no load moves up.
    unsafe {
        asm!("griddepcontrol.wait;", "griddepcontrol.launch_dependents;", options(nostack))
    };
}

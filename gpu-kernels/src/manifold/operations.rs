//! What an item's operations are carried out by.

use kasmina_device::atomic::{self, Order, Scope};
use kasmina_device::grid::BlockPlace;
use kasmina_device::{hint, thread};
use kasmina_types::Manifold;
use kasmina_types::manifold::{Command, ItemStatus, data_of};
use kasmina_types::tiles::GEMV_BLOCK_THREADS;
use kasmina_types::tiles::manifold::{domain, operation};

use super::desk::{Desk, Heads};
use super::manifold::meet;
use crate::information::active_inference::columns::{INFER, STEP};
use crate::information::active_inference::infer;
use crate::information::active_inference::teams::Teams;
use crate::information::axpby;
use crate::kasmina::blend_forward::blend_forward;
use crate::kasmina::strip::BLOCK as BLEND_THREADS;
use crate::kasmina::team::Team;
use crate::linear::gemv;

/// The named barrier of operations that only some of a block's threads carry out.
const PART_BARRIER: u32 = 15;

/// The operations of the item on the desk, one after the other, for its block number `rank`. Answers its status.
///
/// # Safety
/// The item is inside the table, whose parameters are as their kernels say; the head of its first operation was handed on;
/// every thread of the item's blocks calls it.
#[inline(always)]
pub(super) unsafe fn carry_out<const DOMAINS: u32, const THREADS: u32>(
    p: &Manifold,
    desk: Desk,
    heads: Heads,
    group: u32,
    rank: u32,
) -> ItemStatus {
    let (mut i, mut status) = (0, ItemStatus::Done);
    loop {
        // SAFETY: it is there until the block is through with it.
        let item = unsafe { desk.item() };
        if i >= item.count {
            return status;
        }
        // SAFETY: the barrier below, or the caller's, came after it was handed on.
        let (code, blocks) = unsafe { heads.take(i) };
        // The same for every block of the item.
        if blocks == 0 || blocks > item.blocks || !is_known::<DOMAINS>(code) {
            return ItemStatus::UnknownOperation;
        }
        let at = item.first + i;
        i += 1;
        // On its way while the operation runs.
        // SAFETY: the operation is inside the table.
        let next = if i < item.count { unsafe { heads.fetch(p, at + 1) } } else { (0, 0) };
        if rank < blocks {
            let place = BlockPlace { block: rank, blocks };
            // SAFETY: the caller's contract.
            unsafe { one::<DOMAINS, THREADS>(p, at as usize, code, place) };
            if code == operation::HANG {
                status = ItemStatus::Abandoned;
            }
        }
        // SAFETY: as above. Read anew, so that no register holds it meanwhile.
        let item = unsafe { desk.item() };
        if i < item.count {
            // SAFETY: `meet` comes before it is taken, and has come since the one two before it was.
            unsafe { heads.hand(i, next) };
        }
        // SAFETY: all of the item's blocks come here for each operation.
        if (i < item.count || item.blocks > 1) && !unsafe { meet(p, group, item.blocks, rank) } {
            return ItemStatus::Abandoned;
        }
    }
}

/// Whether the kernel has an operation.
#[inline(always)]
fn is_known<const DOMAINS: u32>(code: u32) -> bool {
    let domains = match code {
        operation::EMPTY..=operation::DEAF => return true,
        operation::BLEND_FORWARD_F32 => domain::LAYER,
        operation::BELIEF_STEP_C64..=operation::INFER_C64 => domain::INFORMATION,
        operation::GEMV_F32 | operation::GEMV_F64 => domain::LINEAR,
        _ => 0,
    };
    domains & DOMAINS != 0
}

/// One operation in one of its blocks.
///
/// # Safety
/// The parameters at `at` are those of the operation's kernel, for a grid of so many blocks; every thread of the block
/// calls it.
#[inline(always)]
#[allow(
    clippy::collapsible_match,
    reason = "as a guard, a condition on the thread makes a branch that threads take differently of the match"
)]
unsafe fn one<const DOMAINS: u32, const THREADS: u32>(
    p: &Manifold,
    at: usize,
    code: u32,
    place: BlockPlace,
) {
    // SAFETY: the caller's contract, here and in each arm; operations without barriers may be left to some threads.
    unsafe {
        match code {
            operation::HANG => {
                if thread::thread_idx_x() == 0 {
                    while !is_told(p, Command::Abandon) {
                        thread::spin_wait(1000);
                    }
                }
            }
            operation::DEAF => {
                while !is_told(p, Command::Release) {
                    thread::spin_wait(1000);
                }
                // It never ends: the item is not complete.
                hint::trap();
            }
            operation::TRAP => hint::trap(),
            operation::AXPBY_F32 => axpby::axpby::<f32, 4, true>(&parameters(p, at), place),
            operation::AXPBY_F64 => axpby::axpby::<f64, 2, true>(&parameters(p, at), place),
            operation::BLEND_FORWARD_F32 if DOMAINS & domain::LAYER != 0 => {
                if is_of_first::<THREADS>(BLEND_THREADS as u32) {
                    let team = FirstThreads::<THREADS>;
                    blend_forward::<f32, _, 4, 4, false, true>(parameters(p, at), place, team);
                }
            }
            operation::BELIEF_STEP_C64 if DOMAINS & domain::INFORMATION != 0 => {
                type Sweep = Teams<f64, 2, 1, 1, 4, 4>;
                infer::run::<Sweep, STEP, true>(parameters(p, at), place);
            }
            operation::BELIEF_STEP_C256 if DOMAINS & domain::INFORMATION != 0 => {
                type Sweep = Teams<f64, 2, 4, 1, 2, 2>;
                infer::run::<Sweep, STEP, true>(parameters(p, at), place);
            }
            operation::INFER_C64 if DOMAINS & domain::INFORMATION != 0 => {
                type Sweep = Teams<f64, 2, 1, 1, 4, 4>;
                infer::run::<Sweep, INFER, true>(parameters(p, at), place);
            }
            operation::GEMV_F32 if DOMAINS & domain::LINEAR != 0 => {
                if is_of_first::<THREADS>(GEMV_BLOCK_THREADS) {
                    gemv::gemv::<f32, 4, 2, true>(&parameters(p, at), place);
                }
            }
            operation::GEMV_F64 if DOMAINS & domain::LINEAR != 0 => {
                if is_of_first::<THREADS>(GEMV_BLOCK_THREADS) {
                    gemv::gemv::<f64, 2, 2, true>(&parameters(p, at), place);
                }
            }
            _ => {}
        }
    }
}

/// Whether the host has given that command, or a stronger one.
///
/// # Safety
/// As [`Manifold`] says.
#[inline(always)]
pub(super) unsafe fn is_told(p: &Manifold, command: Command) -> bool {
    // SAFETY: the word is inside its array; the host writes it by atomics.
    let word = unsafe { atomic::load(&p.control, 0, Order::Relaxed, Scope::System) };
    data_of(word) >= command as u32
}

/// Whether the thread is one of the first `threads` of its block's `THREADS`.
#[inline(always)]
fn is_of_first<const THREADS: u32>(threads: u32) -> bool {
    THREADS == threads || thread::thread_idx_x() < threads
}

/// An operation's parameters.
///
/// # Safety
/// They are of that type.
#[inline(always)]
unsafe fn parameters<P: Copy>(p: &Manifold, at: usize) -> P {
    const { assert!(size_of::<P>() <= kasmina_types::manifold::OPERATION_PARAMETER_BYTES) };
    // SAFETY: the operation is inside the table, which nobody writes between its item's submission and completion.
    unsafe { (&raw const (*p.operations.as_ptr().add(at)).parameters).cast::<P>().read() }
}

/// The first 256 threads of a block of `THREADS`.
#[derive(Clone, Copy)]
struct FirstThreads<const THREADS: u32>;

impl<const THREADS: u32> Team for FirstThreads<THREADS> {
    #[inline(always)]
    fn sync(self) {
        if THREADS == BLEND_THREADS as u32 {
            thread::sync_threads();
        } else {
            thread::sync_team(PART_BARRIER, BLEND_THREADS as u32);
        }
    }

    #[inline(always)]
    fn sync_or(self, predicate: bool) -> bool {
        if THREADS == BLEND_THREADS as u32 {
            thread::sync_threads_or(predicate)
        } else {
            thread::sync_team_or(PART_BARRIER, BLEND_THREADS as u32, predicate)
        }
    }
}

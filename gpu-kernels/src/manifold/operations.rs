//! What an item's operations are carried out by.

use kasmina_device::atomic::{self, Order, Scope};
use kasmina_device::grid::BlockPlace;
use kasmina_device::{hint, thread, warp};
use kasmina_types::Manifold;
use kasmina_types::manifold::{Command, ItemStatus, data_of};
use kasmina_types::tiles::manifold::{domain, operation};
use kasmina_types::tiles::{GEMV_BLOCK_THREADS, SMALL_INFERENCE_BLOCK_THREADS};

use super::desk::{Desk, Task};
use super::manifold::meet;
use crate::information::active_inference::columns::{INFER, STEP};
use crate::information::active_inference::teams::Teams;
use crate::information::active_inference::{infer, small};
use crate::information::axpby;
use crate::kasmina::blend_forward::blend_forward;
use crate::kasmina::strip::BLOCK as BLEND_THREADS;
use crate::kasmina::team::Team;
use crate::linear::gemv;

/// The named barrier of operations that only some of a block's threads carry out.
const PART_BARRIER: u32 = 15;

/// The operations of the task on the desk, one after the other, for this block of it. Answers its status.
///
/// # Safety
/// The task is inside the table, whose parameters are as their kernels say; its first operation is in its slot, its second on
/// the way; every thread of the task's blocks calls it.
#[inline(always)]
pub(super) unsafe fn carry_out<const DOMAINS: u32, const THREADS: u32>(
    p: &Manifold,
    desk: Desk<THREADS>,
) -> ItemStatus {
    let mut i = 0;
    loop {
        // SAFETY: they are there until the block is through with them: the barrier below, or the caller's, came before.
        let ((task, rank), (code, blocks)) = unsafe { (desk.task(), desk.head(i)) };
        // The same for every block of the item.
        let is_known = is_known::<DOMAINS>(&task, code, blocks);
        let hangs = is_known && code == operation::HANG;
        // Counts of operations have 16 bits.
        let note = i | u32::from(is_known) << 16 | u32::from(hangs) << 17;
        desk.note(note);
        if is_known {
            if i + 2 < task.count && hint::opaque(thread::thread_idx_x()) < warp::WARP_SIZE {
                // SAFETY: `meet` has come since the last use of its slot.
                unsafe { desk.bring(p, &task, i + 2) };
            }
            if rank < blocks {
                let place = BlockPlace { block: rank, blocks };
                // SAFETY: the caller's contract.
                unsafe { one::<DOMAINS, THREADS>(p, desk, i, code, place) };
            }
        }
        let note = desk.noted(note);
        // SAFETY: as above. Read anew, so that no register holds it meanwhile.
        let (task, _) = unsafe { desk.task() };
        i = (note & 0xffff) + 1;
        let (is_known, hangs) = (note >> 16 & 1 != 0, note >> 17 != 0);
        let ends = !is_known || i == task.count;
        // Of an item that ends nothing is on its way.
        desk.wait(&task, if ends { task.count } else { i });
        // SAFETY: all of the item's blocks come here for each operation.
        if (!ends || task.blocks > 1) && !unsafe { meet(p, desk, task.blocks) } || hangs {
            return ItemStatus::Abandoned;
        }
        if ends {
            return if is_known { ItemStatus::Done } else { ItemStatus::UnknownOperation };
        }
    }
}

/// Whether the kernel has an operation, and the task the blocks for it.
#[inline(always)]
fn is_known<const DOMAINS: u32>(task: &Task, code: u32, blocks: u32) -> bool {
    const { assert!(operation::GEMV_F64 < 32) };
    let known = const {
        let (mut known, mut code) = (0_u32, 0);
        while code < 32 {
            let domains = match code {
                operation::EMPTY..=operation::DEAF => domain::ALL,
                operation::BLEND_FORWARD_F32 => domain::LAYER,
                operation::BELIEF_STEP_C64..=operation::INFER_C64 => domain::INFORMATION,
                operation::GEMV_F32 | operation::GEMV_F64 => domain::LINEAR,
                _ => 0,
            };
            if domains & DOMAINS != 0 {
                known |= 1 << code;
            }
            code += 1;
        }
        known
    };
    blocks != 0 && blocks <= task.blocks && code < 32 && known >> code & 1 != 0
}

/// An item's operation number `i` in one of its blocks.
///
/// # Safety
/// The parameters in its slot are those of the operation's kernel, for a grid of so many blocks; every thread of the block
/// calls it.
#[inline(always)]
#[allow(
    clippy::collapsible_match,
    reason = "as a guard, a condition on the thread makes a branch that threads take differently of the match"
)]
unsafe fn one<const DOMAINS: u32, const THREADS: u32>(
    p: &Manifold,
    desk: Desk<THREADS>,
    i: u32,
    code: u32,
    place: BlockPlace,
) {
    // Of J fewer rows are in registers than in a launch, with the same sums: what an operation needs beyond the block's
    // registers costs all others.
    // SAFETY: the caller's contract, here and in each arm; operations without barriers may be left to some threads.
    unsafe {
        // The shortest by a branch: where a table of branches leads to comes from memory.
        if DOMAINS & domain::INFORMATION != 0 && hint::opaque(code) == operation::BELIEF_STEP_SMALL
        {
            let threads = SMALL_INFERENCE_BLOCK_THREADS;
            if thread::thread_idx_x() < threads {
                let sync = || thread::sync_team(PART_BARRIER, threads);
                let blocks = || desk.head(desk.noted(i) & 0xffff).1;
                small::step::<f64, true>(desk.parameters(i), place.block, blocks, sync);
            }
            return;
        }
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
            operation::AXPBY_F32 => axpby::axpby::<f32, 4, true>(desk.parameters(i), place),
            operation::AXPBY_F64 => axpby::axpby::<f64, 2, true>(desk.parameters(i), place),
            operation::BLEND_FORWARD_F32 if DOMAINS & domain::LAYER != 0 => {
                if is_of_first::<THREADS>(BLEND_THREADS as u32) {
                    let team = FirstThreads::<THREADS>;
                    blend_forward::<f32, _, 4, 4, true>(*desk.parameters(i), place, team);
                }
            }
            operation::BELIEF_STEP_C64 if DOMAINS & domain::INFORMATION != 0 => {
                type Sweep = Teams<f64, 2, 1, 1, 2, 1>;
                infer::run::<Sweep, STEP, true>(desk.parameters(i), place);
            }
            operation::BELIEF_STEP_C256 if DOMAINS & domain::INFORMATION != 0 => {
                type Sweep = Teams<f64, 2, 4, 1, 1, 1>;
                infer::run::<Sweep, STEP, true>(desk.parameters(i), place);
            }
            operation::INFER_C64 if DOMAINS & domain::INFORMATION != 0 => {
                type Sweep = Teams<f64, 2, 1, 1, 2, 1>;
                infer::run::<Sweep, INFER, true>(desk.parameters(i), place);
            }
            operation::GEMV_F32 if DOMAINS & domain::LINEAR != 0 => {
                if is_of_first::<THREADS>(GEMV_BLOCK_THREADS) {
                    gemv::gemv::<f32, 4, 2, true>(desk.parameters(i), place);
                }
            }
            operation::GEMV_F64 if DOMAINS & domain::LINEAR != 0 => {
                if is_of_first::<THREADS>(GEMV_BLOCK_THREADS) {
                    gemv::gemv::<f64, 2, 2, true>(desk.parameters(i), place);
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

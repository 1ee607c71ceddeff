//! Resident kernels, which carry out items until they are told to leave.
//!
//! # Math
//! That of the operations: each is the body of the kernel named in `MANIFOLD_OPERATIONS`, with the same result for the same
//! number of blocks.
//!
//! # Layout
//! As [`Manifold`] says. Lines, completions, control and reports are in mapped memory, which the host writes and reads at
//! the same time, by the protocol of `kasmina_types::manifold`; everything else is on the device.
//!
//! # Traffic
//! A look reads one sector of 32 bytes of each of the two rings' lines over the bus; an item has one word written. An item's
//! latency is that of the bus, there and back, and what a block needs to meet: bound by latency. Operations come from L2, each
//! while the one before it runs.
//!
//! # Launch
//! Cooperative: groups of blocks, all of them resident, a block a multiprocessor. The first warp of a group's first block
//! looks for work, the others of the block wait at a barrier; the group's other blocks poll a word in L2. Items of one
//! block never leave their block; between two operations of several blocks these meet at a barrier of the grid. In
//! `manifold_all`, whose blocks are of 512 threads, operations made for 256 are carried out by the first 256.
//!
//! # Determinism
//! Bitwise: an operation's result does not depend on when it is carried out; what it may depend on is its number of blocks,
//! as in a launch. In which order items of different rings are carried out is open, but for what their needs say.
//!
//! # Source
//! Original. A persistent kernel fed by the host: K. Gupta, J. Stuart, J. Owens, "A study of persistent threads style GPU
//! programming", 2012. References: those of the operations, `kasmina_reference::kasmina::blend_forward` and others.

use kasmina_device::atomic::{self, Order, Scope};
use kasmina_device::global::Load;
use kasmina_device::{grid, hint, kernel, thread, warp};
use kasmina_types::Manifold;
use kasmina_types::manifold::{
    CALL_WORDS, Command, GroupState, ItemStatus, data_of, report, tag_of, tagged,
};
use kasmina_types::tiles::manifold::domain;

use super::desk::{Desk, Seat, Task};
use super::operations::{carry_out, is_told};
use super::watch::{Watch, say};

/// One block of the grid.
///
/// What outlives an operation is in shared memory: the operations need the registers, and a look at the host's words empties
/// L1, in which local memory would be.
///
/// # Safety
/// As [`Manifold`] says; every thread of the grid calls it, in blocks of `THREADS`.
#[inline(always)]
unsafe fn reside<const DOMAINS: u32, const THREADS: u32>(p: Manifold) {
    let p = &p;
    // SAFETY: every thread of the block is here.
    let desk = Desk::<THREADS>::new(unsafe { seat(p) });
    let watch = Watch(desk);
    let Seat { group, rank, .. } = desk.seat();
    if rank == 0 && thread::warp_idx() == 0 {
        if thread::lane_idx() == 0 {
            say(p, group, report::STATE, GroupState::Running as u64);
        }
        // SAFETY: the group's rings are there.
        unsafe { watch.begin(p, group) };
    }
    loop {
        if hint::opaque(thread::thread_idx_x()) < warp::WARP_SIZE {
            let Seat { group, rank, blocks } = desk.seat();
            // SAFETY: the whole warp calls it.
            let (task, has_operations) = unsafe {
                if rank == 0 {
                    watch.look(p, group, blocks)
                } else {
                    (called(p, desk, group), false)
                }
            };
            if rank < task.blocks && !has_operations {
                // SAFETY: the item is inside the table; the block is through with all before it.
                unsafe {
                    desk.bring(p, &task, 0);
                    if task.count > 1 {
                        desk.bring(p, &task, 1);
                    }
                }
                desk.wait(&task, 0);
            }
            if thread::lane_idx() == 0 {
                // SAFETY: the barriers are those below.
                unsafe { desk.put(task) };
            }
        }
        // Orders the task, and what the host wrote before the item, before the block.
        thread::sync_threads();
        // SAFETY: the barrier came after it was put there.
        let (task, rank) = unsafe { desk.task() };
        if hint::opaque(thread::thread_idx_x()) == 0 && (task.count == 0 || task.blocks > 1) {
            let Seat { group, rank, blocks } = desk.seat();
            if rank == 0 && blocks > 1 {
                call(p, desk, group, task);
            }
            if rank == 0 && task.count == 0 {
                watch.report_time(p, group);
                atomic::fence(Scope::System);
                say(p, group, report::STATE, task.first.into());
            }
        }
        if task.count == 0 {
            return;
        }
        let mut status = ItemStatus::Done as u32;
        if rank < task.blocks {
            // SAFETY: the item is inside the table, and its blocks are all here.
            status = unsafe { carry_out::<DOMAINS, THREADS>(p, desk) } as u32;
            // Whatever it is, the barrier below is one.
            status = hint::opaque(status);
        }
        // Orders what the block did before its completion, and the desk's readers before its next task.
        thread::sync_threads();
        if hint::opaque(thread::thread_idx_x()) == 0 && desk.seat().rank == 0 {
            // SAFETY: the item is the one that was found.
            unsafe { watch.complete(p, status) };
        }
    }
}

/// The block's seat.
///
/// # Safety
/// As [`Manifold`] says.
#[inline(always)]
unsafe fn seat(p: &Manifold) -> Seat {
    let (mut group, block) = (0, thread::block_idx_x());
    // SAFETY: there is a number for each group and one behind.
    unsafe {
        while group + 1 < p.groups && p.first_blocks.load(group as usize + 1) <= block {
            group += 1;
        }
        let first = p.first_blocks.load(group as usize);
        let blocks = p.first_blocks.load(group as usize + 1) - first;
        Seat { group, rank: block - first, blocks }
    }
}

/// Calls the group's other blocks to an item, or, if it is none, away. The first block's first thread does.
#[inline(always)]
fn call<const THREADS: u32>(p: &Manifold, desk: Desk<THREADS>, group: u32, task: Task) {
    let call = desk.call().wrapping_add(1);
    desk.set_call(call);
    let at = group as usize * CALL_WORDS;
    let store = |at: usize, word: u32| {
        // SAFETY: the group's words; its other blocks take them when both have come.
        unsafe { atomic::store(&p.calls, at, tagged(word, call), Order::Release, Scope::Device) };
    };
    store(at, task.first);
    store(at + 1, task.count | task.blocks << 16);
}

/// Waits until the group's first block calls, and answers to what.
///
/// # Safety
/// The whole first warp of another block calls it.
#[inline(always)]
unsafe fn called<const THREADS: u32>(p: &Manifold, desk: Desk<THREADS>, group: u32) -> Task {
    let lane = thread::lane_idx();
    let mut last = 0;
    if lane == 0 {
        last = desk.call();
    }
    let last = warp::shuffle(warp::FULL_MASK, last, 0);
    let at = group as usize * CALL_WORDS + (lane as usize % CALL_WORDS);
    loop {
        // SAFETY: a word of the group's.
        let word = unsafe { atomic::load(&p.calls, at, Order::Acquire, Scope::Device) };
        let of = |lane: u32, value: u32| warp::shuffle(warp::FULL_MASK, value, lane);
        let (first, second) = (of(0, tag_of(word)), of(1, tag_of(word)));
        if first == second && first != last {
            if lane == 0 {
                desk.set_call(first);
            }
            let (first, rest) = (of(0, data_of(word)), of(1, data_of(word)));
            return Task { first, count: rest & 0xffff, blocks: rest >> 16 };
        }
        thread::spin_wait(0);
    }
}

/// Waits of a block for the others between two looks at the host's command, which is a trip over the bus.
const WAITS: u32 = 1 << 14;

/// Where the blocks of an item meet. Answers whether they did: the host may have given the kernel up meanwhile.
///
/// # Safety
/// Every thread of the item's blocks calls it equally often.
#[inline(always)]
pub(super) unsafe fn meet<const THREADS: u32>(
    p: &Manifold,
    desk: Desk<THREADS>,
    blocks: u32,
) -> bool {
    if blocks == 1 {
        thread::sync_threads();
        return true;
    }
    let Seat { group, rank, .. } = desk.seat();
    let mut waits = 0_u32;
    let gives_up = || {
        waits += 1;
        // SAFETY: the caller's contract.
        waits.is_multiple_of(WAITS) && unsafe { is_told(p, Command::Abandon) }
    };
    // SAFETY: the caller's contract; the blocks are resident, and the count is the group's alone.
    unsafe { grid::barrier_unless(&p.barriers, group as usize, blocks, rank == 0, gives_up) }
}

macro_rules! instance {
    ($entry:ident, $domains:ident, $threads:literal, $shared:literal) => {
        /// The resident kernel of the domains in its name.
        ///
        /// # Safety
        /// As [`Manifold`] says.
        #[kernel(block = $threads, spills)]
        pub unsafe fn $entry(p: Manifold) {
            // SAFETY: the entry's contract.
            unsafe { reside::<{ domain::$domains }, $threads>(p) }
        }
    };
}

kasmina_types::manifold_tiles!(instance);

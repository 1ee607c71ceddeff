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
//! A line of 128 bytes read over the bus for each look, one word written for each item. An item's latency is that of the
//! bus, there and back, and what a block needs to meet: bound by latency. An operation's header and parameters come from L2.
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
use kasmina_device::{grid, hint, kernel, shared_array, thread, warp};
use kasmina_types::manifold::{
    CALL_WORDS, Command, GroupState, ItemStatus, data_of, tag_of, tagged,
};
use kasmina_types::tiles::manifold::domain;
use kasmina_types::{Manifold, manifold::report};

use super::operations::{Heads, carry_out, is_told};
use super::watch::{Found, Watch};

/// A run of operations and the blocks that share it.
#[derive(Clone, Copy)]
pub(super) struct Item {
    pub(super) first: u32,
    pub(super) count: u32,
    pub(super) blocks: u32,
}

/// Words by which a block's first warp tells the others what it found.
const DESK_WORDS: usize = 4;
/// In place of a status: there is no item.
const LEAVES: u32 = u32::MAX;

/// One block of the grid.
///
/// # Safety
/// As [`Manifold`] says; every thread of the grid calls it, in blocks of `THREADS`.
#[inline(always)]
unsafe fn reside<const DOMAINS: u32, const THREADS: u32>(p: Manifold) {
    let block = thread::block_idx_x();
    let mut group = 0;
    // SAFETY: there is a number for each group and one behind.
    unsafe {
        while group + 1 < p.groups && p.first_blocks.load(group as usize + 1) <= block {
            group += 1;
        }
        let first = p.first_blocks.load(group as usize);
        let blocks = p.first_blocks.load(group as usize + 1) - first;
        if block == first {
            lead::<DOMAINS, THREADS>(&p, group, blocks);
        } else {
            follow::<DOMAINS, THREADS>(&p, group, block - first);
        }
    }
}

/// A group's first block: takes items and completes them.
///
/// # Safety
/// As [`reside`].
#[inline(always)]
unsafe fn lead<const DOMAINS: u32, const THREADS: u32>(p: &Manifold, group: u32, blocks: u32) {
    let (desk, heads) = (shared_array![u32; DESK_WORDS], Heads::new());
    let (lane, first_warp) = (thread::lane_idx(), thread::warp_idx() == 0);
    // SAFETY: one thread writes the group's report; the host reads it as it comes.
    let say = |place: usize, value: u64| unsafe {
        let at = group as usize * kasmina_types::manifold::REPORT_WORDS + place;
        atomic::store(&p.reports, at, value, Order::Relaxed, Scope::System);
    };
    if thread::thread_idx_x() == 0 {
        say(report::STATE, GroupState::Running as u64);
    }
    // SAFETY: the group's rings are there.
    let mut watch = unsafe { Watch::new(p, group) };
    let mut call = 0_u32;
    loop {
        if first_warp {
            // SAFETY: the whole warp calls it.
            let found = unsafe { watch.look(p, group, blocks) };
            if let Found::Item(Item { first, count: 1.., .. }, ItemStatus::Done) = found {
                // SAFETY: the operation is inside the table; the barriers are those below.
                unsafe { heads.hand(0, heads.fetch(p, first)) };
            }
            if lane == 0 {
                let words = match found {
                    Found::Leave(state) => [state as u32, 0, 0, LEAVES],
                    Found::Item(item, status) => {
                        // Where one ring alone had an item the host knows which. What is on the bus when the item is
                        // completed has to be waited for.
                        if watch.is_contested {
                            say(report::TAKEN, tagged(watch.sequence, watch.ring));
                        }
                        [item.first, item.count, item.blocks, status as u32]
                    }
                };
                // SAFETY: the words are this thread's until the barrier.
                unsafe { desk.write_words(0, words) };
            }
        }
        // Orders the words, and what the host wrote before the item, before the block.
        thread::sync_threads();
        // SAFETY: thread 0 wrote them before the barrier.
        let words: [u32; DESK_WORDS] = unsafe { desk.read_words(0) };
        let leaves = words[3] == LEAVES;
        let item = Item { first: words[0], count: words[1], blocks: words[2] };
        let valid = words[3] == ItemStatus::Done as u32;
        if blocks > 1 && (leaves || valid && item.blocks > 1) {
            call = call.wrapping_add(1);
            if thread::thread_idx_x() == 0 {
                let at = group as usize * CALL_WORDS;
                let (first, rest) =
                    if leaves { (0, 0) } else { (item.first, item.count | item.blocks << 16) };
                // SAFETY: the group's words; its other blocks take them when both have come.
                unsafe {
                    atomic::store(&p.calls, at, tagged(first, call), Order::Release, Scope::Device);
                    atomic::store(
                        &p.calls,
                        at + 1,
                        tagged(rest, call),
                        Order::Release,
                        Scope::Device,
                    );
                }
            }
        }
        if leaves {
            if thread::thread_idx_x() == 0 {
                watch.report_time(&say);
                atomic::fence(Scope::System);
                say(report::STATE, u64::from(words[0]));
            }
            return;
        }
        let mut status = words[3];
        if valid {
            // SAFETY: the item is inside the table, and its blocks are all here.
            status = unsafe { carry_out::<DOMAINS, THREADS>(p, heads, group, item, 0) } as u32;
            // Whatever it is, the barrier below is one.
            status = hint::opaque(status);
        }
        // Orders what the block did before its completion, and the desk's readers before its next words.
        thread::sync_threads();
        if first_warp && status != ItemStatus::Abandoned as u32 {
            // SAFETY: the item is the one that was found.
            unsafe { watch.complete(p, status) };
        }
    }
}

/// A group's other blocks: do their part of what the first one calls them to.
///
/// # Safety
/// As [`reside`].
#[inline(always)]
unsafe fn follow<const DOMAINS: u32, const THREADS: u32>(p: &Manifold, group: u32, rank: u32) {
    let (desk, heads) = (shared_array![u32; DESK_WORDS], Heads::new());
    let mut last = 0_u32;
    loop {
        if thread::warp_idx() == 0 {
            let lane = thread::lane_idx();
            let at = group as usize * CALL_WORDS + (lane as usize % CALL_WORDS);
            let word = loop {
                // SAFETY: a word of the group's.
                let word = unsafe { atomic::load(&p.calls, at, Order::Acquire, Scope::Device) };
                let call = tag_of(word);
                let (first, second) = (
                    warp::shuffle(warp::FULL_MASK, call, 0),
                    warp::shuffle(warp::FULL_MASK, call, 1),
                );
                if first == second && first != last {
                    // The same in every lane, whichever word it read itself.
                    last = first;
                    break word;
                }
                thread::spin_wait(0);
            };
            if lane < CALL_WORDS as u32 {
                // SAFETY: the word is this lane's until the barrier.
                unsafe { desk.write(lane as usize, data_of(word)) };
            }
            let (first, rest) = (
                warp::shuffle(warp::FULL_MASK, data_of(word), 0),
                warp::shuffle(warp::FULL_MASK, data_of(word), 1),
            );
            if rest & 0xffff > 0 {
                // SAFETY: as in `lead`.
                unsafe { heads.hand(0, heads.fetch(p, first)) };
            }
        }
        // Orders the words, and what the first block saw, before the block.
        thread::sync_threads();
        // SAFETY: the first lanes wrote them before the barrier.
        let (first, rest) = unsafe { (desk.read(0), desk.read(1)) };
        if rest == 0 {
            return;
        }
        let item = Item { first, count: rest & 0xffff, blocks: rest >> 16 };
        if rank < item.blocks {
            // SAFETY: the first block has checked the item, and all of its blocks are here.
            unsafe { carry_out::<DOMAINS, THREADS>(p, heads, group, item, rank) };
        }
        // Orders the desk's readers before its next words.
        thread::sync_threads();
    }
}

/// Waits of a block for the others between two looks at the host's command, which is a trip over the bus.
const WAITS: u32 = 1 << 14;

/// Where the blocks of an item meet. Answers whether they did: the host may have given the kernel up meanwhile.
///
/// # Safety
/// Every thread of the item's blocks calls it equally often.
#[inline(always)]
pub(super) unsafe fn meet(p: &Manifold, group: u32, blocks: u32, rank: u32) -> bool {
    if blocks == 1 {
        thread::sync_threads();
        return true;
    }
    let mut waits = 0_u32;
    let gives_up = || {
        waits += 1;
        // SAFETY: the caller's contract.
        waits % WAITS == 0 && unsafe { is_told(p, Command::Abandon) }
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

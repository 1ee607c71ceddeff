//! What the threads of a block tell each other, in shared memory: in registers, operations would lack it.

use core::mem::offset_of;

use kasmina_device::shared::Shared;
use kasmina_device::{copy_async, shared_array, thread, warp};
use kasmina_types::manifold::OPERATION_PARAMETER_BYTES;
use kasmina_types::{In, Manifold, Operation};

/// Words of an operation in the table.
const OPERATION_WORDS: usize = size_of::<Operation>() / 4;

/// What the block has to do, written by its first warp and read by all behind a barrier of the block.
#[derive(Clone, Copy)]
pub(super) struct Desk(Shared<u32, 8>);

/// A run of operations and the blocks that share it.
#[derive(Clone, Copy)]
pub(super) struct Item {
    pub(super) first: u32,
    pub(super) count: u32,
    pub(super) blocks: u32,
}

/// What is on the desk.
#[derive(Clone, Copy)]
pub(super) enum Task {
    /// An item, of one operation at least.
    Item(Item),
    /// Nothing any more; the group's [state](kasmina_types::manifold::GroupState).
    Leave(u32),
}

/// Where the block is among the groups.
#[derive(Clone, Copy)]
pub(super) struct Seat {
    pub(super) group: u32,
    /// The block's number in the group, and the group's blocks.
    pub(super) rank: u32,
    pub(super) blocks: u32,
}

/// Where the seat is, behind the item, and the count of calls of the group's first block to the others.
const SEAT: usize = 3;
const CALL: usize = 6;

impl Desk {
    /// Every thread of the block calls it. Ends with a barrier.
    #[inline(always)]
    pub(super) fn new(seat: Seat) -> Self {
        let desk = Self(shared_array![u32; 8]);
        if thread::thread_idx_x() == 0 {
            // SAFETY: nobody else writes these words, and nobody reads them before the barrier.
            unsafe { desk.0.write_words(SEAT, [seat.rank, seat.group, seat.blocks, 0]) };
        }
        thread::sync_threads();
        desk
    }

    /// The block's seat.
    #[inline(always)]
    pub(super) fn seat(self) -> Seat {
        // SAFETY: `new` wrote it, before a barrier.
        let [rank, group, blocks]: [u32; 3] = unsafe { self.0.anew().read_words(SEAT) };
        Seat { group, rank, blocks }
    }

    /// # Safety
    /// Thread 0 calls it, between the barrier behind the readers of the last task and the one before those of this.
    #[inline(always)]
    pub(super) unsafe fn put(self, task: Task) {
        let words = match task {
            Task::Leave(state) => [state, 0, 0],
            Task::Item(item) => [item.first, item.count, item.blocks],
        };
        // SAFETY: the caller's contract.
        unsafe { self.0.anew().write_words(0, words) };
    }

    /// The item, and the block's number in the group; without operations it is none, and `first` the group's state.
    ///
    /// # Safety
    /// A barrier came after [`Self::put`].
    #[inline(always)]
    pub(super) unsafe fn item(self) -> (Item, u32) {
        // SAFETY: the caller's contract.
        let [first, count, blocks, rank]: [u32; 4] = unsafe { self.0.anew().read_words(0) };
        (Item { first, count, blocks }, rank)
    }

    /// The number of the group's last call to its other blocks.
    #[inline(always)]
    pub(super) fn call(self) -> u32 {
        // SAFETY: thread 0's word.
        unsafe { self.0.anew().read(CALL) }
    }

    #[inline(always)]
    pub(super) fn set_call(self, call: u32) {
        // SAFETY: thread 0's word.
        unsafe { self.0.anew().write(CALL, call) };
    }
}

/// Slots, in turn, to which the first warp brings operations: the next but one while one runs.
#[derive(Clone, Copy)]
pub(super) struct Slots(Shared<u32, { SLOTS * OPERATION_WORDS }>);

/// One for each operation that is used or on its way; a power of two.
pub(super) const SLOTS: usize = 4;

/// Bytes of an operation, of which each lane brings a piece.
const OPERATION_BYTES: usize = size_of::<Operation>();
const _: () = assert!(OPERATION_BYTES == warp::WARP_SIZE as usize * copy_async::BYTES);

impl Slots {
    #[inline(always)]
    pub(super) fn new() -> Self {
        Self(shared_array![u32; SLOTS * OPERATION_WORDS])
    }

    /// Begins to bring an item's operation number `i`. No register holds it meanwhile.
    ///
    /// # Safety
    /// The whole first warp calls it, for each number in turn, behind a barrier after the last use of number `i − SLOTS`.
    /// The item is inside the table and has as many operations.
    #[inline(always)]
    pub(super) unsafe fn bring(self, p: &Manifold, item: &Item, i: u32) {
        let piece = thread::lane_idx() as usize * copy_async::BYTES;
        let bytes = p.operations.len() * OPERATION_BYTES;
        let table: In<u8> = In::new(p.operations.as_ptr().cast(), bytes);
        let place = self.0.anew().place(slot(i) + piece / 4);
        let at = (item.first + i) as usize * OPERATION_BYTES + piece;
        // SAFETY: the caller's contract; nobody writes the operation between its item's submission and completion.
        unsafe { copy_async::copy(place, &table, at) };
        copy_async::commit_group();
    }

    /// Waits for an item's operation number `i`, if this thread brings it: the next is on its way, if there is one.
    #[inline(always)]
    pub(super) fn wait(self, item: &Item, i: u32) {
        if i + 1 < item.count {
            copy_async::wait_group::<1>();
        } else {
            copy_async::wait_group::<0>();
        }
    }

    /// Code and blocks of an item's operation number `i`.
    ///
    /// # Safety
    /// A barrier came after it was waited for.
    #[inline(always)]
    pub(super) unsafe fn head(self, i: u32) -> (u32, u32) {
        // SAFETY: the caller's contract.
        let [code, blocks] = unsafe { self.0.anew().read_vector::<2>(slot(i)) }.0;
        (code, blocks)
    }

    /// Its parameters.
    ///
    /// # Safety
    /// As [`Self::head`], and they are of that type.
    #[inline(always)]
    pub(super) unsafe fn parameters<'a, P>(self, i: u32) -> &'a P {
        const { assert!(size_of::<P>() <= OPERATION_PARAMETER_BYTES && align_of::<P>() <= 16) };
        // SAFETY: the caller's contract; the slot is not written before the block is through with the operation.
        unsafe { self.0.anew().refer(slot(i) + offset_of!(Operation, parameters) / 4) }
    }
}

#[inline(always)]
fn slot(i: u32) -> usize {
    i as usize % SLOTS * OPERATION_WORDS
}

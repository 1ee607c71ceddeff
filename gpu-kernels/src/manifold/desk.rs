//! What the threads of a block tell each other, in shared memory: in registers, operations would lack it.

use core::mem::offset_of;

use kasmina_device::shared::Shared;
use kasmina_device::vector::Vector;
use kasmina_device::{copy_async, hint, shared_array, thread, warp};
use kasmina_types::manifold::OPERATION_PARAMETER_BYTES;
use kasmina_types::{In, Manifold, Operation};

/// What the block keeps while operations have its registers: what it has to do, written by its first warp and read by all
/// behind a barrier of the block, what its first warp knows, and the operations.
#[derive(Clone, Copy)]
pub(super) struct Desk<const THREADS: u32>(Shared<u32, { place::WORDS }>);

/// Where what is, in words.
mod place {
    use super::{MOST_THREADS, OPERATION_WORDS, SLOTS};

    /// The task, and then the seat.
    pub(super) const TASK: usize = 0;
    pub(super) const SEAT: usize = 3;
    /// The count of calls of the group's first block to the others.
    pub(super) const CALL: usize = 6;
    /// Where the desk itself is.
    pub(super) const ADDRESS: usize = 7;
    /// What the first warp keeps, two words each.
    pub(super) const KEPT: usize = 8;
    pub(super) const OPERATIONS: usize = 64;
    /// What each thread knows of the operation that it is at.
    pub(super) const NOTES: usize = OPERATIONS + SLOTS * OPERATION_WORDS;
    pub(super) const WORDS: usize = NOTES + MOST_THREADS;
}

/// Threads of the largest block.
const MOST_THREADS: usize = 512;

/// What there is to do: a run of operations and the blocks that share it. Without operations it is to leave, and `first` the
/// group's [state](kasmina_types::manifold::GroupState).
///
/// No enum: what only one of two forms has would stay in registers from task to task.
#[derive(Clone, Copy)]
pub(super) struct Task {
    pub(super) first: u32,
    pub(super) count: u32,
    pub(super) blocks: u32,
}

impl Task {
    #[inline(always)]
    pub(super) fn leave(state: u32) -> Self {
        Self { first: state, count: 0, blocks: 0 }
    }
}

/// Where the block is among the groups.
#[derive(Clone, Copy)]
pub(super) struct Seat {
    pub(super) group: u32,
    /// The block's number in the group, and the group's blocks.
    pub(super) rank: u32,
    pub(super) blocks: u32,
}

impl<const THREADS: u32> Desk<THREADS> {
    /// Whether operations leave a thread no register for what is needed after them, which then has to be in shared memory:
    /// local memory lies in L1, which each look at the host's words empties.
    const IS_CROWDED: bool = THREADS > 256;

    /// Every thread of the block calls it. Ends with a barrier.
    #[inline(always)]
    pub(super) fn new(seat: Seat) -> Self {
        const { assert!(THREADS as usize <= MOST_THREADS) };
        let desk = Self(shared_array![u32; place::WORDS]);
        if thread::thread_idx_x() == 0 {
            // SAFETY: nobody else writes these words, and nobody reads them before the barrier.
            unsafe {
                desk.0.write_words(place::SEAT, [seat.rank, seat.group, seat.blocks, 0]);
                desk.0.leave_address(place::ADDRESS);
            }
        }
        thread::sync_threads();
        desk
    }

    /// For places that are computed: the compiler would keep the desk's address in local memory for them.
    #[inline(always)]
    fn computed(self) -> Shared<u32, { place::WORDS }> {
        if Self::IS_CROWDED {
            // SAFETY: `new` left it, before a barrier.
            unsafe { self.0.anew().by_address(place::ADDRESS) }
        } else {
            self.0.anew()
        }
    }

    /// The block's seat.
    #[inline(always)]
    pub(super) fn seat(self) -> Seat {
        // SAFETY: `new` wrote it, before a barrier.
        let [rank, group, blocks]: [u32; 3] = unsafe { self.0.anew().read_words(place::SEAT) };
        Seat { group, rank, blocks }
    }

    /// # Safety
    /// Thread 0 calls it, between the barrier behind the readers of the last task and the one before those of this.
    #[inline(always)]
    pub(super) unsafe fn put(self, task: Task) {
        let words = [task.first, task.count, task.blocks];
        // SAFETY: the caller's contract.
        unsafe { self.0.anew().write_words(place::TASK, words) };
    }

    /// The task, and the block's number in the group.
    ///
    /// # Safety
    /// A barrier came after [`Self::put`].
    #[inline(always)]
    pub(super) unsafe fn task(self) -> (Task, u32) {
        // SAFETY: the caller's contract.
        let [first, count, blocks, rank]: [u32; 4] =
            unsafe { self.0.anew().read_words(place::TASK) };
        (Task { first, count, blocks }, rank)
    }

    /// The number of the group's last call to its other blocks.
    #[inline(always)]
    pub(super) fn call(self) -> u32 {
        // SAFETY: thread 0's word.
        unsafe { self.0.anew().read(place::CALL) }
    }

    #[inline(always)]
    pub(super) fn set_call(self, call: u32) {
        // SAFETY: thread 0's word.
        unsafe { self.0.anew().write(place::CALL, call) };
    }

    /// What the first warp keeps at a place.
    ///
    /// # Safety
    /// The lane whose place it is has written it.
    #[inline(always)]
    pub(super) unsafe fn kept(self, at: usize) -> u64 {
        // SAFETY: the caller's contract.
        let [low, high] = unsafe { self.0.anew().read_vector::<2>(place::KEPT + 2 * at) }.0;
        u64::from(low) | u64::from(high) << 32
    }

    /// # Safety
    /// One lane writes and reads a place, of which there are 28.
    #[inline(always)]
    pub(super) unsafe fn keep(self, at: usize, value: u64) {
        let words = Vector([value as u32, (value >> 32) as u32]);
        // SAFETY: the caller's contract.
        unsafe { self.0.anew().write_vector(place::KEPT + 2 * at, words) };
    }

    /// Notes what this thread needs behind an operation.
    #[inline(always)]
    pub(super) fn note(self, word: u32) {
        if Self::IS_CROWDED {
            // SAFETY: this thread's word.
            unsafe { self.computed().write(own_note(), word) };
        }
    }

    /// What [`Self::note`] noted, which is `word`.
    #[inline(always)]
    pub(super) fn noted(self, word: u32) -> u32 {
        if !Self::IS_CROWDED {
            return word;
        }
        // SAFETY: this thread's word.
        unsafe { self.computed().read(own_note()) }
    }

    /// Begins to bring a task's operation number `i` into its slot, of which there are some to be used in turn: the first warp
    /// brings the next but one while one runs. No register holds it meanwhile.
    ///
    /// # Safety
    /// The whole first warp calls it, for each number in turn, behind a barrier after the last use of number `i − SLOTS`.
    /// The task is inside the table and has as many operations.
    #[inline(always)]
    pub(super) unsafe fn bring(self, p: &Manifold, task: &Task, i: u32) {
        let piece = thread::lane_idx() as usize * copy_async::BYTES;
        let bytes = p.operations.len() * OPERATION_BYTES;
        let table: In<u8> = In::new(p.operations.as_ptr().cast(), bytes);
        let place = self.computed().place(slot(i) + piece / 4);
        let at = (task.first + i) as usize * OPERATION_BYTES + piece;
        // SAFETY: the caller's contract; nobody writes the operation between its item's submission and completion.
        unsafe { copy_async::copy(place, &table, at) };
        copy_async::commit_group();
    }

    /// Waits for a task's operation number `i`, if this thread brings it: the next is on its way, if there is one.
    #[inline(always)]
    pub(super) fn wait(self, task: &Task, i: u32) {
        if i + 1 < task.count {
            copy_async::wait_group::<1>();
        } else {
            copy_async::wait_group::<0>();
        }
    }

    /// Code and blocks of a task's operation number `i`.
    ///
    /// # Safety
    /// A barrier came after it was waited for.
    #[inline(always)]
    pub(super) unsafe fn head(self, i: u32) -> (u32, u32) {
        // SAFETY: the caller's contract.
        let [code, blocks] = unsafe { self.computed().read_vector::<2>(slot(i)) }.0;
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
        unsafe { self.computed().refer(slot(i) + offset_of!(Operation, parameters) / 4) }
    }
}

/// Words of an operation in the table.
const OPERATION_WORDS: usize = size_of::<Operation>() / 4;
/// One for each operation that is used or on its way; a power of two.
pub(super) const SLOTS: usize = 4;
/// Bytes of an operation, of which each lane brings a piece.
const OPERATION_BYTES: usize = size_of::<Operation>();
const _: () = assert!(OPERATION_BYTES == warp::WARP_SIZE as usize * copy_async::BYTES);

#[inline(always)]
fn slot(i: u32) -> usize {
    place::OPERATIONS + i as usize % SLOTS * OPERATION_WORDS
}

#[inline(always)]
fn own_note() -> usize {
    place::NOTES + hint::opaque(thread::thread_idx_x()) as usize
}

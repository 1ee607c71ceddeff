//! What the threads of a block tell each other, in shared memory: in registers, operations would lack it.

use kasmina_device::global::Load;
use kasmina_device::shared::Shared;
use kasmina_device::{shared_array, thread};
use kasmina_types::{Manifold, Operation, Out};

/// Words of an operation in the table.
pub(super) const OPERATION_WORDS: usize = size_of::<Operation>() / 4;

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

/// Where the calls of the group's first block to the others are counted.
const CALL: usize = 4;

impl Desk {
    #[inline(always)]
    pub(super) fn new() -> Self {
        let desk = Self(shared_array![u32; 8]);
        if thread::thread_idx_x() == 0 {
            // SAFETY: thread 0's word.
            unsafe { desk.0.write(CALL, 0) };
        }
        desk
    }

    /// # Safety
    /// Thread 0 calls it, between the barrier behind the readers of the last task and the one before those of this.
    #[inline(always)]
    pub(super) unsafe fn put(self, task: Task) {
        let words = match task {
            Task::Leave(state) => [state, 0, 0, 0],
            Task::Item(item) => [item.first, item.count, item.blocks, 0],
        };
        // SAFETY: the caller's contract.
        unsafe { self.0.write_words(0, words) };
    }

    /// The item; without operations it is none, and `first` the group's state.
    ///
    /// # Safety
    /// A barrier came after [`Self::put`].
    #[inline(always)]
    pub(super) unsafe fn item(self) -> Item {
        // SAFETY: the caller's contract.
        let [first, count, blocks, _]: [u32; 4] = unsafe { self.0.read_words(0) };
        Item { first, count, blocks }
    }

    /// The number of the group's last call to its other blocks.
    #[inline(always)]
    pub(super) fn call(self) -> u32 {
        // SAFETY: thread 0's word.
        unsafe { self.0.read(CALL) }
    }

    #[inline(always)]
    pub(super) fn set_call(self, call: u32) {
        // SAFETY: thread 0's word.
        unsafe { self.0.write(CALL, call) };
    }
}

/// Two slots, in turn, by which the first threads hand the others the head of the next operation: its code and blocks.
#[derive(Clone, Copy)]
pub(super) struct Heads(Shared<u32, { 2 * HEAD_WORDS }>);

/// Words of a slot: two from each sector of an operation, of which the first two are the head.
const HEAD_WORDS: usize = 2 * SECTORS as usize;
/// Sectors of an operation, a thread each: what is read of them has them in L1 when the parameters are read.
const SECTORS: u32 = (OPERATION_WORDS / SECTOR_WORDS) as u32;
const SECTOR_WORDS: usize = 8;

impl Heads {
    #[inline(always)]
    pub(super) fn new() -> Self {
        Self(shared_array![u32; 2 * HEAD_WORDS])
    }

    /// What this thread is to hand on of the operation at `at`; nothing, if it is none of the first.
    ///
    /// # Safety
    /// The operation is inside the table.
    #[inline(always)]
    pub(super) unsafe fn fetch(self, p: &Manifold, at: u32) -> (u32, u32) {
        let thread = thread::thread_idx_x();
        if thread >= SECTORS {
            return (0, 0);
        }
        let table: Out<u32> = p.operations.cast();
        let word = at as usize * OPERATION_WORDS + thread as usize * SECTOR_WORDS;
        // SAFETY: the caller's contract.
        unsafe { (table.load(word), table.load(word + 1)) }
    }

    /// Hands on what was fetched of an item's operation number `i`.
    ///
    /// # Safety
    /// A barrier of the block comes before [`Self::take`], and one came after that of number `i − 2`.
    #[inline(always)]
    pub(super) unsafe fn hand(self, i: u32, fetched: (u32, u32)) {
        let thread = thread::thread_idx_x();
        if thread < SECTORS {
            let at = slot(i) + 2 * thread as usize;
            // SAFETY: the words are this thread's, by the caller's contract.
            unsafe {
                self.0.write(at, fetched.0);
                self.0.write(at + 1, fetched.1);
            }
        }
    }

    /// # Safety
    /// It was handed on, and a barrier came after that.
    #[inline(always)]
    pub(super) unsafe fn take(self, i: u32) -> (u32, u32) {
        // SAFETY: the caller's contract.
        unsafe { (self.0.read(slot(i)), self.0.read(slot(i) + 1)) }
    }
}

#[inline(always)]
fn slot(i: u32) -> usize {
    (i % 2) as usize * HEAD_WORDS
}

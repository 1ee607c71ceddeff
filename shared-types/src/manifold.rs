//! What a resident kernel and its host say to each other: the ring protocol.
//!
//! A resident grid is cut into *groups* of blocks, each of which works on one item at a time. A group has two *rings* of
//! descriptor lines in mapped memory, one for each [`ItemPriority`]; the host writes lines, the group's first block reads
//! them. Every word of a line carries the sequence number of its item beside its data, so that an item whose line
//! has come in part is never taken, whatever the order in which the words become visible: it is taken once those that say
//! something have come, its head alone where it needs no other item. An item is a run of
//! [`Operation`]s, which lie in a table in the device's memory. When all are done, the device writes the item's sequence
//! number and status to the place of the line in `completions`, and that order is the order of the ring.
//!
//! Sequence numbers of a ring begin at 1, count by 1 and wrap around; item `s` has place `s mod capacity`. The host may
//! write a line once the item `capacity` before it is complete.

use crate::view::{In, Out};

/// Words of a line: two lines are what a warp reads at once.
pub const LINE_WORDS: usize = 16;

/// Words of a line that a descriptor takes.
pub const DESCRIPTOR_WORDS: usize = HEAD_WORDS - 1 + 2 * NEEDS;

/// The first words of a line, its *head*: what is to be done, and the ring of the first need. Where that is [`NO_RING`]
/// the device looks at no word behind it, so an item's needs are in the first places ([`names_need`]).
pub const HEAD_WORDS: usize = 4;

/// Items that a descriptor can wait for.
pub const NEEDS: usize = 4;

/// [`Need::ring`] where there is none.
pub const NO_RING: u32 = u32::MAX;

/// Rings of a group: one for each priority.
pub const GROUP_RINGS: usize = 2;

/// Operations of an item at most.
pub const MAX_OPERATIONS: u32 = u16::MAX as u32;

/// Bytes of an operation's parameters at most.
pub const OPERATION_PARAMETER_BYTES: usize = 496;

/// Words of [`Manifold::control`]: the [`Command`], and the host's heartbeat.
pub const CONTROL_WORDS: usize = 2;

/// Words of a group's report in [`Manifold::reports`], each by its place in [`report`].
pub const REPORT_WORDS: usize = 8;

/// Places in a group's report.
pub mod report {
    /// The group's clock in nanoseconds when it last looked for work.
    pub const BEAT: usize = 0;
    /// The item that was taken last while both rings had one: ring in the upper half, sequence number in the lower.
    pub const TAKEN: usize = 1;
    /// Cycles of work in this launch, brought up to date about every millisecond between items.
    pub const BUSY: usize = 2;
    /// A [`GroupState`](super::GroupState).
    pub const STATE: usize = 3;
    /// Cycles of this launch so far.
    pub const CYCLES: usize = 4;
    /// Nanoseconds of this launch so far.
    pub const ELAPSED_NS: usize = 5;
}

/// Which of a group's rings: the high one is looked at first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum ItemPriority {
    /// Before everything else that waits.
    High = 0,
    /// In its turn.
    #[default]
    Normal = 1,
}

/// The ring of a group for a priority.
#[inline(always)]
pub const fn ring_of(group: u32, priority: ItemPriority) -> u32 {
    group * GROUP_RINGS as u32 + priority as u32
}

/// Whether a ring that has completed everything up to `done` has completed `sequence`. The two are less than half of all
/// numbers apart.
#[inline(always)]
pub const fn has_reached(done: u32, sequence: u32) -> bool {
    done.wrapping_sub(sequence).cast_signed() >= 0
}

/// A word of a line or of a completion: `data` below, the sequence number of its item above.
#[inline(always)]
pub const fn tagged(data: u32, sequence: u32) -> u64 {
    data as u64 | (sequence as u64) << 32
}

/// The sequence number of a word.
#[inline(always)]
pub const fn tag_of(word: u64) -> u32 {
    (word >> 32) as u32
}

/// The data of a word.
#[inline(always)]
pub const fn data_of(word: u64) -> u32 {
    word as u32
}

/// Whether the last word of the head of item `sequence`'s line has come and names the ring of a need. Then the item is what
/// all words of its descriptor say; else it is what the head says.
#[inline(always)]
pub const fn names_need(word: u64, sequence: u32) -> bool {
    tag_of(word) == sequence && data_of(word) != NO_RING
}

/// An item that another waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Need {
    /// Its ring, or [`NO_RING`].
    pub ring: u32,
    /// Its number there.
    pub sequence: u32,
}

impl Need {
    /// Nothing.
    pub const NONE: Self = Self { ring: NO_RING, sequence: 0 };
}

/// Count, blocks, edition and whether the host's memory is written, as an item's second and third word have them.
pub const fn counts_of(second: u32, third: u32) -> (u32, u32, u32, bool) {
    (second & 0xffff, third & 0xffff, second >> 16 | third & 0x7fff_0000, third >> 31 != 0)
}

/// What the host asks for: a run of operations, once the needs are met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ItemDescriptor {
    /// The first operation, in [`Manifold::operations`].
    pub first: u32,
    /// Operations, 0 to [`MAX_OPERATIONS`], one after the other.
    pub count: u32,
    /// Blocks of the group that take part: 1 or more, no more than it has and than `u16::MAX`. They meet between two operations.
    pub blocks: u32,
    /// When the operations were written, of all that were, in 31 bits: a block that carried out the same `first` and `count`
    /// of the same edition last need not read them again. 0 where that is not known: they are always read.
    pub edition: u32,
    /// Whether an operation writes memory of the host.
    pub reaches_host: bool,
    /// Items that are complete before this one begins. In a line they have the first places.
    pub needs: [Need; NEEDS],
}

impl ItemDescriptor {
    /// The words as they lie in a line, without the sequence number.
    pub fn words(&self) -> [u32; DESCRIPTOR_WORDS] {
        let mut words = [0; DESCRIPTOR_WORDS];
        // Of 16 bits each; an item with more is one without blocks, which the device refuses.
        let fits = self.count.max(self.blocks) <= 0xffff;
        let (count, blocks) = if fits { (self.count, self.blocks) } else { (0, 0) };
        let high = self.edition & 0x7fff_0000 | u32::from(self.reaches_host) << 31;
        [words[0], words[1], words[2]] = [self.first, count | self.edition << 16, blocks | high];
        for (pair, need) in words[3..].chunks_exact_mut(2).zip(&self.needs) {
            pair.copy_from_slice(&[need.ring, need.sequence]);
        }
        words
    }
}

/// One operation: which, how many blocks share it, and its parameters.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    /// Its number, of [`operation`](crate::tiles::manifold::operation).
    pub code: u32,
    /// Blocks of its grid: 1 or more, no more than the item has.
    pub blocks: u32,
    #[doc(hidden)]
    pub _padding: [u32; 2],
    /// Its parameter struct, from the first byte on.
    pub parameters: [u64; OPERATION_PARAMETER_BYTES / 8],
}

crate::assert_layout!(Operation, size = 512, align = 16, { code: 0, blocks: 4, parameters: 16 });

// SAFETY: `repr(C)`, integers, no implicit padding, and every bit pattern is a value.
unsafe impl bytemuck::Pod for Operation {}
// SAFETY: as above.
unsafe impl bytemuck::Zeroable for Operation {}

/// What became of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum ItemStatus {
    /// Every operation was carried out.
    Done = 0,
    /// The descriptor names operations, blocks or rings that there are not; nothing was carried out.
    OutOfRange = 1,
    /// An operation is none that the kernel has, or wants more blocks than the item; those before it were carried out.
    UnknownOperation = 2,
    /// The host gave the kernel up while the item waited; the device keeps this to itself.
    Abandoned = 3,
}

impl ItemStatus {
    /// The status of that number.
    pub const fn from_u32(value: u32) -> Option<Self> {
        match value {
            0 => Some(Self::Done),
            1 => Some(Self::OutOfRange),
            2 => Some(Self::UnknownOperation),
            _ => None,
        }
    }
}

/// What the host tells the whole grid. From `Stop` on, each includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Command {
    /// Look for work.
    Run = 0,
    /// Leave when there is none.
    Drain = 1,
    /// Leave after the items in work.
    Stop = 2,
    /// As `Stop`, and leave an item in which blocks wait for what does not come. Such an item is not complete.
    Abandon = 3,
    /// As `Abandon`, and trap in what ends by nothing else, which is there for tests: for the executor of the CPU, which
    /// cannot take its threads back.
    Release = 4,
}

/// Where a group is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum GroupState {
    /// Not there yet.
    Away = 0,
    /// Looks for work, or works.
    Running = 1,
    /// Left because it was told to.
    Left = 2,
    /// Left because the host's heartbeat had stopped.
    Deserted = 3,
}

impl GroupState {
    /// The state of that number.
    pub const fn from_u64(value: u64) -> Option<Self> {
        match value {
            0 => Some(Self::Away),
            1 => Some(Self::Running),
            2 => Some(Self::Left),
            3 => Some(Self::Deserted),
            _ => None,
        }
    }
}

/// What the `manifold*` kernels take. The grid is the groups' blocks, all of them resident at once.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub struct Manifold {
    /// Lines, `[rings, capacity, LINE_WORDS]`, mapped.
    pub lines: Out<u64>,
    /// Completions, `[rings, capacity]`, mapped: [`tagged`] status and sequence number.
    pub completions: Out<u64>,
    /// [`CONTROL_WORDS`], mapped.
    pub control: Out<u64>,
    /// Reports, `[groups, REPORT_WORDS]`, mapped.
    pub reports: Out<u64>,
    /// The table of operations.
    pub operations: Out<Operation>,
    /// The first block of each group, and behind the last one all blocks, `[groups + 1]`.
    pub first_blocks: In<u32>,
    /// The number of the last complete item of each ring, `[rings]`; kept from launch to launch.
    pub done: Out<u32>,
    /// What a group's first block calls the others to, `[groups, CALL_WORDS]`; zero before the launch.
    pub calls: Out<u64>,
    /// The groups' barriers, `[groups]`; zero before the launch.
    pub barriers: Out<u32>,
    /// Lines of a ring, less one; with it a power of two.
    pub capacity_mask: u32,
    /// Groups.
    pub groups: u32,
    /// A group leaves when the host's heartbeat has not changed for so long, in nanoseconds.
    pub host_limit_ns: u64,
}

/// Words of [`Manifold::calls`] of a group.
pub const CALL_WORDS: usize = 2;

crate::assert_layout!(Manifold, size = 160, align = 16, {
    lines: 0, completions: 16, control: 32, reports: 48, operations: 64, first_blocks: 80, done: 96, calls: 112,
    barriers: 128, capacity_mask: 144, groups: 148, host_limit_ns: 152,
});

/// What `manifold_echo` takes.
#[repr(C, align(16))]
#[derive(Clone, Copy)]
pub struct ManifoldEcho {
    /// The word to answer, mapped; 0 before the launch.
    pub bell: Out<u64>,
    /// The answer, mapped.
    pub answer: Out<u64>,
    /// The kernel ends when the word has not changed for so long, in nanoseconds.
    pub limit_ns: u64,
    #[doc(hidden)]
    pub _padding: u64,
}

crate::assert_layout!(ManifoldEcho, size = 48, align = 16, { bell: 0, answer: 16, limit_ns: 32 });

/// The word that ends `manifold_echo`.
pub const ECHO_ENDS: u64 = u64::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_wrap_around() {
        assert!(has_reached(5, 5) && has_reached(6, 5) && !has_reached(4, 5));
        assert!(has_reached(1, u32::MAX) && !has_reached(u32::MAX, 1));
    }

    #[test]
    fn words_hold_data_and_number() {
        let word = tagged(7, u32::MAX);
        assert_eq!((data_of(word), tag_of(word)), (7, u32::MAX));
        let needs = [Need { ring: 3, sequence: 9 }, Need::NONE, Need::NONE, Need::NONE];
        let (edition, reaches_host) = (0, false);
        let item = ItemDescriptor { first: 1, count: 2, blocks: 4, edition, reaches_host, needs };
        assert_eq!(item.words()[..6], [1, 2, 4, 3, 9, NO_RING]);
        let counts = |item: ItemDescriptor| counts_of(item.words()[1], item.words()[2]);
        let edition = 0x7654_3210;
        assert_eq!(counts(ItemDescriptor { edition, ..item }), (2, 4, edition, false));
        let reaches_host = true;
        assert_eq!(counts(ItemDescriptor { reaches_host, ..item }), (2, 4, 0, true));
        let many = ItemDescriptor { count: 0x1_0002, edition, ..item };
        assert_eq!(counts(many), (0, 0, edition, false));
        let names = |data| names_need(tagged(data, 5), 5);
        assert!(names(3) && !names(NO_RING) && !names_need(tagged(3, 4), 5));
    }
}

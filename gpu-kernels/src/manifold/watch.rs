//! The first warp of a group's first block, which looks at the group's two rings.

use kasmina_device::atomic::{self, Order, Scope};
use kasmina_device::shared::Shared;
use kasmina_device::{hint, shared_array, thread, warp};
use kasmina_types::manifold::{
    CONTROL_WORDS, Command, DESCRIPTOR_WORDS, GROUP_RINGS, GroupState, HEAD_WORDS, ItemPriority,
    ItemStatus, LINE_WORDS, NO_RING, REPORT_WORDS, counts_of, data_of, has_reached, names_need,
    report, ring_of, tag_of, tagged,
};
use kasmina_types::{Manifold, Out};

use super::desk::{Item, SLOTS, Task};

/// Lanes for the line of one ring.
const HALF: u32 = LINE_WORDS as u32;
/// Words of a line that a look reads: they are one sector.
const HEAD: u32 = HEAD_WORDS as u32;
/// The lanes that read the command and the host's heartbeat, each the last of its half.
const COMMAND_LANE: u32 = HALF - 1;
const BEAT_LANE: u32 = 2 * HALF - 1;
/// Looks from one at the command to the next.
const COMMAND_LOOKS: u32 = 16;
/// Cycles from one report of the time to the next, about a millisecond.
const REPORT_CYCLES: u64 = 1 << 21;

/// What the warp keeps from look to look.
#[derive(Clone, Copy)]
pub(super) struct Watch(Shared<u64, { kept::WORDS }>);

/// What the warp keeps, by its place. A place is that of one lane.
mod kept {
    /// The number of the next item of each of the group's rings; the first lane's of the ring's half.
    pub(super) const NEXT: usize = 0;
    /// The host's heartbeat as it was last seen to change, and when; its lane's.
    pub(super) const BEAT: usize = 2;
    pub(super) const BEAT_AT_NS: usize = 3;
    /// Ring and number of the item that was found last; lane 0's, as all that follow.
    pub(super) const ITEM: usize = 4;
    /// When it was taken, and the work of all before, in cycles.
    pub(super) const TAKEN_AT: usize = 5;
    pub(super) const BUSY: usize = 6;
    /// When the kernel began, and when the last report was.
    pub(super) const BEGAN_AT: usize = 7;
    pub(super) const BEGAN_AT_NS: usize = 8;
    pub(super) const REPORTED_AT: usize = 9;
    /// Edition and place of the operations of the item that was found last, and of those that are in the slots, edition 0 for
    /// none.
    pub(super) const OPERATIONS: usize = 10;
    pub(super) const IN_SLOTS: usize = 11;
    /// Whether that item writes memory of the host.
    pub(super) const REACHES_HOST: usize = 12;
    pub(super) const WORDS: usize = 13;
}

impl Watch {
    #[inline(always)]
    pub(super) fn new() -> Self {
        Self(shared_array![u64; kept::WORDS])
    }

    /// Comes before everything else.
    ///
    /// # Safety
    /// The group's rings are there; the whole warp calls it, and no other.
    #[inline(always)]
    pub(super) unsafe fn begin(self, p: &Manifold, group: u32) {
        let lane = thread::lane_idx();
        if lane.is_multiple_of(HALF) {
            // SAFETY: the ring is there; nobody else writes its number.
            let done = unsafe {
                atomic::load(&p.done, own_ring(group) as usize, Order::Relaxed, Scope::Device)
            };
            self.keep(kept::NEXT + (lane / HALF) as usize, done.wrapping_add(1).into());
        }
        if lane == BEAT_LANE {
            self.keep(kept::BEAT, 0);
            self.keep(kept::BEAT_AT_NS, thread::clock_ns());
        }
        if lane == 0 {
            let now = thread::clock();
            self.keep(kept::BUSY, 0);
            self.keep(kept::IN_SLOTS, 0);
            self.keep(kept::BEGAN_AT, now);
            self.keep(kept::BEGAN_AT_NS, thread::clock_ns());
            self.keep(kept::REPORTED_AT, now);
        }
    }

    #[inline(always)]
    fn keep(self, place: usize, value: u64) {
        // SAFETY: one lane of one warp writes and reads a place.
        unsafe { self.0.anew().write(place, value) };
    }

    #[inline(always)]
    fn kept(self, place: usize) -> u64 {
        // SAFETY: as above; `begin` wrote it, or the take of the item.
        unsafe { self.0.anew().read(place) }
    }

    /// Looks until there is an item with operations whose needs are met, or reason to leave; completes items without any, and
    /// those that mean nothing. Never waits for a need: the other ring may have what it waits for.
    ///
    /// # Safety
    /// As [`Manifold`] says; the whole warp calls it.
    #[inline(always)]
    pub(super) unsafe fn look(self, p: &Manifold, group: u32, blocks: u32) -> Task {
        let (lane, ring) = (thread::lane_idx(), own_ring(group));
        let (place, half) = (lane % HALF, lane / HALF);
        let mut next = 0;
        if place == 0 {
            next = data_of(self.kept(kept::NEXT + half as usize));
        }
        next = warp::shuffle(warp::FULL_MASK, next, half * HALF);
        let is_control = lane == COMMAND_LANE || lane == BEAT_LANE;
        // A choice between the two views would keep both in local memory.
        let lines = hint::opaque_index(p.lines.as_ptr() as usize);
        let base = if is_control { p.control.as_ptr() as usize } else { lines };
        let len = if is_control { CONTROL_WORDS } else { p.lines.len() };
        let words: Out<u64> = Out::new(base as *mut u64, len);
        let mut looks = 0;
        loop {
            let line = ring * (p.capacity_mask + 1) + (next & p.capacity_mask);
            let of_line = line as usize * LINE_WORDS + place as usize;
            let looks_at_command = looks % COMMAND_LOOKS == 0;
            // One load for all lanes: a second would be a second trip over the bus.
            let at = if is_control { usize::from(lane == BEAT_LANE) } else { of_line };
            let mut word = 0;
            if place < HEAD || is_control && looks_at_command {
                // SAFETY: the word is inside its array; the host writes it by atomics.
                word = unsafe { atomic::load(&words, at, Order::Acquire, Scope::System) };
            }
            let command = warp::shuffle(warp::FULL_MASK, data_of(word), COMMAND_LANE);
            if looks_at_command && command >= Command::Stop as u32 {
                return Task::Leave(GroupState::Left as u32);
            }
            // An item with a need is what all of its words say.
            let needs = place == HEAD - 1 && names_need(word, next);
            let words_of_line =
                if warp::any(warp::FULL_MASK, needs) { DESCRIPTOR_WORDS as u32 } else { HEAD };
            if (HEAD..words_of_line).contains(&place) {
                // SAFETY: as above.
                word = unsafe { atomic::load(&p.lines, of_line, Order::Acquire, Scope::System) };
            }
            let came = place >= words_of_line || tag_of(word) == next;
            // Every second word from the third on is a need's ring, the next one the number there.
            let data = data_of(word);
            let sequence = warp::shuffle_down(warp::FULL_MASK, data, 1);
            let is_need = (3..words_of_line).contains(&place) && place % 2 == 1;
            let names_ring = is_need && data != NO_RING;
            let exists = !names_ring || data < p.groups * GROUP_RINGS as u32;
            let met = !(came && names_ring && exists) || {
                // SAFETY: the ring is there.
                let done =
                    unsafe { atomic::load(&p.done, data as usize, Order::Acquire, Scope::Device) };
                has_reached(done, sequence)
            };
            let whole = warp::ballot(warp::FULL_MASK, came);
            let ready = warp::ballot(warp::FULL_MASK, came && met);
            let known = warp::ballot(warp::FULL_MASK, exists);
            let of = |votes: u32, half: u32| votes >> (half * HALF) & 0xffff == 0xffff;
            let taken = if of(ready, 0) { 0 } else { 1 };
            if of(ready, taken) {
                let word = |i: u32| warp::shuffle(warp::FULL_MASK, data, taken * HALF + i);
                let (count, wanted, edition, reaches_host) = counts_of(word(1), word(2));
                let item = Item { first: word(0), count, blocks: wanted };
                if place == 0 && half == taken {
                    self.keep(kept::NEXT + half as usize, next.wrapping_add(1).into());
                }
                let sequence = warp::shuffle(warp::FULL_MASK, next, taken * HALF);
                if lane == 0 {
                    let item = tagged(sequence, group * GROUP_RINGS as u32 + taken);
                    self.keep(kept::ITEM, item);
                    self.keep(kept::TAKEN_AT, thread::clock());
                    // Where one ring alone had an item the host knows which. What is on the bus when the item is completed
                    // has to be waited for.
                    if of(whole, 1 - taken) {
                        say(p, group, report::TAKEN, item);
                    }
                }
                let operations = p.operations.len() as u64;
                let fits = of(known, taken)
                    && u64::from(item.first) + u64::from(item.count) <= operations
                    && item.blocks >= 1
                    && item.blocks <= blocks;
                if fits && item.count > 0 {
                    if lane == 0 {
                        self.keep(kept::OPERATIONS, tagged(item.first, edition));
                        self.keep(kept::REACHES_HOST, reaches_host.into());
                    }
                    return Task::Item(item);
                }
                // Nobody else is needed, and there is nothing to be ordered before it but what it needs, which lanes have
                // seen complete.
                let status = if fits { ItemStatus::Done } else { ItemStatus::OutOfRange };
                warp::sync_warp(warp::FULL_MASK);
                if lane == 0 {
                    if words_of_line > HEAD {
                        atomic::fence(Scope::System);
                    }
                    self.publish(p, status as u32);
                }
                let next_of_taken = u32::from(half == taken);
                next = next.wrapping_add(next_of_taken);
                looks += 1;
                continue;
            }
            if looks_at_command {
                let nothing_came = !of(whole, 0) && !of(whole, 1);
                if command == Command::Drain as u32 && nothing_came {
                    return Task::Leave(GroupState::Left as u32);
                }
                let mut silent = false;
                if lane == BEAT_LANE {
                    let now_ns = thread::clock_ns();
                    if word != self.kept(kept::BEAT) {
                        self.keep(kept::BEAT, word);
                        self.keep(kept::BEAT_AT_NS, now_ns);
                    }
                    silent = now_ns - self.kept(kept::BEAT_AT_NS) > p.host_limit_ns;
                }
                if warp::any(warp::FULL_MASK, silent) {
                    return Task::Leave(GroupState::Deserted as u32);
                }
                if lane == 0 {
                    self.report_sometimes(p, group);
                }
            }
            looks += 1;
            thread::spin_wait(0);
        }
    }

    /// Whether the slots still have the operations of the item that was found last. From now on they do, if there is room for
    /// all. The whole warp calls it.
    #[inline(always)]
    pub(super) fn has_operations(self, item: &Item) -> bool {
        let mut has = false;
        if thread::lane_idx() == 0 {
            let operations = self.kept(kept::OPERATIONS);
            has = tag_of(operations) != 0 && self.kept(kept::IN_SLOTS) == operations;
            let stay = item.count as usize <= SLOTS;
            self.keep(kept::IN_SLOTS, if stay { operations } else { 0 });
        }
        warp::any(warp::FULL_MASK, has)
    }

    /// Says so once in a while. Lane 0 calls it.
    #[inline(always)]
    fn report_sometimes(self, p: &Manifold, group: u32) {
        if thread::clock() - self.kept(kept::REPORTED_AT) > REPORT_CYCLES {
            self.report_time(p, group);
        }
    }

    /// Says what time it is, and how much of it was work. Lane 0 calls it.
    #[inline(always)]
    pub(super) fn report_time(self, p: &Manifold, group: u32) {
        let (now, now_ns) = (thread::clock(), thread::clock_ns());
        self.keep(kept::REPORTED_AT, now);
        say(p, group, report::BEAT, now_ns);
        say(p, group, report::BUSY, self.kept(kept::BUSY));
        say(p, group, report::CYCLES, now - self.kept(kept::BEGAN_AT));
        say(p, group, report::ELAPSED_NS, now_ns - self.kept(kept::BEGAN_AT_NS));
    }

    /// Completes the item that was found last, unless the host gave it up.
    ///
    /// What is in the device's memory the host reads by copies and launches that it queues after it has seen the item
    /// complete: for that the fence is the device's. The system's, for memory of the host, waits for the bus as well.
    ///
    /// # Safety
    /// Thread 0 calls it, behind a barrier of the block after the item's work.
    #[inline(always)]
    pub(super) unsafe fn complete(self, p: &Manifold, status: u32) {
        if status == ItemStatus::Abandoned as u32 {
            return;
        }
        if self.kept(kept::REACHES_HOST) == 0 {
            atomic::fence(Scope::Device);
        } else {
            atomic::fence(Scope::System);
        }
        self.publish(p, status);
        let work = thread::clock() - self.kept(kept::TAKEN_AT);
        self.keep(kept::BUSY, self.kept(kept::BUSY) + work);
        // A group that always has work says so here.
        let ring = tag_of(self.kept(kept::ITEM));
        self.report_sometimes(p, ring / GROUP_RINGS as u32);
    }

    /// Says that the item is complete, to the device and to the host. Lane 0 calls it.
    #[inline(always)]
    fn publish(self, p: &Manifold, status: u32) {
        let item = self.kept(kept::ITEM);
        let (ring, sequence) = (tag_of(item), data_of(item));
        let place = ring * (p.capacity_mask + 1) + (sequence & p.capacity_mask);
        let word = tagged(status, sequence);
        // SAFETY: the words are inside their arrays, and this thread's to write.
        unsafe {
            atomic::store(&p.done, ring as usize, sequence, Order::Relaxed, Scope::Device);
            atomic::store(&p.completions, place as usize, word, Order::Relaxed, Scope::System);
        }
    }
}

/// Says something of the group. One thread calls it.
#[inline(always)]
pub(super) fn say(p: &Manifold, group: u32, place: usize, value: u64) {
    let at = group as usize * REPORT_WORDS + place;
    // SAFETY: one thread writes the group's report; the host reads it as it comes.
    unsafe { atomic::store(&p.reports, at, value, Order::Relaxed, Scope::System) };
}

/// The ring that this lane's half looks at.
#[inline(always)]
fn own_ring(group: u32) -> u32 {
    let priority =
        if thread::lane_idx() < HALF { ItemPriority::High } else { ItemPriority::Normal };
    ring_of(group, priority)
}

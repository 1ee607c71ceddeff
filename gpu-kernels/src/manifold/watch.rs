//! The first warp of a group's first block, which looks at the group's two rings.

use kasmina_device::atomic::{self, Order, Scope};
use kasmina_device::{hint, thread, warp};
use kasmina_types::manifold::{
    CONTROL_WORDS, Command, DESCRIPTOR_WORDS, GROUP_RINGS, GroupState, HEAD_WORDS, ItemPriority,
    ItemStatus, LINE_WORDS, NO_RING, REPORT_WORDS, counts_of, data_of, has_reached, names_need,
    report, ring_of, tag_of, tagged,
};
use kasmina_types::{Manifold, Out};

use super::desk::{Desk, SLOTS, Task};

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

/// Cycles by which the pause before the first look after an item grows where that look came too early, and its most.
const PAUSE_STEP: u32 = 512;
const MOST_PAUSE: u32 = 4096;

/// What the warp keeps from look to look.
#[derive(Clone, Copy)]
pub(super) struct Watch<const THREADS: u32>(pub(super) Desk<THREADS>);

/// What the warp keeps, by its place. A place is that of one lane.
mod kept {
    /// The number of the next item of each of the group's rings; the first lane's of the ring's half, for all lanes to read.
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
    /// Edition and place of the operations that are in the slots, edition 0 for none.
    pub(super) const IN_SLOTS: usize = 10;
    /// The pause before the first look after an item, in cycles.
    pub(super) const PAUSE: usize = 11;
    /// Whether the item that was found last writes memory of the host.
    pub(super) const REACHES_HOST: usize = 12;
}

impl<const THREADS: u32> Watch<THREADS> {
    /// Comes before everything else.
    ///
    /// # Safety
    /// The group's rings are there; the whole warp calls it, and no other.
    #[inline(always)]
    pub(super) unsafe fn begin(self, p: &Manifold, group: u32) {
        let lane = thread::lane_idx();
        // SAFETY: the ring is there; nobody else writes its number.
        let done = unsafe {
            atomic::load(&p.done, own_ring(group) as usize, Order::Relaxed, Scope::Device)
        };
        let next = done.wrapping_add(1).into();
        if lane == 0 {
            self.keep(kept::NEXT, next);
        } else if lane == HALF {
            self.keep(kept::NEXT + 1, next);
        }
        if lane == BEAT_LANE {
            self.keep(kept::BEAT, 0);
            self.keep(kept::BEAT_AT_NS, thread::clock_ns());
        }
        if lane == 0 {
            let now = thread::clock();
            self.keep(kept::BUSY, 0);
            self.keep(kept::IN_SLOTS, 0);
            self.keep(kept::PAUSE, 0);
            self.keep(kept::BEGAN_AT, now);
            self.keep(kept::BEGAN_AT_NS, thread::clock_ns());
            self.keep(kept::REPORTED_AT, now);
        }
        // Orders what lanes keep before the other lanes' first look.
        warp::sync_warp(warp::FULL_MASK);
    }

    #[inline(always)]
    fn keep(self, place: usize, value: u64) {
        // SAFETY: one lane of one warp writes a place, and others read it behind a barrier.
        unsafe { self.0.keep(place, value) };
    }

    #[inline(always)]
    fn kept(self, place: usize) -> u64 {
        // SAFETY: as above; `begin` wrote it, or the take of the item.
        unsafe { self.0.kept(place) }
    }

    /// Looks until there is an item with operations whose needs are met, or reason to leave; completes items without any, and
    /// those that mean nothing. Never waits for a need: the other ring may have what it waits for. Answers as well whether the
    /// slots have the item's operations; from now on they do, if there is room for all.
    ///
    /// # Safety
    /// As [`Manifold`] says; the whole warp calls it.
    #[inline(always)]
    pub(super) unsafe fn look(self, p: &Manifold, group: u32, blocks: u32) -> (Task, bool) {
        let (lane, ring) = (thread::lane_idx(), own_ring(group));
        let (place, half) = (lane % HALF, lane / HALF);
        let (first, second) = (self.kept(kept::NEXT), self.kept(kept::NEXT + 1));
        let in_slots = self.kept(kept::IN_SLOTS);
        let mut next = data_of(if half == 0 { first } else { second });
        let is_control = lane == COMMAND_LANE || lane == BEAT_LANE;
        // A choice between the two views would keep both in local memory.
        let lines = hint::opaque_index(p.lines.as_ptr() as usize);
        let base = if is_control { p.control.as_ptr() as usize } else { lines };
        let len = if is_control { CONTROL_WORDS } else { p.lines.len() };
        let words: Out<u64> = Out::new(base as *mut u64, len);
        // A look that leaves too early for the host's answer to the last item delays it by a trip over the bus.
        let mut pause = data_of(self.kept(kept::PAUSE));
        let (mut looks, mut looks_for_item, mut from) = (0, 0, thread::clock());
        loop {
            while looks_for_item == 0 && thread::clock() - from < pause.into() {}
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
                return (Task::leave(GroupState::Left as u32), false);
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
                let task = Task { first: word(0), count, blocks: wanted };
                let sequence = warp::shuffle(warp::FULL_MASK, next, taken * HALF);
                pause = paced(pause, looks_for_item);
                if lane == 0 {
                    self.keep(kept::PAUSE, pause.into());
                    let following = sequence.wrapping_add(1).into();
                    if taken == 0 {
                        self.keep(kept::NEXT, following);
                    } else {
                        self.keep(kept::NEXT + 1, following);
                    }
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
                    && u64::from(task.first) + u64::from(task.count) <= operations
                    && task.blocks >= 1
                    && task.blocks <= blocks;
                if fits && task.count > 0 {
                    let operations = tagged(task.first, edition);
                    if lane == 0 {
                        let stay = count as usize <= SLOTS;
                        self.keep(kept::IN_SLOTS, if stay { operations } else { 0 });
                        self.keep(kept::REACHES_HOST, reaches_host.into());
                    }
                    return (task, edition != 0 && operations == in_slots);
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
                (looks_for_item, from) = (0, thread::clock());
                continue;
            }
            if looks_at_command {
                let nothing_came = !of(whole, 0) && !of(whole, 1);
                if command == Command::Drain as u32 && nothing_came {
                    return (Task::leave(GroupState::Left as u32), false);
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
                    return (Task::leave(GroupState::Deserted as u32), false);
                }
                if lane == 0 {
                    self.report_sometimes(p, group);
                }
            }
            looks += 1;
            looks_for_item += 1;
            thread::spin_wait(0);
        }
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

/// The pause before the first look after the next item, from the one before this item, and the looks in vain after it. What
/// came with the first look may have been there for long; what came with the second, just after the first; later ones say
/// nothing.
#[inline(always)]
fn paced(pause: u32, looks: u32) -> u32 {
    let shorter = pause - pause.div_ceil(64);
    let longer = (pause + PAUSE_STEP).min(MOST_PAUSE);
    // No table of branches, which would come from memory.
    let other = if hint::opaque(looks) == 1 { longer } else { pause };
    if looks == 0 { shorter } else { other }
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

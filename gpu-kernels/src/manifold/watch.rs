//! The first warp of a group's first block, which looks at the group's two rings.

use kasmina_device::atomic::{self, Order, Scope};
use kasmina_device::{thread, warp};
use kasmina_types::Manifold;
use kasmina_types::manifold::{
    Command, DESCRIPTOR_WORDS, GROUP_RINGS, GroupState, ItemPriority, ItemStatus, LINE_WORDS,
    NO_RING, REPORT_WORDS, data_of, has_reached, report, ring_of, tag_of, tagged,
};

use super::manifold::Item;

/// Lanes for the line of one ring.
const HALF: u32 = LINE_WORDS as u32;
/// The lanes that read the command and the host's heartbeat, each the last of its half.
const COMMAND_LANE: u32 = HALF - 1;
const BEAT_LANE: u32 = 2 * HALF - 1;
/// Nanoseconds from one report of the time to the next.
const REPORT_NS: u64 = 1_000_000;

/// What there is to do.
pub(super) enum Found {
    /// An item, and what is wrong with it.
    Item(Item, ItemStatus),
    /// Nothing any more.
    Leave(GroupState),
}

/// What the warp keeps from look to look.
pub(super) struct Watch {
    /// The number of the next item of the ring of this lane's half.
    next: u32,
    /// The item that was found last, in every lane, and whether the other ring had one as well.
    pub(super) ring: u32,
    pub(super) sequence: u32,
    pub(super) is_contested: bool,
    /// The host's heartbeat as it was last seen to change, in its lane, and when.
    beat: u64,
    beat_at: u64,
    /// When the item was taken, and the time of all items.
    taken_at: u64,
    busy_ns: u64,
    reported_at: u64,
}

impl Watch {
    /// # Safety
    /// The group's rings are there.
    #[inline(always)]
    pub(super) unsafe fn new(p: &Manifold, group: u32) -> Self {
        let now = thread::clock_ns();
        // SAFETY: the ring is there; nobody else writes its number.
        let done = unsafe {
            atomic::load(&p.done, own_ring(group) as usize, Order::Relaxed, Scope::Device)
        };
        Self {
            next: done.wrapping_add(1),
            ring: 0,
            sequence: 0,
            is_contested: false,
            beat: 0,
            beat_at: now,
            taken_at: now,
            busy_ns: 0,
            reported_at: now,
        }
    }

    /// Looks until there is an item whose needs are met, or reason to leave. Never waits for a need: the other ring may
    /// have what it waits for.
    ///
    /// # Safety
    /// As [`Manifold`] says; the whole warp calls it.
    #[inline(always)]
    pub(super) unsafe fn look(&mut self, p: &Manifold, group: u32, blocks: u32) -> Found {
        let (lane, ring) = (thread::lane_idx(), own_ring(group));
        let (place, half) = (lane % HALF, lane / HALF);
        loop {
            // One load for all lanes: a second would be a second trip over the bus.
            let line = ring * (p.capacity_mask + 1) + (self.next & p.capacity_mask);
            let (words, at) = if lane == COMMAND_LANE || lane == BEAT_LANE {
                (p.control, usize::from(lane == BEAT_LANE))
            } else {
                (p.lines, line as usize * LINE_WORDS + place as usize)
            };
            // SAFETY: the word is inside its array; the host writes it by atomics.
            let word = unsafe { atomic::load(&words, at, Order::Acquire, Scope::System) };
            let command = warp::shuffle(warp::FULL_MASK, data_of(word), COMMAND_LANE);
            if command >= Command::Stop as u32 {
                return Found::Leave(GroupState::Left);
            }
            let came = place >= DESCRIPTOR_WORDS as u32 || tag_of(word) == self.next;
            // Every second word from the third on is a need's ring, the next one the number there.
            let data = data_of(word);
            let sequence = warp::shuffle_down(warp::FULL_MASK, data, 1);
            let is_need = (3..DESCRIPTOR_WORDS as u32).contains(&place) && place % 2 == 1;
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
                let item = Item { first: word(0), count: word(1), blocks: word(2) };
                self.ring = group * GROUP_RINGS as u32 + taken;
                self.sequence = warp::shuffle(warp::FULL_MASK, self.next, taken * HALF);
                self.is_contested = of(whole, 1 - taken);
                if half == taken {
                    self.next = self.next.wrapping_add(1);
                }
                self.taken_at = thread::clock_ns();
                let operations = p.operations.len() as u64;
                let fits = of(known, taken)
                    && u64::from(item.first) + u64::from(item.count) <= operations
                    && item.count <= kasmina_types::manifold::MAX_OPERATIONS
                    && item.blocks >= 1
                    && item.blocks <= blocks;
                let status = if fits { ItemStatus::Done } else { ItemStatus::OutOfRange };
                return Found::Item(item, status);
            }
            let nothing_came = !of(whole, 0) && !of(whole, 1);
            if command == Command::Drain as u32 && nothing_came {
                return Found::Leave(GroupState::Left);
            }
            let now = thread::clock_ns();
            if word != self.beat {
                (self.beat, self.beat_at) = (word, now);
            }
            let silent = lane == BEAT_LANE && now - self.beat_at > p.host_limit_ns;
            if warp::any(warp::FULL_MASK, silent) {
                return Found::Leave(GroupState::Deserted);
            }
            self.report_sometimes(p, group, now);
            thread::spin_wait(0);
        }
    }

    /// Says so once in a while, in one lane.
    #[inline(always)]
    fn report_sometimes(&mut self, p: &Manifold, group: u32, now: u64) {
        if now - self.reported_at > REPORT_NS {
            self.reported_at = now;
            if thread::lane_idx() == 0 {
                self.report_time(&|place: usize, value: u64| {
                    let at = group as usize * REPORT_WORDS + place;
                    // SAFETY: one thread writes the group's report; the host reads it as it comes.
                    unsafe { atomic::store(&p.reports, at, value, Order::Relaxed, Scope::System) };
                });
            }
        }
    }

    /// Says what time it is, and how much of it was work.
    #[inline(always)]
    pub(super) fn report_time(&self, say: &impl Fn(usize, u64)) {
        say(report::BEAT, thread::clock_ns());
        say(report::BUSY_NS, self.busy_ns);
    }

    /// Completes the item that was found last.
    ///
    /// # Safety
    /// The whole warp calls it, behind a barrier of the block after the item's work.
    #[inline(always)]
    pub(super) unsafe fn complete(&mut self, p: &Manifold, status: u32) {
        if thread::lane_idx() == 0 {
            let place = self.ring * (p.capacity_mask + 1) + (self.sequence & p.capacity_mask);
            let word = tagged(status, self.sequence);
            // One fence for both: what the item wrote is seen by who sees either word.
            atomic::fence(Scope::System);
            // SAFETY: the words are inside their arrays, and this thread's to write.
            unsafe {
                let ring = self.ring as usize;
                atomic::store(&p.done, ring, self.sequence, Order::Relaxed, Scope::Device);
                let at = place as usize;
                atomic::store(&p.completions, at, word, Order::Relaxed, Scope::System);
            }
        }
        let now = thread::clock_ns();
        self.busy_ns += now - self.taken_at;
        // A group that always has work says so here.
        self.report_sometimes(p, self.ring / GROUP_RINGS as u32, now);
    }
}

/// The ring that this lane's half looks at.
#[inline(always)]
fn own_ring(group: u32) -> u32 {
    let priority =
        if thread::lane_idx() < HALF { ItemPriority::High } else { ItemPriority::Normal };
    ring_of(group, priority)
}

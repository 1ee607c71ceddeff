//! All rings of one executor: making them, pushing, and looking at what waits.

use std::time::Instant;

use kasmina_types::manifold::{ItemDescriptor, LINE_WORDS, NEEDS, NO_RING, Need, tagged};

use crate::error::{CloseReason, PushError, Refusal, RingsError};
use crate::protocol::{self, add_need, has_room, place_of, wire};
use crate::ring::{Record, Ring, State};
use crate::sync::{self, AtomicBool, AtomicU64, Mutex, Ordering};
use crate::words::Words;

/// Lines of a ring at most: two numbers of a ring are less than half of all numbers apart.
const MOST_LINES: usize = 1 << 30;

/// The first number of a ring at most. Numbers never come to the end of `u64` from here.
const LAST_FIRST: u64 = 1 << 63;

/// Looks at an item's completion that a waiter takes before it sleeps.
const SPINS: u32 = 1000;

/// The host's side of all rings of one executor, for any number of threads. `W` is the memory shared with the device,
/// `T` what the host attaches to an item until it is complete.
///
/// Every item that waits to be seen complete, and every push that waits for room, relies on some thread that goes on
/// calling [`reap`](Self::reap). See the [crate's documentation](crate).
pub struct Rings<W, T> {
    lines: W,
    pub(crate) completions: W,
    pub(crate) capacity: u64,
    pub(crate) rings: Box<[Ring<T>]>,
    /// Pushes so far, to all rings.
    pushes: AtomicU64,
    pub(crate) is_closed: AtomicBool,
    pub(crate) closed: Mutex<Option<CloseReason>>,
    pub(crate) spins: u32,
}

/// An item that was pushed: its ring, and its number there. It stands for the item in the rings that gave it, before
/// and after it is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket {
    pub(crate) ring: u32,
    pub(crate) sequence: u64,
}

impl Ticket {
    /// The ring.
    pub const fn ring(self) -> u32 {
        self.ring
    }

    /// The number in the ring, with the bits that the wire lacks.
    pub const fn sequence(self) -> u64 {
        self.sequence
    }

    /// The need on this item as a descriptor has it. It stands for the item until 2³¹ more are pushed to the ring;
    /// [`Rings::try_push_after`] takes tickets of any age.
    pub const fn need(self) -> Need {
        Need { ring: self.ring, sequence: wire(self.sequence) }
    }
}

/// An item that is not complete, as [`Rings::outstanding`] shows it.
#[derive(Debug)]
pub struct Outstanding<'r, T> {
    /// The item.
    pub ticket: Ticket,
    /// What was written, without the needs that were met already.
    pub descriptor: &'r ItemDescriptor,
    /// What the host attached.
    pub payload: &'r T,
}

impl<W: Words, T> Rings<W, T> {
    /// Rings over `lines`, `[rings, capacity, LINE_WORDS]`, and `completions`, `[rings, capacity]`, as the device has
    /// them. `first` has the number of each ring's first item: 1, or one more than the device has in `done`.
    ///
    /// Every word of both areas is written, with tags that no item awaits, so no device works on them yet.
    ///
    /// # Errors
    /// Lengths or numbers that do not fit together.
    pub fn new(
        lines: W,
        completions: W,
        rings: usize,
        capacity: usize,
        first: &[u64],
    ) -> Result<Self, RingsError> {
        if !capacity.is_power_of_two() || capacity > MOST_LINES {
            return Err(RingsError::Capacity { got: capacity });
        }
        if rings == 0 || rings >= NO_RING as usize {
            return Err(RingsError::RingCount { got: rings });
        }
        for (area, words, each) in
            [("lines", &lines, capacity * LINE_WORDS), ("completions", &completions, capacity)]
        {
            // A product that overflows is a length that no memory has.
            let expected = rings.saturating_mul(each);
            if words.len() != expected {
                return Err(RingsError::Length { area, expected, got: words.len() });
            }
        }
        if first.len() != rings {
            return Err(RingsError::FirstCount { expected: rings, got: first.len() });
        }
        for (ring, &got) in first.iter().enumerate() {
            if got == 0 || got > LAST_FIRST {
                return Err(RingsError::First { ring, got });
            }
        }
        for (ring, &first) in first.iter().enumerate() {
            for offset in 0..capacity as u64 {
                let at = ring * capacity + place_of(first + offset, capacity as u64) as usize;
                // The tag of the item that would have been there before.
                let word = tagged(0, wire((first + offset).wrapping_sub(capacity as u64)));
                (0..LINE_WORDS).for_each(|index| lines.store(at * LINE_WORDS + index, word));
                completions.store(at, word);
            }
        }
        let capacity = capacity as u64;
        Ok(Self {
            lines,
            completions,
            capacity,
            rings: first.iter().map(|&first| Ring::new(first, capacity)).collect(),
            pushes: AtomicU64::new(0),
            is_closed: AtomicBool::new(false),
            closed: Mutex::new(None),
            spins: SPINS,
        })
    }

    /// The same rings, whose [`wait`](Self::wait) looks `spins` times before it sleeps.
    pub fn with_spins(self, spins: u32) -> Self {
        Self { spins, ..self }
    }

    /// Rings.
    pub fn ring_count(&self) -> usize {
        self.rings.len()
    }

    /// Lines of a ring.
    pub fn capacity(&self) -> usize {
        self.capacity as usize
    }

    /// Writes an item to its ring, unless that is full. It has the needs of its descriptor, each the latest item of its
    /// number. Those that are complete already are not written.
    ///
    /// # Errors
    /// The payload, with the reason why nothing was pushed: every one of [`Refusal`] but
    /// [`DeadlinePassed`](Refusal::DeadlinePassed).
    pub fn try_push(
        &self,
        ring: u32,
        descriptor: ItemDescriptor,
        payload: T,
    ) -> Result<Ticket, PushError<T>> {
        self.try_push_after(ring, descriptor, &[], payload)
    }

    /// As [`Self::try_push`], with needs on the items `after` besides the descriptor's.
    ///
    /// # Errors
    /// As [`Self::try_push`].
    pub fn try_push_after(
        &self,
        ring: u32,
        descriptor: ItemDescriptor,
        after: &[Ticket],
        payload: T,
    ) -> Result<Ticket, PushError<T>> {
        let (place, descriptor) = match self.check(ring, descriptor, after) {
            Ok(checked) => checked,
            Err(refusal) => return Err(PushError { refusal, payload }),
        };
        let mut state = place.lock();
        if let Some(reason) = &state.closed {
            let refusal = Refusal::Closed(reason.clone());
            return Err(PushError { refusal, payload });
        }
        if !has_room(state.oldest, state.next, self.capacity) {
            return Err(PushError { refusal: Refusal::Full, payload });
        }
        Ok(self.write(ring, place, &mut state, descriptor, payload))
    }

    /// As [`Self::try_push`], but waits while the ring is full, until `deadline` if there is one.
    ///
    /// # Errors
    /// The payload, with the reason why nothing was pushed: every one of [`Refusal`] but [`Full`](Refusal::Full).
    pub fn push(
        &self,
        ring: u32,
        descriptor: ItemDescriptor,
        payload: T,
        deadline: Option<Instant>,
    ) -> Result<Ticket, PushError<T>> {
        self.push_after(ring, descriptor, &[], payload, deadline)
    }

    /// As [`Self::push`], with needs on the items `after` besides the descriptor's.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub fn push_after(
        &self,
        ring: u32,
        descriptor: ItemDescriptor,
        after: &[Ticket],
        payload: T,
        deadline: Option<Instant>,
    ) -> Result<Ticket, PushError<T>> {
        let (place, descriptor) = match self.check(ring, descriptor, after) {
            Ok(checked) => checked,
            Err(refusal) => return Err(PushError { refusal, payload }),
        };
        let mut state = place.lock();
        let mut is_late = false;
        loop {
            if let Some(reason) = &state.closed {
                let refusal = Refusal::Closed(reason.clone());
                return Err(PushError { refusal, payload });
            }
            // Looked at once more when it is late: this thread may be the one that was told of the room.
            if has_room(state.oldest, state.next, self.capacity) {
                return Ok(self.write(ring, place, &mut state, descriptor, payload));
            }
            if is_late {
                return Err(PushError { refusal: Refusal::DeadlinePassed, payload });
            }
            state.pushers += 1;
            (state, is_late) = sync::wait(&place.room, state, deadline);
            state.pushers -= 1;
        }
    }

    /// The ring, and the descriptor as it is written.
    fn check(
        &self,
        ring: u32,
        mut descriptor: ItemDescriptor,
        after: &[Ticket],
    ) -> Result<(&Ring<T>, ItemDescriptor), Refusal> {
        let Some(place) = self.rings.get(ring as usize) else {
            return Err(Refusal::NoSuchRing { ring, rings: self.rings.len() });
        };
        let mut needs = [Need::NONE; NEEDS];
        let mut keep = |need| {
            if add_need(&mut needs, need) { Ok(()) } else { Err(Refusal::TooManyNeeds) }
        };
        for need in descriptor.needs {
            if need.ring == NO_RING {
                continue;
            }
            let refused = Refusal::NeedNotPushed(need);
            let Some(of) = self.rings.get(need.ring as usize) else { return Err(refused) };
            let last = of.next() - 1;
            match protocol::unwire(need.sequence, last) {
                Some(sequence) if sequence >= of.oldest() => keep(need)?,
                Some(_) => {}
                None => return Err(refused),
            }
        }
        for ticket in after {
            let refused = Refusal::NeedNotPushed(ticket.need());
            let Some(of) = self.rings.get(ticket.ring as usize) else { return Err(refused) };
            if ticket.sequence >= of.next() {
                return Err(refused);
            }
            if ticket.sequence >= of.oldest() {
                keep(ticket.need())?;
            }
        }
        descriptor.needs = needs;
        Ok((place, descriptor))
    }

    /// Writes the next item's line and records it. The ring has room.
    fn write(
        &self,
        ring: u32,
        place: &Ring<T>,
        state: &mut State<T>,
        descriptor: ItemDescriptor,
        payload: T,
    ) -> Ticket {
        let line = self.index(ring, state.next) * LINE_WORDS;
        // In any order, and all of them: the device takes the line once each word that it goes by has the item's tag. Those
        // are the head's, or more, where the first need is none, so `check` puts needs in the first places.
        let words = protocol::line_words(&descriptor, wire(state.next));
        for (index, word) in words.into_iter().enumerate() {
            self.lines.store(line + index, word);
        }
        // An item is pushed after those it needs, so this order respects the needs.
        let order = self.pushes.fetch_add(1, Ordering::Relaxed);
        let sequence = place.push(state, Record { order, descriptor, payload });
        Ticket { ring, sequence }
    }

    /// The index of an item's line among all lines.
    #[inline]
    pub(crate) fn index(&self, ring: u32, sequence: u64) -> usize {
        (u64::from(ring) * self.capacity + place_of(sequence, self.capacity)) as usize
    }

    /// Visits the items that are not complete in the order in which they were pushed, over all rings. While this lasts
    /// nothing is pushed or reaped: `visit` calls none of these rings' methods, or it waits for itself.
    pub fn outstanding(&self, mut visit: impl FnMut(Outstanding<'_, T>)) {
        // Nothing else holds two rings at once, so no two threads wait for each other.
        let states: Vec<_> = self.rings.iter().map(Ring::lock).collect();
        let mut items: Vec<(u64, Outstanding<'_, T>)> = Vec::new();
        for (ring, state) in (0..).zip(&states) {
            items.extend(state.records().map(|(sequence, record)| {
                let Record { order, descriptor, payload } = record;
                let ticket = Ticket { ring, sequence };
                (*order, Outstanding { ticket, descriptor, payload })
            }));
        }
        items.sort_by_key(|item| item.0);
        items.into_iter().for_each(|item| visit(item.1));
    }

    /// The oldest item of a ring that is not complete, if there is one and such a ring.
    pub fn oldest(&self, ring: u32) -> Option<Ticket> {
        let of = self.rings.get(ring as usize)?;
        let sequence = of.oldest();
        (sequence < of.next() && !self.is_closed()).then_some(Ticket { ring, sequence })
    }

    /// Items of each ring that are not complete. Each ring is looked at for itself, and without a lock.
    pub fn depths(&self) -> impl Iterator<Item = u64> {
        self.rings.iter().map(|ring| if self.is_closed() { 0 } else { ring.depth() })
    }

    /// Why the rings were closed, if they were.
    pub fn close_reason(&self) -> Option<CloseReason> {
        sync::lock(&self.closed).clone()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }
}

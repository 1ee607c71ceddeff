//! Looking at completions, and closing.

use kasmina_types::manifold::ItemDescriptor;

use crate::error::{CloseReason, Failure};
use crate::protocol::{completion_of, wire};
use crate::ring::{Record, Ring, State, Wakers};
use crate::rings::{Rings, Ticket};
use crate::sync::{self, Ordering};
use crate::words::Words;

/// An item that is complete.
#[derive(Debug)]
pub struct Completed<T> {
    /// The item.
    pub ticket: Ticket,
    /// What the device says became of it.
    pub outcome: Result<(), Failure>,
    /// What the host attached.
    pub payload: T,
}

/// An item that was not complete when its rings were closed. A device that works on, or is launched again over the same
/// memory, may still carry it out.
#[derive(Debug)]
pub struct Unfinished<T> {
    /// The item.
    pub ticket: Ticket,
    /// What was written, without the needs that were met already.
    pub descriptor: ItemDescriptor,
    /// What the host attached.
    pub payload: T,
}

impl<W: Words, T> Rings<W, T> {
    /// Looks at the completions of every ring, records those that have come, wakes who waits for them or for room, and
    /// gives each item to `each`, which may call these rings. Returns how many there were.
    ///
    /// Any threads may reap at the same time: an item is given out once. Each thread is given items of a ring in their
    /// order, while two threads may be at neighbouring items at once. An item counts as complete, and those who wait
    /// for it may run, before `each` has it.
    pub fn reap(&self, mut each: impl FnMut(Completed<T>)) -> usize {
        (0..self.rings.len() as u32).map(|ring| self.reap_ring(ring, &mut each)).sum()
    }

    /// As [`Self::reap`], of one ring. One that there is not has no completions.
    pub fn reap_ring(&self, ring: u32, mut each: impl FnMut(Completed<T>)) -> usize {
        let Some(of) = self.rings.get(ring as usize) else { return 0 };
        let mut count = 0;
        while self.has_completion(ring, of.oldest()) {
            let mut state = of.lock();
            // Another thread may have been here since: the state says what is oldest now.
            let Some((completed, wakers)) = self.take(ring, of, &mut state) else { break };
            let has_pusher = state.pushers > 0;
            let has_waiter = state.awaited <= completed.ticket.sequence;
            if has_waiter {
                state.awaited = u64::MAX;
            }
            drop(state);
            // One place, one pusher. Those who wait for later items come back and say so.
            if has_pusher {
                of.room.notify_one();
            }
            if has_waiter {
                of.complete.notify_all();
            }
            wakers.wake();
            count += 1;
            each(completed);
        }
        count
    }

    #[inline]
    fn has_completion(&self, ring: u32, sequence: u64) -> bool {
        let word = self.completions.load(self.index(ring, sequence));
        completion_of(word, wire(sequence)).is_some()
    }

    /// Takes the oldest item if its completion has come.
    fn take(
        &self,
        ring: u32,
        of: &Ring<T>,
        state: &mut State<T>,
    ) -> Option<(Completed<T>, Wakers)> {
        let sequence = state.oldest;
        let word = self.completions.load(self.index(ring, sequence));
        let outcome = Failure::check(completion_of(word, wire(sequence))?);
        let (Record { payload, .. }, wakers) = of.pop(state, outcome)?;
        Some((Completed { ticket: Ticket { ring, sequence }, outcome, payload }, wakers))
    }

    /// Ends pushing and waiting: every waiter and every blocked push comes back with `reason`. Items whose completions
    /// have come are given to `each`, as by [`Self::reap`]; the others are returned in the order in which they were
    /// pushed, over all rings, so that each comes after those it needs. Closed rings stay closed: a second call returns
    /// nothing, and the first one's reason stands.
    pub fn close(
        &self,
        reason: CloseReason,
        mut each: impl FnMut(Completed<T>),
    ) -> Vec<Unfinished<T>> {
        {
            let mut closed = sync::lock(&self.closed);
            if closed.is_some() {
                return Vec::new();
            }
            *closed = Some(reason.clone());
            self.is_closed.store(true, Ordering::Release);
        }
        let mut unfinished = Vec::new();
        for (ring, of) in (0..).zip(&self.rings) {
            let mut completed = Vec::new();
            let mut all_wakers = Vec::new();
            let mut state = of.lock();
            state.closed = Some(reason.clone());
            while let Some((item, wakers)) = self.take(ring, of, &mut state) {
                completed.push(item);
                all_wakers.push(wakers);
            }
            for sequence in state.oldest..state.next {
                let Some((record, wakers)) = state.give_up(sequence) else { continue };
                let Record { order, descriptor, payload } = record;
                let ticket = Ticket { ring, sequence };
                unfinished.push((order, Unfinished { ticket, descriptor, payload }));
                all_wakers.push(wakers);
            }
            drop(state);
            of.room.notify_all();
            of.complete.notify_all();
            all_wakers.into_iter().for_each(Wakers::wake);
            completed.into_iter().for_each(&mut each);
        }
        unfinished.sort_by_key(|item| item.0);
        unfinished.into_iter().map(|item| item.1).collect()
    }
}

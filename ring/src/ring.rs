//! One ring as the host sees it: its numbers, and a record for each place.

use std::collections::VecDeque;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::task::Waker;

use kasmina_types::manifold::ItemDescriptor;

use crate::error::{CloseReason, Failure, WaitError};
use crate::sync::{self, AtomicBool, AtomicU64, Condvar, Mutex, MutexGuard, Ordering};

/// Failures of a ring that are remembered. When another comes, the oldest is forgotten.
pub const KEPT_FAILURES: usize = 256;

/// One ring. Aligned so that two share no cache line, nor a pair that is fetched together.
#[repr(align(128))]
pub(crate) struct Ring<T> {
    /// The oldest item that is not complete; a copy of the state's, written under its lock.
    oldest: AtomicU64,
    /// What the next item will be; a copy of the state's, written under its lock once the item's words are.
    next: AtomicU64,
    /// Whether any item ever failed; written before `oldest`.
    has_failed: AtomicBool,
    state: Mutex<State<T>>,
    /// Pushers wait here, each for room of its own.
    pub(crate) room: Condvar,
    /// Waiters of all items wait here.
    pub(crate) complete: Condvar,
}

pub(crate) struct State<T> {
    pub(crate) oldest: u64,
    pub(crate) next: u64,
    /// By place.
    slots: Box<[Slot<T>]>,
    /// Pushers that wait at `room`.
    pub(crate) pushers: usize,
    /// The first item that anybody at `complete` waits for, or `u64::MAX`.
    pub(crate) awaited: u64,
    failures: Failures,
    pub(crate) closed: Option<CloseReason>,
    waker_ids: u64,
}

struct Slot<T> {
    record: Option<Record<T>>,
    wakers: Wakers,
}

/// An item that was pushed and is not complete.
pub(crate) struct Record<T> {
    /// Its number among the pushes to all rings.
    pub(crate) order: u64,
    pub(crate) descriptor: ItemDescriptor,
    pub(crate) payload: T,
}

impl<T> Ring<T> {
    pub(crate) fn new(first: u64, capacity: u64) -> Self {
        let slot = |_| Slot { record: None, wakers: Wakers::default() };
        Self {
            oldest: AtomicU64::new(first),
            next: AtomicU64::new(first),
            has_failed: AtomicBool::new(false),
            state: Mutex::new(State {
                oldest: first,
                next: first,
                slots: (0..capacity).map(slot).collect(),
                pushers: 0,
                awaited: u64::MAX,
                failures: Failures::default(),
                closed: None,
                waker_ids: 0,
            }),
            room: Condvar::new(),
            complete: Condvar::new(),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State<T>> {
        sync::lock(&self.state)
    }

    pub(crate) fn oldest(&self) -> u64 {
        self.oldest.load(Ordering::Acquire)
    }

    pub(crate) fn next(&self) -> u64 {
        self.next.load(Ordering::Acquire)
    }

    /// Items that are not complete. The older number is read first, so that it is never behind the other.
    pub(crate) fn depth(&self) -> u64 {
        let oldest = self.oldest();
        self.next() - oldest
    }

    /// Records the item whose words have been written.
    pub(crate) fn push(&self, state: &mut State<T>, record: Record<T>) -> u64 {
        let sequence = state.next;
        state.slot(sequence).record = Some(record);
        state.next += 1;
        self.next.store(state.next, Ordering::Release);
        sequence
    }

    /// Records that the oldest item is complete, and gives its record and wakers; `None` where there is no item.
    pub(crate) fn pop(
        &self,
        state: &mut State<T>,
        outcome: Result<(), Failure>,
    ) -> Option<(Record<T>, Wakers)> {
        let sequence = state.oldest;
        let slot = state.slot(sequence);
        let record = slot.record.take()?;
        let wakers = mem::take(&mut slot.wakers);
        if let Err(failure) = outcome {
            state.failures.keep(sequence, failure);
            self.has_failed.store(true, Ordering::Relaxed);
        }
        state.oldest += 1;
        self.oldest.store(state.oldest, Ordering::Release);
        Some((record, wakers))
    }

    /// What waiting for the item comes to, if that is known without a lock.
    pub(crate) fn glance(&self, sequence: u64) -> Option<Result<(), WaitError>> {
        (sequence < self.oldest() && !self.has_failed.load(Ordering::Relaxed)).then_some(Ok(()))
    }
}

impl<T> State<T> {
    fn slot(&mut self, sequence: u64) -> &mut Slot<T> {
        let place = crate::protocol::place_of(sequence, self.slots.len() as u64);
        &mut self.slots[place as usize]
    }

    /// Takes the record of an item that is not complete, and its wakers: the rings close.
    pub(crate) fn give_up(&mut self, sequence: u64) -> Option<(Record<T>, Wakers)> {
        let slot = self.slot(sequence);
        let record = slot.record.take()?;
        Some((record, mem::take(&mut slot.wakers)))
    }

    /// The items that are not complete, in order.
    pub(crate) fn records(&self) -> impl Iterator<Item = (u64, &Record<T>)> {
        (self.oldest..self.next).filter_map(|sequence| {
            let place = crate::protocol::place_of(sequence, self.slots.len() as u64);
            Some((sequence, self.slots[place as usize].record.as_ref()?))
        })
    }

    /// What waiting for the item comes to, if it is over.
    pub(crate) fn outcome(&self, sequence: u64) -> Option<Result<(), WaitError>> {
        if sequence >= self.next {
            return Some(Err(WaitError::NotPushed));
        }
        if sequence < self.oldest {
            return Some(self.failures.outcome(sequence));
        }
        self.closed.clone().map(|reason| Err(WaitError::Closed(reason)))
    }

    /// Has `waker` woken when the outstanding item is complete, in place of the one with the same `id`. Gives what it
    /// replaces, which is to be dropped without the lock: dropping it may run anything.
    pub(crate) fn register(
        &mut self,
        sequence: u64,
        id: &mut Option<u64>,
        waker: Waker,
    ) -> Option<Waker> {
        let id = *id.get_or_insert_with(|| {
            self.waker_ids += 1;
            self.waker_ids
        });
        self.slot(sequence).wakers.insert(id, waker)
    }

    /// Undoes [`Self::register`].
    pub(crate) fn deregister(&mut self, sequence: u64, id: u64) -> Option<Waker> {
        let is_outstanding = (self.oldest..self.next).contains(&sequence);
        if is_outstanding { self.slot(sequence).wakers.remove(id) } else { None }
    }
}

/// The failures of a ring that came last, in order.
#[derive(Default)]
struct Failures {
    kept: VecDeque<(u64, Failure)>,
    /// The latest that is forgotten, or 0.
    forgotten: u64,
}

impl Failures {
    fn keep(&mut self, sequence: u64, failure: Failure) {
        if self.kept.len() == KEPT_FAILURES
            && let Some((oldest, _)) = self.kept.pop_front()
        {
            self.forgotten = oldest;
        }
        self.kept.push_back((sequence, failure));
    }

    /// What became of a complete item.
    fn outcome(&self, sequence: u64) -> Result<(), WaitError> {
        match self.kept.binary_search_by_key(&sequence, |kept| kept.0) {
            Ok(index) => Err(WaitError::Failed(self.kept[index].1)),
            Err(_) if sequence <= self.forgotten => Err(WaitError::Forgotten),
            Err(_) => Ok(()),
        }
    }
}

/// Who waits for an item without a thread. One needs no memory.
#[derive(Default)]
pub(crate) struct Wakers {
    first: Option<(u64, Waker)>,
    more: Vec<(u64, Waker)>,
}

impl Wakers {
    fn insert(&mut self, id: u64, waker: Waker) -> Option<Waker> {
        let mut entries = self.first.iter_mut().chain(&mut self.more);
        if let Some(entry) = entries.find(|entry| entry.0 == id) {
            return Some(mem::replace(&mut entry.1, waker));
        }
        if self.first.is_none() {
            self.first = Some((id, waker));
        } else {
            self.more.push((id, waker));
        }
        None
    }

    fn remove(&mut self, id: u64) -> Option<Waker> {
        if let Some((_, waker)) = self.first.take_if(|first| first.0 == id) {
            return Some(waker);
        }
        let index = self.more.iter().position(|entry| entry.0 == id)?;
        Some(self.more.swap_remove(index).1)
    }

    /// A waker may be anybody's code: one that panics keeps no item and no other waker from what is due to them.
    pub(crate) fn wake(self) {
        for (_, waker) in self.first.into_iter().chain(self.more) {
            let _ = catch_unwind(AssertUnwindSafe(|| waker.wake()));
        }
    }
}

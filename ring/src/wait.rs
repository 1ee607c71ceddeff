//! Waiting for an item: looking, sleeping, and a future.

use std::marker::PhantomData;
use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use crate::error::WaitError;
use crate::reap::Completed;
use crate::rings::{Rings, Ticket};
use crate::sync;
use crate::words::Words;

impl<W: Words, T> Rings<W, T> {
    /// What became of an item: `None` while it is outstanding, and then what [`Self::wait`] would return at once.
    ///
    /// That an item is done takes no memory. Of each ring the last [`KEPT_FAILURES`](crate::KEPT_FAILURES) failures are
    /// kept, and can be asked for any number of times.
    pub fn status(&self, ticket: Ticket) -> Option<Result<(), WaitError>> {
        let Some(ring) = self.rings.get(ticket.ring as usize) else {
            return Some(Err(WaitError::NotPushed));
        };
        ring.glance(ticket.sequence).or_else(|| ring.lock().outcome(ticket.sequence))
    }

    /// Whether an item is complete, and recorded as such; without a lock.
    pub fn is_complete(&self, ticket: Ticket) -> bool {
        self.rings.get(ticket.ring as usize).is_some_and(|ring| ticket.sequence < ring.oldest())
    }

    /// Waits until an item is complete. For a short while the calling thread looks itself, and reaps the item's ring
    /// into `each`, which may call these rings; then it sleeps until another thread's [`reap`](Self::reap) wakes it.
    ///
    /// # Errors
    /// The item failed, or it is not complete at the deadline or when the rings are closed, or there is none.
    pub fn wait(
        &self,
        ticket: Ticket,
        deadline: Option<Instant>,
        mut each: impl FnMut(Completed<T>),
    ) -> Result<(), WaitError> {
        let Some(ring) = self.rings.get(ticket.ring as usize) else {
            return Err(WaitError::NotPushed);
        };
        for _ in 0..self.spins {
            if self.is_complete(ticket) || self.is_closed() {
                break;
            }
            if self.reap_ring(ticket.ring, &mut each) == 0 {
                sync::spin_loop();
            }
        }
        if let Some(outcome) = ring.glance(ticket.sequence) {
            return outcome;
        }
        let mut state = ring.lock();
        let mut is_late = false;
        loop {
            if let Some(outcome) = state.outcome(ticket.sequence) {
                return outcome;
            }
            if is_late {
                return Err(WaitError::DeadlinePassed);
            }
            // Set again after each wake-up: whoever notifies clears it.
            state.awaited = state.awaited.min(ticket.sequence);
            (state, is_late) = sync::wait(&ring.complete, state, deadline);
        }
    }

    /// A future of an item, which borrows these rings. [`Completion::new`] makes one that shares them.
    pub fn completion(&self, ticket: Ticket) -> Completion<&Self, W, T> {
        Completion::new(self, ticket)
    }

    /// The outcome of an item, or `waker` is registered under `id`.
    fn poll(
        &self,
        ticket: Ticket,
        id: &mut Option<u64>,
        waker: &Waker,
    ) -> Poll<Result<(), WaitError>> {
        let Some(ring) = self.rings.get(ticket.ring as usize) else {
            return Poll::Ready(Err(WaitError::NotPushed));
        };
        if let Some(outcome) = ring.glance(ticket.sequence) {
            return Poll::Ready(outcome);
        }
        // A waker may run anything when it is cloned or dropped: neither is done under the lock.
        let waker = waker.clone();
        let mut state = ring.lock();
        if let Some(outcome) = state.outcome(ticket.sequence) {
            drop(state);
            return Poll::Ready(outcome);
        }
        let replaced = state.register(ticket.sequence, id, waker);
        drop(state);
        drop(replaced);
        Poll::Pending
    }
}

/// Ready when its item is complete, with the outcome that [`Rings::wait`] would return. `R` is a reference to the rings,
/// or an `Arc` of them.
///
/// It looks at nothing itself: some thread's [`Rings::reap`] wakes it, under any runtime. Dropping it undoes the
/// registration of its waker and leaves the item as it is.
#[must_use = "a future does nothing unless it is polled"]
pub struct Completion<R: Deref<Target = Rings<W, T>>, W: Words, T> {
    rings: R,
    ticket: Ticket,
    /// Names its waker among those of the ring, once it has been pending.
    id: Option<u64>,
    of: PhantomData<fn() -> (W, T)>,
}

impl<R: Deref<Target = Rings<W, T>>, W: Words, T> Completion<R, W, T> {
    /// A future of the item.
    pub fn new(rings: R, ticket: Ticket) -> Self {
        Self { rings, ticket, id: None, of: PhantomData }
    }

    /// The item.
    pub fn ticket(&self) -> Ticket {
        self.ticket
    }
}

impl<R: Deref<Target = Rings<W, T>> + Unpin, W: Words, T> Future for Completion<R, W, T> {
    type Output = Result<(), WaitError>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        this.rings.poll(this.ticket, &mut this.id, context.waker())
    }
}

impl<R: Deref<Target = Rings<W, T>>, W: Words, T> Drop for Completion<R, W, T> {
    fn drop(&mut self) {
        let (Some(id), Some(ring)) = (self.id, self.rings.rings.get(self.ticket.ring as usize))
        else {
            return;
        };
        if ring.oldest() > self.ticket.sequence {
            return;
        }
        let mut state = ring.lock();
        let removed = state.deregister(self.ticket.sequence, id);
        drop(state);
        drop(removed);
    }
}

//! Items that were submitted, as their submitter holds them.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use kasmina_ring::WaitError;

use super::error::PersistentError;
use super::shared::{Item, Shared};
use crate::driver::launchers::manifold::SharedWords;
use crate::error::Error;

/// An item that was submitted. Dropping it changes nothing about the item. Awaiting it, or a clone, waits for it.
#[derive(Clone)]
pub struct Ticket {
    pub(super) shared: Arc<Shared>,
    pub(super) item: kasmina_ring::Ticket,
}

impl Ticket {
    /// The ring that the item is in: the group's number times two, plus one for the normal priority.
    pub fn ring(&self) -> u32 {
        self.item.ring()
    }

    /// Its number in the ring, counted from 1.
    pub fn sequence(&self) -> u64 {
        self.item.sequence()
    }

    /// Whether the item is complete.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub fn poll(&self) -> Result<bool, Error> {
        let shared = &self.shared;
        shared.rings.reap_ring(self.item.ring(), |completed| shared.finish(completed));
        match shared.rings.status(self.item) {
            None => Ok(false),
            Some(Ok(())) => Ok(true),
            Some(Err(why)) => Err(shared.wait_error(why, Duration::ZERO).into()),
        }
    }

    /// Waits until the item is complete: what it wrote is there then.
    ///
    /// # Errors
    /// The device refused the item, the executor was stopped, or its kernel failed.
    pub fn wait(&self) -> Result<(), Error> {
        self.wait_until(None)
    }

    /// As [`Self::wait`], for `limit` at most.
    ///
    /// # Errors
    /// As [`Self::wait`], or [`PersistentError::TimedOut`].
    pub fn wait_for(&self, limit: Duration) -> Result<(), Error> {
        self.wait_until(Some(limit))
    }

    fn wait_until(&self, limit: Option<Duration>) -> Result<(), Error> {
        let shared = &self.shared;
        // A limit past the end of time is none.
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit));
        loop {
            // It looks for a while and then sleeps; nobody needs to wake it, for it comes back by itself.
            let slice = Instant::now() + SLICE;
            let until = deadline.map_or(slice, |deadline| deadline.min(slice));
            let finished = |completed| shared.finish(completed);
            match shared.rings.wait(self.item, Some(until), finished) {
                Err(WaitError::DeadlinePassed) if deadline.is_none_or(|d| Instant::now() < d) => {}
                Err(why) => return Err(shared.wait_error(why, limit.unwrap_or_default()).into()),
                Ok(()) => return Ok(()),
            }
        }
    }
}

/// How long a waiter sleeps between looks of its own.
const SLICE: Duration = Duration::from_micros(30);

impl IntoFuture for Ticket {
    type Output = Result<(), Error>;
    type IntoFuture = Completion;

    fn into_future(self) -> Completion {
        let rings = RingsOf(Arc::clone(&self.shared));
        let inner = kasmina_ring::Completion::new(rings, self.item);
        Completion { inner, shared: self.shared, was_pending: false }
    }
}

/// The rings of an executor.
struct RingsOf(Arc<Shared>);

impl std::ops::Deref for RingsOf {
    type Target = kasmina_ring::Rings<SharedWords, Item>;

    fn deref(&self) -> &Self::Target {
        &self.0.rings
    }
}

/// The future of an item, for any runtime: ready when it is complete, with what [`Ticket::wait`] would answer. The
/// executor's watchdog wakes it: it looks every 50 µs, and what its timer adds. Wakers therefore neither block nor drop
/// buffers: the watchdog would wait for a kernel that it alone can end.
#[must_use = "a future does nothing unless it is polled"]
pub struct Completion {
    inner: kasmina_ring::Completion<RingsOf, SharedWords, Item>,
    shared: Arc<Shared>,
    was_pending: bool,
}

impl Future for Completion {
    type Output = Result<(), Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let outcome = Pin::new(&mut this.inner).poll(context);
        if outcome.is_pending() && !this.was_pending {
            this.was_pending = true;
            this.shared.order_a_look();
        }
        outcome.map_err(|why| this.shared.wait_error(why, Duration::ZERO).into())
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ticket({} of ring {})", self.sequence(), self.ring())
    }
}

impl From<PersistentError> for Error {
    fn from(why: PersistentError) -> Self {
        Self::Persistent(Box::new(why))
    }
}

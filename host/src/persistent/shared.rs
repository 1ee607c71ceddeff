//! What the executor, its tickets, its programs and its watchdog share.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use kasmina_ring::{CloseReason, Completed, Rings, Unfinished, WaitError, Words};
use kasmina_types::{Operation, manifold::Command};

use super::config::PersistentConfig;
use super::dropper::Dropper;
use super::error::{Fault, FaultCause, PersistentError};
use super::program::Program;
use super::statistics::Counters;
use super::table::Places;
use crate::driver::launchers::manifold::{Resident, SharedWords};
use crate::driver::residents::Residence;
use crate::error::Error;

/// What the host attaches to an item.
pub(super) struct Item {
    pub(super) program: Program,
    pub(super) submitted: Instant,
    pub(super) deadline: Duration,
}

/// Whether the kernel is there.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Presence {
    /// Not there; the next item launches it.
    Away = 0,
    /// There.
    Running = 1,
    /// Told to leave. The watchdog launches it again if there are items by then.
    Leaving = 2,
    /// Failed, or stopped for good.
    Ended = 3,
}

/// Numbers of editions. A block would have to rest while as many are written to mistake one for another.
const EDITIONS: u32 = (1 << 31) - 1;

pub(super) struct Shared {
    /// Names this executor, and those that took its place.
    pub(super) owner: u64,
    pub(super) config: PersistentConfig,
    pub(super) rings: Rings<SharedWords, Item>,
    /// Blocks of each group.
    pub(super) groups: Vec<u32>,
    resident: Mutex<Resident>,
    /// The command for the kernel.
    control: SharedWords,
    presence: AtomicU8,
    places: Mutex<Places>,
    /// Times that something was written into the table.
    editions: AtomicU32,
    pub(super) counters: Counters,
    pub(super) made: Instant,
    fault: OnceLock<Arc<Fault>>,
    pub(super) dropper: Dropper,
    pub(super) unfinished: Mutex<Vec<Unfinished<Item>>>,
    /// The shortest deadline that an item had, in nanoseconds.
    pub(super) least_deadline_ns: AtomicU64,
    orders: Mutex<Orders>,
    ordered: Condvar,
}

/// What the watchdog is told.
#[derive(Default)]
struct Orders {
    /// To end.
    quits: bool,
    /// To look at once.
    looks: bool,
}

impl Shared {
    pub(super) fn new(
        owner: u64,
        config: PersistentConfig,
        rings: Rings<SharedWords, Item>,
        groups: Vec<u32>,
        resident: Resident,
        dropper: Dropper,
    ) -> Self {
        let places = Mutex::new(Places::new(config.operations));
        let deadline_ns = nanoseconds(config.deadline);
        Self {
            owner,
            config,
            rings,
            groups,
            control: resident.control.clone(),
            resident: Mutex::new(resident),
            presence: AtomicU8::new(Presence::Away as u8),
            places,
            editions: AtomicU32::new(0),
            counters: Counters::new(),
            made: Instant::now(),
            fault: OnceLock::new(),
            dropper,
            unfinished: Mutex::default(),
            least_deadline_ns: AtomicU64::new(deadline_ns),
            orders: Mutex::default(),
            ordered: Condvar::new(),
        }
    }

    pub(super) fn presence(&self) -> Presence {
        match self.presence.load(Ordering::Acquire) {
            0 => Presence::Away,
            1 => Presence::Running,
            2 => Presence::Leaving,
            _ => Presence::Ended,
        }
    }

    /// Changes under the lock of the kernel alone, but for [`Residence::step_aside`].
    pub(super) fn set_presence(&self, _resident: &Resident, presence: Presence) {
        self.presence.store(presence as u8, Ordering::SeqCst);
    }

    pub(super) fn resident(&self) -> MutexGuard<'_, Resident> {
        self.resident.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees to it that an item which was pushed is carried out.
    ///
    /// A kernel that leaves may not have seen it. Whoever makes the kernel leave looks at the rings after it has left,
    /// under the lock; so an item that was pushed before is seen, and for one pushed after this finds it away.
    pub(super) fn wake(&self) {
        // The item before the look at who is there, as `watchdog` has them the other way round.
        fence(Ordering::SeqCst);
        if self.presence() == Presence::Running {
            return;
        }
        let resident = self.resident();
        if self.presence() == Presence::Away {
            self.launch(resident);
        } else {
            drop(resident);
        }
        self.order_a_look();
    }

    /// Launches the kernel, which is away; or has the watchdog do so once nobody else needs the whole device.
    pub(super) fn launch(&self, mut resident: MutexGuard<'_, Resident>) {
        if resident.has_to_stay_away() {
            return;
        }
        match resident.launch() {
            Ok(()) => {
                self.set_presence(&resident, Presence::Running);
                // Somebody may have come who did not see it yet.
                if resident.has_to_stay_away() {
                    self.step_aside();
                }
            }
            Err(why) => {
                self.fail(resident, FaultCause::Launch { message: why.to_string() }, &[]);
            }
        }
    }

    /// Has the watchdog look at once.
    pub(super) fn order_a_look(&self) {
        self.orders().looks = true;
        self.ordered.notify_one();
    }

    /// Has the watchdog end.
    pub(super) fn order_the_end(&self) {
        self.orders().quits = true;
        self.ordered.notify_one();
    }

    /// The watchdog waits for an order, for the interval at most. Answers whether it is to end.
    pub(super) fn await_orders(&self, interval: Duration) -> bool {
        let mut orders = self.orders();
        if !orders.quits && !orders.looks {
            let waited = self.ordered.wait_timeout(orders, interval);
            orders = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        orders.looks = false;
        orders.quits
    }

    fn orders(&self) -> MutexGuard<'_, Orders> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Items that are out.
    pub(super) fn outstanding(&self) -> u64 {
        self.rings.depths().sum()
    }

    /// Takes what is complete out of the rings.
    pub(super) fn reap(&self) -> usize {
        self.rings.reap(|completed| self.finish(completed))
    }

    /// What is to be done with an item that is complete.
    pub(super) fn finish(&self, completed: Completed<Item>) {
        let Item { program, submitted, .. } = completed.payload;
        self.counters.complete(submitted.elapsed(), completed.outcome.is_err());
        // Last: whoever waits for the buffers finds the item counted.
        program.inner.buffers.end();
        self.dropper.release(program);
    }

    /// Closes the rings when the kernel is gone: waiters wake, items that are not complete come to `unfinished`.
    pub(super) fn close(&self, reason: CloseReason) {
        let unfinished = self.rings.close(reason, |completed| self.finish(completed));
        for item in &unfinished {
            item.payload.program.inner.buffers.end();
        }
        self.unfinished.lock().unwrap_or_else(PoisonError::into_inner).extend(unfinished);
    }

    /// The kernel has stalled or failed: it is destroyed, and everybody learns of it. `items` are those that it may have
    /// been working on. Who is woken may ask for the kernel, so its lock goes before.
    pub(super) fn fail(
        &self,
        mut resident: MutexGuard<'_, Resident>,
        cause: FaultCause,
        items: &[kasmina_ring::Ticket],
    ) {
        self.set_presence(&resident, Presence::Ended);
        // First: groups that are well go on until then, and what they complete counts.
        if let Err(why) = resident.destroy() {
            tracing::error!(%why, "the failed kernel could not be ended");
        }
        let context_lost = resident.has_lost_context();
        drop(resident);
        self.reap();
        let mut at_work = Vec::new();
        self.rings.outstanding(|outstanding| {
            if items.contains(&outstanding.ticket) {
                at_work.push(super::FaultItem {
                    program: outstanding.payload.program.name().to_owned(),
                    ring: outstanding.ticket.ring(),
                    sequence: outstanding.ticket.sequence(),
                    descriptor: *outstanding.descriptor,
                });
            }
        });
        let unfinished = self.outstanding() as usize;
        let fault = Arc::new(Fault { cause, items: at_work, unfinished, context_lost });
        tracing::error!(%fault, "persistent execution");
        let fault = Arc::clone(self.fault.get_or_init(|| fault));
        self.close(CloseReason::failed((*fault).clone()));
    }

    /// Why nothing can be submitted or waited for any more.
    pub(super) fn closed_error(&self) -> PersistentError {
        match self.fault.get() {
            Some(fault) => PersistentError::Fault(Arc::clone(fault)),
            None => PersistentError::Stopped,
        }
    }

    pub(super) fn fault(&self) -> Option<Arc<Fault>> {
        self.fault.get().cloned()
    }

    /// A wait's error as the executor's own.
    pub(super) fn wait_error(&self, why: WaitError, waited: Duration) -> PersistentError {
        match why {
            WaitError::DeadlinePassed => PersistentError::TimedOut(waited),
            WaitError::Closed(_) => self.closed_error(),
            other => PersistentError::Item { reason: other.to_string() },
        }
    }

    /// Puts a program's operations into the table; answers the first one's place, and the edition of what is there now.
    pub(super) fn put_operations(
        &self,
        program: &str,
        operations: &[Operation],
    ) -> Result<(u32, u32), Error> {
        let needed = operations.len();
        if needed == 0 {
            return Ok((0, 0));
        }
        let taken = self.places().take(needed);
        let first = taken.map_err(|free| PersistentError::TableFull {
            program: program.to_owned(),
            needed,
            free,
        })?;
        let written = self.resident().write_operations(first, operations);
        if let Err(why) = written {
            self.free_operations(first as u32, needed);
            return Err(why);
        }
        let edition = self.editions.fetch_add(1, Ordering::Relaxed) % EDITIONS + 1;
        Ok((first as u32, edition))
    }

    pub(super) fn free_operations(&self, first: u32, count: usize) {
        if count > 0 {
            self.places().give(first as usize, count);
        }
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Residence for Shared {
    fn step_aside(&self) {
        let (running, leaving) = (Presence::Running as u8, Presence::Leaving as u8);
        let (order, failure) = (Ordering::SeqCst, Ordering::SeqCst);
        if self.presence.compare_exchange(running, leaving, order, failure).is_ok() {
            // Where it has left by now and been launched anew, it comes back once more.
            self.control.store(0, Command::Stop as u64);
        }
    }

    fn come_back(&self) {
        self.order_a_look();
    }
}

/// As a count that an atomic holds.
pub(super) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

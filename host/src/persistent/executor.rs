//! The executor.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kasmina_ring::{Refusal, Rings};
use kasmina_types::manifold::{GROUP_RINGS, NEEDS, Need, ring_of};
use kasmina_types::{ItemDescriptor, ItemPriority};

use super::config::PersistentConfig;
use super::error::{Fault, PersistentError};
use super::program::Program;
use super::shared::{Item, Shared};
use super::statistics::PersistentStatistics;
use super::ticket::Ticket;
use super::watchdog;
use crate::device::Device;
use crate::driver::launchers::manifold::{Resident, instance, most_blocks};
use crate::driver::recording::{self, Recording};
use crate::error::Error;

/// A resident kernel, and the rings that feed it.
///
/// The kernel is launched when the first item comes, and leaves when none has come for a while. Any number of threads may
/// submit. Dropping the executor ends the kernel after the items in work; it never waits longer than an item's deadline.
pub struct PersistentExecutor {
    device: Device,
    pub(super) shared: Arc<Shared>,
    domains: u32,
    /// Without operations, and with no place in the table.
    empty: Program,
    /// The last item of each lane.
    lanes: Mutex<Vec<Option<kasmina_ring::Ticket>>>,
    watchdog: Option<JoinHandle<()>>,
}

/// How an item is carried out.
#[derive(Clone, Debug, Default)]
pub struct ItemOptions<'a> {
    /// Items of a lane are carried out in the order in which they were submitted. Small items of different lanes have
    /// different groups, as long as there are so many.
    pub lane: u32,
    /// An item of high priority is taken before all others that wait in its group.
    pub priority: ItemPriority,
    /// Items that must be complete before this one begins, of any lane.
    pub after: &'a [&'a Ticket],
    /// How long the item may be in work; that of the configuration if none.
    pub deadline: Option<Duration>,
    /// How long a submission to a full ring waits; as long as it takes if none.
    pub patience: Option<Duration>,
}

/// An item that was submitted and not completed.
#[derive(Clone, Debug)]
pub struct UnfinishedItem {
    /// The program.
    pub program: Program,
    /// The ring.
    pub ring: u32,
    /// The number there.
    pub sequence: u64,
    /// How long ago it was submitted.
    pub waited: Duration,
}

impl PersistentExecutor {
    /// An executor on a GPU, or on the executor of the CPU. The kernel itself comes with the first item.
    ///
    /// # Errors
    /// A device without kernels, a GPU without cooperative launches, settings that mean nothing, or exhausted memory.
    pub fn new(device: &Device, config: PersistentConfig) -> Result<Self, Error> {
        config.check()?;
        if matches!(device, Device::Cpu) {
            return Err(PersistentError::NoKernels { device: device.to_string() }.into());
        }
        let domains = config.domains.bits();
        let instance = instance(domains);
        let groups = config.groups(most_blocks(device, &instance)?)?;
        let (capacity, operations) = (config.ring_capacity, config.operations);
        let resident =
            Resident::new(device, instance, &groups, capacity, operations, config.host_limit)?;
        let (lines, completions) = (resident.lines.clone(), resident.completions.clone());
        let count = groups.len() * GROUP_RINGS;
        let rings = Rings::new(lines, completions, count, capacity, &vec![1; count])
            .expect("memory of the rings' size");
        let shared = Arc::new(Shared::new(config, rings, groups, resident));
        let watched = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("kasmina-watchdog".into());
        let watchdog = thread
            .spawn(move || watchdog::watch(&watched))
            .map_err(|source| Error::Thread { source })?;
        let (device, lanes) = (device.clone(), Mutex::default());
        let empty = Program::of_operations("ping", Vec::new(), 1, Arc::default());
        Ok(Self { device, shared, domains, empty, lanes, watchdog: Some(watchdog) })
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Blocks of each group that the resident kernel has.
    pub fn groups(&self) -> &[u32] {
        &self.shared.groups
    }

    /// Runs `work` and makes a program of the launches that its calls would have made; nothing is carried out yet.
    ///
    /// `work` calls this library's operations on this executor's device, whose kernels the resident kernel has as
    /// operations: `kasmina list` shows them. What they check is checked now. It makes no buffers, and copies nothing.
    ///
    /// # Errors
    /// What `work` answers; nothing recorded; a kernel that is no operation of this executor.
    pub fn record(
        &self,
        name: &str,
        work: impl FnOnce() -> Result<(), Error>,
    ) -> Result<Program, Error> {
        self.program(name, recording::record(work)?)
    }

    /// A program of a recording.
    pub(crate) fn program(&self, name: &str, recording: Recording) -> Result<Program, Error> {
        let largest = self.shared.groups.iter().copied().max().unwrap_or(1);
        let names = || format!("{:?}", self.shared.config.domains);
        Ok(Program::new(name, recording, self.domains, names, largest)?)
    }

    /// Submits an item that carries out `program`, in lane 0.
    ///
    /// # Errors
    /// As [`Self::submit_with`].
    pub fn submit(&self, program: &Program) -> Result<Ticket, Error> {
        self.submit_with(program, &ItemOptions::default())
    }

    /// Submits an item that carries out `program`, after everything that is queued on the device's stream for its buffers.
    /// Waits while the ring is full.
    ///
    /// # Errors
    /// A stopped or failed executor; a full table of operations; more than three items to wait for that are not complete;
    /// or [`PersistentError::TimedOut`] if the ring stays full.
    pub fn submit_with(
        &self,
        program: &Program,
        options: &ItemOptions<'_>,
    ) -> Result<Ticket, Error> {
        recording::refuse("a submission")?;
        let shared = &self.shared;
        if shared.rings.close_reason().is_some() {
            return Err(shared.closed_error().into());
        }
        let first = program.place_in(shared)?;
        let touched = program.inner.buffers.begin();
        let submitted = match touched {
            true => self.device.synchronize(),
            false => Ok(()),
        }
        .and_then(|()| self.push(program, first, options));
        if submitted.is_err() {
            program.inner.buffers.end();
        }
        submitted
    }

    fn push(
        &self,
        program: &Program,
        first: u32,
        options: &ItemOptions<'_>,
    ) -> Result<Ticket, Error> {
        let shared = &self.shared;
        let ring = ring_of(self.group_of(program, options.lane), options.priority);
        let mut after = Vec::new();
        for ticket in options.after {
            if !Arc::ptr_eq(&ticket.shared, shared) {
                return Err(PersistentError::Foreign { what: "ticket" }.into());
            }
            after.push(ticket.item);
        }
        let count = program.len() as u32;
        let blocks = program.blocks();
        let descriptor = ItemDescriptor { first, count, blocks, needs: [Need::NONE; NEEDS] };
        let item = Item {
            program: program.clone(),
            submitted: Instant::now(),
            deadline: options.deadline.unwrap_or(shared.config.deadline),
        };
        let deadline = options.patience.map(|patience| Instant::now() + patience);
        // Held, so that a lane's items are pushed in the order of their submission.
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let lane = options.lane as usize % MOST_LANES;
        if lanes.len() <= lane {
            lanes.resize(lane + 1, None);
        }
        // A ring is in order by itself.
        after.extend(lanes[lane].filter(|last| last.ring() != ring));
        let pushed = shared.rings.push_after(ring, descriptor, &after, item, deadline);
        let item = match pushed {
            Ok(item) => item,
            Err(error) => {
                return Err(match error.refusal {
                    Refusal::Closed(_) => shared.closed_error(),
                    Refusal::TooManyNeeds => PersistentError::TooManyNeeds { most: NEEDS - 1 },
                    Refusal::DeadlinePassed => {
                        PersistentError::TimedOut(options.patience.unwrap_or_default())
                    }
                    _ => PersistentError::Foreign { what: "ticket" },
                }
                .into());
            }
        };
        lanes[lane] = Some(item);
        drop(lanes);
        shared.counters.submit();
        shared.wake();
        Ok(Ticket { shared: Arc::clone(shared), item })
    }

    /// Submits an item without operations, in lane 0: what comes back is a round trip to the resident kernel, and that
    /// everything submitted in the lane before is complete.
    ///
    /// # Errors
    /// As [`Self::submit_with`].
    pub fn ping(&self) -> Result<Ticket, Error> {
        recording::refuse("a submission")?;
        if self.shared.rings.close_reason().is_some() {
            return Err(self.shared.closed_error().into());
        }
        let buffers = &self.empty.inner.buffers;
        // There are none: nothing is waited for.
        buffers.begin();
        let submitted = self.push(&self.empty, 0, &ItemOptions::default());
        if submitted.is_err() {
            buffers.end();
        }
        submitted
    }

    /// An item whose descriptor nobody has checked.
    #[cfg(test)]
    pub(super) fn push_descriptor(&self, first: u32, count: u32, blocks: u32) -> Ticket {
        let program = Program::of_operations("raw", Vec::new(), 1, Arc::default());
        program.inner.buffers.begin();
        let descriptor = ItemDescriptor { first, count, blocks, needs: [Need::NONE; NEEDS] };
        let (submitted, deadline) = (Instant::now(), Duration::from_secs(10));
        let item = Item { program, submitted, deadline };
        let item = self.shared.rings.push(1, descriptor, item, None).expect("room");
        self.shared.counters.submit();
        self.shared.wake();
        Ticket { shared: Arc::clone(&self.shared), item }
    }

    /// The group for a program's items of a lane.
    fn group_of(&self, program: &Program, lane: u32) -> u32 {
        let groups = &self.shared.groups;
        let small = self.shared.config.small_groups;
        if program.blocks() == 1 { lane % small } else { groups.len() as u32 - 1 }
    }

    /// Waits until no item is out.
    ///
    /// # Errors
    /// A failed or stopped executor. Items that the device refused are no errors here.
    pub fn drain(&self) -> Result<(), Error> {
        let shared = &self.shared;
        loop {
            shared.reap();
            if shared.rings.close_reason().is_some() {
                return Err(shared.closed_error().into());
            }
            if shared.outstanding() == 0 {
                return Ok(());
            }
            std::thread::yield_now();
        }
    }

    /// Stops after the items in work, and answers those that were not begun, in the order of their submission. Everything
    /// that is asked of the executor, its tickets and its programs afterwards is answered with
    /// [`PersistentError::Stopped`]. A kernel that does not leave within the deadline is destroyed.
    pub fn stop(mut self) -> Vec<UnfinishedItem> {
        self.end();
        self.take_unfinished()
    }

    /// What made the kernel fail, if something did.
    pub fn fault(&self) -> Option<Arc<Fault>> {
        self.shared.fault()
    }

    /// An executor in the place of one that failed, with the same settings, and the items that were not complete, in the
    /// order of their submission.
    ///
    /// On the executor of the CPU the device is the same, and the programs can be submitted again. On a GPU the context
    /// is gone, with every buffer in it: the device is opened anew, buffers have to be made and programs to be recorded
    /// again. Memory of the host, [pinned](crate::driver::PinnedBuffer) or not, is as it was.
    ///
    /// # Errors
    /// A GPU that does not come back, or exhausted memory.
    pub fn recover(mut self) -> Result<(Self, Vec<UnfinishedItem>), Error> {
        self.end();
        let unfinished = self.take_unfinished();
        let device = match &self.device {
            Device::Cuda(gpu) => Device::cuda(gpu.device().info().ordinal)?,
            other => other.clone(),
        };
        Ok((Self::new(&device, self.shared.config.clone())?, unfinished))
    }

    /// What the executor has done, and how it stands.
    pub fn statistics(&self) -> PersistentStatistics {
        use std::sync::atomic::Ordering::Relaxed;
        let shared = &self.shared;
        let counters = &shared.counters;
        let elapsed = shared.made.elapsed().as_nanos() as f64;
        let resident = shared.resident();
        let idle = |busy_ns: u64| (1.0 - busy_ns as f64 / elapsed).clamp(0.0, 1.0);
        PersistentStatistics {
            submitted: counters.submitted.load(Relaxed),
            completed: counters.completed.load(Relaxed),
            failed: counters.failed.load(Relaxed),
            launches: resident.launches,
            queue_depths: shared.rings.depths().collect(),
            peak_outstanding: counters.peak_outstanding.load(Relaxed),
            idle_shares: resident.reports().map(|group| idle(group.busy_ns)).collect(),
            latencies: counters.latencies(),
        }
    }

    fn take_unfinished(&self) -> Vec<UnfinishedItem> {
        let mut unfinished = self.shared.unfinished.lock().unwrap_or_else(PoisonError::into_inner);
        let items = std::mem::take(&mut *unfinished).into_iter();
        items
            .map(|item| UnfinishedItem {
                program: item.payload.program,
                ring: item.ticket.ring(),
                sequence: item.ticket.sequence(),
                waited: item.payload.submitted.elapsed(),
            })
            .collect()
    }

    /// Has the watchdog end the kernel, and waits for it.
    fn end(&mut self) {
        let Some(watchdog) = self.watchdog.take() else { return };
        *self.shared.quits.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.wakes_watchdog.notify_all();
        if watchdog.join().is_err() {
            tracing::error!("the watchdog of a resident kernel panicked");
        }
    }
}

/// Lanes that keep an order of their own.
const MOST_LANES: usize = 1024;

impl Drop for PersistentExecutor {
    fn drop(&mut self) {
        self.end();
    }
}

impl fmt::Debug for PersistentExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PersistentExecutor")
            .field("device", &self.device)
            .field("groups", &self.shared.groups)
            .finish_non_exhaustive()
    }
}

//! The executor.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kasmina_ring::{PushError, Refusal, Rings};
use kasmina_types::manifold::{GROUP_RINGS, NEEDS, Need, ring_of};
use kasmina_types::{ItemDescriptor, ItemPriority};

use super::config::PersistentConfig;
use super::dropper::Dropper;
use super::error::{Fault, PersistentError};
use super::program::Program;
use super::shared::{Item, Shared, nanoseconds};
use super::statistics::PersistentStatistics;
use super::ticket::Ticket;
use super::watchdog;
use crate::device::Device;
use crate::driver::launchers::KernelDevice;
use crate::driver::launchers::manifold::{Resident, instance, most_blocks};
use crate::driver::recording::{self, RecordedOn, Recording};
use crate::driver::residents::Residence;
use crate::error::Error;

/// A resident kernel, and the rings that feed it.
///
/// The kernel is launched when the first item comes, and leaves when none has come for a while. Any number of threads may
/// submit. Dropping the executor ends the kernel after the items in work; an item that takes longer than its deadline, or
/// ten minutes from then on, is abandoned.
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
    /// An item of high priority is taken before those of normal priority that wait in its group, but for those of its own
    /// lane, whose order it keeps.
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
    /// What the device was given, without the needs that were met when it was submitted.
    pub descriptor: ItemDescriptor,
    /// How long ago it was submitted.
    pub waited: Duration,
}

impl PersistentExecutor {
    /// An executor on a GPU, or on the executor of the CPU. The kernel itself comes with the first item.
    ///
    /// # Errors
    /// A device without kernels, a GPU without cooperative launches, settings that mean nothing, or exhausted memory.
    pub fn new(device: &Device, config: PersistentConfig) -> Result<Self, Error> {
        static EXECUTORS: AtomicU64 = AtomicU64::new(0);
        Self::of_owner(EXECUTORS.fetch_add(1, Ordering::Relaxed), device, config, 1)
    }

    /// Its rings' items are numbered from `first` on.
    pub(super) fn of_owner(
        owner: u64,
        device: &Device,
        config: PersistentConfig,
        first: u64,
    ) -> Result<Self, Error> {
        config.check()?;
        if matches!(device, Device::Cpu) {
            let what = "persistent execution needs a GPU or the executor";
            return Err(PersistentError::NoKernels { what, device: device.to_string() }.into());
        }
        let domains = config.domains.bits();
        let instance = instance(domains);
        let groups = config.groups(most_blocks(device, &instance)?)?;
        let (capacity, operations) = (config.ring_capacity, config.operations);
        let mut resident =
            Resident::new(device, instance, &groups, capacity, operations, config.host_limit)?;
        let (lines, completions) = (resident.lines.clone(), resident.completions.clone());
        let count = groups.len() * GROUP_RINGS;
        resident.begin_at(first)?;
        let rings = Rings::new(lines, completions, count, capacity, &vec![first; count])
            .expect("memory of the rings' size");
        let dropper = Dropper::new()?;
        let shared = Arc::new(Shared::new(owner, config, rings, groups, resident, dropper));
        let residence: Arc<dyn Residence> = Arc::clone(&shared) as _;
        shared.resident().announce(Arc::downgrade(&residence));
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

    /// Whose memory its programs name.
    fn recorded_on(&self) -> Option<RecordedOn> {
        KernelDevice::of(&self.device).map(KernelDevice::recorded_on)
    }

    /// A program of a recording.
    pub(crate) fn program(&self, name: &str, recording: Recording) -> Result<Program, Error> {
        if recording.on.is_some() && recording.on != self.recorded_on() {
            return Err(PersistentError::Foreign { what: "program" }.into());
        }
        if recording.buffers.own(self.shared.owner).is_err() {
            return Err(PersistentError::Foreign { what: "buffer" }.into());
        }
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
    /// [`DriverError::ContextLost`](crate::driver::DriverError) for a program whose buffers were lost with a context; or
    /// [`PersistentError::TimedOut`] if the ring stays full.
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
        let at = program.place_in(shared, || self.recorded_on())?;
        program.inner.buffers.begin()?;
        let submitted = self.push(program, at, options);
        if submitted.is_err() {
            program.inner.buffers.end();
        }
        submitted
    }

    fn push(
        &self,
        program: &Program,
        (first, edition): (u32, u32),
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
        let descriptor = descriptor_of(program, first, edition);
        let deadline = options.deadline.unwrap_or(shared.config.deadline);
        shared.least_deadline_ns.fetch_min(nanoseconds(deadline), Ordering::Relaxed);
        let submitted = Instant::now();
        let mut item = Item { program: program.clone(), submitted, deadline };
        let lane = options.lane as usize % MOST_LANES;
        let item = loop {
            let refusal = match self.try_push(ring, descriptor, &after, lane, item) {
                Ok(item) => break item,
                Err(error) => {
                    item = error.payload;
                    error.refusal
                }
            };
            match refusal {
                Refusal::Full if options.patience.is_none_or(|most| submitted.elapsed() < most) => {
                    // Room comes with a completion that somebody takes.
                    if shared.rings.reap_ring(ring, |completed| shared.finish(completed)) == 0 {
                        std::thread::sleep(FULL_INTERVAL);
                    }
                }
                Refusal::Full => {
                    return Err(
                        PersistentError::TimedOut(options.patience.unwrap_or_default()).into()
                    );
                }
                Refusal::Closed(_) => return Err(shared.closed_error().into()),
                Refusal::TooManyNeeds => {
                    return Err(PersistentError::TooManyNeeds { most: NEEDS - 1 }.into());
                }
                _ => return Err(PersistentError::Foreign { what: "ticket" }.into()),
            }
        };
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
        self.submit(&self.empty)
    }

    /// An item whose descriptor nobody has checked, and which alone has its program.
    #[cfg(test)]
    pub(super) fn push_descriptor(
        &self,
        program: Program,
        first: u32,
        count: u32,
        blocks: u32,
    ) -> Ticket {
        program.inner.buffers.begin().expect("it has no buffers");
        let descriptor = ItemDescriptor { count, blocks, ..descriptor_of(&program, first, 0) };
        let (submitted, deadline) = (Instant::now(), Duration::from_secs(10));
        let item = Item { program, submitted, deadline };
        let item = self.shared.rings.push(1, descriptor, item, None).expect("room");
        self.shared.counters.submit();
        self.shared.wake();
        Ticket { shared: Arc::clone(&self.shared), item }
    }

    /// Pushes an item behind the last one of its lane.
    fn try_push(
        &self,
        ring: u32,
        descriptor: ItemDescriptor,
        after: &[kasmina_ring::Ticket],
        lane: usize,
        item: Item,
    ) -> Result<kasmina_ring::Ticket, PushError<Item>> {
        // Held, so that a lane's items are pushed in the order of their submission, but not while a ring is full.
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if lanes.len() <= lane {
            lanes.resize(lane + 1, None);
        }
        // A ring is in order by itself.
        let before = lanes[lane].filter(|last| last.ring() != ring);
        let after: Vec<_> = after.iter().copied().chain(before).collect();
        let item = self.shared.rings.try_push_after(ring, descriptor, &after, item)?;
        lanes[lane] = Some(item);
        Ok(item)
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
        let mut looks = 0_u32;
        loop {
            shared.reap();
            let outstanding = shared.outstanding();
            // Closed rings have nothing out.
            if shared.rings.close_reason().is_some() {
                return Err(shared.closed_error().into());
            }
            if outstanding == 0 {
                return Ok(());
            }
            looks = looks.saturating_add(1);
            if looks < DRAIN_LOOKS {
                std::hint::spin_loop();
            } else {
                std::thread::sleep(FULL_INTERVAL);
            }
        }
    }

    /// Stops after the items in work, and answers those that were not begun, in the order of their submission. Everything
    /// that is asked of the executor, its tickets and its programs afterwards is answered with
    /// [`PersistentError::Stopped`]. An item in work that takes longer than its deadline, or ten minutes from now on, is
    /// abandoned.
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
    /// A kernel that stalled is told to leave, and does where it waits for what does not come: the device is the same, its
    /// buffers are as they were, and programs can be submitted again. Where [`Fault::context_lost`] says so the device is
    /// opened anew, its buffers are gone, and programs have to be recorded again; memory of the host, [mapped] or not, is
    /// as it was. After a kernel that trapped the driver refuses every call of the process, so that a new
    /// executor needs a new process; the items come back all the same.
    ///
    /// # Errors
    /// In place of the executor: a GPU that does not come back, or exhausted memory.
    ///
    /// [`Fault::context_lost`]: super::Fault::context_lost
    /// [mapped]: crate::Buffer::mapped
    pub fn recover(mut self) -> (Result<Self, Error>, Vec<UnfinishedItem>) {
        self.end();
        let unfinished = self.take_unfinished();
        let device = match &self.device {
            Device::Cuda(gpu) if gpu.device().is_lost() => {
                Device::cuda(gpu.device().info().ordinal)
            }
            other => Ok(other.clone()),
        };
        let (owner, config) = (self.shared.owner, self.shared.config.clone());
        (device.and_then(|device| Self::of_owner(owner, &device, config, 1)), unfinished)
    }

    /// What the executor has done, and how it stands.
    pub fn statistics(&self) -> PersistentStatistics {
        use Ordering::Relaxed;
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
            beats_ns: resident.reports().map(|group| group.beat_ns).collect(),
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
                descriptor: item.descriptor,
                waited: item.payload.submitted.elapsed(),
            })
            .collect()
    }

    /// Has the watchdog end the kernel, and waits for it.
    fn end(&mut self) {
        let Some(watchdog) = self.watchdog.take() else { return };
        self.shared.order_the_end();
        // Dropped by a waker, that is by the watchdog itself, which ends when it is through.
        if watchdog.thread().id() == std::thread::current().id() {
            return;
        }
        if watchdog.join().is_err() {
            tracing::error!("the watchdog of a resident kernel panicked");
        }
    }
}

/// An item of a program whose operations begin at `first`, without needs.
fn descriptor_of(program: &Program, first: u32, edition: u32) -> ItemDescriptor {
    ItemDescriptor {
        first,
        count: program.len() as u32,
        blocks: program.blocks(),
        edition,
        reaches_host: program.inner.buffers.reaches_host(),
        needs: [Need::NONE; NEEDS],
    }
}

/// Looks of a wait for all items before it sleeps between them.
const DRAIN_LOOKS: u32 = 1000;

/// From one look to the next where a ring is full, or an item takes long.
const FULL_INTERVAL: Duration = Duration::from_micros(20);

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

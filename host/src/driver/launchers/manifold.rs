//! Launcher of the resident kernels, and the memory that they share with the host.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kasmina_device::Kernel;
use kasmina_kernels::instances::{self, ResidentInstance};
use kasmina_ring::Words;
use kasmina_simt::{Executor, LaunchError, LaunchStats};
use kasmina_types::manifold::{
    CALL_WORDS, CONTROL_WORDS, Command, GROUP_RINGS, GroupState, LINE_WORDS, REPORT_WORDS, report,
    tag_of,
};
use kasmina_types::{In, Manifold, Operation, Out};

use super::KernelDevice;
use crate::buffer::Buffer;
use crate::device::{Device, Gpu};
use crate::driver::device::ContextState;
use crate::driver::launch::{LaunchConfig, launch};
use crate::driver::residents::Residence;
use crate::driver::{DriverError, MappedBuffer, Stream, recording};
use crate::error::Error;

/// Words of an operation in the table.
const OPERATION_WORDS: usize = size_of::<Operation>() / 8;

/// How long a kernel that is given up may take to leave.
pub(crate) const ABANDON_LIMIT: Duration = Duration::from_secs(1);

/// The executor's threads poll as long as a resident kernel has no work.
pub(super) const NO_SPIN_LIMIT: Duration = Duration::MAX;

/// Words that a resident kernel and the host read and write at the same time.
#[derive(Clone)]
pub(crate) enum SharedWords {
    Mapped(MappedBuffer<u64>),
    Host(Arc<[AtomicU64]>),
}

impl SharedWords {
    pub(super) fn zeroed(device: &Device, len: usize) -> Result<Self, Error> {
        Ok(match device {
            Device::Cuda(gpu) => Self::Mapped(MappedBuffer::zeroed(gpu.device(), len)?),
            Device::Cpu | Device::Simt(_) => Self::Host(host_words(len)),
        })
    }

    pub(super) fn view(&self) -> Out<u64> {
        match self {
            Self::Mapped(words) => Out::new(words.device_address() as *mut u64, words.len()),
            Self::Host(words) => view_of(words),
        }
    }

    #[inline]
    fn word(&self, index: usize) -> &AtomicU64 {
        match self {
            Self::Mapped(words) => words.atomic(index),
            Self::Host(words) => &words[index],
        }
    }
}

impl Words for SharedWords {
    fn len(&self) -> usize {
        match self {
            Self::Mapped(words) => words.len(),
            Self::Host(words) => words.len(),
        }
    }

    #[inline]
    fn load(&self, index: usize) -> u64 {
        self.word(index).load(Ordering::Acquire)
    }

    #[inline]
    fn store(&self, index: usize, value: u64) {
        self.word(index).store(value, Ordering::Release);
    }
}

/// Words in the device's memory.
enum DeviceWords {
    Cuda(Buffer<u64>),
    Host(Arc<[AtomicU64]>),
}

impl DeviceWords {
    fn zeroed(device: &Device, len: usize) -> Result<Self, Error> {
        Ok(match device {
            Device::Cuda(_) => Self::Cuda(Buffer::zeroed(device, len)?),
            Device::Cpu | Device::Simt(_) => Self::Host(host_words(len)),
        })
    }

    fn len(&self) -> usize {
        match self {
            Self::Cuda(buffer) => buffer.len(),
            Self::Host(words) => words.len(),
        }
    }

    fn view(&mut self) -> Out<u64> {
        match self {
            Self::Cuda(buffer) => buffer.view_mut(),
            Self::Host(words) => view_of(words),
        }
    }

    /// Complete on return, and behind nothing that is queued. Nobody reads these words meanwhile.
    fn write(
        &mut self,
        start: usize,
        values: &[u64],
        beside: Option<&Stream>,
    ) -> Result<(), Error> {
        match self {
            Self::Cuda(buffer) => buffer.copy_unused_range_from_slice(start, values, beside)?,
            Self::Host(words) => {
                for (word, &value) in words[start..].iter().zip(values) {
                    word.store(value, Ordering::Relaxed);
                }
            }
        }
        Ok(())
    }
}

fn host_words(len: usize) -> Arc<[AtomicU64]> {
    (0..len).map(|_| AtomicU64::new(0)).collect()
}

fn view_of(words: &Arc<[AtomicU64]>) -> Out<u64> {
    Out::new(words.as_ptr().cast_mut().cast(), words.len())
}

/// A resident kernel: its memory, and the launch that is there or is not.
pub(crate) struct Resident {
    device: Device,
    instance: ResidentInstance,
    /// The first block of each group, and behind the last one all blocks.
    first_blocks: Vec<u32>,
    capacity: usize,
    host_limit: Duration,
    pub(crate) lines: SharedWords,
    pub(crate) completions: SharedWords,
    pub(crate) control: SharedWords,
    reports: SharedWords,
    operations: DeviceWords,
    first_block_words: DeviceWords,
    done: DeviceWords,
    calls: DeviceWords,
    barriers: DeviceWords,
    /// On a GPU, the stream for what the host writes into its memory.
    beside: Option<Stream>,
    run: Option<Run>,
    /// Nanoseconds of work of each group in launches that have ended.
    busy_before: Vec<u64>,
    /// Launches so far.
    pub(crate) launches: u64,
}

/// A launch that has not been seen to end.
pub(super) enum Run {
    Cuda(Stream),
    Simt(JoinHandle<Result<LaunchStats, LaunchError>>),
}

/// What a group last said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GroupReport {
    pub(crate) state: GroupState,
    /// Ring and number of the item that was taken last.
    pub(crate) taken: (u32, u32),
    /// Nanoseconds of work, of all launches.
    pub(crate) busy_ns: u64,
    /// The device's clock in nanoseconds when the group last said so, some time this millisecond while it looks for work.
    pub(crate) beat_ns: u64,
}

/// How the launch is.
#[derive(Debug)]
pub(crate) enum Condition {
    Away,
    Running,
    /// It has ended by itself.
    Ended,
    Failed(Error),
}

impl Resident {
    /// Not launched yet. `groups` are blocks of each group.
    pub(crate) fn new(
        device: &Device,
        instance: ResidentInstance,
        groups: &[u32],
        capacity: usize,
        operations: usize,
        host_limit: Duration,
    ) -> Result<Self, Error> {
        recording::refuse("a new executor")?;
        let mut first_blocks = vec![0];
        for blocks in groups {
            first_blocks.push(first_blocks.last().expect("the first") + blocks);
        }
        let rings = groups.len() * GROUP_RINGS;
        let shared = |len| SharedWords::zeroed(device, len);
        let words = |len| DeviceWords::zeroed(device, len);
        let first_block_words = words(first_blocks.len().div_ceil(2))?;
        let beside = match device {
            Device::Cuda(gpu) => Some(Stream::new(gpu.device())?),
            Device::Cpu | Device::Simt(_) => None,
        };
        let mut made = Self {
            device: device.clone(),
            instance,
            beside,
            busy_before: vec![0; groups.len()],
            capacity,
            host_limit,
            lines: shared(rings * capacity * LINE_WORDS)?,
            completions: shared(rings * capacity)?,
            control: shared(CONTROL_WORDS)?,
            reports: shared(groups.len() * REPORT_WORDS)?,
            operations: words(operations * OPERATION_WORDS)?,
            first_block_words,
            done: words(rings.div_ceil(2))?,
            calls: words(groups.len() * CALL_WORDS)?,
            barriers: words(groups.len().div_ceil(2))?,
            first_blocks,
            run: None,
            launches: 0,
        };
        // The zeros above are queued, and what is written beside comes after them.
        device.synchronize()?;
        let mut packed = vec![0_u64; made.first_block_words.len()];
        bytemuck::cast_slice_mut::<u64, u32>(&mut packed)[..made.first_blocks.len()]
            .copy_from_slice(&made.first_blocks);
        made.first_block_words.write(0, &packed, made.beside.as_ref())?;
        made.make_room()?;
        Ok(made)
    }

    /// Has each ring's next item be `first`. The kernel is not there.
    pub(crate) fn begin_at(&mut self, first: u64) -> Result<(), Error> {
        let done = (first as u32).wrapping_sub(1);
        let word = u64::from(done) | u64::from(done) << 32;
        self.done.write(0, &vec![word; self.done.len()], self.beside.as_ref())
    }

    /// Puts operations into the table from `start` on. No item that is out names these places.
    pub(crate) fn write_operations(
        &mut self,
        start: usize,
        operations: &[Operation],
    ) -> Result<(), Error> {
        let words = bytemuck::cast_slice(operations);
        self.operations.write(start * OPERATION_WORDS, words, self.beside.as_ref())
    }

    /// Tells all groups.
    pub(crate) fn command(&self, command: Command) {
        self.control.store(0, command as u64);
    }

    /// Lets the device see that the host is there.
    pub(crate) fn beat(&self) {
        self.control.store(1, self.control.load(1).wrapping_add(1));
    }

    /// What each group last said.
    pub(crate) fn reports(&self) -> impl Iterator<Item = GroupReport> + '_ {
        (0..self.first_blocks.len() - 1).map(|group| {
            let of = |place| self.reports.load(group * REPORT_WORDS + place);
            let taken = of(report::TAKEN);
            let state = GroupState::from_u64(of(report::STATE)).unwrap_or(GroupState::Away);
            let share = of(report::BUSY) as f64 / of(report::CYCLES).max(1) as f64;
            let busy_ns = self.busy_before[group] + (share * of(report::ELAPSED_NS) as f64) as u64;
            let beat_ns = of(report::BEAT);
            GroupReport { state, taken: (tag_of(taken), taken as u32), busy_ns, beat_ns }
        })
    }

    /// Whether there is a launch.
    pub(crate) fn is_launched(&self) -> bool {
        self.run.is_some()
    }

    /// Launches the kernel, which is not there.
    ///
    /// # Errors
    /// A grid that does not fit, or a failed call.
    pub(crate) fn launch(&mut self) -> Result<(), Error> {
        self.launch_with(Command::Run)
    }

    /// Has the device make room for the stacks of the kernel's threads, for which the driver waits for all other kernels:
    /// a kernel that is resident by the time of the first item would not end.
    fn make_room(&mut self) -> Result<(), Error> {
        let Device::Cuda(gpu) = self.device.clone() else { return Ok(()) };
        if gpu.kernel(self.instance.kernel.name())?.function.attributes().local_bytes == 0 {
            return Ok(());
        }
        gpu.device().without_residents(|| {
            self.launch_with(Command::Stop)?;
            // It carries out nothing.
            self.launches -= 1;
            let Some(Run::Cuda(stream)) = self.run.take() else { unreachable!("launched") };
            Ok(stream.synchronize()?)
        })
    }

    /// Leaves what is shared to a kernel that does not end.
    fn leave_memory(&self) {
        let shared = [&self.lines, &self.completions, &self.control, &self.reports];
        shared.into_iter().cloned().for_each(std::mem::forget);
    }

    fn launch_with(&mut self, command: Command) -> Result<(), Error> {
        assert!(self.run.is_none(), "the kernel is there");
        self.command(command);
        let groups = self.first_blocks.len() - 1;
        self.busy_before = self.reports().map(|report| report.busy_ns).collect();
        for group in 0..groups {
            let of = |place: usize| group * REPORT_WORDS + place;
            self.reports.store(of(report::STATE), GroupState::Away as u64);
            self.reports.store(of(report::TAKEN), 0);
            self.reports.store(of(report::BUSY), 0);
        }
        let beside = self.beside.as_ref();
        self.calls.write(0, &vec![0; groups * CALL_WORDS], beside)?;
        self.barriers.write(0, &vec![0; groups.div_ceil(2)], beside)?;
        let operations = self.operations.view();
        let first_blocks = self.first_block_words.view();
        let params = Manifold {
            lines: self.lines.view(),
            completions: self.completions.view(),
            control: self.control.view(),
            reports: self.reports.view(),
            operations: operations.cast(),
            first_blocks: In::new(first_blocks.as_ptr().cast_const().cast(), groups + 1),
            done: self.done.view().cast(),
            calls: self.calls.view(),
            barriers: self.barriers.view().cast(),
            capacity_mask: self.capacity as u32 - 1,
            groups: groups as u32,
            host_limit_ns: u64::try_from(self.host_limit.as_nanos()).unwrap_or(u64::MAX),
        };
        let grid = self.first_blocks[groups];
        let kernel = self.instance.kernel;
        self.run = Some(match &self.device {
            Device::Cuda(gpu) => {
                let stream = Stream::new(gpu.device())?;
                let function = gpu.kernel(kernel.name())?.function;
                let config = LaunchConfig {
                    cooperative: true,
                    dynamic_shared_bytes: self.instance.dynamic_shared_bytes,
                    ..LaunchConfig::linear(grid, kernel.bounds().block_threads)
                };
                // SAFETY: arrays have the lengths of their contract, made above; calls and barriers are zero; the grid is
                // resident as a whole, or refused. The memory lives as long as `self`, whose drop waits for the kernel.
                unsafe { launch(&function, config, &stream, &params) }?;
                Run::Cuda(stream)
            }
            Device::Cpu | Device::Simt(_) => {
                let executor = match &self.device {
                    Device::Simt(executor) => executor.clone(),
                    _ => Executor::new(),
                };
                let executor = executor.alone().spin_limit(NO_SPIN_LIMIT);
                let shared = self.instance.dynamic_shared_bytes;
                // SAFETY: as above; the threads are waited for before the memory goes.
                let run = move || unsafe { kernel.run(&executor, grid, shared, params) };
                let thread = std::thread::Builder::new().name("kasmina-resident".into());
                Run::Simt(thread.spawn(run).map_err(|source| Error::Thread { source })?)
            }
        });
        self.launches += 1;
        Ok(())
    }

    /// How the launch is; one that has ended is forgotten, one whose context failed is there until it is destroyed.
    pub(crate) fn condition(&mut self) -> Condition {
        let ended = match &self.run {
            None => return Condition::Away,
            Some(Run::Cuda(stream)) => match stream.is_idle() {
                Ok(false) => return Condition::Running,
                Ok(true) => Ok(()),
                Err(why) => return Condition::Failed(Error::Driver(why)),
            },
            Some(Run::Simt(thread)) if !thread.is_finished() => return Condition::Running,
            Some(Run::Simt(_)) => {
                let Some(Run::Simt(thread)) = self.run.take() else { unreachable!("seen above") };
                match thread.join() {
                    Ok(Ok(_)) => Ok(()),
                    Ok(Err(why)) => Err(Error::Executor(why)),
                    Err(_) => {
                        let source = std::io::Error::other("the kernel's thread panicked");
                        Err(Error::Thread { source })
                    }
                }
            }
        };
        self.run = None;
        match ended {
            Ok(()) => Condition::Ended,
            Err(why) => Condition::Failed(why),
        }
    }

    /// Has `residence` told when others need the whole device.
    pub(crate) fn announce(&self, residence: Weak<dyn Residence>) {
        if let Device::Cuda(gpu) = &self.device {
            gpu.device().add_resident(residence);
        }
    }

    /// Whether the kernel has to stay away for now, as others need the whole device.
    pub(crate) fn has_to_stay_away(&self) -> bool {
        matches!(&self.device, Device::Cuda(gpu) if gpu.device().residents_are_away())
    }

    /// Whether the context is lost, and with it what is in the device's memory.
    pub(crate) fn has_lost_context(&self) -> bool {
        matches!(&self.device, Device::Cuda(gpu) if gpu.device().is_lost())
    }

    /// Ends the launch: has the kernel leave, whose waits all look for that. A GPU whose kernel does not, or has failed,
    /// loses its context.
    ///
    /// # Errors
    /// A kernel that does not leave; its memory is left to it.
    pub(crate) fn destroy(&mut self) -> Result<(), Error> {
        let run = match (self.run.take(), &self.device) {
            // Nothing is there, but the context may have failed.
            (None, Device::Cuda(gpu)) if gpu.stream().is_idle().is_err() => {
                Some(Run::Cuda(gpu.stream().clone()))
            }
            (run, _) => run,
        };
        let Some(run) = run else { return Ok(()) };
        let begun = Instant::now();
        let in_time = || {
            // Again and again: who has it step aside may be late with a weaker command.
            self.control.store(0, Command::Abandon as u64);
            std::thread::sleep(LEAVING_INTERVAL);
            begun.elapsed() < ABANDON_LIMIT
        };
        match run {
            Run::Cuda(stream) => loop {
                match stream.is_idle() {
                    Ok(true) => return Ok(()),
                    Ok(false) if in_time() => {}
                    // Lost to another kernel, which does not end, while this one runs: as if it did not either.
                    Err(DriverError::ContextLost { .. }) if !stream.device().has_failed() => {
                        while in_time() {}
                        self.leave_memory();
                        let device = stream.device().info().name.clone();
                        return Err(DriverError::Unending { device }.into());
                    }
                    Ok(false) => {
                        stream.device().lose(ContextState::Occupied);
                        self.leave_memory();
                        let device = stream.device().info().name.clone();
                        return Err(DriverError::Unending { device }.into());
                    }
                    Err(_) => {
                        stream.device().lose(ContextState::Failed);
                        return Ok(());
                    }
                }
            },
            Run::Simt(thread) => {
                while !thread.is_finished() && in_time() {}
                self.command(Command::Release);
                drop(thread.join());
                Ok(())
            }
        }
    }
}

/// From one look at a kernel that is to leave to the next.
const LEAVING_INTERVAL: Duration = Duration::from_micros(50);

impl Drop for Resident {
    fn drop(&mut self) {
        if self.run.is_some() {
            // The memory must outlive the kernel.
            drop(self.destroy());
        }
    }
}

/// Blocks of the kernel that the device holds at once, one a multiprocessor.
pub(crate) fn most_blocks(device: &Device, instance: &ResidentInstance) -> Result<u32, Error> {
    match KernelDevice::of(device) {
        Some(KernelDevice::Cuda(gpu)) => blocks_of(gpu, instance),
        _ => Ok(SIMT_BLOCKS),
    }
}

/// Blocks that the executor keeps: each has threads, and each thread a stack.
const SIMT_BLOCKS: u32 = 4;

fn blocks_of(gpu: &Gpu, instance: &ResidentInstance) -> Result<u32, Error> {
    let kernel: &Kernel<Manifold> = instance.kernel;
    let (name, threads) = (kernel.name(), kernel.bounds().block_threads);
    let fit = gpu.occupancy(name, threads, instance.dynamic_shared_bytes, 1)?;
    if !gpu.device().info().cooperative_launch {
        let device = gpu.device().info().name.clone();
        return Err(DriverError::Unsupported { device, feature: "cooperative launch" }.into());
    }
    Ok(fit.min(gpu.device().info().sm_count))
}

/// The resident kernel for a set of domains.
pub(crate) fn instance(domains: u32) -> ResidentInstance {
    instances::manifold(domains)
}

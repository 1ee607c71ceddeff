//! A profiler of named scopes: how long the parts of a program take on their device, how many bytes a second they
//! move, and a trace of it all for Perfetto.
//!
//! ```
//! use kasmina::{Device, profile::Profiler};
//!
//! # fn main() -> Result<(), kasmina::Error> {
//! let profiler = Profiler::new(&Device::auto())?;
//! for _ in 0..3 {
//!     let _step = profiler.scope("step");
//!     profiler.measure("sum", 4096, || (0..1024_u64).sum::<u64>());
//!     profiler.count("values", 1024);
//! }
//! let report = profiler.report()?;
//! assert_eq!(report.scope("sum").map(|sum| sum.count), Some(3));
//! println!("{report}");
//! # Ok(())
//! # }
//! ```
//!
//! On a GPU a scope's time is the device's, between two events on the device's stream, which are recorded where the
//! scope begins and ends; on other devices it is the host's. The events are made when the profiler is, and nothing
//! waits for them before [`Profiler::report`] or [`Profiler::write_trace`]: a step that is profiled allocates nothing
//! and synchronises nothing. On an idle GPU the time between two events contains the launch.
//!
//! Memory is bounded: the newest records are kept, and how many gave way is counted. Totals are of all scopes.

mod error;
mod record;
mod report;
mod state;
pub(crate) mod stopwatch;
#[cfg(test)]
mod tests;
mod timeline;
mod trace;

use std::fmt;
use std::marker::PhantomData;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

pub use error::ProfileError;
pub use report::{Comparison, CounterTotal, Report, ScopeTimes};

use crate::device::Device;
use crate::driver::Nvtx;
use crate::error::Error;
use record::Record;
use state::State;
use timeline::{GpuEvents, Pair, Timeline};

/// The layer's forward pass, as its scopes are called.
pub const FORWARD: &str = "blend_forward";

/// The same pass, when a layer stack runs it again for the backward pass.
pub const RECOMPUTE: &str = "blend_forward recomputed";

/// The telemetry's launch of its own, which the strategies `mean` and `max` have.
pub const TELEMETRY_REDUCE: &str = "telemetry_reduce";

/// A layer's telemetry copied to the host.
pub const TELEMETRY_READ: &str = "telemetry read";

/// Its backward pass.
pub const BACKWARD: &str = "blend_backward";

/// The clipping of its parameters' gradients.
pub const CLIP: &str = "gradient_clip";

/// A command's change of the seeds' states.
pub const STATE_UPDATE: &str = "state_update";

/// The end of an epoch: schedules, decisions, and the [`STATE_UPDATE`] that follows if a seed passes on.
pub const END_EPOCH: &str = "end_epoch";

/// The counter of the values and units that clipping changed.
pub const CLIP_ACTIVATIONS: &str = "clip_activations";

/// The forward pass without telemetry. Where both were measured, reports have their difference as [`TELEMETRY_OVERHEAD`].
pub const FORWARD_WITHOUT_TELEMETRY: &str = "blend_forward without telemetry";

/// What telemetry costs: [`FORWARD`] against [`FORWARD_WITHOUT_TELEMETRY`].
pub const TELEMETRY_OVERHEAD: &str = "telemetry overhead";

/// How much a profiler keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Options {
    /// Scopes whose times are kept one by one, for percentiles and traces; older ones give way.
    pub records: usize,
    /// Scopes whose device times may be outstanding. One that finds no events left is not timed, and counted.
    pub event_pairs: usize,
    /// Whether scopes are NVTX ranges as well, where the library is found.
    pub nvtx: bool,
}

impl Default for Options {
    /// 65536 records, 1024 pairs of events, NVTX.
    fn default() -> Self {
        Self { records: 1 << 16, event_pairs: 1 << 10, nvtx: true }
    }
}

/// Measures scopes, or does nothing if it is [disabled](Self::disabled). Clones are the same profiler.
#[derive(Clone, Default)]
pub struct Profiler {
    inner: Option<Arc<Inner>>,
    /// Index among the labels.
    label: Option<usize>,
}

struct Inner {
    device: Device,
    /// What times count from.
    start: Instant,
    nvtx: Option<&'static Nvtx>,
    state: Mutex<State>,
}

/// A scope in progress; it ends where this is dropped. Scopes of a thread end in the reverse order of their beginning.
#[must_use = "a scope ends where it is dropped"]
pub struct Scope {
    open: Option<Open>,
    /// Depth and NVTX ranges are the thread's own.
    _not_send: PhantomData<*const ()>,
}

struct Open {
    inner: Arc<Inner>,
    record: Record,
    pair: Option<Pair>,
    started: Instant,
}

impl Profiler {
    /// A profiler of what runs on `device`, with the default [`Options`].
    ///
    /// # Errors
    /// Events that the driver refuses, or a capture in progress.
    pub fn new(device: &Device) -> Result<Self, Error> {
        Self::with_options(device, Options::default())
    }

    /// As [`Self::new`], with a size.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_options(device: &Device, options: Options) -> Result<Self, Error> {
        let start = Instant::now();
        let timeline = match device {
            Device::Cuda(gpu) => {
                let events = GpuEvents::new(gpu, Timeline::events_for(options.event_pairs))?;
                Some(Timeline::new(Box::new(events), options.event_pairs, start)?)
            }
            Device::Cpu | Device::Simt(_) => None,
        };
        Ok(Self::assemble(device, options, start, timeline))
    }

    /// A profiler that measures nothing. Its scopes cost a branch each.
    pub const fn disabled() -> Self {
        Self { inner: None, label: None }
    }

    /// Whether it measures.
    pub fn is_enabled(&self) -> bool {
        self.inner.is_some()
    }

    /// The same profiler, whose scopes and counters are those of a part of the program, such as a layer: reports keep
    /// them apart from others of their names, events of traces have the label, and NVTX ranges begin with it.
    pub fn labelled(&self, label: &str) -> Self {
        let inner = self.inner.clone();
        let label = inner.as_ref().map(|inner| inner.lock().label(label));
        Self { inner, label }
    }

    /// Whether its times are those of work on `device`: it was made with that handle of the GPU, whose stream it marks,
    /// or measures nothing.
    pub fn measures(&self, device: &Device) -> bool {
        let Some(inner) = &self.inner else { return true };
        match (&inner.device, device) {
            (Device::Cuda(own), Device::Cuda(other)) => Arc::ptr_eq(own, other),
            (own, other) => own.name() == other.name(),
        }
    }

    /// Begins a scope.
    pub fn scope(&self, name: &'static str) -> Scope {
        let open = self.inner.as_ref().map(|inner| Inner::open(inner, self.label, name));
        Scope { open, _not_send: PhantomData }
    }

    /// Runs `op` in a scope of its own. `bytes` is what it reads and writes, 0 where nobody asks.
    pub fn measure<R>(&self, name: &'static str, bytes: u64, op: impl FnOnce() -> R) -> R {
        let _scope = self.scope(name).moving(bytes);
        op()
    }

    /// Adds to a counter, such as gradients clipped.
    pub fn count(&self, name: &'static str, amount: u64) {
        if let Some(inner) = &self.inner {
            let now_us = inner.since_start_us(Instant::now());
            inner.lock().count(self.label, name, amount, now_us);
        }
    }

    /// Lets reports say how much longer the scopes called `with` take than those of the same label called `without`.
    pub fn compare(&self, name: &'static str, with: &'static str, without: &'static str) {
        if let Some(inner) = &self.inner {
            inner.lock().compare(name, with, without);
        }
    }

    /// Waits for the device and gives the times of all scopes that ended. A disabled profiler's report is empty.
    ///
    /// # Errors
    /// A capture in progress, or what the device or its events ran into since the last report; scopes measured
    /// before that are in the next one.
    pub fn report(&self) -> Result<Report, Error> {
        let Some(inner) = &self.inner else { return Ok(Report::default()) };
        let mut state = inner.lock();
        state.settle_all()?;
        Ok(state.report(inner.device.name(), inner.device.to_string()))
    }

    /// Waits for the device and writes the scopes that are kept as a Chrome trace, which <https://ui.perfetto.dev>
    /// opens. The file is written whole or not at all. A disabled profiler's trace is empty.
    ///
    /// A thread has a lane of the host, where a scope is as long as the host was in it, and on a GPU a lane of the
    /// device. The two are aligned once, when the profiler is made, to the few microseconds that an event takes to
    /// come back.
    ///
    /// # Errors
    /// As [`Self::report`], or a file that cannot be written.
    pub fn write_trace(&self, path: &Path) -> Result<(), ProfileError> {
        let json = match &self.inner {
            None => trace::empty(),
            Some(inner) => {
                let mut state = inner.lock();
                state.settle_all()?;
                trace::of(&state, inner.device.name(), &inner.device.to_string())
            }
        };
        trace::write(path, &json)
    }

    /// Forgets all times and counts; scopes in progress stay.
    ///
    /// # Errors
    /// As [`Self::report`].
    pub fn reset(&self) -> Result<(), Error> {
        let Some(inner) = &self.inner else { return Ok(()) };
        let mut state = inner.lock();
        state.settle_all()?;
        state.clear();
        Ok(())
    }

    fn assemble(
        device: &Device,
        options: Options,
        start: Instant,
        timeline: Option<Timeline>,
    ) -> Self {
        let nvtx = options.nvtx.then(Nvtx::find).and_then(Result::ok);
        let mut state = State::new(options.records, timeline);
        state.compare(TELEMETRY_OVERHEAD, FORWARD, FORWARD_WITHOUT_TELEMETRY);
        let inner = Inner { device: device.clone(), start, nvtx, state: Mutex::new(state) };
        Self { inner: Some(Arc::new(inner)), label: None }
    }
}

impl Scope {
    /// Says how many bytes the scope reads and writes, for its GB/s.
    pub fn moving(mut self, bytes: u64) -> Self {
        if let Some(open) = &mut self.open {
            open.record.bytes = bytes;
        }
        self
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        if let Some(open) = self.open.take() {
            open.close();
        }
    }
}

impl Inner {
    fn open(this: &Arc<Self>, label: Option<usize>, name: &'static str) -> Open {
        let mut state = this.lock();
        let (record, pair) = state.open(label, name);
        if let Some(nvtx) = this.nvtx {
            nvtx.push(state.names[record.name].id.title());
        }
        drop(state);
        // Last, so that it is not the profiler that is measured.
        Open { inner: Arc::clone(this), record, pair, started: Instant::now() }
    }

    fn since_start_us(&self, moment: Instant) -> f64 {
        moment.duration_since(self.start).as_secs_f64() * 1e6
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn close(self) {
        let Self { inner, mut record, pair, started } = self;
        record.host_us = started.elapsed().as_secs_f64() * 1e6;
        record.host_start_us = inner.since_start_us(started);
        inner.lock().close(record, pair);
        if let Some(nvtx) = inner.nvtx {
            nvtx.pop();
        }
    }
}

impl fmt::Debug for Profiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Profiler").field("enabled", &self.is_enabled()).finish_non_exhaustive()
    }
}

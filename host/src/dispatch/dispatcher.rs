//! The dispatcher, and its rule.

use std::fmt;
use std::sync::Arc;

use kasmina_types::tiles::manifold::MANIFOLD_OPERATIONS;
use serde::Serialize;

use super::costs::DispatchCosts;
use crate::device::Device;
use crate::driver::recording::{self, RecordedLaunch, Recording};
use crate::driver::{Graph, GraphExec};
use crate::error::Error;
use crate::persistent::{PersistentConfig, PersistentError, PersistentExecutor, Program, Ticket};

/// How sequences are to reach the device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Dispatch {
    /// By the rule: whatever takes least time by what was measured on the device.
    #[default]
    Auto,
    /// By a launch for each operation.
    Launches,
    /// As a CUDA graph.
    Graph,
    /// As an item of a resident kernel.
    Persistent,
}

/// How a sequence reached the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// By the calls themselves: launches on a GPU or under the executor, the reference on the CPU.
    Launches,
    /// As a CUDA graph.
    Graph,
    /// As an item of a resident kernel.
    Persistent,
}

/// What was chosen for a sequence, and why.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Choice {
    /// The way.
    pub way: Way,
    /// Operations of the sequence; none where they were not counted.
    pub operations: Option<usize>,
    /// What each way was expected to take, in microseconds, where the rule chose.
    pub expected_us: Vec<(Way, f64)>,
    /// Why, in a sentence.
    pub reason: String,
}

/// Runs sequences of operations one way or another.
pub struct Dispatcher {
    device: Device,
    dispatch: Dispatch,
    executor: Option<Arc<PersistentExecutor>>,
    choice: Option<Choice>,
    last: Option<Last>,
}

/// The last sequence, ready to be run again.
struct Last {
    launches: Vec<RecordedLaunch>,
    ready: Ready,
}

enum Ready {
    Graph(GraphExec),
    Item(Program, Option<Ticket>),
}

impl Dispatcher {
    /// A dispatcher for a device.
    ///
    /// # Errors
    /// [`PersistentError::NoKernels`] for graphs or items on a device that has none.
    pub fn new(device: &Device, dispatch: Dispatch) -> Result<Self, Error> {
        match (dispatch, device) {
            (Dispatch::Graph, Device::Cpu | Device::Simt(_))
            | (Dispatch::Persistent, Device::Cpu) => {
                return Err(PersistentError::NoKernels { device: device.to_string() }.into());
            }
            _ => {}
        }
        let device = device.clone();
        Ok(Self { device, dispatch, executor: None, choice: None, last: None })
    }

    /// The same dispatcher with an executor of the caller's for items; else it makes one of default settings when it
    /// first needs it.
    #[must_use]
    pub fn with_executor(self, executor: Arc<PersistentExecutor>) -> Self {
        Self { executor: Some(executor), ..self }
    }

    /// Queues the operations that `work` calls. Where it is not launched as it is called, `work` is called to record it,
    /// and makes no buffers, copies nothing and waits for nothing.
    ///
    /// # Errors
    /// What `work` answers, what cannot be recorded or captured, or a failed call.
    pub fn run(&mut self, mut work: impl FnMut() -> Result<(), Error>) -> Result<(), Error> {
        let by_calls = match self.dispatch {
            Dispatch::Launches => true,
            Dispatch::Auto => !matches!(self.device, Device::Cuda(_)),
            Dispatch::Graph | Dispatch::Persistent => false,
        };
        if by_calls {
            if self.choice.is_none() {
                let reason = match self.dispatch {
                    Dispatch::Launches => "asked for".to_owned(),
                    _ => format!("{} has nothing else", self.device),
                };
                self.choose(Way::Launches, None, Vec::new(), reason);
            }
            return work();
        }
        let recording = recording::record(&mut work)?;
        if let Some(last) = &mut self.last
            && same(&last.launches, &recording.launches)
        {
            return replay(&self.device, self.executor.as_deref(), &mut last.ready);
        }
        let way = self.way_for(&recording)?;
        match way {
            Way::Launches => {
                self.last = None;
                work()
            }
            Way::Graph => self.run_graph(recording, work),
            Way::Persistent => self.run_item(recording),
        }
    }

    /// Waits until everything that was queued is done.
    ///
    /// # Errors
    /// What it ran into.
    pub fn synchronize(&self) -> Result<(), Error> {
        if let Some(Last { ready: Ready::Item(_, Some(ticket)), .. }) = &self.last {
            ticket.wait()?;
        }
        self.device.synchronize()
    }

    /// What was chosen for the last sequence.
    pub fn choice(&self) -> Option<&Choice> {
        self.choice.as_ref()
    }

    fn choose(
        &mut self,
        way: Way,
        operations: Option<usize>,
        expected_us: Vec<(Way, f64)>,
        reason: String,
    ) {
        self.choice = Some(Choice { way, operations, expected_us, reason });
    }

    /// The way for a sequence that is not the last one.
    fn way_for(&mut self, recording: &Recording) -> Result<Way, Error> {
        let count = recording.launches.len();
        let way = match self.dispatch {
            Dispatch::Graph => Way::Graph,
            Dispatch::Persistent => Way::Persistent,
            Dispatch::Launches => Way::Launches,
            Dispatch::Auto => return self.by_rule(&recording.launches),
        };
        self.choose(way, Some(count), Vec::new(), "asked for".to_owned());
        Ok(way)
    }

    /// The way that is expected to take least: each costs something once and something for each operation. Items are
    /// for sequences of small operations, since a resident kernel has a share of the device alone.
    fn by_rule(&mut self, launches: &[RecordedLaunch]) -> Result<Way, Error> {
        let Some(costs) = DispatchCosts::of(&self.device)? else { return Ok(Way::Launches) };
        let more = launches.len().saturating_sub(1) as f64;
        let mut expected = vec![
            (Way::Launches, costs.launch_us + more * costs.launch_more_us),
            (Way::Graph, costs.graph_us + more * costs.graph_more_us),
        ];
        let lacking = launches.iter().find(|launch| !is_operation(launch));
        let large = launches.iter().find(|launch| launch.grid > LARGEST_ITEM_GRID);
        let mut without = String::new();
        if let (Some(once), Some(each)) = (costs.item_us, costs.item_more_us) {
            match (lacking, large) {
                (Some(launch), _) => {
                    without = format!("; `{}` is no operation of a resident kernel", launch.kernel);
                }
                (_, Some(launch)) => {
                    let RecordedLaunch { kernel, grid, .. } = launch;
                    without = format!("; {grid} blocks of `{kernel}` are worth the whole device");
                }
                _ => expected.push((Way::Persistent, once + more * each)),
            }
        }
        let best = expected.iter().copied().min_by(|a, b| a.1.total_cmp(&b.1));
        let (way, _) = best.expect("two ways at least");
        let reason =
            format!("expected to take least, by what was measured on {}{without}", self.device);
        self.choose(way, Some(launches.len()), expected, reason);
        Ok(way)
    }

    fn run_graph(
        &mut self,
        recording: Recording,
        work: impl FnMut() -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Device::Cuda(gpu) = &self.device else {
            return Err(PersistentError::NoKernels { device: self.device.to_string() }.into());
        };
        let mut work = work;
        let captured = Graph::capture::<Error>(gpu.stream(), |_| work())?;
        let updated = match self.last.take() {
            // One whose kernels are the same takes over the new parameters.
            Some(Last { ready: Ready::Graph(mut exec), .. }) => {
                exec.update(&captured).is_ok().then_some(exec)
            }
            _ => None,
        };
        let exec = match updated {
            Some(exec) => exec,
            None => captured.instantiate()?,
        };
        exec.launch(gpu.stream())?;
        self.last = Some(Last { launches: recording.launches, ready: Ready::Graph(exec) });
        Ok(())
    }

    fn run_item(&mut self, recording: Recording) -> Result<(), Error> {
        let executor = match &self.executor {
            Some(executor) => Arc::clone(executor),
            None => Arc::new(PersistentExecutor::new(&self.device, PersistentConfig::default())?),
        };
        self.executor = Some(Arc::clone(&executor));
        let launches = recording.launches.clone();
        let program = executor.program("dispatched", recording)?;
        let ticket = Some(executor.submit(&program)?);
        self.last = Some(Last { launches, ready: Ready::Item(program, ticket) });
        Ok(())
    }
}

/// Blocks of a launch up to which its operation is an item's: a quarter of a large device's multiprocessors.
const LARGEST_ITEM_GRID: u32 = 32;

fn is_operation(launch: &RecordedLaunch) -> bool {
    MANIFOLD_OPERATIONS.iter().any(|operation| operation.entry == launch.kernel)
}

fn same(a: &[RecordedLaunch], b: &[RecordedLaunch]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.is_same(b))
}

fn replay(
    device: &Device,
    executor: Option<&PersistentExecutor>,
    ready: &mut Ready,
) -> Result<(), Error> {
    match (ready, device, executor) {
        (Ready::Graph(exec), Device::Cuda(gpu), _) => Ok(exec.launch(gpu.stream())?),
        (Ready::Item(program, ticket), _, Some(executor)) => {
            *ticket = Some(executor.submit(program)?);
            Ok(())
        }
        _ => unreachable!("graphs are a GPU's, and items an executor's"),
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Launches => "launches",
            Self::Graph => "graph",
            Self::Persistent => "persistent",
        })
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.way)?;
        if let Some(operations) = self.operations {
            write!(f, " for {operations} operations")?;
        }
        write!(f, ": {}", self.reason)?;
        for (index, (way, us)) in self.expected_us.iter().enumerate() {
            write!(f, "{} {way} {us:.1} µs", if index == 0 { ";" } else { "," })?;
        }
        Ok(())
    }
}

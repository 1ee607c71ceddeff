//! The dispatcher, and its rule.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use kasmina_types::tiles::manifold::MANIFOLD_OPERATIONS;
use serde::Serialize;

use super::costs::DispatchCosts;
use crate::device::Device;
use crate::driver::recording::{self, RecordedLaunch, Recording};
use crate::driver::{Graph, GraphExec};
use crate::error::Error;
use crate::persistent::{
    FaultCause, PersistentConfig, PersistentError, PersistentExecutor, Program, Ticket,
};

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
    /// Whether the executor is the caller's.
    is_given: bool,
    choice: Option<Choice>,
    last: Option<Last>,
    /// The last item, which what follows another way comes after.
    ticket: Option<Ticket>,
    /// Whether somebody was told that the last item failed.
    told: AtomicBool,
    /// Why nothing is to be an item any more, if so.
    without_items: Option<String>,
    instantiations: u64,
}

/// The last sequence, ready to be run again.
struct Last {
    /// None where the sequence could not be recorded: then it counts as changed each time.
    launches: Option<Vec<RecordedLaunch>>,
    ready: Ready,
}

enum Ready {
    Graph(GraphExec),
    Item(Program),
}

impl Dispatcher {
    /// A dispatcher for a device.
    ///
    /// # Errors
    /// [`PersistentError::NoKernels`] for graphs or items on a device that has none.
    pub fn new(device: &Device, dispatch: Dispatch) -> Result<Self, Error> {
        let what = match (dispatch, device) {
            (Dispatch::Graph, Device::Cpu | Device::Simt(_)) => Some(GRAPHS),
            (Dispatch::Persistent, Device::Cpu) => {
                Some("persistent execution needs a GPU or the executor")
            }
            _ => None,
        };
        if let Some(what) = what {
            return Err(PersistentError::NoKernels { what, device: device.to_string() }.into());
        }
        Ok(Self {
            device: device.clone(),
            dispatch,
            executor: None,
            is_given: false,
            choice: None,
            last: None,
            ticket: None,
            told: AtomicBool::new(false),
            without_items: None,
            instantiations: 0,
        })
    }

    /// The same dispatcher with an executor of the caller's for items; else it makes one of default settings when it
    /// first needs it.
    #[must_use]
    pub fn with_executor(self, executor: Arc<PersistentExecutor>) -> Self {
        Self { executor: Some(executor), is_given: true, ..self }
    }

    /// Queues the operations that `work` calls. Where it is not launched as it is called, `work` is called to record it,
    /// and makes no buffers, copies nothing and waits for nothing; it is called a second time to capture a graph.
    ///
    /// By [`Dispatch::Auto`] what cannot be recorded is launched, and what cannot be an item reaches the device by the
    /// cheapest of the other ways; launches if another executor has its buffers. On a GPU `work` then is called twice, to
    /// record it and to launch it: the first call may end with an error inside it, where it makes what the second one uses.
    ///
    /// A resident kernel that failed is left to itself, and another one takes the next items; one of
    /// [`Self::with_executor`] only by [`Dispatch::Auto`]. Where an item of this dispatcher was not complete, that is
    /// answered once, by [`Self::synchronize`] or by the next run, which then queues nothing.
    ///
    /// # Errors
    /// What `work` answers, what cannot be recorded or captured, a failed call, or an earlier item that failed.
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
        self.leave_failed()?;
        let recording = match recording::record(&mut work) {
            Ok(recording) => recording,
            Err(why) => return self.run_unrecorded(why, work),
        };
        if let Some(Last { launches: Some(launches), .. }) = &self.last
            && same(launches, &recording.launches)
        {
            let is_item = matches!(&self.last, Some(Last { ready: Ready::Item(_), .. }));
            return match self.replay() {
                Err(why) if is_item && self.is_for_others(&why) => {
                    self.run_without_item(&why, recording.launches, work)
                }
                done => done,
            };
        }
        match self.way_for(&recording)? {
            Way::Launches => self.run_launches(work),
            Way::Graph => self.run_graph(Some(recording.launches), work),
            Way::Persistent => {
                let launches = recording.launches.clone();
                match self.run_item(recording) {
                    Err(why) if self.is_for_others(&why) => {
                        self.run_without_item(&why, launches, work)
                    }
                    done => done,
                }
            }
        }
    }

    /// Runs a sequence that cannot be recorded, for the reason that is given.
    fn run_unrecorded(
        &mut self,
        why: Error,
        work: impl FnMut() -> Result<(), Error>,
    ) -> Result<(), Error> {
        match (self.dispatch, &why) {
            // What it refuses a graph may take.
            (Dispatch::Graph, Error::Recording { .. } | Error::NotResident { .. }) => {
                self.choose(Way::Graph, None, Vec::new(), "asked for".to_owned());
                self.run_graph(None, work)
            }
            (
                Dispatch::Auto,
                Error::Recording { .. } | Error::NotResident { .. } | Error::Capturing { .. },
            ) => {
                let reason = format!("it cannot be recorded: {why}");
                self.choose(Way::Launches, None, Vec::new(), reason);
                self.run_launches(work)
            }
            _ => Err(why),
        }
    }

    /// Whether what cannot be an item, for the reason that is given, is to go another way.
    fn is_for_others(&self, why: &Error) -> bool {
        let refused = |why: &PersistentError| {
            matches!(
                why,
                PersistentError::Blocks { .. }
                    | PersistentError::Operation { .. }
                    | PersistentError::TableFull { .. }
                    | PersistentError::Foreign { .. }
                    | PersistentError::Fault(_)
            )
        };
        let is_refused = matches!(why, Error::Persistent(why) if refused(why));
        self.dispatch == Dispatch::Auto && (is_refused || self.without_items.is_some())
    }

    /// Runs a sequence that cannot be an item, for the reason that is given, by the cheapest of the other ways.
    fn run_without_item(
        &mut self,
        why: &Error,
        launches: Vec<RecordedLaunch>,
        work: impl FnMut() -> Result<(), Error>,
    ) -> Result<(), Error> {
        // Its kernel may have failed since the run began.
        self.leave_failed()?;
        let expected = self.choice.as_ref().map_or(&[][..], |choice| &choice.expected_us);
        let others = expected.iter().copied().filter(|expected| expected.0 != Way::Persistent);
        let expected: Vec<_> = others.collect();
        // Launches wait for the items of another executor that uses their buffers; replays of a graph do not.
        let is_foreign = matches!(
            why,
            Error::Persistent(why) if matches!(**why, PersistentError::Foreign { .. })
        );
        let way = if is_foreign { Way::Launches } else { least(&expected) };
        self.choose(way, Some(launches.len()), expected, format!("no item: {why}"));
        match way {
            Way::Graph => self.run_graph(Some(launches), work),
            Way::Launches | Way::Persistent => self.run_launches(work),
        }
    }

    /// Leaves an executor whose kernel failed, if the dispatcher may take another.
    ///
    /// # Errors
    /// What became of the last item, if it is not complete and nobody was told.
    fn leave_failed(&mut self) -> Result<(), Error> {
        let Some(fault) = self.executor.as_ref().and_then(|executor| executor.fault()) else {
            return Ok(());
        };
        if self.is_given && self.dispatch == Dispatch::Persistent {
            return Ok(());
        }
        if let FaultCause::Launch { .. } = fault.cause {
            self.without_items = Some(fault.to_string());
        }
        // Programs before the executor, whose buffers may become another's with them.
        self.last.take_if(|last| matches!(last.ready, Ready::Item(_)));
        let ticket = self.ticket.take();
        (self.executor, self.is_given) = (None, false);
        let was_told = std::mem::take(self.told.get_mut());
        match ticket {
            Some(ticket) if !was_told => ticket.wait(),
            _ => Ok(()),
        }
    }

    /// Waits until everything that was queued is done.
    ///
    /// # Errors
    /// What it ran into.
    pub fn synchronize(&self) -> Result<(), Error> {
        if let Some(ticket) = &self.ticket
            && let Err(why) = ticket.wait()
        {
            self.told.store(true, Ordering::Relaxed);
            return Err(why);
        }
        self.device.synchronize()
    }

    /// What was chosen for the last sequence.
    pub fn choice(&self) -> Option<&Choice> {
        self.choice.as_ref()
    }

    /// Graphs that were instantiated so far. One that has the same shape as the last one takes its place by an update.
    pub fn instantiations(&self) -> u64 {
        self.instantiations
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

    fn by_rule(&mut self, launches: &[RecordedLaunch]) -> Result<Way, Error> {
        let Some(mut costs) = DispatchCosts::of(&self.device)? else { return Ok(Way::Launches) };
        if self.without_items.is_some() {
            (costs.item_us, costs.item_more_us) = (None, None);
        }
        let (way, expected, mut without) = cheapest(&costs, launches);
        if let Some(why) = &self.without_items {
            without = format!("; no items: {why}");
        }
        let reason =
            format!("expected to take least, by what was measured on {}{without}", self.device);
        self.choose(way, Some(launches.len()), expected, reason);
        Ok(way)
    }

    fn run_launches(&mut self, mut work: impl FnMut() -> Result<(), Error>) -> Result<(), Error> {
        self.last = None;
        // Each launch waits for the items that use its buffers.
        work()
    }

    fn run_graph(
        &mut self,
        launches: Option<Vec<RecordedLaunch>>,
        mut work: impl FnMut() -> Result<(), Error>,
    ) -> Result<(), Error> {
        let Device::Cuda(gpu) = &self.device else {
            let device = self.device.to_string();
            return Err(PersistentError::NoKernels { what: GRAPHS, device }.into());
        };
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
            None => {
                self.instantiations += 1;
                captured.instantiate()?
            }
        };
        self.last = Some(Last { launches, ready: Ready::Graph(exec) });
        self.replay()
    }

    fn run_item(&mut self, recording: Recording) -> Result<(), Error> {
        let executor = match &self.executor {
            Some(executor) => Arc::clone(executor),
            None => match PersistentExecutor::new(&self.device, PersistentConfig::default()) {
                Ok(made) => Arc::clone(self.executor.insert(Arc::new(made))),
                Err(why) => {
                    self.without_items = Some(why.to_string());
                    return Err(why);
                }
            },
        };
        let launches = recording.launches.clone();
        let program = executor.program("dispatched", recording)?;
        if !matches!(&self.last, Some(Last { ready: Ready::Item(_), .. })) {
            // Replays of a graph say nothing to the buffers.
            self.device.synchronize()?;
        }
        self.last = Some(Last { launches: Some(launches), ready: Ready::Item(program) });
        self.replay()
    }

    /// Queues the last sequence.
    fn replay(&mut self) -> Result<(), Error> {
        match (&self.last, &self.device, &self.executor) {
            (Some(Last { ready: Ready::Graph(exec), .. }), Device::Cuda(gpu), _) => {
                if let Some(ticket) = self.ticket.take() {
                    ticket.wait()?;
                }
                Ok(exec.launch(gpu.stream())?)
            }
            (Some(Last { ready: Ready::Item(program), .. }), _, Some(executor)) => {
                self.ticket = Some(executor.submit(program)?);
                *self.told.get_mut() = false;
                Ok(())
            }
            _ => unreachable!("graphs are a GPU's, and items an executor's"),
        }
    }
}

/// The way that is expected to take least, what each way is expected to take in microseconds, and why items are none of
/// them, if so: each way costs something once and something for each operation. Items are for sequences of small
/// operations, since a resident kernel has a share of the device alone.
pub(super) fn cheapest(
    costs: &DispatchCosts,
    launches: &[RecordedLaunch],
) -> (Way, Vec<(Way, f64)>, String) {
    let more = launches.len().saturating_sub(1) as f64;
    let mut expected = vec![
        (Way::Launches, costs.launch_us + more * costs.launch_more_us),
        (Way::Graph, costs.graph_us + more * costs.graph_more_us),
    ];
    let mut without = String::new();
    if let (Some(once), Some(each)) = (costs.item_us, costs.item_more_us) {
        let lacking = launches.iter().find(|launch| !is_operation(launch));
        let large = launches.iter().find(|launch| launch.grid > LARGEST_ITEM_GRID);
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
    (least(&expected), expected, without)
}

/// The way that is expected to take least; launches, where nothing is expected.
fn least(expected: &[(Way, f64)]) -> Way {
    expected.iter().min_by(|a, b| a.1.total_cmp(&b.1)).map_or(Way::Launches, |best| best.0)
}

/// What a graph needs, as an error says it.
const GRAPHS: &str = "a graph needs a GPU";

/// Blocks of a launch up to which its operation is an item's: a quarter of a large device's multiprocessors.
const LARGEST_ITEM_GRID: u32 = 32;

fn is_operation(launch: &RecordedLaunch) -> bool {
    MANIFOLD_OPERATIONS.iter().any(|operation| operation.entry == launch.kernel)
}

fn same(a: &[RecordedLaunch], b: &[RecordedLaunch]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.is_same(b))
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
            write!(f, " for {operations} operation{}", if operations == 1 { "" } else { "s" })?;
        }
        write!(f, ": {}", self.reason)?;
        for (index, (way, us)) in self.expected_us.iter().enumerate() {
            write!(f, "{} {way} {us:.1} µs", if index == 0 { ";" } else { "," })?;
        }
        Ok(())
    }
}

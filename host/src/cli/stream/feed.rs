//! Batches through the layer, each when it is due.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::input::{Batches, InputError};
use super::live::Figures;
use crate::buffer::{Buffer, host};
use crate::device::Device;
use crate::dispatch::{Choice, Dispatch, Dispatcher};
use crate::error::Error;
use crate::kasmina::{
    BlendForward, BlendOptions, LayerElement, LayerState, SeedStates, TelemetryBuffers, Variant,
};
use crate::persistent::{Domains, PersistentConfig, PersistentExecutor};

/// How a stream is fed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    /// Rows of a batch.
    pub(super) batch: usize,
    /// Batches a second; none: as fast as it goes.
    pub(super) rate_hz: Option<f64>,
    /// Batches at most.
    pub(super) batches: Option<u64>,
    pub(super) dispatch: Dispatch,
    /// Whether outputs are copied out and kept.
    pub(super) keeps: bool,
}

/// What came of a stream.
pub(super) struct Fed {
    pub(super) batches: u64,
    pub(super) rows: u64,
    /// Batches that were due before the one before them was done.
    pub(super) misses: u64,
    /// From the first batch's arrival to the last one's end.
    pub(super) took: Duration,
    /// The longest latency, exactly.
    pub(super) longest: Duration,
    /// The outputs' bytes, if they were kept.
    pub(super) output: Vec<u8>,
    pub(super) choice: Option<Choice>,
}

/// Why a stream broke off.
pub(super) enum Broken {
    Input(InputError),
    Run(Error),
}

impl From<Error> for Broken {
    fn from(why: Error) -> Self {
        Self::Run(why)
    }
}

/// Passes before the first batch: the first use of a kernel waits for the driver, and of a sequence for what replays it.
const WARM_UP: usize = 2;

/// A resident kernel stays for so many of a slow stream's batches without one.
const IDLE_BATCHES: f64 = 10.0;

/// The longest time from one batch to the next, in seconds, that a resident kernel is kept for.
const LONGEST_IDLE_S: f64 = 60.0;

/// Feeds all batches, one after the other.
///
/// A batch is due by the schedule that the rate makes from the first batch on, but not before its last row has come;
/// without a rate, when the one before it is done. Its latency counts from then, whether or not it could begin.
pub(super) fn feed<T: LayerElement>(
    device: &Device,
    states: SeedStates,
    batches: &mut dyn Batches<T>,
    plan: Plan,
    figures: &Figures,
) -> Result<Fed, Broken> {
    let mut stream = Stream::<T>::new(device, states, plan)?;
    let mut rows = host::zeros::<T>(stream.x.len())?;
    for _ in 0..WARM_UP {
        stream.pass(&rows)?;
    }
    let mut fed = Fed {
        batches: 0,
        rows: 0,
        misses: 0,
        took: Duration::ZERO,
        longest: Duration::ZERO,
        output: Vec::new(),
        choice: None,
    };
    let mut begun = None;
    let mut done = Instant::now();
    while plan.batches.is_none_or(|most| fed.batches < most) {
        let Some(arrived) = batches.next(&mut rows).map_err(Broken::Input)? else { break };
        let values = arrived.rows * stream.columns;
        // Rows that a last batch lacks: the pass is that of every other batch.
        rows[values..].fill(T::zeroed());
        let now = Instant::now();
        let begun = *begun.get_or_insert(now);
        let due = match plan.rate_hz {
            None => now,
            Some(rate) => {
                let scheduled = begun + Duration::from_secs_f64(fed.batches as f64 / rate);
                arrived.at.map_or(scheduled, |at| at.max(scheduled))
            }
        };
        if fed.batches > 0 && due < done {
            fed.misses += 1;
        }
        wait_until(due);
        stream.pass(&rows)?;
        let output = match plan.keeps {
            true => stream.y.range_to_vec(0, values)?,
            false => Vec::new(),
        };
        done = Instant::now();
        let latency = done - due;
        figures.count(latency);
        fed.longest = fed.longest.max(latency);
        fed.batches += 1;
        fed.rows += arrived.rows as u64;
        fed.took = done - begun;
        let bytes = bytemuck::cast_slice::<T, u8>(&output);
        let requested_bytes = fed.output.len() + bytes.len();
        fed.output.try_reserve(bytes.len()).map_err(|_| Error::OutOfMemory { requested_bytes })?;
        fed.output.extend_from_slice(bytes);
    }
    fed.choice = stream.dispatcher.choice().cloned();
    Ok(fed)
}

/// A layer's pass over a batch, and how it reaches the device.
struct Stream<T: LayerElement> {
    forward: BlendForward<T>,
    state: LayerState,
    telemetry: TelemetryBuffers,
    x: Buffer<T>,
    y: Buffer<T>,
    columns: usize,
    dispatcher: Dispatcher,
}

impl<T: LayerElement> Stream<T> {
    fn new(device: &Device, states: SeedStates, plan: Plan) -> Result<Self, Error> {
        let (seeds, chunk) = (states.num_seeds(), states.chunk_size);
        let variant = match plan.dispatch {
            // That which resident kernels have.
            Dispatch::Persistent => Variant::Plain,
            _ => Variant::Auto,
        };
        let options = BlendOptions { variant, ..BlendOptions::default() };
        let forward = BlendForward::with_options(device, plan.batch, seeds, chunk, options)?;
        let columns = seeds * chunk;
        let mut dispatcher = Dispatcher::new(device, plan.dispatch)?;
        if plan.dispatch == Dispatch::Persistent {
            let idle = plan.rate_hz.map_or(0.0, |rate| IDLE_BATCHES / rate).min(LONGEST_IDLE_S);
            let default = PersistentConfig::default();
            let idle_limit = default.idle_limit.max(Duration::from_secs_f64(idle));
            let config = PersistentConfig { domains: Domains::Layer, idle_limit, ..default };
            let executor = Arc::new(PersistentExecutor::new(device, config)?);
            dispatcher = dispatcher.with_executor(executor);
        }
        Ok(Self {
            forward,
            state: LayerState::new(device, states)?,
            telemetry: TelemetryBuffers::new(device, seeds)?,
            x: Buffer::zeroed(device, plan.batch * columns)?,
            y: Buffer::zeroed(device, plan.batch * columns)?,
            columns,
            dispatcher,
        })
    }

    /// Copies a batch in, and waits until its output and telemetry are there.
    fn pass(&mut self, rows: &[T]) -> Result<(), Error> {
        let Self { forward, state, telemetry, x, y, dispatcher, .. } = self;
        x.copy_from_slice(rows)?;
        dispatcher.run(|| forward.run(state, x, y, telemetry))?;
        dispatcher.synchronize()
    }
}

/// What the system's sleep may be late by: this much is waited for awake.
const AWAKE: Duration = Duration::from_micros(200);

fn wait_until(due: Instant) {
    let left = due.saturating_duration_since(Instant::now());
    if left > AWAKE {
        thread::sleep(left - AWAKE);
    }
    while Instant::now() < due {
        std::hint::spin_loop();
    }
}

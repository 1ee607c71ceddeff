//! What each way costs on the device at hand.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use serde::Serialize;

use crate::buffer::Buffer;
use crate::device::{Device, Gpu};
use crate::driver::{Graph, GraphExec};
use crate::error::Error;
use crate::information::axpby;
use crate::persistent::{PersistentConfig, PersistentExecutor};

/// What a sequence of small operations costs, in microseconds of the host's clock, from the call until the device is done.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct DispatchCosts {
    /// A single launch and the wait for it.
    pub launch_us: f64,
    /// Each launch more.
    pub launch_more_us: f64,
    /// A graph of one launch.
    pub graph_us: f64,
    /// Each launch more.
    pub graph_more_us: f64,
    /// An item of one operation; none where no resident kernel can be.
    pub item_us: Option<f64>,
    /// Each operation more.
    pub item_more_us: Option<f64>,
}

/// Operations of the longer of the two sequences that are timed.
const MANY: usize = 33;
/// Values of each operation.
const VALUES: usize = 1024;
const WARM_UP: usize = 5;
const SAMPLES: usize = 31;

impl DispatchCosts {
    /// Those of a GPU, measured when they are first asked for: a few milliseconds, and what its kernels take to load.
    ///
    /// # Errors
    /// A failed call.
    pub fn of(device: &Device) -> Result<Option<Self>, Error> {
        static KNOWN: Mutex<BTreeMap<u32, DispatchCosts>> = Mutex::new(BTreeMap::new());
        let Device::Cuda(gpu) = device else { return Ok(None) };
        let ordinal = gpu.device().info().ordinal;
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(costs) = known.get(&ordinal) {
            return Ok(Some(*costs));
        }
        let costs = measure(device, gpu)?;
        tracing::debug!(?costs, "measured what dispatch costs");
        known.insert(ordinal, costs);
        Ok(Some(costs))
    }
}

fn measure(device: &Device, gpu: &Gpu) -> Result<DispatchCosts, Error> {
    let mut a = Buffer::<f32>::zeroed(device, VALUES)?;
    let mut b = Buffer::<f32>::zeroed(device, VALUES)?;
    let mut sequence = |operations: usize| -> Result<(), Error> {
        for operation in 0..operations {
            let (from, to) = if operation % 2 == 0 { (&a, &mut b) } else { (&b, &mut a) };
            axpby(device, 0.5, from, 0.5, from, to)?;
        }
        Ok(())
    };
    let launched = |sequence: &mut dyn FnMut(usize) -> Result<(), Error>, operations| {
        median_us(|| {
            sequence(operations)?;
            device.synchronize()
        })
    };
    let (one, many) = (launched(&mut sequence, 1)?, launched(&mut sequence, MANY)?);
    let replayed = |graph: &GraphExec| {
        median_us(|| {
            graph.launch(gpu.stream())?;
            device.synchronize()
        })
    };
    let graphs = [1, MANY].map(|operations| -> Result<f64, Error> {
        let graph = Graph::capture::<Error>(gpu.stream(), |_| sequence(operations))?;
        replayed(&graph.instantiate()?)
    });
    let [graph_one, graph_many] = graphs;
    let (graph_one, graph_many) = (graph_one?, graph_many?);
    let items = match gpu.device().info().cooperative_launch {
        true => items(device, sequence)
            .inspect_err(|why| tracing::warn!(%why, "no resident kernel: dispatch goes without"))
            .ok(),
        false => None,
    };
    let more = |one: f64, many: f64| ((many - one) / (MANY - 1) as f64).max(0.0);
    Ok(DispatchCosts {
        launch_us: one,
        launch_more_us: more(one, many),
        graph_us: graph_one,
        graph_more_us: more(graph_one, graph_many),
        item_us: items.map(|(one, _)| one),
        item_more_us: items.map(|(one, many)| more(one, many)),
    })
}

/// An item of one operation, and of many.
fn items(
    device: &Device,
    mut sequence: impl FnMut(usize) -> Result<(), Error>,
) -> Result<(f64, f64), Error> {
    let executor = PersistentExecutor::new(device, PersistentConfig::default())?;
    let mut item = |operations| -> Result<f64, Error> {
        let program = executor.record("dispatch costs", || sequence(operations))?;
        median_us(|| executor.submit(&program)?.wait())
    };
    Ok((item(1)?, item(MANY)?))
}

fn median_us(mut run: impl FnMut() -> Result<(), Error>) -> Result<f64, Error> {
    let mut samples = Vec::with_capacity(SAMPLES);
    for sample in 0..WARM_UP + SAMPLES {
        let begun = Instant::now();
        run()?;
        if sample >= WARM_UP {
            samples.push(begun.elapsed().as_secs_f64() * 1e6);
        }
    }
    samples.sort_by(f64::total_cmp);
    Ok(samples[SAMPLES / 2])
}

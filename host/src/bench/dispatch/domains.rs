//! Three resident kernels at once, of the layer, of active inference and of linear algebra, an operation of each.

use super::belief::{STATES, inference};
use super::{Group, Subject, calls_of, executor, launches_of, same, way};
use crate::bench::{BenchError, data};
use crate::buffer::Buffer;
use crate::device::Device;
use crate::error::Error;
use crate::information::active_inference::ActiveInference;
use crate::kasmina::sample_states::third_grafting;
use crate::kasmina::{BlendForward, BlendOptions, LayerState, TelemetryBuffers, Variant};
use crate::linear::{Gemv, GemvShape};
use crate::persistent::{Domains, Ticket};

pub(super) const CASE: &str = "three domains";

/// Rows, seeds and columns of a seed of the layer.
const LAYER: [usize; 3] = [4, 8, 16];

pub(super) fn group(device: &Device) -> Result<Group<'_>, BenchError> {
    let mut group = Group::default();
    let mut called = Operations::new(device)?;
    called.run()?;
    let expected = called.results()?;
    let subject = |way, launches, executors, call| Subject {
        device: device.name(),
        case: CASE,
        way,
        operations: 3,
        launches,
        executors,
        call,
    };
    let call: Box<dyn FnMut() -> Result<(), Error>> = Box::new(move || {
        called.run()?;
        device.synchronize()
    });
    group.subjects.push(subject(calls_of(device), launches_of(device, 3), Vec::new(), call));

    // All of them before the first item: the driver may wait for all kernels when it loads another.
    let mut executors = Vec::new();
    for domains in [Domains::Layer, Domains::Information, Domains::Linear] {
        match executor(device, domains)? {
            Ok(executor) => executors.push(executor),
            Err(reason) => {
                group.lacks(CASE, way::ITEMS, reason);
                return Ok(group);
            }
        }
    }
    let mut recorded = Operations::new(device)?;
    let programs = [
        executors[0].record("layer", || recorded.layer())?,
        executors[1].record("belief step", || recorded.inference.step())?,
        executors[2].record("product", || recorded.product())?,
    ];
    let kernels = executors.clone();
    let mut call: Box<dyn FnMut() -> Result<(), Error>> = Box::new(move || {
        let mut tickets: [Option<Ticket>; 3] = [None, None, None];
        for ((kernel, program), ticket) in kernels.iter().zip(&programs).zip(&mut tickets) {
            *ticket = Some(kernel.submit(program)?);
        }
        tickets.iter().flatten().try_for_each(Ticket::wait)
    });
    call()?;
    for ((what, got), (_, expected)) in recorded.results()?.iter().zip(&expected) {
        same(what, got, expected)?;
    }
    group.subjects.push(subject(way::ITEMS, 0, executors, call));
    Ok(group)
}

/// An operation of each domain, with what it needs.
struct Operations {
    forward: BlendForward<f32>,
    state: LayerState,
    x: Buffer<f32>,
    y: Buffer<f32>,
    telemetry: TelemetryBuffers,
    inference: ActiveInference,
    gemv: Gemv<f32>,
    matrix: Buffer<f32>,
    vector: Buffer<f32>,
    product: Buffer<f32>,
}

impl Operations {
    fn new(device: &Device) -> Result<Self, Error> {
        let [rows, seeds, chunk] = LAYER;
        let options = BlendOptions { variant: Variant::Plain, ..BlendOptions::default() };
        let values = |seed, len| Buffer::from_slice(device, &data::draw::<f32>(seed, len));
        Ok(Self {
            forward: BlendForward::with_options(device, rows, seeds, chunk, options)?,
            state: LayerState::new(device, third_grafting(seeds, chunk)?)?,
            x: values(1, rows * seeds * chunk)?,
            y: Buffer::zeroed(device, rows * seeds * chunk)?,
            telemetry: TelemetryBuffers::new(device, seeds)?,
            inference: inference(device)?,
            gemv: Gemv::new(device, GemvShape::new(STATES, STATES))?,
            matrix: values(2, STATES * STATES)?,
            vector: values(3, STATES)?,
            product: Buffer::zeroed(device, STATES)?,
        })
    }

    fn layer(&mut self) -> Result<(), Error> {
        self.forward.run(&mut self.state, &self.x, &mut self.y, &mut self.telemetry)
    }

    fn product(&mut self) -> Result<(), Error> {
        self.gemv.run(1.0, &self.matrix, &self.vector, 0.0, &mut self.product)
    }

    fn run(&mut self) -> Result<(), Error> {
        self.layer()?;
        self.inference.step()?;
        self.product()
    }

    /// What the operations gave, as words.
    fn results(&self) -> Result<[(&'static str, Vec<u32>); 3], Error> {
        let words = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect();
        let (mean, _) = self.inference.belief_arrays()?;
        let halves = |value: &f64| [value.to_bits() as u32, (value.to_bits() >> 32) as u32];
        Ok([
            ("the layer's output", words(&self.y.to_vec()?)),
            ("the belief", mean.iter().flat_map(halves).collect()),
            ("the product", words(&self.product.to_vec()?)),
        ])
    }
}

//! Persistent execution against the same calls as launches, and its own properties.

mod mapped;
mod needs;
mod order;
mod stream;

use std::time::{Duration, Instant};

use kasmina::information::active_inference::{ActiveInference, InferenceOptions};
use kasmina::information::axpby;
use kasmina::kasmina::KasminaLayer;
use kasmina::linear::{Gemv, GemvShape};
use kasmina::persistent::{Domains, PersistentConfig, PersistentExecutor, Program};
use kasmina::types::BlueprintType;
use kasmina::types::tiles::manifold::operation;
use kasmina::{Buffer, Device, Error};

pub use mapped::check_mapped;
pub use needs::check_needs;
pub use order::{check_figures, check_priorities};
pub use stream::{Streamed, check_stream};

use crate::Numbers;
use crate::information::active_inference::{Case, model};
use crate::kasmina::layer::{blueprint, graft};
use crate::linear::gemv::{self, Value};

/// An executor with small rings, that gives up late.
pub fn executor(device: &Device, domains: Domains) -> PersistentExecutor {
    executor_with(device, domains, PersistentConfig::default().small_groups)
}

/// As [`executor`], with a group of several blocks, and several of one: the executor of the CPU has four blocks in all.
fn executor_of_groups(device: &Device) -> PersistentExecutor {
    let small_groups = if matches!(device, Device::Cuda(_)) { 3 } else { 2 };
    executor_with(device, Domains::All, small_groups)
}

fn executor_with(device: &Device, domains: Domains, small_groups: u32) -> PersistentExecutor {
    let deadline = Duration::from_secs(60);
    let config =
        PersistentConfig { domains, deadline, small_groups, share: 1.0, ..Default::default() };
    PersistentExecutor::new(device, config).expect("an executor")
}

/// A number on the device.
fn number(device: &Device, value: f64) -> Buffer<f64> {
    Buffer::from_slice(device, &[value]).expect("memory")
}

/// Values that several blocks work on.
const WIDE: usize = 10_000;

/// So many times the same number.
fn wide(device: &Device, value: f64) -> Buffer<f64> {
    Buffer::from_slice(device, &[value; WIDE]).expect("memory")
}

fn values(len: usize, seed: u64) -> Vec<f32> {
    let mut numbers = Numbers::new(seed);
    (0..len).map(|_| numbers.in_range(-1.0, 1.0)).collect()
}

fn run(executor: &PersistentExecutor, work: impl FnOnce() -> Result<(), Error>) -> Program {
    let program = executor.record("a test's", work).expect("a program");
    executor.submit(&program).and_then(|ticket| ticket.wait()).expect("an item");
    program
}

/// Elements of any number: the bits of the launch.
#[track_caller]
pub fn check_axpby(device: &Device, domains: Domains, lengths: &[usize]) {
    let executor = executor(device, domains);
    for &len in lengths {
        let x = Buffer::from_slice(device, &values(len, 1)).expect("memory");
        let y = Buffer::from_slice(device, &values(len, 2)).expect("memory");
        let mut made = [0, 1].map(|_| Buffer::zeroed(device, len).expect("memory"));
        let [item, launch] = &mut made;
        axpby(device, 1.5, &x, -0.25, &y, launch).expect("a launch");
        run(&executor, || axpby(device, 1.5, &x, -0.25, &y, item));
        assert_same(&made[0], &made[1], "axpby of f32");

        let wide = |seed| values(len, seed).iter().map(|&v| f64::from(v) / 3.0).collect::<Vec<_>>();
        let x = Buffer::from_slice(device, &wide(3)).expect("memory");
        let y = Buffer::from_slice(device, &wide(4)).expect("memory");
        let mut made = [0, 1].map(|_| Buffer::zeroed(device, len).expect("memory"));
        let [item, launch] = &mut made;
        axpby(device, 1.5, &x, -0.25, &y, launch).expect("a launch");
        run(&executor, || axpby(device, 1.5, &x, -0.25, &y, item));
        assert_same(&made[0], &made[1], "axpby of f64");
    }
}

/// Matrices of rows that are multiples of an access: the bits of the launch.
#[track_caller]
pub fn check_gemv(device: &Device, domains: Domains, shapes: &[(usize, usize)]) {
    let executor = executor(device, domains);
    for &shape in shapes {
        check_product::<f32>(device, &executor, shape, operation::GEMV_F32);
        // As many accesses a row as in f32, so that the plan is the same: rows that warps share are no item.
        let shape = (shape.0, shape.1.div_ceil(2));
        check_product::<f64>(device, &executor, shape, operation::GEMV_F64);
    }
}

#[track_caller]
fn check_product<T: Value>(
    device: &Device,
    executor: &PersistentExecutor,
    (rows, columns): (usize, usize),
    code: u32,
) {
    let mut numbers = Numbers::new(1);
    let mut draw = |len| gemv::values::<T>(len, &mut numbers);
    let of = |values: &[T]| Buffer::from_slice(device, values).expect("memory");
    let mut gemv = Gemv::<T>::new(device, GemvShape::new(rows, columns)).expect("a plan");
    let (a, x, start) = (of(&draw(rows * columns)), of(&draw(columns)), draw(rows));
    let (mut item, mut launch) = (of(&start), of(&start));
    gemv.run(0.5, &a, &x, 2.0, &mut launch).expect("a launch");
    let program = run(executor, || gemv.run(0.5, &a, &x, 2.0, &mut item));
    assert_eq!(program.codes().collect::<Vec<_>>(), [code]);
    assert_same(&item, &launch, &format!("gemv of {:?}, {rows} by {columns}", T::DTYPE));
}

/// Belief steps of a model that one block works on: the bits of the launches.
#[track_caller]
pub fn check_belief_steps(device: &Device, domains: Domains, states: &[usize]) {
    let executor = executor(device, domains);
    for &states in states {
        let models: Vec<_> = (0..3).map(|i| model(&Case::new(3, states, states), i).0).collect();
        let options = InferenceOptions::default();
        let mut launched = ActiveInference::new(device, &models, options).expect("models");
        let mut item = ActiveInference::new(device, &models, options).expect("models");
        if item.blocks_per_model() > 1 {
            // Its blocks wait for each other: the largest group has them, or it is refused.
            let refused = executor.record("steps", || item.step()).map(|program| program.blocks());
            let refused = refused.map_err(|why| why.to_string());
            assert!(
                refused.as_ref().is_ok_and(|&b| b > 1)
                    || refused.is_err_and(|why| why.contains("blocks"))
            );
            continue;
        }
        let program = executor.record("steps", || item.step()).expect("a program");
        for _ in 0..4 {
            launched.step().expect("a launch");
            executor.submit(&program).expect("an item");
        }
        let (got, expected) = (item.belief_arrays(), launched.belief_arrays());
        assert_eq!(got.expect("a read"), expected.expect("a read"), "{states} states");
        let (got, expected) = (item.last_free_energies(), launched.last_free_energies());
        assert_eq!(got.expect("a read"), expected.expect("a read"), "{states} states");
        if states <= 64 {
            launched.queue_inference(Some(1e-3), 30).expect("a launch");
            run(&executor, || item.queue_inference(Some(1e-3), 30));
            let read = |inference: &ActiveInference| inference.inferred().expect("a read");
            assert_eq!(format!("{:?}", read(&item)), format!("{:?}", read(&launched)));
        }
    }
}

/// Belief steps of one model of so many observations and states, whose blocks wait for each other: the bits of the
/// launches. The shapes are for the instances of up to 64 and of up to 256 states.
#[track_caller]
pub fn check_shared_models(device: &Device, domains: Domains, shapes: &[(usize, usize)]) {
    let executor = executor_with(device, domains, 1);
    let mut codes = Vec::new();
    for &(observations, states) in shapes {
        let what = format!("{observations} observations of {states} states");
        let models = [model(&Case::new(1, observations, states), 0).0];
        let options = InferenceOptions::default();
        let mut launched = ActiveInference::new(device, &models, options).expect("models");
        let mut item = ActiveInference::new(device, &models, options).expect("models");
        let program = executor.record("steps", || item.step()).expect("a program");
        assert!(program.blocks() > 1, "{what}: {program:?}");
        assert_eq!(program.blocks() as usize, item.blocks_per_model(), "{what}");
        codes.extend(program.codes());
        for _ in 0..4 {
            launched.step().expect("a launch");
            executor.submit(&program).expect("an item");
        }
        let (got, expected) = (item.belief_arrays(), launched.belief_arrays());
        assert_eq!(got.expect("a read"), expected.expect("a read"), "{what}");
        let (got, expected) = (item.last_free_energies(), launched.last_free_energies());
        assert_eq!(got.expect("a read"), expected.expect("a read"), "{what}");
    }
    for code in [operation::BELIEF_STEP_C64, operation::BELIEF_STEP_C256] {
        assert!(codes.contains(&code), "operation {code} is not among {codes:?}");
    }
}

/// A layer with seeds in every state: the bits of the launch, and its telemetry, whose moments a launch of which a block
/// takes a seed may add up in another order.
#[track_caller]
pub fn check_layer(device: &Device, domains: Domains, shapes: &[(usize, usize, usize)]) {
    let executor = executor(device, domains);
    for &(batch, seeds, chunk) in shapes {
        let mut layers = [0, 1].map(|_| {
            let mut numbers = Numbers::new(11);
            let builder = KasminaLayer::<f32>::builder(seeds, seeds * chunk);
            let mut layer = builder.enable_tma(false).build(device).expect("a layer");
            let ids = BlueprintType::ALL.map(|kind| {
                let blueprint = blueprint(kind, chunk, &mut numbers);
                layer.load_blueprint(&blueprint).expect("room").id
            });
            for seed in (0..seeds).filter(|seed| seed % 3 != 1) {
                graft(&mut layer, seed, ids[seed % ids.len()], 0.25 + 0.5 * (seed % 2) as f32);
            }
            layer
        });
        let x = Buffer::from_slice(device, &values(batch * seeds * chunk, 7)).expect("memory");
        let mut made = [0, 1].map(|_| Buffer::zeroed(device, x.len()).expect("memory"));
        let ([item_layer, launch_layer], [item, launch]) = (&mut layers, &mut made);
        launch_layer.forward_into(&x, launch).expect("a launch");
        // Once before: what a pass makes of itself cannot be made while it is recorded. Of other values, so that telemetry
        // of this launch is none of the item's.
        let before = Buffer::zeroed(device, x.len()).expect("memory");
        item_layer.forward_into(&before, item).expect("a launch");
        item.fill_bytes(0xff).expect("a fill");
        run(&executor, || item_layer.forward_into(&x, item));
        assert_same(item, launch, "the layer's output");
        item_layer.replayed(1).expect("a pass was recorded");
        let of = |layer: &KasminaLayer<f32>| layer.telemetry().expect("a read").expect("a pass");
        let (got, expected) = (of(item_layer), of(launch_layer));
        let what = format!("telemetry of {batch} rows of {seeds} seeds of {chunk}");
        assert_eq!((&got.count, &got.nonfinite), (&expected.count, &expected.nonfinite), "{what}");
        for (got, expected) in [
            (&got.mean, &expected.mean),
            (&got.variance, &expected.variance),
            (&got.min, &expected.min),
            (&got.max, &expected.max),
            (&got.dead_ratio, &expected.dead_ratio),
            (&got.snr, &expected.snr),
        ] {
            let far = |(a, b): (&f32, &f32)| (a - b).abs() > 1e-5 * (1.0 + b.abs());
            assert!(!got.iter().zip(expected).any(far), "{what}: {got:?}, {expected:?}");
        }
    }
}

#[track_caller]
fn assert_same<T: bytemuck::Pod>(got: &Buffer<T>, expected: &Buffer<T>, what: &str) {
    let (got, expected) = (got.to_vec().expect("a read"), expected.to_vec().expect("a read"));
    let (got, expected): (&[u8], &[u8]) =
        (bytemuck::cast_slice(&got), bytemuck::cast_slice(&expected));
    assert!(got == expected, "{what} of {} bytes", got.len());
}

/// The sequence that launches are compared by: so many element-wise operations on so many values, each needing the one
/// before it.
pub struct Sequence {
    a: Buffer<f32>,
    b: Buffer<f32>,
    operations: usize,
}

impl Sequence {
    /// Of ones.
    pub fn new(device: &Device, len: usize, operations: usize) -> Self {
        let a = Buffer::from_slice(device, &vec![1.0; len]).expect("memory");
        Self { a, b: Buffer::zeroed(device, len).expect("memory"), operations }
    }

    /// Queues, or records, all of them.
    ///
    /// # Errors
    /// As `axpby`.
    pub fn run(&mut self, device: &Device) -> Result<(), Error> {
        for operation in 0..self.operations {
            let (from, to) = match operation % 2 {
                0 => (&self.a, &mut self.b),
                _ => (&self.b, &mut self.a),
            };
            axpby(device, 0.5, from, 0.25, from, to)?;
        }
        Ok(())
    }

    /// Where the result is.
    pub fn result(&self) -> &Buffer<f32> {
        if self.operations.is_multiple_of(2) { &self.a } else { &self.b }
    }

    /// What it comes to after so many runs, from the first values on.
    pub fn expected(&self, runs: usize) -> f32 {
        (0..runs * self.operations).fold(1.0, |value, _| 0.75 * value)
    }
}

/// 170 dependent operations as one item.
#[track_caller]
pub fn check_sequence(device: &Device, len: usize) {
    let executor = executor(device, Domains::All);
    let mut sequence = Sequence::new(device, len, 170);
    let program = executor.record("sequence", || sequence.run(device)).expect("a program");
    assert_eq!(program.len(), 170);
    let before = executor.statistics().launches;
    let begun = Instant::now();
    for runs in 1..=3 {
        executor.submit(&program).and_then(|t| t.wait()).expect("an item");
        let expected = sequence.expected(runs);
        let got = sequence.result().to_vec().expect("a read");
        assert!(
            got.iter().all(|&v| (v - expected).abs() <= 1e-6 * expected),
            "{} {expected}",
            got[0]
        );
    }
    // It leaves when there is no work for a second.
    let launches = executor.statistics().launches - before;
    assert!(launches == 1 || begun.elapsed() > Duration::from_secs(1), "{launches} launches");
}

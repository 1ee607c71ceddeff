//! Persistent execution against the same calls as launches, and its own properties.

use std::time::{Duration, Instant};

use kasmina::information::active_inference::{ActiveInference, InferenceOptions};
use kasmina::information::axpby;
use kasmina::kasmina::KasminaLayer;
use kasmina::linear::{Gemv, GemvShape};
use kasmina::persistent::{
    Domains, ItemOptions, PersistentConfig, PersistentExecutor, Program, Ticket,
};
use kasmina::types::BlueprintType;
use kasmina::{Buffer, Device, Error};

use crate::Numbers;
use crate::information::active_inference::{Case, model};
use crate::kasmina::layer::{blueprint, graft};

/// An executor with small rings, that gives up late.
pub fn executor(device: &Device, domains: Domains) -> PersistentExecutor {
    let deadline = Duration::from_secs(60);
    let config = PersistentConfig { domains, deadline, share: 1.0, ..Default::default() };
    PersistentExecutor::new(device, config).expect("an executor")
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
    for &(rows, columns) in shapes {
        let shape = GemvShape::new(rows, columns);
        let mut gemv = Gemv::<f32>::new(device, shape).expect("a plan");
        let a = Buffer::from_slice(device, &values(rows * columns, 1)).expect("memory");
        let x = Buffer::from_slice(device, &values(columns, 2)).expect("memory");
        let start = values(rows, 3);
        let mut item = Buffer::from_slice(device, &start).expect("memory");
        let mut launch = Buffer::from_slice(device, &start).expect("memory");
        gemv.run(0.5, &a, &x, 2.0, &mut launch).expect("a launch");
        run(&executor, || gemv.run(0.5, &a, &x, 2.0, &mut item));
        assert_same(&item, &launch, "gemv of f32");
    }
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

/// A layer with seeds in every state: the bits of the launch, telemetry included.
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
        // Once before: what a pass makes of itself cannot be made while it is recorded.
        item_layer.forward_into(&x, item).expect("a launch");
        item.fill_bytes(0xff).expect("a fill");
        run(&executor, || item_layer.forward_into(&x, item));
        assert_same(item, launch, "the layer's output");
        let (got, expected) = (item_layer.telemetry(), launch_layer.telemetry());
        assert_eq!(
            format!("{:?}", got.expect("a read")),
            format!("{:?}", expected.expect("a read")),
            "telemetry of {batch} rows of {seeds} seeds of {chunk}"
        );
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

/// What a stream of items came to.
#[derive(Clone, Copy, Debug)]
pub struct Streamed {
    /// Items.
    pub items: u64,
    /// How long they took.
    pub took: Duration,
}

/// At least so many items, for at least so long, in two lanes of both priorities: none lost, none carried out twice, each
/// lane in its order.
///
/// Of each lane, one program adds 1 to a count in f64, which shows losses and doubles, and one halves a number and adds
/// what tells the programs apart, whose last bits show the order of the last fifty items.
#[track_caller]
pub fn check_stream(device: &Device, least: u64, time: Duration) -> Streamed {
    const LANES: usize = 2;
    let executor = executor(device, Domains::All);
    let number = |value: f64| Buffer::from_slice(device, &[value]).expect("memory");
    let ones = number(1.0);
    let mut counts = [0; LANES].map(|_| [number(0.0), number(0.0)]);
    let mut order = [0; LANES].map(|_| [number(1.0), number(0.0)]);
    let mut programs = Vec::new();
    for ([a, b], [x, y]) in counts.iter_mut().zip(&mut order) {
        let program = |name: &str,
                       add: f64,
                       halve: &mut [&mut Buffer<f64>; 2],
                       count: &mut [&mut Buffer<f64>; 2]| {
            let work = || {
                let [from, to] = &mut *count;
                axpby(device, 1.0, from, 1.0, &ones, to)?;
                axpby(device, 1.0, to, 0.0, to, from)?;
                let [from, to] = &mut *halve;
                axpby(device, 0.5, from, add, &ones, to)?;
                axpby(device, 1.0, to, 0.0, to, from)
            };
            executor.record(name, work).expect("a program")
        };
        programs.push([
            program("first", 0.0, &mut [&mut *x, &mut *y], &mut [&mut *a, &mut *b]),
            program("second", 1.0, &mut [x, y], &mut [a, b]),
        ]);
    }
    let begun = Instant::now();
    let mut expected = [(0_u64, 1.0_f64); LANES];
    let mut numbers = Numbers::new(11);
    let mut last: Vec<Option<Ticket>> = vec![None; LANES];
    let mut items = 0;
    while items < least || begun.elapsed() < time {
        for _ in 0..1000 {
            let (lane, which) = (numbers.below(LANES), numbers.below(2));
            let options = ItemOptions { lane: lane as u32, ..Default::default() };
            let ticket = executor.submit_with(&programs[lane][which], &options).expect("an item");
            let before = last[lane].replace(ticket).map_or(0, |t| t.sequence());
            assert_eq!(last[lane].as_ref().map(Ticket::sequence), Some(before + 1));
            let (count, value) = &mut expected[lane];
            *count += 1;
            *value = 0.5 * *value + which as f64;
        }
        items += 1000;
    }
    executor.drain().expect("all items");
    let took = begun.elapsed();
    for (lane, (count, value)) in expected.into_iter().enumerate() {
        assert_eq!(counts[lane][0].to_vec().expect("a read"), [count as f64], "lane {lane}");
        assert_eq!(order[lane][0].to_vec().expect("a read"), [value], "lane {lane}");
    }
    let statistics = executor.statistics();
    assert_eq!((statistics.submitted, statistics.completed), (items, items));
    assert_eq!((statistics.failed, statistics.latencies.count()), (0, items));
    Streamed { items, took }
}

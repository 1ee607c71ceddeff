//! Many items of several lanes, each lane in its order.

use std::time::{Duration, Instant};

use kasmina::information::axpby;
use kasmina::persistent::{ItemOptions, ItemPriority, PersistentExecutor, Program};
use kasmina::{Buffer, Device};

use super::{WIDE, executor_of_groups, number, wide};
use crate::Numbers;

/// What a stream of items came to.
#[derive(Clone, Copy, Debug)]
pub struct Streamed {
    /// Items.
    pub items: u64,
    /// How long they took.
    pub took: Duration,
}

/// Lanes; the last one's items are of several blocks.
const LANES: usize = 4;

/// What an item of a lane does: two programs, which differ by the numbers that they add.
///
/// A count in f64 shows losses and doubles. x ← x/2 + b has in its last bits the order of the last fifty items; z ← b − z
/// has the alternating sum of all of them, in which any two neighbours that change places change the sign of b.
struct Lane {
    count: [Buffer<f64>; 2],
    halved: [Buffer<f64>; 2],
    alternating: [Buffer<f64>; 2],
    /// A count in every element, of a lane of several blocks.
    wide: Option<[Buffer<f64>; 2]>,
    programs: Vec<Program>,
}

/// What the states of a lane come to.
#[derive(Clone, Copy)]
struct Expected {
    count: f64,
    halved: f64,
    alternating: f64,
}

impl Expected {
    const START: Self = Self { count: 0.0, halved: 1.0, alternating: 0.0 };

    fn step(self, which: usize) -> Self {
        Self {
            count: self.count + 1.0,
            halved: 0.5 * self.halved + which as f64,
            alternating: 1.0 + 2.0 * which as f64 - self.alternating,
        }
    }
}

impl Lane {
    fn new(device: &Device, executor: &PersistentExecutor, is_wide: bool) -> Self {
        let (one, ones) = (number(device, 1.0), wide(device, 1.0));
        let pair = |value| [number(device, value), number(device, 0.0)];
        let start = Expected::START;
        let mut count = pair(start.count);
        let mut halved = pair(start.halved);
        let mut alternating = pair(start.alternating);
        let mut whole = is_wide.then(|| [wide(device, 0.0), wide(device, 0.0)]);
        let mut programs = Vec::new();
        for (name, b) in [("first", 0.0), ("second", 1.0)] {
            let work = || {
                let states = [
                    (&mut count, 1.0, 1.0),
                    (&mut halved, 0.5, b),
                    (&mut alternating, -1.0, 1.0 + 2.0 * b),
                ];
                for ([from, to], factor, add) in states {
                    axpby(device, factor, from, add, &one, to)?;
                    axpby(device, 1.0, to, 0.0, to, from)?;
                }
                let Some([from, to]) = &mut whole else { return Ok(()) };
                axpby(device, 1.0, from, 1.0, &ones, to)?;
                axpby(device, 1.0, to, 0.0, to, from)
            };
            programs.push(executor.record(name, work).expect("a program"));
        }
        assert_eq!(programs[0].blocks() > 1, is_wide, "{:?}", programs[0]);
        Self { count, halved, alternating, wide: whole, programs }
    }

    #[track_caller]
    fn check(&self, lane: usize, expected: Expected) {
        let read = |pair: &[Buffer<f64>; 2]| pair[0].to_vec().expect("a read")[0];
        assert_eq!(read(&self.count), expected.count, "items of lane {lane}");
        assert_eq!(read(&self.halved), expected.halved, "order of the last items of lane {lane}");
        let alternating = read(&self.alternating);
        assert_eq!(alternating, expected.alternating, "order of all items of lane {lane}");
        if let Some([counts, _]) = &self.wide {
            let counts = counts.to_vec().expect("a read");
            let wrong = counts.iter().position(|&count| count != expected.count);
            assert_eq!(wrong, None, "element of {WIDE} of lane {lane}: {}", counts[0]);
        }
    }
}

/// At least so many items, for at least so long, in four lanes of which one has items of several blocks, of both
/// priorities: none lost, none carried out twice, each lane in its order.
#[track_caller]
pub fn check_stream(device: &Device, least: u64, time: Duration) -> Streamed {
    let executor = executor_of_groups(device);
    let lanes: [Lane; LANES] =
        std::array::from_fn(|lane| Lane::new(device, &executor, lane == LANES - 1));
    let begun = Instant::now();
    let mut expected = [Expected::START; LANES];
    let mut numbers = Numbers::new(11);
    let mut last = vec![0; 2 * executor.groups().len()];
    let mut items = 0;
    while items < least || begun.elapsed() < time {
        for _ in 0..1000 {
            // Of several blocks, which take longer, one in sixteen.
            let lane = if numbers.below(16) == 0 { LANES - 1 } else { numbers.below(LANES - 1) };
            let which = numbers.below(2);
            let is_high = numbers.below(8) == 0;
            let priority = if is_high { ItemPriority::High } else { ItemPriority::Normal };
            let options = ItemOptions { lane: lane as u32, priority, ..Default::default() };
            let program = &lanes[lane].programs[which];
            let ticket = executor.submit_with(program, &options).expect("an item");
            let before = &mut last[ticket.ring() as usize];
            assert_eq!(ticket.sequence(), *before + 1, "{ticket:?}");
            *before = ticket.sequence();
            expected[lane] = expected[lane].step(which);
        }
        items += 1000;
    }
    executor.drain().expect("all items");
    let took = begun.elapsed();
    for (index, (lane, expected)) in lanes.iter().zip(expected).enumerate() {
        lane.check(index, expected);
    }
    let statistics = executor.statistics();
    assert_eq!((statistics.submitted, statistics.completed), (items, items));
    assert_eq!((statistics.failed, statistics.latencies.count()), (0, items));
    Streamed { items, took }
}

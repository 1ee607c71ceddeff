//! Items that wait for items of other lanes.

use kasmina::information::axpby;
use kasmina::persistent::{ItemOptions, ItemPriority, Ticket};
use kasmina::{Buffer, Device};

use super::{executor_of_groups, number, wide};
use crate::Numbers;

/// Lanes of one block each, and one of several, go round `rounds` times, with nobody waiting in between.
///
/// In a round x₀ ← w + 1, x₁ ← x₀ + 1, x₂ ← x₁ + 1, each in a lane of its own after the item before it; then, after
/// all three, an item of several blocks adds up x₀ − w, x₁ − x₀ and x₂ − x₁, each of which has to be 1, and has w ← x₂ + 1.
/// With the one before it in the other ring that item has four needs. In a further lane items of one block, a ← b + 1, and of
/// several, b ← a + 1, take turns.
#[track_caller]
pub fn check_needs(device: &Device, rounds: u64) {
    let executor = executor_of_groups(device);
    let one = number(device, 1.0);
    let zero = || number(device, 0.0);
    let (mut x, mut w) = ([zero(), zero(), zero()], zero());
    let small = |name, from: &Buffer<f64>, to: &mut Buffer<f64>| {
        let program = executor.record(name, || axpby(device, 1.0, from, 1.0, &one, to));
        program.expect("a program")
    };
    let [x0, x1, x2] = &mut x;
    let chain = [small("first", &w, x0), small("second", x0, x1), small("third", x1, x2)];

    let ones = wide(device, 1.0);
    let mut wholes = [(); 4].map(|()| wide(device, 0.0));
    let [whole, whole_next, other, other_next] = &mut wholes;
    let mut sums = [zero(), zero(), zero()];
    let (mut difference, mut next) = (zero(), zero());
    let all = executor.record("all", || {
        axpby(device, 1.0, whole, 1.0, &ones, whole_next)?;
        axpby(device, 1.0, whole_next, 0.0, &ones, whole)?;
        for (sum, (after, before)) in sums.iter_mut().zip([(&*x0, &w), (&*x1, &*x0), (&*x2, &*x1)])
        {
            axpby(device, 1.0, after, -1.0, before, &mut difference)?;
            axpby(device, 1.0, sum, 1.0, &difference, &mut next)?;
            axpby(device, 1.0, &next, 0.0, &next, sum)?;
        }
        axpby(device, 1.0, x2, 1.0, &one, &mut w)
    });
    let all = all.expect("a program");
    let (mut a, mut b) = (zero(), zero());
    let narrow = small("narrow", &b, &mut a);
    let broad = executor.record("broad", || {
        axpby(device, 1.0, other, 1.0, &ones, other_next)?;
        axpby(device, 1.0, other_next, 0.0, &ones, other)?;
        axpby(device, 1.0, &a, 1.0, &one, &mut b)
    });
    let broad = broad.expect("a program");
    assert!(all.blocks() > 1 && broad.blocks() > 1, "{all:?}, {broad:?}");

    let mut numbers = Numbers::new(5);
    let mut submit = |program, lane, after: &[&Ticket]| {
        let is_high = numbers.below(2) == 0;
        let priority = if is_high { ItemPriority::High } else { ItemPriority::Normal };
        let options = ItemOptions { lane, priority, after, ..Default::default() };
        executor.submit_with(program, &options).expect("an item")
    };
    let mut last: Option<Ticket> = None;
    for _ in 0..rounds {
        let before: Vec<_> = last.iter().collect();
        let first = submit(&chain[0], 0, &before);
        let second = submit(&chain[1], 1, &[&first]);
        let third = submit(&chain[2], 2, &[&second]);
        last = Some(submit(&all, 4, &[&first, &second, &third]));
        submit(&narrow, 3, &[]);
        submit(&broad, 3, &[]);
    }
    executor.drain().expect("all items");

    let read = |buffer: &Buffer<f64>| buffer.to_vec().expect("a read")[0];
    let count = rounds as f64;
    assert_eq!(read(&w), 4.0 * count, "the chain");
    assert_eq!(sums.each_ref().map(read), [count; 3], "what one lane saw of the others");
    assert_eq!([read(&a), read(&b)], [2.0 * count - 1.0, 2.0 * count], "the lane that alternates");
    for whole in [&wholes[0], &wholes[2]] {
        let values = whole.to_vec().expect("a read");
        assert_eq!(values.iter().position(|&value| value != count), None, "{}", values[0]);
    }
    let statistics = executor.statistics();
    assert_eq!((statistics.completed, statistics.failed), (6 * rounds, 0));
}

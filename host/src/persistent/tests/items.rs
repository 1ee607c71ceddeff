//! Items: their order, what they need, what is refused, and what a full ring does.

use super::*;

#[test]
fn items_of_a_lane_are_carried_out_in_their_order() {
    let device = device();
    let executor = executor(&device);
    let mut a = Buffer::from_slice(&device, &[1.0_f32; 300]).unwrap();
    let mut b = Buffer::zeroed(&device, 300).unwrap();
    let forth = executor.record("forth", || axpby(&device, 2.0, &a, 0.0, &a, &mut b)).unwrap();
    let back = executor.record("back", || axpby(&device, 1.5, &b, 0.0, &b, &mut a)).unwrap();
    let both = executor
        .record("both", || {
            axpby(&device, 2.0, &a, 0.0, &a, &mut b)?;
            axpby(&device, 1.5, &b, 0.0, &b, &mut a)
        })
        .unwrap();
    assert_eq!((both.len(), both.blocks()), (2, 1));
    // More than the ring holds.
    for _ in 0..15 {
        executor.submit(&forth).unwrap();
        executor.submit(&back).unwrap();
    }
    for _ in 0..5 {
        executor.submit(&both).unwrap();
    }
    // Waits by itself.
    let expected = (0..20).fold(1.0_f32, |product, _| product * 3.0);
    assert_eq!(a.to_vec().unwrap(), [expected; 300]);
    let statistics = executor.statistics();
    assert_eq!((statistics.submitted, statistics.completed, statistics.failed), (35, 35, 0));
    assert_eq!((statistics.launches, statistics.latencies.count()), (1, 35));
    assert!(statistics.peak_outstanding >= 2 && statistics.queue_depths.iter().all(|&d| d == 0));
}

#[test]
fn plain_calls_and_items_wait_for_each_other() {
    let device = device();
    let executor = executor(&device);
    let x = Buffer::from_slice(&device, &[1.0_f32; 8]).unwrap();
    let mut y = Buffer::zeroed(&device, 8).unwrap();
    let program = executor.record("y", || axpby(&device, 3.0, &x, 0.0, &x, &mut y)).unwrap();
    let mut z = Buffer::zeroed(&device, 8).unwrap();
    for _ in 0..10 {
        y.copy_from_slice(&[0.0; 8]).unwrap();
        executor.submit(&program).unwrap();
        axpby(&device, 2.0, &y, 0.0, &y, &mut z).unwrap();
        assert_eq!(z.to_vec().unwrap(), [6.0; 8]);
    }
    assert!(y.as_host_slice().is_none());
    let refused = axpby(&Device::Cpu, 2.0, &y, 0.0, &y, &mut z).unwrap_err();
    assert!(matches!(refused, Error::InUse { buffer: "x", .. }), "{refused}");
    // Memory stays as long as the program.
    drop((x, y));
    executor.submit(&program).unwrap().wait().unwrap();
}

#[test]
fn lanes_wait_for_what_they_are_told_to() {
    let device = device();
    let executor = executor(&device);
    assert_eq!(executor.groups(), [1, 1, 1, 1]);
    let values = vec![1.0_f64; 5000];
    let x = Buffer::from_slice(&device, &values).unwrap();
    let mut y = Buffer::zeroed(&device, 5000).unwrap();
    let mut z = Buffer::zeroed(&device, 5000).unwrap();
    let first = executor.record("y", || axpby(&device, 2.0, &x, 0.0, &x, &mut y)).unwrap();
    let then = executor.record("z", || axpby(&device, 1.0, &x, 1.0, &y, &mut z)).unwrap();
    for round in 0..20 {
        let made = executor.submit_with(&first, &ItemOptions { lane: 0, ..Default::default() });
        let made = made.unwrap();
        let priority = if round % 2 == 0 { ItemPriority::High } else { ItemPriority::Normal };
        let options = ItemOptions { lane: 1, after: &[&made], priority, ..Default::default() };
        let last = executor.submit_with(&then, &options).unwrap();
        assert_ne!(made.ring() / 2, last.ring() / 2);
        last.wait().unwrap();
        assert!(made.poll().unwrap());
        assert_eq!(z.to_vec().unwrap(), vec![3.0; 5000]);
    }
    let other = executor_with(&device, PersistentConfig::default());
    let ticket = executor.submit(&first).unwrap();
    let options = ItemOptions { after: &[&ticket], ..Default::default() };
    let refused = persistent(other.submit_with(&empty(), &options).unwrap_err());
    assert_eq!(refused, PersistentError::Foreign { what: "ticket" });
}

#[test]
fn several_blocks_share_an_item() {
    let device = device();
    let config = PersistentConfig { small_groups: 1, ..Default::default() };
    let executor = executor_with(&device, config);
    assert_eq!(executor.groups(), [1, 3]);
    let n = 10_000;
    let x = Buffer::from_slice(&device, &(0..n).map(|i| i as f32).collect::<Vec<_>>()).unwrap();
    let mut y = Buffer::zeroed(&device, n).unwrap();
    let mut z = Buffer::zeroed(&device, n).unwrap();
    let program = executor
        .record("two", || {
            axpby(&device, 2.0, &x, 0.0, &x, &mut y)?;
            axpby(&device, 1.0, &x, 1.0, &y, &mut z)
        })
        .unwrap();
    assert_eq!(program.blocks(), 3);
    for _ in 0..10 {
        z.fill_bytes(0).unwrap();
        executor.submit(&program).unwrap().wait().unwrap();
        assert!(z.to_vec().unwrap().iter().enumerate().all(|(i, &z)| z == 3.0 * i as f32));
    }
    // A lane's order holds between groups.
    let mut a = Buffer::from_slice(&device, &[1.0_f32]).unwrap();
    let mut b = Buffer::zeroed(&device, n).unwrap();
    let small = executor.record("a", || {
        let x = x_of(&device)?;
        axpby(&device, 1.0, &x, 0.0, &x, &mut a)
    });
    assert!(matches!(small, Err(Error::Recording { .. })), "a buffer made while recording");
    let large = executor.record("b", || axpby(&device, 1.0, &x, 0.0, &x, &mut b)).unwrap();
    let empty = empty();
    let tickets = [&large, &empty, &large].map(|program| executor.submit(program).unwrap());
    tickets[2].wait().unwrap();
    assert!(tickets[1].poll().unwrap() && tickets[0].poll().unwrap());
}

#[test]
fn items_that_mean_nothing_are_refused_by_the_device() {
    let device = device();
    let executor = executor(&device);
    let unknown = executor.submit(&Program::provoking(Provoke::UnknownOperation)).unwrap();
    let refused = persistent(unknown.wait().unwrap_err());
    assert!(
        matches!(&refused, PersistentError::Item { reason } if reason.contains("UnknownOperation"))
    );
    let out_of_range = executor.push_descriptor(empty(), u32::MAX, 2, 1);
    let refused = persistent(out_of_range.wait().unwrap_err());
    assert!(matches!(&refused, PersistentError::Item { reason } if reason.contains("OutOfRange")));
    let too_wide = executor.submit(&Program::provoking(Provoke::OutOfRange)).unwrap();
    assert!(persistent(too_wide.wait().unwrap_err()).to_string().contains("OutOfRange"));
    // The kernel goes on.
    executor.submit(&empty()).unwrap().wait().unwrap();
    assert_eq!(executor.statistics().failed, 3);
}

#[test]
fn what_is_no_program_is_refused() {
    let device = device();
    let executor = executor_with(
        &device,
        PersistentConfig { domains: Domains::Linear, operations: 4, ..Default::default() },
    );
    let x = Buffer::from_slice(&device, &[1.0_f32; 4]).unwrap();
    let mut y = Buffer::zeroed(&device, 4).unwrap();
    let why = persistent(executor.record("nothing", || Ok(())).unwrap_err());
    assert!(matches!(why, PersistentError::Empty { .. }));
    let why = executor.record("copy", || y.copy_from_slice(&[0.0; 4])).unwrap_err();
    assert!(matches!(why, Error::Recording { .. }), "{why}");
    let five = executor
        .record("five", || (0..5).try_for_each(|_| axpby(&device, 1.0, &x, 0.0, &x, &mut y)));
    let why = persistent(executor.submit(&five.unwrap()).unwrap_err());
    assert!(matches!(why, PersistentError::TableFull { needed: 5, free: 4, .. }), "{why}");
    let mut out = Buffer::zeroed(&device, 4).unwrap();
    let why = executor.record("velocity", || velocity(&device, &x, &y, 0.5, &mut out));
    let why = persistent(why.unwrap_err());
    assert!(matches!(why, PersistentError::Operation { kernel: "velocity_f32", .. }), "{why}");
    let why = PersistentExecutor::new(&Device::Cpu, PersistentConfig::default()).unwrap_err();
    assert!(matches!(persistent(why), PersistentError::NoKernels { .. }));
    // Nothing is left of a recording that failed.
    axpby(&device, 1.0, &x, 0.0, &x, &mut y).unwrap();
    assert_eq!(y.to_vec().unwrap(), [1.0; 4]);
}

#[test]
fn a_full_ring_pushes_back() {
    let device = device();
    let config = PersistentConfig { deadline: Duration::from_millis(400), ..Default::default() };
    let executor = executor_with(&device, config);
    executor.submit(&Program::provoking(Provoke::Hang)).unwrap();
    let empty = empty();
    for _ in 1..8 {
        executor.submit(&empty).unwrap();
    }
    let patience = Duration::from_millis(20);
    let options = ItemOptions { patience: Some(patience), ..Default::default() };
    let why = persistent(executor.submit_with(&empty, &options).unwrap_err());
    assert_eq!(why, PersistentError::TimedOut(patience));
    // A push that waits learns of the fault.
    match executor.submit(&empty) {
        Err(why) => assert_eq!(fault(why).unfinished, 8),
        Ok(ticket) => panic!("{ticket:?}"),
    }
}

#[test]
fn items_of_any_width_follow_each_other() {
    let device = device();
    let config = PersistentConfig { small_groups: 1, ..Default::default() };
    let executor = executor_with(&device, config);
    let x = Buffer::from_slice(&device, &vec![1.0_f32; 10_000]).unwrap();
    let mut y = Buffer::zeroed(&device, 10_000).unwrap();
    let work = || (0..3).try_for_each(|_| axpby(&device, 2.0, &x, 1.0, &x, &mut y));
    let three = executor.record("three", work).unwrap();
    assert_eq!((three.blocks(), executor.groups()), (3, &[1, 3][..]));
    let narrow = three.inner.operations.iter().map(|op| Operation { blocks: 2, ..*op }).collect();
    let two = Program::of_operations("two", narrow, 2, Arc::clone(&three.inner.buffers));
    for _ in 0..30 {
        for program in [&three, &two, &two, &three] {
            executor.submit(program).unwrap();
        }
    }
    executor.drain().unwrap();
    assert_eq!(y.to_vec().unwrap(), vec![3.0; 10_000]);
}

#[test]
fn programs_and_buffers_are_one_executors() {
    let device = device();
    let (first, second) = (executor(&device), executor(&device));
    let counter = Counter::new(&device, &first);
    first.submit(&counter.program).unwrap();
    let why = persistent(second.submit(&counter.program).unwrap_err());
    assert_eq!(why, PersistentError::Foreign { what: "program" });
    let mut copy = Buffer::zeroed(&device, 1).unwrap();
    let work = || axpby(&device, 1.0, &counter.count, 0.0, &counter.count, &mut copy);
    let why = persistent(second.record("copy", work).unwrap_err());
    assert_eq!(why, PersistentError::Foreign { what: "buffer" });
    assert_eq!(counter.read(), 1.0);
}

#[test]
fn numbers_wrap_around() {
    let device = device();
    let config = PersistentConfig { ring_capacity: 4, ..Default::default() };
    let first = (1 << 32) - 6;
    let executor = PersistentExecutor::of_owner(u64::MAX, &device, config, first).unwrap();
    let counter = Counter::new(&device, &executor);
    let mut last = None;
    for _ in 0..20 {
        let after: Vec<_> = last.iter().collect();
        let options = ItemOptions { lane: 1, after: &after, ..Default::default() };
        let ticket = executor.submit_with(&counter.program, &options).unwrap();
        last = Some(ticket);
    }
    assert_eq!(last.unwrap().sequence(), first + 19);
    assert_eq!(counter.read(), 20.0);
}

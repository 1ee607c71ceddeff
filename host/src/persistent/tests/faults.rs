//! Kernels that stall or fail, and those that step aside or leave for nothing.

use super::*;

#[test]
fn a_kernel_that_never_answers_is_found_and_replaced() {
    let device = device();
    let config = PersistentConfig { deadline: Duration::from_millis(200), ..Default::default() };
    let executor = executor_with(&device, config);
    let x = Buffer::from_slice(&device, &[1.0_f32]).unwrap();
    let mut y = Buffer::zeroed(&device, 1).unwrap();
    let good = executor.record("good", || axpby(&device, 2.0, &x, 0.0, &x, &mut y)).unwrap();
    executor.submit(&good).unwrap().wait().unwrap();
    let begun = Instant::now();
    let stuck = executor.submit(&Program::provoking(Provoke::Hang)).unwrap();
    let behind = executor.submit(&good).unwrap();
    let found = fault(stuck.wait().unwrap_err());
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert!(matches!(found.cause, FaultCause::Stalled { after } if after.as_millis() >= 200));
    let [item] = &found.items[..] else { panic!("{found}") };
    assert_eq!((item.program.as_str(), item.ring, item.sequence), ("hang", 1, 2));
    assert_eq!((item.descriptor.count, found.unfinished, found.context_lost), (1, 2, false));
    assert!(found.to_string().contains("program `hang`"), "{found}");
    assert_eq!(*fault(behind.wait().unwrap_err()), *found);
    assert_eq!(*fault(executor.submit(&good).unwrap_err()), *found);
    assert_eq!(*executor.fault().unwrap(), *found);

    let (executor, unfinished) = recovered(executor);
    let names: Vec<_> = unfinished.iter().map(|item| item.program.name()).collect();
    assert_eq!(names, ["hang", "good"]);
    // What was complete is there, and the executor goes on.
    assert_eq!(y.to_vec().unwrap(), [2.0]);
    y.copy_from_slice(&[0.0]).unwrap();
    executor.submit(&unfinished[1].program).unwrap().wait().unwrap();
    assert_eq!(y.to_vec().unwrap(), [2.0]);
}

/// Blocks that wait at a barrier, and a kernel that leaves for nothing.
#[test]
fn every_wait_is_given_up() {
    let device = device();
    let config = PersistentConfig {
        deadline: Duration::from_millis(200),
        small_groups: 1,
        ..Default::default()
    };
    let mut executor = executor_with(&device, config);
    for provoke in [Provoke::Unmet, Provoke::Deaf] {
        let begun = Instant::now();
        let stuck = executor.submit(&Program::provoking(provoke)).unwrap();
        let found = fault(stuck.wait().unwrap_err());
        assert!(matches!(found.cause, FaultCause::Stalled { .. }), "{found}");
        assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
        let unfinished;
        (executor, unfinished) = recovered(executor);
        assert_eq!(unfinished.len(), 1);
        executor.submit(&empty()).unwrap().wait().unwrap();
    }
}

/// A job that needs the whole device: the kernel leaves after the items in work, and comes back for what waits.
#[test]
fn a_kernel_steps_aside() {
    let device = device();
    let executor = executor(&device);
    let counter = Counter::new(&device, &executor);
    for round in 0..50 {
        for _ in 0..4 {
            executor.submit(&counter.program).unwrap();
        }
        executor.shared.step_aside();
        executor.shared.come_back();
        executor.submit(&empty()).unwrap().wait_for(Duration::from_secs(20)).unwrap();
        executor.drain().unwrap();
        assert_eq!(counter.read(), 4.0 * f64::from(round + 1));
    }
    assert!(executor.statistics().launches > 1);
    assert_eq!(executor.statistics().failed, 0);
}

#[test]
fn a_kernel_that_traps_is_found_and_replaced() {
    let device = device();
    let executor = executor(&device);
    let ticket = executor.submit(&Program::provoking(Provoke::Trap)).unwrap();
    let found = fault(ticket.wait_for(Duration::from_secs(20)).unwrap_err());
    assert!(matches!(&found.cause, FaultCause::Failed { message } if message.contains("trap")));
    assert_eq!(found.items.iter().map(|item| &item.program[..]).collect::<Vec<_>>(), ["trap"]);
    let (executor, unfinished) = recovered(executor);
    assert_eq!(unfinished.len(), 1);
    executor.submit(&empty()).unwrap().wait().unwrap();
}

#[test]
fn an_idle_kernel_leaves_and_comes_back() {
    let device = device();
    let config = PersistentConfig { idle_limit: Duration::from_millis(30), ..Default::default() };
    let executor = executor_with(&device, config);
    let empty = empty();
    for _ in 0..3 {
        let before = executor.statistics().launches;
        executor.submit(&empty).unwrap().wait().unwrap();
        assert!(executor.statistics().launches > before);
        wait_until(|| executor.shared.presence() == Presence::Away);
    }
    // Also where the item comes while the kernel leaves.
    for round in 0..40 {
        thread::sleep(Duration::from_millis(30 + round % 7));
        executor.submit(&empty).unwrap().wait_for(Duration::from_secs(20)).unwrap();
    }
}

#[test]
fn a_host_that_shows_no_life_is_left_and_found_again() {
    let device = device();
    let config = PersistentConfig { host_limit: Duration::from_millis(20), ..Default::default() };
    let executor = executor_with(&device, config);
    let empty = empty();
    executor.submit(&empty).unwrap().wait().unwrap();
    {
        // The watchdog waits for this lock: no heartbeat.
        let held = executor.shared.resident();
        wait_until(|| held.reports().all(|group| group.state == GroupState::Deserted));
    }
    executor.submit(&empty).unwrap().wait_for(Duration::from_secs(20)).unwrap();
    assert!(executor.statistics().launches >= 2);
}

//! Ways of dispatch without a GPU.

use std::sync::Arc;

use super::dispatcher::cheapest;
use super::*;
use crate::buffer::Buffer;
use crate::device::Device;
use crate::driver::recording::RecordedLaunch;
use crate::error::Error;
use crate::information::{axpby, velocity};
use crate::persistent::{PersistentConfig, PersistentError, PersistentExecutor};

#[test]
fn without_a_gpu_the_calls_are_made() {
    for device in [Device::Cpu, Device::simt()] {
        let x = Buffer::from_slice(&device, &[1.0_f32, 2.0]).unwrap();
        let mut y = Buffer::zeroed(&device, 2).unwrap();
        let mut dispatcher = Dispatcher::new(&device, Dispatch::Auto).unwrap();
        assert!(dispatcher.choice().is_none());
        dispatcher.run(|| axpby(&device, 2.0, &x, 1.0, &x, &mut y)).unwrap();
        dispatcher.synchronize().unwrap();
        assert_eq!(y.to_vec().unwrap(), [3.0, 6.0]);
        let choice = dispatcher.choice().unwrap();
        assert_eq!(choice.way, Way::Launches);
        assert!(choice.to_string().contains("nothing else"), "{choice}");
    }
}

#[test]
fn what_a_device_lacks_is_refused() {
    for (dispatch, device) in [
        (Dispatch::Graph, Device::Cpu),
        (Dispatch::Graph, Device::simt()),
        (Dispatch::Persistent, Device::Cpu),
    ] {
        let Err(Error::Persistent(why)) = Dispatcher::new(&device, dispatch) else {
            panic!("{dispatch:?} on {device}")
        };
        assert!(matches!(*why, PersistentError::NoKernels { .. }));
        let asked =
            if dispatch == Dispatch::Graph { "a graph needs" } else { "persistent execution" };
        assert!(why.to_string().starts_with(asked), "{why}");
    }
}

#[test]
fn items_are_replayed_and_follow_their_parameters() {
    let device = Device::simt();
    let executor = Arc::new(PersistentExecutor::new(&device, PersistentConfig::default()).unwrap());
    let mut dispatcher = Dispatcher::new(&device, Dispatch::Persistent).unwrap();
    dispatcher = dispatcher.with_executor(Arc::clone(&executor));
    let mut x = Buffer::from_slice(&device, &[1.0_f32, 2.0]).unwrap();
    let mut y = Buffer::zeroed(&device, 2).unwrap();
    for (round, factor) in [2.0, 2.0, 2.0, 5.0, 5.0].into_iter().enumerate() {
        x.copy_from_slice(&[round as f32, 1.0]).unwrap();
        dispatcher.run(|| axpby(&device, factor, &x, 1.0, &x, &mut y)).unwrap();
        let factor = factor as f32 + 1.0;
        assert_eq!(y.to_vec().unwrap(), [factor * round as f32, factor]);
    }
    let statistics = executor.statistics();
    assert_eq!((statistics.completed, statistics.launches), (5, 1));
    assert_eq!(dispatcher.choice().unwrap().way, Way::Persistent);
    let mut v = Buffer::zeroed(&device, 2).unwrap();
    let why = dispatcher.run(|| velocity(&device, &x, &y, 0.5, &mut v)).unwrap_err();
    assert!(why.to_string().contains("velocity_f32"), "{why}");
}

#[test]
fn the_rule_takes_what_is_expected_to_take_least() {
    let launch = |kernel, grid| RecordedLaunch {
        kernel,
        grid,
        cooperative: false,
        operation: bytemuck::Zeroable::zeroed(),
    };
    let small = |count| vec![launch("axpby_f32", 4); count];
    let costs = DispatchCosts {
        launch_us: 9.0,
        launch_more_us: 2.0,
        graph_us: 10.0,
        graph_more_us: 1.0,
        item_us: Some(4.0),
        item_more_us: Some(1.5),
    };
    let way = |costs: &DispatchCosts, launches: &[_]| cheapest(costs, launches).0;
    assert_eq!(way(&costs, &small(1)), Way::Persistent);
    // After twelve operations more the graph has caught up.
    assert_eq!(way(&costs, &small(12)), Way::Persistent);
    assert_eq!(way(&costs, &small(14)), Way::Graph);
    let (way_of_large, expected, why) = cheapest(&costs, &[launch("axpby_f32", 500)]);
    assert_eq!((way_of_large, expected.len()), (Way::Launches, 2));
    assert!(why.contains("500 blocks of `axpby_f32`"), "{why}");
    let (lacking, _, why) = cheapest(&costs, &[launch("velocity_f32", 1)]);
    assert_eq!(lacking, Way::Launches);
    assert!(why.contains("`velocity_f32` is no operation"), "{why}");
    let without = DispatchCosts { item_us: None, item_more_us: None, ..costs };
    assert_eq!(way(&without, &small(1)), Way::Launches);
    assert_eq!(way(&without, &small(3)), Way::Graph);
}

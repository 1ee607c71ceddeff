//! Barrier divergence and deadlock.

use std::time::{Duration, Instant};

use kasmina_simt::{Report, Wait, rt};

use crate::support::{Global, block, checking, geometry, me, report, report_of};

#[test]
fn early_return_before_a_barrier() {
    let report = report(64, || {
        if me() != 5 {
            rt::barrier();
        }
    });
    let text = report.to_string();
    let Report::BarrierDivergence { waiting, exited, .. } = report else { panic!("{text}") };
    assert_eq!((waiting.len(), waiting[0].threads.len()), (1, 63));
    assert_eq!(waiting[0].wait, Wait::Barrier);
    assert_eq!(waiting[0].location.line(), 13);
    assert_eq!(exited, [[5, 0, 0]]);
    for part in ["`test`", "block (0, 0, 0)", "divergence.rs:13:", "thread (5, 0, 0) left"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn the_last_thread_returns_after_all_others_wait() {
    let report = report(64, || {
        if me() != 63 {
            rt::barrier();
        }
    });
    assert!(matches!(report, Report::BarrierDivergence { .. }), "{report}");
}

#[test]
fn barriers_on_two_paths() {
    let report = report(64, || {
        if me() < 32 {
            rt::barrier();
        } else {
            rt::barrier_count(true);
        }
    });
    let Report::BarrierDivergence { waiting, exited, .. } = report else { panic!("{report}") };
    assert_eq!(waiting.iter().map(|w| w.threads.len()).collect::<Vec<_>>(), [32, 32]);
    assert_ne!(waiting[0].location, waiting[1].location);
    assert!(exited.is_empty());
}

#[test]
fn a_barrier_in_a_loop_of_uneven_length() {
    let report = report(64, || (0..=me() / 32).for_each(|_| rt::barrier()));
    assert!(matches!(report, Report::BarrierDivergence { .. }), "{report}");
}

#[test]
fn a_named_barrier_with_too_few_threads() {
    let report = report(96, || {
        if me() < 32 {
            rt::named_barrier(1, 64);
        }
    });
    let Report::BarrierDivergence { waiting, .. } = report else { panic!("{report}") };
    assert_eq!(waiting[0].wait, Wait::NamedBarrier { id: 1, expected: 64 });
}

#[test]
fn a_lane_that_left_is_waited_for() {
    let report = report(32, || {
        if me() != 7 {
            rt::warp_exchange(u32::MAX, 1);
        }
    });
    let Report::Deadlock { waiting, exited, .. } = report else { panic!("{report}") };
    assert_eq!(waiting[0].wait, Wait::Warp { mask: u32::MAX });
    assert_eq!(exited, [[7, 0, 0]]);
}

#[test]
fn half_a_warp_waits_at_the_barrier() {
    let report = report(32, || {
        if me() < 16 {
            rt::warp_sync(u32::MAX);
        } else {
            rt::barrier();
        }
    });
    let Report::Deadlock { waiting, .. } = report else { panic!("{report}") };
    assert_eq!(waiting.len(), 2);
}

#[test]
fn one_collective_at_two_places() {
    let report = report(32, || {
        if me().is_multiple_of(2) {
            rt::warp_sync(u32::MAX);
        } else {
            rt::warp_exchange(u32::MAX, 0);
        }
    });
    assert!(matches!(report, Report::Deadlock { .. }), "{report}");
}

#[test]
fn lanes_with_different_masks() {
    let report = report(32, || {
        rt::warp_exchange(if me() < 16 { u32::MAX } else { 0xffff_0000 }, 0);
    });
    assert!(matches!(report, Report::Deadlock { .. }), "{report}");
}

#[test]
fn a_mask_of_lanes_that_the_block_lacks() {
    let report = report(48, || rt::warp_sync(u32::MAX));
    assert!(matches!(report, Report::Deadlock { .. }), "{report}");
    block(48, || rt::warp_sync(rt::active_lanes())).unwrap();
}

#[test]
fn polling_for_what_never_comes() {
    let flag = Global::new(&[0_u32]);
    let executor = checking().spin_limit(Duration::from_millis(50));
    let result = executor.launch("poll", geometry(3, 32), &|| {
        while flag.load(0) == 0 {
            rt::spin();
        }
    });
    let Report::Deadlock { waiting, .. } = report_of(result) else { panic!("not a deadlock") };
    assert_eq!((waiting[0].wait, waiting[0].threads.len()), (Wait::Spin, 32));
}

#[test]
fn polling_ends_when_the_polled_block_fails() {
    let flag = Global::new(&[0_u32]);
    let start = Instant::now();
    let result = checking().launch("poll", geometry(2, 32), &|| {
        if rt::block_idx()[0] == 0 {
            while flag.load(0) == 0 {
                rt::spin();
            }
        } else {
            flag.read(7);
        }
    });
    let Report::OutOfBounds { block, .. } = report_of(result) else { panic!("not out of bounds") };
    assert_eq!(block, [1, 0, 0]);
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_long_computation_elsewhere_is_no_deadlock() {
    let flag = Global::new(&[0_u32]);
    let executor = checking().spin_limit(Duration::from_millis(100));
    let run = executor.launch("wait", geometry(2, 32), &|| {
        if rt::block_idx()[0] == 0 {
            while flag.load(0) == 0 {
                rt::spin();
            }
        } else {
            // Longer than the limit, in one thread and then in many small steps.
            if me() == 0 {
                std::thread::sleep(Duration::from_millis(250));
            }
            for _ in 0..30 {
                std::thread::sleep(Duration::from_micros(300));
                rt::warp_sync(u32::MAX);
            }
            if me() == 0 {
                flag.store(0, 1);
            }
        }
    });
    run.unwrap();
}

//! mbarriers and bulk copies: what they bring, what they order, and the mistakes that are reported.

use kasmina_simt::rt::{self, Access, Piece};
use kasmina_simt::{MbarrierFault, Report, Space, Wait};

use crate::support::{Global, Shared, block, checking, geometry, me, report, report_of, shared};

/// An mbarrier at element `index` of an array of the block.
#[derive(Clone, Copy)]
struct Barrier<'a>(&'a Shared<u64>, usize);

impl Barrier<'_> {
    fn word(self, access: Access) -> *const u8 {
        self.0.declare(self.1, access);
        self.0.at(self.1)
    }

    #[track_caller]
    fn init(self, arrivals: u32) {
        rt::mbarrier_init(self.word(Access::Write), arrivals);
    }

    #[track_caller]
    fn arrive(self, bytes: u32) {
        rt::mbarrier_arrive(self.word(Access::Mbarrier), bytes);
    }

    #[track_caller]
    fn wait(self, parity: bool) {
        rt::mbarrier_wait(self.word(Access::Mbarrier), parity);
    }
}

/// A load of `count` words from `source` to `target[at..]`.
#[track_caller]
fn load(target: &Shared<u32>, at: usize, source: &Global<u32>, count: usize, barrier: Barrier<'_>) {
    let piece = Piece { shared: target.at(at), global: source.at(0), bytes: 4 * count };
    // SAFETY: the tests keep both ranges inside their buffers, and nobody writes the source.
    unsafe { rt::bulk_load(vec![piece], barrier.0.at(barrier.1)) };
}

#[track_caller]
fn store(source: &Shared<u32>, target: &Global<u32>, count: usize) {
    let piece = Piece { shared: source.at(0), global: target.at(0), bytes: 4 * count };
    // SAFETY: as in `load`; one thread stores to the target.
    unsafe { rt::bulk_store(vec![piece]) };
}

/// Thread 0 initialises the block's mbarriers for `arrivals` each.
fn initialised(array: &Shared<u64>, count: usize, arrivals: u32) {
    if me() == 0 {
        (0..count).for_each(|i| Barrier(array, i).init(arrivals));
        rt::proxy_fence();
    }
    rt::barrier();
}

#[test]
fn a_load_arrives_for_all_who_wait() {
    let source = Global::new(&(0..64).collect::<Vec<u32>>());
    let output = Global::new(&[0_u32; 64]);
    for seed in [None, Some(1), Some(2)] {
        let executor = checking();
        let executor = seed.map_or(executor.clone(), |seed| executor.shuffled(seed));
        executor
            .launch("load", geometry(1, 64), &|| {
                let (words, target) = (shared::<u64>(1), shared::<u32>(64));
                let full = Barrier(&words, 0);
                initialised(&words, 1, 1);
                if me() == 0 {
                    full.arrive(256);
                    load(&target, 0, &source, 64, full);
                }
                full.wait(false);
                output.write(me(), target.read(63 - me()));
            })
            .unwrap();
    }
    assert_eq!(output.into_vec(), (0..64).rev().collect::<Vec<u32>>());
}

/// A ring of two stages that one warp fills and another empties, many times around.
#[test]
fn a_ring_of_stages_needs_both_kinds_of_barriers() {
    let run = |waits_for_empty: bool| {
        let source = Global::new(&[7_u32; 32]);
        let output = Global::new(&[0_u32; 32]);
        checking().launch("ring", geometry(1, 64), &|| {
            let (words, ring) = (shared::<u64>(4), shared::<u32>(64));
            let (full, empty) = (|s| Barrier(&words, s), |s| Barrier(&words, 2 + s));
            if me() == 0 {
                (0..2).for_each(|s| full(s).init(1));
                (0..2).for_each(|s| empty(s).init(32));
                rt::proxy_fence();
            }
            rt::barrier();
            for turn in 0..10 {
                let (stage, parity) = (turn % 2, turn / 2 % 2 == 1);
                if me() == 32 {
                    if waits_for_empty {
                        empty(stage).wait(!parity);
                    }
                    full(stage).arrive(128);
                    load(&ring, 32 * stage, &source, 32, full(stage));
                } else if me() < 32 {
                    full(stage).wait(parity);
                    let seen = output.read(me()) + ring.read(32 * stage + 31 - me());
                    output.write(me(), seen);
                    empty(stage).arrive(0);
                }
            }
        })?;
        Ok(output.into_vec())
    };
    assert_eq!(run(true).unwrap(), [70; 32]);
    let report = report_of(run(false).map(|_| Default::default()));
    // A second phase before anybody saw the first: the bytes or the reads collide.
    assert!(
        matches!(report, Report::Race { .. } | Report::Mbarrier { .. } | Report::Deadlock { .. }),
        "{report}"
    );
}

#[test]
fn an_early_read_finds_nothing_written() {
    let source = Global::new(&[1_u32; 32]);
    let report = report(32, || {
        let (words, target) = (shared::<u64>(1), shared::<u32>(32));
        initialised(&words, 1, 1);
        if me() == 0 {
            Barrier(&words, 0).arrive(128);
            load(&target, 0, &source, 32, Barrier(&words, 0));
        }
        target.read(me());
        Barrier(&words, 0).wait(false);
    });
    assert!(matches!(report, Report::UninitialisedShared { .. }), "{report}");
}

#[test]
fn an_early_read_of_a_stage_that_is_filled_again_is_a_race() {
    let source = Global::new(&[1_u32; 32]);
    let report = report(32, || {
        let (words, target) = (shared::<u64>(1), shared::<u32>(32));
        target.write(me(), 0);
        rt::proxy_fence();
        initialised(&words, 1, 1);
        if me() == 0 {
            Barrier(&words, 0).arrive(128);
            load(&target, 0, &source, 32, Barrier(&words, 0));
        }
        target.read(me());
        Barrier(&words, 0).wait(false);
    });
    let text = report.to_string();
    let Report::Race { space, first, second, .. } = report else { panic!("{text}") };
    assert_eq!(
        (space, first.access, second.access),
        (Space::Shared, Access::Read, Access::CopyWrite)
    );
    assert_eq!(second.thread, [0, 0, 0]);
    assert!(text.contains("let a bulk copy write"), "{text}");
}

/// Waiting for one copy says nothing of another.
#[test]
fn the_wrong_mbarrier_orders_nothing() {
    let source = Global::new(&[1_u32; 32]);
    let report = report(32, || {
        let (words, target) = (shared::<u64>(2), shared::<u32>(64));
        initialised(&words, 2, 1);
        if me() == 0 {
            for stage in 0..2 {
                Barrier(&words, stage).arrive(128);
                load(&target, 32 * stage, &source, 32, Barrier(&words, stage));
            }
        }
        Barrier(&words, 1).wait(false);
        target.read(me());
        Barrier(&words, 0).wait(false);
    });
    assert!(
        matches!(&report, Report::Race { second, .. } if second.access == Access::Read),
        "{report}"
    );
}

#[test]
fn a_wait_for_the_wrong_parity_never_ends() {
    let source = Global::new(&[1_u32; 32]);
    let report = report(32, || {
        let (words, target) = (shared::<u64>(1), shared::<u32>(32));
        let full = Barrier(&words, 0);
        initialised(&words, 1, 1);
        if me() == 0 {
            full.arrive(128);
            load(&target, 0, &source, 32, full);
        }
        full.wait(false);
        full.wait(true);
    });
    let text = report.to_string();
    let Report::Deadlock { waiting, .. } = report else { panic!("{text}") };
    let expected = Wait::Mbarrier { offset_bytes: 0, parity: true, arrivals: 1, bytes: 0 };
    assert_eq!((waiting[0].wait, waiting[0].threads.len()), (expected, 32));
    assert!(text.contains("parity 1") && text.contains("lacks 1 arrivals"), "{text}");
}

#[test]
fn bytes_that_nobody_announced_end_no_phase() {
    let source = Global::new(&[1_u32; 32]);
    let report = report(32, || {
        let (words, target) = (shared::<u64>(1), shared::<u32>(32));
        initialised(&words, 1, 2);
        if me() == 0 {
            load(&target, 0, &source, 32, Barrier(&words, 0));
            Barrier(&words, 0).arrive(64);
            Barrier(&words, 0).arrive(0);
        }
        Barrier(&words, 0).wait(false);
    });
    let Report::Deadlock { waiting, .. } = &report else { panic!("{report}") };
    assert!(matches!(waiting[0].wait, Wait::Mbarrier { arrivals: 0, bytes: -64, .. }), "{report}");
}

/// A plain arrival ends the phase before the copy came, so that the reader is too early.
#[test]
fn an_arrival_without_its_bytes_lets_readers_go_too_early() {
    let source = Global::new(&[1_u32; 32]);
    let report = report(32, || {
        let (words, target) = (shared::<u64>(1), shared::<u32>(32));
        initialised(&words, 1, 1);
        if me() == 0 {
            load(&target, 0, &source, 32, Barrier(&words, 0));
            Barrier(&words, 0).arrive(0);
        }
        Barrier(&words, 0).wait(false);
        target.read(me());
    });
    assert!(matches!(report, Report::UninitialisedShared { .. }), "{report}");
}

#[test]
fn an_mbarrier_has_to_be_initialised_visibly() {
    let report1 = report(32, || {
        let words = shared::<u64>(1);
        words.write(me() / 32, 0);
    });
    assert!(matches!(report1, Report::Race { .. }), "{report1}");
    let report2 = report(32, || {
        let words = shared::<u64>(1);
        if me() == 0 {
            words.write(0, 0);
        }
        rt::barrier();
        Barrier(&words, 0).arrive(0);
    });
    let Report::Mbarrier { fault, .. } = report2 else { panic!("{report2}") };
    assert_eq!(fault, MbarrierFault::NotInitialised);
    // No barrier after the initialisation.
    let report3 = report(64, || {
        let words = shared::<u64>(1);
        if me() == 0 {
            Barrier(&words, 0).init(64);
        }
        Barrier(&words, 0).arrive(0);
    });
    assert!(matches!(report3, Report::Race { .. }), "{report3}");
    let report4 = report(32, || Barrier(&shared::<u64>(1), 0).init(0));
    let Report::Mbarrier { fault, .. } = report4 else { panic!("{report4}") };
    assert_eq!(fault, MbarrierFault::Count { arrivals: 0 });
}

#[test]
fn a_load_that_nobody_waits_for_is_reported() {
    let source = Global::new(&[1_u32; 32]);
    let report = report(32, || {
        let (words, target) = (shared::<u64>(1), shared::<u32>(32));
        initialised(&words, 1, 1);
        if me() == 0 {
            Barrier(&words, 0).arrive(128);
            load(&target, 0, &source, 32, Barrier(&words, 0));
        }
    });
    assert!(matches!(report, Report::UnfinishedCopy { .. }), "{report}");
}

/// Each thread writes its word, one thread stores all of them in bulk.
fn bulk_store(fence: bool, meet: bool, wait: bool) -> Result<Vec<u32>, Report> {
    let output = Global::new(&[0_u32; 64]);
    let run = block(64, || {
        let source = shared::<u32>(64);
        source.write(me(), 5 + me() as u32);
        if fence {
            rt::proxy_fence();
        }
        if meet {
            rt::barrier();
        } else {
            rt::warp_sync(u32::MAX);
        }
        if me() == 0 {
            store(&source, &output, 64);
            rt::bulk_commit();
            if wait {
                rt::bulk_wait(0, true);
            }
            source.write(0, 0);
            rt::bulk_wait(0, false);
        }
    });
    match run {
        Ok(_) => Ok(output.into_vec()),
        error => Err(report_of(error)),
    }
}

#[test]
fn a_bulk_store_reads_what_was_written_and_fenced() {
    assert_eq!(bulk_store(true, true, true).unwrap(), (5..69).collect::<Vec<u32>>());
    let unfenced = bulk_store(false, true, true).unwrap_err();
    assert!(matches!(unfenced, Report::MissingProxyFence { .. }), "{unfenced}");
    assert!(unfenced.to_string().contains("fence_proxy_async"), "{unfenced}");
    let unordered = bulk_store(true, false, true).unwrap_err();
    assert!(
        matches!(unordered, Report::Race { .. } | Report::UninitialisedShared { .. }),
        "{unordered}"
    );
    let overwritten = bulk_store(true, true, false).unwrap_err();
    assert!(
        matches!(&overwritten, Report::Race { second, .. } if second.access == Access::CopyRead),
        "{overwritten}"
    );
}

/// The store is done while its thread waits for a load: waiting for it later orders it all the same.
#[test]
fn a_store_may_be_done_before_it_is_waited_for() {
    let (input, output) = (Global::new(&[1_u32; 32]), Global::new(&[0_u32; 32]));
    let run = |wait: bool| {
        block(32, || {
            let (words, target) = (shared::<u64>(1), shared::<u32>(32));
            let source = shared::<u32>(32);
            source.write(me(), 3);
            rt::proxy_fence();
            initialised(&words, 1, 1);
            if me() == 0 {
                store(&source, &output, 32);
                rt::bulk_commit();
                Barrier(&words, 0).arrive(128);
                load(&target, 0, &input, 32, Barrier(&words, 0));
                Barrier(&words, 0).wait(false);
                if wait {
                    rt::bulk_wait(0, true);
                }
                source.write(0, 4);
            }
        })
    };
    run(true).unwrap();
    let report = report_of(run(false));
    assert!(matches!(report, Report::Race { .. }), "{report}");
}

/// More copies at once than the executor tells apart, of many threads.
#[test]
fn many_copies_are_under_way_together() {
    let output = Global::new(&[0_u32; 3 * 128]);
    for seed in 0..4 {
        let run = || {
            let source = shared::<u32>(128);
            for turn in 0..3 {
                source.write(me(), turn + me() as u32);
                rt::proxy_fence();
                // Each turn its own word: reads are waited for below, but not writes.
                let global = output.at(128 * turn as usize + me());
                let piece = Piece { shared: source.at(me()), global, bytes: 4 };
                // SAFETY: each thread's own word.
                unsafe { rt::bulk_store(vec![piece]) };
                rt::bulk_commit();
                rt::warp_sync(u32::MAX);
                rt::bulk_wait(0, turn < 2);
            }
            rt::bulk_wait(0, false);
        };
        checking().shuffled(seed).launch("many", geometry(1, 128), &run).unwrap();
    }
    let expected: Vec<u32> = (0..3).flat_map(|turn| turn..turn + 128).collect();
    assert_eq!(output.into_vec(), expected);
}

#[test]
fn groups_are_waited_for_in_their_order() {
    let output = Global::new(&[0_u32; 32]);
    let run = |kept: u32| {
        block(32, || {
            let source = shared::<u32>(32);
            source.write(me(), 1);
            rt::proxy_fence();
            rt::barrier();
            if me() == 0 {
                for word in 0..2 {
                    let piece =
                        Piece { shared: source.at(word), global: output.at(word), bytes: 4 };
                    // SAFETY: one word inside both.
                    unsafe { rt::bulk_store(vec![piece]) };
                    rt::bulk_commit();
                }
                rt::bulk_wait(kept, true);
                source.write(0, 2);
                source.write(1, 2);
                rt::bulk_wait(0, false);
            }
        })
    };
    run(0).unwrap();
    let report = report_of(run(1));
    assert!(matches!(report, Report::Race { .. }), "{report}");
}

#[test]
fn named_barriers_count_who_agrees() {
    block(96, || {
        if me() < 64 {
            assert_eq!(rt::named_barrier_count(1, 64, me().is_multiple_of(4)), 16);
            assert_eq!(rt::named_barrier_count(1, 64, false), 0);
        }
    })
    .unwrap();
}

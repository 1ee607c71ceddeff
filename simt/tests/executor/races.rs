//! Races, and what orders two accesses.

use kasmina_simt::rt::{self, Access};
use kasmina_simt::{Report, Space};

use crate::support::{Global, Shared, block, checking, geometry, me, report, shared};

/// An array that the block has written, each thread its element, before a barrier.
fn filled(len: usize) -> Shared<u32> {
    let array = shared(len);
    array.write(me(), 0);
    rt::barrier();
    array
}

#[test]
fn all_threads_write_one_shared_word() {
    let report = report(64, || shared::<u32>(1).write(0, 1));
    let text = report.to_string();
    let Report::Race { space, offset_bytes, first, second, .. } = report else { panic!("{text}") };
    assert_eq!((space, offset_bytes), (Space::Shared, 0));
    assert_eq!((first.access, second.access), (Access::Write, Access::Write));
    assert_eq!((first.thread, second.thread), ([0, 0, 0], [1, 0, 0]));
    assert_eq!(first.location.line(), 18);
    for part in ["race", "thread (0, 0, 0)", "thread (1, 0, 0)", "races.rs:18:", "barrier"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn a_neighbour_is_read_without_a_barrier() {
    let report = report(64, || {
        let array = shared::<u32>(64);
        array.write(me(), 1);
        if me() > 0 {
            array.read(me() - 1);
        }
    });
    let Report::Race { offset_bytes, first, second, .. } = report else { panic!("{report}") };
    assert_eq!((first.access, second.access, offset_bytes), (Access::Write, Access::Read, 0));
}

#[test]
fn a_read_value_is_overwritten_without_a_barrier() {
    let report = report(64, || {
        let array = shared::<u32>(64);
        array.write(me(), 1);
        rt::barrier();
        array.read((me() + 1) % 64);
        array.write(me(), 2);
    });
    let Report::Race { first, second, .. } = report else { panic!("{report}") };
    assert_eq!((first.access, second.access), (Access::Read, Access::Write));
}

#[test]
fn one_of_many_readers_overwrites() {
    for writer in [0, 31, 32, 255] {
        let report = report(256, || {
            let word = shared::<u32>(1);
            if me() == 0 {
                word.write(0, 1);
            }
            rt::barrier();
            word.read(0);
            rt::warp_sync(u32::MAX);
            if me() == writer {
                word.write(0, 2);
            }
        });
        assert!(matches!(report, Report::Race { .. }), "writer {writer}: {report}");
    }
}

#[test]
fn two_threads_write_one_global_word() {
    let output = Global::new(&[0_u32; 32]);
    let report = report(64, || output.write(me() / 2, 1));
    let Report::Race { space, offset_bytes, .. } = report else { panic!("{report}") };
    assert_eq!((space, offset_bytes), (Space::Global, 0));
}

#[test]
fn a_global_word_is_read_in_another_warp() {
    let buffer = Global::new(&[0_u32; 64]);
    let report = report(64, || {
        buffer.write(me(), 1);
        rt::warp_sync(u32::MAX);
        buffer.read((me() + 32) % 64);
    });
    let Report::Race { space, second, .. } = report else { panic!("{report}") };
    assert_eq!((space, second.thread), (Space::Global, [32, 0, 0]));
}

#[test]
fn lanes_of_one_warp_need_a_sync_too() {
    let turn = |sync: bool| {
        move || {
            let array = filled(32);
            array.write(me(), 1);
            if sync {
                rt::warp_sync(u32::MAX);
            }
            array.read(31 - me());
        }
    };
    let report = report(32, turn(false));
    assert!(matches!(report, Report::Race { .. }), "{report}");
    block(32, turn(true)).unwrap();
}

#[test]
fn a_warp_sync_orders_only_its_lanes() {
    let turn = |partner: usize| {
        move || {
            let array = filled(32);
            array.write(me(), 1);
            rt::warp_sync(if me() < 16 { 0xffff } else { 0xffff_0000 });
            array.read(me() ^ partner);
        }
    };
    block(32, turn(15)).unwrap();
    let report = report(32, turn(16));
    assert!(matches!(report, Report::Race { .. }), "{report}");
}

#[test]
fn bytes_of_one_word_are_apart() {
    block(128, || {
        let array = shared::<u8>(128);
        array.write(me(), 1);
        array.read(me());
    })
    .unwrap();
    let output = Global::new(&[0_u16; 128]);
    block(128, || output.write(me(), 1)).unwrap();
}

#[test]
fn a_wide_write_meets_a_narrow_one() {
    let output = Global::new(&[0_u8; 64]);
    let base = output_address(&output);
    let report = report(2, || {
        let (offset, bytes) = if me() == 0 { (6, 1) } else { (0, 16) };
        rt::access_global(base as *const u8, 64, offset, bytes, 1, Access::Write, false);
    });
    let Report::Race { offset_bytes, .. } = report else { panic!("{report}") };
    assert_eq!(offset_bytes, 6);
}

fn output_address(output: &Global<u8>) -> usize {
    std::ptr::from_ref(output).addr()
}

#[test]
fn a_barrier_orders() {
    let buffer = Global::new(&[0_u32; 64]);
    block(64, || {
        let array = shared::<u32>(64);
        for round in 0..3 {
            array.write(me(), round);
            buffer.write(me(), round);
            rt::barrier();
            array.read(63 - me());
            buffer.read(63 - me());
            rt::barrier_count(true);
        }
    })
    .unwrap();
}

#[test]
fn readers_do_not_race() {
    let buffer = Global::new(&[0_u32; 1]);
    block(256, || {
        buffer.read(0);
    })
    .unwrap();
}

#[test]
fn atomics_do_not_race_with_each_other() {
    let counter = Global::new(&[0_u32; 4]);
    block(256, || {
        counter.fetch_add(me() % 4, 1);
    })
    .unwrap();
    assert_eq!(counter.into_vec(), [64; 4]);
}

#[test]
fn an_atomic_races_with_a_plain_write() {
    let counter = Global::new(&[0_u32]);
    let report = report(64, || {
        if me() == 40 {
            counter.write(0, 7);
        } else {
            counter.fetch_add(0, 1);
        }
    });
    let Report::Race { first, second, .. } = report else { panic!("{report}") };
    assert_eq!((first.access, second.access), (Access::Atomic, Access::Write));
}

#[test]
fn a_flag_orders_what_lies_before_it() {
    for (through_flag, threads) in [(true, 64), (true, 2), (false, 64), (false, 2)] {
        let flag = Global::new(&[0_u32; 2]);
        let data = Global::new(&[0_u32]);
        let last = threads as usize - 1;
        let run = block(threads, || {
            if me() == 0 {
                data.write(0, 5);
                flag.store(0, 1);
            } else if me() == last {
                // The second flag is another word: polling it learns nothing of the first.
                while flag.load(usize::from(!through_flag)) == 0 {
                    if !through_flag {
                        break;
                    }
                    rt::spin();
                }
                data.read(0);
            }
        });
        assert_eq!(run.is_ok(), through_flag, "{threads} threads: {run:?}");
    }
}

#[test]
fn knowledge_travels_over_three_threads() {
    let flags = Global::new(&[0_u32; 2]);
    let data = Global::new(&[0_u32]);
    block(96, || {
        let wait = |flag| {
            while flags.load(flag) == 0 {
                rt::spin();
            }
        };
        match me() {
            70 => {
                data.write(0, 5);
                flags.store(0, 1);
            }
            35 => {
                wait(0);
                flags.store(1, 1);
            }
            0 => {
                wait(1);
                assert_eq!(data.read(0), 5);
            }
            _ => {}
        }
    })
    .unwrap();
}

#[test]
fn a_write_after_the_release_is_not_ordered() {
    let flag = Global::new(&[0_u32]);
    let data = Global::new(&[0_u32]);
    let report = report(64, || {
        if me() == 0 {
            flag.store(0, 1);
            data.write(0, 5);
        } else if me() == 33 {
            flag.load(0);
            data.read(0);
        }
    });
    assert!(matches!(report, Report::Race { .. }), "{report}");
}

#[test]
fn named_barriers_pass_a_buffer_between_two_warps() {
    let turn = |release: bool| {
        move || {
            let buffer = shared::<u32>(32);
            let lane = me() % 32;
            for round in 0..4_u32 {
                if me() < 32 {
                    buffer.write(lane, round);
                    rt::named_barrier(1, 64);
                    if release {
                        rt::named_barrier(2, 64);
                    }
                } else {
                    rt::named_barrier(1, 64);
                    assert!(!release || buffer.read(31 - lane) == round);
                    buffer.read(31 - lane);
                    if release {
                        rt::named_barrier(2, 64);
                    }
                }
            }
        }
    };
    block(64, turn(true)).unwrap();
    let report = report(64, turn(false));
    assert!(matches!(report, Report::Race { .. }), "{report}");
}

#[test]
fn a_named_barrier_does_not_order_others() {
    let report = report(96, || {
        let array = shared::<u32>(96);
        array.write(me(), 1);
        if me() < 64 {
            rt::named_barrier(3, 64);
        } else {
            array.read(0);
        }
    });
    assert!(matches!(report, Report::Race { .. }), "{report}");
}

#[test]
fn a_warp_hands_on_what_one_lane_learned() {
    let flag = Global::new(&[0_u32]);
    let data = Global::new(&[0_u32; 32]);
    block(64, || {
        if me() < 32 {
            data.write(me(), 1);
            rt::warp_sync(u32::MAX);
            if me() == 0 {
                flag.store(0, 1);
            }
        } else {
            while me() == 32 && flag.load(0) == 0 {
                rt::spin();
            }
            rt::warp_sync(u32::MAX);
            data.read(63 - me());
        }
    })
    .unwrap();
}

#[test]
fn without_the_checking_mode_races_pass() {
    let executor = checking().checks(false);
    executor.launch("race", geometry(1, 64), &|| shared::<u32>(1).write(0, 1)).unwrap();
}

#[test]
fn a_race_is_found_in_any_order() {
    for seed in 0..20 {
        let run = checking().shuffled(seed).launch("race", geometry(2, 128), &|| {
            let array = filled(128);
            array.write(me(), 1);
            rt::warp_sync(u32::MAX);
            array.read(127 - me());
        });
        assert!(matches!(crate::support::report_of(run), Report::Race { .. }), "seed {seed}");
    }
}

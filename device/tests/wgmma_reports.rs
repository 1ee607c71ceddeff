//! What the executor reports of products that are used against their rules.

use kasmina_device::mbarrier::{self, Mbarrier};
use kasmina_device::shared::DynamicShared;
use kasmina_device::swizzle::Swizzle;
use kasmina_device::wgmma::{self, Descriptor, KMajor, Layout, M64N8, OperandA};
use kasmina_device::{shared_array, thread, tma};
use kasmina_simt::{Access, Executor, Geometry, LaunchError, Report, Wait, WgmmaFault};
use kasmina_types::{In, bf16};

#[derive(Clone, Copy, PartialEq, Debug)]
enum Mistake {
    None,
    NoFence,
    NoFenceForOperand,
    NoProxyFence,
    NoBarrier,
    NoCommit,
    TooManyPending,
    NoWait,
    OverwrittenBeforeWait,
    OverwrittenAfterBarrier,
    OverwrittenByAnotherWarp,
    OtherDescriptor,
    OtherGroup,
    AWarpStaysAway,
    OutOfBounds,
}

/// A of 64 rows and B of 8, of 32 bytes each, then the operand of the second product.
fn launch(mistake: Mistake) -> Result<(), LaunchError> {
    use Mistake as M;
    let executor = Executor::new().checks(true).shuffled(1);
    let bytes = if mistake == M::OutOfBounds { 72 * 32 - 16 } else { 72 * 32 };
    let geometry = Geometry {
        grid: [1, 1, 1],
        cluster: [1; 3],
        block: [128, 1, 1],
        dynamic_shared_bytes: bytes,
    };
    executor
        .launch("test", geometry, &|| {
            let shared = DynamicShared::<u32>::whole();
            let me = thread::thread_idx_x() as usize;
            let layout = Layout::rows(Swizzle::Bytes32);
            // SAFETY: what is wrong is reported before it does harm.
            unsafe {
                let mut word = me;
                while word < shared.len() {
                    shared.write(word, 0x3f80_3f80);
                    word += 128;
                }
                if mistake != M::NoProxyFence {
                    tma::fence_proxy_async();
                }
                if mistake != M::NoBarrier {
                    thread::sync_threads();
                }
                if mistake == M::AWarpStaysAway && me >= 96 {
                    return;
                }
                let shift = if mistake == M::OtherDescriptor && me == 77 { 8 * 4 } else { 0 };
                let a = Descriptor::<KMajor>::new(shared.place(0), layout);
                let b = Descriptor::<KMajor>::new(shared.place(64 * 8 - shift), layout);
                let mut d = M64N8::zeroed();
                if mistake != M::NoFence {
                    d.fence();
                }
                if mistake == M::OtherGroup && me == 5 {
                    wgmma::commit_group();
                }
                d.multiply_add::<bf16, _, _>(a, b, true);
                if mistake == M::NoFenceForOperand {
                    let a = OperandA::new([0; 4]);
                    d.multiply_add_from_registers::<bf16, _>(&a, b, true);
                }
                if mistake != M::NoCommit {
                    wgmma::commit_group();
                }
                match mistake {
                    M::OverwrittenBeforeWait => shared.write(me, 0),
                    M::OverwrittenAfterBarrier => {
                        thread::sync_threads();
                        shared.write(me, 0);
                    }
                    M::NoWait => return,
                    _ => {}
                }
                let d = if mistake == M::TooManyPending { d.wait::<1>() } else { d.wait::<0>() };
                if mistake == M::OverwrittenByAnotherWarp {
                    // Its own warp is done; the other three may read on.
                    shared.write(me, 0);
                }
                thread::sync_threads();
                shared.write(me, 0);
                assert_eq!(d.registers, [16.0; 4]);
            }
        })
        .map(drop)
}

#[track_caller]
fn report(mistake: Mistake) -> Report {
    match launch(mistake) {
        Err(LaunchError::Report(report)) => report,
        other => panic!("{mistake:?}: expected a report, got {other:?}"),
    }
}

#[track_caller]
fn fault(mistake: Mistake) -> WgmmaFault {
    match report(mistake) {
        Report::Wgmma { fault, .. } => fault,
        other => panic!("{mistake:?}: {other}"),
    }
}

#[test]
fn what_is_right_is_not_reported() {
    launch(Mistake::None).expect("a launch that is right");
}

#[test]
fn a_missing_fence() {
    assert_eq!(fault(Mistake::NoFence), WgmmaFault::MissingFence);
    assert_eq!(fault(Mistake::NoFenceForOperand), WgmmaFault::MissingFence);
}

#[test]
fn operands_that_were_not_shown_to_the_tensor_cores() {
    let report = report(Mistake::NoProxyFence);
    assert!(matches!(report, Report::MissingProxyFence { .. }), "{report}");
}

#[test]
fn operands_that_others_wrote_without_a_barrier() {
    let report = report(Mistake::NoBarrier);
    // A thread that comes first may read what nobody has written yet.
    let found =
        matches!(&report, Report::Race { second, .. } if second.access == Access::WgmmaRead);
    assert!(found || matches!(report, Report::UninitialisedShared { .. }), "{report}");
}

#[test]
fn accumulators_that_are_read_before_their_wait() {
    assert_eq!(fault(Mistake::NoCommit), WgmmaFault::NotWaited);
    assert_eq!(fault(Mistake::TooManyPending), WgmmaFault::NotWaited);
}

#[test]
fn a_product_that_outlives_its_block() {
    assert_eq!(fault(Mistake::NoWait), WgmmaFault::Unfinished);
}

#[test]
fn operands_that_are_overwritten_too_early() {
    for mistake in [
        Mistake::OverwrittenBeforeWait,
        Mistake::OverwrittenAfterBarrier,
        Mistake::OverwrittenByAnotherWarp,
    ] {
        let report = report(mistake);
        let Report::Race { first, second, .. } = report else { panic!("{mistake:?}: {report}") };
        assert_eq!((first.access, second.access), (Access::WgmmaRead, Access::Write));
    }
}

#[test]
fn threads_of_a_warpgroup_that_differ() {
    assert!(matches!(fault(Mistake::OtherDescriptor), WgmmaFault::Diverged { .. }));
    assert!(matches!(fault(Mistake::OtherGroup), WgmmaFault::Diverged { .. }));
}

#[test]
fn a_warp_that_does_not_come() {
    let Report::Deadlock { waiting, exited, .. } = report(Mistake::AWarpStaysAway) else {
        panic!("no deadlock")
    };
    assert_eq!(exited.len(), 32);
    assert!(waiting.iter().all(|group| group.wait == Wait::Warpgroup), "{waiting:?}");
}

#[test]
fn an_operand_past_the_end_of_its_array() {
    let report = report(Mistake::OutOfBounds);
    assert!(matches!(report, Report::OutOfBounds { .. }), "{report}");
}

/// A copy brings A's rows, and the product does not wait for it, or has not been waited for when it begins.
fn beside_a_copy(before: bool) -> Report {
    let source = [0_u128; 128];
    let input = In::new(source.as_ptr().cast::<u8>(), 2048);
    let geometry = Geometry {
        grid: [1, 1, 1],
        cluster: [1; 3],
        block: [128, 1, 1],
        dynamic_shared_bytes: 72 * 32,
    };
    let launched = Executor::new().checks(true).launch("test", geometry, &|| {
        let shared = DynamicShared::<u32>::whole();
        let words = shared_array![u64; 1];
        let barrier = Mbarrier::of(&words, 0);
        let me = thread::thread_idx_x() as usize;
        // SAFETY: what is wrong is reported before it does harm.
        unsafe {
            let copy = || {
                if me == 0 {
                    barrier.arrive_expect_tx(2048);
                    tma::load(shared.place(0), &input, 0, 2048, barrier);
                }
            };
            let mut word = me;
            while word < shared.len() {
                shared.write(word, 0);
                word += 128;
            }
            if me == 0 {
                barrier.init(1);
                mbarrier::fence_init();
            }
            tma::fence_proxy_async();
            thread::sync_threads();
            if before {
                copy();
            }
            let layout = Layout::rows(Swizzle::Bytes32);
            let mut d = M64N8::zeroed();
            d.fence();
            let a = Descriptor::<KMajor>::new(shared.place(0), layout);
            let b = Descriptor::<KMajor>::new(shared.place(64 * 8), layout);
            d.multiply_add::<bf16, _, _>(a, b, true);
            wgmma::commit_group();
            if !before {
                copy();
            }
            barrier.wait(false);
            let _ = d.wait::<0>();
        }
    });
    match launched {
        Err(LaunchError::Report(report)) => report,
        other => panic!("expected a report, got {other:?}"),
    }
}

#[test]
fn a_copy_and_a_product_without_an_order() {
    for before in [true, false] {
        let report = beside_a_copy(before);
        let Report::Race { first, second, .. } = report else { panic!("{before}: {report}") };
        assert_eq!((first.access, second.access), (Access::WgmmaRead, Access::CopyWrite));
    }
}

//! Launches: geometry, shared memory limits, panics, errors of several blocks, nothing left behind.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kasmina_simt::{Geometry, LaunchError, Report, rt};

use crate::support::{Global, block, checking, geometry, me, shared};

#[test]
fn geometry_that_no_gpu_takes() {
    let launch = |grid, block, dynamic_shared_bytes| {
        let geometry = Geometry { grid, cluster: [1; 3], block, dynamic_shared_bytes };
        checking().launch("shape", geometry, &|| ()).unwrap_err()
    };
    let error = launch([0, 1, 1], [32, 1, 1], 0);
    assert!(matches!(error, LaunchError::EmptyGeometry { .. }), "{error}");
    assert!(error.to_string().contains("(0, 1, 1)"), "{error}");
    assert!(matches!(launch([1; 3], [1, 0, 1], 0), LaunchError::EmptyGeometry { .. }));
    for block in [[1025, 1, 1], [32, 33, 1], [1, 1, 65], [u32::MAX; 3]] {
        assert!(matches!(launch([1; 3], block, 0), LaunchError::BlockTooLarge { .. }));
    }
    for grid in [[1 << 31, 1, 1], [1, 65536, 1], [1, 1, 65536]] {
        assert!(matches!(launch(grid, [1; 3], 0), LaunchError::GridTooLarge { .. }));
    }
    let limit = 227 * 1024;
    assert!(matches!(launch([1; 3], [32, 1, 1], limit + 1), LaunchError::SharedMemory { .. }));
}

#[test]
fn static_and_dynamic_shared_memory_share_the_limit() {
    let geometry =
        Geometry { grid: [1; 3], cluster: [1; 3], block: [32, 1, 1], dynamic_shared_bytes: 1000 };
    let executor = checking().shared_limit(1024);
    let body = |len: usize| move || shared::<u8>(len).write(me() % len, 1);
    let stats = executor.clone().checks(false).launch("fits", geometry, &body(24)).unwrap();
    assert_eq!(stats.shared_bytes, 1024);
    let error = executor.launch("large", geometry, &body(25)).unwrap_err();
    let LaunchError::SharedMemory { needed_bytes, dynamic_bytes, limit_bytes, .. } = error else {
        panic!("{error}")
    };
    assert_eq!((needed_bytes, dynamic_bytes, limit_bytes), (1025, 1000, 1024));
}

#[test]
fn a_panic_is_contained() {
    let error = block(64, || assert!(me() != 33, "thread {} gave up", me())).unwrap_err();
    let LaunchError::Panic { kernel, block: at, thread, message } = error else {
        panic!("{error}")
    };
    assert_eq!((&*kernel, at, thread), ("test", [0; 3], [33, 0, 0]));
    assert_eq!(message, "thread 33 gave up");
    block(64, || ()).unwrap();
}

#[test]
fn a_warp_call_with_the_wrong_mask_panics() {
    let error = block(32, || rt::warp_sync(1)).unwrap_err();
    assert!(error.to_string().contains("lane 1 calls a warp collective"), "{error}");
    let error = block(32, || rt::named_barrier(0, 32)).unwrap_err();
    assert!(error.to_string().contains("one of 1 to 15"), "{error}");
    let error = block(32, || rt::named_barrier(1, 64)).unwrap_err();
    assert!(error.to_string().contains("multiple of 32"), "{error}");
}

#[test]
fn outside_of_a_kernel_the_functions_panic() {
    let calls: [fn(); 4] =
        [|| assert_eq!(rt::thread_idx(), [0; 3]), rt::barrier, rt::spin, || rt::warp_sync(1)];
    for call in calls {
        let payload = catch_unwind(call).unwrap_err();
        let message = payload.downcast_ref::<&str>().unwrap();
        assert!(message.contains("inside of Executor::launch"), "{message}");
    }
}

/// Counts its living values.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        // Calls of a thread that is being unwound pass through.
        if std::thread::panicking() {
            rt::barrier();
            rt::warp_sync(u32::MAX);
        }
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[test]
fn unfinished_threads_are_unwound() {
    let count = Arc::new(AtomicUsize::new(0));
    let wrong: [&(dyn Fn() + Sync); 3] = [
        &|| {
            let _local = Counted::new(&count);
            rt::barrier();
            assert!(me() != 40, "wrong on purpose");
            rt::barrier();
        },
        &|| {
            let _local = Counted::new(&count);
            rt::warp_sync(u32::MAX);
            shared::<u32>(1).read(0);
        },
        &|| {
            let _local = Counted::new(&count);
            if me() != 9 {
                rt::spin();
                rt::barrier();
            }
        },
    ];
    for body in wrong {
        checking().launch("unwind", geometry(6, 64), body).unwrap_err();
        assert_eq!(count.load(Ordering::Relaxed), 0);
    }
}

#[test]
fn the_first_failing_block_is_returned() {
    for _ in 0..50 {
        let buffer = Global::new(&[0_u32; 5]);
        let run = checking().launch("many", geometry(64, 32), &|| {
            if me() == 0 {
                buffer.read(rt::block_idx()[0] as usize);
            }
        });
        let Err(LaunchError::Report(Report::OutOfBounds { block, .. })) = run else {
            panic!("{run:?}")
        };
        assert_eq!(block, [5, 0, 0]);
    }
}

#[test]
fn one_seed_is_one_order() {
    let order = |seed| {
        let seen = std::sync::Mutex::new(Vec::new());
        checking()
            .shuffled(seed)
            .launch("order", geometry(1, 96), &|| seen.lock().unwrap().push(me()))
            .unwrap();
        seen.into_inner().unwrap()
    };
    assert_eq!(order(3), order(3));
    assert_ne!(order(3), order(4));
    let mut sorted = order(3);
    sorted.sort_unstable();
    assert!(sorted.iter().copied().eq(0..96));
}

#[test]
fn thousands_of_launches_leave_nothing_behind() {
    let output = Global::new(&[0_u32; 64]);
    let launch = |i: u32| {
        let run = checking().launch("small", geometry(2, 32), &|| {
            let array = shared::<u32>(32);
            array.write(me(), i);
            rt::barrier();
            let place = rt::block_idx()[0] as usize * 32 + me();
            output.write(place, array.read(31 - me()));
            assert!(!i.is_multiple_of(16) || me() != 0 || catch());
        });
        run.unwrap();
    };
    (0..200).for_each(launch);
    let mappings = mappings();
    (0..5000).for_each(launch);
    // Stacks that leak would add thousands; other tests in this process come and go meanwhile.
    if let (Some(before), Some(after)) = (mappings, self::mappings()) {
        assert!(after < before + 10_000, "{before} mappings became {after}");
    }
}

/// A panic that the kernel catches itself.
fn catch() -> bool {
    catch_unwind(AssertUnwindSafe(|| std::panic::resume_unwind(Box::new(())))).is_err()
}

/// Memory mappings of this process, where the system tells.
fn mappings() -> Option<usize> {
    Some(std::fs::read_to_string("/proc/self/maps").ok()?.lines().count())
}

#[test]
fn launches_run_side_by_side() {
    let flag = Global::new(&[0_u32]);
    std::thread::scope(|scope| {
        // It polls, on every thread of the pool, for what the launches below bring about.
        let waiting = scope.spawn(|| {
            checking().spin_limit(Duration::from_secs(60)).launch("wait", geometry(64, 32), &|| {
                while flag.load(0) == 0 {
                    rt::spin();
                }
            })
        });
        for i in 0..20 {
            let run = checking().launch("other", geometry(8, 64), &|| {
                rt::barrier();
                if i == 19 && rt::block_idx()[0] == 7 && me() == 0 {
                    flag.store(0, 1);
                }
            });
            run.unwrap();
        }
        waiting.join().unwrap().unwrap();
    });
}

#[test]
fn a_full_block_of_the_largest_size() {
    let stats = checking().launch("full", geometry(4, 1024), &|| {
        for _ in 0..10 {
            rt::barrier();
        }
    });
    let stats = stats.unwrap();
    assert_eq!((stats.threads, stats.barriers), (4096, 40));
}

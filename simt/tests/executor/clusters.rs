//! Clusters: what their blocks see of each other, what orders it, and the mistakes that are reported.

use std::sync::atomic::{AtomicU32, Ordering};

use kasmina_simt::rt::{self, Access, Piece};
use kasmina_simt::{
    ClusterFault, Executor, Geometry, LaunchError, LaunchStats, Report, Space, Wait,
};

use crate::support::{Global, Shared, checking, me, report_of, shared};

/// One cluster of `blocks` along x.
fn one(blocks: u32, threads: u32) -> Geometry {
    clusters(1, blocks, threads)
}

fn clusters(count: u32, blocks: u32, threads: u32) -> Geometry {
    Geometry {
        grid: [count * blocks, 1, 1],
        cluster: [blocks, 1, 1],
        block: [threads, 1, 1],
        dynamic_shared_bytes: 0,
    }
}

fn run(blocks: u32, threads: u32, body: impl Fn() + Sync) -> Result<LaunchStats, LaunchError> {
    checking().launch("cluster", one(blocks, threads), &body)
}

/// The report of a cluster, the same in whatever order its threads run.
#[track_caller]
fn report(blocks: u32, threads: u32, body: impl Fn() + Sync) -> Report {
    for seed in 0..4 {
        let shuffled = checking().shuffled(seed);
        report_of(shuffled.launch("cluster", one(blocks, threads), &body));
    }
    report_of(run(blocks, threads, body))
}

#[track_caller]
fn fault(blocks: u32, threads: u32, body: impl Fn() + Sync) -> ClusterFault {
    match report(blocks, threads, body) {
        Report::Cluster { fault, .. } => fault,
        other => panic!("expected a fault of the cluster, got {other}"),
    }
}

fn rank() -> u32 {
    rt::cluster_rank()
}

#[track_caller]
fn sync() {
    rt::cluster_arrive();
    rt::cluster_wait();
}

/// An array of `len` words in the block of a rank.
struct Remote(*mut u8, usize);

#[track_caller]
fn remote<T: Copy>(array: &Shared<T>, len: usize, rank: u32) -> Remote {
    Remote(rt::map_shared(array.at(0), rank), len * size_of::<T>())
}

impl Remote {
    #[track_caller]
    fn read(&self, index: usize) -> u32 {
        rt::access_cluster(self.0, self.1, 4 * index, 4, 4, Access::Read);
        // SAFETY: the declaration above ends the thread where `index` is outside.
        unsafe { self.0.cast::<u32>().add(index).read() }
    }

    #[track_caller]
    fn write(&self, index: usize, value: u32) {
        rt::access_cluster(self.0, self.1, 4 * index, 4, 4, Access::Write);
        // SAFETY: as in `read`.
        unsafe { self.0.cast::<u32>().add(index).write(value) };
    }

    /// Arrives at an mbarrier there.
    #[track_caller]
    fn arrive(&self, index: usize) {
        rt::access_cluster(self.0, self.1, 8 * index, 8, 8, Access::Mbarrier);
        rt::mbarrier_arrive_cluster(self.0.wrapping_add(8 * index));
    }

    /// The same, and releases to the thread's block alone.
    #[track_caller]
    fn arrive_reader(&self, index: usize) {
        rt::access_cluster(self.0, self.1, 8 * index, 8, 8, Access::Mbarrier);
        rt::mbarrier_arrive(self.0.wrapping_add(8 * index), 0);
    }
}

#[track_caller]
fn init(words: &Shared<u64>, index: usize, arrivals: u32) {
    words.declare(index, Access::Write);
    rt::mbarrier_init(words.at(index), arrivals);
}

#[track_caller]
fn arrive(words: &Shared<u64>, index: usize, bytes: u32) {
    words.declare(index, Access::Mbarrier);
    rt::mbarrier_arrive(words.at(index), bytes);
}

#[track_caller]
fn wait(words: &Shared<u64>, index: usize, parity: bool) {
    words.declare(index, Access::Mbarrier);
    rt::mbarrier_wait(words.at(index), parity);
}

#[track_caller]
fn wait_cluster(words: &Shared<u64>, index: usize, parity: bool) {
    words.declare(index, Access::Mbarrier);
    rt::mbarrier_wait_cluster(words.at(index), parity);
}

/// A load of `count` words to the same place of each block of `mask`.
#[track_caller]
fn multicast(
    target: &Shared<u32>,
    at: usize,
    source: &Global<u32>,
    (from, count): (usize, usize),
    words: &Shared<u64>,
    mask: u16,
) {
    let piece = Piece { shared: target.at(at), global: source.at(from), bytes: 4 * count };
    // SAFETY: the tests keep both ranges inside their buffers, and nobody writes the source.
    unsafe { rt::bulk_load_multicast(&[piece], words.at(0), mask) };
}

#[test]
fn clusters_that_no_gpu_takes() {
    let launch = |grid, cluster| {
        let geometry = Geometry { grid, cluster, block: [32, 1, 1], dynamic_shared_bytes: 0 };
        checking().launch("shape", geometry, &|| ())
    };
    for (grid, cluster) in [([9, 1, 1], [9, 1, 1]), ([4, 1, 1], [0, 1, 1]), ([6, 2, 1], [4, 1, 1])]
    {
        let error = launch(grid, cluster).unwrap_err();
        assert!(matches!(error, LaunchError::Cluster { max_blocks: 8, .. }), "{error}");
    }
    assert!(launch([4, 1, 1], [u32::MAX; 3]).is_err());
    assert_eq!(launch([8, 4, 2], [2, 2, 2]).unwrap().blocks, 64);
}

/// Places of blocks in clusters of three dimensions, in a shuffled order, each once.
#[test]
fn every_block_knows_its_place() {
    let geometry =
        Geometry { grid: [4, 6, 2], cluster: [2, 3, 1], block: [5, 3, 1], dynamic_shared_bytes: 0 };
    for executor in [checking(), checking().shuffled(3)] {
        let output = Global::new(&[u32::MAX; 48]);
        let stats = executor
            .launch("places", geometry, &|| {
                assert_eq!((rt::cluster_dim(), rt::block_dim()), ([2, 3, 1], [5, 3, 1]));
                let ([x, y, z], [cx, cy, cz]) = (rt::block_idx(), rt::cluster_idx());
                assert_eq!([cx, cy, cz], [x / 2, y / 3, z]);
                assert_eq!(rank(), x % 2 + 2 * (y % 3));
                let [tx, ty, _] = rt::thread_idx();
                assert_eq!(rt::linear_thread(), tx + 5 * ty);
                assert_eq!(rt::active_lanes(), 0x7fff);
                sync();
                if me() == 0 {
                    output.write((x + 4 * (y + 6 * z)) as usize, rank());
                }
            })
            .unwrap();
        assert_eq!((stats.blocks, stats.threads), (48, 720));
        assert!(output.into_vec().iter().all(|&rank| rank < 6));
    }
}

/// Each block writes its own array, reads its right neighbour's and writes into its left one's, many times around.
#[test]
fn blocks_read_and_write_each_other() {
    for (executor, blocks) in
        [(checking(), 8), (checking().shuffled(7), 5), (checking().checks(false), 3)]
    {
        let output = Global::new(&vec![0_u32; 3 * blocks as usize * 48]);
        let kernel = || {
            let (mine, inbox) = (shared::<u32>(48), shared::<u32>(48));
            let mut value = 100 * rank() + me() as u32;
            for _ in 0..3 {
                mine.write(me(), value);
                sync();
                let right = remote(&mine, 48, (rank() + 1) % blocks).read(47 - me());
                remote(&inbox, 48, (rank() + blocks - 1) % blocks).write(me(), right);
                sync();
                value = inbox.read(me()) + 1;
            }
            output.write(rt::block_idx()[0] as usize * 48 + me(), value);
            sync();
        };
        executor.launch("ring", clusters(3, blocks, 48), &kernel).unwrap();
        // Each round a value comes from the second block to the right, mirrored.
        for (index, value) in output.into_vec().into_iter().enumerate() {
            let (block, thread) = (index as u32 / 48 % blocks, index as u32 % 48);
            assert_eq!(value, 100 * ((block + 6) % blocks) + (47 - thread) + 3);
        }
    }
}

/// Blocks that ask for their static arrays in different orders still find the same array in each other.
#[test]
fn arrays_are_laid_out_alike() {
    run(2, 32, || {
        let (first, second) = (|| shared::<u32>(32), || shared::<u32>(32));
        let write = |array: Shared<u32>, value: u32| array.write(me(), value);
        if rank() == 0 {
            write(first(), 1);
            write(second(), 2);
        } else {
            write(second(), 4);
            write(first(), 3);
        }
        sync();
        let other = 1 - rank();
        let seen = [first(), second()].map(|array| remote(&array, 32, other).read(me()));
        assert_eq!(seen, if rank() == 0 { [3, 4] } else { [1, 2] });
        sync();
    })
    .unwrap();
}

#[test]
fn a_barrier_of_a_block_orders_nothing_in_another() {
    let kernel = |cluster: bool| {
        move || {
            let array = shared::<u32>(32);
            array.write(me(), 0);
            sync();
            if rank() == 0 {
                remote(&array, 32, 1).write(me(), 1);
            }
            if cluster {
                sync();
            } else {
                rt::barrier();
            }
            if rank() == 1 {
                array.read(me());
            }
            sync();
        }
    };
    run(2, 32, kernel(true)).unwrap();
    let report = report(2, 32, kernel(false));
    let text = report.to_string();
    let Report::Race { space, owner, offset_bytes, first, second, .. } = report else {
        panic!("{text}")
    };
    assert_eq!((space, owner, offset_bytes), (Space::Shared, [1, 0, 0], 0));
    // Which of them ran first does not matter.
    let mut touches = [first, second].map(|touch| (touch.block, touch.access));
    touches.sort_by_key(|(block, _)| *block);
    assert_eq!(touches, [([0, 0, 0], Access::Write), ([1, 0, 0], Access::Read)]);
    let named = ["of block (0, 0, 0)", "of block (1, 0, 0)"].iter().any(|b| text.contains(b));
    assert!(named && text.contains("one of the cluster"), "{text}");
}

/// What a thread does between coming and waiting is not ordered before the others.
#[test]
fn only_what_was_before_arriving_is_ordered() {
    let kernel = |early: bool| {
        move || {
            let array = shared::<u32>(64);
            array.write(me(), 0);
            array.write(32 + me(), 0);
            sync();
            let other = remote(&array, 64, 1 - rank());
            if early {
                other.write(me(), 1);
            }
            rt::cluster_arrive();
            if !early {
                other.write(me(), 1);
            }
            // Nothing of it is the other block's.
            array.write(32 + me(), 5);
            rt::cluster_wait();
            array.read(me());
            sync();
        }
    };
    run(2, 32, kernel(true)).unwrap();
    let report = report(2, 32, kernel(false));
    assert!(matches!(report, Report::Race { .. }), "{report}");
}

#[test]
fn two_blocks_of_a_cluster_race_in_global_memory() {
    let output = Global::new(&[0_u32; 32]);
    let report = report(2, 32, || output.write(me(), rank()));
    let Report::Race { space, .. } = report else { panic!("{report}") };
    assert_eq!(space, Space::Global);
    // Blocks that are not together are not looked at.
    checking().launch("apart", clusters(2, 1, 32), &|| output.write(me(), 1)).unwrap();
}

#[test]
fn memory_that_a_neighbour_did_not_write() {
    let report = report(2, 32, || {
        let array = shared::<u32>(32);
        if rank() == 0 {
            array.write(me(), 1);
        }
        sync();
        if rank() == 0 {
            remote(&array, 32, 1).read(me());
        }
        sync();
    });
    let text = report.to_string();
    let Report::UninitialisedShared { block, owner, .. } = report else { panic!("{text}") };
    assert_eq!((block, owner), ([0, 0, 0], [1, 0, 0]));
    assert!(text.contains("of block (1, 0, 0)"), "{text}");
}

#[test]
fn a_read_past_a_neighbours_array() {
    let report = report(2, 32, || {
        let array = shared::<u32>(32);
        array.write(me(), 1);
        sync();
        remote(&array, 32, 1 - rank()).read(me() + 1);
        sync();
    });
    assert!(matches!(report, Report::OutOfBounds { offset_bytes: 128, .. }), "{report}");
}

/// Each block's threads arrive at the mbarrier of block 0, which then sees what they wrote to it.
#[test]
fn arrivals_from_other_blocks_order_what_was_before() {
    let kernel = |arrives_first: bool, releases: bool, acquires: bool| {
        move || {
            let (words, array) = (shared::<u64>(1), shared::<u32>(4 * 64));
            let arrive = |there: &Remote| {
                if releases { there.arrive(0) } else { there.arrive_reader(0) }
            };
            if me() == 0 {
                init(&words, 0, 4 * 64);
                rt::proxy_fence();
            }
            sync();
            let (there, inbox) = (remote(&words, 1, 0), remote(&array, 4 * 64, 0));
            let at = 64 * rank() as usize + me();
            if arrives_first {
                arrive(&there);
            }
            inbox.write(at, at as u32);
            if !arrives_first {
                arrive(&there);
            }
            if rank() == 0 {
                if acquires {
                    wait_cluster(&words, 0, false);
                } else {
                    wait(&words, 0, false);
                }
                for block in 0..4 {
                    assert_eq!(array.read(64 * block + me()) as usize, 64 * block + me());
                }
            }
            sync();
        }
    };
    let right = kernel(false, true, true);
    run(4, 64, right).unwrap();
    checking().shuffled(2).launch("arrivals", one(4, 64), &right).unwrap();
    for wrong in [kernel(true, true, true), kernel(false, false, true), kernel(false, true, false)]
    {
        let report = report(4, 64, wrong);
        assert!(
            matches!(report, Report::Race { .. } | Report::UninitialisedShared { .. }),
            "{report}"
        );
    }
}

#[test]
fn one_arrival_too_many_at_a_neighbours_mbarrier() {
    let report = report(2, 32, || {
        let words = shared::<u64>(1);
        if me() == 0 {
            init(&words, 0, 31);
            rt::proxy_fence();
        }
        sync();
        if rank() == 1 {
            remote(&words, 1, 0).arrive(0);
        }
        if rank() == 0 {
            arrive(&words, 0, 4);
        }
        sync();
    });
    let text = report.to_string();
    assert!(matches!(report, Report::Mbarrier { .. }), "{text}");
    let uninitialised = self::report(2, 32, || {
        let words = shared::<u64>(1);
        sync();
        remote(&words, 1, 1 - rank()).arrive(0);
        sync();
    });
    assert!(
        matches!(uninitialised, Report::Mbarrier { .. } | Report::UninitialisedShared { .. }),
        "{uninitialised}"
    );
}

/// Each block loads a part of what all of them get, stage after stage.
fn shares(releases: bool, mask: u16) -> Result<Vec<u32>, LaunchError> {
    const BLOCKS: usize = 4;
    let source = Global::new(&(0..4 * 64).collect::<Vec<u32>>());
    let output = Global::new(&[0_u32; BLOCKS * 64]);
    let kernel = || {
        let (words, stage) = (shared::<u64>(2), shared::<u32>(64));
        let (first, mine) = (16 * rank() as usize, rt::block_idx()[0] as usize * 64 + me());
        if me() == 0 {
            init(&words, 0, 1);
            init(&words, 1, 64 * BLOCKS as u32);
            rt::proxy_fence();
        }
        sync();
        let mut parity = false;
        for turn in 0..4 {
            if me() == 0 {
                if releases {
                    wait(&words, 1, !parity);
                }
                arrive(&words, 0, 256);
                multicast(&stage, first, &source, (64 * turn + first, 16), &words, mask);
            }
            wait(&words, 0, parity);
            output.write(mine, output.read(mine) + stage.read(63 - me()));
            for block in 0..BLOCKS as u32 {
                // Only read, and only to be copied over.
                remote(&words, 2, block).arrive_reader(1);
            }
            parity = !parity;
        }
        sync();
    };
    for seed in 0..3 {
        checking().shuffled(seed).launch("shares", one(4, 64), &kernel)?;
    }
    checking().launch("shares", one(4, 64), &kernel)?;
    Ok(output.into_vec())
}

#[test]
fn multicast_brings_to_all_blocks() {
    let expected: Vec<u32> =
        (0..256).map(|i| 4 * (0..4).map(|turn| 64 * turn + 63 - i % 64).sum::<u32>()).collect();
    assert_eq!(shares(true, 0xf).unwrap(), expected);
    // A stage that is filled again while a neighbour reads it.
    let early = report_of(shares(false, 0xf).map(|_| LaunchStats::default()));
    assert!(matches!(early, Report::Race { .. } | Report::Mbarrier { .. }), "{early}");
}

#[test]
fn multicast_to_some_leaves_the_others_waiting() {
    let report = report_of(shares(true, 0b101).map(|_| LaunchStats::default()));
    let Report::Deadlock { waiting, .. } = &report else { panic!("{report}") };
    let missing = waiting.iter().filter(|w| matches!(w.wait, Wait::Mbarrier { bytes: 256, .. }));
    let blocks: Vec<_> = missing.map(|w| (w.block, w.threads.len())).collect();
    assert_eq!(blocks, [([1, 0, 0], 64), ([3, 0, 0], 64)], "{report}");
}

#[test]
fn masks_and_ranks_outside_of_the_cluster() {
    let source = Global::new(&[1_u32; 32]);
    let of_mask = |mask: u16| {
        let source = &source;
        fault(2, 32, move || {
            let (words, target) = (shared::<u64>(1), shared::<u32>(32));
            if me() == 0 {
                init(&words, 0, 1);
                rt::proxy_fence();
            }
            sync();
            if me() == 0 {
                multicast(&target, 0, source, (0, 32), &words, mask);
            }
            sync();
        })
    };
    for mask in [0, 0b100, 0b111, 0x8001] {
        assert_eq!(of_mask(mask), ClusterFault::Mask { blocks: mask, size: 2 });
    }
    let rank = fault(2, 32, || {
        let array = shared::<u32>(32);
        sync();
        remote(&array, 32, 2);
    });
    assert_eq!(rank, ClusterFault::NoSuchBlock { rank: 2, blocks: 2 });
    assert!(rank.to_string().contains("none of rank 2"), "{rank}");
}

#[test]
fn a_block_that_nothing_shows_to_have_begun() {
    let early = fault(2, 32, || {
        let array = shared::<u32>(32);
        remote(&array, 32, 1 - rank()).write(me(), 1);
        sync();
    });
    assert!(matches!(early, ClusterFault::NotBegun { .. }), "{early}");
    // Its own is there.
    run(2, 32, || remote(&shared::<u32>(32), 32, rank()).write(me(), 1)).unwrap();
    let source = Global::new(&[1_u32; 32]);
    let copy = fault(2, 32, || {
        let (words, target) = (shared::<u64>(1), shared::<u32>(32));
        if me() == 0 {
            init(&words, 0, 1);
            rt::proxy_fence();
            multicast(&target, 0, &source, (0, 32), &words, 0b11);
        }
    });
    assert!(matches!(copy, ClusterFault::NotBegun { .. }), "{copy}");
}

/// Block 1 leaves at once; whether that is before block 0 reaches for it is chance, and reported either way.
#[test]
fn a_block_that_leaves_too_early() {
    let kernel = |waits: bool, spins: usize| {
        move || {
            let array = shared::<u32>(32);
            array.write(me(), 7);
            sync();
            if rank() == 0 {
                (0..spins).for_each(|_| rt::spin());
                remote(&array, 32, 1).read(me());
            }
            if waits {
                sync();
            }
        }
    };
    run(2, 32, kernel(true, 3)).unwrap();
    let (mut left, mut leaves) = (0, 0);
    for spins in [0, 3] {
        for seed in 0..8 {
            let shuffled = checking().shuffled(seed);
            match report_of(shuffled.launch("early", one(2, 32), &kernel(false, spins))) {
                Report::Cluster { fault: ClusterFault::Left { rank: 1 }, .. } => left += 1,
                Report::Cluster { fault: ClusterFault::LeavesFirst { rank: 1 }, .. } => leaves += 1,
                other => panic!("{other}"),
            }
        }
    }
    assert!(left > 0 && leaves > 0, "{left}, {leaves}");
    // One that has left is reported without the checking mode too.
    let unchecked = Executor::new().checks(false);
    let report = report_of(unchecked.launch("early", one(2, 32), &kernel(false, 3)));
    assert!(report.to_string().contains("has left"), "{report}");
}

/// A copy to a block that does not wait for it.
#[test]
fn a_multicast_that_outlives_a_block() {
    let source = Global::new(&[1_u32; 32]);
    let report = report(2, 32, || {
        let (words, target) = (shared::<u64>(1), shared::<u32>(32));
        if me() == 0 {
            init(&words, 0, 1);
            rt::proxy_fence();
        }
        sync();
        if me() == 0 {
            arrive(&words, 0, 128);
        }
        if me() == 0 && rank() == 0 {
            multicast(&target, 0, &source, (0, 32), &words, 0b11);
        }
        sync();
        if rank() == 0 {
            wait(&words, 0, false);
        }
    });
    let text = report.to_string();
    match report {
        Report::UnfinishedCopy { block, touch, .. } => {
            assert_eq!((block, touch.block), ([1, 0, 0], [0, 0, 0]));
            assert!(text.contains("of block (0, 0, 0)"), "{text}");
        }
        Report::Cluster { fault, .. } => {
            assert_eq!(fault, ClusterFault::LeavesFirst { rank: 1 });
        }
        other => panic!("{other}"),
    }
}

#[test]
fn a_barrier_of_the_cluster_that_some_do_not_reach() {
    // One block waits at a barrier of its own, for a thread that waits for the cluster.
    let report1 = report(2, 32, || {
        if rank() == 1 && me() == 0 {
            rt::barrier();
        }
        sync();
    });
    let text = report1.to_string();
    let Report::Deadlock { waiting, .. } = report1 else { panic!("{text}") };
    let at = |wait: Wait, block: [u32; 3]| {
        waiting.iter().find(|w| (w.wait, w.block) == (wait, block)).map(|w| w.threads.len())
    };
    assert_eq!(at(Wait::Cluster, [0, 0, 0]), Some(32), "{text}");
    assert_eq!(at(Wait::Cluster, [1, 0, 0]), Some(31), "{text}");
    assert_eq!(at(Wait::Barrier, [1, 0, 0]), Some(1), "{text}");
    assert!(text.contains("wait at the cluster's barrier"), "{text}");
    // Threads come from different places.
    let report2 = report(2, 32, || {
        if rank() == 0 {
            rt::cluster_arrive();
        } else {
            rt::cluster_arrive();
            rt::warp_sync(u32::MAX);
        }
        rt::cluster_wait();
    });
    let Report::Deadlock { waiting, .. } = &report2 else { panic!("{report2}") };
    assert!(waiting.iter().all(|w| w.wait == Wait::Cluster), "{report2}");
    // An mbarrier whose arrivals are to come from a block that left.
    let report3 = report(2, 32, || {
        let words = shared::<u64>(1);
        if me() == 0 {
            init(&words, 0, 1);
        }
        sync();
        if rank() == 0 {
            wait(&words, 0, false);
        }
    });
    let text = report3.to_string();
    let Report::Deadlock { left, .. } = report3 else { panic!("{text}") };
    assert_eq!(*left, [[1, 0, 0]]);
    assert!(text.contains("block (1, 0, 0) left"), "{text}");
}

/// Threads that have left count as come.
#[test]
fn who_left_is_not_waited_for() {
    let after = AtomicU32::new(0);
    for seed in [None, Some(1), Some(2)] {
        let executor = seed.map_or(checking(), |seed| checking().shuffled(seed));
        executor
            .launch("left", one(3, 64), &|| {
                if rank() == 1 || me() >= 32 {
                    return;
                }
                sync();
                after.fetch_add(1, Ordering::Relaxed);
            })
            .unwrap();
    }
    assert_eq!(after.into_inner(), 3 * 64);
}

#[test]
fn arriving_and_waiting_take_turns() {
    let twice = fault(2, 32, || {
        rt::cluster_arrive();
        rt::cluster_arrive();
    });
    assert_eq!(twice, ClusterFault::ArrivedTwice);
    assert_eq!(fault(2, 32, rt::cluster_wait), ClusterFault::NotArrived);
}

/// A barrier of a block that some of its threads cannot reach names that block.
#[test]
fn a_divergence_in_one_block_of_a_cluster() {
    let report = report(2, 64, || {
        if rank() == 1 && me() < 32 {
            return;
        }
        if rank() == 1 {
            rt::barrier();
        }
        sync();
    });
    let Report::BarrierDivergence { block, waiting, exited, .. } = report else {
        panic!("{report}")
    };
    assert_eq!((block, waiting.len(), exited.len()), ([1, 0, 0], 1, 32));
}

/// Clusters hold each other up no more than blocks do.
#[test]
fn clusters_wait_for_each_other_through_memory() {
    let flags = Global::new(&[0_u32; 6]);
    checking()
        .launch("flags", clusters(6, 2, 32), &|| {
            let cluster = rt::cluster_idx()[0] as usize;
            if me() == 0 && rank() == 1 {
                flags.store(5 - cluster, 1);
                while flags.load(cluster) == 0 {
                    rt::spin();
                }
            }
            sync();
        })
        .unwrap();
    assert_eq!(flags.into_vec(), [1; 6]);
}

//! Clusters under the executor: `cluster` and multicast as kernels call them.

use kasmina_device::mbarrier::{self, Mbarrier};
use kasmina_device::shared::DynamicShared;
use kasmina_device::tma::{self, L2Hint};
use kasmina_device::{cluster, shared_array, thread};
use kasmina_simt::{ClusterFault, Executor, Geometry, LaunchError, Report};
use kasmina_types::tensor_map::swizzle;
use kasmina_types::{Out, SimtTensorMap, TensorMapHandle};

/// Rows of a block's box, of 8 words each.
const ROWS: usize = 4;
const WORDS: usize = 8 * ROWS;

/// Two clusters of `size` blocks. Each block loads four rows for the blocks of the mask that `blocks` makes of the size,
/// arrives at the mbarrier of block `rank + next`, and adds what it and its neighbours have.
fn run(
    size: u32,
    blocks: impl Fn(u32) -> u16 + Sync,
    next: u32,
    deep: bool,
) -> (Result<(), LaunchError>, Vec<u32>) {
    let rows = 2 * size as usize * ROWS;
    let matrix: Vec<u32> = (0..rows as u32 * 8).collect();
    let mut result = vec![0; 2 * size as usize * WORDS];
    let output = Out::new(result.as_mut_ptr(), result.len());
    let map = SimtTensorMap {
        magic: SimtTensorMap::MAGIC,
        address: matrix.as_ptr().expose_provenance() as u64,
        dimensions: [8, rows as u64, 1, 1, 1],
        strides_bytes: [32, 32 * rows as u64, 0, 0],
        box_dimensions: [8, ROWS as u16, 1, 1, 1],
        element_strides: [1; 5],
        element_bytes: 4,
        rank: if deep { 3 } else { 2 },
        swizzle: swizzle::NONE,
        _padding: [0; 22],
    };
    let handle = TensorMapHandle::new(std::ptr::from_ref(&map).cast());
    let geometry = Geometry {
        grid: [2 * size, 1, 1],
        cluster: [size, 1, 1],
        block: [32, 1, 1],
        dynamic_shared_bytes: 4 * size * WORDS as u32,
    };
    let executor = Executor::new().checks(true).shuffled(u64::from(size));
    let launched = executor.launch("test", geometry, &|| {
        let shared = DynamicShared::<u32>::whole();
        let words = shared_array![u64; 2];
        let (full, met) = (Mbarrier::of(&words, 0), Mbarrier::of(&words, 1));
        let me = thread::thread_idx_x() as usize;
        let (rank, count) = (cluster::rank(), cluster::size());
        assert_eq!(count, size);
        assert_eq!(cluster::id_x() * size + rank, thread::block_idx_x());
        // SAFETY: one thread initialises and loads; all wait; each has its own words, and those of its lane elsewhere
        // between barriers of the cluster.
        unsafe {
            if me == 0 {
                full.init(1);
                met.init(1);
                mbarrier::fence_init();
            }
            cluster::sync();
            if me == 0 {
                let y = (thread::block_idx_x() as usize * ROWS) as i32;
                let target = shared.place(rank as usize * WORDS);
                full.arrive_expect_tx(count * 4 * WORDS as u32);
                if deep {
                    tma::load_3d_multicast(target, handle, [0, y, 0], full, blocks(size));
                } else {
                    let hint = L2Hint::Default;
                    tma::load_2d_multicast(target, handle, 0, y, full, hint, blocks(size));
                }
            }
            full.wait(false);
            if me == 0 {
                cluster::map_mbarrier(met, (rank + next) % count.max(next + 1)).arrive();
            }
            cluster::wait_acquire(met, false);
            cluster::sync();
            // What the others hold of the block's own rows: the same everywhere.
            let mut sum = 0;
            for other in 0..count {
                sum += cluster::map(shared.place(rank as usize * WORDS + me), other).read();
                let four = cluster::map(shared.place(me / 4 * 4), other).read_four();
                assert_eq!(four[me % 4], shared.read(me));
            }
            cluster::sync();
            cluster::map(shared.place(me), (rank + 1) % count).write(sum);
            cluster::sync();
            output.as_ptr().add(thread::index_1d() as usize).write(shared.read(me));
        }
    });
    (launched.map(drop), result)
}

fn all(size: u32) -> u16 {
    ((1_u32 << size) - 1) as u16
}

#[test]
fn blocks_load_for_each_other() {
    for (size, next) in [(1, 0), (2, 1), (3, 2), (4, 1), (8, 5)] {
        for deep in [false, true] {
            let (launched, result) = run(size, all, next, deep);
            launched.unwrap_or_else(|error| panic!("{size} blocks: {error}"));
            for (index, &value) in result.iter().enumerate() {
                let (block, word) = (index / WORDS, index % WORDS);
                let size = size as usize;
                let writer = block / size * size + (block % size + size - 1) % size;
                assert_eq!(value as usize, size * (writer * WORDS + word), "block {block}");
            }
        }
    }
}

fn fault(size: u32, blocks: impl Fn(u32) -> u16 + Sync, next: u32) -> ClusterFault {
    match run(size, blocks, next, true).0 {
        Err(LaunchError::Report(Report::Cluster { fault, .. })) => fault,
        other => panic!("expected a fault of the cluster, got {other:?}"),
    }
}

#[test]
fn other_blocks_are_not_there() {
    assert_eq!(fault(1, |_| 3, 0), ClusterFault::Mask { blocks: 3, size: 1 });
    assert_eq!(fault(2, |_| 0, 1), ClusterFault::Mask { blocks: 0, size: 2 });
    assert_eq!(fault(1, all, 1), ClusterFault::NoSuchBlock { rank: 1, blocks: 1 });
    assert_eq!(fault(4, all, 4), ClusterFault::NoSuchBlock { rank: 4, blocks: 4 });
}

/// A copy that brings a neighbour nothing leaves it waiting.
#[test]
fn a_mask_that_lacks_a_block() {
    let report = run(2, |_| 1, 1, false).0.expect_err("block 1 gets nothing");
    assert!(report.to_string().contains("bytes"), "{report}");
}

//! Clusters under the executor, which are of one block.

use kasmina_device::mbarrier::{self, Mbarrier};
use kasmina_device::shared::DynamicShared;
use kasmina_device::tma::{self, L2Hint};
use kasmina_device::{cluster, shared_array, thread};
use kasmina_simt::{Executor, Geometry, LaunchError};
use kasmina_types::tensor_map::swizzle;
use kasmina_types::{Out, SimtTensorMap, TensorMapHandle};

/// Each block loads four rows of its own for all blocks of its cluster, reads its neighbour's and arrives there.
fn run(blocks: u16, rank: u32) -> (Result<(), LaunchError>, Vec<u32>) {
    let matrix: Vec<u32> = (0..256).collect();
    let mut result = vec![0; 64];
    let output = Out::new(result.as_mut_ptr(), result.len());
    let map = SimtTensorMap {
        magic: SimtTensorMap::MAGIC,
        address: matrix.as_ptr().expose_provenance() as u64,
        dimensions: [8, 32, 1, 1, 1],
        strides_bytes: [32, 0, 0, 0],
        box_dimensions: [8, 4, 1, 1, 1],
        element_strides: [1; 5],
        element_bytes: 4,
        rank: 2,
        swizzle: swizzle::NONE,
        _padding: [0; 22],
    };
    let handle = TensorMapHandle::new(std::ptr::from_ref(&map).cast());
    let geometry =
        Geometry { grid: [2, 1, 1], cluster: [1; 3], block: [32, 1, 1], dynamic_shared_bytes: 128 };
    let launched = Executor::new().checks(true).launch("test", geometry, &|| {
        let shared = DynamicShared::<u32>::whole();
        let words = shared_array![u64; 1];
        let barrier = Mbarrier::of(&words, 0);
        let me = thread::thread_idx_x() as usize;
        assert_eq!((cluster::rank(), cluster::size()), (0, 1));
        assert_eq!(cluster::id_x(), thread::block_idx_x());
        // SAFETY: one thread initialises and loads; all wait; each has its own words.
        unsafe {
            if me == 0 {
                barrier.init(1 + cluster::size());
                mbarrier::fence_init();
            }
            cluster::sync();
            if me == 0 {
                let y = 4 * thread::block_idx_x() as i32;
                barrier.arrive_expect_tx(128);
                tma::load_2d_multicast(
                    shared.place(0),
                    handle,
                    0,
                    y,
                    barrier,
                    L2Hint::Default,
                    blocks,
                );
                cluster::map_mbarrier(barrier, rank).arrive();
            }
            cluster::wait_acquire(barrier, false);
            let place = cluster::map(shared.place(me), 0);
            let word = place.read();
            cluster::sync();
            place.write(word + 1);
            output.as_ptr().add(thread::index_1d() as usize).write(shared.read(me));
            cluster::sync();
        }
    });
    (launched.map(drop), result)
}

#[test]
fn a_block_is_its_own_cluster() {
    let (launched, result) = run(1, 0);
    launched.expect("a launch that is right");
    let expected: Vec<u32> = (1..65).collect();
    assert_eq!(result, expected);
}

#[test]
fn other_blocks_are_not_there() {
    assert!(matches!(run(3, 0).0, Err(LaunchError::Panic { .. })));
    assert!(matches!(run(1, 1).0, Err(LaunchError::Panic { .. })));
}

//! The barrier of a group of blocks under the executor.

use kasmina_device::global::{Load, Store};
use kasmina_device::{grid, thread};
use kasmina_simt::{Executor, Geometry, LaunchError};
use kasmina_types::Out;

fn launch(blocks: u32, seed: u64, body: impl Fn() + Sync) -> Result<(), LaunchError> {
    let executor = Executor::new().checks(true).shuffled(seed);
    let geometry = Geometry { grid: [blocks, 1, 1], block: [32, 1, 1], dynamic_shared_bytes: 0 };
    executor.launch("test", geometry, &body).map(drop)
}

/// Groups of 5 blocks, each of which adds up in turn what the others left; the count is ready for the next launch.
#[test]
fn blocks_see_what_all_left_before() {
    const PARTS: usize = 5;
    const GROUPS: usize = 3;
    const ROUNDS: usize = 4;
    let mut counts = vec![0_u32; GROUPS];
    for seed in 0..5 {
        let mut left = vec![0_u32; GROUPS * PARTS];
        let mut found = vec![0_u32; GROUPS * PARTS];
        let views = (
            Out::new(counts.as_mut_ptr(), counts.len()),
            Out::new(left.as_mut_ptr(), left.len()),
            Out::new(found.as_mut_ptr(), found.len()),
        );
        launch((GROUPS * PARTS) as u32, seed, || {
            let (counts, left, found) = views;
            let block = thread::block_idx_x() as usize;
            let (group, part) = (block / PARTS, block % PARTS);
            // SAFETY: every thread of the group's blocks comes; a block has its own places, and reads the others' only
            // between two barriers.
            let meet = || unsafe { grid::barrier(&counts, group, PARTS as u32, part == 0) };
            for round in 0..ROUNDS {
                if thread::thread_idx_x() == 0 {
                    // SAFETY: as above.
                    unsafe { left.store(block, (1 + round + part) as u32) };
                }
                meet();
                if thread::thread_idx_x() == 0 {
                    // SAFETY: as above.
                    unsafe {
                        let sum = (0..PARTS).map(|i| left.load(group * PARTS + i)).sum::<u32>();
                        found.store(block, found.load(block) + sum);
                    }
                }
                meet();
            }
        })
        .expect("the blocks meet");
        let expected: usize = (0..ROUNDS).map(|round| PARTS * (1 + round) + 10).sum();
        assert!(found.iter().all(|&sum| sum as usize == expected), "{found:?}, not {expected}");
        assert!(counts.iter().all(|count| count & (u32::MAX >> 1) == 0), "{counts:?}");
    }
}

/// A block that does not come is a deadlock, not a wrong result.
#[test]
fn a_block_that_stays_away_is_reported() {
    let mut counts = vec![0_u32];
    let view = Out::new(counts.as_mut_ptr(), 1);
    let executor = Executor::new().spin_limit(std::time::Duration::from_millis(50));
    let geometry = Geometry { grid: [3, 1, 1], block: [32, 1, 1], dynamic_shared_bytes: 0 };
    let result = executor.launch("test", geometry, &|| {
        if thread::block_idx_x() > 0 {
            // SAFETY: the count is the group's; that a block is missing is what is tested.
            unsafe { grid::barrier(&view, 0, 3, thread::block_idx_x() == 1) };
        }
    });
    assert!(matches!(result, Err(LaunchError::Report(_))), "{result:?}");
}

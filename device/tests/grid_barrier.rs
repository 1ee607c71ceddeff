//! The barrier of a group of blocks under the executor.

use kasmina_device::atomic::{self, Order, Scope};
use kasmina_device::global::{Load, Store};
use kasmina_device::{grid, thread};
use kasmina_simt::{Executor, Geometry, LaunchError};
use kasmina_types::Out;

fn launch(blocks: u32, seed: u64, body: impl Fn() + Sync) -> Result<(), LaunchError> {
    let executor = Executor::new().checks(true).shuffled(seed);
    let geometry = Geometry {
        grid: [blocks, 1, 1],
        cluster: [1; 3],
        block: [32, 1, 1],
        dynamic_shared_bytes: 0,
    };
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
        // As many meetings, and nobody on his way.
        assert!(counts.iter().all(|count| count & 0xfff == 0), "{counts:?}");
    }
}

/// Some blocks of a group meet again before the others have seen that all had met; these come to the next meeting of all
/// when the leader calls.
#[test]
fn fewer_blocks_meet_between() {
    const ROUNDS: u32 = 6;
    let (mut counts, mut call) = (vec![0_u32], vec![0_u32]);
    let views = (Out::new(counts.as_mut_ptr(), 1), Out::new(call.as_mut_ptr(), 1));
    for seed in 0..20 {
        launch(3, seed, || {
            let ((count, call), block) = (views, thread::block_idx_x());
            // SAFETY: every thread of the blocks that meet comes, and no block to a meeting before the one that others
            // are at; the call is the leader's to write.
            unsafe {
                for round in 1..=ROUNDS {
                    if block == 0 && thread::thread_idx_x() == 0 {
                        atomic::store(&call, 0, round, Order::Release, Scope::Device);
                    }
                    while atomic::load(&call, 0, Order::Acquire, Scope::Device) < round {
                        thread::spin_wait(0);
                    }
                    grid::barrier(&count, 0, 3, block == 0);
                    if block < 2 {
                        (0..round % 3).for_each(|_| grid::barrier(&count, 0, 2, block == 0));
                    }
                }
            }
        })
        .expect("the blocks meet");
        call[0] = 0;
    }
    let meetings = 20 * (1..=ROUNDS).map(|round| 1 + round % 3).sum::<u32>();
    assert_eq!(counts[0], meetings << 12);
}

/// A block that does not come is a deadlock, not a wrong result.
#[test]
fn a_block_that_stays_away_is_reported() {
    let mut counts = vec![0_u32];
    let view = Out::new(counts.as_mut_ptr(), 1);
    let executor = Executor::new().spin_limit(std::time::Duration::from_millis(50));
    let geometry =
        Geometry { grid: [3, 1, 1], cluster: [1; 3], block: [32, 1, 1], dynamic_shared_bytes: 0 };
    let result = executor.launch("test", geometry, &|| {
        if thread::block_idx_x() > 0 {
            // SAFETY: the count is the group's; that a block is missing is what is tested.
            unsafe { grid::barrier(&view, 0, 3, thread::block_idx_x() == 1) };
        }
    });
    assert!(matches!(result, Err(LaunchError::Report(_))), "{result:?}");
}

/// Of three blocks one never comes: the others give up, and each of their threads learns of it.
#[test]
fn blocks_give_up_together() {
    let mut counts = vec![0_u32; 2];
    let mut met = vec![7_u32; 6 * 32];
    let views =
        (Out::new(counts.as_mut_ptr(), counts.len()), Out::new(met.as_mut_ptr(), met.len()));
    launch(6, 3, || {
        let (counts, met) = views;
        let (group, part) = (thread::block_idx_x() / 3, thread::block_idx_x() % 3);
        if group == 0 && part == 1 {
            return;
        }
        let mut waits = 0;
        let gives_up = || {
            waits += 1;
            group == 0 && waits == 100
        };
        let at = (thread::block_idx_x() * 32 + thread::thread_idx_x()) as usize;
        // SAFETY: all blocks of the second group come; those of the first meet no more after it. The place is the thread's.
        unsafe {
            let all = grid::barrier_unless(&counts, group as usize, 3, part == 0, gives_up);
            met.store(at, u32::from(all));
        }
    })
    .expect("they end");
    for (block, answers) in met.chunks(32).enumerate() {
        let expected = [0, 7, 0, 1, 1, 1][block];
        assert!(answers.iter().all(|&answer| answer == expected), "block {block}: {answers:?}");
    }
}

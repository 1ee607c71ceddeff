//! Right kernels: no report, and the same result in any order.

use kasmina_simt::{Executor, Geometry, rt};

use crate::support::{Global, checking, geometry, me, shared};

/// Ascending and shuffled executors with the checks on, and one without checks.
fn executors() -> impl Iterator<Item = Executor> {
    let shuffled = (0..8).map(|seed| checking().shuffled(seed));
    [checking(), checking().checks(false)].into_iter().chain(shuffled)
}

/// Sums over the warp by butterfly: every lane gets the total.
fn warp_sum(mut value: f32) -> f32 {
    for distance in [16, 8, 4, 2, 1] {
        let lanes = rt::warp_exchange(u32::MAX, u64::from(value.to_bits()));
        value += f32::from_bits(lanes[(me() % 32) ^ distance] as u32);
    }
    value
}

#[test]
fn block_sums_by_shuffles() {
    const ROWS: usize = 7;
    const COLS: usize = 1000;
    let values: Vec<f32> = (0..ROWS * COLS).map(|i| (i as f32 * 0.37).sin()).collect();
    let mut all_bits = Vec::new();
    for executor in executors() {
        let (input, sums) = (Global::new(&values), Global::new(&[f32::NAN; ROWS]));
        let run = executor.launch("sums", geometry(ROWS as u32, 256), &|| {
            let row = rt::block_idx()[0] as usize;
            let mut partial = 0.0;
            for col in (me()..COLS).step_by(256) {
                partial += input.read(row * COLS + col);
            }
            let partials = shared::<f32>(8);
            let warp = warp_sum(partial);
            if me().is_multiple_of(32) {
                partials.write(me() / 32, warp);
            }
            rt::barrier();
            if me() == 0 {
                sums.write(row, (0..8).map(|i| partials.read(i)).sum());
            }
        });
        let stats = run.unwrap();
        assert_eq!((stats.blocks, stats.threads), (ROWS as u64, ROWS as u64 * 256));
        assert_eq!((stats.barriers, stats.warp_collectives), (ROWS as u64, ROWS as u64 * 8 * 5));
        let sums = sums.into_vec();
        for (row, sum) in sums.iter().enumerate() {
            let expected: f32 = values[row * COLS..][..COLS].iter().sum();
            assert!((sum - expected).abs() < 1e-3, "row {row}: {sum} against {expected}");
        }
        all_bits.push(sums.iter().map(|s| s.to_bits()).collect::<Vec<_>>());
    }
    assert!(all_bits.windows(2).all(|pair| pair[0] == pair[1]));
}

#[test]
fn tiled_transpose() {
    const ROWS: usize = 70;
    const COLS: usize = 45;
    let values: Vec<u32> = (0..(ROWS * COLS) as u32).collect();
    let geometry =
        Geometry { grid: [2, 3, 1], cluster: [1; 3], block: [32, 8, 1], dynamic_shared_bytes: 0 };
    for executor in executors() {
        let (input, output) = (Global::new(&values), Global::new(&[u32::MAX; ROWS * COLS]));
        let run = executor.launch("transpose", geometry, &|| {
            let tile = shared::<u32>(32 * 33);
            let [x, y, _] = rt::thread_idx().map(|i| i as usize);
            let [tile_col, tile_row, _] = rt::block_idx().map(|i| i as usize * 32);
            for row in (y..32).step_by(8) {
                if tile_row + row < ROWS && tile_col + x < COLS {
                    tile.write(row * 33 + x, input.read((tile_row + row) * COLS + tile_col + x));
                }
            }
            rt::barrier();
            for row in (y..32).step_by(8) {
                if tile_col + row < COLS && tile_row + x < ROWS {
                    output.write((tile_col + row) * ROWS + tile_row + x, tile.read(x * 33 + row));
                }
            }
        });
        run.unwrap();
        let output = output.into_vec();
        for (i, &value) in output.iter().enumerate() {
            assert_eq!(value as usize, i % ROWS * COLS + i / ROWS);
        }
    }
}

#[test]
fn the_last_block_folds_the_others() {
    const BLOCKS: usize = 9;
    for executor in executors() {
        let partials = Global::new(&[0_u32; BLOCKS]);
        let (ticket, total) = (Global::new(&[0_u32]), Global::new(&[0_u32]));
        let run = executor.launch("last_block", geometry(BLOCKS as u32, 64), &|| {
            let is_last = shared::<u32>(1);
            if me() == 0 {
                let block = rt::block_idx()[0];
                partials.write(block as usize, block + 1);
                let last = ticket.fetch_add(0, 1) == BLOCKS as u32 - 1;
                is_last.write(0, u32::from(last));
            }
            rt::barrier();
            if is_last.read(0) == 1 && me() == 32 {
                total.write(0, (0..BLOCKS).map(|i| partials.read(i)).sum());
            }
        });
        run.unwrap();
        assert_eq!(total.into_vec(), [45]);
    }
}

#[test]
fn a_grid_meets_although_there_are_more_blocks_than_cores() {
    const BLOCKS: u32 = 40;
    for executor in executors() {
        let (arrived, sums) = (Global::new(&[0_u32]), Global::new(&[0_u32; BLOCKS as usize]));
        let run = executor.launch("grid_barrier", geometry(BLOCKS, 64), &|| {
            if me() == 0 {
                arrived.fetch_add(0, 1);
                while arrived.load(0) < BLOCKS {
                    rt::spin();
                }
            }
            rt::barrier();
            if me() == 63 {
                sums.write(rt::block_idx()[0] as usize, arrived.load(0));
            }
        });
        run.unwrap();
        assert_eq!(sums.into_vec(), [BLOCKS; BLOCKS as usize]);
    }
}

#[test]
fn each_thread_knows_its_place() {
    let geometry =
        Geometry { grid: [3, 2, 2], cluster: [1; 3], block: [5, 3, 2], dynamic_shared_bytes: 0 };
    for executor in executors() {
        let seen = Global::new(&[0_u32; 12 * 30]);
        let run = executor.launch("place", geometry, &|| {
            let ([x, y, z], [bx, by, bz]) = (rt::thread_idx(), rt::block_idx());
            assert_eq!((rt::block_dim(), rt::grid_dim()), ([5, 3, 2], [3, 2, 2]));
            let thread = x + 5 * (y + 3 * z);
            assert_eq!((rt::linear_thread(), rt::active_lanes()), (thread, (1 << 30) - 1));
            let place = (30 * (bx + 3 * (by + 2 * bz)) + thread) as usize;
            seen.write(place, seen.read(place) + 1);
        });
        assert_eq!(run.unwrap().threads, 360);
        assert_eq!(seen.into_vec(), [1; 360]);
    }
}

#[test]
fn barriers_count_and_lanes_exchange() {
    for executor in executors() {
        let run = executor.launch("count", geometry(2, 96), &|| {
            for round in 1..5_usize {
                let agreeing = rt::barrier_count(me().is_multiple_of(round));
                assert_eq!(agreeing as usize, 96_usize.div_ceil(round));
            }
            let (mask, half) = if me() % 32 < 12 { (0xfff, 0..12) } else { (0xffff_f000, 12..32) };
            for round in 0..3 {
                let lanes = rt::warp_exchange(mask, (me() + round + 1) as u64);
                for (lane, &value) in lanes.iter().enumerate() {
                    let expected =
                        if half.contains(&lane) { me() / 32 * 32 + lane + round + 1 } else { 0 };
                    assert_eq!(value as usize, expected);
                }
            }
        });
        run.unwrap();
    }
}

#[test]
fn the_clock_runs_forward() {
    let run = checking().launch("clock", geometry(1, 32), &|| {
        let before = rt::clock();
        while rt::clock() < before + 1000 {
            rt::spin();
        }
    });
    run.unwrap();
}

//! Bulk copies, mbarriers and the pipeline under the executor.

use kasmina_device::mbarrier::{self, Mbarrier};
use kasmina_device::pipeline::Pipeline;
use kasmina_device::shared::DynamicShared;
use kasmina_device::tma::{self, L2Hint};
use kasmina_device::{shared_array, thread};
use kasmina_simt::{Executor, Geometry, LaunchError, Report, Wait};
use kasmina_types::tensor_map::swizzle;
use kasmina_types::{In, Out, SimtTensorMap, TensorMapHandle};

/// A matrix of f32 whose rows are `stride` elements apart, and a box.
fn map(matrix: &[f32], columns: u64, rows: u64, stride: u64, span: [u16; 2]) -> SimtTensorMap {
    assert!(matrix.len() as u64 >= (rows - 1) * stride + columns);
    SimtTensorMap {
        magic: SimtTensorMap::MAGIC,
        address: matrix.as_ptr().expose_provenance() as u64,
        dimensions: [columns, rows, 1, 1, 1],
        strides_bytes: [4 * stride, 0, 0, 0],
        box_dimensions: [span[0], span[1], 1, 1, 1],
        element_strides: [1; 5],
        element_bytes: 4,
        rank: 2,
        swizzle: swizzle::NONE,
        _padding: [0; 22],
    }
}

fn handle(map: &SimtTensorMap) -> TensorMapHandle {
    TensorMapHandle::new(std::ptr::from_ref(map).cast())
}

fn launch(threads: u32, shared: u32, seed: u64, body: impl Fn() + Sync) -> Result<(), LaunchError> {
    let executor = Executor::new().checks(true).shuffled(seed);
    let geometry = Geometry {
        grid: [1, 1, 1],
        cluster: [1; 3],
        block: [threads, 1, 1],
        dynamic_shared_bytes: shared,
    };
    executor.launch("test", geometry, &body).map(drop)
}

#[track_caller]
fn report(result: Result<(), LaunchError>) -> Report {
    match result {
        Err(LaunchError::Report(report)) => report,
        other => panic!("expected a report, got {other:?}"),
    }
}

/// One box at `[x, y]` of a map, as shared memory holds it.
fn load_box(map: &SimtTensorMap, at: [i32; 2]) -> Vec<f32> {
    let bytes = map.box_bytes();
    let mut seen = vec![f32::NAN; bytes as usize / 4];
    let output = Out::new(seen.as_mut_ptr(), seen.len());
    let handle = handle(map);
    launch(32, bytes, 3, || {
        let target = DynamicShared::<f32>::whole();
        let words = shared_array![u64; 1];
        let barrier = Mbarrier::of(&words, 0);
        // SAFETY: the box fits the dynamic shared memory; the matrix outlives the launch.
        unsafe {
            if thread::thread_idx_x() == 0 {
                barrier.init(1);
                mbarrier::fence_init();
            }
            thread::sync_threads();
            if thread::thread_idx_x() == 0 {
                tma::acquire_map(handle);
                tma::prefetch_map(handle);
                barrier.arrive_expect_tx(bytes);
                tma::load_2d(target.place(0), handle, at[0], at[1], barrier, L2Hint::EvictFirst);
            }
            barrier.wait(false);
            let mut i = thread::thread_idx_x() as usize;
            while i < target.len() {
                output.as_ptr().add(i).write(target.read(i));
                i += 32;
            }
        }
    })
    .expect("a launch that is right");
    seen
}

#[test]
fn a_box_is_loaded_and_what_lies_outside_is_zero() {
    // 5 rows of 12, two elements of padding between them.
    let matrix: Vec<f32> = (0..70).map(|i| 1.0 + i as f32).collect();
    let map = map(&matrix, 12, 5, 14, [8, 4]);
    for at in [[0, 0], [4, 1], [8, 3], [-4, -2], [100, 0], [0, -100], [11, 4]] {
        let mut expected = Vec::new();
        for row in at[1]..at[1] + 4 {
            for column in at[0]..at[0] + 8 {
                let inside = (0..5).contains(&row) && (0..12).contains(&column);
                expected.push(if inside { matrix[(row * 14 + column) as usize] } else { 0.0 });
            }
        }
        assert_eq!(load_box(&map, at), expected, "{at:?}");
    }
}

#[test]
fn element_strides_leave_elements_out() {
    let matrix: Vec<f32> = (0..64).map(|i| i as f32).collect();
    let map = SimtTensorMap { element_strides: [2, 3, 1, 1, 1], ..map(&matrix, 8, 8, 8, [8, 6]) };
    assert_eq!(load_box(&map, [1, 1]), [9.0, 11.0, 13.0, 15.0, 33.0, 35.0, 37.0, 39.0]);
}

/// In each row of 128 bytes chunk `c` lies where `c ^ (row % 8)` says.
#[test]
fn the_swizzle_of_128_bytes_permutes_chunks_by_row() {
    let matrix: Vec<f32> = (0..32 * 16).map(|i| i as f32).collect();
    let map = SimtTensorMap { swizzle: swizzle::BYTES_128, ..map(&matrix, 32, 16, 32, [32, 16]) };
    let seen = load_box(&map, [0, 0]);
    for row in 0..16 {
        for column in 0..32 {
            let chunk = (column / 4) ^ (row % 8);
            assert_eq!(seen[row * 32 + chunk * 4 + column % 4], matrix[row * 32 + column]);
        }
    }
}

/// A box is written in shared memory and stored; what passes the matrix's edge is not.
#[test]
fn a_stored_box_is_clipped() {
    let mut matrix = vec![-1.0_f32; 6 * 12];
    let map = map(&matrix, 10, 6, 12, [8, 4]);
    let handle = handle(&map);
    let run = |fence: bool| {
        launch(32, 128, 5, move || {
            let source = DynamicShared::<f32>::whole();
            let lane = thread::thread_idx_x();
            // SAFETY: one element a thread; one thread stores, after a barrier.
            unsafe {
                source.write(lane as usize, lane as f32);
                if fence {
                    tma::fence_proxy_async();
                }
                thread::sync_threads();
                if lane == 0 {
                    tma::store_2d(source.place(0), handle, 4, 3);
                    tma::commit_stores();
                    tma::wait_stores_read::<0>();
                    tma::wait_stores::<0>();
                }
            }
        })
    };
    run(true).expect("a launch that is right");
    assert!(matches!(report(run(false)), Report::MissingProxyFence { .. }));
    // The launch wrote behind the vector's back.
    let pointer = matrix.as_mut_ptr();
    for row in 0..6 {
        for column in 0..12 {
            let stored = (3..6).contains(&row) && (4..10).contains(&column);
            let expected = if stored { ((row - 3) * 8 + column - 4) as f32 } else { -1.0 };
            // SAFETY: inside the matrix.
            let got = unsafe { pointer.add(row * 12 + column).read_volatile() };
            assert_eq!(got, expected, "{row}, {column}");
        }
    }
}

/// Sixteen bytes at a time through shared memory and out again, by a ring of three stages.
fn copy_through_a_ring(release: bool, seed: u64) -> (Result<(), LaunchError>, Vec<u8>) {
    let source: Vec<u128> = (0..64_u128).map(|i| i * 0x0101_0101_0101_0101).collect();
    let mut target = vec![0_u128; 64];
    let (input, output) = (
        In::new(source.as_ptr().cast::<u8>(), 1024),
        Out::new(target.as_mut_ptr().cast::<u8>(), 1024),
    );
    let result = launch(96, 3 * 64, seed, || {
        let ring = DynamicShared::<u8>::whole();
        // SAFETY: all threads start it; stages are touched between `next` and `release` only, each lane its own
        // bytes.
        unsafe {
            let pipeline = Pipeline::<3, 6>::start(shared_array![u64; 6], 2);
            if thread::warp_idx() == 2 {
                if thread::lane_idx() == 0 {
                    let mut producer = pipeline.producer();
                    for turn in 0..16 {
                        let filling = producer.fill(64);
                        let place = ring.place(64 * filling.stage());
                        tma::load(place, &input, 64 * turn, 64, filling.barrier());
                    }
                }
                return;
            }
            let mut consumer = pipeline.consumer();
            for turn in 0..16 {
                let filled = consumer.next();
                let at = thread::thread_idx_x() as usize;
                let byte = ring.read(64 * filled.stage() + at);
                output.as_ptr().add(64 * turn + at).write(byte);
                if release {
                    filled.release();
                }
            }
        }
    });
    (result, bytemuck::cast_slice(&target).to_vec())
}

#[test]
fn a_ring_of_stages_moves_everything() {
    let expected: Vec<u128> = (0..64_u128).map(|i| i * 0x0101_0101_0101_0101).collect();
    for seed in 0..8 {
        let (result, copied) = copy_through_a_ring(true, seed);
        result.expect("a launch that is right");
        assert_eq!(copied, bytemuck::cast_slice::<u128, u8>(&expected), "{seed}");
    }
}

#[test]
fn a_stage_that_is_never_released_is_a_deadlock() {
    let (result, _) = copy_through_a_ring(false, 1);
    let Report::Deadlock { waiting, .. } = report(result) else { panic!("no deadlock") };
    assert!(waiting.iter().all(|group| matches!(group.wait, Wait::Mbarrier { .. })), "{waiting:?}");
}

#[test]
fn copies_past_the_end_and_off_their_alignment_are_refused() {
    let source = [0_u128; 4];
    let input = In::new(source.as_ptr().cast::<u8>(), 64);
    let run = |place: usize, index: usize, bytes: u32| {
        launch(32, 64, 0, move || {
            let target = DynamicShared::<u8>::whole();
            let words = shared_array![u64; 1];
            let barrier = Mbarrier::of(&words, 0);
            // SAFETY: what is wrong is reported before anything is touched.
            unsafe {
                if thread::thread_idx_x() == 0 {
                    barrier.init(1);
                    mbarrier::fence_init();
                    barrier.arrive_expect_tx(bytes);
                    tma::load(target.place(place), &input, index, bytes, barrier);
                }
                thread::sync_threads();
                barrier.wait(false);
            }
        })
    };
    run(0, 0, 64).expect("a launch that is right");
    for (place, index) in [(16, 0), (0, 16), (8, 0), (0, 8)] {
        let bytes = if place == 8 || index == 8 { 16 } else { 64 };
        let report = report(run(place, index, bytes));
        assert!(matches!(report, Report::OutOfBounds { .. }), "{place} {index}: {report}");
    }
    assert!(matches!(run(0, 0, 8), Err(LaunchError::Panic { .. })));
}

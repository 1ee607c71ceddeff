//! A ring of stages that bulk copies fill and two warpgroups multiply, under the executor.

use kasmina_device::pipeline::{Filled, Pipeline};
use kasmina_device::shared::DynamicShared;
use kasmina_device::swizzle::Swizzle;
use kasmina_device::tma::{self, L2Hint};
use kasmina_device::wgmma::{self, Descriptor, KMajor, Layout, M64N32};
use kasmina_device::{shared_array, warpgroup};
use kasmina_simt::{Access, Executor, Geometry, LaunchError, Report};
use kasmina_types::tensor_map::swizzle;
use kasmina_types::{Out, SimtTensorMap, TensorMapHandle, bf16};

const M: usize = 128;
const N: usize = 32;
/// k of a tile: 128 bytes.
const TILE: usize = 64;
const TILES: usize = 7;
const K: usize = TILES * TILE;
const STAGES: usize = 3;
const STAGE_BYTES: usize = (M + N) * 128;

#[derive(Clone, Copy, PartialEq)]
enum Release {
    /// Once the tile's products were waited for, one tile later.
    Late,
    /// While they are under way.
    Early,
}

fn map(matrix: &[bf16], rows: usize) -> SimtTensorMap {
    SimtTensorMap {
        magic: SimtTensorMap::MAGIC,
        address: matrix.as_ptr().expose_provenance() as u64,
        dimensions: [K as u64, rows as u64, 1, 1, 1],
        strides_bytes: [2 * K as u64, 0, 0, 0],
        box_dimensions: [TILE as u16, rows as u16, 1, 1, 1],
        element_strides: [1; 5],
        element_bytes: 2,
        rank: 2,
        swizzle: swizzle::BYTES_128,
        _padding: [0; 22],
    }
}

/// A number of a few bits, so that every sum is exact.
fn number(seed: usize) -> f32 {
    (seed.wrapping_mul(2_654_435_761) >> 7) as u32 as f32 % 16.0 - 8.0
}

fn run(release: Release, checks: bool, seed: u64) -> (Result<(), LaunchError>, Vec<f32>, Vec<f32>) {
    let a: Vec<bf16> = (0..M * K).map(|i| bf16::from_f32(number(i))).collect();
    let b: Vec<bf16> = (0..N * K).map(|i| bf16::from_f32(number(i + 7_777_777))).collect();
    let (map_a, map_b) = (map(&a, M), map(&b, N));
    let handle = |map: &SimtTensorMap| TensorMapHandle::new(std::ptr::from_ref(map).cast());
    let (handle_a, handle_b) = (handle(&map_a), handle(&map_b));
    let mut result = vec![f32::NAN; M * N];
    let output = Out::new(result.as_mut_ptr(), result.len());
    let geometry = Geometry {
        grid: [1, 1, 1],
        cluster: [1; 3],
        block: [384, 1, 1],
        dynamic_shared_bytes: (STAGES * STAGE_BYTES) as u32,
    };
    let launched = Executor::new().checks(checks).shuffled(seed).launch("test", geometry, &|| {
        let shared = DynamicShared::<u8>::whole();
        // SAFETY: all threads start the ring; one thread fills, and eight warps release each stage.
        unsafe {
            let pipeline = Pipeline::<STAGES, 6>::start(shared_array![u64; 6], 8);
            if warpgroup::index() == 2 {
                warpgroup::lower_registers::<40>();
                if warpgroup::thread_idx() == 0 {
                    let mut producer = pipeline.producer();
                    for tile in 0..TILES {
                        let filling = producer.fill(STAGE_BYTES as u32);
                        let (at, x) = (filling.stage() * STAGE_BYTES, (tile * TILE) as i32);
                        let (full, hint) = (filling.barrier(), L2Hint::Default);
                        tma::load_2d(shared.place(at), handle_a, x, 0, full, hint);
                        tma::load_2d(shared.place(at + M * 128), handle_b, x, 0, full, hint);
                    }
                }
                return;
            }
            warpgroup::raise_registers::<232>();
            let group = warpgroup::index() as usize;
            let layout = const { Layout::rows(Swizzle::Bytes128) };
            let mut d = M64N32::zeroed();
            let mut consumer = pipeline.consumer();
            let mut before: Option<Filled> = None;
            d.fence();
            for tile in 0..TILES {
                let filled = consumer.next();
                let at = filled.stage() * STAGE_BYTES;
                let of_a = Descriptor::<KMajor>::new(shared.place(at + group * 64 * 128), layout);
                let of_b = Descriptor::<KMajor>::new(shared.place(at + M * 128), layout);
                for k in 0..4 {
                    let add = tile + k > 0;
                    d.multiply_add::<bf16, _, _>(
                        of_a.plus(32 * k as u32),
                        of_b.plus(32 * k as u32),
                        add,
                    );
                }
                wgmma::commit_group();
                if release == Release::Early {
                    filled.release();
                    continue;
                }
                wgmma::wait_group::<1>();
                if let Some(before) = before.replace(filled) {
                    before.release();
                }
            }
            let d = d.wait::<0>();
            d.for_each_pair(warpgroup::thread_idx() as usize, |row, column, pair| {
                let at = (group * 64 + row) * N + column;
                output.as_ptr().add(at).write(pair[0]);
                output.as_ptr().add(at + 1).write(pair[1]);
            });
        }
    });
    let mut expected = vec![0.0; M * N];
    for row in 0..M {
        for column in 0..N {
            let terms = (0..K).map(|k| a[row * K + k].to_f32() * b[column * K + k].to_f32());
            expected[row * N + column] = terms.sum();
        }
    }
    (launched.map(drop), result, expected)
}

#[test]
fn a_product_of_many_tiles() {
    for (checks, seed) in [(true, 0), (true, 1), (true, 2), (false, 3)] {
        let (launched, result, expected) = run(Release::Late, checks, seed);
        launched.expect("a launch that is right");
        assert_eq!(result, expected);
    }
}

#[test]
fn a_stage_that_is_released_while_products_read_it() {
    let Err(LaunchError::Report(report)) = run(Release::Early, true, 4).0 else {
        panic!("no report")
    };
    let Report::Race { first, second, .. } = report else { panic!("{report}") };
    assert_eq!((first.access, second.access), (Access::WgmmaRead, Access::CopyWrite));
}

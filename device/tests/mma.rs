//! Products of a warp, matrices in shared memory and a thread's own copies under the executor.

use kasmina_device::mma::{self, Element, Fragment16x8};
use kasmina_device::shared::DynamicShared;
use kasmina_device::wgmma::Tf32;
use kasmina_device::{copy_async, thread, warp};
use kasmina_simt::{Executor, Geometry, LaunchError, Report};
use kasmina_types::{In, Out, bf16, f16};

fn launch(threads: u32, shared: u32, body: impl Fn() + Sync) -> Result<(), LaunchError> {
    let executor = Executor::new().checks(true).shuffled(9);
    let geometry = Geometry {
        grid: [1, 1, 1],
        cluster: [1; 3],
        block: [threads, 1, 1],
        dynamic_shared_bytes: shared,
    };
    executor.launch("test", geometry, &body).map(drop)
}

fn random(state: &mut u64) -> f32 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 40) as f32 / (1 << 23) as f32 - 1.0
}

/// D of one product against f64, operands put into registers by their coordinates.
fn check<E: Element>(encode: fn(f32) -> (u32, f64)) {
    let k = E::K;
    let mut state = 3;
    let a: Vec<_> = (0..16 * k).map(|_| encode(random(&mut state))).collect();
    let b: Vec<_> = (0..k * 8).map(|_| encode(random(&mut state))).collect();
    let mut result = vec![f32::NAN; 16 * 8];
    let output = Out::new(result.as_mut_ptr(), result.len());
    launch(32, 0, || {
        let lane = thread::lane_idx() as usize;
        let pack = |elements: &dyn Fn(usize) -> u32| {
            (0..E::PACKED).fold(0, |word, part| word | elements(part) << (16 * part))
        };
        let of_a = std::array::from_fn(|i| {
            pack(&|part| a[E::row_of_a(lane, i) * k + E::k_of_a(lane, i) + part].0)
        });
        let of_b = std::array::from_fn(|i| {
            pack(&|part| b[(E::k_of_b(lane, i) + part) * 8 + E::column_of_b(lane)].0)
        });
        let mut d = Fragment16x8 { registers: [1.0; 4] };
        // SAFETY: all lanes are here; each has its own elements of D.
        unsafe {
            d.multiply_add::<E>(of_a, of_b);
            for i in 0..4 {
                let at = Fragment16x8::row(lane, i) * 8 + Fragment16x8::column(lane, i);
                output.as_ptr().add(at).write(d.registers[i]);
            }
        }
    })
    .expect("a launch that is right");
    for row in 0..16 {
        for column in 0..8 {
            let sum: f64 = (0..k).map(|i| a[row * k + i].1 * b[i * 8 + column].1).sum();
            let error = (f64::from(result[row * 8 + column]) - 1.0 - sum).abs();
            assert!(error < 17.0 * 17.0 * f64::from(f32::EPSILON), "({row}, {column}): {error}");
        }
    }
}

#[test]
fn products_of_every_element() {
    check::<bf16>(|value| {
        let value = bf16::from_f32(value);
        (u32::from(value.to_bits()), value.to_f64())
    });
    check::<f16>(|value| {
        let value = f16::from_f32(value);
        (u32::from(value.to_bits()), value.to_f64())
    });
    check::<Tf32>(|value| {
        let bits = value.to_bits() & !0x1fff;
        (bits | 0x1abc, f64::from(f32::from_bits(bits)))
    });
}

/// Matrices of a numbered array, 8 columns of it wide, one below the other.
fn matrices<M, const COUNT: usize, const TRANSPOSED: bool>()
where
    M: mma::Matrices + Copy + AsRef<[u32]>,
{
    let mut result = vec![0_u32; 2 * 32 * COUNT];
    let output = Out::new(result.as_mut_ptr(), result.len());
    let bytes = 4 * 128;
    launch(32, 2 * bytes, || {
        let shared = DynamicShared::<u16>::whole();
        let lane = thread::lane_idx() as usize;
        // SAFETY: lanes write their own elements, and meet before others read.
        unsafe {
            for i in 0..8 {
                shared.write(8 * lane + i, (8 * lane + i) as u16);
            }
            warp::sync_warp(warp::FULL_MASK);
            let loaded: M = mma::load_matrices::<M, TRANSPOSED>(shared.place(8 * lane));
            let copy = shared.place(256 + 8 * lane);
            mma::store_matrices::<M, TRANSPOSED>(copy, loaded);
            warp::sync_warp(warp::FULL_MASK);
            // What was stored as it was loaded is the same matrix.
            let again: M =
                mma::load_matrices::<M, false>(shared.place(256 + 8 * (lane % (8 * COUNT))));
            for i in 0..COUNT {
                output.as_ptr().add(COUNT * lane + i).write(loaded.as_ref()[i]);
                output.as_ptr().add(32 * COUNT + COUNT * lane + i).write(again.as_ref()[i]);
            }
        }
    })
    .expect("a launch that is right");
    for lane in 0..32 {
        for matrix in 0..COUNT {
            let element = |row, column| (64 * matrix + 8 * row + column) as u32;
            let (row, column) = (lane / 4, lane % 4 * 2);
            let plain = element(row, column) | element(row, column + 1) << 16;
            let turned = element(column, row) | element(column + 1, row) << 16;
            let expected = if TRANSPOSED { turned } else { plain };
            assert_eq!(result[COUNT * lane + matrix], expected);
            assert_eq!(result[32 * COUNT + COUNT * lane + matrix], plain);
        }
    }
}

#[test]
fn matrices_come_and_go() {
    matrices::<[u32; 1], 1, false>();
    matrices::<[u32; 2], 2, false>();
    matrices::<[u32; 4], 4, false>();
    matrices::<[u32; 1], 1, true>();
    matrices::<[u32; 2], 2, true>();
    matrices::<[u32; 4], 4, true>();
}

/// 64 threads copy 16 bytes each, twice; the last copy is partly zeros. Thread t reads what its neighbour copied.
fn copies(wait: bool, barrier: bool) -> (Result<(), LaunchError>, Vec<u8>) {
    let source: Vec<u128> = (0..128).map(|i| u128::MAX / (i + 1)).collect();
    let mut result = vec![0_u128; 128];
    let input = In::new(source.as_ptr().cast::<u8>(), 2048);
    let output = Out::new(result.as_mut_ptr(), 128);
    let launched = launch(64, 2048, || {
        let shared = DynamicShared::<u128>::whole();
        let me = thread::thread_idx_x() as usize;
        // SAFETY: each thread copies its own; a barrier follows the wait, but for what is tested.
        unsafe {
            copy_async::copy(shared.place(me), &input, 16 * me);
            copy_async::commit_group();
            let bytes = if me == 63 { 5 } else { 16 };
            copy_async::copy_or_zero(shared.place(64 + me), &input, 16 * (64 + me), bytes);
            copy_async::commit_group();
            if wait {
                copy_async::wait_group::<1>();
            }
            if barrier {
                thread::sync_threads();
            }
            output.as_ptr().add(me).write(shared.read((me + 1) % 64));
            copy_async::wait_group::<0>();
            thread::sync_threads();
            output.as_ptr().add(64 + me).write(shared.read(64 + (me + 1) % 64));
        }
    });
    (launched, bytemuck::cast_slice(&result).to_vec())
}

#[test]
fn a_thread_s_own_copies() {
    let (launched, result) = copies(true, true);
    launched.expect("a launch that is right");
    for (at, bytes) in result.chunks_exact(16).enumerate() {
        let from = at / 64 * 64 + (at % 64 + 1) % 64;
        let mut expected = (u128::MAX / (from as u128 + 1)).to_le_bytes();
        if from == 127 {
            expected[5..].fill(0);
        }
        assert_eq!(bytes, expected, "{at}");
    }
}

#[test]
fn copies_that_are_read_too_early() {
    let report = |wait, barrier| match copies(wait, barrier).0 {
        Err(LaunchError::Report(report)) => report,
        other => panic!("expected a report, got {other:?}"),
    };
    assert!(matches!(report(false, true), Report::UninitialisedShared { .. }));
    assert!(matches!(
        report(true, false),
        Report::UninitialisedShared { .. } | Report::Race { .. }
    ));
}

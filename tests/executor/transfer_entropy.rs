//! `fused_distance_kth`, `fused_te_reduction` and `surrogate_rows`.

use kasmina::information::TransferEntropy;
use kasmina::information::transfer_entropy::{Algorithm, Precision, SurrogateKind};
use kasmina::{Device, Executor};
use kasmina_kernels::instances;
use kasmina_reference::information::transfer_entropy as reference;
use kasmina_tests::information::transfer_entropy::{
    Case, check, check_batches, check_case, check_many_dimensions, check_random, check_refusals,
};
use kasmina_types::transfer_entropy::{ROWS_BLOCK, ROWS_PERMUTE, ROWS_ROTATE, RowMap};
use kasmina_types::{In, Out, SurrogateRows};

use super::shuffled;

#[test]
fn random_options() {
    check_random(&shuffled(11), 0..12, 240);
}

/// Every number of neighbours that an instance keeps, and less, in few dimensions and in many.
#[test]
fn every_capacity() {
    for k in [1, 4, 7, 8, 16, 17, 32] {
        for (history, precision) in [(1, Precision::F32), (4, Precision::F32), (1, Precision::F64)]
        {
            let options = TransferEntropy::new()
                .k(k)
                .target_history(history)
                .source_history(history)
                .precision(precision);
            let case =
                Case { samples: 100 + k, seed: k as u64, ties: k == 7, options, conditions: 0 };
            check(&shuffled(k as u64), &case);
        }
    }
}

/// Enough points for slabs, bounds, several query tiles and boxes that are left out.
#[test]
fn slabs_and_bounds() {
    for (history, ties) in [(1, false), (3, true)] {
        let options = TransferEntropy::new().target_history(history).source_history(history);
        check(&shuffled(3), &Case { samples: 700, seed: 9, ties, options, conditions: 0 });
    }
    let options = TransferEntropy::new().algorithm(Algorithm::Two).theiler(20);
    check(&shuffled(4), &Case { samples: 300, seed: 10, ties: true, options, conditions: 0 });
}

#[test]
fn many_dimensions() {
    check_many_dimensions(&shuffled(5), 130);
}

#[test]
fn batches() {
    check_batches(&shuffled(6), 140);
}

/// All of the case on the CPU; on the executor its first row: 12 estimates of 2000 points.
#[test]
fn values_of_the_case() {
    check_case(&Device::Cpu, usize::MAX);
    check_case(&Device::simt(), 1);
}

#[test]
fn refusals() {
    check_refusals(&shuffled(7));
}

#[test]
fn surrogate_rows_are_those_of_the_reference() {
    let points = [1_u32, 2, 37, 128, 300];
    let stride = 300;
    let maps: Vec<RowMap> = points
        .iter()
        .flat_map(|&points| {
            (0..2).map(move |surrogate| RowMap { points, stream: 5, surrogate, reserved: 0 })
        })
        .collect();
    let seed = 0x1234_5678_9abc_def0_u64;
    for (kind, word) in [
        (SurrogateKind::Permute, ROWS_PERMUTE),
        (SurrogateKind::Rotate, ROWS_ROTATE),
        (SurrogateKind::Block(10), ROWS_BLOCK),
    ] {
        let mut rows = vec![u32::MAX; maps.len() * stride];
        let params = SurrogateRows {
            maps: In::new(maps.as_ptr(), maps.len()),
            rows: Out::new(rows.as_mut_ptr(), rows.len()),
            num_maps: maps.len() as u32,
            stride: stride as u32,
            kind: word,
            block_length: 10,
            seed: [seed as u32, (seed >> 32) as u32],
            reserved: [0; 2],
        };
        let executor = Executor::new().checks(true).shuffled(1);
        // SAFETY: the views are of vectors that live until the call returns, with a place for each map.
        unsafe { instances::surrogate_rows().run(&executor, 3, 0, params) }.unwrap();
        for (map, rows) in maps.iter().zip(rows.chunks(stride)) {
            let points = map.points as usize;
            let expected = reference::surrogate_rows(kind, points, seed, map.stream, map.surrogate);
            assert_eq!(rows[..points], expected, "{kind:?}");
            assert!(rows[points..].iter().all(|&row| row == u32::MAX), "what is no point's stays");
        }
    }
}

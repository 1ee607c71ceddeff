//! `linear_sample`, and the precision that follows it.

use kasmina::linear::Layout;
use kasmina::types::{In, LINEAR_SAMPLE_SUMS, LinearSample, Out};
use kasmina::{Buffer, Device, Executor};
use kasmina_kernels::instances;
use kasmina_reference::linear::{SampledSums, sampled_place, sampled_sums};
use kasmina_tests::Numbers;
use kasmina_tests::linear::adaptive;
use ndarray::{ArrayView2, ShapeBuilder};

use super::shuffled;

/// Every sample of a batch with gaps between rows and problems, in a layout, against the reference.
fn check(layout: Layout, [batch, m, n, k]: [usize; 4], rounds: bool) {
    const SAMPLES: usize = 19;
    let (ta, tb) = (layout.transposed_a(), layout.transposed_b());
    let (rows_a, lda) = if ta { (k, m + 3) } else { (m, k + 2) };
    let (rows_b, ldb) = if tb { (n, k + 5) } else { (k, n + 1) };
    let (stride_a, stride_b) = (rows_a * lda + 7, rows_b * ldb + 1);
    let numbers = &mut Numbers::new((m * n + k) as u64);
    let mut draw =
        |len: usize| -> Vec<f32> { (0..len).map(|_| numbers.in_range(-1000.0, 1000.0)).collect() };
    let (a, b) = (draw(batch * stride_a), draw(batch * stride_b));
    let seed = 1_000_003;
    let mut sums = Buffer::from_slice(&Device::Cpu, &[f64::NAN; SAMPLES * LINEAR_SAMPLE_SUMS])
        .expect("memory");
    let [on_a, on_b] =
        [&a, &b].map(|values| Buffer::from_slice(&Device::Cpu, values).expect("memory"));
    let params = LinearSample {
        a: In::new(on_a.device_address() as *const f32, a.len()),
        b: In::new(on_b.device_address() as *const f32, b.len()),
        sums: Out::new(
            sums.as_host_slice_mut().expect("the host's").as_mut_ptr(),
            SAMPLES * LINEAR_SAMPLE_SUMS,
        ),
        a_stride: stride_a as u64,
        b_stride: stride_b as u64,
        seed,
        m: m as u32,
        n: n as u32,
        k: k as u32,
        batch: batch as u32,
        lda: lda as u32,
        ldb: ldb as u32,
        layout: layout as u32,
        half: if rounds { 0x1000 } else { 0 },
        _padding: 0,
    };
    let executor = Executor::new().checks(true).shuffled(5);
    // SAFETY: the views are of memory that lives until the call returns; a block for each sample.
    unsafe { instances::linear_sample().run(&executor, SAMPLES as u32, 0, params) }
        .expect("a launch");
    let got = sums.to_vec().expect("a result");
    let mut problems = std::collections::BTreeSet::new();
    for (number, got) in got.chunks_exact(LINEAR_SAMPLE_SUMS).enumerate() {
        let (problem, i, j) = sampled_place(seed + number as u64, [batch, m, n]);
        problems.insert(problem);
        let of = |values, is, rows, columns, ld| {
            let shape = if is {
                (rows, columns).strides((1, ld))
            } else {
                (rows, columns).strides((ld, 1))
            };
            ArrayView2::from_shape(shape, values).expect("inside")
        };
        let a = of(&a[problem * stride_a..], ta, m, k, lda);
        let b = of(&b[problem * stride_b..], tb, k, n, ldb);
        let SampledSums { exact, tf32, squares } = sampled_sums(a, b, (i, j), rounds);
        for (what, got, expected) in
            [("exact", got[0], exact), ("tf32", got[1], tf32), ("squares", got[2], squares)]
        {
            let size = if what == "squares" { squares } else { squares.sqrt() };
            let error = (got - expected).abs();
            assert!(
                error <= 1e-12 * size * (k as f64).sqrt(),
                "{what} of {layout:?} {m}×{n}×{k}, sample {number}: {got}, {expected}"
            );
        }
    }
    assert_eq!(problems.len(), batch, "samples are of all problems");
}

#[test]
fn samples_in_each_layout() {
    for layout in Layout::ALL {
        for rounds in [false, true] {
            check(layout, [2, 5, 7, 300], rounds);
            check(layout, [1, 130, 3, 33], rounds);
            check(layout, [3, 1, 1, 0], rounds);
        }
    }
}

#[test]
fn precision_follows_the_data() {
    adaptive::check(&shuffled(2));
    adaptive::check_steps(&shuffled(3));
}

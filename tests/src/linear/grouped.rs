//! Groups of products of any shapes against the reference, problem by problem.

use half::bf16;
use kasmina::driver::Graph;
use kasmina::linear::{
    Activation, Chosen, GroupFusion, GroupedPlan, GroupedProblem, Layout, LinearElement,
    LinearError, LinearOptions, LinearResult, Operands, Precision, Scales,
};
use kasmina::types::E4m3;
use kasmina::{Buffer, BufferStatistics, Device, Error};
use kasmina_reference::linear as reference;
use ndarray::Array2;

use super::forward::{matrix, reference_activation, relative_error, size, values};
use crate::Numbers;

/// A list of problems, `(m, n, k)` each, which lie one after the other with gaps, and what is fused to them: all drawn
/// from the seed.
#[derive(Debug, Clone, Copy)]
pub struct Case<'a> {
    /// How A and B lie.
    pub layout: Layout,
    /// The problems.
    pub shapes: &'a [(usize, usize, usize)],
    /// The precision.
    pub precision: Precision,
    /// Whether all places, and distances of rows, are multiples of 16 elements, gaps among them.
    pub aligned: bool,
    /// Whether nothing but a bias may be fused.
    pub plain: bool,
    /// Of the operands' values, gaps, and of what is fused.
    pub seed: u64,
}

impl<'a> Case<'a> {
    /// With everything drawn.
    pub fn new(
        layout: Layout,
        shapes: &'a [(usize, usize, usize)],
        precision: Precision,
        seed: u64,
    ) -> Self {
        Self { layout, shapes, precision, aligned: false, plain: false, seed }
    }
}

/// The problems with their places, and the lengths of a, b, c, bias, residual, d and z.
fn lay_out(case: &Case<'_>, numbers: &mut Numbers) -> (Vec<GroupedProblem>, [usize; 7]) {
    let mut lengths = [0; 7];
    let (ta, tb) = (case.layout.transposed_a(), case.layout.transposed_b());
    let problems = case.shapes.iter().map(|&(m, n, k)| {
        let mut p = GroupedProblem::new(case.layout, m, n, k);
        for ld in [&mut p.lda, &mut p.ldb, &mut p.ldc, &mut p.ldr, &mut p.ldd, &mut p.ldz] {
            // Aligned ones too.
            *ld = match (case.aligned, numbers.below(2)) {
                (true, gap) => ld.next_multiple_of(16) + 16 * gap,
                (false, 0) => *ld + numbers.below(5),
                (false, _) => ld.next_multiple_of(8),
            };
        }
        let (rows_a, rows_b) = (if ta { k } else { m }, if tb { n } else { k });
        let rows = [rows_a * p.lda, rows_b * p.ldb, m * p.ldc, n, m * p.ldr, m * p.ldd, m * p.ldz];
        let places =
            [&mut p.a, &mut p.b, &mut p.c, &mut p.bias, &mut p.residual, &mut p.d, &mut p.z];
        for ((place, length), rows) in places.into_iter().zip(&mut lengths).zip(rows) {
            *place = if case.aligned { usize::next_multiple_of(*length, 16) } else { *length };
            *place += numbers.below(2) * if case.aligned { 16 } else { 8 };
            *length = *place + rows;
        }
        p
    });
    (problems.collect(), lengths)
}

/// Runs the group with two sets of buffers, and with the first again, and compares it with the reference and the bits of all
/// runs; between results there is nothing written. Answers how it was computed.
#[track_caller]
pub fn check<T: LinearElement, O: LinearResult>(device: &Device, case: &Case<'_>) -> Chosen {
    let numbers = &mut Numbers::new(case.seed);
    let (problems, lengths) = lay_out(case, numbers);
    let mut chance = || numbers.below(2) == 0;
    let (with_c, scaled) = (chance() && !case.plain, chance());
    let bias = chance();
    let (residual, z) = (chance() && !case.plain, chance() && !case.plain);
    let fusion = GroupFusion { bias, residual, z };
    let options = LinearOptions {
        alpha: if scaled { -0.75 } else { 1.0 },
        beta: if with_c { 0.5 } else { 0.0 },
        activation: Activation::ALL[numbers.below(Activation::ALL.len())],
        precision: case.precision,
        ..Default::default()
    };
    let mut plan = GroupedPlan::<T, O>::new(device, case.layout, options, fusion, &problems)
        .unwrap_or_else(|why| panic!("{case:?}: {why}"));
    let [of_a, of_b, of_c, of_bias, of_residual, of_d, of_z] = lengths;
    let (a, b) = (values::<T>(of_a, numbers), values::<T>(of_b, numbers));
    let mut results = |length| values::<O>(length, numbers);
    let (c, bias, residual) = (results(of_c), results(of_bias), results(of_residual));
    let on = |values: &[O]| Buffer::from_slice(device, values).expect("memory");
    let (on_a, on_b) = (
        Buffer::from_slice(device, &a).expect("memory"),
        Buffer::from_slice(device, &b).expect("memory"),
    );
    let (on_c, on_bias, on_residual) = (on(&c), on(&bias), on(&residual));
    let operands = Operands {
        bias: fusion.bias.then_some(&on_bias),
        c: with_c.then_some(&on_c),
        residual: fusion.residual.then_some(&on_residual),
        ..Operands::new(&on_a, &on_b)
    };
    let chosen = plan.chosen();
    let made = |length| Buffer::<O>::zeroed(device, length).expect("memory");
    let mut run = |operands: &Operands<'_, T, O>, (d, z): &mut (Buffer<O>, Buffer<O>), known| {
        for result in [&mut *d, &mut *z] {
            result.fill_bytes(0xff).expect("memory");
        }
        let before = BufferStatistics::of_this_thread();
        plan.run(operands, d, fusion.z.then_some(z))
            .unwrap_or_else(|why| panic!("{case:?}: {why}"));
        if known && !matches!(device, Device::Cpu) {
            assert_eq!(BufferStatistics::of_this_thread(), before, "a run allocated or copied");
        }
        (d.to_vec().expect("a result"), z.to_vec().expect("a result"))
    };
    // Only where there are tensor maps do new buffers cost anything.
    let known = !chosen.kernel.starts_with("linear_grouped_wgmma");
    let mut results = (made(of_d), made(of_z));
    let (d, z) = run(&operands, &mut results, known);
    let (other_a, other_b) = (
        Buffer::from_slice(device, &a).expect("memory"),
        Buffer::from_slice(device, &b).expect("memory"),
    );
    let others = Operands { a: &other_a, b: &other_b, ..operands };
    let mut other_results = (made(of_d), made(of_z));
    let same =
        |a: &[O], b: &[O]| bytemuck::cast_slice::<O, u8>(a) == bytemuck::cast_slice::<O, u8>(b);
    for again in [
        run(&others, &mut other_results, known),
        run(&operands, &mut results, true),
        run(&others, &mut other_results, true),
    ] {
        assert!(same(&d, &again.0) && same(&z, &again.1), "{case:?}: two runs, two results");
    }

    let rounding = match size_of::<O>() {
        2 if O::DTYPE == kasmina::types::DType::Bf16 => Precision::Bf16.error_bound(),
        2 => Precision::F16.error_bound(),
        4 => Precision::F32.error_bound(),
        _ => 0.0,
    };
    let bound = chosen.precision.error_bound().max(rounding);
    let (mut in_d, mut in_z) = (vec![false; of_d], vec![false; of_z]);
    for (number, p) in problems.iter().enumerate() {
        let at = |begin: usize| begin as u64;
        let array = |values: &[T], begin, (rows, columns), ld, transposed: bool| -> Array2<f64> {
            let (rows, columns) = if transposed { (columns, rows) } else { (rows, columns) };
            let one = matrix(values, 1, at(begin), (rows, columns), ld);
            if transposed { one.reversed_axes() } else { one }
        };
        let a = array(&a, p.a, (p.m, p.k), p.lda, case.layout.transposed_a());
        let b = array(&b, p.b, (p.k, p.n), p.ldb, case.layout.transposed_b());
        let of = |values: &[O], begin, ld| matrix(values, 1, at(begin), (p.m, p.n), ld);
        let (c, residual) = (of(&c, p.c, p.ldc), of(&residual, p.residual, p.ldr));
        let bias: Vec<f64> = bias[p.bias..][..p.n].iter().map(|v| v.to_f64()).collect();
        let mut product = reference::Linear::new(a.view(), b.view());
        product.alpha = options.alpha;
        product.bias = fusion.bias.then_some(&bias);
        product.addition = with_c.then_some((options.beta, c.view()));
        let expected_z = reference::linear(&product).expect("a product");
        product.activation = reference_activation(options.activation);
        product.residual = fusion.residual.then_some(residual.view());
        let expected = reference::linear(&product).expect("a product");
        let natural = options.alpha.abs() * size(&a, &b);
        for (what, values, begin, ld, expected, seen) in [
            ("d", &d, p.d, p.ldd, &expected, &mut in_d),
            ("z", &z, p.z, p.ldz, &expected_z, &mut in_z),
        ] {
            for i in 0..p.m {
                seen[begin + i * ld..][..p.n].fill(what == "d" || fusion.z);
            }
            if what == "z" && !fusion.z {
                continue;
            }
            let error = relative_error(&of(values, begin, ld), expected, natural);
            assert!(
                error <= bound,
                "{what} of problem {number}, {p:?}, of {case:?} by {chosen:?}: relative error {error:e}, bound {bound:e}"
            );
        }
    }
    let untouched = |values: &[O], seen: &[bool]| {
        values.iter().zip(seen).all(|(value, seen)| *seen || value.to_f64().is_nan())
    };
    assert!(untouched(&d, &in_d) && untouched(&z, &in_z), "{case:?}: something between results");
    chosen
}

/// A plan inside captures of a GPU: its first buffers may be new there, others are to be known, and graphs go on with
/// theirs.
pub fn check_capture(device: &Device) {
    let Device::Cuda(gpu) = device else { unreachable!("a GPU's test") };
    let shapes = [(200, 136, 72), (64, 64, 64), (3, 264, 1000)];
    let case =
        Case { aligned: true, plain: true, ..Case::new(Layout::NT, &shapes, Precision::Bf16, 5) };
    let numbers = &mut Numbers::new(case.seed);
    let (problems, [of_a, of_b, .., of_d, _]) = lay_out(&case, numbers);
    let options = LinearOptions { precision: case.precision, ..Default::default() };
    let fusion = GroupFusion::default();
    let plan = || {
        GroupedPlan::<bf16, bf16>::new(device, case.layout, options, fusion, &problems)
            .expect("a plan")
    };
    let on = |values: &[bf16]| Buffer::from_slice(device, values).expect("memory");
    let sets: Vec<_> =
        (0..2).map(|_| (on(&values(of_a, numbers)), on(&values(of_b, numbers)))).collect();
    let fresh = || Buffer::<bf16>::zeroed(device, of_d).expect("memory");
    let expected: Vec<Vec<bf16>> = sets
        .iter()
        .map(|(a, b)| {
            let mut d = fresh();
            plan().run(&Operands::new(a, b), &mut d, None).expect("a run");
            d.to_vec().expect("a result")
        })
        .collect();

    let mut plan = plan();
    let (mut first, mut second) = (fresh(), fresh());
    let operands: Vec<_> = sets.iter().map(|(a, b)| Operands::new(a, b)).collect();
    let graph = Graph::capture::<Error>(gpu.stream(), |_| {
        plan.run(&operands[0], &mut first, None).map(drop)
    });
    let graph = graph.expect("a graph").instantiate().expect("an executable graph");
    let by_maps = plan.chosen().kernel.starts_with("linear_grouped_wgmma");
    let refused = Graph::capture::<Error>(gpu.stream(), |_| {
        plan.run(&operands[1], &mut second, None).map(drop)
    });
    let named = matches!(refused, Err(Error::Linear(LinearError::GroupCapture)));
    assert_eq!(named, by_maps, "other buffers inside a capture");
    plan.run(&operands[1], &mut second, None).expect("a run");
    assert_eq!(second.to_vec().expect("a result"), expected[1]);
    let other = Graph::capture::<Error>(gpu.stream(), |_| {
        plan.run(&operands[1], &mut second, None).map(drop)
    });
    let other = other.expect("a graph").instantiate().expect("an executable graph");
    // Many others later.
    for _ in 0..12 {
        plan.run(&operands[1], &mut fresh(), None).expect("a run");
    }
    for (graph, d, expected) in
        [(&graph, &mut first, &expected[0]), (&other, &mut second, &expected[1])]
    {
        d.fill_bytes(0).expect("a fill");
        graph.launch(gpu.stream()).expect("a launch");
        assert_eq!(d.to_vec().expect("a result"), *expected);
    }
}

/// What is refused, by name.
pub fn check_refusals(device: &Device) {
    let good = GroupedProblem::new(Layout::NN, 2, 4, 3);
    let second = GroupedProblem { d: 8, a: 6, ..good };
    let options = LinearOptions::default();
    let plan = |options, fusion, problems: &[GroupedProblem]| {
        GroupedPlan::<f32, f32>::new(device, Layout::NN, options, fusion, problems)
    };
    let none = GroupFusion::default();
    let refused = |problems: &[GroupedProblem], words: &[&str]| {
        let why = plan(options, none, problems).err().expect("refused").to_string();
        assert!(words.iter().all(|word| why.contains(word)), "{words:?} in {why}");
    };
    refused(&[good, GroupedProblem { lda: 2, ..second }], &["problem 1", "lda"]);
    refused(&[good, good], &["problems 0 and 1", "`d`"]);
    refused(&[second, GroupedProblem { d: 15, ..good }], &["problems 0 and 1"]);
    refused(&[good, GroupedProblem { d: 3, ldd: 5, ..good }], &["problems 0 and 1"]);
    refused(&[GroupedProblem { m: 1 << 31, ..good }], &["m is"]);
    refused(&[GroupedProblem { a: usize::MAX, ..good }], &["a is"]);
    // Columns of one wide matrix are apart, and an empty problem is in nobody's way.
    let wide = |d| GroupedProblem { d, ldd: 8, ..good };
    let empty = GroupedProblem { m: 0, d: 1, ..good };
    plan(options, none, &[wide(0), wide(4), empty]).map(drop).expect("no overlap");
    let z = GroupFusion { z: true, ..none };
    let why = plan(options, z, &[good, second]).err().expect("one Z");
    assert!(matches!(why, Error::Linear(LinearError::GroupOverlap { what: "z", .. })), "{why}");
    let bad = LinearOptions { tolerance: f64::NAN, ..options };
    plan(bad, none, &[]).map(drop).expect_err("no tolerance");
    let why = GroupedPlan::<f32, f64>::new(device, Layout::NN, options, none, &[good]);
    let why = why.err().expect("f64 of f32");
    assert!(matches!(why, Error::Linear(LinearError::Output { .. })), "{why}");

    let zeros = |len| Buffer::<f32>::zeroed(device, len).expect("memory");
    let (a, b, mut d) = (zeros(12), zeros(12), zeros(16));
    let mut two = plan(options, none, &[good, second]).expect("a plan");
    assert_eq!(two.problems(), 2);
    let mut refused = |operands: &Operands<'_, f32, f32>, d: &mut Buffer<f32>, words: &[&str]| {
        let why = two.run(operands, d, None).expect_err("refused").to_string();
        assert!(words.iter().all(|word| why.contains(word)), "{words:?} in {why}");
    };
    let operands = Operands::new(&a, &b);
    refused(&Operands::new(&zeros(11), &b), &mut d, &["`a`", "12", "problem 1"]);
    refused(&Operands::new(&a, &zeros(11)), &mut d, &["`b`", "12", "problem 0"]);
    refused(&operands, &mut zeros(15), &["`d`", "16"]);
    refused(&Operands { bias: Some(&b), ..operands }, &mut d, &["no `bias`"]);
    refused(&Operands { c: Some(&d), ..operands }, &mut zeros(16), &["no `c`"]);
    refused(&Operands { scales: Scales::Tensor { a: &a, b: &b }, ..operands }, &mut d, &["fp8"]);
    refused(&Operands { scales: Scales::Block { a: &a, b: &b }, ..operands }, &mut d, &["blocks"]);
    let with = GroupFusion { bias: true, ..none };
    let mut biased = plan(options, with, &[good]).expect("a plan");
    let why = biased.run(&operands, &mut d, None).expect_err("no bias").to_string();
    assert!(why.contains("a `bias`"), "{why}");
    let mut nothing = plan(options, none, &[]).expect("a plan of nothing");
    nothing.run(&Operands::new(&zeros(0), &zeros(0)), &mut zeros(0), None).expect("nothing to do");
}

/// fp8 with a scale for each operand, which all problems share. Answers how it was computed.
#[track_caller]
pub fn check_scales(device: &Device, precision: Precision) -> Chosen {
    let mut numbers = Numbers::new(3);
    let shapes = [(5_usize, 7_usize, 9_usize), (70, 3, 4), (130, 140, 300)];
    let (mut problems, mut lengths) = (vec![], [0; 3]);
    for (m, n, k) in shapes {
        let [a, b, d] = lengths;
        let ld = k.next_multiple_of(16);
        let alone = GroupedProblem::new(Layout::NT, m, n, k);
        problems.push(GroupedProblem { a, b, d, lda: ld, ldb: ld, ..alone });
        lengths = [a + m * ld, b + n * ld, d + m * n];
    }
    let a = values::<E4m3>(lengths[0], &mut numbers);
    let b = values::<E4m3>(lengths[1], &mut numbers);
    let options = LinearOptions { precision, ..Default::default() };
    let none = GroupFusion::default();
    let mut plan = GroupedPlan::<E4m3, f32>::new(device, Layout::NT, options, none, &problems)
        .expect("a plan");
    let on = |values: &[f32]| Buffer::from_slice(device, values).expect("memory");
    let (of_a, of_b, mut d) = (on(&[0.5]), on(&[3.0]), on(&vec![f32::NAN; lengths[2]]));
    let (on_a, on_b) = (
        Buffer::from_slice(device, &a).expect("memory"),
        Buffer::from_slice(device, &b).expect("memory"),
    );
    let scales = Scales::Tensor { a: &of_a, b: &of_b };
    let operands = Operands { scales, ..Operands::new(&on_a, &on_b) };
    let chosen = plan.run(&operands, &mut d, None).expect("a run");
    let d = d.to_vec().expect("a result");
    for p in &problems {
        for (i, j) in (0..p.m).flat_map(|i| (0..p.n).map(move |j| (i, j))) {
            let term = |x: usize| a[p.a + i * p.lda + x].to_f64() * b[p.b + j * p.ldb + x].to_f64();
            let expected: f64 = 1.5 * (0..p.k).map(term).sum::<f64>();
            let size: f64 = 1.5 * (0..p.k).map(|x| term(x).abs()).sum::<f64>();
            let got = f64::from(d[p.d + i * p.n + j]);
            let bound = match chosen.precision {
                Precision::Fp8 | Precision::Fp8Fast => chosen.precision.error_bound() * size,
                _ => 1e-5 * p.k as f64,
            };
            assert!((got - expected).abs() <= bound, "{p:?} ({i}, {j}) by {chosen:?}");
        }
    }
    chosen
}

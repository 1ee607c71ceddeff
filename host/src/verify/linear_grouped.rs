//! `linear_grouped` and `linear_sample`: lists of products in one launch, and the samples that precision follows.
//!
//! Groups are judged as `linear` is, problem by problem. Samples are sums in f64, judged against the size of their terms.

use half::{bf16, f16};
use kasmina_reference::linear as reference;
use kasmina_types::{DType, E4m3};

use super::linear::{bound, judge, matrix, nearest, terms, wide};
use super::tally::{Compared, Mismatch, Tally};
use super::units::{self, Units};
use super::{Check, Inputs, Scale, Timing, reordered, time};
use crate::buffer::Buffer;
use crate::device::Device;
use crate::driver::launchers::KernelDevice;
use crate::driver::launchers::linear_sample::{self as launcher, Sums};
use crate::error::Error;
use crate::linear::{
    Activation, GroupFusion, GroupedPlan, GroupedProblem, Layout, LinearElement, LinearOptions,
    LinearResult, LinearShape, Operands, Precision,
};
use crate::normalization::reference_activation;

pub(super) fn checks() -> Vec<Check> {
    vec![
        grouped::<f32, f32>("linear_grouped", Precision::F32),
        grouped::<f32, f32>("linear_grouped_tf32", Precision::Tf32),
        grouped::<f16, f32>("linear_grouped", Precision::F16),
        grouped::<bf16, bf16>("linear_grouped", Precision::Bf16),
        grouped::<f64, f64>("linear_grouped", Precision::F64),
        grouped::<E4m3, bf16>("linear_grouped", Precision::Fp8),
        grouped::<E4m3, bf16>("linear_grouped_fp8_fast", Precision::Fp8Fast),
        Check::new("linear_sample", DType::F32, samples),
    ]
}

/// Problems of a group, and rows, columns and terms of each, at most.
fn most(scale: Scale) -> (usize, usize) {
    match scale {
        Scale::Small => (4, 100),
        Scale::Medium => (8, 200),
        Scale::Large => (30, 700),
    }
}

struct Group<T, O> {
    name: String,
    layout: Layout,
    problems: Vec<GroupedProblem>,
    options: LinearOptions,
    fusion: GroupFusion,
    a: Vec<T>,
    b: Vec<T>,
    c: Vec<O>,
    bias: Vec<O>,
    residual: Vec<O>,
    /// Of D, and of Z.
    results: usize,
}

impl<T: LinearElement, O: LinearResult> Group<T, O> {
    fn drawn(units: &mut Units, scale: Scale, size: usize, precision: Precision) -> Self {
        let (problems, edge) = most(scale);
        let layout = Layout::ALL[units.below(4)];
        let count = 1 + units.below(problems);
        // Whether bulk copies can have all operands, which warpgroups want; of fp8 and tf32 they want NT, too.
        let aligned = units.below(2) == 0;
        let whole = |elements: usize| elements.next_multiple_of(if aligned { 16 } else { 1 });
        let layout = match precision {
            Precision::Tf32 | Precision::Fp8 | Precision::Fp8Fast if aligned => Layout::NT,
            _ => layout,
        };
        // Lengths of a, b, c (and the residual, d and z), and of the biases.
        let mut lengths = [0; 4];
        let problems: Vec<GroupedProblem> = (0..count)
            .map(|_| {
                // Empty ones too, and sums of nothing.
                let [m, n, k] = [(); 3].map(|()| units.below(size.min(edge) + 1));
                let k = if aligned { k.max(1) } else { k };
                let [a, b, d, bias] = lengths;
                let alone = GroupedProblem::new(layout, m, n, k);
                let (lda, ldb, ld) = (whole(alone.lda), whole(alone.ldb), whole(n));
                let rows_a = if layout.transposed_a() { k } else { m };
                let rows_b = if layout.transposed_b() { n } else { k };
                lengths = [a + rows_a * lda, b + rows_b * ldb, d + m * ld, bias + whole(n)];
                let places = GroupedProblem { a, b, c: d, residual: d, d, z: d, bias, ..alone };
                GroupedProblem { lda, ldb, ldc: ld, ldr: ld, ldd: ld, ldz: ld, ..places }
            })
            .collect();
        let activation = Activation::ALL[units.below(Activation::ALL.len())];
        let [bias, c, residual, z] = [(); 4].map(|()| units.below(2) == 0);
        let beta = if c { 0.5 } else { 0.0 };
        let options =
            LinearOptions { alpha: 1.25, beta, activation, precision, ..Default::default() };
        let mut values =
            |len: usize| -> Vec<f64> { (0..len).map(|_| f64::from(units.unit()) - 0.25).collect() };
        let [of_a, of_b, results, of_bias] = lengths;
        Self {
            name: format!(
                "{count} problems up to {}, {layout}, {activation}{}",
                size.min(edge),
                if aligned { ", aligned" } else { "" }
            ),
            layout,
            problems,
            options,
            fusion: GroupFusion { bias, residual, z },
            a: nearest(&values(of_a)),
            b: nearest(&values(of_b)),
            c: nearest(&values(results)),
            bias: nearest(&values(of_bias)),
            residual: nearest(&values(results)),
            results,
        }
    }

    /// D, Z and the precision; times the group where there is a tally for it.
    fn run(
        &self,
        device: &Device,
        timed: Option<&mut Tally>,
    ) -> Result<(Vec<O>, Vec<O>, Precision), Error> {
        let (a, b) = (Buffer::from_slice(device, &self.a)?, Buffer::from_slice(device, &self.b)?);
        let of = |values: &[O]| Buffer::from_slice(device, values);
        let (c, bias, residual) = (of(&self.c)?, of(&self.bias)?, of(&self.residual)?);
        let operands = Operands {
            bias: self.fusion.bias.then_some(&bias),
            c: (self.options.beta != 0.0).then_some(&c),
            residual: self.fusion.residual.then_some(&residual),
            ..Operands::new(&a, &b)
        };
        let made = || -> Result<Buffer<O>, Error> {
            let mut made = Buffer::zeroed(device, self.results)?;
            made.fill_bytes(0xFF)?;
            Ok(made)
        };
        let (mut d, mut z) = (made()?, made()?);
        let (fusion, problems) = (self.fusion, &self.problems);
        let mut plan =
            GroupedPlan::<T, O>::new(device, self.layout, self.options, fusion, problems)?;
        plan.run(&operands, &mut d, fusion.z.then_some(&mut z))?;
        let results = (d.to_vec()?, z.to_vec()?, plan.chosen().precision);
        if let Some(tally) = timed {
            let seconds = time::median_seconds(device, || {
                plan.run(&operands, &mut d, fusion.z.then_some(&mut z)).map(drop)
            })?;
            let bytes = (a.len() + b.len()) * size_of::<T>() + d.len() * size_of::<O>();
            tally.timing(Timing { seconds, bytes: bytes as u64 });
        }
        Ok(results)
    }

    fn compare(&self, device: &Device, timed: bool, tally: &mut Tally) -> Result<(), Error> {
        let (d, z, chosen) = self.run(device, timed.then_some(&mut *tally))?;
        let (d_again, z_again, _) = self.run(&reordered(device), None)?;
        let tolerance = bound(chosen, size_of::<O>(), self.options.precision);
        for (number, p) in self.problems.iter().enumerate() {
            let GroupedProblem { m, n, k, .. } = *p;
            let name = format!("{}, problem {number}", self.name);
            let (ta, tb) = (self.layout.transposed_a(), self.layout.transposed_b());
            let a = packed(&self.a, p.a, if ta { (k, m) } else { (m, k) }, p.lda);
            let b = packed(&self.b, p.b, if tb { (n, k) } else { (k, n) }, p.ldb);
            let (a, b) = (matrix(&a, m, k, ta), matrix(&b, k, n, tb));
            let results = |values: &[O]| packed(values, p.d, (m, n), p.ldd);
            let of = |values: &[O]| matrix(&results(values), m, n, false);
            let (c, residual) = (of(&self.c), of(&self.residual));
            let bias = wide(&self.bias[p.bias..][..n]);
            let mut product = reference::Linear::new(a.view(), b.view());
            product.alpha = self.options.alpha;
            product.bias = self.fusion.bias.then_some(&bias);
            let beta = self.options.beta;
            product.addition = (beta != 0.0).then_some((beta, c.view()));
            let expected_z = reference::linear(&product).expect("shapes fit");
            product.activation = reference_activation(self.options.activation);
            product.residual = self.fusion.residual.then_some(residual.view());
            let expected = reference::linear(&product).expect("shapes fit");
            let size = self.options.alpha * terms(a.view(), b.view());
            let (first, second) = (results(&d), results(&d_again));
            let expected = (expected.view(), size);
            judge(&name, "d", (&first, &second), expected, tolerance, tally);
            if self.fusion.z {
                let (first, second) = (results(&z), results(&z_again));
                let expected = (expected_z.view(), size);
                judge(&name, "z", (&first, &second), expected, tolerance, tally);
            }
        }
        Ok(())
    }
}

/// Rows without the gaps between them.
fn packed<T: Copy>(
    values: &[T],
    begin: usize,
    (rows, columns): (usize, usize),
    ld: usize,
) -> Vec<T> {
    (0..rows).flat_map(|row| &values[begin + row * ld..][..columns]).copied().collect()
}

fn grouped<T: LinearElement, O: LinearResult>(name: &'static str, precision: Precision) -> Check {
    Check::new(name, T::DTYPE, move |device, source, tally| {
        let mut units = Units::of(source);
        let timed = matches!(source.inputs, Inputs::Digits(_));
        for size in units::sizes(device, source, [1, 64, 131, 150]) {
            let group = Group::<T, O>::drawn(&mut units, source.scale(device), size, precision);
            tally.case();
            group
                .compare(device, timed, tally)
                .map_err(|source| Mismatch::Run { case: group.name.clone(), source })?;
        }
        Ok(())
    })
}

/// Samples of a case.
const SAMPLES: u32 = 64;

fn samples(device: &Device, source: &super::Source, tally: &mut Tally) -> Result<(), Mismatch> {
    let Some(kernels) = KernelDevice::of(device) else {
        tally.skip("it needs a device that runs kernels".into());
        return Ok(());
    };
    let mut units = Units::of(source);
    let timed = matches!(source.inputs, Inputs::Digits(_));
    for size in units::sizes(device, source, [1, 64, 333, 500]) {
        let [m, n, k] = [(); 3].map(|()| 1 + units.below(size.min(700)));
        let (batch, layout) = (1 + units.below(3), Layout::ALL[units.below(4)]);
        let case = format!("{batch} × {m} × {n} × {k} {layout}");
        tally.case();
        let mut values =
            |len: usize| -> Vec<f32> { (0..len).map(|_| units.unit() - 0.25).collect() };
        let operands = (values(batch * m * k), values(batch * k * n));
        let shape = LinearShape::new(layout, m, n, k).batched(batch);
        sample(kernels, device, &case, &shape, &operands, timed, tally)
            .map_err(|source| Mismatch::Run { case, source })?;
    }
    Ok(())
}

fn sample(
    kernels: KernelDevice<'_>,
    device: &Device,
    case: &str,
    shape: &LinearShape,
    (a, b): &(Vec<f32>, Vec<f32>),
    timed: bool,
    tally: &mut Tally,
) -> Result<(), Error> {
    let seed = (shape.m * shape.n) as u64;
    let on = (Buffer::from_slice(device, a)?, Buffer::from_slice(device, b)?);
    let mut sums = Sums::new(device, SAMPLES)?;
    launcher::launch(kernels, shape, (&on.0, &on.1), seed, &mut sums)?;
    let got = sums.wait()?;
    launcher::launch(kernels, shape, (&on.0, &on.1), seed, &mut sums)?;
    let bits = |sums: &[[f64; 3]]| -> Vec<u64> {
        sums.iter().flatten().map(|sum| sum.to_bits()).collect()
    };
    units::same_bits(case, "sums", &bits(&got), &bits(&sums.wait()?), tally);
    let LinearShape { layout, m, n, k, batch, .. } = *shape;
    let rounds = !launcher::truncates(kernels);
    for (number, got) in (0..).zip(&got) {
        let (problem, i, j) = reference::sampled_place(seed + number, [batch, m, n]);
        let a = matrix(&a[problem * m * k..][..m * k], m, k, layout.transposed_a());
        let b = matrix(&b[problem * k * n..][..k * n], k, n, layout.transposed_b());
        let (a, b) = (a.mapv(|v| v as f32), b.mapv(|v| v as f32));
        let expected = reference::sampled_sums(a.view(), b.view(), (i, j), rounds);
        let size = expected.squares.sqrt();
        for (what, &got, expected, size) in [
            ("the sum", &got[0], expected.exact, size),
            ("the sum in tf32", &got[1], expected.tf32, size),
            ("the sum of squares", &got[2], expected.squares, expected.squares),
        ] {
            let error = (got - expected).abs() / size.max(f64::MIN_POSITIVE);
            let error = if error.is_nan() { f64::INFINITY } else { error };
            let tolerance = 1e-12 * (k as f64).sqrt();
            let compared = Compared { got, expected, error, tolerance };
            tally.judge(case, &compared, || format!("{what} of sample {number}"));
        }
    }
    if timed {
        let seconds = time::median_seconds(device, || {
            launcher::launch(kernels, shape, (&on.0, &on.1), seed, &mut sums)
        })?;
        let bytes = 8 * u64::from(SAMPLES) * k as u64;
        tally.timing(Timing { seconds, bytes });
    }
    Ok(())
}

//! Groups of products as cases.

use half::bf16;
use kasmina_types::DType;

use super::linear;
use super::{BenchError, Prepared, timer};
use crate::buffer::Buffer;
use crate::device::Device;
use crate::driver::ComputeCapability;
use crate::linear::{
    Activation, GroupFusion, GroupedPlan, GroupedProblem, Layout, LinearOptions, Operands,
    Precision,
};

/// As [`linear::Work`] in bf16, for problems that have n, k and the bias in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Work {
    problems: usize,
    /// Rows of the largest.
    m: usize,
    n: usize,
    k: usize,
    /// Whether problem i of p has ⌈m·(i + 1) / p⌉ rows, or all as many.
    rising: bool,
}

/// A few large problems, as of experts that have much to do and little, and many small ones.
pub(super) fn on_gpu() -> [Work; 2] {
    [
        Work { problems: 8, m: 1024, n: 4096, k: 4096, rising: true },
        Work { problems: 64, m: 256, n: 256, k: 512, rising: false },
    ]
}

/// A small group.
pub(super) fn small(edge: usize) -> Work {
    Work { problems: 3, m: edge, n: edge, k: edge, rising: true }
}

impl Work {
    /// The name of what is computed beside the shape.
    pub(super) fn variant(self) -> &'static str {
        if self.rising { "rising" } else { "equal" }
    }

    /// The element type.
    pub(super) fn dtype(self) -> DType {
        DType::Bf16
    }

    /// Problems, and rows, columns and terms of the largest.
    pub(super) fn shape(self) -> Vec<usize> {
        vec![self.problems, self.m, self.n, self.k]
    }

    fn each(self) -> impl Iterator<Item = linear::Work> {
        let Self { problems, m, n, k, rising } = self;
        let rows = move |i: usize| if rising { (m * (i + 1)).div_ceil(problems) } else { m };
        (0..problems).map(move |i| linear::Work::new([rows(i), n, k], Precision::Bf16))
    }

    /// As [`linear::Work::cycles`].
    pub(super) fn cycles(self, of: ComputeCapability) -> Option<f64> {
        self.each().map(|work| work.cycles(of)).sum()
    }

    /// Of all problems.
    pub(super) fn bytes(self) -> u64 {
        self.each().map(linear::Work::bytes).sum()
    }
}

/// Makes the buffers and checks one result.
pub(super) fn prepare(device: &Device, work: Work, bytes: u64) -> Result<Prepared, BenchError> {
    let (mut problems, mut lengths) = (Vec::new(), [0; 3]);
    for linear::Work { m, n, k, .. } in work.each() {
        let [a, b, d] = lengths;
        problems.push(GroupedProblem { a, b, d, ..GroupedProblem::new(Layout::NT, m, n, k) });
        lengths = [a + m * k, b + n * k, d + m * n];
    }
    let (activation, precision) = (Activation::GeluTanh, Precision::Bf16);
    let options = LinearOptions { activation, precision, ..Default::default() };
    let fusion = GroupFusion { bias: true, ..Default::default() };
    let mut plan = GroupedPlan::<bf16, bf16>::new(device, Layout::NT, options, fusion, &problems)?;
    let bias = linear::drawn::<bf16>(7, work.n);
    let on_bias = Buffer::from_slice(device, &bias)?;
    let sets = timer::buffer_sets(device, bytes);
    let mut buffers = Vec::new();
    for set in 0..sets as u64 {
        let a = Buffer::from_slice(device, &linear::drawn::<bf16>(1 + set, lengths[0]))?;
        let b = Buffer::from_slice(device, &linear::drawn::<bf16>(100 + set, lengths[1]))?;
        buffers.push((a, b, Buffer::<bf16>::zeroed(device, lengths[2])?));
    }
    let (a, b, d) = &mut buffers[0];
    d.fill_bytes(0xFF)?;
    plan.run(&Operands { bias: Some(&on_bias), ..Operands::new(a, b) }, d, None)?;
    let (a, b, d) = (a.to_vec()?, b.to_vec()?, d.to_vec()?);
    let tolerance = precision.error_bound();
    let mut max_rel_error = 0.0_f64;
    for (of_one, p) in work.each().zip(&problems) {
        let operands = [&a[p.a..][..p.m * p.k], &b[p.b..][..p.n * p.k]];
        let d = &d[p.d..][..p.m * p.n];
        let error = linear::error(of_one, operands, &[Vec::new(), Vec::new()], &bias, d);
        if error.is_nan() || error > tolerance {
            let what = "a product of the group";
            return Err(BenchError::WrongResult { what, error, tolerance });
        }
        max_rel_error = max_rel_error.max(error);
    }
    let call = move |set: usize| {
        let (a, b, d) = &mut buffers[set % sets];
        let operands = Operands { bias: Some(&on_bias), ..Operands::new(a, b) };
        plan.run(&operands, d, None).map(drop)
    };
    Ok(Prepared { call: Box::new(call), sets, max_rel_error, tolerance })
}

//! Products of any shapes in one launch.

use std::marker::PhantomData;

use kasmina_types::{DType, Layout, LinearProblem, LinearStrides, Scaling};

use super::cpu;
use super::element::{LinearElement, LinearResult};
use super::error::LinearError;
use super::forward::{Chosen, LinearOptions, OP, check_output};
use super::operands::Operands;
use super::overlap::check_disjoint;
use super::precision::Precision;
use super::shape::{Extent, LinearShape};
use crate::buffer::{Buffer, check_length};
use crate::device::Device;
use crate::driver::launchers::KernelDevice;
use crate::driver::launchers::linear::{self as launcher, Cut, Factors};
use crate::driver::launchers::linear_grouped::{self as grouped, Arguments, Descriptors};
use crate::driver::launchers::linear_hopper::grouped::{self as hopper, Group, List};
use crate::error::Error;

/// One product of a group: its shape, how far its rows are apart, and where its operands begin in the buffers that all
/// problems share; everything in elements. Distances and places of operands that there are not mean nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GroupedProblem {
    /// Rows of D.
    pub m: usize,
    /// Columns of D.
    pub n: usize,
    /// Columns of op(A), rows of op(B); 0 leaves α·A·B zero.
    pub k: usize,
    /// From one row of A's array to the next.
    pub lda: usize,
    /// Of B's.
    pub ldb: usize,
    /// Of C.
    pub ldc: usize,
    /// Of R.
    pub ldr: usize,
    /// Of D.
    pub ldd: usize,
    /// Of Z.
    pub ldz: usize,
    /// Where A begins.
    pub a: usize,
    /// Where B begins.
    pub b: usize,
    /// Where C begins.
    pub c: usize,
    /// Where the bias begins.
    pub bias: usize,
    /// Where R begins.
    pub residual: usize,
    /// Where D begins.
    pub d: usize,
    /// Where Z begins.
    pub z: usize,
}

impl GroupedProblem {
    /// A product without gaps between rows, whose operands all begin their buffers.
    pub fn new(layout: Layout, m: usize, n: usize, k: usize) -> Self {
        let LinearShape { lda, ldb, ldc, ldr, ldd, ldz, .. } = LinearShape::new(layout, m, n, k);
        Self { m, n, k, lda, ldb, ldc, ldr, ldd, ldz, ..Self::default() }
    }

    /// As problem 1 of a batch, whose strides are then where its operands begin.
    fn shape(&self, layout: Layout) -> LinearShape {
        let Self { m, n, k, lda, ldb, ldc, ldr, ldd, ldz, .. } = *self;
        let strides = LinearStrides {
            a: self.a as u64,
            b: self.b as u64,
            c: self.c as u64,
            bias: self.bias as u64,
            residual: self.residual as u64,
            d: self.d as u64,
            z: self.z as u64,
            ..LinearStrides::default()
        };
        LinearShape { layout, m, n, k, batch: 1, lda, ldb, ldc, ldr, ldd, ldz, strides }
    }
}

/// What a group has beside A, B and D. There is a C exactly where β is not 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GroupFusion {
    /// A bias.
    pub bias: bool,
    /// A residual R.
    pub residual: bool,
    /// A place for Z.
    pub z: bool,
}

/// A list of products D = act(α·op(A)·op(B) + bias + β·C) + R of any shapes and places, in one launch. They share the
/// layout, the factors, the activation, the buffers, and one scale for each fp8 operand.
///
/// The list is checked and copied to the device once. On compute capability 9.0 a group runs on `wgmma` where the
/// precision, the layout (NT for fp8 and tf32) and the alignment of every problem allow it, no problem that is not empty
/// has a k of 0, and blocks would not share a tile's k eightfold elsewhere; else on `mma.sync`, or without tensor cores.
///
/// [`Self::run`] allocates nothing and copies nothing between host and device, and can be captured into a graph. On `wgmma`
/// that holds for A, B and D that the plan has seen: with others it first makes tensor maps for their addresses, in memory of
/// their own for the first eight, then in place of those used longest ago, after what is queued. The first buffers of a plan
/// may be new inside a capture too; any others are to be run once outside, or the run is refused
/// ([`LinearError::GroupCapture`]). A graph goes on with the buffers that it was captured with.
///
/// Results do not depend on the other problems of a list, but for the variant that all take, and for how many blocks
/// share the k of an output tile, which is one number for all (1 on `wgmma`): a sum's order follows from its k and that
/// number.
///
/// ```
/// use kasmina::linear::{
///     GroupFusion, GroupedPlan, GroupedProblem, Layout, LinearOptions, Operands,
/// };
/// use kasmina::{Buffer, Device};
///
/// # fn main() -> Result<(), kasmina::Error> {
/// let device = Device::Cpu;
/// // [1, 2] times one matrix, [3] times another, which lies behind it.
/// let first = GroupedProblem::new(Layout::NN, 1, 1, 2);
/// let second = GroupedProblem { a: 2, b: 2, d: 1, ..GroupedProblem::new(Layout::NN, 1, 2, 1) };
/// let options = LinearOptions::default();
/// let mut plan = GroupedPlan::<f32, f32>::new(
///     &device,
///     Layout::NN,
///     options,
///     GroupFusion::default(),
///     &[first, second],
/// )?;
/// let a = Buffer::from_slice(&device, &[1.0, 2.0, 3.0])?;
/// let b = Buffer::from_slice(&device, &[10.0, 100.0, 1.0, 2.0])?;
/// let mut d = Buffer::zeroed(&device, 3)?;
/// plan.run(&Operands::new(&a, &b), &mut d, None)?;
/// assert_eq!(d.to_vec()?, [210.0, 3.0, 6.0]);
/// # Ok(())
/// # }
/// ```
pub struct GroupedPlan<T: LinearElement, O: LinearResult> {
    device: Device,
    factors: Factors,
    fusion: GroupFusion,
    precision: Precision,
    shapes: Vec<LinearShape>,
    reach: [Reach; 7],
    launch: Option<Launch>,
    _types: PhantomData<(T, O)>,
}

/// What a launch needs beside the operands.
struct Launch {
    kernel: ListKernel,
    partials: Buffer<u8>,
    arrivals: Buffer<u32>,
}

/// The list on the device, as the kernel takes it.
enum ListKernel {
    /// A block for each part of each tile.
    Blocks(Descriptors),
    /// Persistent blocks, on warpgroups.
    Warpgroups(Box<Group>),
}

impl Launch {
    fn new(device: &Device, kernel: ListKernel) -> Result<Self, Error> {
        let (bytes, counts) = match &kernel {
            ListKernel::Blocks(list) => (list.cut().partial_bytes(), list.cut().arrivals()),
            ListKernel::Warpgroups(_) => (0, 0),
        };
        let (partials, arrivals) =
            (Buffer::zeroed(device, bytes)?, Buffer::zeroed(device, counts)?);
        Ok(Self { kernel, partials, arrivals })
    }
}

/// Blocks that would share the k of a tile on `mma.sync` from which on the group stays there: an estimate says that they are
/// then faster than one block on `wgmma`.
const SHARED_ON_MMA: u32 = 8;

/// How far the problems reach in a buffer, and which of them.
#[derive(Debug, Clone, Copy, Default)]
struct Reach {
    end: usize,
    problem: usize,
}

const NAMES: [&str; 7] = ["a", "b", "c", "bias", "residual", "d", "z"];

impl<T: LinearElement, O: LinearResult> GroupedPlan<T, O> {
    /// Checks the problems, chooses the kernel, and copies the list to the device. A list without problems, or of empty
    /// ones, launches nothing. The precision is chosen here, once for all runs: `options.adaptive` has no meaning.
    ///
    /// # Errors
    /// A tolerance that is not above 0; rows or results that overlap; counts, places or a number of output tiles beyond
    /// 31 bits; element types or a precision that do not go together; a capture of the device's stream; memory
    /// exhausted, or a failed call.
    pub fn new(
        device: &Device,
        layout: Layout,
        options: LinearOptions,
        fusion: GroupFusion,
        problems: &[GroupedProblem],
    ) -> Result<Self, Error> {
        super::Linear::new(device, options)?;
        device.refuse_capture(OP)?;
        let shapes: Vec<_> = problems.iter().map(|problem| problem.shape(layout)).collect();
        let there = [true, true, options.beta != 0.0, fusion.bias, fusion.residual, true, fusion.z];
        let mut reach = [Reach::default(); 7];
        for (number, shape) in shapes.iter().enumerate() {
            check_problem(shape, there).map_err(|why| in_problem(number, why))?;
            for (reach, end) in reach.iter_mut().zip(ends(shape)) {
                if end > reach.end {
                    *reach = Reach { end, problem: number };
                }
            }
        }
        check_disjoint("d", shapes.iter().map(LinearShape::d))?;
        if fusion.z {
            check_disjoint("z", shapes.iter().map(LinearShape::z))?;
        }
        let kernels = KernelDevice::of(device);
        let precision = resolved::<T>(kernels, &options, layout, &shapes)?;
        check_output(T::DTYPE, O::DTYPE, precision)?;
        let cut = match kernels {
            Some(kernels) => {
                let sizes: Vec<_> = shapes.iter().map(|s| (s.m, s.n, s.k)).collect();
                launcher::cut_group(kernels, T::DTYPE, precision, layout, &sizes)?
            }
            None => None,
        };
        let launch = match cut {
            Some(cut) => {
                let problems = descriptors(&shapes, there);
                let ends = reach.map(|reach| reach.end);
                let plain = ![there[2], fusion.residual, fusion.z].contains(&true);
                let list =
                    List { layout, shapes: &shapes, problems: &problems, plain, reach: ends };
                let shared = cut.instance.layout.is_some() && cut.parts >= SHARED_ON_MMA;
                let group =
                    if shared { None } else { Group::new::<T, O>(device, precision, &list)? };
                let kernel = match group {
                    Some(group) => ListKernel::Warpgroups(Box::new(group)),
                    None => {
                        let list = Descriptors::new(device, cut, layout, problems, ends)?;
                        ListKernel::Blocks(list)
                    }
                };
                Some(Launch::new(device, kernel)?)
            }
            None => None,
        };
        let LinearOptions { alpha, beta, activation, .. } = options;
        Ok(Self {
            device: device.clone(),
            factors: Factors { alpha, beta, activation },
            fusion,
            precision,
            shapes,
            reach,
            launch,
            _types: PhantomData,
        })
    }

    /// Problems of the list.
    pub fn problems(&self) -> usize {
        self.shapes.len()
    }

    /// How the products are computed.
    pub fn chosen(&self) -> Chosen {
        let (precision, kernel, parts) = match &self.launch {
            Some(Launch { kernel: ListKernel::Blocks(list), .. }) => {
                let Cut { instance, parts, .. } = list.cut();
                (self.precision, instance.kernel.name(), *parts)
            }
            Some(Launch { kernel: ListKernel::Warpgroups(group), .. }) => {
                (self.precision, group.kernel_name(), 1)
            }
            None if KernelDevice::of(&self.device).is_none() => (Precision::F64, "reference", 1),
            None => (self.precision, "none: nothing to do", 1),
        };
        Chosen { precision, kernel, parts, adapted: None }
    }

    /// Computes every problem's D, and its Z where the plan has a place for it.
    ///
    /// # Errors
    /// A buffer that some problem does not fit into, or on another device; an operand that was not planned, or is
    /// missing; scales by blocks, or of elements that are no fp8; buffers that are new to the plan inside a capture, as
    /// above; or a failed call.
    pub fn run(
        &mut self,
        operands: &Operands<'_, T, O>,
        d: &mut Buffer<O>,
        mut z: Option<&mut Buffer<O>>,
    ) -> Result<Chosen, Error> {
        self.check(operands, d, z.as_deref())?;
        let chosen = self.chosen();
        let Some(kernels) = KernelDevice::of(&self.device) else {
            for shape in &self.shapes {
                cpu::one(shape, &self.factors, operands, 1, d, z.as_deref_mut())?;
            }
            return Ok(chosen);
        };
        let Some(Launch { kernel, partials, arrivals }) = &mut self.launch else {
            return Ok(chosen);
        };
        let factors = &self.factors;
        let arguments = Arguments { factors, operands, d, z, partials, arrivals };
        let launched = match kernel {
            ListKernel::Blocks(list) => grouped::launch(kernels, list, arguments),
            ListKernel::Warpgroups(group) => hopper::launch(kernels, group, arguments),
        };
        if launched.is_err() {
            // A launch that broke off leaves arrivals that are not zero.
            *arrivals = Buffer::zeroed(&self.device, arrivals.len())?;
        }
        launched.map(|()| chosen)
    }

    fn check(
        &self,
        operands: &Operands<'_, T, O>,
        d: &Buffer<O>,
        z: Option<&Buffer<O>>,
    ) -> Result<(), Error> {
        let GroupFusion { bias, residual, z: keeps_z } = self.fusion;
        let c = self.factors.beta != 0.0;
        let optional = [
            ("bias", bias, operands.bias),
            ("c", c, operands.c),
            ("residual", residual, operands.residual),
            ("z", keeps_z, z),
        ];
        for (what, planned, buffer) in optional {
            if planned != buffer.is_some() {
                let planned = if planned { "a" } else { "no" };
                let got = if buffer.is_some() { "one" } else { "none" };
                return Err(LinearError::GroupOperand { what, planned, got }.into());
            }
            if let Some(buffer) = buffer {
                buffer.check_device(OP, what, &self.device)?;
            }
        }
        operands.a.check_device(OP, "a", &self.device)?;
        operands.b.check_device(OP, "b", &self.device)?;
        d.check_device(OP, "d", &self.device)?;
        let lengths = [
            Some(operands.a.len()),
            Some(operands.b.len()),
            operands.c.map(Buffer::len),
            operands.bias.map(Buffer::len),
            operands.residual.map(Buffer::len),
            Some(d.len()),
            z.map(Buffer::len),
        ];
        for ((buffer, got), reach) in NAMES.into_iter().zip(lengths).zip(self.reach) {
            if let Some(got) = got.filter(|&got| got < reach.end) {
                let expected = format!("{} or more, for problem {}", reach.end, reach.problem);
                return Err(Error::Length { op: OP, buffer, expected, got });
            }
        }
        let Some((a, b)) = operands.scales.buffers() else { return Ok(()) };
        if operands.scales.scaling() == Scaling::Block {
            return Err(LinearError::GroupScales.into());
        }
        if T::DTYPE != DType::E4m3 {
            return Err(LinearError::Scales { dtype: T::DTYPE }.into());
        }
        for (name, buffer) in [("scales.a", a), ("scales.b", b)] {
            buffer.check_device(OP, name, &self.device)?;
            check_length(OP, name, 1, buffer.len())?;
        }
        Ok(())
    }
}

fn in_problem(number: usize, why: Error) -> Error {
    match why {
        Error::Linear(source) => LinearError::InProblem { number, source: Box::new(source) }.into(),
        why => why,
    }
}

/// Refuses rows that overlap, counts that 31 bits do not hold, and places that 63 do not. Of what is not there nothing is
/// asked.
fn check_problem(shape: &LinearShape, there: [bool; 7]) -> Result<(), Error> {
    let [.., c, _, residual, _, z] = there;
    let n = shape.n;
    let or = |there: bool, ld: usize| if there { ld } else { n };
    LinearShape {
        ldc: or(c, shape.ldc),
        ldr: or(residual, shape.ldr),
        ldz: or(z, shape.ldz),
        ..*shape
    }
    .check()?;
    for ((what, end), there) in NAMES.into_iter().zip(ends(shape)).zip(there) {
        if there && end > i64::MAX as usize {
            let (got, limit) = (end as u64, i64::MAX as u64);
            return Err(Error::TooLarge { op: OP, what, got, limit });
        }
    }
    Ok(())
}

/// Where the problem's operands end in their buffers; 0 for those without elements.
fn ends(shape: &LinearShape) -> [usize; 7] {
    let end = |extent: Extent| match extent.elements() {
        0 => 0,
        elements => elements.saturating_add(extent.stride as usize),
    };
    [shape.a(), shape.b(), shape.c(), shape.bias(), shape.residual(), shape.d(), shape.z()].map(end)
}

/// The precision, which the largest problem decides where it is `Auto`.
fn resolved<T: LinearElement>(
    kernels: Option<KernelDevice<'_>>,
    options: &LinearOptions,
    layout: Layout,
    shapes: &[LinearShape],
) -> Result<Precision, LinearError> {
    let tensor_cores = kernels.is_some_and(launcher::multiplies_tf32);
    let work = |shape: &&LinearShape| shape.m as u128 * shape.n as u128 * shape.k as u128;
    let none = LinearShape::new(layout, 0, 0, 0);
    let largest = shapes.iter().max_by_key(work).unwrap_or(&none);
    options.precision.resolved(T::DTYPE, options.tolerance, largest, tensor_cores)
}

/// The list as the kernels take it; what there is not is at 0.
fn descriptors(shapes: &[LinearShape], there: [bool; 7]) -> Vec<LinearProblem> {
    let [.., c, bias, residual, _, z] = there;
    let place = |there: bool, begin: u64| if there { begin } else { 0 };
    let problems = shapes.iter().map(|shape| {
        let strides = &shape.strides;
        LinearProblem {
            a: strides.a,
            b: strides.b,
            c: place(c, strides.c),
            bias: place(bias, strides.bias),
            residual: place(residual, strides.residual),
            d: strides.d,
            z: place(z, strides.z),
            ..shape.problem(c, residual, z)
        }
    });
    problems.collect()
}

//! Launchers of `linear_*` and `linear_backward_*`, and the choice among the variants of the product.

use bytemuck::Pod;
use kasmina_kernels::instances::{self, LinearInstance};
use kasmina_types::dtype::Element;
use kasmina_types::tiles::{LINEAR_BACKWARD_COLUMNS, LINEAR_BACKWARD_ROWS};
use kasmina_types::{
    Activation, DType, In, Layout, LinearBackward, LinearOutput, LinearParams, LinearProblem,
    LinearStrides, Out,
};

use super::activation_norm::Optional;
use super::{KernelDevice, with_buffers};
use crate::buffer::Buffer;
use crate::error::Error;
use crate::linear::{LinearShape, Operands, Precision};

const OP: &str = "linear";

/// k that a part has at least: below, another block costs more than it brings.
const LEAST_PART_K: usize = 512;

/// k that a sum in f32 has at most where products are f32, so that its rounding error stays below the bound of
/// `Precision::F32` for any k: it grows with the root of k.
const MOST_F32_K: usize = 2048;

/// Parts at most: the block that adds them does it alone.
const MOST_PARTS: usize = 32;

/// What the product is multiplied by, and what is applied to it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Factors {
    pub(crate) alpha: f64,
    pub(crate) beta: f64,
    pub(crate) activation: Activation,
}

/// A variant of the product, and how its work is cut.
#[derive(Clone, Copy)]
pub(crate) struct Cut {
    pub(crate) instance: LinearInstance,
    /// Output tiles of all problems.
    pub(crate) tiles: u32,
    /// Blocks for each.
    pub(crate) parts: u32,
}

impl Cut {
    pub(crate) fn partial_bytes(&self) -> usize {
        if self.parts == 1 {
            return 0;
        }
        self.tiles as usize * self.parts as usize * self.instance.tile_bytes()
    }

    pub(crate) fn arrivals(&self) -> usize {
        if self.parts == 1 { 0 } else { self.tiles as usize }
    }
}

/// Whether the device has the kernels on tensor cores.
pub(crate) fn multiplies_tf32(device: KernelDevice<'_>) -> bool {
    instances::linear_mma(DType::F32, Layout::NN).all(|instance| device.supports(instance.kernel))
}

/// The variants for elements, precision and layout that the device has, the largest tile first. Where a better family is
/// added for some devices, shapes or alignments, it is put in front here.
fn variants(
    device: KernelDevice<'_>,
    dtype: DType,
    precision: Precision,
    layout: Layout,
) -> Vec<LinearInstance> {
    if matches!(precision, Precision::Tf32 | Precision::Bf16 | Precision::F16) {
        let mma: Vec<_> = instances::linear_mma(dtype, layout)
            .filter(|instance| device.supports(instance.kernel))
            .collect();
        if !mma.is_empty() {
            return mma;
        }
    }
    let sums = if precision == Precision::F64 { DType::F64 } else { DType::F32 };
    instances::linear_simt(dtype, sums).collect()
}

/// Chooses the variant and cuts its work; `None` where there is nothing to compute. The largest tile is taken of which
/// the device is at least half full; where even the smallest leave blocks idle, blocks share the k of a tile.
pub(crate) fn cut(
    device: KernelDevice<'_>,
    dtype: DType,
    precision: Precision,
    shape: &LinearShape,
) -> Result<Option<Cut>, Error> {
    if shape.m == 0 || shape.n == 0 || shape.batch == 0 {
        return Ok(None);
    }
    let variants = variants(device, dtype, precision, shape.layout);
    let tiles = |instance: &LinearInstance| {
        tiles_of(instance, shape.m, shape.n).saturating_mul(shape.batch as u64)
    };
    cut_among(device, variants, shape.k, tiles).map(Some)
}

/// As [`cut`], of problems of any shapes, `(m, n, k)`.
pub(crate) fn cut_group(
    device: KernelDevice<'_>,
    dtype: DType,
    precision: Precision,
    layout: Layout,
    shapes: &[(usize, usize, usize)],
) -> Result<Option<Cut>, Error> {
    if shapes.iter().all(|&(m, n, _)| m == 0 || n == 0) {
        return Ok(None);
    }
    let variants = variants(device, dtype, precision, layout);
    let longest = shapes.iter().map(|&(.., k)| k).max().unwrap_or(0);
    let tiles = |instance: &LinearInstance| {
        let each = shapes.iter().map(|&(m, n, _)| tiles_of(instance, m, n));
        each.fold(0, u64::saturating_add)
    };
    cut_among(device, variants, longest, tiles).map(Some)
}

/// Output tiles of an instance in a D of `[m, n]`.
pub(crate) fn tiles_of(instance: &LinearInstance, m: usize, n: usize) -> u64 {
    let (rows, columns) = (instance.rows as usize, instance.columns as usize);
    m.div_ceil(rows) as u64 * n.div_ceil(columns) as u64
}

/// The choice for sums of up to `k` terms.
fn cut_among(
    device: KernelDevice<'_>,
    variants: Vec<LinearInstance>,
    k: usize,
    tiles: impl Fn(&LinearInstance) -> u64,
) -> Result<Cut, Error> {
    let mut chosen = None;
    for instance in variants {
        let tiles = tiles(&instance);
        let resident =
            device.resident_blocks_with_shared(instance.kernel, instance.dynamic_shared_bytes)?;
        chosen = Some((instance, tiles, u64::from(resident)));
        if tiles.saturating_mul(2) >= u64::from(resident) {
            break;
        }
    }
    let (instance, tiles, resident) = chosen.expect("every element type has an instance");
    let idle = (resident / tiles.max(1)) as usize;
    let mut parts = idle.min(k / LEAST_PART_K).clamp(1, MOST_PARTS);
    if instance.layout.is_none() && instance.sums == DType::F32 {
        parts = parts.max(k.div_ceil(MOST_F32_K));
    }
    let got = tiles.saturating_mul(parts as u64);
    let limit = i32::MAX as u64;
    if got > limit {
        return Err(Error::TooLarge { op: OP, what: "output tiles · parts", got, limit });
    }
    Ok(Cut { instance, tiles: tiles as u32, parts: parts as u32 })
}

/// One launch. The shape was checked, and the operands against it.
pub(crate) struct Arguments<'a, 'b, T: Pod, O: Pod> {
    pub(crate) shape: &'a LinearShape,
    pub(crate) factors: &'a Factors,
    pub(crate) operands: &'a Operands<'b, T, O>,
    pub(crate) d: &'a mut Buffer<O>,
    pub(crate) z: Option<&'a mut Buffer<O>>,
    /// At least [`Cut::partial_bytes`].
    pub(crate) partials: &'a mut Buffer<u8>,
    /// At least [`Cut::arrivals`], zero.
    pub(crate) arrivals: &'a mut Buffer<u32>,
}

/// Checks the operands against the shape and the scratch against the `parts` of `tiles`, and makes the kernels'
/// parameters of them.
pub(super) fn parameters<T: Element, O: Element>(
    a: &mut Arguments<'_, '_, T, O>,
    (tiles, parts): (u32, u32),
    (partial_bytes, arrivals): (usize, usize),
) -> Result<LinearParams, Error> {
    let Arguments { shape, factors, operands, .. } = *a;
    let batch = shape.batch;
    shape.a().check(batch, operands.a.len())?;
    shape.b().check(batch, operands.b.len())?;
    shape.d().check(batch, a.d.len())?;
    for (buffer, extent) in [
        (operands.bias, shape.bias()),
        (operands.c, shape.c()),
        (operands.residual, shape.residual()),
        (a.z.as_deref(), shape.z()),
    ] {
        if let Some(buffer) = buffer {
            extent.check(batch, buffer.len())?;
        }
    }
    check_at_least("partials", partial_bytes, a.partials.len())?;
    check_at_least("arrivals", arrivals, a.arrivals.len())?;
    let there = (operands.c.is_some(), operands.residual.is_some(), a.z.is_some());
    let mut strides = shape.strides;
    // What there is not is at 0 for every problem of the batch.
    for (there, stride) in [
        (there.0, &mut strides.c),
        (there.1, &mut strides.residual),
        (there.2, &mut strides.z),
        (operands.bias.is_some(), &mut strides.bias),
    ] {
        *stride = if there { *stride } else { 0 };
    }
    let results = (&mut *a.d, a.z.as_deref_mut());
    let scratch = (&mut *a.partials, &mut *a.arrivals);
    Ok(LinearParams {
        problem: shape.problem(there.0, there.1, there.2),
        strides,
        batch: batch as u32,
        ..of_operands(shape.layout, factors, operands, results, (tiles, parts), scratch)
    })
}

/// Parameters of no problem yet, with the operands and the `parts` of `tiles`. The scratch has been checked, and is left
/// out where there is one part.
pub(super) fn of_operands<T: Element, O: Element>(
    layout: Layout,
    factors: &Factors,
    operands: &Operands<'_, T, O>,
    (d, z): (&mut Buffer<O>, Option<&mut Buffer<O>>),
    (tiles, parts): (u32, u32),
    (partials, arrivals): (&mut Buffer<u8>, &mut Buffer<u32>),
) -> LinearParams {
    let output = LinearOutput::of(O::DTYPE).expect("the output type was checked");
    let scales = operands.scales.buffers();
    let none = || Out::new(std::ptr::null_mut(), 0);
    let split = parts > 1;
    LinearParams {
        a: operands.a.view().cast(),
        b: operands.b.view().cast(),
        c: view_of(operands.c),
        bias: view_of(operands.bias),
        residual: view_of(operands.residual),
        d: d.view_mut().cast(),
        z: z.map_or_else(none, |z| z.view_mut().cast()),
        a_scale: scales.map_or(In::new(std::ptr::null(), 0), |(a, _)| a.view()),
        b_scale: scales.map_or(In::new(std::ptr::null(), 0), |(_, b)| b.view()),
        problems: In::new(std::ptr::null(), 0),
        partials: if split { partials.view_mut() } else { none() },
        arrivals: if split { arrivals.view_mut() } else { Out::new(std::ptr::null_mut(), 0) },
        problem: LinearProblem::default(),
        strides: LinearStrides::default(),
        alpha: factors.alpha,
        beta: factors.beta,
        batch: 0,
        tiles,
        parts,
        layout: layout as u32,
        activation: factors.activation as u32,
        output: output as u32,
        scaling: operands.scales.scaling() as u32,
        _padding: 0,
    }
}

/// Checks the contract of `linear_*` and launches it.
pub(crate) fn launch<T: Element, O: Element>(
    device: KernelDevice<'_>,
    cut: Cut,
    mut a: Arguments<'_, '_, T, O>,
) -> Result<(), Error> {
    let instance = cut.instance;
    assert_eq!(instance.dtype, T::DTYPE, "the variant was chosen by the element type");
    assert!(instance.layout.is_none_or(|layout| layout == a.shape.layout), "and by the layout");
    let operands = a.operands;
    let scales = operands.scales.buffers();
    assert!(instance.layout.is_none() || scales.is_none(), "instances for one layout do not scale");
    let scratch = (cut.partial_bytes(), cut.arrivals());
    let params = parameters(&mut a, (cut.tiles, cut.parts), scratch)?;
    let results = Optional([operands.bias, operands.c, operands.residual, a.z.as_deref()]);
    let scales = Optional([scales.map(|(a, _)| a), scales.map(|(_, b)| b)]);
    // SAFETY: every operand is inside its buffer, in memory aligned to 16 bytes; results do not overlap (`LinearShape`)
    // and are borrowed mutably; the grid has a block for each part of each tile; the output type is one of the sums'
    // (`check_output`); scratch has the room checked above, with arrivals zero between launches.
    let launch = || unsafe {
        let grid = cut.tiles * cut.parts;
        device.launch_with_shared(instance.kernel, grid, instance.dynamic_shared_bytes, params)
    };
    with_buffers!(
        device,
        [operands.a, operands.b, a.d, a.partials, a.arrivals, results, scales],
        launch()
    )
}

fn view_of<O: Pod>(buffer: Option<&Buffer<O>>) -> In<u8> {
    buffer.map_or(In::new(std::ptr::null(), 0), |buffer| buffer.view().cast())
}

/// One launch of the gradient through the activation: matrices `[rows, columns]` with their rows so far apart.
pub(crate) struct BackwardArguments<'a, T: Pod> {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) activation: Activation,
    pub(crate) grad_output: (&'a Buffer<T>, usize),
    pub(crate) z: Option<(&'a Buffer<T>, usize)>,
    pub(crate) grad_z: Option<(&'a mut Buffer<T>, usize)>,
    pub(crate) grad_bias: Option<&'a mut Buffer<T>>,
    /// At least [`backward_scratch`]'s, the arrivals zero.
    pub(crate) partials: &'a mut Buffer<u8>,
    pub(crate) arrivals: &'a mut Buffer<u32>,
}

/// Bytes of partial sums, and arrivals, that the bias's gradient needs.
pub(crate) fn backward_scratch(dtype: DType, rows: usize, columns: usize) -> (usize, usize) {
    let slabs = rows.div_ceil(LINEAR_BACKWARD_ROWS as usize);
    let size = dtype.size_bytes().max(4);
    (slabs * columns * size, columns.div_ceil(LINEAR_BACKWARD_COLUMNS as usize))
}

/// Checks the contract of `linear_backward_*` and launches it.
pub(crate) fn launch_backward<T: Element>(
    device: KernelDevice<'_>,
    mut a: BackwardArguments<'_, T>,
) -> Result<(), Error> {
    let Some(kernel) = instances::linear_backward(T::DTYPE) else {
        let expected = "f64, f32, f16 or bf16";
        return Err(Error::Dtype { op: "linear_backward", got: T::DTYPE, expected });
    };
    let (rows, columns) = (a.rows, a.columns);
    let least = |ld: usize| (rows.max(1) - 1) * ld + columns;
    let check = |name, buffer: &Buffer<T>, ld: usize| check_at_least(name, least(ld), buffer.len());
    check("grad_output", a.grad_output.0, a.grad_output.1)?;
    if let Some((z, ld)) = a.z {
        check("z", z, ld)?;
    }
    if let Some((grad_z, ld)) = &a.grad_z {
        check("grad_z", grad_z, *ld)?;
    }
    if let Some(bias) = &a.grad_bias {
        check_at_least("gradients.bias", columns, bias.len())?;
    }
    let (bytes, arrivals) = backward_scratch(T::DTYPE, rows, columns);
    check_at_least("partials", bytes, a.partials.len())?;
    check_at_least("arrivals", arrivals, a.arrivals.len())?;
    assert!(a.z.is_some() || a.activation == Activation::None, "the caller asks for z");
    let slabs = rows.div_ceil(LINEAR_BACKWARD_ROWS as usize).max(1);
    let got = arrivals as u64 * slabs as u64;
    let limit = i32::MAX as u64;
    if got > limit {
        return Err(Error::TooLarge { op: "linear_backward", what: "slabs", got, limit });
    }
    if columns == 0 {
        return Ok(());
    }
    let none = || Out::new(std::ptr::null_mut(), 0);
    let params = LinearBackward {
        grad_output: a.grad_output.0.view().cast(),
        z: view_of(a.z.map(|(z, _)| z)),
        grad_z: a.grad_z.as_mut().map_or_else(none, |(grad_z, _)| grad_z.view_mut().cast()),
        grad_bias: a.grad_bias.as_deref_mut().map_or_else(none, |bias| bias.view_mut().cast()),
        partials: a.partials.view_mut(),
        arrivals: a.arrivals.view_mut(),
        rows: rows as u32,
        columns: columns as u32,
        ld_grad: a.grad_output.1 as u32,
        ldz: a.z.map_or(0, |(_, ld)| ld as u32),
        ld_grad_z: a.grad_z.as_ref().map_or(0, |(_, ld)| *ld as u32),
        slabs: slabs as u32,
        activation: a.activation as u32,
        _padding: 0,
    };
    let optional = Optional([
        a.z.map(|(z, _)| z),
        a.grad_z.as_ref().map(|(grad_z, _)| &**grad_z),
        a.grad_bias.as_deref(),
    ]);
    // SAFETY: every matrix is inside its buffer, the bias has a value for each column; what is written is borrowed
    // mutably; the grid has a block for each slab of each 32 columns; scratch has the room checked above, with arrivals
    // zero between launches.
    let launch = || unsafe { device.launch(kernel, got as u32, params) };
    with_buffers!(device, [a.grad_output.0, a.partials, a.arrivals, optional], launch())
}

pub(super) fn check_at_least(buffer: &'static str, least: usize, got: usize) -> Result<(), Error> {
    if got >= least {
        return Ok(());
    }
    Err(Error::Length { op: OP, buffer, expected: format!("{least} or more"), got })
}

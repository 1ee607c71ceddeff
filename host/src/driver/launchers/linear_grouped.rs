//! Launcher of `linear_*` for problems of any shapes in one grid.

use bytemuck::Pod;
use kasmina_types::dtype::Element;
use kasmina_types::{Layout, LinearParams, LinearProblem};

use super::activation_norm::Optional;
use super::linear::{Cut, Factors, check_at_least, of_operands, tiles_of};
use super::{KernelDevice, with_buffers};
use crate::buffer::Buffer;
use crate::error::Error;
use crate::linear::Operands;

/// The problems of a group as the kernels read them, on the device; made by [`Descriptors::new`] alone, so that their
/// tiles are the cut's.
pub(crate) struct Descriptors {
    problems: Buffer<LinearProblem>,
    cut: Cut,
    layout: Layout,
    /// Elements that the problems reach in a, b, c, bias, residual, d and z.
    reach: [usize; 7],
}

impl Descriptors {
    /// Counts the problems' tiles and copies them to the device. Each problem is a good shape whose operands end where
    /// `reach` says at the latest, and no two write to one element.
    pub(crate) fn new(
        device: &crate::device::Device,
        cut: Cut,
        layout: Layout,
        mut problems: Vec<LinearProblem>,
        reach: [usize; 7],
    ) -> Result<Self, Error> {
        let mut tiles = 0;
        for problem in &mut problems {
            problem.first_tile = tiles as u32;
            tiles += tiles_of(&cut.instance, problem.m as usize, problem.n as usize);
        }
        assert_eq!(tiles, u64::from(cut.tiles), "the cut is of these problems");
        Ok(Self { problems: Buffer::from_slice(device, &problems)?, cut, layout, reach })
    }

    pub(crate) fn cut(&self) -> &Cut {
        &self.cut
    }
}

/// One launch. What is there is what the list was made for.
pub(crate) struct Arguments<'a, 'b, T: Pod, O: Pod> {
    pub(crate) factors: &'a Factors,
    pub(crate) operands: &'a Operands<'b, T, O>,
    pub(crate) d: &'a mut Buffer<O>,
    pub(crate) z: Option<&'a mut Buffer<O>>,
    /// At least [`Cut::partial_bytes`].
    pub(crate) partials: &'a mut Buffer<u8>,
    /// At least [`Cut::arrivals`], zero.
    pub(crate) arrivals: &'a mut Buffer<u32>,
}

/// Checks that buffers hold what the problems reach: in a, b, c, bias, residual, d and z.
pub(super) fn check_reach<T: Pod, O: Pod>(
    reach: &[usize; 7],
    operands: &Operands<'_, T, O>,
    d: &Buffer<O>,
    z: Option<&Buffer<O>>,
) -> Result<(), Error> {
    let lengths = [
        ("a", Some(operands.a.len())),
        ("b", Some(operands.b.len())),
        ("c", operands.c.map(Buffer::len)),
        ("bias", operands.bias.map(Buffer::len)),
        ("residual", operands.residual.map(Buffer::len)),
        ("d", Some(d.len())),
        ("z", z.map(Buffer::len)),
    ];
    for ((name, got), least) in lengths.into_iter().zip(reach) {
        got.map_or(Ok(()), |got| check_at_least(name, *least, got))?;
    }
    Ok(())
}

/// Checks the contract of `linear_*` and launches it.
pub(crate) fn launch<T: Element, O: Element>(
    device: KernelDevice<'_>,
    descriptors: &Descriptors,
    a: Arguments<'_, '_, T, O>,
) -> Result<(), Error> {
    let Arguments { factors, operands, d, mut z, partials, arrivals } = a;
    let Descriptors { problems, cut, layout, reach } = descriptors;
    let instance = cut.instance;
    assert_eq!(instance.dtype, T::DTYPE, "the variant was chosen by the element type");
    let scales = operands.scales.buffers();
    assert!(instance.layout.is_none() || scales.is_none(), "instances for one layout do not scale");
    check_reach(reach, operands, d, z.as_deref())?;
    check_at_least("partials", cut.partial_bytes(), partials.len())?;
    check_at_least("arrivals", cut.arrivals(), arrivals.len())?;
    let scratch = (&mut *partials, &mut *arrivals);
    let params = LinearParams {
        problems: problems.view(),
        batch: problems.len() as u32,
        ..of_operands(
            *layout,
            factors,
            operands,
            (&mut *d, z.as_deref_mut()),
            (cut.tiles, cut.parts),
            scratch,
        )
    };
    let results = Optional([operands.bias, operands.c, operands.residual, z.as_deref()]);
    let scales = Optional([scales.map(|(a, _)| a), scales.map(|(_, b)| b)]);
    // SAFETY: every operand of every problem ends inside its buffer (`reach`), in memory aligned to 16 bytes; results do
    // not overlap (`Descriptors::new`) and are borrowed mutably; the problems are in the order of their first tiles, the
    // first of which is 0, and the grid has a block for each part of each tile; the output type is one of the sums'
    // (`check_output`); scratch has the room checked above, with arrivals zero between launches.
    let launch = || unsafe {
        let grid = cut.tiles * cut.parts;
        device.launch_with_shared(instance.kernel, grid, instance.dynamic_shared_bytes, params)
    };
    with_buffers!(
        device,
        [operands.a, operands.b, d, partials, arrivals, problems, results, scales],
        launch()
    )
}

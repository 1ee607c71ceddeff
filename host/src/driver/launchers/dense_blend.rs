//! Launchers of `dense_blend_*` and `dense_blend_backward_*`.

use bytemuck::Pod;
use kasmina_kernels::instances;
use kasmina_types::dense_blend::DenseShape;
use kasmina_types::dtype::Element;
use kasmina_types::tiles::{DENSE_BLOCK_THREADS, DENSE_COLUMNS, DENSE_ROWS};
use kasmina_types::{
    DenseBlend, DenseBlendBackward, DenseMerge, DenseSeed, DenseUsers, In, Numerical,
};

use super::{KernelDevice, with_buffers};
use crate::buffer::{Buffer, check_length};
use crate::device::Device;
use crate::error::Error;
use crate::kasmina::LayerState;

const OP: &str = "dense_blend";

/// Seeds that a launch is for: each is one of the layer's, and there once, so that what is written of one is no other's.
pub(crate) struct DenseList {
    entries: Buffer<DenseSeed>,
    shape: DenseShape,
    num_seeds: usize,
}

impl DenseList {
    /// The list for `batch` rows of a layer of `num_seeds` seeds of `chunk_size` columns.
    pub(crate) fn new(
        device: &Device,
        [batch, num_seeds, chunk_size]: [usize; 3],
        entries: &[DenseSeed],
    ) -> Result<Self, Error> {
        let mut seen = vec![false; num_seeds];
        for entry in entries {
            let seen = &mut seen[entry.seed as usize];
            assert!(!*seen, "a seed is listed once");
            *seen = true;
        }
        let shape = DenseShape {
            batch: batch as u32,
            chunk_size: chunk_size as u32,
            hidden: (num_seeds * chunk_size) as u32,
            listed: entries.len() as u32,
            slabs: (batch as u32).div_ceil(DENSE_ROWS),
            tiles: (chunk_size as u32).div_ceil(DENSE_COLUMNS),
            _padding: [0; 2],
        };
        let list = Self { entries: Buffer::from_slice(device, entries)?, shape, num_seeds };
        list.grid().map(|_| list)
    }

    /// Blocks: one for each slab of each column tile of each seed.
    fn grid(&self) -> Result<u32, Error> {
        let DenseShape { listed, slabs, tiles, .. } = self.shape;
        let got = u64::from(listed) * u64::from(slabs) * u64::from(tiles);
        let limit = i32::MAX as u64;
        if got > limit {
            return Err(Error::TooLarge { op: OP, what: "seeds · slabs · tiles", got, limit });
        }
        Ok(got as u32)
    }

    /// Seeds.
    pub(crate) fn len(&self) -> usize {
        self.shape.listed as usize
    }

    /// Elements of an array `[listed, batch, chunk_size]`.
    pub(crate) fn elements(&self) -> usize {
        self.len() * self.shape.batch as usize * self.shape.chunk_size as usize
    }

    /// Elements of the sums of columns, and of those for α.
    pub(crate) fn sums(&self) -> (usize, usize) {
        let DenseShape { slabs, tiles, chunk_size, .. } = self.shape;
        let slabs = self.len() * slabs as usize;
        (slabs * chunk_size as usize, slabs * tiles as usize)
    }

    fn check_layer(&self, state: &LayerState) -> Result<(), Error> {
        check_length(OP, "state", self.num_seeds, state.num_seeds())?;
        check_length(OP, "chunk_size", self.shape.chunk_size as usize, state.chunk_size())
    }

    fn layer_elements(&self) -> usize {
        self.shape.batch as usize * self.shape.hidden as usize
    }
}

/// One launch of the blend.
pub(crate) struct Arguments<'a, T: Pod> {
    pub(crate) list: &'a DenseList,
    pub(crate) state: &'a LayerState,
    /// Flags of the adaptive mode, as they were before the pass.
    pub(crate) unstable: &'a Buffer<u8>,
    pub(crate) numerical: Numerical,
    /// Whether z is added as it is.
    pub(crate) gradient: bool,
    pub(crate) input: &'a Buffer<T>,
    /// At least [`DenseList::elements`].
    pub(crate) z: &'a Buffer<f32>,
    pub(crate) output: &'a mut Buffer<T>,
}

/// Checks the contract of `dense_blend_*` and launches it.
pub(crate) fn launch<T: Element>(
    device: KernelDevice<'_>,
    a: Arguments<'_, T>,
) -> Result<(), Error> {
    let Arguments { list, state, unstable, numerical, gradient, input, z, output } = a;
    let (kernel, _) = kernels::<T>();
    list.check_layer(state)?;
    check_length(OP, "input", list.layer_elements(), input.len())?;
    check_length(OP, "output", list.layer_elements(), output.len())?;
    check_length(OP, "unstable", list.num_seeds, unstable.len())?;
    check_at_least("z", list.elements(), z.len())?;
    let params = DenseBlend {
        input: input.view().cast(),
        z: z.view(),
        seeds: list.entries.view(),
        alpha: state.alpha.view(),
        unstable: unstable.view(),
        output: output.view_mut().cast(),
        numerical,
        shape: list.shape,
        gradient: gradient.into(),
        _padding: [0; 3],
    };
    let grid = list.grid()?;
    // SAFETY: the arrays have the lengths checked above, those of the state one element a seed; every seed of the list is
    // one, and listed once, so that no two blocks write to one element; the grid has a block for each slab of each tile.
    let launch = || unsafe { device.launch(kernel, grid, params) };
    with_buffers!(device, [input, z, list.entries, state.alpha, unstable, output], launch())
}

/// One launch of the backward pass between the products.
pub(crate) struct BackwardArguments<'a, T: Pod> {
    pub(crate) list: &'a DenseList,
    pub(crate) state: &'a LayerState,
    pub(crate) input: &'a Buffer<T>,
    pub(crate) grad_output: &'a Buffer<T>,
    /// This and the next two at least [`DenseList::elements`].
    pub(crate) z: &'a Buffer<f32>,
    pub(crate) grad_z: &'a mut Buffer<T>,
    pub(crate) kept_input: &'a mut Buffer<T>,
    pub(crate) sums: &'a mut DenseSums,
    /// ∂α, and norm, variance and largest magnitude of the seeds' ∂b, `[num_seeds]` each.
    pub(crate) figures: [&'a mut Buffer<f32>; 4],
}

/// Scratch memory of the backward pass.
pub(crate) struct DenseSums {
    columns: Buffer<f32>,
    alpha: Buffer<f32>,
    arrivals: Buffer<u32>,
}

impl DenseSums {
    pub(crate) fn new(device: &Device, list: &DenseList) -> Result<Self, Error> {
        let (columns, alpha) = list.sums();
        Ok(Self {
            columns: Buffer::zeroed(device, columns)?,
            alpha: Buffer::zeroed(device, alpha)?,
            arrivals: Buffer::zeroed(device, list.len())?,
        })
    }

    /// Makes the counts zero again, which a launch that broke off leaves as they are.
    pub(crate) fn recover(&mut self, device: &Device) -> Result<(), Error> {
        self.arrivals = Buffer::zeroed(device, self.arrivals.len())?;
        Ok(())
    }
}

/// Checks the contract of `dense_blend_backward_*` and launches it.
pub(crate) fn launch_backward<T: Element>(
    device: KernelDevice<'_>,
    a: BackwardArguments<'_, T>,
) -> Result<(), Error> {
    let BackwardArguments { list, state, input, grad_output, z, grad_z, kept_input, .. } = a;
    let (sums, [grad_alpha, norm, variance, max]) = (a.sums, a.figures);
    let (_, kernel) = kernels::<T>();
    list.check_layer(state)?;
    check_length(OP, "input", list.layer_elements(), input.len())?;
    check_length(OP, "grad_output", list.layer_elements(), grad_output.len())?;
    check_at_least("z", list.elements(), z.len())?;
    check_at_least("grad_z", list.elements(), grad_z.len())?;
    check_at_least("kept_input", list.elements(), kept_input.len())?;
    let (columns, alpha) = list.sums();
    check_length(OP, "column_sums", columns, sums.columns.len())?;
    check_length(OP, "alpha_sums", alpha, sums.alpha.len())?;
    check_length(OP, "arrivals", list.len(), sums.arrivals.len())?;
    for figure in [&*grad_alpha, &*norm, &*variance, &*max] {
        check_length(OP, "a figure of the gradients", list.num_seeds, figure.len())?;
    }
    let params = DenseBlendBackward {
        input: input.view().cast(),
        grad_output: grad_output.view().cast(),
        z: z.view(),
        seeds: list.entries.view(),
        lifecycle: state.lifecycle.view(),
        alpha: state.alpha.view(),
        grad_z: grad_z.view_mut().cast(),
        kept_input: kept_input.view_mut().cast(),
        column_sums: sums.columns.view_mut(),
        alpha_sums: sums.alpha.view_mut(),
        arrivals: sums.arrivals.view_mut(),
        grad_alpha: grad_alpha.view_mut(),
        norm: norm.view_mut(),
        variance: variance.view_mut(),
        max: max.view_mut(),
        shape: list.shape,
    };
    let grid = list.grid()?;
    // SAFETY: the arrays have the lengths checked above, those of the state one element a seed; every seed of the list is
    // one, and listed once; what is written is borrowed mutably, hence disjoint; arrivals are zero between launches; the
    // grid has a block for each slab of each tile.
    let launch = || unsafe { device.launch(kernel, grid, params) };
    with_buffers!(
        device,
        [
            input,
            grad_output,
            z,
            list.entries,
            state.lifecycle,
            state.alpha,
            grad_z,
            kept_input,
            sums.columns,
            sums.alpha,
            sums.arrivals,
            grad_alpha,
            norm,
            variance,
            max,
        ],
        launch()
    )
}

/// The LINEAR blueprints and their seeds in a list: each blueprint is one of the layer's, with a place of its own among
/// the weights, and its seeds are in the list.
pub(crate) struct UserList {
    entries: Buffer<DenseUsers>,
    listed: usize,
    /// Where the last place ends, and how many blueprints there are at least.
    weights: usize,
    blueprints: usize,
}

impl UserList {
    pub(crate) fn new(
        device: &Device,
        list: &DenseList,
        entries: &[DenseUsers],
    ) -> Result<Self, Error> {
        let (mut weights, mut blueprints) = (0, 0);
        let chunk_size = list.shape.chunk_size as usize;
        let mut places: Vec<usize> = entries.iter().map(|entry| entry.offset as usize).collect();
        places.sort_unstable();
        assert!(places.is_sorted_by(|a, b| a + chunk_size <= *b), "places are apart");
        for entry in entries {
            assert!((entry.first + entry.seeds) as usize <= list.len(), "its seeds are listed");
            weights = weights.max(entry.offset as usize + chunk_size);
            blueprints = blueprints.max(entry.blueprint as usize + 1);
        }
        let entries = Buffer::from_slice(device, entries)?;
        Ok(Self { entries, listed: list.len(), weights, blueprints })
    }
}

/// Checks the contract of `dense_blend_backward_merge_f32` and launches it, after [`launch_backward`] with the same list.
pub(crate) fn launch_merge(
    device: KernelDevice<'_>,
    list: &DenseList,
    users: &UserList,
    sums: &DenseSums,
    weights: &mut Buffer<f32>,
    scales: &mut Buffer<f32>,
) -> Result<(), Error> {
    assert_eq!(users.listed, list.len(), "the blueprints are of this list");
    check_length(OP, "column_sums", list.sums().0, sums.columns.len())?;
    check_at_least("grad_weights", users.weights, weights.len())?;
    check_at_least("grad_scales", users.blueprints, scales.len())?;
    if users.entries.is_empty() {
        return Ok(());
    }
    let blocks = list.shape.chunk_size.div_ceil(DENSE_BLOCK_THREADS);
    let got = users.entries.len() as u64 * u64::from(blocks);
    let limit = i32::MAX as u64;
    if got > limit {
        return Err(Error::TooLarge { op: OP, what: "blueprints · blocks", got, limit });
    }
    let params = DenseMerge {
        column_sums: if sums.columns.is_empty() {
            In::new(std::ptr::null(), 0)
        } else {
            sums.columns.view()
        },
        users: users.entries.view(),
        weights: weights.view_mut(),
        scales: scales.view_mut(),
        chunk_size: list.shape.chunk_size,
        slabs: list.shape.slabs,
        blocks,
        _padding: 0,
    };
    let kernel = instances::dense_blend_backward_merge();
    // SAFETY: the arrays have the lengths checked above; the blueprints' places are apart and their seeds listed
    // (`UserList::new`); the grid has a thread for each column of each blueprint.
    let launch = || unsafe { device.launch(kernel, got as u32, params) };
    with_buffers!(device, [sums.columns, users.entries, weights, scales], launch())
}

type Kernels = (
    &'static kasmina_device::Kernel<DenseBlend>,
    &'static kasmina_device::Kernel<DenseBlendBackward>,
);

fn kernels<T: Element>() -> Kernels {
    instances::dense_blend(T::DTYPE).expect("the layer's element types have instances")
}

fn check_at_least(buffer: &'static str, least: usize, got: usize) -> Result<(), Error> {
    if got >= least {
        return Ok(());
    }
    Err(Error::Length { op: OP, buffer, expected: format!("{least} or more"), got })
}

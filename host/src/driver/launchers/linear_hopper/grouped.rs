//! Launcher of `linear_grouped_wgmma_*`: problems of any shapes in one grid.

use std::cmp::Reverse;

use kasmina_kernels::instances::{self, LinearWgmmaInstance, WgmmaKind};
use kasmina_types::dtype::Element;
use kasmina_types::tiles::LINEAR_WGMMA_K_BYTES;
use kasmina_types::{
    DType, Layout, LinearGroupedWgmma, LinearParams, LinearProblem, LinearTile, LinearWgmmaParams,
    Scaling, TensorMapHandle,
};

use super::super::activation_norm::Optional;
use super::super::linear::of_operands;
use super::super::linear_grouped::{Arguments, check_reach};
use super::super::{KernelDevice, with_buffers};
use super::map_sets::{MapSets, Words};
use super::plan::{ALIGNMENT, Rows, Work};
use super::{operand_box, result_box, with_specification};
use crate::buffer::Buffer;
use crate::device::Device;
use crate::driver::tensor_map_cache::encoded;
use crate::error::Error;
use crate::linear::{LinearShape, Precision};

type Instance = LinearWgmmaInstance<LinearGroupedWgmma>;

/// Tile rows that tiles which follow one another share: their tiles of B stay in the L2 cache meanwhile.
const BAND: usize = 8;

/// Tiles of a list at most, in 64 MiB; beyond, the other variants are taken.
const MOST_TILES: u64 = 1 << 22;

/// A list of problems on the device, and how it is cut.
pub(crate) struct Group {
    device: Device,
    instance: Instance,
    grid: u32,
    /// Whether D leaves by bulk stores.
    bulk: bool,
    /// Those that are not empty.
    problems: Buffer<LinearProblem>,
    tiles: Buffer<LinearTile>,
    matrices: Vec<Matrices>,
    maps: MapSets,
    reach: [usize; 7],
}

/// The problems of a list.
pub(crate) struct List<'a> {
    pub(crate) layout: Layout,
    /// Each a good shape whose strides are where its operands begin.
    pub(crate) shapes: &'a [LinearShape],
    /// The same, as the kernels take them. No two write to one element.
    pub(crate) problems: &'a [LinearProblem],
    /// Whether there are neither C nor R nor Z.
    pub(crate) plain: bool,
    /// Elements that the problems reach in a, b, c, bias, residual, d and z.
    pub(crate) reach: [usize; 7],
}

/// A problem's matrices, with addresses from their buffers' beginnings on.
struct Matrices {
    a: Rows,
    b: Rows,
    /// Where D leaves by bulk stores.
    d: Option<Rows>,
}

impl Matrices {
    /// If bulk copies can have A and B; `plain` where they may have D.
    fn of<T: Element, O: Element>(shape: &LinearShape, plain: bool) -> Option<Self> {
        let rows = |at: crate::linear::Extent, size: usize| {
            let from = at.stride.checked_mul(size as u64)?;
            Rows::at((from, size), &at, 1)
        };
        // A bulk store writes 16 bytes at a time, also over a row's end.
        let whole = plain && (shape.n * size_of::<O>()).is_multiple_of(ALIGNMENT);
        let d = if whole { rows(shape.d(), size_of::<O>()) } else { None };
        Some(Self { a: rows(shape.a(), size_of::<T>())?, b: rows(shape.b(), size_of::<T>())?, d })
    }
}

impl Group {
    /// Chooses the instance of the least estimated time and copies the list to the device; `None` where the device has no
    /// instance for it: of the precision, the layout, an operand that bulk copies cannot load, a sum of nothing.
    pub(crate) fn new<T: Element, O: Element>(
        device: &Device,
        precision: Precision,
        list: &List<'_>,
    ) -> Result<Option<Self>, Error> {
        use Precision::{Bf16, F16, Fp8, Fp8Fast, Tf32};
        let Some(kernels) = KernelDevice::of(device) else { return Ok(None) };
        let own = matches!(precision, Bf16 | F16 | Tf32 | Fp8 | Fp8Fast);
        let mut problems: Vec<_> =
            list.shapes.iter().zip(list.problems).filter(|(s, _)| s.m > 0 && s.n > 0).collect();
        if !own || problems.is_empty() || problems.iter().any(|(shape, _)| shape.k == 0) {
            return Ok(None);
        }
        // Long sums first, so that blocks end at about the same time.
        problems.sort_by_key(|(shape, _)| Reverse(shape.k));
        let matrices = problems.iter().map(|(shape, _)| Matrices::of::<T, O>(shape, list.plain));
        let Some(matrices) = matrices.collect::<Option<Vec<_>>>() else { return Ok(None) };
        let scaled = precision == Fp8;
        let mut best: Option<(u64, Instance, u32)> = None;
        for instance in instances::linear_grouped_wgmma(T::DTYPE, list.layout)
            .filter(|instance| (instance.kind == WgmmaKind::Scaled) == scaled)
        {
            let bytes = instance.dynamic_shared_bytes;
            let resident = kernels.blocks_with_room(instance.kernel, bytes)?;
            let tiles = problems.iter().map(|(shape, _)| tiles_of(&instance, shape));
            let tiles = tiles.fold(0, u64::saturating_add);
            if resident == 0 || tiles > MOST_TILES {
                continue;
            }
            let grid = resident.min(tiles as u32);
            let time = time(&instance, grid, problems.iter().map(|(shape, _)| *shape));
            if best.as_ref().is_none_or(|(least, ..)| time < *least) {
                best = Some((time, instance, grid));
            }
        }
        let Some((_, instance, grid)) = best else { return Ok(None) };
        let tiles = tiles(&instance, problems.iter().map(|(shape, _)| *shape));
        let problems: Vec<_> = problems.iter().map(|(_, problem)| **problem).collect();
        Ok(Some(Self {
            device: device.clone(),
            instance,
            grid,
            bulk: matrices.iter().all(|matrices| matrices.d.is_some()),
            problems: Buffer::from_slice(device, &problems)?,
            tiles: Buffer::from_slice(device, &tiles)?,
            maps: MapSets::new(device, 3 * matrices.len())?,
            matrices,
            reach: list.reach,
        }))
    }

    /// The kernel's name.
    pub(crate) fn kernel_name(&self) -> &'static str {
        self.instance.kernel.name()
    }
}

/// Output tiles of an instance in a D.
fn tiles_of(instance: &Instance, shape: &LinearShape) -> u64 {
    let (rows, columns) = (instance.rows as usize, instance.columns as usize);
    shape.m.div_ceil(rows) as u64 * shape.n.div_ceil(columns) as u64
}

/// The tiles in the order in which blocks take them: problem by problem, in bands of rows.
fn tiles<'a>(
    instance: &Instance,
    shapes: impl Iterator<Item = &'a LinearShape>,
) -> Vec<LinearTile> {
    let (rows, columns) = (instance.rows, instance.columns);
    let mut tiles = Vec::new();
    for (problem, shape) in (0..).zip(shapes) {
        let tile_rows = shape.m.div_ceil(rows as usize) as u32;
        let tile_columns = shape.n.div_ceil(columns as usize) as u32;
        for first in (0..tile_rows).step_by(BAND) {
            for column in 0..tile_columns {
                let band = first..tile_rows.min(first + BAND as u32);
                tiles.extend(band.map(|row| LinearTile {
                    problem,
                    row: row * rows,
                    column: column * columns,
                    k: shape.k as u32,
                }));
            }
        }
    }
    tiles
}

/// An estimate of the time of the block that has most to do, in cycles of an SM.
fn time<'a>(instance: &Instance, grid: u32, shapes: impl Iterator<Item = &'a LinearShape>) -> u64 {
    let mut blocks = vec![0; grid as usize];
    let mut next = 0;
    for shape in shapes {
        let k_bytes = shape.k * instance.dtype.size_bytes();
        let k_tiles = k_bytes.div_ceil(LINEAR_WGMMA_K_BYTES as usize) as u32;
        let work = Work { tiles: 1, sharers: 1, loaders: 1, k_tiles, blocks: 1 };
        let of_one = work.time(instance);
        for _ in 0..tiles_of(instance, shape) {
            blocks[next] += of_one;
            next = (next + 1) % blocks.len();
        }
    }
    blocks.into_iter().max().unwrap_or(0)
}

/// The tensor maps of all problems, of A, B and D each; zeros where there is none.
fn made<T: Element, O: Element>(
    device: &Device,
    instance: &Instance,
    matrices: &[Matrices],
    bulk: bool,
    addresses: [u64; 3],
) -> Result<Vec<Words>, Error> {
    let layout = instance.layout;
    let box_a = operand_box(T::DTYPE, !layout.transposed_a(), instance.rows);
    let box_b = operand_box(T::DTYPE, layout.transposed_b(), instance.columns);
    let map = |dtype: DType, rows: &Rows, base: u64, of_box| {
        let rows = Rows { address: base + rows.address, ..*rows };
        with_specification(dtype, &rows, of_box, |spec| encoded(device, spec))
    };
    let [base_a, base_b, base_d] = addresses;
    let mut maps = Vec::with_capacity(3 * matrices.len());
    for Matrices { a, b, d } in matrices {
        maps.push(map(T::DTYPE, a, base_a, box_a)?);
        maps.push(map(T::DTYPE, b, base_b, box_b)?);
        maps.push(match d.as_ref().filter(|_| bulk) {
            Some(d) => map(O::DTYPE, d, base_d, result_box(O::DTYPE))?,
            None => Words::default(),
        });
    }
    Ok(maps)
}

/// Makes the maps that are not there yet, checks the contract of `linear_grouped_wgmma_*` and launches it.
pub(crate) fn launch<T: Element, O: Element>(
    kernels: KernelDevice<'_>,
    group: &mut Group,
    a: Arguments<'_, '_, T, O>,
) -> Result<(), Error> {
    let Arguments { factors, operands, d, mut z, partials, arrivals } = a;
    let Group { device, instance, grid, bulk, problems, tiles, matrices, maps, reach } = group;
    let (grid, bulk) = (*grid, *bulk);
    assert_eq!(instance.dtype, T::DTYPE, "the variant was chosen by the element type");
    assert!(operands.scales.scaling() != Scaling::Block, "the caller refuses them");
    let plain = operands.c.is_none() && operands.residual.is_none() && z.is_none();
    assert!(plain || !bulk, "bulk stores were chosen where there are neither C nor R nor Z");
    check_reach(reach, operands, d, z.as_deref())?;
    let of_d = if bulk { d.device_address() } else { 0 };
    let addresses = [operands.a.device_address(), operands.b.device_address(), of_d];
    let aligned = addresses.iter().all(|address| address.is_multiple_of(ALIGNMENT as u64));
    assert!(aligned, "buffers are aligned to 16 bytes");
    let set = maps.get(addresses, || made::<T, O>(device, instance, matrices, bulk, addresses))?;
    let results = (&mut *d, z.as_deref_mut());
    let cut = (tiles.len() as u32, 1);
    let linear = LinearParams {
        problems: problems.view(),
        batch: problems.len() as u32,
        ..of_operands(instance.layout, factors, operands, results, cut, (partials, arrivals))
    };
    let none = TensorMapHandle::none();
    let product = LinearWgmmaParams {
        linear,
        first: none,
        second: none,
        d: none,
        bulk: u32::from(bulk),
        // The list has the tiles.
        tile_rows: 0,
        tile_columns: 0,
        tiles_of_one: 0,
        k_tiles: 0,
        _padding: 0,
    };
    let params = LinearGroupedWgmma { product, tiles: tiles.view(), maps: set.view() };
    let scales = operands.scales.buffers();
    let results = Optional([operands.bias, operands.c, operands.residual, z.as_deref()]);
    let scales = Optional([scales.map(|(a, _)| a), scales.map(|(_, b)| b)]);
    let maps = set.memory();
    // SAFETY: every operand of every problem ends inside its buffer (`reach`), and the maps describe those of these
    // addresses, with the instance's boxes; results do not overlap (`List`) and are borrowed mutably; each tile is one of a
    // problem's with rows, columns and k, and blocks are no more than tiles; the output type is one of the sums'
    // (`check_output`). Maps stay as they are until what is queued has read them, and in a graph for good.
    let launch = || unsafe {
        let bytes = instance.dynamic_shared_bytes;
        kernels.launch_with_shared(instance.kernel, grid, bytes, params)
    };
    let (problems, tiles) = (&*problems, &*tiles);
    with_buffers!(
        kernels,
        [operands.a, operands.b, d, problems, tiles, maps, results, scales],
        launch()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(dtype: DType) -> Instance {
        let mut instances = instances::linear_grouped_wgmma(dtype, Layout::NT);
        instances.next().expect("an instance")
    }

    /// Each tile once, and in bands.
    #[test]
    fn tiles_cover_every_problem() {
        let instance = instance(DType::Bf16);
        let shapes = [(1, 1), (1300, 600), (128, 256), (129, 257)]
            .map(|(m, n)| LinearShape::new(Layout::NT, m, n, 70));
        let tiles = tiles(&instance, shapes.iter());
        for (number, shape) in (0..).zip(&shapes) {
            let mut own: Vec<_> = tiles
                .iter()
                .filter(|tile| tile.problem == number)
                .map(|tile| (tile.row / instance.rows, tile.column / instance.columns))
                .collect();
            assert_eq!(own.len() as u64, tiles_of(&instance, shape));
            own.sort_unstable();
            own.dedup();
            assert_eq!(own.len() as u64, tiles_of(&instance, shape));
            assert!(tiles.iter().all(|tile| tile.k == 70));
        }
        let large: Vec<_> = tiles.iter().filter(|tile| tile.problem == 1).collect();
        assert_eq!((large[7].row, large[7].column), (7 * 128, 0));
        assert_eq!((large[8].row, large[8].column), (0, 256));
    }

    /// The estimate is that of the block which has most to do.
    #[test]
    fn long_sums_count() {
        let instance = instance(DType::Bf16);
        let of = |k| LinearShape::new(Layout::NT, 128, 256, k);
        let shapes = [of(4096), of(64), of(64), of(64)];
        let alone = time(&instance, 1, shapes[..1].iter());
        assert_eq!(time(&instance, 4, shapes.iter()), alone);
        assert!(time(&instance, 2, shapes.iter()) > alone);
    }
}

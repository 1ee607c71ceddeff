//! Launchers of `fused_distance_kth_*`, `fused_te_reduction_*` and `surrogate_rows`, and the tables that they
//! follow.

use bytemuck::Pod;
use kasmina_kernels::instances::{self, DistanceKthInstance, TeReductionInstance};
use kasmina_types::dtype::Element;
use kasmina_types::transfer_entropy::{
    RowMap, TE_BLOCK_THREADS, TE_BOX_DIMS, TE_BOX_POINTS, TE_MAX_DIMS, TE_NONE, TeProblem,
};
use kasmina_types::{DType, DistanceKth, In, Out, SurrogateRows, TePoints, TeReduction};

use super::{KernelDevice, with_buffers};
use crate::buffer::{Buffer, check_length};
use crate::device::Device;
use crate::error::Error;

const KTH: &str = "fused_distance_kth";
const REDUCTION: &str = "fused_te_reduction";
const ROWS: &str = "surrogate_rows";

/// What the tables are made from.
pub(crate) struct Description<T> {
    /// The series, one after another.
    pub(crate) series: Vec<T>,
    pub(crate) problems: Vec<TeProblem>,
    /// `[problems, past + 1 + source]`.
    pub(crate) offsets: Vec<u32>,
    pub(crate) orders: Vec<u32>,
    /// `[boxes, TE_BOX_DIMS, 2]`.
    pub(crate) boxes: Vec<T>,
    /// The surrogates, in the order of their rows.
    pub(crate) maps: Vec<RowMap>,
    pub(crate) past: u32,
    pub(crate) source: u32,
    pub(crate) theiler: u32,
    pub(crate) k: u32,
    /// Places of a problem: as many as the largest has points.
    pub(crate) stride: u32,
}

/// Tables of points on a device, which lead nowhere outside themselves.
pub(crate) struct Tables {
    dtype: DType,
    series: Buffer<u8>,
    problems: Buffer<TeProblem>,
    offsets: Buffer<u32>,
    orders: Buffer<u32>,
    boxes: Buffer<u8>,
    maps: Buffer<RowMap>,
    num_problems: u32,
    past: u32,
    source: u32,
    theiler: u32,
    k: u32,
    pub(crate) stride: u32,
}

/// How a launch is cut.
#[derive(Clone, Copy)]
pub(crate) struct Cut {
    pub(crate) query_tiles: u32,
    pub(crate) slabs: u32,
}

impl Cut {
    /// Blocks for so many problems.
    fn grid(self, problems: u32) -> Result<u32, Error> {
        let got = u64::from(problems) * u64::from(self.query_tiles) * u64::from(self.slabs);
        let (op, what, limit) = (KTH, "problems · query tiles · slabs", i32::MAX as u64);
        if got > limit { Err(Error::TooLarge { op, what, got, limit }) } else { Ok(got as u32) }
    }
}

impl Tables {
    /// Checks every entry, and copies the tables to the device.
    ///
    /// # Panics
    /// An entry that leads outside: whoever described the points made a mistake.
    pub(crate) fn new<T: Element>(device: &Device, d: &Description<T>) -> Result<Self, Error> {
        let dims = (d.past + 1 + d.source) as usize;
        assert!(dims <= TE_MAX_DIMS && d.k > 0 && d.offsets.len() == d.problems.len() * dims);
        assert!(d.problems.iter().all(|problem| {
            let points = problem.points as usize;
            let row = problem.rows as usize;
            let map = d.maps.get(row / d.stride as usize);
            let first_box = problem.first_box as usize;
            let boxes = problem.points.div_ceil(TE_BOX_POINTS) as usize;
            (1..=d.stride).contains(&problem.points)
                && (problem.order == TE_NONE || problem.order as usize + points <= d.orders.len())
                && (problem.rows == TE_NONE
                    || row.is_multiple_of(d.stride as usize)
                        && map.is_some_and(|map| map.points == problem.points))
                && (problem.first_box == TE_NONE
                    || (first_box + boxes) * TE_BOX_DIMS * 2 <= d.boxes.len())
        }));
        for (problem, offsets) in d.problems.iter().zip(d.offsets.chunks(dims)) {
            let end = |&offset: &u32| offset as usize + problem.points as usize;
            let inside = |offset: &u32| *offset == TE_NONE || end(offset) <= d.series.len();
            assert!(offsets.iter().all(inside));
            if problem.order != TE_NONE {
                let first = problem.order as usize;
                let order = &d.orders[first..first + problem.points as usize];
                assert!(order.iter().all(|&point| point < problem.points));
            }
        }
        Ok(Self {
            dtype: T::DTYPE,
            series: bytes(device, &d.series)?,
            problems: Buffer::from_slice(device, &d.problems)?,
            offsets: Buffer::from_slice(device, &d.offsets)?,
            orders: Buffer::from_slice(device, &d.orders)?,
            boxes: bytes(device, &d.boxes)?,
            maps: Buffer::from_slice(device, &d.maps)?,
            num_problems: d.problems.len() as u32,
            past: d.past,
            source: d.source,
            theiler: d.theiler,
            k: d.k,
            stride: d.stride,
        })
    }

    /// Problems.
    pub(crate) fn len(&self) -> usize {
        self.num_problems as usize
    }

    /// Places of the surrogates' rows.
    pub(crate) fn row_places(&self) -> usize {
        self.maps.len() * self.stride as usize
    }

    fn points(&self, cut: Cut, rows: &Buffer<u32>) -> TePoints {
        TePoints {
            series: self.series.view(),
            problems: self.problems.view(),
            offsets: self.offsets.view(),
            orders: self.orders.view(),
            boxes: self.boxes.view(),
            rows: rows.view(),
            num_problems: self.num_problems,
            stride: self.stride,
            past: self.past,
            source: self.source,
            theiler: self.theiler,
            query_tiles: cut.query_tiles,
            slabs: cut.slabs,
            k: self.k,
        }
    }

    /// Whether an instance made for `small` coordinates, or any, reads these tables.
    fn check(&self, op: &'static str, dtype: DType, small: Option<u32>) -> Result<(), Error> {
        assert_eq!(dtype, self.dtype, "the plan chose the instance by the element type");
        let Some(small) = small else { return Ok(()) };
        check_length(op, "coordinates of y⁻", small as usize, self.past as usize)?;
        check_length(op, "coordinates of x⁻", small as usize, self.source as usize)
    }

    /// Whether the query tiles have a place for each point.
    fn check_cut(&self, op: &'static str, cut: Cut, of_thread: u32) -> Result<(), Error> {
        let tiles = self.stride.div_ceil(TE_BLOCK_THREADS * of_thread);
        check_length(op, "query tiles", tiles as usize, cut.query_tiles as usize)?;
        assert!(cut.slabs > 0);
        Ok(())
    }

    fn places(&self) -> usize {
        self.len() * self.stride as usize
    }
}

/// A buffer of the bytes of values.
fn bytes<T: Pod>(device: &Device, values: &[T]) -> Result<Buffer<u8>, Error> {
    Buffer::from_slice(device, bytemuck::cast_slice(values))
}

/// Makes the rows of all surrogates, before whatever reads them. `kind` is one of `ROWS_*`.
pub(crate) fn surrogate_rows(
    device: KernelDevice<'_>,
    tables: &Tables,
    rows: &mut Buffer<u32>,
    kind: u32,
    block_length: u32,
    seed: u64,
) -> Result<(), Error> {
    let (num_maps, stride) = (tables.maps.len() as u32, tables.stride);
    assert!(block_length > 0);
    check_length(ROWS, "rows", tables.row_places(), rows.len())?;
    let kernel = instances::surrogate_rows();
    let grid = (rows.len().div_ceil(TE_BLOCK_THREADS as usize))
        .min(device.resident_blocks(kernel)? as usize)
        .max(1) as u32;
    let params = SurrogateRows {
        maps: tables.maps.view(),
        rows: rows.view_mut(),
        num_maps,
        stride,
        kind,
        block_length,
        seed: [seed as u32, (seed >> 32) as u32],
        reserved: [0; 2],
    };
    // SAFETY: `rows` has `stride` places for each map, whose points are not more, and is borrowed mutably; any
    // grid covers it.
    let launch = || unsafe { device.launch(kernel, grid, params) };
    with_buffers!(device, [tables.maps, rows], launch())
}

/// What a search for neighbours leaves.
pub(crate) enum Search<'a> {
    /// Bounds, from so many candidate tiles near each point.
    Bounds { bounds: &'a mut Buffer<u8>, window_tiles: u32 },
    /// The radii.
    Radii {
        bounds: Option<&'a Buffer<u8>>,
        radii: &'a mut Buffer<u8>,
        tied: &'a mut Buffer<u32>,
        lists: &'a mut Buffer<u8>,
        list_points: &'a mut Buffer<u32>,
        arrivals: &'a mut Buffer<u32>,
    },
}

/// Elements that the lists of the slabs need; none for one slab.
pub(crate) fn list_places(tables: &Tables, instance: &DistanceKthInstance, cut: Cut) -> usize {
    let places = tables.places() * cut.slabs as usize * (instance.capacity as usize + 1);
    if cut.slabs > 1 { places } else { 0 }
}

/// Checks the contract of `fused_distance_kth_*` and launches it.
pub(crate) fn distance_kth(
    device: KernelDevice<'_>,
    instance: &DistanceKthInstance,
    tables: &Tables,
    rows: &Buffer<u32>,
    cut: Cut,
    algorithm: u32,
    search: Search<'_>,
) -> Result<(), Error> {
    tables.check(KTH, instance.dtype, instance.small)?;
    tables.check_cut(KTH, cut, instance.points)?;
    check_length(KTH, "rows", tables.row_places(), rows.len())?;
    check_length(
        KTH,
        "k, neighbours kept",
        tables.k as usize,
        tables.k.min(instance.capacity) as usize,
    )?;
    assert!(algorithm == 1 || algorithm == 2 && instance.small.is_none());
    let size = instance.dtype.size_bytes();
    let places = tables.places();
    let grid = cut.grid(tables.num_problems)?;
    let mut params = DistanceKth {
        points: tables.points(cut, rows),
        bounds: In::new(std::ptr::null(), 0),
        new_bounds: Out::new(std::ptr::null_mut(), 0),
        radii: Out::new(std::ptr::null_mut(), 0),
        tied: Out::new(std::ptr::null_mut(), 0),
        lists: Out::new(std::ptr::null_mut(), 0),
        list_points: Out::new(std::ptr::null_mut(), 0),
        arrivals: Out::new(std::ptr::null_mut(), 0),
        window_tiles: 0,
        algorithm,
        reserved: [0; 2],
    };
    let t = tables;
    match search {
        Search::Bounds { bounds, window_tiles } => {
            check_length(KTH, "bounds", places * size, bounds.len())?;
            assert_eq!(cut.slabs, 1);
            params.new_bounds = bounds.view_mut();
            params.window_tiles = window_tiles;
            // SAFETY: the tables lead nowhere outside themselves, the bounds have a place for each point of each
            // problem, and the grid a block for each query tile.
            let launch = || unsafe { device.launch(instance.kernel, grid, params) };
            with_buffers!(
                device,
                [t.series, t.problems, t.offsets, t.orders, t.boxes, rows, bounds],
                launch()
            )
        }
        Search::Radii { bounds, radii, tied, lists, list_points, arrivals } => {
            let kept = list_places(tables, instance, cut);
            check_length(KTH, "radii", 3 * places * size, radii.len())?;
            check_length(KTH, "tied", places, tied.len())?;
            check_length(KTH, "lists", kept * size, lists.len())?;
            let numbered = if instance.small.is_none() { kept } else { 0 };
            check_length(KTH, "list_points", numbered, list_points.len())?;
            let query_tiles = t.len() * cut.query_tiles as usize;
            check_length(KTH, "arrivals", query_tiles, arrivals.len())?;
            if let Some(bounds) = bounds {
                check_length(KTH, "bounds", places * size, bounds.len())?;
                params.bounds = bounds.view();
            }
            params.radii = radii.view_mut();
            params.tied = tied.view_mut();
            params.lists = lists.view_mut();
            params.list_points = list_points.view_mut();
            params.arrivals = arrivals.view_mut();
            // Another name for a buffer that is acquired already.
            let bounds = bounds.unwrap_or(&t.series);
            // SAFETY: the tables lead nowhere outside themselves, the lengths were checked above, the grid has a
            // block for each query tile and slab, and the arrivals are zero between launches. What is written is
            // borrowed mutably, hence disjoint.
            let launch = || unsafe { device.launch(instance.kernel, grid, params) };
            with_buffers!(
                device,
                [
                    t.series,
                    t.problems,
                    t.offsets,
                    t.orders,
                    t.boxes,
                    rows,
                    bounds,
                    radii,
                    tied,
                    lists,
                    list_points,
                    arrivals,
                ],
                launch()
            )
        }
    }
}

/// One launch of `fused_te_reduction_*`.
pub(crate) struct Reduction<'a> {
    pub(crate) instance: &'a TeReductionInstance,
    pub(crate) tables: &'a Tables,
    pub(crate) rows: &'a Buffer<u32>,
    pub(crate) cut: Cut,
    pub(crate) algorithm: u32,
    pub(crate) radii: &'a Buffer<u8>,
    pub(crate) tied: &'a Buffer<u32>,
    pub(crate) psi: &'a Buffer<f64>,
    pub(crate) te: &'a mut Buffer<f64>,
    pub(crate) ties: &'a mut Buffer<u32>,
    pub(crate) local: &'a mut Buffer<f64>,
    pub(crate) counts: &'a mut Buffer<u32>,
    pub(crate) sums: &'a mut Buffer<u64>,
    pub(crate) tile_ties: &'a mut Buffer<u32>,
    pub(crate) arrivals: &'a mut Buffer<u32>,
}

/// Elements that the counts of the slabs need; none for one slab.
pub(crate) fn count_places(tables: &Tables, cut: Cut) -> usize {
    if cut.slabs > 1 { tables.places() * cut.slabs as usize * 3 } else { 0 }
}

/// Checks the contract of `fused_te_reduction_*` and launches it.
pub(crate) fn te_reduction(device: KernelDevice<'_>, a: Reduction<'_>) -> Result<(), Error> {
    let (t, instance) = (a.tables, a.instance);
    t.check(REDUCTION, instance.dtype, instance.small)?;
    t.check_cut(REDUCTION, a.cut, instance.points)?;
    check_length(REDUCTION, "rows", t.row_places(), a.rows.len())?;
    assert!(a.algorithm == 1 || a.algorithm == 2);
    let places = t.places();
    let tiles = t.len() * a.cut.query_tiles as usize;
    check_length(REDUCTION, "radii", 3 * places * instance.dtype.size_bytes(), a.radii.len())?;
    check_length(REDUCTION, "tied", places, a.tied.len())?;
    check_length(REDUCTION, "psi", t.stride as usize + 1, a.psi.len())?;
    check_length(REDUCTION, "te", t.len(), a.te.len())?;
    check_length(REDUCTION, "ties", t.len(), a.ties.len())?;
    check_length(REDUCTION, "local", places.min(a.local.len()), a.local.len())?;
    check_length(REDUCTION, "counts", count_places(t, a.cut), a.counts.len())?;
    check_length(REDUCTION, "sums", tiles, a.sums.len())?;
    check_length(REDUCTION, "tile_ties", tiles, a.tile_ties.len())?;
    check_length(REDUCTION, "arrivals", tiles + t.len(), a.arrivals.len())?;
    assert!(a.local.is_empty() || a.local.len() == places);
    let grid = a.cut.grid(t.num_problems)?;
    let params = TeReduction {
        points: t.points(a.cut, a.rows),
        radii: a.radii.view(),
        tied: a.tied.view(),
        psi: a.psi.view(),
        te: a.te.view_mut(),
        ties: a.ties.view_mut(),
        local: a.local.view_mut(),
        counts: a.counts.view_mut(),
        sums: a.sums.view_mut(),
        tile_ties: a.tile_ties.view_mut(),
        arrivals: a.arrivals.view_mut(),
        algorithm: a.algorithm,
        reserved: [0; 3],
    };
    // SAFETY: the tables lead nowhere outside themselves, the lengths were checked above, a count is below the points
    // and K not above them, so that ψ has an entry for each; the grid has a block for each query tile and slab,
    // and the arrivals are zero between launches. What is written is borrowed mutably, hence disjoint.
    let launch = || unsafe { device.launch(instance.kernel, grid, params) };
    with_buffers!(
        device,
        [
            t.series,
            t.problems,
            t.offsets,
            t.orders,
            t.boxes,
            a.rows,
            a.radii,
            a.tied,
            a.psi,
            a.te,
            a.ties,
            a.local,
            a.counts,
            a.sums,
            a.tile_ties,
            a.arrivals,
        ],
        launch()
    )
}

//! Points of many problems on a device, and the launches that take them.

use bytemuck::Pod;
use kasmina_kernels::instances::{self, DistanceKthInstance, TeReductionInstance};
use kasmina_reference::information::transfer_entropy::digamma;
use kasmina_types::dtype::Element;
use kasmina_types::transfer_entropy::{
    ROWS_BLOCK, ROWS_PERMUTE, ROWS_ROTATE, RowMap, TE_BLOCK_THREADS, TE_BOX_DIMS, TE_NONE,
    TeProblem,
};
use num_traits::Float;

use super::order;
use super::{Algorithm, Method, SurrogateKind};
use crate::buffer::Buffer;
use crate::device::Device;
use crate::driver::launchers::KernelDevice;
use crate::driver::launchers::transfer_entropy::{self as launcher, Cut, Description, Tables};
use crate::error::Error;

/// From so many points on near ones are brought together first. Below, all pairs cost less: `docs/performance.md`.
const PRUNED_FROM: usize = 20_000;

/// A pair of series at a delay, or a surrogate of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Problem {
    pub(super) target: usize,
    pub(super) source: usize,
    pub(super) delay: usize,
    /// Its first t.
    pub(super) first: usize,
    pub(super) points: usize,
    /// Surrogate, if it is one, and the stream of its numbers.
    pub(super) surrogate: Option<(u32, u32)>,
}

/// A past: the series, and the samples back to each value.
#[derive(Clone, Debug)]
pub(super) struct Lags {
    pub(super) series: usize,
    pub(super) lags: Vec<usize>,
}

/// What all problems have in common.
#[derive(Clone, Debug)]
pub(super) struct Common {
    pub(super) k: usize,
    pub(super) algorithm: Algorithm,
    pub(super) theiler: usize,
    pub(super) method: Method,
    /// Samples back to each value of y⁻.
    pub(super) target: Vec<usize>,
    /// Samples from x⁻'s newest value to each.
    pub(super) source: Vec<usize>,
    pub(super) conditions: Vec<Lags>,
    pub(super) kind: SurrogateKind,
    pub(super) seed: u64,
    /// Whether each point's part is kept.
    pub(super) local: bool,
    /// Bytes of scratch memory that problems may take together; more problems are taken one lot after another.
    pub(super) scratch_bytes: usize,
}

/// All problems, planned. Running it allocates nothing.
pub(super) struct Plan {
    device: Device,
    common: Common,
    lots: Vec<Lot>,
    scratch: Scratch,
    psi: Buffer<f64>,
    kth: DistanceKthInstance,
    reduction: TeReductionInstance,
}

/// Problems that are taken together.
struct Lot {
    tables: Tables,
    kth: Cut,
    /// The launch that makes bounds, and its candidate tiles.
    bounds: Option<(Cut, u32)>,
    reduction: Cut,
    has_surrogates: bool,
    /// The problems that are no surrogates, and their points.
    estimates: Vec<(usize, usize)>,
    te: Buffer<f64>,
    ties: Buffer<u32>,
    local: Buffer<f64>,
    memory: Memory,
}

/// Scratch memory of one lot; the large ones share theirs.
struct Memory {
    kth_arrivals: Buffer<u32>,
    te_arrivals: Buffer<u32>,
    sums: Buffer<u64>,
    tile_ties: Buffer<u32>,
    /// Which of [`Plan::scratch`]'s sets has this lot's sizes.
    set: usize,
}

/// Scratch memory by size: all lots but the last have one size.
#[derive(Default)]
struct Scratch {
    sets: Vec<ScratchSet>,
}

struct ScratchSet {
    sizes: [usize; 7],
    rows: Buffer<u32>,
    bounds: Buffer<u8>,
    radii: Buffer<u8>,
    tied: Buffer<u32>,
    lists: Buffer<u8>,
    list_points: Buffer<u32>,
    counts: Buffer<u32>,
}

impl Scratch {
    fn set(&mut self, device: &Device, sizes: [usize; 7]) -> Result<usize, Error> {
        if let Some(at) = self.sets.iter().position(|set| set.sizes == sizes) {
            return Ok(at);
        }
        let [rows, bounds, radii, tied, lists, list_points, counts] = sizes;
        self.sets.push(ScratchSet {
            sizes,
            rows: Buffer::zeroed(device, rows)?,
            bounds: Buffer::zeroed(device, bounds)?,
            radii: Buffer::zeroed(device, radii)?,
            tied: Buffer::zeroed(device, tied)?,
            lists: Buffer::zeroed(device, lists)?,
            list_points: Buffer::zeroed(device, list_points)?,
            counts: Buffer::zeroed(device, counts)?,
        });
        Ok(self.sets.len() - 1)
    }
}

/// The results of the problems, in their order.
pub(super) struct Found {
    pub(super) te: Vec<f64>,
    pub(super) ties: Vec<u32>,
    /// Each point's part, of each problem that is no surrogate, if they were asked for.
    pub(super) local: Vec<Vec<f64>>,
}

impl Plan {
    /// Plans problems of `series`, each of as many samples.
    pub(super) fn new<T: Element + Float + Pod>(
        device: &Device,
        kernels: KernelDevice<'_>,
        series: &[Vec<T>],
        problems: &[Problem],
        common: Common,
    ) -> Result<Self, Error> {
        let conditions: usize = common.conditions.iter().map(|lags| lags.lags.len()).sum();
        let (past, source) = (common.target.len() + conditions, common.source.len());
        let largest = past.max(source) as u32;
        // The kernels for few dimensions take spaces of as many coordinates for y⁻ as for x⁻.
        let few = instances::fused_te_reduction(T::DTYPE, Some(largest))
            .filter(|_| common.algorithm == Algorithm::One);
        let small = few.map(|_| largest);
        let reduction = few.or_else(|| instances::fused_te_reduction(T::DTYPE, None));
        let kth = instances::fused_distance_kth(T::DTYPE, small, common.k as u32);
        let (Some(reduction), Some(kth)) = (reduction, kth) else {
            unreachable!("k was checked, and f32 and f64 have kernels for any dimensions");
        };
        let shape = small.map_or([past, source], |small| [small as usize; 2]);

        let stride = problems.iter().map(|problem| problem.points).max().unwrap_or(1);
        // Bounds, radii, ties, rows; each point's part. Few problems have slabs, whose lists are no more than the device has
        // blocks.
        let bytes_of_point =
            4 * T::DTYPE.size_bytes() + 8 + if common.local { size_of::<f64>() } else { 0 };
        let lot = (common.scratch_bytes / (stride * bytes_of_point)).max(1);
        let mut scratch = Scratch::default();
        let mut lots = Vec::new();
        for problems in problems.chunks(lot) {
            let description = describe(series, problems, &common, shape);
            lots.push(Lot::new(
                device,
                kernels,
                &description,
                &common,
                &kth,
                &reduction,
                &mut scratch,
            )?);
        }
        let strides = lots.iter().map(|lot| lot.tables.stride).max().unwrap_or(1);
        let psi: Vec<f64> = (0..=strides).map(digamma).collect();
        let psi = Buffer::from_slice(device, &psi)?;
        Ok(Self { device: device.clone(), common, lots, scratch, psi, kth, reduction })
    }

    /// Queues all launches.
    pub(super) fn run(&mut self) -> Result<(), Error> {
        let Some(kernels) = KernelDevice::of(&self.device) else { return Ok(()) };
        let algorithm = match self.common.algorithm {
            Algorithm::One => 1,
            Algorithm::Two => 2,
        };
        for lot in &mut self.lots {
            let launched = lot.run(
                kernels,
                &self.common,
                algorithm,
                &self.kth,
                &self.reduction,
                &self.psi,
                &mut self.scratch.sets[lot.memory.set],
            );
            if launched.is_err() {
                // A launch that broke off leaves arrivals that are not zero.
                for arrivals in [&mut lot.memory.kth_arrivals, &mut lot.memory.te_arrivals] {
                    *arrivals = Buffer::zeroed(&self.device, arrivals.len())?;
                }
            }
            launched?;
        }
        Ok(())
    }

    /// Reads what the last run found.
    pub(super) fn read(&self) -> Result<Found, Error> {
        let mut found = Found { te: Vec::new(), ties: Vec::new(), local: Vec::new() };
        for lot in &self.lots {
            found.te.extend(lot.te.to_vec()?);
            found.ties.extend(lot.ties.to_vec()?);
            if !lot.local.is_empty() {
                let stride = lot.tables.stride as usize;
                for &(at, points) in &lot.estimates {
                    found.local.push(lot.local.range_to_vec(at * stride, points)?);
                }
            }
        }
        Ok(found)
    }

    /// Launches of a run.
    pub(super) fn launches(&self) -> usize {
        let of =
            |lot: &Lot| 2 + usize::from(lot.bounds.is_some()) + usize::from(lot.has_surrogates);
        self.lots.iter().map(of).sum()
    }
}

impl Lot {
    fn new<T: Element>(
        device: &Device,
        kernels: KernelDevice<'_>,
        description: &Description<T>,
        common: &Common,
        kth: &DistanceKthInstance,
        reduction: &TeReductionInstance,
        scratch: &mut Scratch,
    ) -> Result<Self, Error> {
        let tables = Tables::new(device, description)?;
        let problems = description.problems.len() as u32;
        // As many slabs as fill the device, but none without a tile.
        let cut = |points: u32, tile: u32, resident: u32| {
            let query_tiles = description.stride.div_ceil(TE_BLOCK_THREADS * points);
            let slabs = (resident / problems.saturating_mul(query_tiles).max(1)).max(1);
            Cut { query_tiles, slabs: slabs.min(description.stride.div_ceil(tile)) }
        };
        let kth_cut = cut(kth.points, kth.tile, kernels.resident_blocks(kth.kernel)?);
        let te_cut =
            cut(reduction.points, reduction.tile, kernels.resident_blocks(reduction.kernel)?);
        // Where lists would begin empty many times, or everywhere, bounds from the points nearby come first.
        let tiles = description.stride.div_ceil(kth.tile);
        let window = (tiles / 32).max(256 / kth.tile).max(2);
        let pruned = !description.boxes.is_empty();
        let bounds = ((kth_cut.slabs > 1 || pruned) && 2 * window <= tiles)
            .then_some((Cut { slabs: 1, ..kth_cut }, window));

        let size = T::DTYPE.size_bytes();
        let (count, stride) = (tables.len(), tables.stride as usize);
        let places = count * stride;
        let lists = launcher::list_places(&tables, kth, kth_cut);
        let sizes = [
            tables.row_places(),
            if bounds.is_some() { places * size } else { 0 },
            3 * places * size,
            places,
            lists * size,
            if kth.small.is_none() { lists } else { 0 },
            launcher::count_places(&tables, te_cut),
        ];
        let tiles = count * te_cut.query_tiles as usize;
        Ok(Self {
            kth: kth_cut,
            bounds,
            reduction: te_cut,
            has_surrogates: !description.maps.is_empty(),
            estimates: (description.problems.iter().enumerate())
                .filter(|(_, problem)| problem.rows == TE_NONE)
                .map(|(at, problem)| (at, problem.points as usize))
                .collect(),
            te: Buffer::zeroed(device, count)?,
            ties: Buffer::zeroed(device, count)?,
            local: Buffer::zeroed(device, if common.local { places } else { 0 })?,
            memory: Memory {
                kth_arrivals: Buffer::zeroed(device, count * kth_cut.query_tiles as usize)?,
                te_arrivals: Buffer::zeroed(device, tiles + count)?,
                sums: Buffer::zeroed(device, tiles)?,
                tile_ties: Buffer::zeroed(device, tiles)?,
                set: scratch.set(device, sizes)?,
            },
            tables,
        })
    }

    #[expect(clippy::too_many_arguments, reason = "the plan's parts, borrowed apart")]
    fn run(
        &mut self,
        kernels: KernelDevice<'_>,
        common: &Common,
        algorithm: u32,
        kth: &DistanceKthInstance,
        reduction: &TeReductionInstance,
        psi: &Buffer<f64>,
        scratch: &mut ScratchSet,
    ) -> Result<(), Error> {
        if self.has_surrogates {
            let (kind, length) = match common.kind {
                SurrogateKind::Permute => (ROWS_PERMUTE, 1),
                SurrogateKind::Rotate => (ROWS_ROTATE, 1),
                SurrogateKind::Block(length) => (ROWS_BLOCK, length),
            };
            let rows = &mut scratch.rows;
            launcher::surrogate_rows(kernels, &self.tables, rows, kind, length, common.seed)?;
        }
        let (tables, rows) = (&self.tables, &scratch.rows);
        if let Some((cut, window_tiles)) = self.bounds {
            let search = launcher::Search::Bounds { bounds: &mut scratch.bounds, window_tiles };
            launcher::distance_kth(kernels, kth, tables, rows, cut, algorithm, search)?;
        }
        let search = launcher::Search::Radii {
            bounds: self.bounds.map(|_| &scratch.bounds),
            radii: &mut scratch.radii,
            tied: &mut scratch.tied,
            lists: &mut scratch.lists,
            list_points: &mut scratch.list_points,
            arrivals: &mut self.memory.kth_arrivals,
        };
        launcher::distance_kth(kernels, kth, tables, rows, self.kth, algorithm, search)?;
        launcher::te_reduction(
            kernels,
            launcher::Reduction {
                instance: reduction,
                tables,
                rows,
                cut: self.reduction,
                algorithm,
                radii: &scratch.radii,
                tied: &scratch.tied,
                psi,
                te: &mut self.te,
                ties: &mut self.ties,
                local: &mut self.local,
                counts: &mut scratch.counts,
                sums: &mut self.memory.sums,
                tile_ties: &mut self.memory.tile_ties,
                arrivals: &mut self.memory.te_arrivals,
            },
        )
    }
}

/// Where each coordinate of each problem is. `shape` has the coordinates of y⁻ and of x⁻ that the kernels take; those
/// that the points have not are 0.
fn describe<T: Float + Send + Sync>(
    series: &[Vec<T>],
    problems: &[Problem],
    common: &Common,
    [past, source]: [usize; 2],
) -> Description<T> {
    let samples = series.first().map_or(0, Vec::len);
    let stride = problems.iter().map(|problem| problem.points).max().unwrap_or(1);
    let at = |series: usize, t: usize, lag: usize| (series * samples + t - lag) as u32;
    let mut d = Description {
        series: series.concat(),
        problems: Vec::new(),
        offsets: Vec::new(),
        orders: Vec::new(),
        boxes: Vec::new(),
        maps: Vec::new(),
        past: past as u32,
        source: source as u32,
        theiler: common.theiler.min(u32::MAX as usize - 1) as u32,
        k: common.k as u32,
        stride: stride as u32,
    };
    // Where the orders of targets begin, and their boxes.
    let mut known: Vec<([usize; 2], u32, u32)> = Vec::new();
    for problem in problems {
        let first = problem.first;
        let mut pasts: Vec<u32> =
            common.target.iter().map(|&lag| at(problem.target, first, lag)).collect();
        for condition in &common.conditions {
            pasts.extend(condition.lags.iter().map(|&lag| at(condition.series, first, lag)));
        }
        let pruned = match common.method {
            Method::Auto => problem.points >= PRUNED_FROM,
            Method::Brute => false,
            Method::Pruned => true,
        };
        let (mut order, mut first_box) = (TE_NONE, TE_NONE);
        if pruned {
            let key = [problem.target, first];
            if !known.iter().any(|known| known.0 == key) {
                let coordinates: Vec<&[T]> = pasts
                    .iter()
                    .take(TE_BOX_DIMS)
                    .map(|&from| &d.series[from as usize..from as usize + problem.points])
                    .collect();
                let by_halves = order::by_halves(&coordinates, problem.points);
                let boxes = order::boxes(&coordinates, &by_halves);
                let first_box = (d.boxes.len() / (2 * TE_BOX_DIMS)) as u32;
                known.push((key, d.orders.len() as u32, first_box));
                d.orders.extend(by_halves);
                d.boxes.extend(boxes);
            }
            if let Some(known) = known.iter().find(|known| known.0 == key) {
                (order, first_box) = (known.1, known.2);
            }
        }
        pasts.resize(past, TE_NONE);
        d.offsets.extend(pasts);
        d.offsets.push(at(problem.target, first, 0));
        let mut sources: Vec<u32> = common
            .source
            .iter()
            .map(|&lag| at(problem.source, first, problem.delay + lag))
            .collect();
        sources.resize(source, TE_NONE);
        d.offsets.extend(sources);
        let points = problem.points as u32;
        let rows = problem.surrogate.map_or(TE_NONE, |(surrogate, stream)| {
            d.maps.push(RowMap { points, stream, surrogate, reserved: 0 });
            (d.maps.len() as u32 - 1) * stride as u32
        });
        d.problems.push(TeProblem { points, order, rows, first_box });
    }
    d
}

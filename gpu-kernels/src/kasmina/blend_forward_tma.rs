//! The layer's forward pass with its telemetry, the input fetched by the copy engine.
//!
//! # Math
//! As `blend_forward`: `y = (1−a)·x + a·T(x)` for active seeds, the identity bit for bit for the others, and the
//! telemetry of x.
//!
//! # Layout
//! As `blend_forward`, with chunks of a multiple of 16 bytes. `input_map` describes the input as
//! `[batch, hidden · size / 8]` elements of 8 bytes; its box is one group of rows of a strip. A vector is 16 bytes of f32
//! and 8 of the narrower types, for their coefficients take twice the registers.
//!
//! # Traffic
//! As `blend_forward`: each element read and written once. The last strip of a chunk, where it is narrower, is
//! fetched at the full width.
//!
//! # Launch
//! A persistent grid of 288-thread blocks, `STAGES` groups of dynamic shared memory each. Warp 8 is the producer: one
//! lane walks the block's tiles and fetches group after group into a ring of stages, as far ahead as the ring allows,
//! over the ends of tiles too. Warps 0 to 7 consume: a thread keeps one vector of columns, as in `blend_forward`, takes
//! its rows from the stage, and stores y directly, or, in `_bulk` instances, in place in the stage, from where each warp
//! stores it in bulk. The consumers meet at a barrier of their own.
//!
//! # Determinism
//! Bitwise, as `blend_forward`.
//!
//! # Source
//! Original. Reference: `kasmina_reference::kasmina::blend_forward`.

use core::hint::assert_unchecked;

use kasmina_device::convert::Float;
use kasmina_device::pipeline::{Consumer, Filled, Pipeline, Producer};
use kasmina_device::shared::DynamicShared;
use kasmina_device::tma::{self, L2Hint};
use kasmina_device::vector::Vector;
use kasmina_device::{kernel, shared_array, thread, unroll, warp};
use kasmina_types::blend_forward::TMA_ELEMENT_BYTES;
use kasmina_types::{
    BlendForward, BlendForwardTma, LayerPass, Numerical, SeedLifecycle, TensorMapHandle, bf16, f16,
};

use super::blend_forward::Rows;
use super::coefficients::{Blueprint, Coefficients, is_strict};
use super::moments::Moments;
use super::softmax::{self, Columns};
use super::strip::{BLOCK, Strip, WARPS};
use super::team::Team;
use super::telemetry::{self, MOMENT_WORDS};

/// Groups of rows that are on their way or being worked on.
pub const STAGES: usize = 4;
/// Words of the ring's mbarriers.
const WORDS: usize = 2 * STAGES;

/// Bytes of a vector of `L` elements.
pub(super) const fn vector_bytes<T, const L: usize>() -> u32 {
    (L * size_of::<T>()) as u32
}

/// The kernel for elements of `T`, `L` of them a vector, `R` rows a group, of which a thread has `S` in registers at a
/// time; `BULK` says how the output is stored.
///
/// # Safety
/// As [`BlendForwardTma`] says, with `STAGES` stages of dynamic shared memory; every block of the grid runs it.
#[inline(always)]
unsafe fn blend_forward_tma<
    T: Float,
    const L: usize,
    const R: usize,
    const S: usize,
    const BULK: bool,
>(
    p: BlendForwardTma,
) {
    const { assert!(R.is_multiple_of(S)) };
    let BlendForwardTma { forward: p, input_map, .. } = p;
    let g = p.geometry;
    // SAFETY: every geometry has them. A division that may be by zero would bring a panic into the kernel, and
    // a corrected copy would take registers.
    unsafe {
        assert_unchecked(g.strips > 0);
        assert_unchecked(g.chunk_strips > 0);
        assert_unchecked(g.strip_vectors > 0);
        assert_unchecked(g.chunk_vectors > 0);
    }
    // Dynamic shared memory is the ring; beside it are the mbarriers here and the consumers' scratch.
    let ring = DynamicShared::<T>::whole();
    let stage_elements = g.stage_bytes(R as u32, vector_bytes::<T, L>()) / size_of::<T>() as u32;
    // SAFETY: every thread of the block is here. The barrier at the end of `start` is the last of the whole block.
    let pipeline =
        unsafe { Pipeline::<STAGES, WORDS>::start(shared_array![u64; WORDS], WARPS as u32) };

    if thread::warp_idx() == WARPS as u32 {
        if thread::lane_idx() == 0 {
            let mut producer = pipeline.producer();
            // SAFETY: the launcher made the map for this input and geometry, and the ring for `STAGES` stages.
            unsafe {
                tma::acquire_map(input_map);
                for_each_tile(&p, |strip, slab| {
                    produce::<T, L, R>(&p, &strip, slab, input_map, &ring, &mut producer);
                });
            }
        }
    } else {
        let mut stages = Stages { ring, elements: stage_elements, consumer: pipeline.consumer() };
        // SAFETY: each consuming warp is here, whole.
        for_each_tile(&p, |strip, slab| unsafe {
            consume::<T, L, R, S, BULK>(&p, &strip, slab, &mut stages);
        });
    }
}

/// The block's tiles, in the order in which producer and consumers take them.
#[inline(always)]
pub(super) fn for_each_tile<P: LayerPass>(p: &P, mut work: impl FnMut(Strip, u32)) {
    let g = p.geometry();
    let mut tile = thread::block_idx_x();
    while tile < g.strips * g.slabs {
        work(Strip::of(p, tile % g.strips), tile / g.strips);
        tile += thread::grid_dim_x();
    }
}

/// Fetches a tile's groups, one after the other.
///
/// # Safety
/// One thread of the block calls it; `map` is acquired, its box is a group, and a stage holds it.
#[inline(always)]
unsafe fn produce<T: Float, const L: usize, const R: usize>(
    p: &BlendForward,
    strip: &Strip,
    slab: u32,
    map: TensorMapHandle,
    ring: &DynamicShared<T>,
    producer: &mut Producer<STAGES, WORDS>,
) {
    let g = &p.geometry;
    let vector = vector_bytes::<T, L>();
    let (box_bytes, stage_bytes) =
        (g.group_vectors(R as u32) * vector, g.stage_bytes(R as u32, vector));
    let stage_elements = stage_bytes as usize / size_of::<T>();
    let first_vector = strip.first_seed * g.chunk_vectors + strip.first_vector;
    let column = (first_vector * (vector / TMA_ELEMENT_BYTES)) as i32;
    let group_rows = R as u32 * g.row_lanes;
    let mut row = slab * group_rows;
    while row < p.batch {
        // SAFETY: one box of that many bytes follows. Columns past the strip are fetched and not used, those past
        // the row and rows past the batch are zeros.
        unsafe {
            let filling = producer.fill(box_bytes);
            let target = ring.place(filling.stage() * stage_elements);
            tma::load_2d(target, map, column, row as i32, filling.barrier(), L2Hint::EvictFirst);
        }
        row += group_rows * g.slabs;
    }
}

/// The consuming threads, which meet while the producer goes on.
#[derive(Clone, Copy)]
pub(super) struct Consumers;

impl Consumers {
    /// The hardware's barrier that they meet at; 0 is the whole block's.
    const BARRIER: u32 = 1;
}

impl Team for Consumers {
    #[inline(always)]
    fn sync(self) {
        thread::sync_team(Self::BARRIER, BLOCK as u32);
    }

    #[inline(always)]
    fn sync_or(self, predicate: bool) -> bool {
        thread::sync_team_or(Self::BARRIER, BLOCK as u32, predicate)
    }
}

/// The ring as a consumer sees it.
struct Stages<T> {
    ring: DynamicShared<T>,
    /// Elements of a stage.
    elements: u32,
    consumer: Consumer<STAGES, WORDS>,
}

/// Blends a tile, and leaves its telemetry.
///
/// # Safety
/// Every consuming thread calls it, for the tiles in their order.
#[inline(always)]
unsafe fn consume<T: Float, const L: usize, const R: usize, const S: usize, const BULK: bool>(
    p: &BlendForward,
    strip: &Strip,
    slab: u32,
    stages: &mut Stages<T>,
) {
    // Each thread's moments; before that, the softmax's log-partition of each seed of the strip.
    let scratch = shared_array![u32; BLOCK * MOMENT_WORDS];
    let g = &p.geometry;
    let t = thread::thread_idx_x();
    let (lane_row, vector) = (t / g.strip_vectors, t % g.strip_vectors);
    let (local_seed, chunk_vector) = (vector / g.chunk_vectors, vector % g.chunk_vectors);
    let seed = strip.first_seed + local_seed;
    let chunk_column = ((strip.first_vector + chunk_vector) * L as u32) as usize;
    let works = lane_row < g.row_lanes && vector < strip.vectors;

    // SAFETY: a working thread's seed and columns are inside the strip, and the strip inside the row; every
    // consuming thread is here.
    let moments = unsafe {
        let blueprint = if works { Blueprint::of(p, seed as usize) } else { None };
        let column = chunk_column as u32;
        let columns = Columns { strip, local_seed, column, blueprint };
        let active = SeedLifecycle::is_active;
        let normaliser =
            softmax::log_partition::<_, L, _, _>(Consumers, p, columns, active, &scratch);
        let mut c = Coefficients::<L>::of(p, blueprint, chunk_column, normaliser);
        c.strict = !c.identity && is_strict(p, seed as usize);
        let place = Place { works, lane_row, vector, chunk_column, seed };
        let walk = Walk::<T, L, R>::new(p, strip, slab, place);
        // Most warps need no more than a line for each column, and take the shorter loop.
        let general = warp::any(warp::FULL_MASK, c.convolves || c.kinked || c.strict);
        match (general, p.gathers != 0) {
            (false, true) => walk.run::<S, false, true, BULK>(&c, stages),
            (true, true) => walk.run::<S, true, true, BULK>(&c, stages),
            (false, false) => walk.run::<S, false, false, BULK>(&c, stages),
            (true, false) => walk.run::<S, true, false, BULK>(&c, stages),
        }
    };
    if p.gathers != 0 {
        // SAFETY: every consuming thread arrives.
        unsafe { telemetry::merge(Consumers, p, strip, slab, moments, &scratch) };
    }
}

/// One thread's way down the rows of its columns.
struct Walk<T, const L: usize, const R: usize> {
    works: bool,
    rows: Rows<T>,
    chunk_column: usize,
    /// The vector's first element in a row.
    column: u32,
    hidden: u32,
    /// Where a stage has it, and the distance of a thread's rows there, in elements.
    start_in_stage: u32,
    stage_stride: u32,
    /// The first row of the tile's first group, this thread's in it, and the distance of a group's rows.
    group_row: u32,
    lane_row: u32,
    row_stride: u32,
    /// Rows from one group to the next.
    step: u32,
    batch: u32,
    numerical: Numerical,
    /// Lanes from this one on whose vectors lie side by side; 0 unless it is the first of them.
    run_lanes: u32,
}

impl<T: Float, const L: usize, const R: usize> Walk<T, L, R> {
    #[inline(always)]
    fn new(p: &BlendForward, strip: &Strip, slab: u32, place: Place) -> Self {
        let Place { works, lane_row, vector, chunk_column, seed } = place;
        let g = &p.geometry;
        let hidden = p.num_seeds * p.chunk_size;
        let group_rows = R as u32 * g.row_lanes;
        let (group_row, step) = (slab * group_rows, group_rows * g.slabs);
        // A run of lanes begins with the warp or with a row, and ends with one of them.
        let lane = thread::lane_idx();
        let begins = works && (lane == 0 || vector == 0);
        let run_lanes = (warp::WARP_SIZE - lane).min(strip.vectors.saturating_sub(vector));
        Self {
            works,
            rows: Rows { input: p.input.cast(), output: p.output.cast(), stride: 0 },
            chunk_column,
            column: seed * p.chunk_size + chunk_column as u32,
            hidden,
            start_in_stage: (lane_row * g.strip_vectors + vector) * L as u32,
            stage_stride: g.row_lanes * g.strip_vectors * L as u32,
            group_row,
            lane_row,
            row_stride: g.row_lanes,
            step,
            batch: p.batch,
            numerical: p.numerical,
            run_lanes: if begins { run_lanes } else { 0 },
        }
    }

    /// Blends the thread's columns of its rows, `S` rows at a time, and gives their moments if it
    /// `GATHERS`.
    ///
    /// # Safety
    /// Every lane of the warp calls it; the columns are this thread's alone and of one seed.
    #[inline(always)]
    unsafe fn run<const S: usize, const GENERAL: bool, const GATHERS: bool, const BULK: bool>(
        &self,
        c: &Coefficients<L>,
        stages: &mut Stages<T>,
    ) -> Moments {
        let mut moments = Moments::EMPTY;
        let mut group_row = self.group_row;
        // The stage whose bulk stores may still read it.
        let mut stored: Option<Filled> = None;
        while group_row < self.batch {
            // SAFETY: the whole warp is here; the producer fetches the same groups in the same order, and a stage has
            // room for a group, all of which was fetched.
            unsafe {
                let filled = stages.consumer.next();
                let place = filled.stage() as u32 * stages.elements + self.start_in_stage;
                if self.works {
                    let mut rows = Subgroup { row: group_row + self.lane_row, place };
                    let end = place + R as u32 * self.stage_stride;
                    while rows.place < end {
                        self.blend_rows::<S, GENERAL, GATHERS, BULK>(
                            c,
                            &stages.ring,
                            &rows,
                            &mut moments,
                        );
                        rows.row += S as u32 * self.row_stride;
                        rows.place += S as u32 * self.stage_stride;
                    }
                }
                if BULK {
                    let first = Subgroup { row: group_row + self.lane_row, place };
                    self.store_in_bulk(&stages.ring, first);
                    // All but the newest group have read their stage.
                    tma::wait_stores_read::<1>();
                    if let Some(stored) = stored.replace(filled) {
                        stored.release();
                    }
                } else {
                    filled.release();
                }
            }
            group_row += self.step;
        }
        if let Some(stored) = stored {
            tma::wait_stores_read::<0>();
            // SAFETY: the whole warp is here, its stores have read the stage.
            unsafe { stored.release() };
        }
        moments
    }

    /// The vector's first element in a row of the output. Computed where it is needed: it would take registers.
    #[inline(always)]
    fn element(&self, row: u32) -> usize {
        (u64::from(row) * u64::from(self.hidden) + u64::from(self.column)) as usize
    }

    /// Adds `S` rows to the moments and blends them; the result goes to the output or, to be stored in bulk, back to
    /// its place in the stage. Rows past the batch are left out.
    ///
    /// # Safety
    /// The thread works, and the rows are its own.
    #[inline(always)]
    unsafe fn blend_rows<
        const S: usize,
        const GENERAL: bool,
        const GATHERS: bool,
        const BULK: bool,
    >(
        &self,
        c: &Coefficients<L>,
        ring: &DynamicShared<T>,
        rows: &Subgroup,
        moments: &mut Moments,
    ) {
        let in_stage = |r: usize| (rows.place + r as u32 * self.stage_stride) as usize;
        let mut raw = [Vector([T::zeroed(); L]); S];
        let mut values = [[0.0; L]; S];
        unroll!(r in S => {
            // SAFETY: the stage has the rows past the batch too, as zeros.
            raw[r] = unsafe { ring.read_vector(in_stage(r)) };
            values[r] = raw[r].map(T::to_f32).0;
        });
        let whole = rows.row + (S as u32 - 1) * self.row_stride < self.batch;
        if GATHERS && whole {
            *moments = moments.absorb_group(&values);
        }
        unroll!(r in S => {
            let row = rows.row + r as u32 * self.row_stride;
            if row < self.batch {
                if GATHERS && !whole {
                    *moments = moments.absorb_group(&[values[r]]);
                }
                let at = self.element(row);
                let column = self.chunk_column;
                // SAFETY: the row is in the batch; its columns, there and in the stage, are this thread's.
                unsafe {
                    if BULK {
                        let y = self.rows.blend::<L, GENERAL>(at, column, c, &self.numerical, raw[r], values[r]);
                        ring.write_vector(in_stage(r), y);
                    } else {
                        self.rows.store::<L, GENERAL>(at, column, c, &self.numerical, raw[r], values[r]);
                    }
                }
            }
        });
    }

    /// Issues the warp's stores of a group from its stage, one for a row of each run of lanes, and closes their group.
    ///
    /// # Safety
    /// Every lane of the warp calls it, after it has left its rows there.
    #[inline(always)]
    unsafe fn store_in_bulk(&self, ring: &DynamicShared<T>, first: Subgroup) {
        tma::fence_proxy_async();
        // Orders the lanes' vectors before the stores of them.
        warp::sync_warp(warp::FULL_MASK);
        if self.run_lanes > 0 {
            let output = self.rows.output.cast();
            let Subgroup { mut row, mut place } = first;
            let end = place + R as u32 * self.stage_stride;
            while place < end && row < self.batch {
                let bytes = self.run_lanes * vector_bytes::<T, L>();
                // SAFETY: the run's lanes wrote these bytes and have met; the output's row is theirs.
                unsafe {
                    let byte = self.element(row) * size_of::<T>();
                    tma::store(ring.place(place as usize), &output, byte, bytes);
                }
                row += self.row_stride;
                place += self.stage_stride;
            }
        }
        tma::commit_stores();
    }
}

/// A thread's place in its strip.
#[derive(Clone, Copy)]
struct Place {
    works: bool,
    lane_row: u32,
    vector: u32,
    chunk_column: usize,
    seed: u32,
}

/// Where some rows of a thread's vector begin: the row, and the element of the ring.
struct Subgroup {
    row: u32,
    place: u32,
}

macro_rules! instance {
    ($entry:ident, $element:ty, $dtype:ident, $lanes:literal, $rows:literal, $block:literal,
     $min_blocks:literal, $arch:literal, $subrows:literal, $bulk:literal $(, $spills:ident)?) => {
        /// The layer's forward pass for one element type and way to store.
        ///
        /// # Safety
        /// As [`BlendForwardTma`] says, with `STAGES` stages of dynamic shared memory.
        #[kernel(block = $block, min_blocks = $min_blocks, arch = $arch $(, $spills)?)]
        pub unsafe fn $entry(p: BlendForwardTma) {
            const { assert!($block == BLOCK + warp::WARP_SIZE as usize) };
            // SAFETY: the entry's contract.
            unsafe { blend_forward_tma::<$element, $lanes, $rows, $subrows, $bulk>(p) }
        }
    };
}

kasmina_types::blend_forward_tma_tiles!(instance);

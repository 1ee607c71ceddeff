//! The layer's backward pass over the batch, gradient and input fetched by the copy engine.
//!
//! # Math
//! As `blend_backward`: ∂x, and the sums over the batch that the parameters' gradients are made from.
//!
//! # Layout
//! As `blend_backward`, with chunks of a multiple of 16 bytes. Each map describes its array as `[batch, hidden · size / 8]`
//! elements of 8 bytes; a box is one group of rows of a strip. A vector is four elements of every type.
//!
//! # Traffic
//! As `blend_backward`, but x is read for whole strips: for those in which some seed's gradients need it. A strip of
//! several seeds is little wider than 256 bytes, and one of longer chunks is of one seed, so that few are read in vain.
//! The last strip of a chunk, where it is narrower, is fetched at the full width.
//!
//! # Launch
//! As `blend_forward_tma`: 288-thread blocks, of which warp 8 fetches. Each of the `STAGES` stages of dynamic shared
//! memory holds two boxes, g and then x. The whole producer warp looks which of a strip's seeds need x, and one lane
//! fetches. Neighbours of g come from the box and, where the strip ends within a chunk, from memory.
//!
//! # Determinism
//! Bitwise, as `blend_backward`. What is read of x in vain changes no bit.
//!
//! # Source
//! Original. Reference: `kasmina_reference::kasmina::blend_backward`.

use core::hint::assert_unchecked;

use kasmina_device::convert::Float;
use kasmina_device::global::{Load, Store};
use kasmina_device::pipeline::{Consumer, Pipeline, Producer};
use kasmina_device::shared::DynamicShared;
use kasmina_device::tma::{self, L2Hint};
use kasmina_device::vector::{LoadHint, StoreHint, Vector};
use kasmina_device::{hint, kernel, shared_array, thread, unroll, warp};
use kasmina_types::blend_forward::TMA_ELEMENT_BYTES;
use kasmina_types::{
    BlendBackward, BlendBackwardTma, In, Numerical, Out, TensorMapHandle, bf16, f16,
};

use super::blend_backward::anew;
use super::blend_forward_tma::{Consumers, for_each_tile, vector_bytes};
use super::coefficients::is_strict;
use super::column_sums::{self, SUM_WORDS};
use super::slopes::{Role, Slopes, Sums};
use super::softmax::{self, Columns};
use super::strip::{BLOCK, Strip, WARPS};
use super::team::Team;

/// Groups of rows of g and x that are on their way or being worked on. At the instances' rows they take 64 KiB, so that
/// a block fits where it may have no more than 99 KiB (compute capability 12.0), and two on a multiprocessor of 9.0.
pub const STAGES: usize = 4;
/// Words of the ring's mbarriers.
const WORDS: usize = 2 * STAGES;

/// The kernel for elements of `T`, `L` of them a vector, `R` rows a group, of which a thread has `S` in registers at a
/// time.
///
/// # Safety
/// As [`BlendBackwardTma`] says, with `STAGES` stages of dynamic shared memory; every block of the grid runs it.
#[inline(always)]
unsafe fn blend_backward_tma<T: Float, const L: usize, const R: usize, const S: usize>(
    p: BlendBackwardTma,
) {
    const { assert!(R.is_multiple_of(S)) };
    let BlendBackwardTma { backward: p, grad_output_map, input_map } = p;
    let g = p.geometry;
    // SAFETY: every geometry has them; see `blend_forward_tma`.
    unsafe {
        assert_unchecked(g.strips > 0);
        assert_unchecked(g.chunk_strips > 0);
        assert_unchecked(g.strip_vectors > 0);
        assert_unchecked(g.chunk_vectors > 0);
    }
    let ring = DynamicShared::<T>::whole();
    // SAFETY: every thread of the block is here. The barrier at the end of `start` is the last of the whole block.
    let pipeline =
        unsafe { Pipeline::<STAGES, WORDS>::start(shared_array![u64; WORDS], WARPS as u32) };

    let box_elements = g.stage_bytes(R as u32, vector_bytes::<T, L>()) / size_of::<T>() as u32;

    if thread::warp_idx() == WARPS as u32 {
        let fetches = thread::lane_idx() == 0;
        let mut fetch = Fetch {
            maps: [grad_output_map, input_map],
            ring,
            box_elements,
            producer: pipeline.producer(),
        };
        // SAFETY: the launcher made the maps for these arrays and this geometry, and the ring for `STAGES` stages; one
        // lane fetches.
        unsafe {
            if fetches {
                tma::acquire_map(grad_output_map);
                tma::acquire_map(input_map);
            }
            for_each_tile(&p, |strip, slab| {
                let reads_input = strip_reads_input(&p, &strip);
                if fetches {
                    fetch.tile::<L, R>(&p, &strip, slab, reads_input);
                }
            });
        }
    } else {
        let mut stages = Stages { ring, box_elements, consumer: pipeline.consumer() };
        // SAFETY: each consuming warp is here, whole.
        for_each_tile(&p, |strip, slab| unsafe {
            consume::<T, L, R, S>(&p, &strip, slab, &mut stages);
        });
    }
}

/// Whether some seed of the strip needs x.
///
/// # Safety
/// Every lane of the warp calls it.
#[inline(always)]
unsafe fn strip_reads_input(p: &BlendBackward, strip: &Strip) -> bool {
    let mut reads = false;
    let mut s = thread::lane_idx();
    while s < strip.seeds {
        // SAFETY: the strip's seeds are seeds.
        let role = unsafe { Role::of(p, (strip.first_seed + s) as usize) };
        reads |= role.is_some_and(|role| role.reads_input());
        s += warp::WARP_SIZE;
    }
    warp::any(warp::FULL_MASK, reads)
}

/// The ring as the fetching lane sees it.
struct Fetch<T> {
    /// Of g and of x.
    maps: [TensorMapHandle; 2],
    ring: DynamicShared<T>,
    /// Elements from a stage's box of g to its box of x; twice that is a stage.
    box_elements: u32,
    producer: Producer<STAGES, WORDS>,
}

impl<T: Float> Fetch<T> {
    /// Fetches a tile's groups, one after the other: g, and x where it is read.
    ///
    /// # Safety
    /// One thread of the block calls it; the maps are acquired, their box is a group, and a stage holds two.
    #[inline(always)]
    unsafe fn tile<const L: usize, const R: usize>(
        &mut self,
        p: &BlendBackward,
        strip: &Strip,
        slab: u32,
        reads_input: bool,
    ) {
        let g = &p.geometry;
        let vector = vector_bytes::<T, L>();
        let box_bytes = g.group_vectors(R as u32) * vector;
        let first_vector = strip.first_seed * g.chunk_vectors + strip.first_vector;
        let column = (first_vector * (vector / TMA_ELEMENT_BYTES)) as i32;
        let group_rows = R as u32 * g.row_lanes;
        let mut row = slab * group_rows;
        while row < p.batch {
            // SAFETY: the boxes of that many bytes follow. Columns past the strip are fetched and not used, those past
            // the row and rows past the batch are zeros.
            unsafe {
                let filling =
                    self.producer.fill(if reads_input { 2 * box_bytes } else { box_bytes });
                let load = |map, at: u32| {
                    let (target, barrier) = (self.ring.place(at as usize), filling.barrier());
                    tma::load_2d(target, map, column, row as i32, barrier, L2Hint::EvictFirst);
                };
                let at = filling.stage() as u32 * 2 * self.box_elements;
                load(self.maps[0], at);
                if reads_input {
                    load(self.maps[1], at + self.box_elements);
                }
            }
            row += group_rows * g.slabs;
        }
    }
}

/// The ring as a consumer sees it.
struct Stages<T> {
    ring: DynamicShared<T>,
    /// As [`Fetch::box_elements`].
    box_elements: u32,
    consumer: Consumer<STAGES, WORDS>,
}

/// ∂x of a tile, and its sums where a seed trains.
///
/// # Safety
/// Every consuming thread calls it, for the tiles in their order.
#[inline(always)]
unsafe fn consume<T: Float, const L: usize, const R: usize, const S: usize>(
    p: &BlendBackward,
    strip: &Strip,
    slab: u32,
    stages: &mut Stages<T>,
) {
    // Each thread's sums; before that, the softmax's log-partitions.
    let scratch = shared_array![u32; BLOCK * SUM_WORDS];
    let (p, after) = (&anew(p), p);
    let g = &p.geometry;
    let t = hint::opaque(thread::thread_idx_x());
    let (lane_row, vector) = (t / g.strip_vectors, t % g.strip_vectors);
    let (local_seed, chunk_vector) = (vector / g.chunk_vectors, vector % g.chunk_vectors);
    let seed = strip.first_seed + local_seed;
    let column = (strip.first_vector + chunk_vector) * L as u32;
    let works = lane_row < g.row_lanes && vector < strip.vectors;
    let place = seed * p.chunk_size + column;

    // SAFETY: a working thread's seed and columns are inside the strip, and the strip inside the row; every
    // consuming thread is here.
    unsafe {
        let role = if works { Role::of(p, seed as usize) } else { None };
        let blueprint = role.map(|role| role.blueprint);
        let columns = Columns { strip, local_seed, column, blueprint };
        let normaliser =
            softmax::log_partition::<_, L, _, _>(Consumers, p, columns, Role::matters, &scratch);
        let mut c = Slopes::<L>::of(p, role, column as usize, normaliser);
        c.strict = !c.identity && is_strict(p, seed as usize);
        let walk = Walk::<T, L, R> {
            works,
            grad_output: p.grad_output.cast(),
            grad_input: p.grad_input.cast(),
            chunk_column: column as usize,
            chunk_size: p.chunk_size as usize,
            place,
            hidden: p.num_seeds * p.chunk_size,
            vectors_left: strip.vectors.saturating_sub(vector),
            start_in_stage: (lane_row * g.strip_vectors + vector) * L as u32,
            stage_stride: g.row_lanes * g.strip_vectors * L as u32,
            group_row: slab * R as u32 * g.row_lanes,
            lane_row,
            row_stride: g.row_lanes,
            step: R as u32 * g.row_lanes * g.slabs,
            batch: p.batch,
            numerical: p.numerical,
        };
        // Most warps need no more than a slope for each column, and take the shorter loop.
        let general = warp::any(warp::FULL_MASK, c.convolves || c.kinked || c.strict);
        let sums = if general {
            walk.run::<S, true>(&c, stages)
        } else {
            walk.run::<S, false>(&c, stages)
        };
        let p = &anew(after);
        // Every block of a group of seeds answers alike.
        if Consumers.sync_or(role.is_some_and(|role| role.trains)) {
            column_sums::leave::<_, L, L>(
                Consumers, p, slab, lane_row, seed, role, normaliser, place, sums, &scratch,
            );
            // The sums' readers are done before the next tile writes there.
            Consumers.sync();
        }
    }
}

/// One thread's way down the rows of its columns.
struct Walk<T, const L: usize, const R: usize> {
    works: bool,
    grad_output: In<T>,
    grad_input: Out<T>,
    /// The vector's first element within its chunk, and the chunk's size.
    chunk_column: usize,
    chunk_size: usize,
    /// Its first element in a row, and a row's elements.
    place: u32,
    hidden: u32,
    /// Vectors of the strip from this one on.
    vectors_left: u32,
    /// Where a box has it, and the distance of a thread's rows there, in elements.
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
}

/// Where some rows of a thread's vector begin: the row, and the elements of the ring.
struct Subgroup {
    row: u32,
    grad_output: u32,
    input: u32,
}

impl<T: Float, const L: usize, const R: usize> Walk<T, L, R> {
    /// ∂x of the thread's columns, and their sums, `S` rows at a time.
    ///
    /// # Safety
    /// Every lane of the warp calls it; the columns of one that works are its alone and of one seed.
    #[inline(always)]
    unsafe fn run<const S: usize, const GENERAL: bool>(
        &self,
        c: &Slopes<L>,
        stages: &mut Stages<T>,
    ) -> Sums<L> {
        let mut sums = Sums::ZERO;
        let mut group_row = self.group_row;
        while group_row < self.batch {
            // SAFETY: the whole warp is here; the producer fetches the same groups in the same order, and a stage has
            // room for a group, all of which was fetched: of x too, if one of the strip's seeds reads it.
            unsafe {
                let filled = stages.consumer.next();
                if self.works {
                    let grad_output =
                        filled.stage() as u32 * 2 * stages.box_elements + self.start_in_stage;
                    let mut rows = Subgroup {
                        row: group_row + self.lane_row,
                        grad_output,
                        input: grad_output + stages.box_elements,
                    };
                    let end = grad_output + R as u32 * self.stage_stride;
                    // The group's own sum: fewer roundings of the whole one.
                    let mut group = Sums::ZERO;
                    while rows.grad_output < end {
                        self.rows::<S, GENERAL>(c, &stages.ring, &rows, &mut group);
                        rows.row += S as u32 * self.row_stride;
                        rows.grad_output += S as u32 * self.stage_stride;
                        rows.input += S as u32 * self.stage_stride;
                    }
                    if GENERAL {
                        sums.add(&group);
                    } else {
                        sums.add_columns(&group.columns);
                    }
                }
                filled.release();
            }
            group_row += self.step;
        }
        sums
    }

    /// ∂x of `S` rows, and adds to the sums. Rows past the batch are zeros in the stage, and are not stored.
    ///
    /// # Safety
    /// The thread works, and the rows are its own.
    #[inline(always)]
    unsafe fn rows<const S: usize, const GENERAL: bool>(
        &self,
        c: &Slopes<L>,
        ring: &DynamicShared<T>,
        rows: &Subgroup,
        sums: &mut Sums<L>,
    ) {
        let mut g = [Vector([T::zeroed(); L]); S];
        let mut x = [Vector([T::from_f32(1.0); L]); S];
        let in_box = |r: usize| r as u32 * self.stage_stride;
        unroll!(r in S => {
            // SAFETY: the stage has the rows past the batch too, and x where it is read.
            unsafe {
                g[r] = ring.read_vector((rows.grad_output + in_box(r)) as usize);
                if c.reads_input {
                    x[r] = ring.read_vector((rows.input + in_box(r)) as usize);
                }
            }
        });
        unroll!(r in S => {
            let row = rows.row + r as u32 * self.row_stride;
            let here = row < self.batch;
            let (wide, input) = (g[r].map(T::to_f32).0, x[r].map(T::to_f32).0);
            let at = (u64::from(row) * u64::from(self.hidden) + u64::from(self.place)) as usize;
            let dx = if GENERAL {
                let mut dx = c.bent_line(&wide, &input, sums);
                if c.convolves {
                    let next = rows.grad_output + in_box(r) + L as u32;
                    // SAFETY: the caller's contract.
                    let beyond = unsafe { self.beyond(ring, next, at, here) };
                    let place = (self.chunk_column, self.chunk_size);
                    c.convolve(&wide, &input, beyond, place, &mut dx, sums);
                }
                c.settle(&self.numerical, &mut dx);
                dx
            } else {
                c.line(&wide, &input, &mut sums.columns)
            };
            if here {
                // SAFETY: the row is in the batch; its columns are this thread's.
                unsafe { self.grad_input.store_vector(at, c.output(g[r], dx), StoreHint::Cached) };
            }
        });
    }

    /// The two elements of g right of the thread's vector, which is at `at`; 0 outside the chunk. A chunk is whole
    /// vectors of more than two, so both are of the next one: it is at `next` of the ring, or beyond the strip.
    ///
    /// # Safety
    /// The thread works; if the row is `here`, it is in the batch.
    #[inline(always)]
    unsafe fn beyond(&self, ring: &DynamicShared<T>, next: u32, at: usize, here: bool) -> [f32; 2] {
        const { assert!(L >= 2) };
        let mut two = Vector([T::zeroed(); 2]);
        if self.chunk_column + L < self.chunk_size {
            if self.vectors_left > 1 {
                // SAFETY: the box has the next vector too.
                two = unsafe { ring.read_vector(next as usize) };
            } else if here {
                // SAFETY: the chunk has a next vector, and the row is there.
                two = unsafe { self.grad_output.load_vector(at + L, LoadHint::Cached) };
            }
        }
        two.map(T::to_f32).0
    }
}

macro_rules! instance {
    ($entry:ident, $element:ty, $dtype:ident, $lanes:literal, $rows:literal, $block:literal,
     $min_blocks:literal, $arch:literal, $subrows:literal $(, $spills:ident)?) => {
        /// The layer's backward pass for one element type.
        ///
        /// # Safety
        /// As [`BlendBackwardTma`] says, with `STAGES` stages of dynamic shared memory.
        #[kernel(block = $block, min_blocks = $min_blocks, arch = $arch $(, $spills)?)]
        pub unsafe fn $entry(p: BlendBackwardTma) {
            const { assert!($block == BLOCK + warp::WARP_SIZE as usize) };
            // SAFETY: the entry's contract.
            unsafe { blend_backward_tma::<$element, $lanes, $rows, $subrows>(p) }
        }
    };
}

kasmina_types::blend_backward_tma_tiles!(instance);

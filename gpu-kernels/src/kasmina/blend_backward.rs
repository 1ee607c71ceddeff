//! The layer's backward pass over the batch: ∂x, and the sums that the parameters' gradients are made from.
//!
//! # Math
//! With g = ∂L/∂y and a = clip(α, 0, 1), for an active seed (GRAFTING to FOSSILIZED) ∂x = slope·g, the slopes
//! as in `blend_forward`; a CONV_FILTER adds the two right neighbours of g. Every other seed passes g, bit
//! for bit. For a seed that trains (TRAINING with a = 1, GRAFTING, FINE_TUNING) ∂w, ∂s and ∂α follow from
//! sums over the batch: Σ g of a RESIDUAL_BLOCK, Σ g·x of the others, of an MLP_EXPANSION where x·w > 0 and
//! everywhere, Σᵢ gᵢ₊ⱼ·xᵢ of a CONV_FILTER's tap j. They are summed here slab by slab, in f32, a group of
//! rows before it is added to the thread's sum, and taken up by `parameter_gradients`; where a block has whole seeds
//! (`BlendGeometry::finishes_seeds`), here, by its formulas. Where the numerical mode is strict, an active seed's ∂x is 0
//! for NaN and |∂x| < 1e-8, else clamped to the bounds.
//!
//! # Layout
//! | buffer | shape | type | access |
//! |---|---|---|---|
//! | `input`, `grad_output` | `[batch, num_seeds · chunk_size]` row-major | f32, f16, bf16 | in; 16-byte aligned |
//! | `grad_input` | as they are | as they are | out |
//! | `layer` | as in `blend_forward` | | in |
//! | `sums` | as at `BatchSums` | f32 | out, of seeds that train |
//! | `gradients` | as in `parameter_gradients` | f32 | out, ∂α and statistics of seeds that it finishes |
//!
//! # Traffic
//! Reads g, and x of the seeds whose gradients need it; writes ∂x: at most 3 · batch · hidden · size bytes,
//! and 4 · slabs · hidden of sums. About 4 operations an element. Bound by memory. f32, 4096 × 1000 ×
//! 64 at 4.24 TB/s: 742 µs. Measured: see `docs/performance.md`, `blend_backward`.
//!
//! # Launch
//! As `blend_forward`: `slabs · strips` tiles over a persistent grid of 256-thread blocks, a thread with one
//! vector of columns. Neighbours of g come from the next lanes by shuffle, and from memory at a warp's
//! edge; so the loop that needs them is run by whole warps. Where the rows are few, `blend_backward_seed` takes its
//! place.
//!
//! # Determinism
//! Bitwise: rows, threads and slabs are added up in an order that depends on shape and geometry only.
//!
//! # Source
//! Original. Reference: `kasmina_reference::kasmina::blend_backward`.

mod rows;

use kasmina_device::convert::Float;
use kasmina_device::global::{Load, Store};
use kasmina_device::vector::{LoadHint, StoreHint, Vector};
use kasmina_device::{hint, kernel, reduce, shared_array, thread, unroll, warp};
use kasmina_types::blend_forward::BlendGeometry;
use kasmina_types::{BlendBackward, In, Numerical, Out, bf16, f16};

use super::coefficients::is_strict;
use super::column_sums::{self, SUM_WORDS};
use super::slopes::{Role, Slopes, Sums};
use super::softmax::{self, Columns};
use super::strip::{BLOCK, Strip};
use super::team::WholeBlock;

/// How the three arrays treat the caches: each element passes once.
const LOADS: LoadHint = LoadHint::Cached;
const STORES: StoreHint = StoreHint::Cached;

/// The kernel for elements of `T`, `L` of them an access, `R` rows a group, and `W` f32 an access of the
/// scratch: `L`, at most 4.
///
/// # Safety
/// As [`BlendBackward`] says, with `chunk_size` a multiple of `L` and `L · size_of::<T>()` no more than
/// 16; every block of the grid runs it.
#[inline(always)]
unsafe fn blend_backward<T: Float, const L: usize, const R: usize, const W: usize>(
    p: BlendBackward,
) {
    // Each thread's sums; before that, the softmax's log-partitions.
    let shared = shared_array![u32; BLOCK * SUM_WORDS];
    let p = BlendBackward { geometry: p.geometry.with_positive_divisors(), ..p };
    let g = p.geometry;
    let mut tile = thread::block_idx_x();
    while tile < g.strips * g.slabs {
        let t = hint::opaque(thread::thread_idx_x());
        let (p, after) = (anew(&p), &p);
        let g = p.geometry;
        let (lane_row, vector) = (t / g.strip_vectors, t % g.strip_vectors);
        let (local_seed, chunk_vector) = (vector / g.chunk_vectors, vector % g.chunk_vectors);
        let (slab, in_row) = (tile / g.strips, tile % g.strips);
        let strip = Strip::of(&p, in_row);
        let seed = strip.first_seed + local_seed;
        let column = (strip.first_vector + chunk_vector) * L as u32;
        let works = lane_row < g.row_lanes && vector < strip.vectors;
        let walk = Walk::<T, L, R>::new(&p, &strip, slab, lane_row, vector, seed, column);

        // SAFETY: a working thread's seed and columns are inside the strip, and the strip inside the
        // row; every thread of the block is here.
        let (role, log_partition, sums) = unsafe {
            // The first rows are on their way while the seed's parameters are fetched.
            let first = if works { walk.first_group() } else { walk.nothing() };
            let role = if works { Role::of(&p, seed as usize) } else { None };
            let blueprint = role.map(|role| role.blueprint);
            let columns = Columns { strip: &strip, local_seed, column, blueprint };
            let normaliser = softmax::log_partition::<_, L, _, _>(
                WholeBlock,
                &p,
                columns,
                Role::matters,
                &shared,
            );
            let mut c = Slopes::<L>::of(&p, role, column as usize, normaliser);
            c.strict = !c.identity && is_strict(&p, seed as usize);
            // Most warps need no more than a slope for each column, and take the shorter loop.
            let general = warp::any(warp::FULL_MASK, c.convolves || c.kinked || c.strict);
            let sums = match (general, works) {
                (true, _) => walk.run_general(works, &c),
                (false, true) => walk.run(first, &c),
                (false, false) => Sums::ZERO,
            };
            (role, normaliser, sums)
        };
        let p = anew(after);
        let slab = hint::opaque(tile) / p.geometry.strips;
        let trains = role.is_some_and(|role| role.trains);
        // Every block of a group of seeds answers alike.
        if thread::sync_threads_or(trains) {
            let place = seed * p.chunk_size + column;
            // SAFETY: every thread of the block is here.
            unsafe {
                column_sums::leave::<_, L, W>(
                    WholeBlock,
                    &p,
                    slab,
                    lane_row,
                    seed,
                    role,
                    log_partition,
                    place,
                    sums,
                    &shared,
                );
            }
            // The sums' readers are done before the next tile writes there.
            thread::sync_threads();
        }
        tile += thread::grid_dim_x();
    }
}

/// The same parameters, from which nothing is computed ahead of its use: while the rows go by, the registers
/// are for them.
#[inline(always)]
pub(super) fn anew(p: &BlendBackward) -> BlendBackward {
    let geometry = BlendGeometry {
        chunk_vectors: hint::opaque(p.geometry.chunk_vectors),
        strip_vectors: hint::opaque(p.geometry.strip_vectors),
        slabs: hint::opaque(p.geometry.slabs),
        row_lanes: hint::opaque(p.geometry.row_lanes),
        ..p.geometry
    };
    BlendBackward {
        num_seeds: hint::opaque(p.num_seeds),
        chunk_size: hint::opaque(p.chunk_size),
        geometry: geometry.with_positive_divisors(),
        ..*p
    }
}

/// One thread's way down the rows of its columns.
struct Walk<T, const L: usize, const R: usize> {
    input: In<T>,
    grad_output: In<T>,
    grad_input: Out<T>,
    /// The vector's first element within its chunk, and the chunk's size.
    chunk_column: usize,
    chunk_size: usize,
    /// Vectors of the strip from this one on.
    vectors_left: u32,
    /// Its first element in the first row.
    start: usize,
    /// First row, the distance of a group's rows, that of the groups, and the end.
    row: u32,
    stride: u32,
    step: u32,
    batch: u32,
    hidden: usize,
    numerical: Numerical,
}

/// A thread's vectors of some rows.
type Group<T, const L: usize, const R: usize> = [Vector<T, L>; R];

impl<T: Float, const L: usize, const R: usize> Walk<T, L, R> {
    #[inline(always)]
    fn new(
        p: &BlendBackward,
        strip: &Strip,
        slab: u32,
        lane_row: u32,
        vector: u32,
        seed: u32,
        chunk_column: u32,
    ) -> Self {
        let g = &p.geometry;
        let hidden = p.num_seeds as usize * p.chunk_size as usize;
        let group_rows = R as u32 * g.row_lanes;
        let row = slab * group_rows + lane_row;
        let column = seed * p.chunk_size + chunk_column;
        Self {
            input: p.input.cast(),
            grad_output: p.grad_output.cast(),
            grad_input: p.grad_input.cast(),
            chunk_column: chunk_column as usize,
            chunk_size: p.chunk_size as usize,
            vectors_left: strip.vectors.saturating_sub(vector),
            start: row as usize * hidden + column as usize,
            row,
            stride: g.row_lanes,
            step: (group_rows * g.slabs).max(1),
            batch: p.batch,
            hidden,
            numerical: p.numerical,
        }
    }

    /// Groups that start before this row are whole.
    #[inline(always)]
    fn whole(&self) -> u32 {
        self.batch.saturating_sub((R as u32 - 1) * self.stride)
    }

    /// g of the first group, zeros if it is not whole.
    ///
    /// # Safety
    /// The columns are inside the row.
    #[inline(always)]
    unsafe fn first_group(&self) -> Group<T, L, R> {
        if self.row < self.whole() {
            // SAFETY: all rows of a whole group are below `batch`.
            unsafe { self.load(&self.grad_output, self.start) }
        } else {
            self.nothing()
        }
    }

    /// ∂x of the thread's columns, each a line, and their sums.
    ///
    /// # Safety
    /// `first` is [`Self::first_group`]'s, and the columns are this thread's alone and of one seed.
    #[inline(always)]
    unsafe fn run(&self, first: Group<T, L, R>, c: &Slopes<L>) -> Sums<L> {
        let mut sums = Sums::ZERO;
        let (mut row, mut at) = (self.row, self.start);
        let step = self.step as usize * self.hidden;
        if row < self.whole() {
            let mut g = first;
            // SAFETY: all rows of a whole group are below `batch`.
            let mut x = unsafe { self.load_input::<R>(at, c) };
            loop {
                let more = row + self.step < self.whole();
                // The next group is on its way while this one is worked on.
                let (next_g, next_x) = if more {
                    // SAFETY: as above.
                    unsafe {
                        (self.load(&self.grad_output, at + step), self.load_input(at + step, c))
                    }
                } else {
                    (g, x)
                };
                // SAFETY: the rows were loaded from there, and their columns are this thread's.
                sums.add_columns(&unsafe { self.line_group::<R>(at, &g, &x, c) });
                row += self.step;
                at += step;
                if !more {
                    break;
                }
                (g, x) = (next_g, next_x);
            }
        }
        // The ragged group, if it is this thread's: fewer than `R` rows.
        while row < self.batch {
            // SAFETY: `row < batch`.
            unsafe {
                let g = self.load::<1>(&self.grad_output, at);
                let x = self.load_input::<1>(at, c);
                sums.add_columns(&self.line_group::<1>(at, &g, &x, c));
            }
            row += self.stride;
            at += self.stride as usize * self.hidden;
        }
        sums
    }

    /// ∂x and the columns' sums of `N` rows from element `at`.
    ///
    /// # Safety
    /// As [`Self::store`] for each row.
    #[inline(always)]
    unsafe fn line_group<const N: usize>(
        &self,
        at: usize,
        g: &Group<T, L, N>,
        x: &Group<T, L, N>,
        c: &Slopes<L>,
    ) -> [f32; L] {
        let mut sums = [0.0; L];
        let mut at = at;
        unroll!(r in N => {
            at = self.row(r, at);
            let (wide, input) = (g[r].map(T::to_f32).0, x[r].map(T::to_f32).0);
            let dx = c.line(&wide, &input, &mut sums);
            // SAFETY: the caller's contract.
            unsafe { self.store(at, c, g[r], dx) };
        });
        sums
    }

    /// Stores one row's ∂x at element `at`: `dx`, or where the seed is the identity the gradient itself.
    ///
    /// # Safety
    /// The vector is inside the buffer and this thread's.
    #[inline(always)]
    unsafe fn store(&self, at: usize, c: &Slopes<L>, g: Vector<T, L>, dx: [f32; L]) {
        // SAFETY: the caller's contract.
        unsafe { self.grad_input.store_vector(at, c.output(g, dx), STORES) };
    }

    /// As [`Self::run`], for whatever a warp's seeds do. Rows that are not there count as zeros.
    ///
    /// # Safety
    /// Every lane of the warp calls it; the columns of a lane that `works` are its alone and of one seed.
    #[inline(always)]
    unsafe fn run_general(&self, works: bool, c: &Slopes<L>) -> Sums<L> {
        let mut sums = Sums::ZERO;
        let rows = if works { self.batch.saturating_sub(self.row) } else { 0 };
        let trips = reduce::warp_fold(rows.div_ceil(self.step), |a, b| if a > b { a } else { b });
        let convolves = warp::any(warp::FULL_MASK, c.convolves);
        let step = self.step as usize * self.hidden;
        let (mut trip, mut left, mut at) = (0, rows, self.start);
        // No group ahead here: with what the seeds' kinds need besides, it would not fit the registers.
        while trip < trips {
            // SAFETY: the caller's contract; the columns are this thread's.
            unsafe {
                let group = self.load_rows(left, at, c);
                self.general_group(left, at, &group, c, convolves, &mut sums);
            }
            left = left.saturating_sub(self.step);
            at += step;
            trip += 1;
        }
        sums
    }

    /// g and x of the group's rows at element `at`, of which `left` are there, and the rest zeros.
    ///
    /// # Safety
    /// The columns are inside the row.
    #[inline(always)]
    unsafe fn load_rows(
        &self,
        left: u32,
        at: usize,
        c: &Slopes<L>,
    ) -> (Group<T, L, R>, Group<T, L, R>) {
        if left > (R as u32 - 1) * self.stride {
            // SAFETY: all rows of the group are there.
            return unsafe { (self.load(&self.grad_output, at), self.load_input(at, c)) };
        }
        let (mut g, mut x) = (self.nothing(), self.nothing());
        let mut at = at;
        unroll!(r in R => {
            at = self.row(r, at);
            if r as u32 * self.stride < left {
                // SAFETY: the row is there.
                unsafe {
                    g[r] = self.load::<1>(&self.grad_output, at)[0];
                    x[r] = self.load_input::<1>(at, c)[0];
                }
            }
        });
        (g, x)
    }

    /// ∂x of a group of which `left` rows are there; adds to the sums.
    ///
    /// # Safety
    /// As [`Self::store`] for each row that is there; every lane of the warp calls it.
    #[inline(always)]
    unsafe fn general_group(
        &self,
        left: u32,
        at: usize,
        (g, x): &(Group<T, L, R>, Group<T, L, R>),
        c: &Slopes<L>,
        convolves: bool,
        sums: &mut Sums<L>,
    ) {
        let mut at = at;
        unroll!(r in R => {
            at = self.row(r, at);
            let here = r as u32 * self.stride < left;
            let (wide, input) = (g[r].map(T::to_f32).0, x[r].map(T::to_f32).0);
            let mut dx = c.bent_line(&wide, &input, sums);
            if convolves {
                // SAFETY: the caller's contract.
                let beyond = unsafe { self.beyond(at, here && c.convolves, &wide) };
                let place = (self.chunk_column, self.chunk_size);
                c.convolve(&wide, &input, beyond, place, &mut dx, sums);
            }
            c.settle(&self.numerical, &mut dx);
            if here {
                // SAFETY: the caller's contract.
                unsafe { self.store(at, c, g[r], dx) };
            }
        });
    }

    /// The two elements of g right of the thread's vector at `at`, 0 outside the chunk: from the next lanes,
    /// and, where the warp ends within a chunk, from memory.
    ///
    /// # Safety
    /// Every lane of the warp calls it; where one `needs` them, the row is there.
    #[inline(always)]
    unsafe fn beyond(&self, at: usize, needs: bool, g: &[f32; L]) -> [f32; 2] {
        let lane = thread::lane_idx();
        let from_lanes = if L == 1 {
            [
                warp::shuffle_down(warp::FULL_MASK, g[0], 1),
                warp::shuffle_down(warp::FULL_MASK, g[0], 2),
            ]
        } else {
            [
                warp::shuffle_down(warp::FULL_MASK, g[0], 1),
                warp::shuffle_down(warp::FULL_MASK, g[1 % L], 1),
            ]
        };
        let mut beyond = [0.0; 2];
        unroll!(d in 2 => {
            let lanes = if L == 1 { d as u32 + 1 } else { 1 };
            if needs && self.chunk_column + L + d < self.chunk_size {
                let near = lane + lanes < warp::WARP_SIZE && lanes < self.vectors_left;
                beyond[d] = if near {
                    from_lanes[d]
                } else {
                    // SAFETY: the element is inside the chunk and the row is there.
                    unsafe { self.grad_output.load(at + L + d) }.to_f32()
                };
            }
        });
        beyond
    }
}

macro_rules! instance {
    ($entry:ident, $element:ty, $dtype:ident, $lanes:literal, $rows:literal, $block:literal,
     $min_blocks:literal $(, $spills:ident)?) => {
        /// The layer's backward pass for one element type and access width.
        ///
        /// # Safety
        /// As [`BlendBackward`] says, with a chunk size that is a multiple of the instance's lanes.
        #[kernel(block = $block, min_blocks = $min_blocks $(, $spills)?)]
        pub unsafe fn $entry(p: BlendBackward) {
            const { assert!($block == BLOCK) };
            // SAFETY: the entry's contract.
            unsafe { blend_backward::<$element, $lanes, $rows, { if $lanes < 4 { $lanes } else { 4 } }>(p) }
        }
    };
}

kasmina_types::blend_backward_tiles!(instance);

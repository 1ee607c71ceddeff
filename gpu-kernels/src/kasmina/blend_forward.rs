//! The layer's forward pass with its telemetry, in one pass over the input.
//!
//! # Math
//! For an active seed (GRAFTING to FOSSILIZED) with a = clip(α, 0, 1): `y = (1−a)·x + a·T(x)`, the
//! five T as at `kasmina_types::BlueprintType`; every other seed is the identity, bit for bit. Each T
//! but the convolution is, for one element, a line with a slope for either sign of x and an offset, so
//! one fused multiply-add serves all; the convolution adds its two left neighbours. Telemetry of x:
//! two-pass moments within a group of rows, merged by Chan's form of Welford's update; non-finite
//! values are counted and left out. All in f32. An infinite x gives a y that is not finite; whether ∞
//! or NaN is open, for the factored form has no 0·∞ where the formula has. Where the numerical mode is
//! strict, an active seed's y is 0 for NaN and |y| < 1e-8, else clamped to the bounds.
//!
//! # Layout
//! | buffer | shape | type | access |
//! |---|---|---|---|
//! | `input`, `output` | `[batch, num_seeds · chunk_size]` row-major | f32, f16, bf16 | in, out; 16-byte aligned |
//! | `lifecycle`, `blueprint_id`, `alpha` | `[num_seeds]` | u8, u16, f32 | in |
//! | `blueprint_type`, `_offset`, `_scale` | `[num_blueprints]` | u8, u32, f32 | in |
//! | `weights` | by offset, `chunk_size` each | f32 | in |
//! | `telemetry` | eight arrays `[num_seeds]` | f32, u32 | out, every element written |
//! | `partials` | `[num_seeds, parts]` of 32 bytes | record | scratch |
//! | `arrivals` | `[groups]` | u32 | scratch, zero before and after |
//! | `unstable` | `[num_seeds]` | u8 | adaptive mode: in, and out with telemetry |
//!
//! # Traffic
//! Reads and writes each element once: 2 · batch · hidden · size bytes; about 12 operations an element.
//! Bound by memory. f32, 4096 × 1000 × 64 at 4.24 TB/s: 495 µs. Measured: see `docs/performance.md`,
//! `blend_forward`.
//!
//! # Launch
//! `slabs · strips` tiles over a persistent grid of 256-thread blocks. A strip is whole chunks or a part
//! of one; a thread keeps one vector of columns, with its coefficients in registers, and walks down the
//! rows, the next rows loading while it works on these. Rows are dealt to the slabs in turn, so that
//! the grid sweeps memory together. Threads outside the strip only meet the barriers. Where the rows are few,
//! `blend_forward_seed` takes its place.
//!
//! # Determinism
//! Bitwise: the last block of a group merges the parts in their order, whichever block it is; the
//! order depends on shape and geometry only.
//!
//! # Source
//! Original; moments after Chan, Golub and LeVeque, 1979. Reference:
//! `kasmina_reference::kasmina::blend_forward`.

use kasmina_device::convert::Float;
use kasmina_device::global::{Load, Store};
use kasmina_device::grid::BlockPlace;
use kasmina_device::vector::{LoadHint, StoreHint, Vector};
use kasmina_device::{hint, kernel, shared_array, thread, unroll, warp};
use kasmina_types::blend_forward::BlendGeometry;
use kasmina_types::{BlendForward, In, Numerical, Out, SeedLifecycle, bf16, f16};

use super::coefficients::{Blueprint, Coefficients, is_strict};
use super::moments::Moments;
use super::softmax::{self, Columns};
use super::strip::{BLOCK, Strip};
use super::team::{Team, WholeBlock};
use super::telemetry::{self, MOMENT_WORDS};

/// The kernel for elements of `T`, `L` of them an access, `R` rows a group.
///
/// # Safety
/// As [`BlendForward`] says, with `chunk_size` a multiple of `L` and `L · size_of::<T>()` no more than
/// 16; every block of the grid, at its place there, and every thread of the team run it.
#[inline(always)]
pub(crate) unsafe fn blend_forward<
    T: Float,
    M: Team,
    const L: usize,
    const R: usize,
    const C: bool,
>(
    p: BlendForward<C>,
    place: BlockPlace,
    team: M,
) {
    // Each thread's moments; before that, the softmax's log-partition of each seed of the strip.
    let scratch = shared_array![u32; BLOCK * MOMENT_WORDS];
    let p = BlendForward { geometry: p.geometry.with_positive_divisors(), ..p };
    let g = p.geometry;
    let t = thread::thread_idx_x();
    let (lane_row, vector) = (t / g.strip_vectors, t % g.strip_vectors);
    let (local_seed, chunk_vector) = (vector / g.chunk_vectors, vector % g.chunk_vectors);
    let mut tile = place.block;
    while tile < g.strips * g.slabs {
        let (slab, in_row) = (tile / g.strips, tile % g.strips);
        let strip = Strip::of(&p, in_row);
        let seed = strip.first_seed + local_seed;
        let column = (strip.first_vector + chunk_vector) * L as u32;
        let walk =
            Walk::<T, L, R, C>::new(&p, slab, lane_row, seed * p.chunk_size + column, column);
        let works = lane_row < g.row_lanes && vector < strip.vectors;

        // SAFETY: a working thread's seed and columns are inside the strip, and the strip inside the
        // row; every thread of the block is here.
        let moments = unsafe {
            // The first rows are on their way while the seed's parameters are fetched.
            let first = if works { walk.first_group() } else { [Vector([T::zeroed(); L]); R] };
            let blueprint = if works { Blueprint::of(&p, seed as usize) } else { None };
            let columns = Columns { strip: &strip, local_seed, column, blueprint };
            let active = SeedLifecycle::is_active;
            let normaliser =
                softmax::log_partition::<_, L, _, _>(team, &p, columns, active, &scratch);
            let mut c = Coefficients::<L>::of(&p, blueprint, column as usize, normaliser);
            c.strict = !c.identity && is_strict(&p, seed as usize);
            // Most warps need no more than a line for each column, and take the shorter loop.
            let general = warp::any(warp::FULL_MASK, c.convolves || c.kinked || c.strict);
            match (works, general, p.gathers != 0) {
                (false, ..) => Moments::EMPTY,
                (true, false, true) => walk.run::<false, true>(first, &c),
                (true, true, true) => walk.run::<true, true>(first, &c),
                (true, false, false) => walk.run::<false, false>(first, &c),
                (true, true, false) => walk.run::<true, false>(first, &c),
            }
        };
        if p.gathers != 0 {
            // Opaque: what the merge computes from these would else take registers from the rows.
            let geometry = BlendGeometry {
                slabs: hint::opaque(g.slabs),
                row_lanes: hint::opaque(g.row_lanes),
                chunk_vectors: hint::opaque(g.chunk_vectors),
                strip_vectors: hint::opaque(g.strip_vectors),
                ..g
            };
            let p = BlendForward { geometry: geometry.with_positive_divisors(), ..p };
            // SAFETY: every thread of the block arrives.
            unsafe { telemetry::merge(team, &p, &strip, slab, moments, &scratch) };
        }
        tile += place.blocks;
    }
}

/// One thread's way down the rows of its columns.
struct Walk<T, const L: usize, const R: usize, const C: bool> {
    rows: Rows<T, C>,
    /// The vector's first element within its chunk.
    chunk_column: usize,
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

impl<T: Float, const L: usize, const R: usize, const C: bool> Walk<T, L, R, C> {
    #[inline(always)]
    fn new(p: &BlendForward<C>, slab: u32, lane_row: u32, column: u32, chunk_column: u32) -> Self {
        let g = &p.geometry;
        let hidden = p.num_seeds as usize * p.chunk_size as usize;
        let group_rows = R as u32 * g.row_lanes;
        let row = slab * group_rows + lane_row;
        Self {
            rows: Rows {
                input: p.input.cast(),
                output: p.output.cast(),
                stride: g.row_lanes as usize * hidden,
            },
            chunk_column: chunk_column as usize,
            start: row as usize * hidden + column as usize,
            row,
            stride: g.row_lanes,
            step: group_rows * g.slabs,
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

    /// The rows of the thread's first group, zeros if it is not whole.
    ///
    /// # Safety
    /// The columns are inside the row.
    #[inline(always)]
    unsafe fn first_group(&self) -> [Vector<T, L>; R] {
        if self.row < self.whole() {
            // SAFETY: all rows of a whole group are below `batch`.
            unsafe { self.rows.load_group(self.start) }
        } else {
            [Vector([T::zeroed(); L]); R]
        }
    }

    /// Blends the thread's columns of its rows, and gives their moments if it `GATHERS`.
    ///
    /// # Safety
    /// `first` is [`Self::first_group`]'s, and the columns are this thread's alone and of one seed.
    #[inline(always)]
    unsafe fn run<const GENERAL: bool, const GATHERS: bool>(
        &self,
        first: [Vector<T, L>; R],
        c: &Coefficients<L>,
    ) -> Moments {
        let Self { rows, chunk_column, numerical, .. } = self;
        let mut moments = Moments::EMPTY;
        let (mut row, mut at) = (self.row, self.start);
        let step = self.step as usize * self.hidden;
        if row < self.whole() {
            let mut current = first;
            loop {
                let more = row + self.step < self.whole();
                // The next group is on its way while this one is worked on.
                let next = if more {
                    // SAFETY: all rows of a whole group are below `batch`.
                    unsafe { rows.load_group(at + step) }
                } else {
                    current
                };
                let mut values = [[0.0; L]; R];
                unroll!(r in R => {
                    values[r] = current[r].map(T::to_f32).0;
                });
                if GATHERS {
                    moments = moments.absorb_group(&values);
                }
                unroll!(r in R => {
                    // SAFETY: the row was loaded from there, and its columns are this thread's.
                    unsafe {
                        let at = at + r * rows.stride;
                        rows.store::<L, GENERAL>(
                            at, *chunk_column, c, numerical, current[r], values[r],
                        );
                    }
                });
                row += self.step;
                at += step;
                if !more {
                    break;
                }
                current = next;
            }
        }
        // The ragged group, if it is this thread's: fewer than `R` rows.
        while row < self.batch {
            // SAFETY: `row < batch`.
            unsafe {
                let [raw] = rows.load_group::<L, 1>(at);
                let x = raw.map(T::to_f32).0;
                if GATHERS {
                    moments = moments.absorb_group(&[x]);
                }
                rows.store::<L, GENERAL>(at, *chunk_column, c, numerical, raw, x);
            }
            row += self.stride;
            at += rows.stride;
        }
        moments
    }
}

/// Input and output, and the distance in elements of a thread's rows.
#[derive(Clone, Copy)]
pub(super) struct Rows<T, const C: bool = false> {
    pub(super) input: In<T, C>,
    pub(super) output: Out<T>,
    pub(super) stride: usize,
}

impl<T: Float, const C: bool> Rows<T, C> {
    /// Loads the vectors of `R` rows, the first at element `at`.
    ///
    /// # Safety
    /// The rows exist; rows and columns are multiples of `L` elements.
    #[inline(always)]
    unsafe fn load_group<const L: usize, const R: usize>(&self, at: usize) -> [Vector<T, L>; R] {
        let mut group = [Vector([T::zeroed(); L]); R];
        unroll!(r in R => {
            // SAFETY: the caller's contract.
            group[r] = unsafe { self.input.load_vector(at + r * self.stride, LoadHint::Cached) };
        });
        group
    }

    /// Blends one row's vector, `x` in f32 and `raw` as it was, and stores it at element `at`.
    ///
    /// # Safety
    /// The vector was loaded from there, and is this thread's.
    #[inline(always)]
    pub(super) unsafe fn store<const L: usize, const GENERAL: bool>(
        &self,
        at: usize,
        chunk_column: usize,
        c: &Coefficients<L>,
        numerical: &Numerical,
        raw: Vector<T, L>,
        x: [f32; L],
    ) {
        // SAFETY: the caller's contract.
        unsafe {
            let blended = self.blend::<L, GENERAL>(at, chunk_column, c, numerical, raw, x);
            self.output.store_vector(at, blended, StoreHint::Cached);
        }
    }

    /// Blends one row's vector of element `at`, `x` in f32 and `raw` as it was.
    ///
    /// # Safety
    /// The vector was loaded from there.
    #[inline(always)]
    pub(super) unsafe fn blend<const L: usize, const GENERAL: bool>(
        &self,
        at: usize,
        chunk_column: usize,
        c: &Coefficients<L>,
        numerical: &Numerical,
        raw: Vector<T, L>,
        x: [f32; L],
    ) -> Vector<T, L> {
        c.blend::<T, GENERAL>(numerical, raw, x, || {
            let neighbour = |distance: usize| {
                if chunk_column < distance {
                    return 0.0;
                }
                // SAFETY: the neighbour is inside the chunk.
                unsafe { self.input.load(at - distance) }.to_f32()
            };
            [neighbour(1), neighbour(2)]
        })
    }
}

macro_rules! instance {
    ($entry:ident, $element:ty, $dtype:ident, $lanes:literal, $rows:literal, $block:literal,
     $min_blocks:literal $(, $spills:ident)?) => {
        /// The layer's forward pass for one element type and access width.
        ///
        /// # Safety
        /// As [`BlendForward`] says, with a chunk size that is a multiple of the instance's lanes.
        #[kernel(block = $block, min_blocks = $min_blocks $(, $spills)?)]
        pub unsafe fn $entry(p: BlendForward) {
            const { assert!($block == BLOCK) };
            // SAFETY: the entry's contract.
            unsafe { blend_forward::<$element, _, $lanes, $rows, _>(
                    p,
                    BlockPlace::of_launch(),
                    WholeBlock,
                ) }
        }
    };
}

kasmina_types::blend_forward_tiles!(instance);

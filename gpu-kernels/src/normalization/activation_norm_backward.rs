//! An activation fused with the layer norm or RMS norm of each row: the gradients.
//!
//! # Math
//! g = ∂L/∂y, û = (u − μ)·r, n columns, ⟨·⟩ the mean over them. From `y = û·γ + β`: `∂L/∂γ = Σ g·û` and
//! `∂L/∂β = Σ g` over the rows, and ĝ = g·γ reaches û. u moves û directly by r, through μ by −r/n, and
//! through r by `∂r/∂u = −r³·(u − μ)/n`, that is −r·û·û/n in all: `∂L/∂u = r·(ĝ − ⟨ĝ⟩ − û·⟨ĝ·û⟩)`. RMS
//! norm has no μ, and so no ⟨ĝ⟩. With the activation first, u = act(x), so that
//! `∂L/∂x = ∂L/∂u · act′(x)`; with it last, u = x, and g·act′(û·γ + β) takes the place of g. û comes
//! from x and the forward pass's μ and r. All in f32; sums within a thread in the order of its
//! columns, over the team by butterfly and warps in order; over a team's rows in their order, then teams,
//! then slabs.
//!
//! # Layout
//! | buffer | shape | type | access |
//! |---|---|---|---|
//! | `input`, `grad_output`, `grad_input` | `[rows, cols]` row-major | f32, f16, bf16 | in, in, out; 16-byte aligned |
//! | `gamma`, `beta` | `[cols]`, or empty | f32 | in; 16-byte aligned |
//! | `mean`, `rstd` | `[rows]` | f32 | in |
//! | `partials` | `[slabs, 2, cols]`, or empty | f32 | scratch |
//! | `sums` | `[rows, 2]`, or empty | f32 | scratch |
//! | `grad_gamma`, `grad_beta` | `[cols]`, or empty | f32 | out of the merge, every element written |
//!
//! # Traffic
//! Reads x and g and writes ∂x once: 3 · rows · cols · size bytes, and 16 · slabs · cols for the
//! partials. A row longer than a block's registers (4096 columns in 16-byte accesses, 2048 else) is
//! read twice: 5 · rows · cols · size. About 25 operations an element, and those of the activation and
//! its derivative: 3 (ReLU) to 80 (GELU with erf, f32). Bound by memory. f32, 16384 × 4096 at 4.24 TB/s:
//! 190 µs. Measured: see `docs/performance.md`, `activation_norm_backward`.
//!
//! # Launch
//! Blocks of 256 threads, `slabs` of them; a team of 1 to 256 threads takes a row, a thread up to 16
//! columns, the same in each row, whose ∂γ and ∂β it keeps in shared memory, 32 KiB a block. Long rows take two launches:
//! `Sums` for ⟨ĝ⟩ and ⟨ĝ·û⟩, `Apply` with a block for each chunk and slab. The merge has a block for 32
//! columns of ∂γ or ∂β. No thread leaves before the last barrier.
//!
//! # Determinism
//! Bitwise: the order of operations depends on the shape, the plan and `slabs` only.
//!
//! # Source
//! Derived above, from the definitions at `activation_norm`. Reference:
//! `kasmina_reference::normalization::activation_norm_backward`.

use kasmina_device::convert::Float;
use kasmina_device::global::{Load, Store};
use kasmina_device::shared::Shared;
use kasmina_device::vector::{LoadHint, StoreHint, Vector};
use kasmina_device::{kernel, math, shared_array, thread, unroll};
use kasmina_types::normalization::NormStage;
use kasmina_types::tiles::{NORM_BACKWARD_MIN_BLOCKS, NORM_BLOCK_THREADS, NORM_MERGE_COLUMNS};
use kasmina_types::{
    ActivationNormBackward, In, Norm, NormGradientMerge, NormOrder, Out, bf16, f16,
};

use super::activation::{Precision, differentiate};
use super::team::{BLOCK, SCRATCH_WORDS, Team, parameter};

/// The most columns that a thread of some instance has.
const MOST_COLUMNS: usize = 16;

/// ∂γ and ∂β of each thread's columns, in shared memory: words that no other thread touches until the
/// last row is done.
struct Columns<const L: usize, const V: usize> {
    words: Shared<f32, { 2 * MOST_COLUMNS * BLOCK }>,
}

/// What a thread knows of its columns of one row.
struct Row<const L: usize, const V: usize> {
    /// û.
    normal: [[f32; L]; V],
    /// ĝ.
    grad: [[f32; L]; V],
    /// act′(x), or 1 with the activation last.
    slope: [[f32; L]; V],
}

/// The kernel for elements of `T`, `L` of them an access, `V` accesses a thread.
///
/// # Safety
/// As [`ActivationNormBackward`] says, with rows of `vectors · L` columns and `depth` at most `V`; the
/// grid has the blocks that it says.
#[inline(always)]
unsafe fn activation_norm_backward<T: Float, const L: usize, const V: usize>(
    p: ActivationNormBackward,
) {
    let scratch = shared_array![f32; SCRATCH_WORDS];
    let mut turn = 0;
    let plan = &p.plan;
    let team = Team::of(plan);
    let sums_only = p.stage == NormStage::Sums as u32;
    let apply = p.stage == NormStage::Apply as u32;
    let layer = plan.norm == Norm::LayerNorm as u32;
    let block = thread::block_idx_x();
    // The chunks of this block: one, or for the sums all of them.
    let (slab, begin, end) = if apply {
        let chunks = plan.chunks.max(1);
        (block / chunks, block % chunks, block % chunks + 1)
    } else {
        (block, 0, plan.chunks)
    };
    let per_column = 1.0 / (plan.vectors * L as u32) as f32;

    let columns = Columns::<L, V> { words: shared_array![f32; 2 * MOST_COLUMNS * BLOCK] };
    let accumulates = !sums_only && !p.partials.is_empty();
    if accumulates {
        columns.clear();
    }
    let mut first = slab * team.of_block;
    while first < plan.rows {
        let row = first + team.index;
        let works = row < plan.rows;
        let mut current = Row { normal: [[0.0; L]; V], grad: [[0.0; L]; V], slope: [[0.0; L]; V] };
        let (mut common, mut along, mut rstd) = (0.0, 0.0, 0.0);
        let mut chunk = begin;
        while chunk < end {
            if works {
                // SAFETY: the row exists, and the chunk is one of its own.
                let of_chunk = unsafe {
                    rstd = p.rstd.load(row as usize);
                    current.read::<T>(&p, team, row, chunk, rstd, accumulates.then_some(&columns))
                };
                common += of_chunk[0];
                along += of_chunk[1];
            }
            chunk += 1;
        }
        if apply {
            if works {
                // SAFETY: an earlier launch wrote the two sums of every row.
                Vector([common, along]) =
                    unsafe { p.sums.load_vector::<2>(2 * row as usize, LoadHint::Cached) };
            }
        } else {
            [common, along] = team.sum([common, along], &mut turn, &scratch);
        }
        if sums_only {
            if works && team.member == 0 {
                let both = Vector([common, along]);
                // SAFETY: one thread writes the row's two.
                unsafe { p.sums.store_vector(2 * row as usize, both, StoreHint::Cached) };
            }
        } else if works {
            let common = if layer { common * per_column } else { 0.0 };
            // SAFETY: as for the read; the columns are this thread's alone.
            unsafe {
                current.write::<T>(&p, team, row, begin, rstd, [common, along * per_column]);
            }
        }
        first += p.slabs * team.of_block;
    }
    if accumulates {
        // SAFETY: every thread of the block is here, and no other block has this slab and chunk.
        unsafe { columns.merge_block(&p, team, slab, begin) };
    }
}

impl<const L: usize, const V: usize> Row<L, V> {
    /// Reads a chunk of a row, adds to the columns' gradients, and gives the thread's Σĝ and Σĝ·û.
    ///
    /// # Safety
    /// `row` is a row, `chunk` a chunk of it.
    #[inline(always)]
    unsafe fn read<T: Float>(
        &mut self,
        p: &ActivationNormBackward,
        team: Team,
        row: u32,
        chunk: u32,
        rstd: f32,
        columns: Option<&Columns<L, V>>,
    ) -> [f32; 2] {
        let plan = &p.plan;
        let (input, grad_output): (In<T>, In<T>) = (p.input.cast(), p.grad_output.cast());
        let activation_last = plan.order == NormOrder::NormThenActivation as u32;
        let begin = row as usize * plan.vectors as usize;
        let share = team.share(plan, chunk);
        // SAFETY: `row < rows`.
        let mean = unsafe { p.mean.load(row as usize) };
        // All loads first: they are on their way together.
        let mut raw = [[Vector([T::zeroed(); L]); 2]; V];
        unroll!(v in V => {
            if let Some(vector) = share.vector(v) {
                // SAFETY: row and vector are inside both, and the vector is aligned.
                raw[v] = unsafe {
                    let at = (begin + vector) * L;
                    [
                        input.load_vector(at, LoadHint::Cached),
                        grad_output.load_vector(at, LoadHint::Cached),
                    ]
                };
            }
        });
        let (mut common, mut along) = (0.0, 0.0);
        unroll!(v in V => {
            if let Some(vector) = share.vector(v) {
                // SAFETY: γ and β have a value for each column, or are empty.
                let (gamma, beta) = unsafe {
                    let beta = if activation_last { p.beta } else { In::new(p.beta.as_ptr(), 0) };
                    (parameter::<L>(&p.gamma, vector * L, 1.0), parameter::<L>(&beta, vector * L, 0.0))
                };
                let [x, g] = raw[v].map(|values| values.map(T::to_f32).0);
                let mut u = x;
                unroll!(l in L => {
                    self.normal[v][l] = (x[l] - mean) * rstd;
                    if activation_last {
                        u[l] = math::fma(self.normal[v][l], gamma[l], beta[l]);
                    }
                });
                differentiate(Precision::of::<T>(), plan.activation, &mut u, &mut self.slope[v]);
                let mut of_affine = g;
                unroll!(l in L => {
                    if activation_last {
                        of_affine[l] *= self.slope[v][l];
                        self.slope[v][l] = 1.0;
                    } else {
                        self.normal[v][l] = (u[l] - mean) * rstd;
                    }
                    let normal = self.normal[v][l];
                    let grad = of_affine[l] * gamma[l];
                    self.grad[v][l] = grad;
                    common += grad;
                    along = math::fma(grad, normal, along);
                });
                if let Some(columns) = columns {
                    columns.add(v, &of_affine, &self.normal[v]);
                }
            }
        });
        [common, along]
    }

    /// Writes ∂x of the chunk that was read, from ⟨ĝ⟩ and ⟨ĝ·û⟩.
    ///
    /// # Safety
    /// As [`Self::read`], and the columns are this thread's alone.
    #[inline(always)]
    unsafe fn write<T: Float>(
        &self,
        p: &ActivationNormBackward,
        team: Team,
        row: u32,
        chunk: u32,
        rstd: f32,
        [common, along]: [f32; 2],
    ) {
        let output: Out<T> = p.grad_input.cast();
        let begin = row as usize * p.plan.vectors as usize;
        let share = team.share(&p.plan, chunk);
        unroll!(v in V => {
            if let Some(vector) = share.vector(v) {
                let mut grad = [0.0; L];
                unroll!(l in L => {
                    let centred = self.grad[v][l] - common;
                    let of_normalised = rstd * math::fma(-self.normal[v][l], along, centred);
                    grad[l] = of_normalised * self.slope[v][l];
                });
                let grad = Vector(grad).map(T::from_f32);
                // SAFETY: row and vector are inside, aligned, and this thread's.
                unsafe { output.store_vector((begin + vector) * L, grad, StoreHint::Cached) };
            }
        });
    }
}

impl<const L: usize, const V: usize> Columns<L, V> {
    /// Words that a thread moves at once.
    const WIDTH: usize = if L.is_multiple_of(4) { 4 } else { 1 };

    /// The place of lane `l` of vector `v` of a thread, for ∂γ (0) or ∂β (1): neighbouring threads have
    /// neighbouring places.
    #[inline(always)]
    fn place(gradient: usize, v: usize, l: usize, thread: usize) -> usize {
        let group = ((gradient * V + v) * L + l) / Self::WIDTH;
        (group * BLOCK + thread) * Self::WIDTH + l % Self::WIDTH
    }

    /// Sets the thread's words to 0.
    #[inline(always)]
    fn clear(&self) {
        const { assert!(V * L <= MOST_COLUMNS) };
        let mut place = thread::thread_idx_x() as usize * Self::WIDTH;
        while place < 2 * V * L * BLOCK {
            let mut word = 0;
            while word < Self::WIDTH {
                // SAFETY: inside the array, and by `place` this thread's own.
                unsafe { self.words.write(place + word, 0.0) };
                word += 1;
            }
            place += BLOCK * Self::WIDTH;
        }
    }

    /// Adds a row's g·û to ∂γ and g to ∂β of vector `v`.
    #[inline(always)]
    fn add(&self, v: usize, grad: &[f32; L], normal: &[f32; L]) {
        let t = thread::thread_idx_x() as usize;
        if L.is_multiple_of(4) {
            unroll!(q in 2 => {
                if q < L / 4 {
                    let (gamma, beta) =
                        (Self::place(0, v, 4 * q, t), Self::place(1, v, 4 * q, t));
                    // SAFETY: four words of this thread's own, which it has cleared.
                    unsafe {
                        let mut sums = self.words.read_vector::<4>(gamma);
                        unroll!(l in 4 => {
                            let (grad, normal) = (grad[4 * q + l], normal[4 * q + l]);
                            sums.0[l] = math::fma(grad, normal, sums.0[l]);
                        });
                        self.words.write_vector(gamma, sums);
                        let mut sums = self.words.read_vector::<4>(beta);
                        unroll!(l in 4 => { sums.0[l] += grad[4 * q + l]; });
                        self.words.write_vector(beta, sums);
                    }
                }
            });
        } else {
            unroll!(l in L => {
                let (gamma, beta) = (Self::place(0, v, l, t), Self::place(1, v, l, t));
                // SAFETY: words of this thread's own, which it has cleared.
                unsafe {
                    self.words.write(gamma, math::fma(grad[l], normal[l], self.words.read(gamma)));
                    self.words.write(beta, grad[l] + self.words.read(beta));
                }
            });
        }
    }

    /// Adds up the block's teams, in their order, and leaves ∂γ and ∂β of its rows in the slab's
    /// partials.
    ///
    /// # Safety
    /// Every thread of the block calls it; the slab's columns of this chunk are this block's alone.
    #[inline(always)]
    unsafe fn merge_block(&self, p: &ActivationNormBackward, team: Team, slab: u32, chunk: u32) {
        // Orders every thread's last row before other threads read its words.
        thread::sync_threads();
        let plan = &p.plan;
        let (team_size, vectors) = (team.threads as usize, plan.vectors as usize);
        let shift = team.threads.trailing_zeros();
        let cols = vectors * L;
        let begin = chunk as usize * team_size * plan.depth as usize;
        let mut output = thread::thread_idx_x() as usize;
        while output < 2 * V * L * team_size {
            // The words of one member of each team, member by member.
            let (slot, member) = (output >> shift, output & (team_size - 1));
            let (lane, v, gradient) = (slot % L, slot / L % V, slot / (L * V));
            let vector = begin + member + v * team_size;
            if v < plan.depth as usize && vector < vectors {
                let mut total = 0.0;
                let mut other = member;
                while other < BLOCK {
                    // SAFETY: that thread cleared and added to the word before the barrier.
                    total += unsafe { self.words.read(Self::place(gradient, v, lane, other)) };
                    other += team_size;
                }
                let place = (2 * slab as usize + gradient) * cols + vector * L + lane;
                // SAFETY: slab, gradient and column are inside the partials, and this output's alone.
                unsafe { p.partials.store(place, total) };
            }
            output += BLOCK;
        }
    }
}

/// Columns of a block of the merge.
const MERGE_COLUMNS: usize = NORM_MERGE_COLUMNS as usize;
/// Threads that share a column.
const MERGE_ROWS: usize = BLOCK / MERGE_COLUMNS;

/// Adds the slabs' ∂γ and ∂β: a thread every eighth slab of a column, then the eight in order.
///
/// # Safety
/// As [`NormGradientMerge`] says; the grid has a block for each 32 of the `2 · cols` columns.
#[kernel(block = NORM_BLOCK_THREADS)]
pub unsafe fn activation_norm_backward_merge_f32(p: NormGradientMerge) {
    let sums = shared_array![f32; BLOCK];
    let t = thread::thread_idx_x() as usize;
    let (lane, part) = (t % MERGE_COLUMNS, t / MERGE_COLUMNS);
    let (cols, slabs) = (p.cols as usize, p.slabs as usize);
    let column = thread::block_idx_x() as usize * MERGE_COLUMNS + lane;
    let mut total = 0.0;
    if column < 2 * cols {
        let mut slab = part;
        // Four at a time: their loads are on their way together.
        while slab + 3 * MERGE_ROWS < slabs {
            let mut four = [0.0; 4];
            unroll!(i in 4 => {
                let place = (slab + i * MERGE_ROWS) * 2 * cols + column;
                // SAFETY: slab and column are inside the partials.
                four[i] = unsafe { p.partials.load(place) };
            });
            unroll!(i in 4 => { total += four[i]; });
            slab += 4 * MERGE_ROWS;
        }
        while slab < slabs {
            // SAFETY: as above.
            total += unsafe { p.partials.load(slab * 2 * cols + column) };
            slab += MERGE_ROWS;
        }
    }
    // SAFETY: a word of this thread's own.
    unsafe { sums.write(t, total) };
    // Orders the eight sums of a column before their reader.
    thread::sync_threads();
    if part == 0 && column < 2 * cols {
        let mut total = 0.0;
        unroll!(i in MERGE_ROWS => {
            // SAFETY: every thread wrote its word before the barrier.
            total += unsafe { sums.read(i * MERGE_COLUMNS + lane) };
        });
        let (target, place) =
            if column < cols { (p.grad_gamma, column) } else { (p.grad_beta, column - cols) };
        if !target.is_empty() {
            // SAFETY: the target has `cols` elements, and one thread writes each.
            unsafe { target.store(place, total) };
        }
    }
}

macro_rules! instance {
    ($entry:ident, $element:ty, $dtype:ident, $lanes:literal, $vectors:literal
     $(, $spills:ident)?) => {
        /// The gradients for one element type and access width.
        ///
        /// # Safety
        /// As [`ActivationNormBackward`] says, with columns that are a multiple of the instance's lanes.
        #[kernel(block = NORM_BLOCK_THREADS, min_blocks = NORM_BACKWARD_MIN_BLOCKS $(, $spills)?)]
        pub unsafe fn $entry(p: ActivationNormBackward) {
            // SAFETY: the entry's contract.
            unsafe { activation_norm_backward::<$element, $lanes, $vectors>(p) }
        }
    };
}

kasmina_types::activation_norm_backward_tiles!(instance);

//! From sums to results, for every variant of the product: Z = s·sum + bias + β·C, D = act(Z) + R.
//!
//! A block stages its tile in shared memory, so that results leave in whole vectors whatever registers the sums came
//! from. Where blocks share the k of a tile, each leaves its sums in memory, and the last to arrive adds them in the
//! order of the parts.

use kasmina_device::global::{Load, Store};
use kasmina_device::shared::DynamicShared;
use kasmina_device::vector::{LoadHint, StoreHint, Vector};
use kasmina_device::{grid, thread, unroll};
use kasmina_types::{Activation, LinearOutput, LinearParams, Out, Scaling};

use super::accumulator::Accumulator;
#[cfg(any(not(target_arch = "nvptx64"), target_feature = "sm_90a"))]
use super::gelu::takes_halves;
use super::place::Place;

/// What is the same for all elements of a tile. `APPROXIMATE`: activations are as good as 16-bit results need them, to
/// 2e-5, whatever the results are, and the GELU of 16 bits to 2⁻¹¹ of |z|: for products whose own rounding is as much.
#[derive(Clone, Copy)]
pub(crate) struct Epilogue<A, const APPROXIMATE: bool> {
    /// α, and the operands' scales where they have one each.
    scale: A,
    beta: A,
    /// Whether every vector of every operand is aligned.
    aligned: bool,
}

impl<A: Accumulator, const APPROXIMATE: bool> Epilogue<A, APPROXIMATE> {
    /// Of vectors of `lanes` elements.
    ///
    /// # Safety
    /// `p` is as [`LinearParams`] says.
    #[inline(always)]
    pub(crate) unsafe fn new(p: &LinearParams, place: &Place, lanes: usize) -> Self {
        let mut scale = p.alpha;
        if p.scaling == Scaling::Tensor as u32 {
            // SAFETY: under this scaling each operand has one scale.
            scale *= unsafe { f64::from(p.a_scale.load(0)) * f64::from(p.b_scale.load(0)) };
        }
        let at = &place.problem;
        // What is not there is aligned: its offset and distance are 0.
        let distances = at.ldd | at.ldc | at.ldr | at.ldz;
        let offsets = at.d | at.c | at.residual | at.z | at.bias;
        let aligned = (u64::from(distances) | offsets).is_multiple_of(lanes as u64);
        Self { scale: A::of(scale), beta: A::of(p.beta), aligned }
    }

    /// What sums are multiplied by.
    #[cfg(any(not(target_arch = "nvptx64"), target_feature = "sm_90a"))]
    #[inline(always)]
    pub(crate) fn scale(&self) -> A {
        self.scale
    }

    /// How many of `L` columns from `column` on are inside, and whether they are whole aligned vectors.
    #[inline(always)]
    fn extent<const L: usize>(&self, place: &Place, column: usize) -> (usize, bool) {
        let left = place.problem.n as usize - column;
        (if left < L { left } else { L }, self.aligned && left >= L)
    }

    /// The bias of `L` neighbouring columns, for [`Self::finish`]; zeros where there is none.
    ///
    /// # Safety
    /// The first column is inside D, and a multiple of `L`, which [`Self::new`] was told.
    #[inline(always)]
    pub(crate) unsafe fn bias<const L: usize>(
        &self,
        p: &LinearParams,
        place: &Place,
        column: usize,
    ) -> [A; L] {
        if p.bias.is_empty() {
            return [A::of(0.0); L];
        }
        let (count, whole) = self.extent::<L>(place, column);
        let from = place.problem.bias as usize + column;
        // SAFETY: the `count` columns from `column` on are inside, and vectors aligned where `whole`.
        unsafe { A::load::<L>(&p.bias, p.output, from, count, whole) }
    }

    /// Makes the results of `L` neighbouring columns of a row of their sums, as far as they are inside.
    ///
    /// # Safety
    /// The row and the first column are inside D; the elements are this thread's alone; `column` is a multiple of `L`,
    /// which [`Self::new`] was told.
    #[inline(always)]
    pub(crate) unsafe fn finish<const L: usize>(
        &self,
        p: &LinearParams,
        place: &Place,
        (row, column): (usize, usize),
        bias: [A; L],
        sums: [A; L],
    ) {
        let at = &place.problem;
        let (count, whole) = self.extent::<L>(place, column);
        let index = |offset: u64, ld: u32| offset as usize + row * ld as usize + column;
        let mut z = sums.map(|sum| A::mul(self.scale, sum));
        if !p.bias.is_empty() {
            unroll!(l in L, at most 4 => { z[l] = A::add(z[l], bias[l]); });
        }
        if !p.c.is_empty() {
            // SAFETY: the row and the `count` columns from `column` on are inside, and vectors aligned where `whole`.
            let c = unsafe { A::load::<L>(&p.c, p.output, index(at.c, at.ldc), count, whole) };
            unroll!(l in L, at most 4 => { z[l] = A::fma(self.beta, c[l], z[l]); });
        }
        if !p.z.is_empty() {
            // SAFETY: as C; the elements are this thread's.
            unsafe { A::store(&p.z, p.output, index(at.z, at.ldz), z, count, whole) };
        }
        if p.activation != Activation::None as u32 {
            activate::<A, APPROXIMATE, L>(p, &mut z);
        }
        if !p.residual.is_empty() {
            // SAFETY: as C.
            let residual = unsafe {
                A::load::<L>(&p.residual, p.output, index(at.residual, at.ldr), count, whole)
            };
            unroll!(l in L, at most 4 => { z[l] = A::add(z[l], residual[l]); });
        }
        // SAFETY: as Z.
        unsafe { A::store(&p.d, p.output, index(at.d, at.ldd), z, count, whole) };
    }
}

#[inline(always)]
fn activate<A: Accumulator, const APPROXIMATE: bool, const L: usize>(
    p: &LinearParams,
    z: &mut [A; L],
) {
    // What has no `APPROXIMATE` instance has no such GELU.
    #[cfg(any(not(target_arch = "nvptx64"), target_feature = "sm_90a"))]
    if APPROXIMATE && takes_halves(p.activation, p.output) {
        unroll!(l in L, at most 4 => { z[l] = A::mul(A::of(0.5), z[l]); });
        A::gelu_of_halves(p.activation, z);
        return;
    }
    let short = p.output == LinearOutput::Bf16 as u32 || p.output == LinearOutput::F16 as u32;
    if APPROXIMATE || short {
        A::activate(true, p.activation, z);
    } else {
        A::activate(false, p.activation, z);
    }
}

/// Makes the results of a tile, or of the block's part of it, of `bands` bands of `ROWS` rows each. `stage` is called for
/// one band after another, by every thread, and puts its sums into `staged`, `[ROWS, PITCH]`.
///
/// # Safety
/// Every thread of the block calls it, from the same place, with `p` and `place` the same; `stage` writes all of a band's
/// `COLUMNS` columns; `staged` has room for a band, and no copy is under way to it.
#[inline(always)]
pub(crate) unsafe fn finish_tile<
    A: Accumulator,
    const L: usize,
    const ROWS: usize,
    const COLUMNS: usize,
    const PITCH: usize,
    const THREADS: usize,
>(
    p: &LinearParams,
    place: &Place,
    bands: usize,
    staged: &DynamicShared<A>,
    stage: impl Fn(usize),
) {
    // SAFETY: the caller's contract.
    let epilogue = unsafe { Epilogue::<A, false>::new(p, place, L) };
    let thread = thread::thread_idx_x() as usize;
    let vectors = ROWS * COLUMNS / L;
    let partials: Out<A> = p.partials.cast();
    let (m, n, parts) = (place.problem.m as usize, place.problem.n as usize, p.parts as usize);
    let tile_size = bands * ROWS * COLUMNS;
    let mut band = 0;
    while band < bands {
        // Orders all reads of what the band's place held before.
        thread::sync_threads();
        stage(band);
        // Orders the staged sums before their reads.
        thread::sync_threads();
        let mut vector = thread;
        while vector < vectors {
            let (r, c) = (vector / (COLUMNS / L), vector % (COLUMNS / L) * L);
            // SAFETY: inside the band, written before the barrier.
            let sums = unsafe { staged.read_vector::<L>(r * PITCH + c) };
            let (row, column) = (place.row + band * ROWS + r, place.column + c);
            if parts > 1 {
                let at =
                    (place.tile * parts + place.part) * tile_size + (band * ROWS + r) * COLUMNS + c;
                // SAFETY: a vector of the part's own place; tiles are whole vectors.
                unsafe { partials.store_vector(at, sums, StoreHint::Cached) };
            } else if row < m && column < n {
                // SAFETY: inside D; each vector is one thread's.
                unsafe {
                    let bias = epilogue.bias(p, place, column);
                    epilogue.finish(p, place, (row, column), bias, sums.0);
                }
            }
            vector += THREADS;
        }
        band += 1;
    }
    // SAFETY: every thread is here, once for each part of the tile.
    if parts > 1 && unsafe { grid::arrive_is_last(&p.arrivals, place.tile, p.parts) } {
        let mut vector = thread;
        while vector < bands * vectors {
            let (r, c) = (vector / (COLUMNS / L), vector % (COLUMNS / L) * L);
            let (row, column) = (place.row + r, place.column + c);
            if row < m && column < n {
                let mut sums = [A::ZERO; L];
                let mut part = 0;
                while part < parts {
                    let at = (place.tile * parts + part) * tile_size + r * COLUMNS + c;
                    // SAFETY: all parts were stored before their blocks arrived.
                    let Vector(more) = unsafe { partials.load_vector::<L>(at, LoadHint::Cached) };
                    unroll!(l in L, at most 4 => { sums[l] = A::add(sums[l], more[l]); });
                    part += 1;
                }
                // SAFETY: inside D; each vector is one thread's of this block.
                unsafe {
                    let bias = epilogue.bias(p, place, column);
                    epilogue.finish(p, place, (row, column), bias, sums);
                }
            }
            vector += THREADS;
        }
    }
}

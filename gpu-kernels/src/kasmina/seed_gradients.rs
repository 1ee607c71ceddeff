//! What one seed adds to its blueprint's gradients, its ∂α and its statistics.

use kasmina_device::global::{Load, Store};
use kasmina_device::vector::{LoadHint, StoreHint, Vector};
use kasmina_device::{math, unroll};
use kasmina_types::blend_backward::EXTRA_SUMS;
use kasmina_types::blueprint::CONV_TAPS;
use kasmina_types::{BlueprintType, Out, ParameterGradients, SeedLifecycle};

use super::seed_finish::{self, Finishing, Folds, Vectors};
use super::seed_teams::{RowSums, Teams};

/// A blueprint, and what a thread keeps of it for all of its seeds. `WIDE` is whether chunks are wider than the
/// block's threads have vectors; else none has more than one.
pub(crate) struct Blueprint<const W: usize, const WIDE: bool> {
    teams: Teams,
    kind: BlueprintType,
    scale: f32,
    pub(crate) offset: usize,
    /// ln Σ eʷ of an ATTENTION_HEAD.
    log_partition: f32,
    /// What A is multiplied with in the thread's first vector.
    factor: [f32; W],
}

impl<const W: usize, const WIDE: bool> Blueprint<W, WIDE> {
    /// # Safety
    /// Every thread of the block calls it; the id is a blueprint's.
    #[inline(always)]
    pub(crate) unsafe fn of(p: &ParameterGradients, id: u32, teams: Teams) -> Option<Self> {
        let id = id as usize;
        // SAFETY: the caller's contract.
        let (kind, scale, offset) = unsafe {
            (
                p.layer.blueprint_type.load(id),
                p.layer.blueprint_scale.load(id),
                p.layer.blueprint_offset.load(id) as usize,
            )
        };
        let kind = BlueprintType::from_u8(kind)?;
        let mut blueprint =
            Self { teams, kind, scale, offset, log_partition: 0.0, factor: [0.0; W] };
        if matches!(kind, BlueprintType::AttentionHead) {
            // SAFETY: the whole block sees the same type.
            blueprint.log_partition = unsafe { blueprint.log_partition(p) };
        }
        let (start, _) = blueprint.columns();
        if start < p.chunk_size as usize {
            // SAFETY: the column is inside the chunk.
            unroll!(l in W => { blueprint.factor[l] = unsafe { blueprint.factor_of(p, start + l) }; });
        }
        Some(blueprint)
    }

    /// The thread's first column, and how far its vectors are apart.
    #[inline(always)]
    pub(crate) fn columns(&self) -> (usize, usize) {
        (self.teams.member() as usize * W, self.teams.size() as usize * W)
    }

    /// # Safety
    /// `i < p.chunk_size`, and below the taps of a CONV_FILTER.
    #[inline(always)]
    unsafe fn weight(&self, p: &ParameterGradients, i: usize) -> f32 {
        // SAFETY: the caller's contract.
        unsafe { p.layer.weights.load(self.offset + i) }
    }

    /// What A is multiplied with: w, or the softmax's share.
    ///
    /// # Safety
    /// `i < p.chunk_size`.
    #[inline(always)]
    unsafe fn factor_of(&self, p: &ParameterGradients, i: usize) -> f32 {
        // SAFETY: the caller's contract.
        unsafe {
            match self.kind {
                BlueprintType::AttentionHead => math::exp(self.weight(p, i) - self.log_partition),
                BlueprintType::ConvFilter => 0.0,
                _ => self.weight(p, i),
            }
        }
    }

    /// # Safety
    /// Every thread of the block calls it.
    #[inline(always)]
    unsafe fn log_partition(&self, p: &ParameterGradients) -> f32 {
        let (start, step) = self.columns();
        let chunk = p.chunk_size as usize;
        let mut largest = f32::NEG_INFINITY;
        let mut i = start;
        while i < chunk {
            // SAFETY: the column is inside the chunk.
            unroll!(l in W => { largest = math::max(largest, unsafe { self.weight(p, i + l) }); });
            if !WIDE {
                break;
            }
            i += step;
        }
        // SAFETY: every thread of the block is here.
        let [largest] = unsafe { self.teams.fold([largest], |_, a, b| math::max(a, b)) };
        let mut sum = 0.0;
        let mut i = start;
        while i < chunk {
            // SAFETY: as above.
            unroll!(l in W => { sum += math::exp(unsafe { self.weight(p, i + l) } - largest); });
            if !WIDE {
                break;
            }
            i += step;
        }
        // SAFETY: as above.
        let [sum] = unsafe { self.teams.add_up([sum]) };
        largest + math::log(sum)
    }
}

/// Finishes a seed: its ∂α and statistics. Returns what it adds to the blueprint's gradients, in the columns of
/// the thread's first vector, and hands `rest` those of the others. ∂s is the extra.
///
/// # Safety
/// Every thread of the block calls it, the threads of neighbouring `shares` teams with the same seed.
#[inline(always)]
pub(crate) unsafe fn finish_seed<const W: usize, const WIDE: bool>(
    p: &ParameterGradients,
    blueprint: &Blueprint<W, WIDE>,
    seed: Option<u32>,
    rest: impl FnMut(usize, &[f32; W]),
) -> RowSums<W, 1> {
    let Blueprint { teams, kind, scale, .. } = *blueprint;
    let chunk = p.chunk_size as usize;
    let (start, step) = blueprint.columns();

    // The seed's sums over the slabs, in the thread's columns.
    let mut own = RowSums::<W, CONV_TAPS>::ZERO;
    let mut role = (false, 0.0);
    if let Some(seed) = seed {
        let seed = seed as usize;
        // SAFETY: the sums of a seed that trains are all there, and this block's alone.
        unsafe {
            let (state, alpha) = (p.layer.lifecycle.load(seed), p.layer.alpha.load(seed));
            let active = SeedLifecycle::from_u8(state).is_some_and(SeedLifecycle::is_active);
            let clipped = math::min(math::max(alpha, 0.0), 1.0);
            // A TRAINING blueprint sees T itself.
            role = (active, if active { clipped } else { 1.0 });
            own = sum_slabs(p, blueprint, seed);
        }
    }
    // SAFETY: every thread of the block is here.
    let own = unsafe { teams.add_rows(own, teams.shares()) };
    // The first of the teams goes on with the seed; the others go through the same folds with no columns.
    let seed = if teams.row() & (teams.shares() - 1) == 0 { seed } else { None };
    let (active, blend) = role;
    let index = seed.unwrap_or(0) as usize;
    let what = Finishing { kind, scale, blend, active };
    let end = if seed.is_some() { chunk } else { 0 };
    let vectors = Vectors { start, step, end, chunk };
    // A in the columns from `i` on, and what it is multiplied with.
    let totals = |i: usize| {
        if !WIDE || i == start {
            return (own.columns, blueprint.factor);
        }
        let mut factor = [0.0; W];
        // SAFETY: this thread left the totals in the first slab's place.
        let total = unsafe { p.sums.columns.load_vector::<W>(index * chunk + i, LoadHint::Cached) };
        // SAFETY: the column is inside the chunk.
        unroll!(l in W => { factor[l] = unsafe { blueprint.factor_of(p, i + l) }; });
        (total.0, factor)
    };
    let extras = if seed.is_some() { own.extras } else { [0.0; CONV_TAPS] };
    // SAFETY: every thread of the block is here, and all of them see the same kind. The taps are weights.
    unsafe {
        let weight = |j: usize| blueprint.weight(p, j);
        seed_finish::finish::<_, W, WIDE>(
            teams,
            &p.gradients,
            index,
            what,
            vectors,
            totals,
            extras,
            weight,
            rest,
        )
    }
}

/// A seed's sums over the team's share of the slabs, in the thread's first vector of columns; those of its other
/// vectors, of which there are none where teams share, take the first slab's place. The extras are summed over
/// all of the thread's vectors, where the blueprint needs them.
///
/// # Safety
/// The slabs' sums are there, and this thread's alone from now on.
#[inline(always)]
unsafe fn sum_slabs<const W: usize, const WIDE: bool>(
    p: &ParameterGradients,
    blueprint: &Blueprint<W, WIDE>,
    seed: usize,
) -> RowSums<W, CONV_TAPS> {
    let teams = blueprint.teams;
    let (chunk, vectors) = (p.chunk_size as usize, p.chunk_vectors as usize);
    let (start, step) = blueprint.columns();
    let share = teams.row() & (teams.shares() - 1);
    // Slabs `share`, `share + shares` and so on.
    let slabs = (p.slabs + teams.shares() - 1 - share) >> teams.share_shift;
    let (share, shares) = (share as usize, teams.shares() as usize);
    let mut sums = RowSums::<W, CONV_TAPS>::ZERO;
    // SAFETY: the caller's contract; slabs are a multiple of `W` apart.
    unsafe {
        let stride = p.num_seeds as usize * chunk;
        let mut i = start;
        while i < chunk {
            let first = share * stride + seed * chunk + i;
            let total = sum_rows::<W>(&p.sums.columns, first, shares * stride, slabs);
            if !WIDE || i == start {
                sums.columns = total.0;
            } else {
                p.sums.columns.store_vector(seed * chunk + i, total, StoreHint::Cached);
            }
            if !WIDE {
                break;
            }
            i += step;
        }
        if matches!(blueprint.kind, BlueprintType::MlpExpansion | BlueprintType::ConvFilter) {
            let stride = p.num_seeds as usize * vectors * EXTRA_SUMS;
            let mut v = teams.member() as usize;
            while v < vectors {
                let first = share * stride + (seed * vectors + v) * EXTRA_SUMS;
                let total = sum_rows::<EXTRA_SUMS>(&p.sums.extras, first, shares * stride, slabs);
                unroll!(j in CONV_TAPS => { sums.extras[j] += total.0[j]; });
                v += teams.size() as usize;
            }
        }
    }
    sums
}

/// The sum of the vectors at `first`, `first + stride` and so on, four loads on their way at a time.
///
/// # Safety
/// The `rows` vectors are inside the buffer.
#[inline(always)]
pub(crate) unsafe fn sum_rows<const N: usize>(
    from: &Out<f32>,
    first: usize,
    stride: usize,
    rows: u32,
) -> Vector<f32, N> {
    let mut total = [0.0; N];
    let mut row = 0;
    while row < rows {
        let mut group = [Vector([0.0; N]); 4];
        unroll!(k in 4 => {
            if row + (k as u32) < rows {
                // SAFETY: the row is one.
                group[k] = unsafe {
                    from.load_vector(first + (row as usize + k) * stride, LoadHint::Cached)
                };
            }
        });
        unroll!(k in 4 => {
            unroll!(l in N => { total[l] += group[k].0[l]; });
        });
        row += 4;
    }
    Vector(total)
}

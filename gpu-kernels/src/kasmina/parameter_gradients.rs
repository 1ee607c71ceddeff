//! The gradients of each seed's own parameters, from the sums of the threads that saw it.
//!
//! With A the columns' sums and E the extras (see [`super::slopes::Sums`]), a = clip(α), 1 in TRAINING:
//!
//! | type | ∂w | ∂s | ∂α, for 0 < α < 1 |
//! |---|---|---|---|
//! | RESIDUAL_BLOCK | a·s·A | a·Σ A·w | Σ A·s·w |
//! | ATTENTION_HEAD, p = softmax(w) | p·a·(A − Σ p·A) | 0 | Σ A·(p − 1) |
//! | MLP_EXPANSION | a·s·A | a·Σ A·w | Σ A·s·w − E₀ |
//! | CONV_FILTER | wⱼ: a·s·Eⱼ | a·Σ Eⱼ·wⱼ | s·Σ Eⱼ·wⱼ − E₀ |
//! | SCALE | a·s·A | a·Σ A·w | Σ A·(s·w − 1) |

use bytemuck::{Pod, Zeroable};
use kasmina_device::global::{Load, Store};
use kasmina_device::reduce::warp_fold_width;
use kasmina_device::shared::Shared;
use kasmina_device::vector::{LoadHint, StoreHint, Vector};
use kasmina_device::{math, thread, unroll, warp};
use kasmina_types::blend_backward::EXTRA_SUMS;
use kasmina_types::blueprint::CONV_TAPS;
use kasmina_types::{BlendBackward, BlueprintType, Out, SeedLifecycle};

use super::blueprint_gradients::{Place, place_in_blueprint};
use super::coefficients::log_partition;
use super::slopes::{Role, Sums};
use super::strip::{BLOCK, Strip, WARPS};

/// Words of shared memory for each thread's sums: the widest vector's and the extras.
pub(crate) const SUM_WORDS: usize = 8 + CONV_TAPS;

/// Each thread's sums, later each seed's [`Place`].
pub(crate) type Scratch = Shared<u32, { BLOCK * SUM_WORDS }>;

/// Folds the rows that a block covers side by side and leaves the slab's sums in memory, for the seeds
/// that train. `place` is the thread's first column in the row.
///
/// # Safety
/// Every thread of the block calls it, after a barrier; `role` is `None` for a thread that has no columns.
#[inline(always)]
pub(crate) unsafe fn leave<const L: usize, const W: usize>(
    p: &BlendBackward,
    slab: u32,
    lane_row: u32,
    role: Option<Role>,
    place: u32,
    sums: Sums<L>,
    shared: &Scratch,
) {
    let g = &p.geometry;
    let mut sums = sums;
    if g.row_lanes > 1 {
        let words = L + CONV_TAPS;
        let t = thread::thread_idx_x() as usize;
        unroll!(l in L => {
            // SAFETY: each thread has its own words.
            unsafe { shared.write(t * words + l, sums.columns[l].to_bits()) };
        });
        unroll!(j in CONV_TAPS => {
            // SAFETY: as above.
            unsafe { shared.write(t * words + L + j, sums.extras[j].to_bits()) };
        });
        // Orders the sums of all rows before the thread of the first one adds them.
        thread::sync_threads();
        if lane_row == 0 && role.is_some_and(|role| role.trains) {
            let mut row = 1;
            while row < g.row_lanes {
                let other = (t + (row * g.strip_vectors) as usize) * words;
                let mut lane = Sums::<L>::ZERO;
                // SAFETY: that thread has the same columns, and wrote before the barrier.
                unsafe {
                    unroll!(l in L => {
                        lane.columns[l] = f32::from_bits(shared.read(other + l));
                    });
                    unroll!(j in CONV_TAPS => {
                        lane.extras[j] = f32::from_bits(shared.read(other + L + j));
                    });
                }
                sums.add(&lane);
                row += 1;
            }
        }
    }
    let Some(role) = role else { return };
    if lane_row != 0 || !role.trains {
        return;
    }
    let hidden = p.num_seeds as usize * p.chunk_size as usize;
    let first = slab as usize * hidden + place as usize;
    // SAFETY: the slab's columns are this thread's alone; they are a multiple of `L` elements in.
    unsafe {
        unroll!(v in 2 => {
            if v * W < L {
                let mut part = Vector([0.0; W]);
                unroll!(l in W => { part.0[l] = sums.columns[(v * W + l) % L]; });
                p.scratch.columns.store_vector(first + v * W, part, StoreHint::Cached);
            }
        });
        if role.needs_extras() {
            let [a, b, c] = sums.extras;
            let at = first / L * EXTRA_SUMS;
            p.scratch.extras.store_vector(at, Vector([a, b, c, 0.0]), StoreHint::Cached);
        }
    }
}

/// Finishes the seeds of a group whose parts are all there: ∂α and the statistics, and what each adds to
/// its blueprint. Leaves each seed's [`Place`] in `shared`.
///
/// # Safety
/// Every thread of the block that arrived last calls it.
#[inline(always)]
pub(crate) unsafe fn finish<const L: usize, const W: usize>(
    p: &BlendBackward,
    strip: &Strip,
    shared: &Scratch,
) {
    // What each seed needs of its whole blueprint, a warp a seed.
    let mut s = thread::warp_idx();
    while s < strip.seeds {
        let seed = strip.first_seed + s;
        let mut place = Place::NONE;
        // SAFETY: the strip's seeds are seeds; all lanes of the warp are here.
        unsafe {
            if let Some(role) = Role::of(p, seed as usize)
                && role.trains
            {
                place = place_in_blueprint(p, seed);
                if role.blueprint.attends() {
                    let count = p.chunk_size as usize;
                    place.log_partition =
                        log_partition(&p.layer.weights, role.blueprint.offset, count);
                }
            }
            if thread::lane_idx() == 0 {
                place.write(shared, s);
            }
        }
        s += WARPS as u32;
    }
    // Orders the places before the teams that read them.
    thread::sync_threads();

    // A team of threads takes a seed: the block where there is one large one, else the lanes that it has
    // vectors for, a power of two: a shift, as a division would bring a panic into the kernel.
    let vectors = p.chunk_size / W as u32;
    let shift = if strip.seeds == 1 && vectors > warp::WARP_SIZE {
        BLOCK.trailing_zeros()
    } else {
        32 - (vectors.clamp(1, warp::WARP_SIZE) - 1).leading_zeros()
    };
    let t = thread::thread_idx_x();
    let team = Team { size: 1 << shift, member: t & ((1 << shift) - 1) };
    let mut first = 0;
    while first < strip.seeds {
        let s = first + (t >> shift);
        // SAFETY: every thread is here, each team with its own seed or past the last.
        unsafe { finish_seed::<L, W>(p, strip, s, team, shared) };
        first += BLOCK as u32 >> shift;
    }
}

/// The threads that finish a seed together.
#[derive(Clone, Copy)]
struct Team {
    /// A power of two up to a warp, or the block.
    size: u32,
    member: u32,
}

impl Team {
    /// Folds the members' values in a fixed order; every member gets the result.
    ///
    /// # Safety
    /// Every thread of the block calls it.
    #[inline(always)]
    unsafe fn fold<V: Pod>(self, value: V, combine: impl Fn(V, V) -> V) -> V {
        const {
            assert!(size_of::<V>() <= 4 * FOLD_WORDS);
        }
        let folded = warp_fold_width(value, self.size.min(warp::WARP_SIZE), &combine);
        if self.size <= warp::WARP_SIZE {
            return folded;
        }
        let words = size_of::<V>() / 4;
        let of_warps = kasmina_device::shared_array![u32; WARPS * FOLD_WORDS];
        // SAFETY: one lane a warp writes its own words; the barriers order these writes before the reads
        // and the reads before the next fold's writes.
        unsafe {
            if thread::lane_idx() == 0 {
                of_warps.write_words(thread::warp_idx() as usize * words, folded);
            }
            thread::sync_threads();
            let mut total: V = of_warps.read_words(0);
            let mut w = 1;
            while w < WARPS {
                total = combine(total, of_warps.read_words(w * words));
                w += 1;
            }
            thread::sync_threads();
            total
        }
    }
}

/// Words of the widest value that a team folds.
const FOLD_WORDS: usize = 5;

/// Sums over a seed's columns.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct SeedSums {
    /// Σ A·w, for an ATTENTION_HEAD Σ A·p.
    weighted: f32,
    /// Σ A times what ∂α has for it.
    alpha: f32,
    extras: [f32; CONV_TAPS],
}

/// Sum and largest magnitude of a seed's ∂w; after that, sums of squares.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Spread {
    first: f32,
    second: f32,
}

/// # Safety
/// Every thread of the block calls it; the members of a team with the same `s`.
#[inline(always)]
unsafe fn finish_seed<const L: usize, const W: usize>(
    p: &BlendBackward,
    strip: &Strip,
    s: u32,
    team: Team,
    shared: &Scratch,
) {
    let seed = (strip.first_seed + s) as usize;
    let chunk = p.chunk_size as usize;
    let (start, step) = (team.member as usize * W, team.size as usize * W);
    // SAFETY: the strip's seeds are seeds; their places were written before a barrier.
    let (role, place) = unsafe {
        let role = if s < strip.seeds { Role::of(p, seed) } else { None };
        let role = role.filter(|role| role.trains);
        (role, if role.is_some() { Place::read(shared, s) } else { Place::NONE })
    };
    // A team without a seed that trains goes through the same folds, with no columns.
    let columns = if role.is_some() { chunk } else { 0 };
    let nothing = Role::NOTHING;
    let Role { blueprint, active, .. } = role.unwrap_or(nothing);
    let (kind, a, scale) = (blueprint.kind, blueprint.blend, blueprint.scale);
    let convolves = matches!(kind, BlueprintType::ConvFilter);
    // SAFETY: `i` is below the chunk's size, a CONV_FILTER's below its taps.
    let weight = |i: usize| unsafe { p.layer.weights.load(blueprint.offset + i) };
    // What A is multiplied with: w, or the softmax's share.
    let factor = |i: usize| match kind {
        BlueprintType::AttentionHead => math::exp(weight(i) - place.log_partition),
        BlueprintType::ConvFilter => 0.0,
        _ => weight(i),
    };

    let mut sums = SeedSums::zeroed();
    let mut i = start;
    while i < columns {
        // SAFETY: the parts were stored before their blocks arrived; the place is this thread's now.
        let total = unsafe { total_columns::<W>(p, seed * chunk + i) };
        unroll!(l in W => {
            let factor = factor(i + l);
            sums.weighted = math::fma(factor, total.0[l], sums.weighted);
            let alpha = match kind {
                BlueprintType::AttentionHead => factor - 1.0,
                BlueprintType::Scale => math::fma(scale, factor, -1.0),
                _ => scale * factor,
            };
            sums.alpha = math::fma(alpha, total.0[l], sums.alpha);
        });
        i += step;
    }
    if role.is_some_and(|role| role.needs_extras()) {
        let mut v = team.member as usize;
        while v < chunk / L {
            // SAFETY: as above.
            let extras = unsafe { total_extras::<L>(p, seed * chunk / L + v) };
            unroll!(j in CONV_TAPS => { sums.extras[j] += extras.0[j]; });
            v += team.size as usize;
        }
    }
    // SAFETY: every thread of the block is here.
    let sums = unsafe {
        team.fold(sums, |x, y| SeedSums {
            weighted: x.weighted + y.weighted,
            alpha: x.alpha + y.alpha,
            extras: [
                x.extras[0] + y.extras[0],
                x.extras[1] + y.extras[1],
                x.extras[2] + y.extras[2],
            ],
        })
    };

    let gain = a * scale;
    let at = place.slot as usize * chunk;
    let mut spread = Spread::zeroed();
    let mut i = start;
    while i < columns {
        let mut gradient = Vector([0.0; W]);
        // SAFETY: this thread stored the totals.
        let total =
            unsafe { p.scratch.columns.load_vector::<W>(seed * chunk + i, LoadHint::Cached) };
        unroll!(l in W => {
            let value = match kind {
                BlueprintType::AttentionHead => factor(i + l) * a * (total.0[l] - sums.weighted),
                BlueprintType::ConvFilter => gain * tap(&sums.extras, i + l),
                _ => gain * total.0[l],
            };
            gradient.0[l] = value;
            spread.first += value;
            spread.second = math::max(spread.second, value.abs());
        });
        // SAFETY: the slot is this seed's alone, and a multiple of `W`.
        unsafe { p.scratch.contributions.store_vector(at + i, gradient, StoreHint::Cached) };
        i += step;
    }
    // SAFETY: every thread of the block is here.
    let spread = unsafe {
        team.fold(spread, |x, y| Spread {
            first: x.first + y.first,
            second: math::max(x.second, y.second),
        })
    };

    // Scaled by the largest, so that no square overflows.
    let largest = spread.second;
    let unit = if largest > 0.0 { 1.0 / largest } else { 1.0 };
    let mean = spread.first / chunk as f32;
    let mut squares = Spread::zeroed();
    let mut i = start;
    while i < columns {
        // SAFETY: this thread stored them.
        let gradient =
            unsafe { p.scratch.contributions.load_vector::<W>(at + i, LoadHint::Cached) };
        unroll!(l in W => {
            let (value, deviation) = (gradient.0[l] * unit, (gradient.0[l] - mean) * unit);
            squares.first = math::fma(value, value, squares.first);
            squares.second = math::fma(deviation, deviation, squares.second);
        });
        i += step;
    }
    // SAFETY: every thread of the block is here.
    let squares = unsafe {
        team.fold(squares, |x, y| Spread { first: x.first + y.first, second: x.second + y.second })
    };

    if role.is_none() || team.member != 0 {
        return;
    }
    let taps = if convolves {
        let mut taps = 0.0;
        unroll!(j in CONV_TAPS => {
            if j < chunk {
                taps = math::fma(weight(j), sums.extras[j], taps);
            }
        });
        taps
    } else {
        sums.weighted
    };
    let scale_gradient = if matches!(kind, BlueprintType::AttentionHead) { 0.0 } else { a * taps };
    let alpha_gradient = match kind {
        BlueprintType::ConvFilter => math::fma(scale, taps, -sums.extras[0]),
        BlueprintType::MlpExpansion => sums.alpha - sums.extras[0],
        _ => sums.alpha,
    };
    // A clipped α is 0 or 1 here.
    let blends = active && a > 0.0 && a < 1.0;
    // SAFETY: one thread writes a seed's figures, inside their arrays.
    unsafe {
        p.scratch.scale_contributions.store(place.slot as usize, scale_gradient);
        p.gradients.alpha.store(seed, if blends { alpha_gradient } else { 0.0 });
        p.gradients.norm.store(seed, largest * math::sqrt(squares.first));
        let variance = squares.second / chunk as f32;
        p.gradients.variance.store(seed, largest * variance * largest);
        p.gradients.max.store(seed, largest);
    }
}

/// The extra of tap `i`, 0 beyond the taps.
#[inline(always)]
fn tap(extras: &[f32; CONV_TAPS], i: usize) -> f32 {
    match i {
        0 => extras[0],
        1 => extras[1],
        2 => extras[2],
        _ => 0.0,
    }
}

/// The sum of `W` columns over the slabs, which it leaves in the first slab's place.
///
/// # Safety
/// The columns' parts are all there, and this thread's alone from now on.
#[inline(always)]
unsafe fn total_columns<const W: usize>(p: &BlendBackward, column: usize) -> Vector<f32, W> {
    let hidden = p.num_seeds as usize * p.chunk_size as usize;
    // SAFETY: the caller's contract.
    unsafe {
        let total = sum_slabs::<W>(&p.scratch.columns, column, hidden, p.geometry.slabs);
        p.scratch.columns.store_vector(column, total, StoreHint::Cached);
        total
    }
}

/// The extras of one vector of columns over the slabs.
///
/// # Safety
/// They are all there.
#[inline(always)]
unsafe fn total_extras<const L: usize>(
    p: &BlendBackward,
    vector: usize,
) -> Vector<f32, EXTRA_SUMS> {
    let vectors = p.num_seeds as usize * p.chunk_size as usize / L;
    let (at, stride) = (vector * EXTRA_SUMS, vectors * EXTRA_SUMS);
    // SAFETY: the caller's contract.
    unsafe { sum_slabs::<EXTRA_SUMS>(&p.scratch.extras, at, stride, p.geometry.slabs) }
}

/// The sum of one vector of each slab, four loads on their way at a time.
///
/// # Safety
/// The vectors are inside `parts`.
#[inline(always)]
unsafe fn sum_slabs<const N: usize>(
    parts: &Out<f32>,
    first: usize,
    stride: usize,
    slabs: u32,
) -> Vector<f32, N> {
    let mut total = [0.0; N];
    let mut slab = 0;
    while slab < slabs {
        let mut group = [Vector([0.0; N]); 4];
        unroll!(k in 4 => {
            if slab + (k as u32) < slabs {
                // SAFETY: the slab is one.
                group[k] = unsafe {
                    parts.load_vector(first + (slab as usize + k) * stride, LoadHint::Cached)
                };
            }
        });
        unroll!(k in 4 => {
            unroll!(l in N => { total[l] += group[k].0[l]; });
        });
        slab += 4;
    }
    Vector(total)
}

/// Whether a state byte is one in which the blueprint trains.
#[inline(always)]
pub(crate) fn trains(state: u8) -> bool {
    SeedLifecycle::from_u8(state).is_some_and(SeedLifecycle::trains)
}

//! What a seed's sums over the batch say of its own gradients, by a team of threads.

use kasmina_device::{math, unroll, warp};
use kasmina_types::BlueprintType;
use kasmina_types::blueprint::CONV_TAPS;
use kasmina_types::parameter_gradients::LayerGradients;

use kasmina_device::global::Store;

use super::seed_teams::RowSums;

/// What a seed with a blueprint is to its gradients.
#[derive(Clone, Copy)]
pub(crate) struct Finishing {
    pub(crate) kind: BlueprintType,
    pub(crate) scale: f32,
    /// a = clip(α, 0, 1), or 1 where the seed is not active.
    pub(crate) blend: f32,
    pub(crate) active: bool,
}

/// How the threads of a team put their values together.
pub(crate) trait Folds: Copy {
    /// Folds each of the values over the team in a fixed order; every member gets the results. The operation on
    /// values number `j` commutes.
    ///
    /// # Safety
    /// All threads that fold together call it: a block, or a warp.
    unsafe fn fold<const N: usize>(
        self,
        values: [f32; N],
        combine: impl Fn(usize, f32, f32) -> f32,
    ) -> [f32; N];

    /// Whether some of the threads that fold together need the next fold.
    fn any(self, predicate: bool) -> bool;

    /// Adds up each of the values.
    ///
    /// # Safety
    /// As [`Self::fold`].
    #[inline(always)]
    unsafe fn add_up<const N: usize>(self, values: [f32; N]) -> [f32; N] {
        // SAFETY: the caller's contract.
        unsafe { self.fold(values, |_, a, b| a + b) }
    }
}

/// Teams of neighbouring lanes, each with a seed of its own: so many lanes, a power of two.
#[derive(Clone, Copy)]
pub(crate) struct LaneTeams(pub(crate) u32);

impl Folds for LaneTeams {
    #[inline(always)]
    unsafe fn fold<const N: usize>(
        self,
        mut values: [f32; N],
        combine: impl Fn(usize, f32, f32) -> f32,
    ) -> [f32; N] {
        let mut step = self.0 / 2;
        while step > 0 {
            unroll!(j in N => {
                let other = warp::shuffle_xor(warp::FULL_MASK, values[j], step);
                values[j] = combine(j, values[j], other);
            });
            step /= 2;
        }
        values
    }

    #[inline(always)]
    fn any(self, predicate: bool) -> bool {
        warp::any(warp::FULL_MASK, predicate)
    }
}

/// The columns of a seed that a thread has: vectors of `W` from `start` on, `step` apart, below `end`.
#[derive(Clone, Copy)]
pub(crate) struct Vectors {
    pub(crate) start: usize,
    pub(crate) step: usize,
    /// 0 where the thread has none.
    pub(crate) end: usize,
    pub(crate) chunk: usize,
}

/// Finishes a seed: writes its ∂α and statistics. Returns what it adds to the blueprint's gradients, in the columns of
/// the thread's first vector, and hands `rest` those of the others, of which there are none unless `WIDE`. ∂s is the
/// extra of the first thread.
///
/// `totals` gives the sums A of a vector and what they are multiplied with: w, or the softmax's share. `extras` are
/// the thread's, `weight` is the blueprint's.
///
/// # Safety
/// As [`Folds::fold`]; the figures of `seed` are this team's, where it has columns.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "one thread's place in the work")]
pub(crate) unsafe fn finish<F: Folds, const W: usize, const WIDE: bool>(
    team: F,
    gradients: &LayerGradients,
    seed: usize,
    what: Finishing,
    vectors: Vectors,
    totals: impl Fn(usize) -> ([f32; W], [f32; W]),
    extras: [f32; CONV_TAPS],
    weight: impl Fn(usize) -> f32,
    mut rest: impl FnMut(usize, &[f32; W]),
) -> RowSums<W, 1> {
    let Finishing { kind, scale, blend: a, active } = what;
    let Vectors { start, step, end, chunk } = vectors;
    let attends = matches!(kind, BlueprintType::AttentionHead);
    let convolves = matches!(kind, BlueprintType::ConvFilter);

    // ∂α's share of A is linear in what A is multiplied with.
    let (alpha_gain, alpha_offset) = match kind {
        BlueprintType::AttentionHead => (1.0, -1.0),
        BlueprintType::Scale => (scale, -1.0),
        _ => (scale, 0.0),
    };
    // Σ A·w, for an ATTENTION_HEAD Σ A·p, and Σ A times what ∂α has for it.
    let (mut weighted, mut of_alpha) = (0.0, 0.0);
    let mut i = start;
    while i < end {
        let (total, factor) = totals(i);
        unroll!(l in W => {
            weighted = math::fma(factor[l], total[l], weighted);
            let alpha = math::fma(alpha_gain, factor[l], alpha_offset);
            of_alpha = math::fma(alpha, total[l], of_alpha);
        });
        if !WIDE {
            break;
        }
        i += step;
    }
    // SAFETY: the caller's contract.
    let [weighted, of_alpha] = unsafe { team.add_up([weighted, of_alpha]) };
    let mut extras = extras;
    if team.any(convolves || matches!(kind, BlueprintType::MlpExpansion)) {
        // SAFETY: as above; all threads that fold together are here.
        extras = unsafe { team.add_up(extras) };
    }

    let (gain, shift) = if attends { (a, weighted) } else { (a * scale, 0.0) };
    let gradient = |i: usize| {
        let (total, factor) = totals(i);
        let mut gradient = [0.0; W];
        unroll!(l in W => {
            let value = if convolves { tap(&extras, i + l) } else { total[l] - shift };
            gradient[l] = gain * value * if attends { factor[l] } else { 1.0 };
        });
        gradient
    };
    let mut result = RowSums::<W, 1>::ZERO;
    if start < end {
        result.columns = gradient(start);
    }
    // Sum and largest magnitude.
    let mut spread = [0.0; 2];
    let mut i = start;
    while i < end {
        let of_vector = if !WIDE || i == start { result.columns } else { gradient(i) };
        unroll!(l in W => {
            spread[0] += of_vector[l];
            spread[1] = math::max(spread[1], of_vector[l].abs());
        });
        if WIDE && i != start {
            rest(i, &of_vector);
        }
        if !WIDE {
            break;
        }
        i += step;
    }
    // SAFETY: the caller's contract.
    let [sum, largest] =
        unsafe { team.fold(spread, |j, x, y| if j == 0 { x + y } else { math::max(x, y) }) };

    // Scaled by the largest, so that no square overflows.
    let unit = if largest > 0.0 { 1.0 / largest } else { 1.0 };
    let mean = sum / chunk as f32;
    let mut squares = [0.0; 2];
    let mut i = start;
    while i < end {
        let of_vector = if !WIDE || i == start { result.columns } else { gradient(i) };
        unroll!(l in W => {
            let (value, deviation) = (of_vector[l] * unit, (of_vector[l] - mean) * unit);
            squares[0] = math::fma(value, value, squares[0]);
            squares[1] = math::fma(deviation, deviation, squares[1]);
        });
        if !WIDE {
            break;
        }
        i += step;
    }
    // SAFETY: the caller's contract.
    let [squares, deviations] = unsafe { team.add_up(squares) };

    if start != 0 || end == 0 {
        return result;
    }
    let mut taps = weighted;
    if convolves {
        taps = 0.0;
        unroll!(j in CONV_TAPS => {
            if j < chunk {
                taps = math::fma(weight(j), extras[j], taps);
            }
        });
    }
    result.extras[0] = if attends { 0.0 } else { a * taps };
    let alpha_gradient = match kind {
        BlueprintType::ConvFilter => math::fma(scale, taps, -extras[0]),
        BlueprintType::MlpExpansion => of_alpha - extras[0],
        _ => of_alpha,
    };
    // A clipped α is 0 or 1 here.
    let blends = active && a > 0.0 && a < 1.0;
    // SAFETY: one thread writes a seed's figures, inside their arrays.
    unsafe {
        gradients.alpha.store(seed, if blends { alpha_gradient } else { 0.0 });
        gradients.norm.store(seed, largest * math::sqrt(squares));
        let variance = deviations / chunk as f32;
        gradients.variance.store(seed, largest * variance * largest);
        gradients.max.store(seed, largest);
    }
    result
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

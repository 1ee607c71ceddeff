//! A seed's telemetry while it is being gathered: seven figures that absorb values and merge.

use bytemuck::{Pod, Zeroable};
use kasmina_device::global::{Load, Store};
use kasmina_device::vector::{LoadHint, StoreHint, Vector};
use kasmina_device::{math, reduce, unroll, warp};
use kasmina_types::layer::OUTLIER_DEVIATIONS;
use kasmina_types::telemetry::{DEAD_THRESHOLD, SNR_EPSILON};
use kasmina_types::{Out, SeedTelemetry, TelemetryPartial};

/// What some values looked like: [`TelemetryPartial`] without its padding.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(crate) struct Moments {
    finite: u32,
    nonfinite: u32,
    dead: u32,
    mean: f32,
    m2: f32,
    min: f32,
    max: f32,
}

impl Moments {
    /// Nothing seen.
    pub(crate) const EMPTY: Self = Self {
        finite: 0,
        nonfinite: 0,
        dead: 0,
        mean: 0.0,
        m2: 0.0,
        min: f32::INFINITY,
        max: f32::NEG_INFINITY,
    };

    /// Absorbs a group of `R` vectors: its own mean first, the deviations from it second.
    #[inline(always)]
    pub(crate) fn absorb_group<const L: usize, const R: usize>(self, x: &[[f32; L]; R]) -> Self {
        self.merge(Self::of_group(x))
    }

    /// The moments of a group of `R` vectors.
    #[inline(always)]
    pub(crate) fn of_group<const L: usize, const R: usize>(x: &[[f32; L]; R]) -> Self {
        let sum = sum(x);
        // A NaN or an infinity reaches the sum; so does an overflow, and both take the careful way.
        if sum.abs() < f32::INFINITY {
            return Self::of_finite(x, sum * (1.0 / (L * R) as f32));
        }
        let mut moments = Self::EMPTY;
        unroll!(r in R => {
            moments = moments.merge(Self::of_any(&[x[r]]));
        });
        moments
    }

    /// The moments of all lanes of the warp, which all call it and get them.
    #[inline(always)]
    pub(crate) fn fold_warp(self) -> Self {
        let finite = warp::shuffle(warp::FULL_MASK, self.finite, 0);
        let usual = self.finite == finite && self.nonfinite == 0 && self.dead == 0;
        if !warp::all(warp::FULL_MASK, usual) {
            return reduce::warp_fold(self, Self::merge);
        }
        // As many values on both sides, each time: Chan's merge without its divisions, the counts known.
        let mut folded = self;
        unroll!(i in 5 => {
            let figures = [folded.mean, folded.m2, folded.min, folded.max];
            let [mean, m2, min, max] = warp::shuffle_xor(warp::FULL_MASK, figures, 16 >> i);
            let delta = mean - folded.mean;
            let weight = 0.5 * folded.finite as f32;
            folded.mean = math::fma(0.5, mean, 0.5 * folded.mean);
            folded.m2 = math::fma(delta, delta * weight, m2 + folded.m2);
            folded.min = math::min(folded.min, min);
            folded.max = math::max(folded.max, max);
            folded.finite *= 2;
        });
        folded
    }

    /// The group's moments, all its values finite.
    #[inline(always)]
    fn of_finite<const L: usize, const R: usize>(x: &[[f32; L]; R], mean: f32) -> Self {
        let mut group = Self { finite: (L * R) as u32, mean, ..Self::EMPTY };
        let mut smallest = f32::INFINITY;
        unroll!(r in R => {
            unroll!(l in L => {
                let deviation = x[r][l] - mean;
                group.m2 = math::fma(deviation, deviation, group.m2);
                group.min = math::min(group.min, x[r][l]);
                group.max = math::max(group.max, x[r][l]);
                smallest = math::min(smallest, x[r][l].abs());
            });
        });
        // One magnitude says whether any is dead: they are counted only then.
        if smallest < DEAD_THRESHOLD {
            unroll!(r in R => {
                unroll!(l in L => {
                    group.dead += u32::from(x[r][l].abs() < DEAD_THRESHOLD);
                });
            });
        }
        group
    }

    /// The moments of the group's finite values; the others are counted.
    #[inline(always)]
    fn of_any<const L: usize, const R: usize>(x: &[[f32; L]; R]) -> Self {
        let mut group = Self::EMPTY;
        unroll!(r in R => {
            unroll!(l in L => {
                group.finite += u32::from(x[r][l].abs() < f32::INFINITY);
            });
        });
        group.nonfinite = (L * R) as u32 - group.finite;
        // Scaled before they are added: the sum of large values may overflow, their mean does not.
        let share = 1.0 / group.finite.max(1) as f32;
        unroll!(r in R => {
            unroll!(l in L => {
                let finite = x[r][l].abs() < f32::INFINITY;
                group.mean = math::fma(if finite { x[r][l] } else { 0.0 }, share, group.mean);
            });
        });
        unroll!(r in R => {
            unroll!(l in L => {
                let finite = x[r][l].abs() < f32::INFINITY;
                let deviation = if finite { x[r][l] - group.mean } else { 0.0 };
                group.m2 = math::fma(deviation, deviation, group.m2);
                group.min = math::min(group.min, if finite { x[r][l] } else { f32::INFINITY });
                group.max = math::max(group.max, if finite { x[r][l] } else { f32::NEG_INFINITY });
                group.dead += u32::from(x[r][l].abs() < DEAD_THRESHOLD);
            });
        });
        group
    }

    /// Chan's merge.
    #[inline(always)]
    pub(crate) fn merge(self, other: Self) -> Self {
        let finite = self.finite + other.finite;
        // With nothing on both sides the share is 0/1, and nothing comes out.
        let share = other.finite as f32 * math::rcp(finite.max(1) as f32);
        let delta = other.mean - self.mean;
        let weight = self.finite as f32 * share;
        Self {
            finite,
            nonfinite: self.nonfinite + other.nonfinite,
            dead: self.dead + other.dead,
            mean: math::fma(delta, share, self.mean),
            // Not δ²·weight: the square of a large δ overflows where the product need not.
            m2: math::fma(delta, delta * weight, self.m2 + other.m2),
            min: math::min(self.min, other.min),
            max: math::max(self.max, other.max),
        }
    }

    /// Whether some value was not finite, or an outlier.
    #[inline(always)]
    pub(crate) fn is_unstable(&self) -> bool {
        let furthest = math::max(self.max - self.mean, self.mean - self.min);
        let deviation = math::sqrt(self.m2 / self.finite as f32);
        self.nonfinite > 0 || furthest > OUTLIER_DEVIATIONS * deviation
    }

    /// Finite, non-finite and dead values; mean, sum of squared deviations, smallest, largest.
    #[inline(always)]
    pub(crate) fn figures(self) -> ([u32; 3], [f32; 4]) {
        ([self.finite, self.nonfinite, self.dead], [self.mean, self.m2, self.min, self.max])
    }

    /// Leaves the record at `place`, in two 16-byte stores.
    ///
    /// # Safety
    /// `place` is inside `partials` and this thread's alone.
    #[inline(always)]
    pub(crate) unsafe fn store(self, partials: &Out<TelemetryPartial>, place: usize) {
        let words: Out<u32> = partials.cast();
        let counts = Vector([self.finite, self.nonfinite, self.dead, 0]);
        let figures = Vector([self.mean, self.m2, self.min, self.max].map(f32::to_bits));
        // SAFETY: a record is eight words; the caller's contract for its place.
        unsafe {
            words.store_vector(8 * place, counts, StoreHint::Cached);
            words.store_vector(8 * place + 4, figures, StoreHint::Cached);
        }
    }

    /// Reads the record at `place`.
    ///
    /// # Safety
    /// [`Moments::store`] wrote it, and an arrival orders that before this.
    #[inline(always)]
    pub(crate) unsafe fn load(partials: &Out<TelemetryPartial>, place: usize) -> Self {
        let words: Out<u32> = partials.cast();
        // SAFETY: a record is eight words; the caller's contract for its place.
        let (counts, figures) = unsafe {
            (
                words.load_vector::<4>(8 * place, LoadHint::Cached).0,
                words.load_vector::<4>(8 * place + 4, LoadHint::Cached).0.map(f32::from_bits),
            )
        };
        let [finite, nonfinite, dead, _] = counts;
        let [mean, m2, min, max] = figures;
        Self { finite, nonfinite, dead, mean, m2, min, max }
    }

    /// Writes a seed's finished telemetry.
    ///
    /// # Safety
    /// `seed` is inside the telemetry's arrays and this thread's alone.
    #[inline(always)]
    pub(crate) unsafe fn finish(self, out: &SeedTelemetry, seed: usize) {
        let count = self.finite + self.nonfinite;
        let nothing = self.finite == 0;
        let or_nan = |value: f32| if nothing { f32::NAN } else { value };
        let variance = self.m2 / self.finite as f32;
        // SAFETY: the caller's contract.
        unsafe {
            out.count.store(seed, count);
            out.mean.store(seed, or_nan(self.mean));
            out.variance.store(seed, or_nan(variance));
            out.min.store(seed, or_nan(self.min));
            out.max.store(seed, or_nan(self.max));
            out.dead_ratio.store(seed, self.dead as f32 / count as f32);
            out.snr.store(seed, or_nan(self.mean.abs() / math::sqrt(variance + SNR_EPSILON)));
            out.nonfinite.store(seed, self.nonfinite);
        }
    }
}

/// The sum of a group, lanes first.
#[inline(always)]
fn sum<const L: usize, const R: usize>(x: &[[f32; L]; R]) -> f32 {
    let mut lanes = x[0];
    unroll!(r in R => {
        if r > 0 {
            unroll!(l in L => { lanes[l] += x[r][l]; });
        }
    });
    let mut total = lanes[0];
    unroll!(l in L => {
        if l > 0 {
            total += lanes[l];
        }
    });
    total
}

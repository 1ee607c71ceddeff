//! Random shapes and values.

use half::{bf16, f16};
use kasmina_types::dtype::Element;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::Scale;
use crate::digits::WHITE;

/// How large cases may be: what a device works through in seconds.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    pub(super) cases: usize,
    pub(super) batch: usize,
    pub(super) chunk: usize,
    /// Elements of one case.
    pub(super) elements: usize,
}

impl Limits {
    pub(super) fn of(scale: Scale) -> Self {
        match scale {
            Scale::Small => Self { cases: 16, batch: 300, chunk: 700, elements: 60_000 },
            Scale::Medium => Self { cases: 12, batch: 1000, chunk: 2000, elements: 200_000 },
            Scale::Large => Self { cases: 16, batch: 4096, chunk: 5000, elements: 1 << 22 },
        }
    }
}

/// The generator of a check: every check of a run begins with the same one, so that a row does not
/// depend on which others run.
pub(super) fn generator(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}

/// A length from 1 to `most`; as often below √most as above, as small lengths are where edges are.
pub(super) fn length(rng: &mut StdRng, most: usize) -> usize {
    let most = if rng.random() { most.isqrt().max(1) } else { most };
    rng.random_range(1..=most)
}

/// An element type that values can be made up for.
pub(super) trait Sample: Element {
    /// A value of [−1, 1] in the type's own scale: rounded, or for integers a share of 2³⁰.
    fn from_unit(value: f64) -> Self;

    /// A grey value: in [0, 1], or for integers as it is.
    fn from_grey(grey: u8) -> Self;

    /// What is most often done wrong: NaN and infinities, or for integers the ends of the range.
    const SPECIALS: [Self; 3];
}

macro_rules! float_sample {
    ($type:ty, |$value:ident| $from:expr) => {
        impl Sample for $type {
            fn from_unit($value: f64) -> Self {
                $from
            }
            fn from_grey(grey: u8) -> Self {
                Self::from_unit(f64::from(grey) / f64::from(WHITE))
            }
            const SPECIALS: [Self; 3] = [<$type>::NAN, <$type>::INFINITY, <$type>::NEG_INFINITY];
        }
    };
}

float_sample!(f32, |value| value as f32);
float_sample!(f64, |value| value);
float_sample!(f16, |value| f16::from_f64(value));
float_sample!(bf16, |value| bf16::from_f64(value));

impl Sample for i32 {
    fn from_unit(value: f64) -> Self {
        (value * f64::from(1 << 30)) as i32
    }
    fn from_grey(grey: u8) -> Self {
        i32::from(grey)
    }
    const SPECIALS: [Self; 3] = [i32::MIN, i32::MAX, -1];
}

/// Values of [−1, 1] about one of two means, a few of them dead and, if asked for, a few special.
pub(super) fn values<T: Sample>(rng: &mut StdRng, count: usize, specials: bool) -> Vec<T> {
    let (mean, spread) = if rng.random() { (0.0, 1.0) } else { (0.75, 0.25) };
    let value = |rng: &mut StdRng| match rng.random_range(0..200_u32) {
        // Dead either way.
        0 => T::from_unit(if rng.random() { 0.0 } else { 5e-9 }),
        special @ 1..=3 if specials => T::SPECIALS[special as usize - 1],
        _ => T::from_unit(mean + spread * rng.random_range(-1.0..=1.0)),
    };
    (0..count).map(|_| value(rng)).collect()
}

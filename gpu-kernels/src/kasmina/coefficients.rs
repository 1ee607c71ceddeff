//! A seed's blueprint as the blend's coefficients: what a thread keeps of it in registers.

use kasmina_device::convert::Float;
use kasmina_device::global::Load;
use kasmina_device::vector::Vector;
use kasmina_device::{math, unroll};
use kasmina_types::blueprint::{BLUEPRINT_NONE, CONV_TAPS};
use kasmina_types::layer::FLUSH_THRESHOLD;
use kasmina_types::{BlueprintType, LayerPass, Numerical, SeedLifecycle};

/// A seed's blueprint, read once a tile.
#[derive(Clone, Copy)]
pub(crate) struct Blueprint {
    pub(crate) kind: BlueprintType,
    /// a, in [0, 1].
    pub(crate) blend: f32,
    pub(crate) scale: f32,
    /// Where its weights begin.
    pub(crate) offset: usize,
}

impl Blueprint {
    /// Whether it needs its softmax's normaliser.
    #[inline(always)]
    pub(crate) fn attends(&self) -> bool {
        matches!(self.kind, BlueprintType::AttentionHead)
    }

    /// The blueprint of an active seed, `None` for the identity.
    ///
    /// # Safety
    /// `seed < p.num_seeds`, and ids and types are valid: the launcher's callers validate the state.
    #[inline(always)]
    pub(crate) unsafe fn of<const C: bool>(p: &impl LayerPass<C>, seed: usize) -> Option<Self> {
        // SAFETY: the caller's contract.
        unsafe { Some(Self::in_states(p, seed, SeedLifecycle::is_active)?.1) }
    }

    /// State and blueprint of a seed whose state is one of `states`, `None` for others and for one that has
    /// no blueprint.
    ///
    /// # Safety
    /// As [`Self::of`].
    #[inline(always)]
    pub(crate) unsafe fn in_states<const C: bool>(
        p: &impl LayerPass<C>,
        seed: usize,
        states: impl Fn(SeedLifecycle) -> bool,
    ) -> Option<(SeedLifecycle, Self)> {
        // SAFETY: the caller's contract.
        unsafe { SeedWords::load(p, seed).in_states(p, states) }
    }
}

/// What the layer's arrays say of a seed, as it is stored: all of a seed's loads go out before the first is needed.
#[derive(Clone, Copy)]
pub(crate) struct SeedWords {
    lifecycle: u8,
    id: u16,
    alpha: f32,
}

impl SeedWords {
    /// # Safety
    /// `seed < p.num_seeds`.
    #[inline(always)]
    pub(crate) unsafe fn load<const C: bool>(p: &impl LayerPass<C>, seed: usize) -> Self {
        let layer = p.layer();
        // SAFETY: the caller's contract.
        unsafe {
            Self {
                lifecycle: layer.lifecycle.load(seed),
                id: layer.blueprint_id.load(seed),
                alpha: layer.alpha.load(seed),
            }
        }
    }

    /// The seed's state if it is one of `states` and there is a blueprint.
    #[inline(always)]
    pub(crate) fn state(&self, states: impl Fn(SeedLifecycle) -> bool) -> Option<SeedLifecycle> {
        let state = SeedLifecycle::from_u8(self.lifecycle)?;
        if self.id == BLUEPRINT_NONE || !states(state) { None } else { Some(state) }
    }

    /// As [`Blueprint::in_states`].
    ///
    /// # Safety
    /// As [`Blueprint::of`].
    #[inline(always)]
    pub(crate) unsafe fn in_states<const C: bool>(
        &self,
        p: &impl LayerPass<C>,
        states: impl Fn(SeedLifecycle) -> bool,
    ) -> Option<(SeedLifecycle, Blueprint)> {
        let state = self.state(states)?;
        let (layer, id) = (p.layer(), self.id as usize);
        // SAFETY: the caller's contract keeps every index inside its array.
        let (kind, scale, offset) = unsafe {
            (
                layer.blueprint_type.load(id),
                layer.blueprint_scale.load(id),
                layer.blueprint_offset.load(id) as usize,
            )
        };
        let kind = BlueprintType::from_u8(kind)?;
        let blend = math::min(math::max(self.alpha, 0.0), 1.0);
        Some((state, Blueprint { kind, blend, scale, offset }))
    }
}

/// How one thread's vector of columns is blended: `y = slope·x + offset`, a convolution's taps
/// besides.
#[derive(Clone, Copy)]
pub(crate) struct Coefficients<const L: usize> {
    pub(crate) identity: bool,
    /// Whether the slopes below differ.
    pub(crate) kinked: bool,
    /// Slopes for x > 0 and for the rest.
    pub(crate) positive: [f32; L],
    pub(crate) negative: [f32; L],
    pub(crate) offset: [f32; L],
    /// Weights of the first and the second left neighbour, where `convolves`.
    pub(crate) convolves: bool,
    pub(crate) taps: [f32; 2],
    /// Whether what is written is sanitised.
    pub(crate) strict: bool,
}

impl<const L: usize> Coefficients<L> {
    /// −0, not 0: it leaves −0 as it is when it is added.
    const NOTHING: f32 = -0.0;

    /// # Safety
    /// `column + L` is at most the chunk's size, and `blueprint`'s weights have that many.
    #[inline(always)]
    pub(crate) unsafe fn of<const C: bool>(
        p: &impl LayerPass<C>,
        blueprint: Option<Blueprint>,
        column: usize,
        log_partition: f32,
    ) -> Self {
        let mut c = Self {
            identity: true,
            kinked: false,
            positive: [1.0; L],
            negative: [1.0; L],
            offset: [Self::NOTHING; L],
            convolves: false,
            taps: [0.0; 2],
            strict: false,
        };
        let Some(Blueprint { kind, blend, scale, offset }) = blueprint else { return c };
        c.identity = false;
        let keep = 1.0 - blend;
        let gain = blend * scale;
        // SAFETY: the caller's contract.
        let weight = |i: usize| unsafe { p.layer().weights.load(offset + i) };
        match kind {
            BlueprintType::ResidualBlock => {
                unroll!(l in L => {
                    c.offset[l] = gain * weight(column + l);
                });
            }
            BlueprintType::AttentionHead => {
                unroll!(l in L => {
                    let share = math::exp(weight(column + l) - log_partition);
                    c.positive[l] = math::fma(blend, share, keep);
                    c.negative[l] = c.positive[l];
                });
            }
            BlueprintType::MlpExpansion => {
                // x·w > 0 where x has the sign of w; there the slope is that of SCALE.
                c.kinked = true;
                unroll!(l in L => {
                    let w = weight(column + l);
                    let open = math::fma(gain, w, keep);
                    c.positive[l] = if w > 0.0 { open } else { keep };
                    c.negative[l] = if w < 0.0 { open } else { keep };
                });
            }
            BlueprintType::ConvFilter => {
                let chunk = p.chunk_size() as usize;
                let center = math::fma(gain, weight(0), keep);
                unroll!(l in L => {
                    c.positive[l] = center;
                    c.negative[l] = center;
                });
                c.convolves = true;
                for tap in 1..CONV_TAPS {
                    c.taps[tap - 1] = if tap < chunk { gain * weight(tap) } else { 0.0 };
                }
            }
            BlueprintType::Scale => {
                unroll!(l in L => {
                    c.positive[l] = math::fma(gain, weight(column + l), keep);
                    c.negative[l] = c.positive[l];
                });
            }
        }
        c
    }

    /// One row's vector, `x` in f32 and `raw` as it was, blended. `left` are the elements one and two left of it, 0
    /// outside the chunk, for who `convolves`. Unless it is `GENERAL`, a line for each column is all there is.
    #[inline(always)]
    pub(crate) fn blend<T: Float, const GENERAL: bool>(
        &self,
        numerical: &Numerical,
        raw: Vector<T, L>,
        x: [f32; L],
        left: impl FnOnce() -> [f32; 2],
    ) -> Vector<T, L> {
        let mut y = [0.0; L];
        unroll!(l in L => {
            let slope = if x[l] > 0.0 || !GENERAL { self.positive[l] } else { self.negative[l] };
            y[l] = math::fma(slope, x[l], self.offset[l]);
        });
        if GENERAL && self.convolves {
            let [near, far] = left();
            unroll!(l in L => {
                let first = if l >= 1 { x[l.wrapping_sub(1)] } else { near };
                let second = match l {
                    0 => far,
                    1 => near,
                    _ => x[l.wrapping_sub(2)],
                };
                y[l] = math::fma(self.taps[0], first, math::fma(self.taps[1], second, y[l]));
            });
        }
        if GENERAL && self.strict {
            unroll!(l in L => {
                y[l] = sanitise(numerical, y[l]);
            });
        }
        // Chosen lane by lane, not by a branch: seeds side by side in a warp share one store.
        let mut blended = raw;
        unroll!(l in L => {
            blended.0[l] = if self.identity { raw.0[l] } else { T::from_f32(y[l]) };
        });
        blended
    }
}

/// Whether what an active seed writes is sanitised.
///
/// # Safety
/// `seed < p.num_seeds`, and `p.unstable` has a flag for each seed where the mode is adaptive.
#[inline(always)]
pub(crate) unsafe fn is_strict<const C: bool>(p: &impl LayerPass<C>, seed: usize) -> bool {
    match p.numerical().mode {
        Numerical::FAST => false,
        Numerical::STRICT => true,
        // SAFETY: the caller's contract; whoever sets the flag does so after every reader has arrived.
        _ => unsafe { p.unstable().load(seed) != 0 },
    }
}

/// 0 for NaN and what is nearly 0, else the value within the bounds.
#[inline(always)]
pub(crate) fn sanitise(n: &Numerical, value: f32) -> f32 {
    // A NaN is not above the threshold either.
    let clamped = math::min(math::max(value, n.low), n.high);
    if value.abs() >= FLUSH_THRESHOLD { clamped } else { 0.0 }
}

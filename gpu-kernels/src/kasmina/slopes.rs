//! What a seed's state and blueprint make of a gradient: the backward pass' coefficients.

use kasmina_device::convert::Float;
use kasmina_device::global::Load;
use kasmina_device::vector::Vector;
use kasmina_device::{math, unroll};
use kasmina_types::blueprint::CONV_TAPS;
use kasmina_types::{BlueprintType, LayerPass, Numerical, SeedLifecycle};

use super::coefficients::{Blueprint, Coefficients, SeedWords, sanitise};

/// What a seed with a blueprint does in the backward pass.
#[derive(Clone, Copy)]
pub(crate) struct Role {
    /// Its blend factor is 1 where the seed is not active: a TRAINING blueprint sees T itself.
    pub(crate) blueprint: Blueprint,
    /// Whether ∂x is other than g.
    pub(crate) active: bool,
    /// Whether the blueprint receives gradients.
    pub(crate) trains: bool,
}

impl Role {
    /// The states in which a seed's blueprint matters.
    #[inline(always)]
    pub(crate) fn matters(state: SeedLifecycle) -> bool {
        state.is_active() || state.trains()
    }

    /// The seed's role, `None` where ∂x is g and all else 0.
    ///
    /// # Safety
    /// As [`Blueprint::of`].
    #[inline(always)]
    pub(crate) unsafe fn of<const C: bool>(p: &impl LayerPass<C>, seed: usize) -> Option<Self> {
        // SAFETY: the caller's contract.
        unsafe { Self::of_words(p, &SeedWords::load(p, seed)) }
    }

    /// As [`Self::of`], of what the layer's arrays say of the seed.
    ///
    /// # Safety
    /// As [`Blueprint::of`].
    #[inline(always)]
    pub(crate) unsafe fn of_words<const C: bool>(
        p: &impl LayerPass<C>,
        words: &SeedWords,
    ) -> Option<Self> {
        // SAFETY: the caller's contract.
        let (state, mut blueprint) = unsafe { words.in_states(p, Self::matters) }?;
        let active = state.is_active();
        if !active {
            blueprint.blend = 1.0;
        }
        Some(Self { blueprint, active, trains: state.trains() })
    }

    /// Whether x is needed: no RESIDUAL_BLOCK's gradient depends on it, and of frozen blueprints only
    /// that of an MLP_EXPANSION.
    #[inline(always)]
    pub(crate) fn reads_input(&self) -> bool {
        match self.blueprint.kind {
            BlueprintType::ResidualBlock => false,
            BlueprintType::MlpExpansion => true,
            _ => self.trains,
        }
    }

    /// Whether the blueprint's gradients need more than one sum a column.
    #[inline(always)]
    pub(crate) fn needs_extras(&self) -> bool {
        self.trains
            && matches!(
                self.blueprint.kind,
                BlueprintType::MlpExpansion | BlueprintType::ConvFilter
            )
    }
}

/// How one thread's vector of columns takes part: `∂x = slope·g`, and each column's sum Σ g·x. Where x
/// is not read, 1 stands for it.
#[derive(Clone, Copy)]
pub(crate) struct Slopes<const L: usize> {
    /// Whether ∂x is g, bit for bit.
    pub(crate) identity: bool,
    pub(crate) reads_input: bool,
    /// Whether ∂x is sanitised.
    pub(crate) strict: bool,
    pub(crate) slope: [f32; L],
    /// An MLP_EXPANSION: where x has not the sign of w, the slope is `closed` and x does not count.
    pub(crate) kinked: bool,
    pub(crate) closed: f32,
    /// One bit a column: w > 0, w < 0.
    positive: u32,
    negative: u32,
    /// A CONV_FILTER: weights of g's first and second right neighbour.
    pub(crate) convolves: bool,
    pub(crate) taps: [f32; CONV_TAPS - 1],
}

impl<const L: usize> Slopes<L> {
    /// # Safety
    /// As [`Coefficients::of`].
    #[inline(always)]
    pub(crate) unsafe fn of<const C: bool>(
        p: &impl LayerPass<C>,
        role: Option<Role>,
        column: usize,
        log_partition: f32,
    ) -> Self {
        // SAFETY: the caller's contract.
        let c = unsafe {
            Coefficients::<L>::of(p, role.map(|role| role.blueprint), column, log_partition)
        };
        let mut s = Self {
            identity: true,
            reads_input: false,
            strict: false,
            slope: c.positive,
            kinked: false,
            closed: 1.0,
            positive: 0,
            negative: 0,
            convolves: c.convolves,
            taps: c.taps,
        };
        let Some(role) = role else { return s };
        s.identity = !role.active;
        s.reads_input = role.reads_input();
        if c.kinked {
            s.kinked = true;
            s.closed = 1.0 - role.blueprint.blend;
            unroll!(l in L => {
                // SAFETY: the caller's contract.
                let w = unsafe { p.layer().weights.load(role.blueprint.offset + column + l) };
                s.positive |= u32::from(w > 0.0) << l;
                s.negative |= u32::from(w < 0.0) << l;
                s.slope[l] = if w > 0.0 { c.positive[l] } else { c.negative[l] };
            });
        }
        s
    }

    /// Whether x has the sign of w, for a kinked slope.
    #[inline(always)]
    pub(crate) fn open(&self, l: usize, x: f32) -> bool {
        // Neither for 0, nor for NaN.
        let signs = if x > 0.0 {
            self.positive
        } else if x < 0.0 {
            self.negative
        } else {
            0
        };
        !self.kinked || signs >> l & 1 != 0
    }

    /// ∂x of one row of a seed that has but a slope; adds g·x to `columns`.
    #[inline(always)]
    pub(crate) fn line(&self, g: &[f32; L], x: &[f32; L], columns: &mut [f32; L]) -> [f32; L] {
        fma_lanes(g, x, columns);
        let mut dx = *g;
        unroll!(l in L => { dx[l] = g[l] * self.slope[l]; });
        dx
    }

    /// As [`Self::line`] for any seed, but for a convolution's neighbours and the numerical mode.
    #[inline(always)]
    pub(crate) fn bent_line(&self, g: &[f32; L], x: &[f32; L], sums: &mut Sums<L>) -> [f32; L] {
        let mut dx = *g;
        unroll!(l in L => {
            let open = self.open(l, x[l]);
            dx[l] = g[l] * if open { self.slope[l] } else { self.closed };
            let counts = if open { x[l] } else { 0.0 };
            sums.columns[l] = math::fma(g[l], counts, sums.columns[l]);
            sums.extras[0] = math::fma(g[l], x[l], sums.extras[0]);
        });
        dx
    }

    /// Adds a convolution's neighbours to ∂x and to the sums of its taps. `beyond` are the two elements of g right of
    /// the vector, 0 outside the chunk; `column` is the vector's first in the chunk, of `chunk_size`.
    #[inline(always)]
    pub(crate) fn convolve(
        &self,
        g: &[f32; L],
        x: &[f32; L],
        beyond: [f32; 2],
        (column, chunk_size): (usize, usize),
        dx: &mut [f32; L],
        sums: &mut Sums<L>,
    ) {
        // g[l + d], in the vector or beyond it.
        let right = |l: usize, d: usize| {
            if l + d < L { g[(l + d) % L] } else { beyond[(l + d).wrapping_sub(L) % 2] }
        };
        let inside = |l: usize, d: usize| l + d < L || column + l + d < chunk_size;
        unroll!(l in L => {
            let (near, far) = (right(l, 1), right(l, 2));
            if self.convolves {
                dx[l] = math::fma(self.taps[0], near, math::fma(self.taps[1], far, dx[l]));
            }
            // Not a product with 0 outside the chunk: x may be infinite.
            sums.extras[1] = math::fma(near, if inside(l, 1) { x[l] } else { 0.0 }, sums.extras[1]);
            sums.extras[2] = math::fma(far, if inside(l, 2) { x[l] } else { 0.0 }, sums.extras[2]);
        });
    }

    /// ∂x as the numerical mode leaves it.
    #[inline(always)]
    pub(crate) fn settle(&self, numerical: &Numerical, dx: &mut [f32; L]) {
        if self.strict {
            unroll!(l in L => { dx[l] = sanitise(numerical, dx[l]); });
        }
    }

    /// What is stored: ∂x, or where the seed is the identity the gradient itself.
    #[inline(always)]
    pub(crate) fn output<T: Float>(&self, g: Vector<T, L>, dx: [f32; L]) -> Vector<T, L> {
        // Chosen lane by lane, not by a branch: seeds side by side in a warp share one store.
        let mut out = g;
        unroll!(l in L => {
            out.0[l] = if self.identity { g.0[l] } else { T::from_f32(dx[l]) };
        });
        out
    }
}

/// Sums over rows of one thread's vector of columns.
#[derive(Clone, Copy)]
pub(crate) struct Sums<const L: usize> {
    /// Of g·x, column by column, where x counts.
    pub(crate) columns: [f32; L],
    /// Of g·x for all x, and of x times g's first and second right neighbour, the columns together.
    pub(crate) extras: [f32; CONV_TAPS],
}

impl<const L: usize> Sums<L> {
    pub(crate) const ZERO: Self = Self { columns: [0.0; L], extras: [0.0; CONV_TAPS] };

    #[inline(always)]
    pub(crate) fn add_columns(&mut self, columns: &[f32; L]) {
        unroll!(l in L => { self.columns[l] += columns[l]; });
    }

    #[inline(always)]
    pub(crate) fn add(&mut self, other: &Self) {
        unroll!(l in L => { self.columns[l] += other.columns[l]; });
        unroll!(j in CONV_TAPS => { self.extras[j] += other.extras[j]; });
    }
}

/// a·b + c in each lane.
#[inline(always)]
pub(crate) fn fma_lanes<const L: usize>(a: &[f32; L], b: &[f32; L], c: &mut [f32; L]) {
    unroll!(l in L => { c[l] = math::fma(a[l], b[l], c[l]); });
}

//! A seed's telemetry of an input alone: over all values together, or row by row and then over the rows.
//!
//! # Math
//! All together: two-pass moments within a group of vectors, merged by Chan's form of Welford's update, the
//! figures of the forward pass. By rows: for each row and seed the mean, the population variance (two
//! passes over values in registers where a chunk fits a warp's vectors, else as above), minimum, maximum,
//! dead ratio and signal-to-noise ratio of the chunk; then over the rows the mean of each figure, or the
//! largest. Rows whose chunk has no finite value are left out; where none is left, all six are NaN.
//! `count` and `nonfinite` are of all rows. All in f32.
//!
//! # Layout
//! | buffer | shape | type | access |
//! |---|---|---|---|
//! | `input` | `[batch, num_seeds · chunk_size]` row-major | f32, f16, bf16 | in, 16-byte aligned |
//! | `telemetry` | eight arrays `[num_seeds]` | f32, u32 | out, every element written |
//! | `partials` | `[num_seeds, slabs]` of 32 bytes | record | scratch |
//! | `arrivals` | `[groups]` | u32 | scratch, zero before and after |
//!
//! # Traffic
//! Reads each element once: batch · hidden · size bytes; about ten operations an element, and for rows a
//! butterfly of four figures for each row of a chunk. Bound by memory where chunks are long. f32, 4096 ×
//! 1000 × 64 at 4.24 TB/s: 247 µs. Measured: see `docs/performance.md`.
//!
//! # Launch
//! Blocks of 256 threads over a persistent grid, a group of seeds and a slab of rows at a time. A team of
//! lanes, as many as a chunk has vectors up to a warp, takes a seed; a warp's teams take neighbouring seeds,
//! its eight warps rows in turn, several of them in flight. Every thread meets every barrier and shuffle.
//!
//! # Determinism
//! Bitwise: warps merge in their order, slabs in theirs by the last block, whichever it is; the order
//! depends on shape and geometry only.
//!
//! # Source
//! Original; moments after Chan, Golub and LeVeque, 1979. Reference:
//! `kasmina_reference::kasmina::telemetry_by`.

use bytemuck::{Pod, Zeroable};
use kasmina_device::convert::Float;
use kasmina_device::global::{Load, Store, load_words, store_words};
use kasmina_device::vector::{LoadHint, Vector};
use kasmina_device::{grid, kernel, math, reduce, shared_array, thread, unroll, warp};
use kasmina_types::telemetry::{DEAD_THRESHOLD, SNR_EPSILON};
use kasmina_types::telemetry_reduce::TELEMETRY_REDUCE_PARTIAL_WORDS as WORDS;
use kasmina_types::tiles::{TELEMETRY_REDUCE_BLOCK_THREADS, TELEMETRY_REDUCE_MIN_BLOCKS};
use kasmina_types::{In, ReductionStrategy, TelemetryReduce, bf16, f16};

use super::moments::Moments;

const WARPS: usize = (TELEMETRY_REDUCE_BLOCK_THREADS / warp::WARP_SIZE) as usize;
const MOST_TEAMS: usize = warp::WARP_SIZE as usize;

/// What is gathered of a seed.
trait Gather<T: Float>: Pod {
    /// What the lane's warp sees of a seed in its rows of a slab. After [`Self::settle`] the team's first
    /// lane has it all.
    ///
    /// # Safety
    /// All lanes of the warp call it, of one block the warps; the lane's vectors are inside the chunk.
    unsafe fn walk<const L: usize, const U: usize>(p: &TelemetryReduce, lane: &Lane<T>) -> Self;
    /// The team's lanes as one.
    fn settle(self, p: &TelemetryReduce, team: u32) -> Self;
    /// Nothing seen.
    fn empty(p: &TelemetryReduce) -> Self;
    /// What the two have seen together.
    fn merge(self, other: Self, p: &TelemetryReduce) -> Self;
    /// Writes the seed's telemetry.
    ///
    /// # Safety
    /// `seed` is inside the arrays and this thread's alone.
    unsafe fn finish(self, p: &TelemetryReduce, seed: usize);
}

/// Where a lane stands.
struct Lane<T> {
    input: In<T>,
    /// Position in the team, and lanes of a team.
    in_team: u32,
    team: u32,
    /// The first element of the seed's chunk in row 0.
    start: usize,
    hidden: usize,
    /// Whether there is such a seed.
    works: bool,
    /// The first of the warp's turns, and their distance.
    turn: u32,
    turns: u32,
}

/// The kernel that gathers a `G` of elements of `T`, `L` of them an access, `U` accesses in flight.
///
/// # Safety
/// As [`TelemetryReduce`] says, with `chunk_size` a multiple of `L` and `L · size_of::<T>()` no more than
/// 16; every block of the grid runs it.
#[inline(always)]
unsafe fn telemetry_reduce<T: Float, G: Gather<T>, const L: usize, const U: usize>(
    p: TelemetryReduce,
) {
    const { assert!(size_of::<G>() <= 4 * WORDS) };
    let scratch = shared_array![u32; WARPS * MOST_TEAMS * WORDS];
    let (team, teams) = (1_u32 << p.team_shift, warp::WARP_SIZE >> p.team_shift);
    let (place, in_team) = (thread::lane_idx() >> p.team_shift, thread::lane_idx() & (team - 1));
    let warp_idx = thread::warp_idx();
    let groups = p.groups.max(1);

    let mut tile = thread::block_idx_x();
    while tile < groups * p.slabs {
        let (group, slab) = (tile % groups, tile / groups);
        let seed = group * teams + place;
        let lane = Lane {
            input: p.input.cast::<T>(),
            in_team,
            team,
            start: seed as usize * p.chunk_size as usize,
            hidden: p.num_seeds as usize * p.chunk_size as usize,
            works: seed < p.num_seeds,
            turn: slab * WARPS as u32 + warp_idx,
            turns: p.slabs * WARPS as u32,
        };
        // SAFETY: all lanes are here; a working lane's seed exists.
        let seen = unsafe { G::walk::<L, U>(&p, &lane) }.settle(&p, team);
        if in_team == 0 {
            // SAFETY: one lane a team writes, each its own place.
            unsafe {
                scratch.write_words((warp_idx as usize * MOST_TEAMS + place as usize) * WORDS, seen)
            };
        }
        // Orders the warps' figures before warp 0 merges them.
        thread::sync_threads();
        if warp_idx == 0 && in_team == 0 && lane.works {
            let mut merged = G::empty(&p);
            let mut w = 0;
            while w < WARPS {
                // SAFETY: every warp wrote its teams' places before the barrier.
                merged = merged.merge(
                    unsafe { scratch.read_words((w * MOST_TEAMS + place as usize) * WORDS) },
                    &p,
                );
                w += 1;
            }
            let part = seed as usize * p.slabs as usize + slab as usize;
            // SAFETY: one lane of one block writes the part's place.
            unsafe { store_words(&p.partials, part * WORDS, merged) };
        }
        // SAFETY: every thread arrives; each slab of the group arrives once. Its barriers order warp 0's
        // reads of the scratch before the next tile's writes.
        if unsafe { grid::arrive_is_last(&p.arrivals, group as usize, p.slabs) } && warp_idx == 0 {
            let mut merged = G::empty(&p);
            let mut part = in_team;
            while lane.works && part < p.slabs {
                let place = seed as usize * p.slabs as usize + part as usize;
                // SAFETY: all parts were stored before their blocks arrived.
                merged = merged.merge(unsafe { load_words(&p.partials, place * WORDS) }, &p);
                part += team;
            }
            let merged = reduce::warp_fold_width(merged, team, |a: G, b| a.merge(b, &p));
            if in_team == 0 && lane.works {
                // SAFETY: one lane of one block writes the seed's telemetry.
                unsafe { merged.finish(&p, seed as usize) };
            }
        }
        tile += thread::grid_dim_x();
    }
}

impl<T: Float> Lane<T> {
    /// The vector `index` of the chunk in `row`, in f32; zeros where the lane has none there.
    ///
    /// # Safety
    /// `row < batch` where `has` holds, and `index` is inside the chunk.
    #[inline(always)]
    unsafe fn load<const L: usize>(&self, row: u32, index: u32, has: bool) -> Vector<T, L> {
        if !has {
            return Vector([T::zeroed(); L]);
        }
        let at = row as usize * self.hidden + self.start + index as usize * L;
        // SAFETY: the caller's contract; rows and chunks are multiples of `L` elements.
        unsafe { self.input.load_vector(at, LoadHint::Streaming) }
    }

    /// The moments of the lane's share of one row.
    ///
    /// # Safety
    /// `row < batch`.
    #[inline(always)]
    unsafe fn row<const L: usize, const U: usize>(
        &self,
        p: &TelemetryReduce,
        row: u32,
        mut moments: Moments,
    ) -> Moments {
        let mut index = self.in_team;
        // Whole groups first, then singly.
        while self.works && index + (U as u32 - 1) * self.team < p.chunk_vectors {
            let mut group = [[0.0; L]; U];
            unroll!(u in U => {
                // SAFETY: the group's last index is inside the chunk.
                group[u] = unsafe { self.load::<L>(row, index + u as u32 * self.team, true) }
                    .map(T::to_f32)
                    .0;
            });
            moments = moments.absorb_group(&group);
            index += U as u32 * self.team;
        }
        while self.works && index < p.chunk_vectors {
            // SAFETY: the index is inside the chunk.
            let vector = unsafe { self.load::<L>(row, index, true) };
            moments = moments.absorb_group(&[vector.map(T::to_f32).0]);
            index += self.team;
        }
        moments
    }
}

impl<T: Float> Gather<T> for Moments {
    #[inline(always)]
    unsafe fn walk<const L: usize, const U: usize>(p: &TelemetryReduce, lane: &Lane<T>) -> Self {
        let mut moments = Self::EMPTY;
        if p.chunk_vectors > lane.team {
            let mut row = lane.turn;
            while row < p.batch {
                // SAFETY: `row < batch`.
                moments = unsafe { lane.row::<L, U>(p, row, moments) };
                row += lane.turns;
            }
            return moments;
        }
        if !lane.works || lane.in_team >= p.chunk_vectors {
            return moments;
        }
        let mut first = lane.turn * U as u32;
        while first + (U as u32 - 1) < p.batch {
            let mut group = [[0.0; L]; U];
            unroll!(u in U => {
                // SAFETY: the group's last row is below `batch`.
                group[u] = unsafe { lane.load::<L>(first + u as u32, lane.in_team, true) }
                    .map(T::to_f32)
                    .0;
            });
            moments = moments.absorb_group(&group);
            first += lane.turns * U as u32;
        }
        let mut row = first;
        // The ragged group, if it is this warp's.
        while row < p.batch {
            // SAFETY: `row < batch`.
            let vector = unsafe { lane.load::<L>(row, lane.in_team, true) };
            moments = moments.absorb_group(&[vector.map(T::to_f32).0]);
            row += 1;
        }
        moments
    }

    #[inline(always)]
    fn settle(self, _: &TelemetryReduce, team: u32) -> Self {
        reduce::warp_fold_width(self, team, Moments::merge)
    }

    #[inline(always)]
    fn empty(_: &TelemetryReduce) -> Self {
        Self::EMPTY
    }

    #[inline(always)]
    fn merge(self, other: Self, _: &TelemetryReduce) -> Self {
        Moments::merge(self, other)
    }

    #[inline(always)]
    unsafe fn finish(self, p: &TelemetryReduce, seed: usize) {
        // SAFETY: the caller's contract.
        unsafe { Moments::finish(self, &p.telemetry, seed) };
    }
}

/// The six figures of rows: their means, or the largest of each.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Rows {
    /// Rows with a finite value.
    rows: u32,
    nonfinite: u32,
    /// Mean, variance, minimum, maximum, dead ratio, signal-to-noise.
    figures: [f32; 6],
}

impl Rows {
    /// Of one row.
    #[inline(always)]
    fn of(
        p: &TelemetryReduce,
        [finite, nonfinite, dead]: [u32; 3],
        [mean, m2, min, max]: [f32; 4],
    ) -> Self {
        if finite == 0 {
            return Self { nonfinite, ..Self::nothing(p) };
        }
        let variance = m2 / finite as f32;
        let dead_ratio = dead as f32 / p.chunk_size as f32;
        let snr = mean.abs() / math::sqrt(variance + SNR_EPSILON);
        Self { rows: 1, nonfinite, figures: [mean, variance, min, max, dead_ratio, snr] }
    }

    #[inline(always)]
    fn nothing(p: &TelemetryReduce) -> Self {
        let none = if takes_largest(p) { f32::NEG_INFINITY } else { 0.0 };
        Self { rows: 0, nonfinite: 0, figures: [none; 6] }
    }

    #[inline(always)]
    fn join(self, other: Self, p: &TelemetryReduce) -> Self {
        let mut joined = Self {
            rows: self.rows + other.rows,
            nonfinite: self.nonfinite + other.nonfinite,
            ..self
        };
        let largest = takes_largest(p);
        // Weighted means, not sums: those of large figures overflow.
        let share = other.rows as f32 * math::rcp(joined.rows.max(1) as f32);
        unroll!(i in 6 => {
            let (a, b) = (self.figures[i], other.figures[i]);
            joined.figures[i] =
                if largest { math::max(a, b) } else { math::fma(b, share, a * (1.0 - share)) };
        });
        joined
    }

    /// Of `U` rows whose chunks have one vector for each lane: all lanes of a team get their seed's.
    ///
    /// # Safety
    /// All lanes of the warp call it.
    #[inline(always)]
    unsafe fn of_short<T: Float, const L: usize, const U: usize>(
        self,
        p: &TelemetryReduce,
        lane: &Lane<T>,
        rows: u32,
        values: &[[f32; L]; U],
    ) -> Self {
        let has = lane.works && lane.in_team < p.chunk_vectors;
        let mut sums = [0.0; U];
        unroll!(u in U => {
            unroll!(l in L => { sums[u] += values[u][l]; });
        });
        // A lane without a vector has zeros: nothing in a sum.
        sums = fold(sums, lane.team, |a, b| a + b);
        let mut finite = true;
        unroll!(u in U => { finite &= sums[u].abs() < f32::INFINITY; });
        let mut state = self;
        if !warp::all(warp::FULL_MASK, finite) {
            // A NaN, an infinity, or a sum that overflowed: the careful way, row by row.
            unroll!(u in U => {
                let own = if has {
                    Moments::EMPTY.absorb_group(&[values[u]])
                } else {
                    Moments::EMPTY
                };
                let (counts, figures) =
                    reduce::warp_fold_width(own, lane.team, Moments::merge).figures();
                if (u as u32) < rows {
                    state = state.join(Self::of(p, counts, figures), p);
                }
            });
            return state;
        }
        let share = 1.0 / p.chunk_size as f32;
        let (mut m2, mut min, mut max) = ([0.0; U], [f32::INFINITY; U], [f32::NEG_INFINITY; U]);
        let (mut dead, mut some_dead) = ([0.0; U], false);
        if has {
            unroll!(u in U => {
                let mean = sums[u] * share;
                unroll!(l in L => {
                    let x = values[u][l];
                    m2[u] = math::fma(x - mean, x - mean, m2[u]);
                    min[u] = math::min(min[u], x);
                    max[u] = math::max(max[u], x);
                    let is_dead = x.abs() < DEAD_THRESHOLD;
                    some_dead |= is_dead;
                    dead[u] += if is_dead { 1.0 } else { 0.0 };
                });
            });
        }
        m2 = fold(m2, lane.team, |a, b| a + b);
        min = fold(min, lane.team, math::min);
        max = fold(max, lane.team, math::max);
        // Few rows have any: they are counted only then.
        if warp::any(warp::FULL_MASK, some_dead) {
            dead = fold(dead, lane.team, |a, b| a + b);
        }
        unroll!(u in U => {
            if (u as u32) < rows {
                let counts = [p.chunk_size, 0, dead[u] as u32];
                let figures = [sums[u] * share, m2[u], min[u], max[u]];
                state = state.join(Self::of(p, counts, figures), p);
            }
        });
        state
    }
}

#[inline(always)]
fn takes_largest(p: &TelemetryReduce) -> bool {
    p.strategy == ReductionStrategy::Max as u32
}

/// Folds `U` values at a time over each team; `combine` commutes, so that all lanes get the same bits.
#[inline(always)]
fn fold<const U: usize>(
    mut values: [f32; U],
    team: u32,
    combine: impl Fn(f32, f32) -> f32,
) -> [f32; U] {
    let mut step = team / 2;
    while step > 0 {
        unroll!(u in U => {
            let other = warp::shuffle_xor(warp::FULL_MASK, values[u], step);
            values[u] = combine(values[u], other);
        });
        step /= 2;
    }
    values
}

impl<T: Float> Gather<T> for Rows {
    #[inline(always)]
    unsafe fn walk<const L: usize, const U: usize>(p: &TelemetryReduce, lane: &Lane<T>) -> Self {
        let mut state = Self::nothing(p);
        if p.chunk_vectors > lane.team {
            let mut row = lane.turn;
            while row < p.batch {
                // SAFETY: `row < batch`.
                let own = unsafe { lane.row::<L, U>(p, row, Moments::EMPTY) };
                let (counts, figures) =
                    reduce::warp_fold_width(own, lane.team, Moments::merge).figures();
                state = state.join(Self::of(p, counts, figures), p);
                row += lane.turns;
            }
            return state;
        }
        let has = lane.works && lane.in_team < p.chunk_vectors;
        let mut first = lane.turn * U as u32;
        while first < p.batch {
            let mut group = [[0.0; L]; U];
            unroll!(u in U => {
                let row = first + u as u32;
                // SAFETY: only rows below `batch`, and lanes that have a vector.
                group[u] = unsafe { lane.load::<L>(row, lane.in_team, has && row < p.batch) }
                    .map(T::to_f32)
                    .0;
            });
            // SAFETY: rows are the same for all lanes of the warp.
            state = unsafe { state.of_short(p, lane, p.batch - first, &group) };
            first += lane.turns * U as u32;
        }
        state
    }

    #[inline(always)]
    fn settle(self, _: &TelemetryReduce, _: u32) -> Self {
        self
    }

    #[inline(always)]
    fn empty(p: &TelemetryReduce) -> Self {
        Self::nothing(p)
    }

    #[inline(always)]
    fn merge(self, other: Self, p: &TelemetryReduce) -> Self {
        self.join(other, p)
    }

    #[inline(always)]
    unsafe fn finish(self, p: &TelemetryReduce, seed: usize) {
        let mut figures = self.figures;
        if self.rows == 0 {
            figures = [f32::NAN; 6];
        }
        let [mean, variance, min, max, dead_ratio, snr] = figures;
        // SAFETY: the caller's contract.
        unsafe {
            p.telemetry.count.store(seed, p.batch * p.chunk_size);
            p.telemetry.mean.store(seed, mean);
            p.telemetry.variance.store(seed, variance);
            p.telemetry.min.store(seed, min);
            p.telemetry.max.store(seed, max);
            p.telemetry.dead_ratio.store(seed, dead_ratio);
            p.telemetry.snr.store(seed, snr);
            p.telemetry.nonfinite.store(seed, self.nonfinite);
        }
    }
}

macro_rules! instance {
    ($all:ident, $rows:ident, $element:ty, $dtype:ident, $lanes:literal, $vectors:literal,
     $row_vectors:literal) => {
        /// The telemetry of all values together, for one element type and access width.
        ///
        /// # Safety
        /// As [`TelemetryReduce`] says, with a chunk size that is a multiple of the instance's lanes.
        #[kernel(block = TELEMETRY_REDUCE_BLOCK_THREADS, min_blocks = TELEMETRY_REDUCE_MIN_BLOCKS)]
        pub unsafe fn $all(p: TelemetryReduce) {
            // SAFETY: the entry's contract.
            unsafe { telemetry_reduce::<$element, Moments, $lanes, $vectors>(p) }
        }

        /// The mean or the largest of the rows' figures, for one element type and access width.
        ///
        /// # Safety
        /// As [`TelemetryReduce`] says, with a chunk size that is a multiple of the instance's lanes.
        #[kernel(block = TELEMETRY_REDUCE_BLOCK_THREADS, min_blocks = TELEMETRY_REDUCE_MIN_BLOCKS)]
        pub unsafe fn $rows(p: TelemetryReduce) {
            // SAFETY: the entry's contract.
            unsafe { telemetry_reduce::<$element, Rows, $lanes, $row_vectors>(p) }
        }
    };
}

kasmina_types::telemetry_reduce_tiles!(instance);

//! A pass over rows that lie in registers: each row is read once, and gives its residual and its share of Jᵀ(π·r).
//!
//! A thread holds its columns of `DEPTH` rows: one group of rows is reduced to residuals and added to the thread's
//! columns while the next are on their way. Where a team has no more than `DEPTH` rows, they stay there from one pass to
//! the next.

use kasmina_device::global::Load;
use kasmina_device::shared::DynamicShared;
use kasmina_device::vector::{LoadHint, Vector};
use kasmina_device::{hint, math, shared_array, thread, unroll, warp};
use kasmina_types::{ActiveInference, In};

use super::sweep::{
    Pass, Share, Sweep, WARPS, WINDOW, here, lane_sum, merge, numbers, row_of, stage, turns,
};
use crate::information::scalar::Scalar;

/// The most rows of a group.
const MOST_ROWS: usize = 4;

/// [`kasmina_device::unroll!`] up to four turns: nested, the copies multiply.
macro_rules! unroll_4 {
    ($i:ident in $count:expr => $body:block) => {{
        const { assert!($count <= 4, "at most four turns are written out") };
        unroll_4!(@ $i, $count, $body, 0, 1, 2, 3);
    }};
    (@ $i:ident, $count:expr, $body:block, $($index:literal),*) => {
        $(if $index < $count {
            let $i: usize = $index;
            $body
        })*
    };
}

/// Teams of `TEAM` warps. A thread holds `P` vectors of `L` elements of each of `DEPTH` rows, and `GROUP` rows are
/// reduced together. For models of up to `TEAM` · 32 · `L` · `P` states.
///
/// A driver's own compiler may need some registers more than the newest: the depth leaves it room.
pub struct Teams<
    T,
    const L: usize,
    const P: usize,
    const TEAM: usize,
    const DEPTH: usize,
    const GROUP: usize,
>(core::marker::PhantomData<T>);

/// What a thread keeps: its columns of some rows, and the numbers of the rows of some turns.
pub struct Held<T, const L: usize, const P: usize, const DEPTH: usize> {
    rows: [[Vector<T, L>; P]; DEPTH],
    /// π and o − b of turn [`WINDOW`]·w + lane, for the window w that the team is in.
    numbers: [f64; 2],
}

impl<
    T: Scalar,
    const L: usize,
    const P: usize,
    const TEAM: usize,
    const DEPTH: usize,
    const GROUP: usize,
> Teams<T, L, P, TEAM, DEPTH, GROUP>
{
    const TEAM_THREADS: usize = TEAM * warp::WARP_SIZE as usize;
    /// States that a team has room for.
    const CAPACITY: usize = Self::TEAM_THREADS * L * P;
    const TEAMS: usize = WARPS / TEAM;

    /// Turns that a team goes through, of which it has `count`. Teams of several warps all go through as many, the last
    /// one with rows of weight 0 if need be: a race checker does not follow named barriers that are met unequally often.
    #[inline(always)]
    fn rounds(share: &Share, count: u32) -> u32 {
        if TEAM > 1 { turns(share, Self::TEAMS, 0) } else { count }
    }

    /// The thread's team, and its place there.
    #[inline(always)]
    fn place() -> (usize, usize) {
        let tid = here();
        (tid / Self::TEAM_THREADS, tid % Self::TEAM_THREADS)
    }

    /// The thread's columns of a turn's row.
    ///
    /// # Safety
    /// As [`Sweep::pass`]; the team has that turn.
    #[inline(always)]
    unsafe fn fetch<const C: bool>(
        p: &ActiveInference<C>,
        share: &Share,
        team: usize,
        t: usize,
        turn: u32,
    ) -> [Vector<T, L>; P] {
        let jacobian: In<T, C> = p.jacobian.cast();
        let stride = hint::opaque(p.stride) as usize;
        let row = row_of(p, share, Self::TEAMS, team, turn) * stride;
        let mut columns = [Vector::splat(T::ZERO); P];
        unroll_4!(v in P => {
            let column = (v * Self::TEAM_THREADS + t) * L;
            if column < stride {
                // SAFETY: the row is the model's, the vector inside it and aligned, as rows are.
                columns[v] = unsafe { jacobian.load_vector(row + column, LoadHint::Streaming) };
            }
        });
        columns
    }
}

impl<
    T: Scalar,
    const L: usize,
    const P: usize,
    const TEAM: usize,
    const DEPTH: usize,
    const GROUP: usize,
> Sweep for Teams<T, L, P, TEAM, DEPTH, GROUP>
{
    type Held = Held<T, L, P, DEPTH>;

    #[inline(always)]
    fn nothing<const C: bool>(_: &ActiveInference<C>) -> Self::Held {
        Held { rows: [[Vector::splat(T::ZERO); P]; DEPTH], numbers: [0.0; 2] }
    }

    #[inline(always)]
    unsafe fn hold<const C: bool>(
        p: &ActiveInference<C>,
        share: &Share,
        pass: &Pass,
        held: &mut Self::Held,
    ) {
        let (team, t) = Self::place();
        let count = turns(share, Self::TEAMS, team);
        if pass.first || count > DEPTH as u32 {
            unroll_4!(d in DEPTH => {
                if (d as u32) < count {
                    // SAFETY: the caller's contract; the team has the turn.
                    held.rows[d] = unsafe { Self::fetch(p, share, team, t, d as u32) };
                }
            });
        }
        if pass.first || Self::rounds(share, count) > WINDOW as u32 {
            // SAFETY: as above.
            held.numbers = unsafe { numbers(p, share, pass, Self::TEAMS, team, 0) };
        }
    }

    #[inline(always)]
    unsafe fn pass<const C: bool>(
        p: &ActiveInference<C>,
        share: &Share,
        pass: &Pass,
        held: &mut Self::Held,
        spread: &mut f64,
        emit: impl FnMut(usize, f64),
    ) -> f64 {
        const {
            assert!(DEPTH.is_multiple_of(GROUP) && WINDOW.is_multiple_of(DEPTH));
            assert!(L * P <= 8 && GROUP <= MOST_ROWS && WARPS.is_multiple_of(TEAM));
        };
        let (team_threads, teams) = (Self::TEAM_THREADS, Self::TEAMS);
        let capacity = Self::CAPACITY;
        let (team, t) = Self::place();
        let count = turns(share, Self::TEAMS, team);
        let rounds = Self::rounds(share, count);

        let staged = DynamicShared::<f64>::whole();
        // SAFETY: the caller's contract; the launch has room for both vectors.
        unsafe { stage(p, share, pass, &staged, capacity) };

        let dots_smem = shared_array![f64; 2 * WARPS * MOST_ROWS];
        let mut sums = [[0.0_f64; L]; P];
        let (mut misfit, mut parity) = (0.0, 0);
        let (mut k, mut window) = (0_u32, 0_u32);
        while k < rounds {
            unroll_4!(g in DEPTH / GROUP => {
                // The same for the whole team.
                if k + ((g * GROUP) as u32) < rounds {
                    let mut dots = [0.0_f64; GROUP];
                    // Beside them, for chains of half the length.
                    let mut odds = [0.0_f64; GROUP];
                    let mut spreads = [0.0_f64; GROUP];
                    unroll_4!(q in L * P / 2 => {
                        // Two columns of one vector.
                        let (v, l) = (2 * q / L, 2 * q % L);
                        let at = (v * team_threads + t) * L + l;
                        // SAFETY: inside what was staged; even, as vectors are.
                        let x = unsafe { staged.read_vector::<2>(at) }.0;
                        unroll_4!(r in GROUP => {
                            let j = held.rows[g * GROUP + r][v].0;
                            dots[r] = math::fma_f64(j[l].wide(), x[0], dots[r]);
                            odds[r] = math::fma_f64(j[l + 1].wide(), x[1], odds[r]);
                        });
                        if pass.first && pass.observes {
                            // SAFETY: as above.
                            let s = unsafe { staged.read_vector::<2>(capacity + at) }.0;
                            unroll_4!(r in GROUP => {
                                let j = held.rows[g * GROUP + r][v].0;
                                let (a, b) = (j[l].wide(), j[l + 1].wide());
                                spreads[r] = math::fma_f64(a * a, s[0], spreads[r]);
                                spreads[r] = math::fma_f64(b * b, s[1], spreads[r]);
                            });
                        }
                    });
                    unroll_4!(r in GROUP => {
                        dots[r] = lane_sum(dots[r] + odds[r], warp::WARP_SIZE);
                    });
                    if TEAM > 1 {
                        let (lane, member) = (thread::lane_idx(), t / warp::WARP_SIZE as usize);
                        let base = ((parity * teams + team) * GROUP) * TEAM;
                        if lane == 0 {
                            unroll_4!(r in GROUP => {
                                // SAFETY: one lane a warp; the reads of the group before last lie before the
                                // last barrier.
                                unsafe { dots_smem.write(base + r * TEAM + member, dots[r]) };
                            });
                        }
                        // Orders the team's dots before its reads; the next group uses the other half.
                        thread::sync_team(1 + team as u32, team_threads as u32);
                        unroll_4!(r in GROUP => {
                            let (mut total, mut other, mut i) = (0.0, 0.0, 0);
                            while i < TEAM {
                                // SAFETY: every warp of the team wrote its place before the barrier.
                                let pair: [f64; 2] = unsafe {
                                    dots_smem.read_vector::<2>(base + r * TEAM + i)
                                }
                                .0;
                                total += pair[0];
                                other += pair[1];
                                i += 2;
                            }
                            let total = total + other;
                            dots[r] = total;
                        });
                        parity ^= 1;
                    }
                    unroll_4!(r in GROUP => {
                        let turn = k + (g * GROUP + r) as u32;
                        let source = turn - window;
                        let [weight, target]: [f64; 2] =
                            warp::shuffle(warp::FULL_MASK, held.numbers, source);
                        // Beyond the team's last turn the weight is 0.
                        let residual = target - dots[r];
                        let weighted = weight * residual;
                        if t == 0 {
                            misfit = math::fma_f64(weighted, residual, misfit);
                        }
                        *spread = math::fma_f64(weight, spreads[r], *spread);
                        unroll!(c in L * P => {
                            let j = held.rows[g * GROUP + r][c / L].0[c % L].wide();
                            sums[c / L][c % L] =
                                math::fma_f64(weighted, j, sums[c / L][c % L]);
                        });
                        if turn + (DEPTH as u32) < count {
                            // SAFETY: the caller's contract; the team has the turn.
                            held.rows[g * GROUP + r] =
                                unsafe { Self::fetch(p, share, team, t, turn + DEPTH as u32) };
                        }
                    });
                }
            });
            k += DEPTH as u32;
            if k - window == WINDOW as u32 && k < rounds {
                window = k;
                // SAFETY: the caller's contract.
                held.numbers = unsafe { numbers(p, share, pass, teams, team, k) };
            }
        }

        // All have read the staged vectors, whose place the teams' sums take.
        thread::sync_threads();
        let (team, t) = Self::place();
        unroll!(c in L * P => {
            let column = (c / L * team_threads + t) * L + c % L;
            // SAFETY: the column is this thread's in its team.
            unsafe { staged.write(team * capacity + column, sums[c / L][c % L]) };
        });
        // Orders the teams' sums before their merge.
        thread::sync_threads();
        // SAFETY: every thread is here, behind the barrier.
        unsafe { merge(p, &staged, teams, capacity, emit) };
        misfit
    }
}

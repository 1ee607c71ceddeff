//! How rows are given to teams of threads.

use kasmina_types::NormPlan;
use kasmina_types::tiles::NORM_BLOCK_THREADS;

use super::activation_norm::ActivationNormOptions;

/// Vectors that a thread should have before another thread joins its team, within a warp: enough loads
/// on their way, and neighbouring threads on neighbouring addresses.
const WORTH: u32 = 4;

/// The plan for rows of `vectors` vectors, of which a thread can hold `most`.
pub(super) fn plan(
    rows: u32,
    vectors: u32,
    most: u32,
    options: &ActivationNormOptions,
) -> NormPlan {
    // A warp needs no barrier, so rows stay a warp's as long as its registers hold them.
    let team = if vectors <= 32 * most {
        vectors.div_ceil(most.min(WORTH)).next_power_of_two().min(32)
    } else {
        vectors.div_ceil(most).next_power_of_two().min(NORM_BLOCK_THREADS)
    };
    let depth = vectors.div_ceil(team).min(most);
    NormPlan {
        rows,
        vectors,
        team,
        depth,
        chunks: vectors.div_ceil(team * depth),
        activation: options.activation as u32,
        norm: options.norm as u32,
        order: options.order as u32,
        epsilon: options.epsilon,
    }
}

/// Blocks that all rows together keep busy.
pub(super) fn blocks(plan: &NormPlan, resident: u32) -> u32 {
    plan.rows.div_ceil(NORM_BLOCK_THREADS / plan.team).clamp(1, resident.max(1))
}

/// Slabs of a backward pass, each with a block for each chunk.
pub(super) fn slabs(plan: &NormPlan, resident: u32) -> u32 {
    blocks(plan, (resident / plan.chunks).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_cover_every_row_with_whole_teams() {
        for most in [2, 4, 8] {
            for vectors in (1..3000).chain([4096, 5000, 16_384, 100_000]) {
                let plan = plan(10, vectors, most, &ActivationNormOptions::default());
                assert!(plan.team.is_power_of_two() && plan.team <= NORM_BLOCK_THREADS);
                assert!((1..=most).contains(&plan.depth), "{plan:?}");
                assert!(plan.team * plan.depth * plan.chunks >= vectors, "{plan:?}");
                assert!(plan.team * plan.depth * (plan.chunks - 1) < vectors, "{plan:?}");
                // Only what the largest team cannot hold is cut into chunks.
                assert_eq!(plan.chunks > 1, vectors > NORM_BLOCK_THREADS * most, "{plan:?}");
            }
        }
    }

    #[test]
    fn short_rows_share_a_block_and_long_ones_have_one() {
        let team = |vectors| plan(1, vectors, 8, &ActivationNormOptions::default()).team;
        assert_eq!(
            [1, 4, 5, 64, 256, 257, 1024, 2048, 9000].map(team),
            [1, 1, 2, 16, 32, 64, 128, 256, 256]
        );
    }

    #[test]
    fn no_more_blocks_than_rows_need_or_the_device_holds() {
        let of = |rows, vectors| plan(rows, vectors, 8, &ActivationNormOptions::default());
        assert_eq!(blocks(&of(100, 1), 264), 1);
        assert_eq!(blocks(&of(100, 2048), 264), 100);
        assert_eq!(blocks(&of(5000, 2048), 264), 264);
        assert_eq!(slabs(&of(5000, 4 * 2048), 264), 66);
        assert_eq!(slabs(&of(5000, 1000 * 2048), 264), 1);
    }
}

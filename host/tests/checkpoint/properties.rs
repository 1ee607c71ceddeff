//! What holds for every checkpoint and for any bytes.

use super::*;

fn states() -> impl Strategy<Value = Checkpoint> {
    let finite = || any::<f32>().prop_filter("finite", |v| v.is_finite());
    (1..6_usize, 0..4_usize, 1..7_usize).prop_flat_map(move |(s, p, c)| {
        use prop::collection::vec;
        let loss =
            prop_oneof![finite(), any::<u32>().prop_map(|b| f32::from_bits(b | 0x7fc0_0000))];
        let seeds = (
            vec(0..11_u8, s),
            vec(0..p.max(1) as u16, s),
            vec(finite(), s),
            vec(0..4_u8, s),
            vec(0.0..=1.0_f32, s),
            vec(1..u32::MAX, s),
        );
        let counts = vec(any::<u32>(), 3 * s);
        let drifts = (vec(loss, s), vec(finite(), 5 * s));
        let blueprints = (vec(0..5_u8, p), vec(finite(), p * c), vec(finite(), p));
        let metadata =
            (any::<u64>(), any::<u64>(), prop::collection::btree_map("x[^\0]{0,3}", ".*", 0..3));
        (seeds, counts, drifts, blueprints, metadata).prop_map(
            move |(seeds, counts, drifts, blueprints, metadata)| {
                let (lifecycle, blueprint_id, alpha, schedule, alpha_target, ramp_epochs) = seeds;
                let (blueprint_type, blueprint_weights, blueprint_scales) = blueprints;
                let (baseline_loss, drift_history) = drifts;
                let states = SeedStates {
                    lifecycle,
                    blueprint_id,
                    alpha,
                    blueprint_type,
                    blueprint_weights,
                    blueprint_scales,
                    chunk_size: c,
                };
                let graft = GraftStates {
                    schedule,
                    alpha_target,
                    ramp_epochs,
                    epochs_in_state: counts[..s].to_vec(),
                    baseline_loss,
                    drift_history,
                    drift_count: counts[s..2 * s].to_vec(),
                    embargo_epochs: counts[2 * s..].to_vec(),
                };
                let (step, epoch, extra) = metadata;
                let mut checkpoint = Checkpoint::new(states, graft, step, epoch);
                checkpoint.metadata.extra = extra;
                checkpoint
            },
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_checkpoint_comes_back_bit_for_bit(checkpoint in states()) {
        let bytes = checkpoint.to_bytes().unwrap();
        let again = read(bytes).unwrap();
        prop_assert_eq!(bits(&again), bits(&checkpoint));
    }

    #[test]
    fn any_mutation_is_refused_or_means_the_same(
        checkpoint in states(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..9),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = checkpoint.to_bytes().unwrap();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        same_or_refused(&checkpoint, bytes, || "changed bytes".into());
    }

    #[test]
    fn any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(read(bytes).is_err());
    }
}

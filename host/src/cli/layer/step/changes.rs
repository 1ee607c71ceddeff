//! What a step changed.

use kasmina_types::SeedLifecycle;
use serde::Serialize;

use crate::kasmina::checkpoint::Checkpoint;

/// What became of a seed; each pair is before and after.
#[derive(Serialize)]
pub(super) struct Change {
    seed: usize,
    state: [&'static str; 2],
    blueprint: [u16; 2],
    alpha: [f32; 2],
    embargo_epochs: [u32; 2],
    epochs_in_state: [u32; 2],
}

/// The seeds of which more changed than the count of their epochs.
pub(super) fn between(before: &Checkpoint, after: &Checkpoint) -> Vec<Change> {
    let both = [before, after];
    let name = |byte| {
        SeedLifecycle::from_u8(byte).expect("the states were checked when they were read").name()
    };
    (0..before.states.num_seeds())
        .map(|seed| Change {
            seed,
            state: both.map(|c| name(c.states.lifecycle[seed])),
            blueprint: both.map(|c| c.blueprint_of(seed)),
            alpha: both.map(|c| c.states.alpha[seed]),
            embargo_epochs: both.map(|c| c.graft.embargo_epochs[seed]),
            epochs_in_state: both.map(|c| c.graft.epochs_in_state[seed]),
        })
        .filter(|change| {
            let Change { state, blueprint, alpha, embargo_epochs, .. } = change;
            state[0] != state[1]
                || blueprint[0] != blueprint[1]
                || alpha[0].to_bits() != alpha[1].to_bits()
                || embargo_epochs[0] != embargo_epochs[1]
        })
        .collect()
}

impl Change {
    /// Seed, state, blueprint, α and embargo; an arrow where they changed.
    pub(super) fn cells(&self) -> [String; 5] {
        [
            self.seed.to_string(),
            arrow(&self.state),
            arrow(&self.blueprint),
            arrow(&self.alpha),
            arrow(&self.embargo_epochs),
        ]
    }
}

fn arrow<T: ToString>([before, after]: &[T; 2]) -> String {
    let (before, after) = (before.to_string(), after.to_string());
    if before == after { after } else { format!("{before} → {after}") }
}

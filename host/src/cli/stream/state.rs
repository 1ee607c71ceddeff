//! The state of the layer that a stream goes through.

use std::num::NonZeroUsize;
use std::path::Path;

use anyhow::anyhow;
use kasmina_types::{BlueprintType, SeedLifecycle};

use crate::buffer::host;
use crate::cli::Failure;
use crate::error::Error;
use crate::kasmina::SeedStates;
use crate::kasmina::checkpoint;
use crate::kasmina::files::TensorFile;

/// What the arguments say of the state.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) state: Option<&'a Path>,
    pub(super) seeds: Option<NonZeroUsize>,
    pub(super) chunk: Option<NonZeroUsize>,
}

/// Seeds and columns that are asked for at most: what a pass counts in 32 bits.
const MOST_COLUMNS: usize = u32::MAX as usize;

impl Asked<'_> {
    /// That of the state file, else that of the input if it has one, else seeds that are all active. `columns` are those of
    /// the input, where it has some.
    pub(super) fn states(
        self,
        input: Option<&TensorFile>,
        columns: Option<usize>,
    ) -> Result<SeedStates, Failure> {
        if let Some(path) = self.state {
            let states = checkpoint::load_states(path).map_err(Failure::usage)?;
            return self.agreeing(states, path);
        }
        if let Some(file) = input.filter(|file| has_state(file)) {
            let states = checkpoint::states_of(file).map_err(Failure::usage)?;
            return self.agreeing(states, file.path());
        }
        let usage = |text: String| Err(Failure::usage(anyhow!(text)));
        let chunk_of = |seeds: usize| match (self.chunk, columns) {
            (Some(chunk), _) => Some(chunk.get()),
            (None, Some(columns)) if columns.is_multiple_of(seeds) => Some(columns / seeds),
            _ => None,
        };
        match (self.seeds, self.seeds.and_then(|seeds| chunk_of(seeds.get()))) {
            (Some(seeds), Some(chunk)) => {
                let seeds = seeds.get();
                if seeds.checked_mul(chunk).is_none_or(|columns| columns > MOST_COLUMNS) {
                    return usage(format!(
                        "--seeds {seeds} and --chunk {chunk} make more than {MOST_COLUMNS} columns"
                    ));
                }
                Ok(residual(seeds, chunk)?)
            }
            (Some(seeds), None) if columns.is_some() => {
                let columns = columns.unwrap_or_default();
                usage(format!("{columns} columns are no multiple of --seeds {seeds}"))
            }
            _ => usage(match input {
                Some(file) => format!(
                    "{}: has no state of a layer; give --state FILE, or --seeds N",
                    file.path().display()
                ),
                None => "standard input needs --state FILE, or --seeds N and --chunk N".to_owned(),
            }),
        }
    }

    /// Refuses another shape than that which was asked for.
    fn agreeing(self, states: SeedStates, path: &Path) -> Result<SeedStates, Failure> {
        let of_state = [states.num_seeds(), states.chunk_size];
        for ((option, asked), got) in
            [("--seeds", self.seeds), ("--chunk", self.chunk)].into_iter().zip(of_state)
        {
            if let Some(asked) = asked.filter(|asked| asked.get() != got) {
                let path = path.display();
                return Err(Failure::usage(anyhow!(
                    "{path}: its state has {got}, not {option} {asked}"
                )));
            }
        }
        Ok(states)
    }
}

/// Whether the file has a part of a layer's state, all of which it must have then.
fn has_state(file: &TensorFile) -> bool {
    [
        "lifecycle",
        "blueprint_id",
        "alpha",
        "blueprint_type",
        "blueprint_weights",
        "blueprint_scales",
    ]
    .iter()
    .any(|name| file.raw(name).is_some())
}

/// Every seed grafts the one blueprint, a RESIDUAL_BLOCK, with α from 1/8 to 7/8.
fn residual(num_seeds: usize, chunk_size: usize) -> Result<SeedStates, Error> {
    let weights = 2 * chunk_size;
    host::check_room(num_seeds.saturating_mul(8).saturating_add(weights.saturating_mul(4)))?;
    let weight = |i: usize| if i.is_multiple_of(3) { -0.25 } else { 0.5 };
    Ok(SeedStates {
        lifecycle: vec![SeedLifecycle::Grafting as u8; num_seeds],
        blueprint_id: vec![1; num_seeds],
        alpha: (0..num_seeds).map(|seed| (1 + seed % 7) as f32 / 8.0).collect(),
        // Blueprint 0's type is not read.
        blueprint_type: vec![BlueprintType::ResidualBlock as u8; 2],
        blueprint_weights: (0..weights).map(weight).collect(),
        blueprint_scales: vec![1.0; 2],
        chunk_size,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_is_active_in_a_state_that_is_right() {
        let states = residual(30, 3).unwrap();
        states.check().unwrap();
        assert!(states.lifecycle.iter().all(|&state| state == SeedLifecycle::Grafting as u8));
        assert!(states.alpha.iter().all(|alpha| (0.1..0.9).contains(alpha)));
    }
}

//! A state to time passes on: some seeds of each kind of work.

use kasmina_types::{BlueprintType, SeedLifecycle};
use rayon::prelude::*;

use super::state::SeedStates;
use crate::buffer::host;
use crate::error::Error;

/// Blueprints of [`third_grafting`], 'none' among them.
pub(crate) const BLUEPRINTS: usize = 1 + BlueprintType::ALL.len();

/// Every third seed grafts, the five blueprint types in turn, with α from 1/8 to 7/8 and weights of both signs; the
/// others are dormant.
///
/// # Errors
/// No memory.
pub(crate) fn third_grafting(num_seeds: usize, chunk_size: usize) -> Result<SeedStates, Error> {
    let types = BlueprintType::ALL;
    let grafts = |seed: usize| seed.is_multiple_of(3);
    let lifecycle = |seed| {
        let state = if grafts(seed) { SeedLifecycle::Grafting } else { SeedLifecycle::Dormant };
        state as u8
    };
    let blueprint_id = |seed| if grafts(seed) { 1 + (seed / 3 % types.len()) as u16 } else { 0 };
    let alpha = |seed: usize| (1 + seed % 7) as f32 / 8.0;
    let weight = |i: usize| if i.is_multiple_of(3) { -0.25 } else { 0.5 };
    let seeds = (0..num_seeds).into_par_iter();
    Ok(SeedStates {
        lifecycle: host::collect(seeds.clone().map(lifecycle))?,
        blueprint_id: host::collect(seeds.clone().map(blueprint_id))?,
        alpha: host::collect(seeds.map(alpha))?,
        // Blueprint 0's type is not read.
        blueprint_type: [types[0]].iter().chain(&types).map(|&kind| kind as u8).collect(),
        blueprint_weights: host::collect((0..BLUEPRINTS * chunk_size).into_par_iter().map(weight))?,
        blueprint_scales: vec![1.0; BLUEPRINTS],
        chunk_size,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_third_of_the_seeds_graft_all_types_in_a_state_that_is_right() {
        let states = third_grafting(30, 3).unwrap();
        states.check().unwrap();
        let grafting = |seed: &usize| states.lifecycle[*seed] == SeedLifecycle::Grafting as u8;
        let seeds: Vec<_> = (0..30).filter(grafting).collect();
        assert_eq!(seeds.len(), 10);
        let kind = |seed: &usize| states.blueprint_type[usize::from(states.blueprint_id[*seed])];
        assert_eq!(seeds.iter().map(kind).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]);
        assert!(states.alpha.iter().all(|alpha| (0.0..1.0).contains(alpha)));
    }
}

//! What a layer does to its seeds once a step or an epoch, as cases: schedules, state updates, clipping.
//!
//! All of it is small: a launch, and operands that the step before has left in the cache. So these are timed
//! warm alone.

use kasmina_reference::kasmina::{self as reference, Clip, Epoch, FieldValues, ParameterGradients};
use kasmina_reference::numeric::{Dtype, Tolerance};
use kasmina_types::seed_state::field;
use kasmina_types::{BlueprintType, SeedLifecycle, StateUpdate};

use super::data;
use super::timer::{Cache, Lane, Mode};
use super::{BenchError, Prepared, within};
use crate::buffer::Buffer;
use crate::device::Device;
use crate::error::Error;
use crate::kasmina::{
    ClipMode, ClipTargets, EpochBuffers, EpochValues, GradientClip, GraftSchedule, GraftStates,
    LayerState, SeedStates, StateUpdates,
};

/// What is done to the seeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    /// An epoch of seeds that all graft, by the four schedules in turn.
    Schedule,
    /// An update of α and its target for each seed, with its answer read back.
    Update,
    /// One step's gradients, clipped.
    Clip(Kind),
}

/// How gradients are clipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Value,
    Norm,
    Adaptive,
}

impl Work {
    pub(super) const ALL: [Self; 5] = [
        Self::Schedule,
        Self::Update,
        Self::Clip(Kind::Value),
        Self::Clip(Kind::Norm),
        Self::Clip(Kind::Adaptive),
    ];

    pub(super) fn kernel(self) -> &'static str {
        match self {
            Self::Schedule => "graft_schedule",
            Self::Update => "state_update",
            Self::Clip(Kind::Value) => "gradient_clip_value",
            Self::Clip(Kind::Norm) => "gradient_clip_norm",
            Self::Clip(Kind::Adaptive) => "gradient_clip_adaptive",
        }
    }

    /// What is special about the seeds: all graft, or each has a blueprint of its own.
    pub(super) fn variant(self) -> &'static str {
        match self {
            Self::Schedule | Self::Update => "grafting",
            Self::Clip(_) => "own",
        }
    }

    /// Bytes that have to move, each array read or written once.
    pub(super) fn bytes(self, [seeds, chunk]: [usize; 2]) -> u64 {
        let each = match self {
            // Lifecycle and schedule; ramp, target and figure; α and two counts, read and written.
            Self::Schedule => 2 + 3 * 4 + 3 * 8,
            // The record, and its answer.
            Self::Update => size_of::<StateUpdate>() + 5,
            // Weights, scale and α, read and written, and the seed's blueprint.
            Self::Clip(_) => 8 * (chunk + 2) + 2,
        };
        (seeds * each) as u64
    }

    /// How it is timed. A batch of updates is answered to the host, which no graph can do.
    pub(super) fn lanes(self, device: &Device) -> Vec<Lane> {
        let modes: &[Mode] = match (device, self) {
            (Device::Cuda(_), Self::Schedule | Self::Clip(_)) => &[Mode::Event, Mode::Graph],
            _ => &[Mode::Wall],
        };
        modes.iter().map(|&mode| Lane { mode, cache: Cache::Warm }).collect()
    }
}

/// Makes the state of `[seeds, chunk]` and checks one result.
pub(super) fn prepare(
    device: &Device,
    work: Work,
    shape: [usize; 2],
) -> Result<Prepared, BenchError> {
    match work {
        Work::Schedule => schedule(device, shape),
        Work::Update => update(device, shape),
        Work::Clip(kind) => clip(device, shape, kind),
    }
}

/// Seeds that graft, each with a blueprint of its own.
fn grafting([seeds, chunk]: [usize; 2]) -> SeedStates {
    let kind = |id: usize| BlueprintType::ALL[id % BlueprintType::ALL.len()] as u8;
    SeedStates {
        lifecycle: vec![SeedLifecycle::Grafting as u8; seeds],
        blueprint_id: (1..=seeds as u16).collect(),
        alpha: units(1, seeds).map(|unit| 0.5 * unit).collect(),
        blueprint_type: (0..=seeds).map(kind).collect(),
        blueprint_weights: data::draw(2, (seeds + 1) * chunk),
        blueprint_scales: vec![1.0; seeds + 1],
        chunk_size: chunk,
    }
}

/// Random values of 0 to 1.
fn units(seed: u64, len: usize) -> impl Iterator<Item = f32> {
    (0..len as u64).map(move |i| (data::bits(seed, i) >> 40) as f32 / (1 << 24) as f32)
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| value.into()).collect()
}

fn ready(call: impl FnMut(usize) -> Result<(), Error> + 'static, max_rel_error: f64) -> Prepared {
    let tolerance = Tolerance::for_dtype(Dtype::F32, 1).limit();
    Prepared { call: Box::new(call), sets: 1, max_rel_error, tolerance }
}

fn schedule(device: &Device, shape: [usize; 2]) -> Result<Prepared, BenchError> {
    let [seeds, _] = shape;
    let states = grafting(shape);
    let graft = GraftStates {
        schedule: (0..seeds).map(|seed| (seed % 4) as u8).collect(),
        // α rises as long as anything is measured.
        ramp_epochs: vec![1 << 20; seeds],
        ..GraftStates::new(seeds)
    };
    let brings = EpochValues {
        loss: units(3, seeds).collect(),
        drift: units(4, seeds).map(|unit| 0.2 * unit).collect(),
        gradient_norm: units(5, seeds).map(|unit| 1.5 * unit).collect(),
    };
    let mut state = LayerState::with_graft(device, states.clone(), graft.clone())?;
    let mut epoch = EpochBuffers::new(device, seeds)?;
    epoch.write(&brings)?;
    let mut schedule = GraftSchedule::new(device, seeds)?;
    schedule.run(&mut state, &epoch)?;
    let risen = |seed: usize| {
        let mut one = reference::GraftState {
            lifecycle: states.lifecycle[seed],
            schedule: graft.schedule[seed],
            alpha: states.alpha[seed].into(),
            alpha_target: graft.alpha_target[seed].into(),
            ramp_epochs: graft.ramp_epochs[seed],
            baseline_loss: None,
            drifts: Vec::new(),
            epochs_in_state: 0,
            embargo_epochs: 0,
        };
        let brings = Epoch {
            loss: brings.loss[seed].into(),
            drift: brings.drift[seed].into(),
            gradient_norm: brings.gradient_norm[seed].into(),
        };
        reference::graft_epoch(&mut one, brings);
        one.alpha
    };
    let expected: Vec<f64> = (0..seeds).map(risen).collect();
    let tolerance = Tolerance::for_dtype(Dtype::F32, 1);
    let error = within("α", &wide(&state.alpha.to_vec()?), &expected, tolerance)?;
    // A step of 2⁻²⁰ is less than the tolerance: the counts say whether anything was done.
    let epochs: Vec<f64> =
        state.read_graft()?.epochs_in_state.iter().map(|&epochs| epochs.into()).collect();
    within("epochs_in_state", &epochs, &vec![1.0; seeds], Tolerance::for_dtype(Dtype::I32, 1))?;
    Ok(ready(move |_| schedule.run(&mut state, &epoch), error))
}

fn update(device: &Device, shape: [usize; 2]) -> Result<Prepared, BenchError> {
    let [seeds, _] = shape;
    let states = grafting(shape);
    let mut state = LayerState::new(device, states.clone())?;
    let values = units(6, seeds).zip(units(7, seeds)).enumerate();
    let batch: Vec<StateUpdate> = values
        .map(|(seed, (alpha, alpha_target))| StateUpdate {
            mask: field::ALPHA | field::ALPHA_TARGET,
            alpha,
            alpha_target,
            ..StateUpdate::of(seed as u32)
        })
        .collect();
    let mut updates = StateUpdates::new(device, seeds)?;
    let report = updates.apply(&mut state, &batch)?;
    let graft = GraftStates::new(seeds);
    let mut expected = Vec::new();
    for (seed, update) in batch.iter().enumerate() {
        let mut one = reference::SeedRecord {
            lifecycle: states.lifecycle[seed],
            blueprint_id: states.blueprint_id[seed],
            alpha: states.alpha[seed],
            schedule: graft.schedule[seed],
            alpha_target: graft.alpha_target[seed],
            ramp_epochs: graft.ramp_epochs[seed],
            epochs_in_state: 0,
            baseline_loss: None,
            drift_count: 0,
            embargo_epochs: 0,
        };
        let values = FieldValues {
            lifecycle: None,
            blueprint_id: None,
            schedule: None,
            ramp_epochs: None,
            embargo_epochs: None,
            alpha: Some(update.alpha),
            alpha_target: Some(update.alpha_target),
        };
        reference::apply_update(&mut one, &values, seeds + 1).expect("α may be set at any time");
        expected.extend([f64::from(one.alpha), f64::from(one.alpha_target)]);
    }
    let (alpha, graft) = (state.alpha.to_vec()?, state.read_graft()?);
    let pairs = alpha.iter().zip(&graft.alpha_target);
    let got: Vec<f64> =
        pairs.flat_map(|(&alpha, &target)| [alpha, target]).map(f64::from).collect();
    let exact = Tolerance::for_dtype(Dtype::I32, 1);
    let error = within("α and its target", &got, &expected, exact)?;
    let applied = [f64::from(report.applied)];
    within("updates applied", &applied, &[seeds as f64], exact)?;
    Ok(ready(move |_| updates.apply(&mut state, &batch).map(drop), error))
}

/// A step's gradients.
struct Gradients {
    weights: Buffer<f32>,
    scales: Buffer<f32>,
    alpha: Buffer<f32>,
    seed_norms: Buffer<f32>,
}

impl Gradients {
    fn targets(&mut self) -> ClipTargets<'_> {
        let Self { weights, scales, alpha, seed_norms } = self;
        ClipTargets { weights, scales, alpha, seed_norms }
    }

    fn write(&mut self, values: &[Vec<f32>; 3]) -> Result<(), Error> {
        self.weights.copy_from_slice(&values[0])?;
        self.scales.copy_from_slice(&values[1])?;
        self.alpha.copy_from_slice(&values[2])?;
        self.seed_norms.copy_from_slice(&seed_norms(&values[0], self.seed_norms.len()))
    }

    fn read(&self) -> Result<Vec<f64>, Error> {
        let all = [self.weights.to_vec()?, self.scales.to_vec()?, self.alpha.to_vec()?];
        Ok(wide(&all.concat()))
    }
}

fn clip(device: &Device, shape: [usize; 2], kind: Kind) -> Result<Prepared, BenchError> {
    let [seeds, chunk] = shape;
    let states = grafting(shape);
    let (blueprints, weights) = (seeds + 1, (seeds + 1) * chunk);
    let state = LayerState::new(device, states.clone())?;
    let (steady, norm) = steady_gradients(shape);
    let (mode, checked) = match kind {
        Kind::Value => (ClipMode::ByValue(0.75), Clip::ByValue(0.75)),
        Kind::Norm => (ClipMode::GlobalNorm(norm), Clip::GlobalNorm(norm.into())),
        Kind::Adaptive => (
            ClipMode::Adaptive { factor: 1.0, decay: 0.5 },
            Clip::Adaptive { factor: 1.0, decay: 0.5 },
        ),
    };
    let mut plan = GradientClip::new(device, seeds, blueprints, chunk, mode)?;
    let mut gradients = Gradients {
        weights: Buffer::zeroed(device, weights)?,
        scales: Buffer::zeroed(device, blueprints)?,
        alpha: Buffer::zeroed(device, seeds)?,
        seed_norms: Buffer::zeroed(device, seeds)?,
    };
    // Two steps, the second one larger: the first gives seeds their running norms.
    let mut running = vec![None; seeds];
    let offsets: Vec<u32> = (0..blueprints).map(|id| (id * chunk) as u32).collect();
    let mut error: f64 = 0.0;
    for step in [1.0, 3.0_f32] {
        let draw = |seed, len| -> Vec<f32> {
            data::draw::<f32>(seed, len).into_iter().map(|g| step * g).collect()
        };
        let values = [draw(8, weights), draw(9, blueprints), draw(10, seeds)];
        gradients.write(&values)?;
        plan.run(&state, gradients.targets())?;
        let [mut w, mut s, mut alpha] = values.each_ref().map(|values| wide(values));
        reference::gradient_clip(
            checked,
            &mut ParameterGradients {
                weights: &mut w,
                scales: &mut s,
                alpha: &mut alpha,
                blueprint_id: &states.blueprint_id,
                blueprint_offset: &offsets,
                seed_norms: &wide(&seed_norms(&values[0], seeds)),
                chunk_size: chunk,
            },
            &mut running,
        );
        let expected = [w, s, alpha].concat();
        let tolerance = Tolerance::for_dtype(Dtype::F32, 1);
        error = error.max(within("the gradients", &gradients.read()?, &expected, tolerance)?);
    }
    // What a call leaves, the next one must have as much to do with. By value it has: whatever the values are.
    plan.reset()?;
    gradients.write(&steady)?;
    if kind != Kind::Value {
        for _ in 0..2 {
            plan.run(&state, gradients.targets())?;
        }
        let exact = Tolerance::for_dtype(Dtype::I32, 1);
        within("a steady step", &gradients.read()?, &wide(&steady.concat()), exact)?;
        let clips = f64::from(u8::from(plan.report()?.clipped_units > 0));
        within("a steady step's clipping", &[clips], &[1.0], exact)?;
    }
    Ok(ready(move |_| plan.run(&state, gradients.targets()), error))
}

/// The norm of what each seed adds to ∂w, where seed s alone has blueprint s + 1.
fn seed_norms(weights: &[f32], seeds: usize) -> Vec<f32> {
    let chunk = weights.len() / (seeds + 1);
    let norm = |row: &[f32]| row.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt() as f32;
    weights.chunks_exact(chunk).skip(1).map(norm).collect()
}

/// Gradients that each clipping by their norm scales down, and leaves as they are: the norm is above the limit by
/// less than f32 can show, and by more than f64 needs. The limit is beside them.
fn steady_gradients([seeds, chunk]: [usize; 2]) -> ([Vec<f32>; 3], f32) {
    let weights = (seeds + 1) * chunk;
    // Blueprint 0 is none. A square number of ones has a norm that is a whole number.
    let limit = (seeds * chunk).isqrt();
    let one = |i: usize| if (chunk..chunk + limit * limit).contains(&i) { 1.0 } else { 0.0 };
    let hair = (1e-7_f32 / 8.0).sqrt();
    let steady = [(0..weights).map(one).collect(), vec![hair; seeds + 1], vec![hair; seeds]];
    (steady, limit as f32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_is_right_on_the_cpu_and_under_the_executor_and_stays_so() {
        for device in [Device::Cpu, Device::simt()] {
            for work in Work::ALL {
                let mut prepared = prepare(&device, work, [12, 9]).expect("a right result");
                assert!(prepared.max_rel_error <= prepared.tolerance, "{work:?}");
                for call in 0..3 {
                    (prepared.call)(call).expect("a call");
                }
            }
        }
    }

    #[test]
    fn bytes_are_counted_once_for_each_seed() {
        let bytes = |work: Work| work.bytes([10, 4]);
        assert_eq!((bytes(Work::Schedule), bytes(Work::Update)), (380, 530));
        assert_eq!(bytes(Work::Clip(Kind::Norm)), 10 * (8 * 6 + 2));
    }
}

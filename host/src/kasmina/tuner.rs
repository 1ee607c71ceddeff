//! Which variant of a pass is fastest here, by trying them.

use std::collections::HashMap;
use std::mem::Discriminant;
use std::sync::{LazyLock, Mutex, PoisonError};

use kasmina_types::dtype::DType;
use serde::Serialize;

use super::blend_backward::BlendBackward;
use super::blend_forward::{BlendForward, LayerElement};
use super::gradients::GradientBuffers;
use super::options::{BlendOptions, NumericalMode, Variant};
use super::sample_states::third_grafting;
use super::state::LayerState;
use super::telemetry::TelemetryBuffers;
use crate::buffer::Buffer;
use crate::device::{Device, Gpu};
use crate::driver::DriverError;
use crate::error::Error;
use crate::profile::stopwatch::Stopwatch;

/// How the variant of a pass was chosen for [`Variant::Tuned`].
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Tuning {
    /// What runs.
    pub chosen: Variant,
    /// What each variant took; empty where there was no choice, or no memory to try them.
    pub times: Vec<VariantTime>,
}

/// What a pass took in one variant.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct VariantTime {
    /// The variant.
    pub variant: Variant,
    /// Microseconds of a pass: of several samples in turn with the others, the shortest.
    pub time_us: f64,
}

/// What a choice is remembered for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    pci_id: String,
    pass: Pass,
    dtype: DType,
    /// Batch, seeds, chunk size.
    shape: [usize; 3],
    telemetry: bool,
    numerical: Discriminant<NumericalMode>,
    persistent: bool,
    block_threads: Option<u32>,
}

/// Which pass a choice is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Pass {
    Forward,
    Backward,
}

impl Key {
    fn new(gpu: &Gpu, pass: Pass, dtype: DType, shape: [usize; 3], options: BlendOptions) -> Self {
        Self {
            pci_id: gpu.device().info().pci_id.clone(),
            pass,
            dtype,
            shape,
            telemetry: options.telemetry,
            numerical: std::mem::discriminant(&options.numerical),
            persistent: options.persistent,
            block_threads: options.block_threads,
        }
    }
}

/// The choices of this process.
static KNOWN: LazyLock<Mutex<HashMap<Key, Tuning>>> = LazyLock::new(Mutex::default);

/// Passes of a sample, and samples of a variant.
const PASSES: u32 = 8;
const SAMPLES: usize = 7;

/// What another variant must save for a plainer one to give way: less is noise.
const LEAST_GAIN: f64 = 0.02;

/// The plainest first.
const VARIANTS: [Variant; 3] = [Variant::Plain, Variant::Tma, Variant::TmaBulkStores];

/// The variant for a forward pass of a shape on a device, timed when it is first asked for in this process. Without a GPU
/// it is the plain one: the executor's times say nothing about a GPU's.
///
/// # Errors
/// A capture, or a failed call. Where there is no memory for the trial, the answer is [`Variant::Auto`]'s.
pub(super) fn tune_forward<T: LayerElement>(
    device: &Device,
    shape: [usize; 3],
    options: BlendOptions,
) -> Result<Tuning, Error> {
    let [batch, seeds, chunk] = shape;
    let can = |variant| BlendForward::<T>::has_variant(device, seeds, chunk, variant);
    let auto = || {
        let auto = BlendOptions { variant: Variant::Auto, ..options };
        Ok(BlendForward::<T>::with_options(device, batch, seeds, chunk, auto)?.variant())
    };
    let key = |gpu: &Gpu| Key::new(gpu, Pass::Forward, T::DTYPE, shape, options);
    tune(device, key, can, |variants| forward_times::<T>(device, shape, options, variants), auto)
}

/// As [`tune_forward`], for a backward pass.
///
/// # Errors
/// As [`tune_forward`].
pub(super) fn tune_backward<T: LayerElement>(
    device: &Device,
    shape: [usize; 3],
    options: BlendOptions,
) -> Result<Tuning, Error> {
    let [batch, seeds, chunk] = shape;
    let can = |variant| BlendBackward::<T>::has_variant(device, seeds, chunk, variant);
    let auto = || {
        let auto = BlendOptions { variant: Variant::Auto, ..options };
        Ok(BlendBackward::<T>::with_options(device, batch, seeds, chunk, auto)?.variant())
    };
    // It gathers none, whatever the options say.
    let options = BlendOptions { telemetry: false, ..options };
    let key = |gpu: &Gpu| Key::new(gpu, Pass::Backward, T::DTYPE, shape, options);
    tune(device, key, can, |variants| backward_times::<T>(device, shape, options, variants), auto)
}

/// The fastest by `times` of the variants that `can` run, remembered under `key`; `auto` where there is no memory.
fn tune(
    device: &Device,
    key: impl FnOnce(&Gpu) -> Key,
    can: impl Fn(Variant) -> bool,
    times: impl FnOnce(&[Variant]) -> Result<Vec<VariantTime>, Error>,
    auto: impl FnOnce() -> Result<Variant, Error>,
) -> Result<Tuning, Error> {
    let untimed = |chosen| Tuning { chosen, times: Vec::new() };
    let Device::Cuda(gpu) = device else { return Ok(untimed(Variant::Plain)) };
    let variants: Vec<_> = VARIANTS.into_iter().filter(|&variant| can(variant)).collect();
    if let [only] = variants[..] {
        return Ok(untimed(only));
    }
    match remembered(&KNOWN, key(gpu), || times(&variants)) {
        Err(Error::Driver(why @ DriverError::OutOfMemory { .. })) => {
            tracing::warn!(%why, "no memory to tune a pass; it runs as `Auto`");
            auto().map(untimed)
        }
        tuning => tuning,
    }
}

/// A choice that was made before, or is made now by `times` and kept. The first that is kept stays.
fn remembered(
    known: &Mutex<HashMap<Key, Tuning>>,
    key: Key,
    times: impl FnOnce() -> Result<Vec<VariantTime>, Error>,
) -> Result<Tuning, Error> {
    let lock = || known.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(tuning) = lock().get(&key) {
        return Ok(tuning.clone());
    }
    let times = times()?;
    let tuning = Tuning { chosen: pick(&times), times };
    Ok(lock().entry(key).or_insert(tuning).clone())
}

/// The fastest; a later one has to gain [`LEAST_GAIN`] on those before it.
fn pick(times: &[VariantTime]) -> Variant {
    let mut best: Option<&VariantTime> = None;
    for time in times {
        if best.is_none_or(|best| time.time_us < (1.0 - LEAST_GAIN) * best.time_us) {
            best = Some(time);
        }
    }
    best.map_or(Variant::Plain, |best| best.variant)
}

/// What each variant of a forward pass takes, on operands made for it.
fn forward_times<T: LayerElement>(
    device: &Device,
    shape: [usize; 3],
    options: BlendOptions,
    variants: &[Variant],
) -> Result<Vec<VariantTime>, Error> {
    let [batch, num_seeds, chunk_size] = shape;
    let elements = batch * num_seeds * chunk_size;
    let mut state = LayerState::new(device, third_grafting(num_seeds, chunk_size)?)?;
    let input = Buffer::<T>::zeroed(device, elements)?;
    let mut output = Buffer::<T>::zeroed(device, elements)?;
    let mut telemetry = TelemetryBuffers::new(device, num_seeds)?;
    let plan = |variant| {
        let options = BlendOptions { variant, ..options };
        BlendForward::<T>::with_options(device, batch, num_seeds, chunk_size, options)
    };
    times(device, variants, plan, |plan| plan.run(&mut state, &input, &mut output, &mut telemetry))
}

/// What each variant of a backward pass takes, on operands made for it.
fn backward_times<T: LayerElement>(
    device: &Device,
    shape: [usize; 3],
    options: BlendOptions,
    variants: &[Variant],
) -> Result<Vec<VariantTime>, Error> {
    let [batch, num_seeds, chunk_size] = shape;
    let elements = batch * num_seeds * chunk_size;
    let state = LayerState::new(device, third_grafting(num_seeds, chunk_size)?)?;
    let input = Buffer::<T>::zeroed(device, elements)?;
    let grad_output = Buffer::<T>::zeroed(device, elements)?;
    let mut grad_input = Buffer::<T>::zeroed(device, elements)?;
    let mut gradients = GradientBuffers::new(device, &state)?;
    let plan = |variant| {
        let options = BlendOptions { variant, ..options };
        BlendBackward::<T>::with_options(device, batch, num_seeds, chunk_size, options)
    };
    times(device, variants, plan, |plan| {
        plan.run(&state, &input, &grad_output, &mut grad_input, &mut gradients)
    })
}

/// The shortest sample of each variant's plan, in turn with the others.
fn times<P>(
    device: &Device,
    variants: &[Variant],
    plan: impl Fn(Variant) -> Result<P, Error>,
    mut run: impl FnMut(&mut P) -> Result<(), Error>,
) -> Result<Vec<VariantTime>, Error> {
    let mut plans = variants.iter().copied().map(plan).collect::<Result<Vec<_>, _>>()?;
    let stopwatch = Stopwatch::new(device)?;
    let mut best_us = vec![f64::INFINITY; plans.len()];
    for sample in 0..=SAMPLES {
        for (plan, best_us) in plans.iter_mut().zip(&mut best_us) {
            let time_us = stopwatch.mean_us(PASSES, || run(plan))?;
            // The first sample compiles the kernel and fills the caches.
            if sample > 0 {
                *best_us = best_us.min(time_us);
            }
        }
    }
    let times = variants.iter().zip(best_us);
    Ok(times.map(|(&variant, time_us)| VariantTime { variant, time_us }).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(batch: usize) -> Key {
        Key {
            pci_id: "0000:00:00.0".into(),
            pass: Pass::Forward,
            dtype: DType::F32,
            shape: [batch, 4, 8],
            telemetry: true,
            numerical: std::mem::discriminant(&NumericalMode::Fast),
            persistent: true,
            block_threads: None,
        }
    }

    fn took(times: [f64; 3]) -> Vec<VariantTime> {
        let pairs = VARIANTS.into_iter().zip(times);
        pairs.map(|(variant, time_us)| VariantTime { variant, time_us }).collect()
    }

    #[test]
    fn the_fastest_is_picked_and_noise_is_no_reason() {
        assert_eq!(pick(&took([10.0, 9.0, 8.0])), Variant::TmaBulkStores);
        assert_eq!(pick(&took([10.0, 9.0, 8.95])), Variant::Tma);
        assert_eq!(pick(&took([10.0, 9.9, 12.0])), Variant::Plain);
        assert_eq!(pick(&took([8.0, 9.0, 12.0])), Variant::Plain);
        assert_eq!(pick(&[]), Variant::Plain);
    }

    #[test]
    fn a_choice_is_remembered_for_its_shape_and_a_failure_is_not() {
        let known = Mutex::default();
        let failed = remembered(&known, key(1), || Err(Error::Capturing { op: "op" }));
        assert!(failed.is_err());
        let first = remembered(&known, key(1), || Ok(took([10.0, 5.0, 9.0]))).unwrap();
        assert_eq!((first.chosen, first.times.len()), (Variant::Tma, 3));
        let again = remembered(&known, key(1), || unreachable!("it is known")).unwrap();
        assert_eq!(again, first);
        let other = remembered(&known, key(2), || Ok(took([1.0, 5.0, 9.0]))).unwrap();
        assert_eq!(other.chosen, Variant::Plain);
        // The backward pass of the shape has a choice of its own.
        let backward = Key { pass: Pass::Backward, ..key(1) };
        let own = remembered(&known, backward, || Ok(took([1.0, 5.0, 9.0]))).unwrap();
        assert_eq!(own.chosen, Variant::Plain);
    }

    /// The trial itself, with the host's clock in the place of a GPU's.
    #[test]
    fn every_variant_is_tried() {
        let device = Device::simt();
        let (shape, options) = ([3, 4, 8], BlendOptions::default());
        let forward = forward_times::<f32>(&device, shape, options, &VARIANTS).unwrap();
        // It has no bulk stores.
        let backward = backward_times::<f32>(&device, shape, options, &VARIANTS[..2]).unwrap();
        for (times, tried) in [(forward, &VARIANTS[..]), (backward, &VARIANTS[..2])] {
            let variants: Vec<_> = times.iter().map(|time| time.variant).collect();
            assert_eq!(variants, tried);
            assert!(times.iter().all(|time| time.time_us.is_finite() && time.time_us > 0.0));
        }
    }

    #[test]
    fn without_a_gpu_it_is_the_plain_one_and_nothing_is_timed() {
        for device in [Device::Cpu, Device::simt()] {
            let (shape, options) = ([3, 4, 8], BlendOptions::default());
            let plain = Tuning { chosen: Variant::Plain, times: vec![] };
            assert_eq!(tune_forward::<f32>(&device, shape, options).unwrap(), plain);
            assert_eq!(tune_backward::<f32>(&device, shape, options).unwrap(), plain);
        }
    }
}

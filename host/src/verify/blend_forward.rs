//! `blend_forward`: output and telemetry, for every state and every blueprint type.

use std::sync::Arc;

use half::{bf16, f16};
use kasmina_kernels::instances::{self, PassInstance};
use kasmina_reference::kasmina as reference;
use kasmina_reference::numeric::{self, Dtype, Tolerance};
use kasmina_types::dtype::DType;
use kasmina_types::{BlueprintType, SeedLifecycle};
use ndarray::ArrayView2;
use rand::RngExt;
use rand::rngs::StdRng;

use super::random::{self, Limits, Sample};
use super::tally::{Compared, Mismatch, Tally};
use super::{Check, Inputs, Source, Timing, reordered, time};
use crate::buffer::Buffer;
use crate::device::Device;
use crate::digits::{Digits, PIXELS};
use crate::driver::launchers::KernelDevice;
use crate::error::Error;
use crate::kasmina::{
    BlendForward, BlendOptions, KernelInfo, LayerElement, LayerState, SeedStates, TelemetryBuffers,
    TelemetryValues, Variant,
};

pub(super) fn checks() -> Vec<Check> {
    let variants = [
        ("blend_forward", Variant::Plain),
        ("blend_forward_tma", Variant::Tma),
        ("blend_forward_tma_bulk", Variant::TmaBulkStores),
    ];
    let rows = |(name, variant)| {
        [check::<f32>(name, variant), check::<f16>(name, variant), check::<bf16>(name, variant)]
    };
    variants.into_iter().flat_map(rows).collect()
}

fn check<T: LayerElement + Sample>(name: &'static str, variant: Variant) -> Check {
    Check::new(name, T::DTYPE, move |device, source, tally| {
        let timed = matches!(source.inputs, Inputs::Digits(_));
        // What the copy engine moves is a multiple of 16 bytes.
        let unit = if variant == Variant::Plain { 1 } else { 16 / size_of::<T>() };
        let options = BlendOptions { variant, ..BlendOptions::default() };
        if let Err(Error::Variant { needs, .. }) =
            BlendForward::<T>::with_options(device, 1, 1, unit, options)
        {
            tally.skip(format!("it needs {needs}"));
            return Ok(());
        }
        let instance = instances::blend_forward(T::DTYPE).next();
        let special = special_cases::<T, _>(device, source, variant, instance)?;
        for case in cases::<T>(device, source, unit).chain(special) {
            tally.case();
            let result = Prepared::new(device, &case, options).and_then(|mut prepared| {
                case.check_kernel(prepared.layer.kernel(), tally);
                let first = prepared.run_poisoned()?;
                let second = Prepared::new(&reordered(device), &case, options)?.run_poisoned()?;
                if timed {
                    let seconds = time::median_seconds(device, || prepared.run())?;
                    let bytes = 2 * size_of_val(case.input.as_slice()) as u64;
                    tally.timing(Timing { seconds, bytes });
                }
                Ok((first, second))
            });
            match result {
                Ok((first, second)) => {
                    compare_runs(&case, &first, &second, tally);
                    judge(&case, &first, tally);
                }
                Err(source) => return Err(Mismatch::Run { case: case.name, source }),
            }
        }
        Ok(())
    })
}

pub(super) struct Case<T> {
    pub(super) name: String,
    pub(super) batch: usize,
    pub(super) states: SeedStates,
    pub(super) input: Vec<T>,
    /// Part of the name of the instance that has to run, if the case is there for one.
    instance: Option<&'static str>,
}

impl<T> Case<T> {
    fn new(batch: usize, states: SeedStates, input: Vec<T>) -> Self {
        let name = format!("{batch} × {} seeds × {}", states.num_seeds(), states.chunk_size);
        Self { name, batch, states, input, instance: None }
    }

    /// A case that is there for an instance must run on it.
    pub(super) fn check_kernel(&self, kernel: Option<KernelInfo>, tally: &mut Tally) {
        let (Some(KernelInfo { entry, .. }), Some(expected)) = (kernel, self.instance) else {
            return;
        };
        if !entry.contains(expected) {
            tally.fail(Mismatch::Kernel { case: self.name.clone(), expected, got: entry });
        }
    }
}

/// Columns of a seed, and batches with seeds a block of the plain instances. Of the first three, around one and two steps
/// of rows, a block takes a seed; of the last, a block of the plain instances has its seeds whole.
const SPECIAL_CHUNK: usize = 64;
const SPECIAL_BATCHES: [(usize, usize, &str); 4] =
    [(1, 4, "_seed_"), (33, 4, "_seed_"), (65, 4, "_seed_"), (257, 2, "_v16")];

/// Random cases for instances that random shapes seldom run on: of some seeds for each block of `plain` that the device
/// holds at once. None for another variant or device.
pub(super) fn special_cases<T: LayerElement + Sample, P: Copy + Send + Sync + 'static>(
    device: &Device,
    source: &Source,
    variant: Variant,
    plain: Option<PassInstance<P>>,
) -> Result<impl Iterator<Item = Case<T>>, Mismatch> {
    let mut resident = 0;
    let (kernels, Inputs::Random(seed)) = (KernelDevice::of(device), &source.inputs) else {
        return Ok(cases_of_few_rows(0, resident));
    };
    if let (Some(kernels), Some(plain), Variant::Plain) = (kernels, plain, variant) {
        let failed = |source| Mismatch::Run { case: "blocks of whole seeds".into(), source };
        resident = kernels.resident_blocks(plain.kernel).map_err(failed)?;
    }
    Ok(cases_of_few_rows(*seed, resident))
}

/// As [`special_cases`]; none for a device of no blocks.
fn cases_of_few_rows<T: Sample>(seed: u64, resident: u32) -> impl Iterator<Item = Case<T>> {
    let mut rng = random::generator(seed ^ 0x5eed);
    let batches = SPECIAL_BATCHES.into_iter().filter(move |_| resident > 0).enumerate();
    batches.map(move |(index, (batch, seeds_of_block, instance))| {
        // The blocks fill nineteen twentieths of the device, and the last one may have fewer seeds.
        let seeds = resident as usize * seeds_of_block * 19 / 20;
        let states = random_states(&mut rng, seeds, SPECIAL_CHUNK);
        let input = random::values(&mut rng, batch * seeds * SPECIAL_CHUNK, index == 2);
        Case { instance: Some(instance), ..Case::new(batch, states, input) }
    })
}

pub(super) fn cases<T: LayerElement + Sample>(
    device: &Device,
    source: &Source,
    unit: usize,
) -> Box<dyn Iterator<Item = Case<T>>> {
    match &source.inputs {
        Inputs::Digits(digits) => {
            let whole = move |case: &Case<T>| case.states.chunk_size.is_multiple_of(unit);
            Box::new(digit_cases(Arc::clone(digits)).filter(whole))
        }
        &Inputs::Random(seed) => {
            let (limits, mut rng) = (Limits::of(source.scale(device)), random::generator(seed));
            Box::new((0..limits.cases).map(move |index| random_case(&mut rng, limits, unit, index)))
        }
    }
}

/// The images, cut into seeds of several sizes.
fn digit_cases<T: Sample>(digits: Arc<Digits>) -> impl Iterator<Item = Case<T>> {
    [(16, 4), (8, 8), (64, 1), (1, 64)].into_iter().map(move |(seeds, chunk_size)| {
        let input: Vec<T> = digits.pixels.iter().map(|&grey| T::from_grey(grey)).collect();
        Case::new(input.len() / PIXELS, mixed_states(seeds, chunk_size), input)
    })
}

/// Every lifecycle state and every blueprint type in turn, as far as there are seeds; of one seed an
/// active one.
fn mixed_states(seeds: usize, chunk_size: usize) -> SeedStates {
    let states = SeedLifecycle::ALL.into_iter().cycle();
    let first = if seeds == 1 { SeedLifecycle::Grafting as usize } else { 0 };
    let types = BlueprintType::ALL.map(|kind| kind as u8);
    let blueprints = 1 + types.len();
    SeedStates {
        lifecycle: states.skip(first).take(seeds).map(|state| state as u8).collect(),
        blueprint_id: (0..seeds).map(|seed| 1 + (seed % types.len()) as u16).collect(),
        // From 0 to 1.25: the last ones are clipped.
        alpha: (0..seeds).map(|seed| ((seed * 3 + 2) % 6) as f32 * 0.25).collect(),
        blueprint_type: [types[0]].into_iter().chain(types).collect(),
        blueprint_weights: (0..blueprints * chunk_size)
            .map(|i| ((i * 37 + 11) % 64) as f32 / 32.0 - 0.9)
            .collect(),
        blueprint_scales: (0..blueprints).map(|i| 0.7 + 0.15 * i as f32).collect(),
        chunk_size,
    }
}

/// Of chunks of a multiple of `unit`.
fn random_case<T: Sample>(rng: &mut StdRng, limits: Limits, unit: usize, index: usize) -> Case<T> {
    // The last case is the largest that the limits allow.
    let last = index + 1 == limits.cases;
    let most = limits.chunk / unit;
    let chunk = unit * if last { most } else { random::length(rng, most) };
    let most_seeds = (limits.elements / chunk).clamp(1, 40);
    let seeds = if last { 3 } else { random::length(rng, most_seeds) };
    let most_rows = (limits.elements / (seeds * chunk)).clamp(1, limits.batch);
    let batch = if last { most_rows } else { random::length(rng, most_rows) };
    let states = random_states(rng, seeds, chunk);
    let input = random::values(rng, batch * seeds * chunk, index % 4 == 3);
    Case::new(batch, states, input)
}

fn random_states(rng: &mut StdRng, seeds: usize, chunk: usize) -> SeedStates {
    let blueprints = rng.random_range(6..12_usize);
    SeedStates {
        lifecycle: (0..seeds)
            .map(|_| rng.random_range(0..SeedLifecycle::ALL.len() as u8))
            .collect(),
        blueprint_id: (0..seeds).map(|_| rng.random_range(0..blueprints as u16)).collect(),
        alpha: (0..seeds).map(|_| rng.random_range(-0.25..1.25)).collect(),
        blueprint_type: (0..blueprints)
            .map(|_| rng.random_range(0..BlueprintType::ALL.len() as u8))
            .collect(),
        blueprint_weights: (0..blueprints * chunk).map(|_| rng.random_range(-2.0..2.0)).collect(),
        blueprint_scales: (0..blueprints).map(|_| rng.random_range(-1.5..1.5)).collect(),
        chunk_size: chunk,
    }
}

/// What a case needs on a device.
struct Prepared<T: LayerElement> {
    layer: BlendForward<T>,
    state: LayerState,
    input: Buffer<T>,
    output: Buffer<T>,
    telemetry: TelemetryBuffers,
}

/// What a run has written.
struct Results<T> {
    output: Vec<T>,
    telemetry: TelemetryValues,
}

impl<T: LayerElement> Prepared<T> {
    fn new(device: &Device, case: &Case<T>, options: BlendOptions) -> Result<Self, Error> {
        let (seeds, chunk) = (case.states.num_seeds(), case.states.chunk_size);
        Ok(Self {
            layer: BlendForward::with_options(device, case.batch, seeds, chunk, options)?,
            state: LayerState::new(device, case.states.clone())?,
            input: Buffer::from_slice(device, &case.input)?,
            output: Buffer::zeroed(device, case.input.len())?,
            telemetry: TelemetryBuffers::new(device, seeds)?,
        })
    }

    fn run(&mut self) -> Result<(), Error> {
        self.layer.run(&mut self.state, &self.input, &mut self.output, &mut self.telemetry)
    }

    /// Runs on outputs that hold what no result is, so that a value that is not written shows.
    fn run_poisoned(&mut self) -> Result<Results<T>, Error> {
        self.output.fill_bytes(0xFF)?;
        self.telemetry.fill_bytes(0xFF)?;
        self.run()?;
        Ok(Results { output: self.output.to_vec()?, telemetry: self.telemetry.read()? })
    }
}

/// Two runs must have given the same bits.
fn compare_runs<T: LayerElement>(
    case: &Case<T>,
    first: &Results<T>,
    second: &Results<T>,
    tally: &mut Tally,
) {
    let mut compare = |what, a: &[u8], b: &[u8], element_bytes| {
        if let Some(byte) = (0..a.len()).find(|&byte| a[byte] != b[byte]) {
            let index = byte / element_bytes;
            tally.fail(Mismatch::Nondeterministic { case: case.name.clone(), what, index });
        }
    };
    let (a, b) = (bytemuck::cast_slice(&first.output), bytemuck::cast_slice(&second.output));
    compare("output", a, b, size_of::<T>());
    for ((what, a), (_, b)) in words(&first.telemetry).iter().zip(&words(&second.telemetry)) {
        compare(*what, bytemuck::cast_slice(a), bytemuck::cast_slice(b), size_of::<u32>());
    }
}

/// The telemetry arrays by name and bits.
fn words(values: &TelemetryValues) -> [(&'static str, Vec<u32>); 8] {
    let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect();
    [
        ("telemetry_count", values.count.clone()),
        ("telemetry_mean", bits(&values.mean)),
        ("telemetry_variance", bits(&values.variance)),
        ("telemetry_min", bits(&values.min)),
        ("telemetry_max", bits(&values.max)),
        ("telemetry_dead_ratio", bits(&values.dead_ratio)),
        ("telemetry_snr", bits(&values.snr)),
        ("telemetry_nonfinite", values.nonfinite.clone()),
    ]
}

/// Compares a run with the reference.
fn judge<T: LayerElement>(case: &Case<T>, results: &Results<T>, tally: &mut Tally) {
    let (seeds, chunk) = (case.states.num_seeds(), case.states.chunk_size);
    let x: Vec<f64> = case.input.iter().map(|x| f64::from(x.to_f32())).collect();
    let x = ArrayView2::from_shape((case.batch, seeds * chunk), &x)
        .expect("a case has batch rows of seeds · chunk_size columns");
    let states = &case.states;
    let layer = reference::LayerState {
        lifecycle: &states.lifecycle,
        blueprint_id: &states.blueprint_id,
        alpha: &states.alpha,
        blueprint_type: &states.blueprint_type,
        blueprint_weights: ArrayView2::from_shape(
            (states.num_blueprints(), chunk),
            &states.blueprint_weights,
        )
        .expect("the device took the state"),
        blueprint_scales: &states.blueprint_scales,
    };
    let y = reference::blend_forward(x, &layer).expect("the device took the state");
    let y = y.as_slice().expect("the reference answers in row-major order");
    for seed in 0..seeds {
        if reference::is_active(states.lifecycle[seed]) && states.blueprint_id[seed] != 0 {
            judge_blend(case, seed, &results.output, y, tally);
        } else {
            judge_identity(case, seed, &results.output, tally);
        }
    }
    let seen = reference::telemetry(x, seeds).expect("the shape was checked above");
    for seed in 0..seeds {
        judge_telemetry(case, seed, &results.telemetry, &seen, tally);
    }
}

/// Indices of a seed's elements in the arrays `[batch, seeds · chunk_size]`.
pub(super) fn elements<T>(case: &Case<T>, seed: usize) -> impl Iterator<Item = usize> {
    let (chunk, hidden) =
        (case.states.chunk_size, case.states.num_seeds() * case.states.chunk_size);
    (0..case.batch).flat_map(move |row| (0..chunk).map(move |i| row * hidden + seed * chunk + i))
}

/// A seed's output against its own magnitude: the blueprints' differ much.
fn judge_blend<T: LayerElement>(
    case: &Case<T>,
    seed: usize,
    output: &[T],
    reference: &[f64],
    tally: &mut Tally,
) {
    let expected: Vec<f64> = elements(case, seed).map(|i| reference[i]).collect();
    let got: Vec<f64> = elements(case, seed)
        .map(|i| (f64::from(output[i].to_f32()), reference[i], case.input[i].to_f32()))
        // From an infinite input the formula's order decides between ∞ and NaN: the kernel leaves it open.
        .map(|(y, expected, x)| {
            let open = !y.is_finite() && !expected.is_finite() && !x.is_nan();
            if open { expected } else { y }
        })
        .collect();
    let comparison = numeric::compare(&got, &expected).expect("as many elements in each");
    let tolerance = Tolerance::for_dtype(stored(T::DTYPE), 1).limit();
    let index = comparison.first_mismatch.or(comparison.worst_index).unwrap_or(0);
    let (got, expected, error) = (got[index], expected[index], comparison.max_rel_error);
    tally.judge(&case.name, &Compared { got, expected, error, tolerance }, || {
        let chunk = case.states.chunk_size;
        format!("output of seed {seed} at row {}, column {}", index / chunk, index % chunk)
    });
}

fn judge_identity<T: LayerElement>(case: &Case<T>, seed: usize, output: &[T], tally: &mut Tally) {
    let changed = elements(case, seed)
        .position(|i| bytemuck::bytes_of(&output[i]) != bytemuck::bytes_of(&case.input[i]));
    if let Some(index) = changed {
        let (row, column) = (index / case.states.chunk_size, index % case.states.chunk_size);
        tally.fail(Mismatch::Identity { case: case.name.clone(), seed, row, column });
    }
}

fn judge_telemetry<T>(
    case: &Case<T>,
    seed: usize,
    got: &TelemetryValues,
    reference: &reference::SeedTelemetry,
    tally: &mut Tally,
) {
    let exact = Tolerance::for_dtype(Dtype::I32, 1);
    let rounded = Tolerance::for_dtype(Dtype::F32, 1);
    let reduced = Tolerance::for_dtype(Dtype::F32, case.batch * case.states.chunk_size);
    let (mean, variance) = (reference.mean[seed], reference.variance[seed]);
    // What the values' rounding errors are proportional to: their own magnitude, of which the mean is a
    // part, and of which the variance of nearly equal values is a small one.
    let magnitude = (variance + mean * mean).sqrt();
    let noise = magnitude / (variance + f64::from(kasmina_types::telemetry::SNR_EPSILON)).sqrt();
    for (what, got, expected, scale, tolerance) in [
        ("count", f64::from(got.count[seed]), reference.count[seed] as f64, 0.0, exact),
        ("nonfinite", f64::from(got.nonfinite[seed]), reference.nonfinite[seed] as f64, 0.0, exact),
        ("min", f64::from(got.min[seed]), reference.min[seed], 0.0, exact),
        ("max", f64::from(got.max[seed]), reference.max[seed], 0.0, exact),
        ("dead_ratio", f64::from(got.dead_ratio[seed]), reference.dead_ratio[seed], 0.0, rounded),
        ("mean", f64::from(got.mean[seed]), mean, magnitude, reduced),
        (
            "variance",
            f64::from(got.variance[seed]),
            variance,
            variance + 1e-3 * mean * mean,
            reduced,
        ),
        ("snr", f64::from(got.snr[seed]), reference.snr[seed], noise, reduced),
    ] {
        let comparison = numeric::compare_to_scale(&[got], &[expected], scale)
            .expect("one value is as many as one");
        let (error, tolerance) = (comparison.max_rel_error, tolerance.limit());
        tally.judge(&case.name, &Compared { got, expected, error, tolerance }, || {
            format!("telemetry_{what}[{seed}]")
        });
    }
}

/// The type that decides on a result's tolerance.
pub(super) fn stored(dtype: DType) -> Dtype {
    match dtype {
        DType::F32 | DType::E4m3 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::Bf16 => Dtype::Bf16,
        DType::F64 => Dtype::F64,
        DType::I32 => Dtype::I32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::{Row, Status};

    /// Seed 0 is DORMANT, seed 3 GRAFTING.
    fn case() -> Case<f32> {
        let (seeds, chunk) = (8, 8);
        let input = random::values(&mut random::generator(5), 20 * seeds * chunk, false);
        Case::new(20, mixed_states(seeds, chunk), input)
    }

    fn prepared(case: &Case<f32>) -> Prepared<f32> {
        Prepared::new(&Device::Cpu, case, BlendOptions::default()).unwrap()
    }

    #[test]
    fn a_variant_that_the_device_lacks_is_skipped() {
        let row =
            check::<f32>("blend_forward_tma", Variant::Tma).run(&Device::Cpu, &Source::random(1));
        assert!(matches!(row.status, Status::Skipped { .. }), "{row:?}");
    }

    /// Of every element type, and for as many blocks as the executor, an H200 and other GPUs hold at once.
    #[test]
    fn special_cases_run_on_their_instances() {
        let device = Device::simt();
        let source = Source::small(7);
        fn run_on<T: LayerElement + Sample>(device: &Device, source: &Source) {
            let instance = instances::blend_forward(T::DTYPE).next();
            let found = special_cases::<T, _>(device, source, Variant::Plain, instance).unwrap();
            let mut batches = vec![];
            for case in found {
                let (seeds, chunk) = (case.states.num_seeds(), case.states.chunk_size);
                let layer = BlendForward::<T>::new(device, case.batch, seeds, chunk).unwrap();
                let entry = layer.kernel().unwrap().entry;
                assert!(entry.contains(case.instance.unwrap()), "{}: {entry}", case.name);
                batches.push(case.batch);
            }
            assert_eq!(batches, SPECIAL_BATCHES.map(|(batch, ..)| batch));
        }
        run_on::<f32>(&device, &source);
        run_on::<f16>(&device, &source);
        run_on::<bf16>(&device, &source);
        for (device, variant) in [(device, Variant::Tma), (Device::Cpu, Variant::Plain)] {
            let instance = instances::blend_forward(DType::F32).next();
            let found = special_cases::<f32, _>(&device, &source, variant, instance).unwrap();
            assert_eq!(found.count(), 0, "{device}");
        }
        assert_eq!(cases_of_few_rows::<f32>(7, 264).next().unwrap().states.num_seeds(), 1003);
    }

    #[test]
    fn another_instance_than_the_case_is_for_fails() {
        let failed = |instance, entry| {
            let case = Case { instance, ..case() };
            let kernel = KernelInfo { entry, block_threads: 256, lanes: 4, grid: 1 };
            let mut tally = Tally::default();
            case.check_kernel(Some(kernel), &mut tally);
            tally.into_row("blend_forward".into(), DType::F32, "simt").failed()
        };
        assert!(failed(Some("_seed_"), "blend_forward_f32_v4"));
        assert!(!failed(Some("_seed_"), "blend_forward_seed_f32"));
        assert!(!failed(None, "blend_forward_f32_v4"));
    }

    fn verdict(change: impl FnOnce(&mut Results<f32>)) -> Row {
        let case = case();
        let mut results = prepared(&case).run_poisoned().unwrap();
        change(&mut results);
        let mut tally = Tally::default();
        judge(&case, &results, &mut tally);
        tally.into_row("blend_forward".into(), DType::F32, "cpu")
    }

    fn reason(row: Row) -> String {
        let Status::Fail { reason } = row.status else { panic!("passed: {row:?}") };
        reason
    }

    #[test]
    fn a_right_result_passes() {
        let row = verdict(|_| {});
        assert_eq!(row.status, Status::Pass);
        assert!(row.max_rel_error > 0.0 && row.max_rel_error <= row.tolerance, "{row:?}");
    }

    #[test]
    fn one_wrong_element_of_an_active_seed_fails() {
        // Row 2, seed 3, column 5 of its chunk.
        let at = 2 * 64 + 3 * 8 + 5;
        let text = reason(verdict(|results| results.output[at] += 1e-3));
        assert!(text.contains("output of seed 3 at row 2, column 5"), "{text}");
        for wrong in [f32::NAN, f32::INFINITY, f32::from_bits(u32::MAX)] {
            reason(verdict(|results| results.output[at] = wrong));
        }
    }

    #[test]
    fn one_changed_bit_of_an_identity_seed_fails() {
        let flip = |value: &mut f32| *value = f32::from_bits(value.to_bits() ^ 1);
        let text = reason(verdict(|results| flip(&mut results.output[64 + 7])));
        assert!(text.contains("seed 0 is the identity, but row 1, column 7"), "{text}");
    }

    #[test]
    fn one_wrong_figure_of_the_telemetry_fails() {
        type Change = fn(&mut TelemetryValues);
        let wrong: [(&str, Change); 8] = [
            ("count", |t| t.count[6] += 1),
            ("mean", |t| t.mean[6] += 1e-3),
            ("variance", |t| t.variance[6] *= 1.001),
            ("min", |t| t.min[6] *= 1.000_001),
            ("max", |t| t.max[6] *= 1.000_001),
            ("dead_ratio", |t| t.dead_ratio[6] += 1.0 / 160.0),
            ("snr", |t| t.snr[6] += 1e-2),
            ("nonfinite", |t| t.nonfinite[6] = 1),
        ];
        for (name, change) in wrong {
            let text = reason(verdict(|results| change(&mut results.telemetry)));
            assert!(text.contains(&format!("telemetry_{name}[6]")), "{name}: {text}");
        }
    }

    #[test]
    fn an_infinite_input_may_give_either_but_no_number() {
        let mut case = case();
        let at = 3 * 8 + 5;
        case.input[at] = f32::INFINITY;
        let judged = |y: f32| {
            let mut results = prepared(&case).run_poisoned().unwrap();
            results.output[at] = y;
            let mut tally = Tally::default();
            judge(&case, &results, &mut tally);
            tally.into_row("blend_forward".into(), DType::F32, "cpu").failed()
        };
        assert!(!judged(f32::INFINITY) && !judged(f32::NAN) && judged(1.0));
    }

    #[test]
    fn a_second_run_with_other_bits_fails() {
        let case = case();
        let run = || prepared(&case).run_poisoned().unwrap();
        let compared = |second: &Results<f32>| {
            let mut tally = Tally::default();
            compare_runs(&case, &run(), second, &mut tally);
            tally.into_row("blend_forward".into(), DType::F32, "cpu")
        };
        assert!(!compared(&run()).failed());
        let mut second = run();
        second.output[70] = -second.output[70];
        assert!(reason(compared(&second)).contains("`output[70]` other bits"));
        let mut second = run();
        second.telemetry.snr[2] += 1.0;
        assert!(reason(compared(&second)).contains("`telemetry_snr[2]` other bits"));
    }
}

//! `blend_backward`: every gradient, for every state and every blueprint type, on `blend_forward`'s cases.

use half::{bf16, f16};
use kasmina_kernels::instances;
use kasmina_reference::kasmina::{self as reference, NumericalMode};
use kasmina_reference::numeric::{self, Dtype, Tolerance};
use ndarray::ArrayView2;

use super::blend_forward::{Case, cases, elements, special_cases, stored};
use super::random::{self, Sample};
use super::tally::{Compared, Mismatch, Tally};
use super::{Check, Inputs, Timing, reordered, time};
use crate::buffer::Buffer;
use crate::device::Device;
use crate::error::Error;
use crate::kasmina::{
    BlendBackward, BlendOptions, GradientBuffers, GradientValues, LayerElement, LayerState, Variant,
};

pub(super) fn checks() -> Vec<Check> {
    let variants = [("blend_backward", Variant::Plain), ("blend_backward_tma", Variant::Tma)];
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
            BlendBackward::<T>::with_options(device, 1, 1, unit, options)
        {
            tally.skip(format!("it needs {needs}"));
            return Ok(());
        }
        let gradient_seed = match source.inputs {
            Inputs::Digits(_) => 1,
            Inputs::Random(seed) => seed ^ 0x9bad,
        };
        let mut rng = random::generator(gradient_seed);
        let instance = instances::blend_backward(T::DTYPE).next();
        let special = special_cases::<T, _>(device, source, variant, instance)?;
        for (index, case) in cases::<T>(device, source, unit).chain(special).enumerate() {
            tally.case();
            let gradient: Vec<T> = random::values(&mut rng, case.input.len(), index % 4 == 3);
            let result =
                Prepared::new(device, &case, &gradient, options).and_then(|mut prepared| {
                    case.check_kernel(prepared.layer.kernel(), tally);
                    let first = prepared.run_poisoned()?;
                    let second = Prepared::new(&reordered(device), &case, &gradient, options)?
                        .run_poisoned()?;
                    if timed {
                        let seconds = time::median_seconds(device, || prepared.run())?;
                        let bytes = 3 * size_of_val(case.input.as_slice()) as u64;
                        tally.timing(Timing { seconds, bytes });
                    }
                    Ok((first, second))
                });
            match result {
                Ok((first, second)) => {
                    compare_runs(&case, &first, &second, tally);
                    judge(&case, &gradient, &first, tally);
                }
                Err(source) => return Err(Mismatch::Run { case: case.name, source }),
            }
        }
        Ok(())
    })
}

/// What a case needs on a device.
struct Prepared<T: LayerElement> {
    layer: BlendBackward<T>,
    state: LayerState,
    input: Buffer<T>,
    grad_output: Buffer<T>,
    grad_input: Buffer<T>,
    gradients: GradientBuffers,
}

/// What a run has written.
struct Results<T> {
    grad_input: Vec<T>,
    gradients: GradientValues,
}

impl<T: LayerElement> Prepared<T> {
    fn new(
        device: &Device,
        case: &Case<T>,
        gradient: &[T],
        options: BlendOptions,
    ) -> Result<Self, Error> {
        let (seeds, chunk) = (case.states.num_seeds(), case.states.chunk_size);
        let state = LayerState::new(device, case.states.clone())?;
        Ok(Self {
            layer: BlendBackward::with_options(device, case.batch, seeds, chunk, options)?,
            gradients: GradientBuffers::new(device, &state)?,
            state,
            input: Buffer::from_slice(device, &case.input)?,
            grad_output: Buffer::from_slice(device, gradient)?,
            grad_input: Buffer::zeroed(device, case.input.len())?,
        })
    }

    fn run(&mut self) -> Result<(), Error> {
        let Self { layer, state, input, grad_output, grad_input, gradients } = self;
        layer.run(state, input, grad_output, grad_input, gradients)
    }

    /// Runs on outputs that hold what no result is, so that a value that is not written shows.
    fn run_poisoned(&mut self) -> Result<Results<T>, Error> {
        self.grad_input.fill_bytes(0xFF)?;
        self.gradients.fill_bytes(0xFF)?;
        self.run()?;
        Ok(Results { grad_input: self.grad_input.to_vec()?, gradients: self.gradients.read()? })
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
    let (a, b) =
        (bytemuck::cast_slice(&first.grad_input), bytemuck::cast_slice(&second.grad_input));
    compare("grad_input", a, b, size_of::<T>());
    for ((what, a), (_, b)) in first.gradients.arrays().zip(second.gradients.arrays()) {
        compare(what, bytemuck::cast_slice(a), bytemuck::cast_slice(b), size_of::<f32>());
    }
}

/// Compares a run with the reference.
fn judge<T: LayerElement>(case: &Case<T>, gradient: &[T], results: &Results<T>, tally: &mut Tally) {
    let (states, chunk) = (&case.states, case.states.chunk_size);
    let hidden = states.num_seeds() * chunk;
    let wide = |values: &[T]| -> Vec<f64> { values.iter().map(|v| v.to_f32().into()).collect() };
    let (x, g) = (wide(&case.input), wide(gradient));
    let matrix = |values| {
        ArrayView2::from_shape((case.batch, hidden), values)
            .expect("a case has batch rows of seeds · chunk_size columns")
    };
    let expected = reference::blend_backward(
        matrix(&x),
        matrix(&g),
        &states.of_reference(),
        NumericalMode::Fast,
    )
    .expect("the device took the state");

    let dx = expected.grad_input.as_slice().expect("the reference answers in row-major order");
    for seed in 0..states.num_seeds() {
        if reference::is_active(states.lifecycle[seed]) && states.blueprint_id[seed] != 0 {
            judge_input(case, seed, &results.grad_input, dx, tally);
        } else if let Some(index) = elements(case, seed).position(|i| {
            bytemuck::bytes_of(&results.grad_input[i]) != bytemuck::bytes_of(&gradient[i])
        }) {
            let (row, column) = (index / chunk, index % chunk);
            tally.fail(Mismatch::Identity { case: case.name.clone(), seed, row, column });
        }
    }

    let got = &results.gradients;
    let scales = &expected.scales;
    let variance: Vec<f64> = scales.norm.iter().map(|n| n * n / chunk as f64).collect();
    let flat = |values: &ndarray::Array2<f64>| values.iter().copied().collect::<Vec<f64>>();
    for (what, got, expected, scales) in [
        ("grad_weights", &got.grad_weights, &flat(&expected.grad_weights), &flat(&scales.weights)),
        ("grad_scales", &got.grad_scales, &expected.grad_scales, &scales.scales),
        ("grad_alpha", &got.grad_alpha, &expected.grad_alpha, &scales.alpha),
        ("gradient_norm", &got.gradient_norm, &expected.gradient_norm, &scales.norm),
        ("gradient_variance", &got.gradient_variance, &expected.gradient_variance, &variance),
        ("gradient_max", &got.gradient_max, &expected.gradient_max, &scales.max),
    ] {
        for (i, &got) in got.iter().enumerate() {
            judge_sum(case, what, i, got, (expected[i], scales[i]), tally);
        }
    }
}

/// A seed's ∂x against its own magnitude: the blueprints' differ much.
fn judge_input<T: LayerElement>(
    case: &Case<T>,
    seed: usize,
    grad_input: &[T],
    reference: &[f64],
    tally: &mut Tally,
) {
    let expected: Vec<f64> = elements(case, seed).map(|i| settled(reference[i])).collect();
    let got: Vec<f64> =
        elements(case, seed).map(|i| settled(grad_input[i].to_f32().into())).collect();
    let comparison = numeric::compare(&got, &expected).expect("as many elements in each");
    let tolerance = Tolerance::for_dtype(stored(T::DTYPE), 1).limit();
    let index = comparison.first_mismatch.or(comparison.worst_index).unwrap_or(0);
    let (got, expected, error) = (got[index], expected[index], comparison.max_rel_error);
    tally.judge(&case.name, &Compared { got, expected, error, tolerance }, || {
        let chunk = case.states.chunk_size;
        format!("grad_input of seed {seed} at row {}, column {}", index / chunk, index % chunk)
    });
}

/// A parameter's gradient, a sum in f32 whatever the element type, against its natural size.
fn judge_sum<T>(
    case: &Case<T>,
    what: &str,
    index: usize,
    got: f32,
    (expected, scale): (f64, f64),
    tally: &mut Tally,
) {
    let (got, expected) = (settled(got.into()), settled(expected));
    let comparison =
        numeric::compare_to_scale(&[got], &[expected], scale).expect("one value is as many as one");
    let tolerance = Tolerance::for_dtype(Dtype::F32, 1).limit();
    let compared = Compared { got, expected, error: comparison.max_rel_error, tolerance };
    tally.judge(&case.name, &compared, || format!("{what}[{index}]"));
}

/// Whether ∞ or NaN comes of an infinite operand is the formula's order to decide: the kernel leaves it open.
fn settled(value: f64) -> f64 {
    if value.is_finite() { value } else { f64::NAN }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::{Row, Source, Status};

    /// The last case of the random ones that has every array and no special values.
    fn verdict(change: impl FnOnce(&mut Results<f32>, &Case<f32>)) -> Row {
        let source = Source::random(3);
        let case = cases::<f32>(&Device::Cpu, &source, 1)
            .find(|case| {
                let states = &case.states;
                let trains = |s: &usize| states.lifecycle[*s] == 3 && states.blueprint_id[*s] != 0;
                (0..states.num_seeds()).any(|s| trains(&s))
                    && states.lifecycle.contains(&0)
                    && case.input.iter().all(|x| x.is_finite())
            })
            .expect("such a case");
        let gradient = random::values(&mut random::generator(5), case.input.len(), false);
        let mut prepared =
            Prepared::new(&Device::Cpu, &case, &gradient, BlendOptions::default()).unwrap();
        let mut results = prepared.run_poisoned().unwrap();
        change(&mut results, &case);
        let mut tally = Tally::default();
        judge(&case, &gradient, &results, &mut tally);
        tally.into_row("blend_backward".into(), T32, "cpu")
    }

    const T32: kasmina_types::DType = kasmina_types::DType::F32;

    fn reason(row: Row) -> String {
        let Status::Fail { reason } = row.status else { panic!("passed: {row:?}") };
        reason
    }

    fn first_in(case: &Case<f32>, state: u8) -> usize {
        let states = &case.states;
        (0..states.num_seeds())
            .find(|&s| states.lifecycle[s] == state && (state == 0 || states.blueprint_id[s] != 0))
            .expect("the case has one")
    }

    #[test]
    fn a_variant_that_the_device_lacks_is_skipped() {
        let row =
            check::<f32>("blend_backward_tma", Variant::Tma).run(&Device::Cpu, &Source::random(1));
        assert!(matches!(row.status, Status::Skipped { .. }), "{row:?}");
    }

    #[test]
    fn a_right_result_passes() {
        let row = verdict(|_, _| {});
        assert_eq!(row.status, Status::Pass);
        assert!(row.max_rel_error > 0.0 && row.max_rel_error <= row.tolerance, "{row:?}");
    }

    #[test]
    fn one_wrong_value_of_any_array_fails() {
        type Change = fn(&mut GradientValues, usize, usize);
        let wrong: [(&str, Change); 6] = [
            ("grad_weights", |g, _, _| g.grad_weights[0] += 1e-3),
            ("grad_scales", |g, _, _| g.grad_scales[0] = f32::NAN),
            ("grad_alpha", |g, _, dormant| g.grad_alpha[dormant] = 1e-30),
            ("gradient_norm", |g, seed, _| g.gradient_norm[seed] *= 1.001),
            ("gradient_variance", |g, _, dormant| g.gradient_variance[dormant] = f32::INFINITY),
            ("gradient_max", |g, seed, _| g.gradient_max[seed] *= 1.001),
        ];
        for (name, change) in wrong {
            let text = reason(verdict(|results, case| {
                change(&mut results.gradients, first_in(case, 3), first_in(case, 0));
            }));
            assert!(text.contains(&format!("{name}[")), "{name}: {text}");
        }
    }

    #[test]
    fn one_wrong_element_of_the_inputs_gradient_fails() {
        let text = reason(verdict(|results, case| {
            let at = elements(case, first_in(case, 3)).next().expect("an element");
            results.grad_input[at] = f32::NAN;
        }));
        assert!(text.contains("grad_input of seed"), "{text}");
        let text = reason(verdict(|results, case| {
            let at = elements(case, first_in(case, 0)).next().expect("an element");
            results.grad_input[at] = f32::from_bits(results.grad_input[at].to_bits() ^ 1);
        }));
        assert!(text.contains("is the identity"), "{text}");
    }
}

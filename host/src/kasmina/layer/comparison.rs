//! How the results of two kernels for the same input differ.

use serde::Serialize;

use super::LayerElement;
use crate::kasmina::TelemetryValues;

/// How the forward results of two kernels for the same input differ, over all comparisons so far.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct KernelComparison {
    /// The first kernel; of batch sizes that run on different ones all of them, with commas between, as they came.
    pub first: String,
    /// The second, which relative differences are relative to; likewise.
    pub second: String,
    /// Comparisons.
    pub runs: u64,
    /// Elements of all outputs.
    pub elements: u64,
    /// Elements whose bits differ.
    pub differing: u64,
    /// Elements of which one is finite and the other is not.
    pub nonfinite_differing: u64,
    /// The largest difference of two finite elements.
    pub max_absolute: f64,
    /// The largest difference as a share of the second's magnitude, of 1 where that is less.
    pub max_relative: f64,
    /// The telemetry's figures.
    pub telemetry: Vec<TelemetryDifference>,
}

/// How far one figure of the telemetry differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TelemetryDifference {
    /// The figure.
    pub figure: &'static str,
    /// Seeds in which the bits differ, over all comparisons.
    pub differing: u64,
    /// The largest difference as a share of the second's magnitude, of 1 where that is less.
    pub max_relative: f64,
}

/// How the gradients of two backward kernels for the same input differ, over all comparisons so far.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GradientComparison {
    /// The first kernel; of batch sizes that run on different ones all of them, with commas between, as they came.
    pub first: String,
    /// The second, which relative differences are relative to; likewise.
    pub second: String,
    /// Comparisons.
    pub runs: u64,
    /// One for each array: `grad_input`, then those of [`GradientBuffers`](crate::kasmina::GradientBuffers) in their
    /// order, before clipping. Of weights and scales those of the blueprints that a seed has.
    pub arrays: Vec<ArrayDifference>,
}

/// How far two arrays differ, over all comparisons so far.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ArrayDifference {
    /// The array.
    pub array: &'static str,
    /// Elements compared.
    pub elements: u64,
    /// Elements whose bits differ.
    pub differing: u64,
    /// Elements of which one is finite and the other is not.
    pub nonfinite_differing: u64,
    /// The largest difference of two finite elements.
    pub max_absolute: f64,
    /// The largest difference as a share of the second's magnitude, of 1 where that is less.
    pub max_relative: f64,
}

/// What one forward kernel computed.
pub(super) struct Outcome<T> {
    pub(super) kernel: String,
    pub(super) output: Vec<T>,
    pub(super) telemetry: TelemetryValues,
}

/// What one backward kernel computed.
pub(super) struct GradientOutcome<T> {
    pub(super) kernel: String,
    pub(super) grad_input: Vec<T>,
    /// By name.
    pub(super) parameters: Vec<(&'static str, Vec<f32>)>,
}

impl KernelComparison {
    pub(super) fn of<T: LayerElement>(first: &Outcome<T>, second: &Outcome<T>) -> Self {
        let output = ArrayDifference::of("output", &first.output, &second.output);
        Self {
            first: first.kernel.clone(),
            second: second.kernel.clone(),
            runs: 1,
            elements: output.elements,
            differing: output.differing,
            nonfinite_differing: output.nonfinite_differing,
            max_absolute: output.max_absolute,
            max_relative: output.max_relative,
            telemetry: telemetry_differences(&first.telemetry, &second.telemetry),
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        add_kernel(&mut self.first, &other.first);
        add_kernel(&mut self.second, &other.second);
        self.runs += other.runs;
        self.elements += other.elements;
        self.differing += other.differing;
        self.nonfinite_differing += other.nonfinite_differing;
        self.max_absolute = self.max_absolute.max(other.max_absolute);
        self.max_relative = self.max_relative.max(other.max_relative);
        for (kept, found) in self.telemetry.iter_mut().zip(&other.telemetry) {
            kept.differing += found.differing;
            kept.max_relative = kept.max_relative.max(found.max_relative);
        }
    }
}

impl GradientComparison {
    /// The array of a name.
    pub fn array(&self, name: &str) -> Option<&ArrayDifference> {
        self.arrays.iter().find(|array| array.array == name)
    }

    pub(super) fn of<T: LayerElement>(
        first: &GradientOutcome<T>,
        second: &GradientOutcome<T>,
    ) -> Self {
        let grad_input = ArrayDifference::of("grad_input", &first.grad_input, &second.grad_input);
        let pairs = first.parameters.iter().zip(&second.parameters);
        let parameters = pairs.map(|((name, a), (_, b))| ArrayDifference::of(name, a, b));
        Self {
            first: first.kernel.clone(),
            second: second.kernel.clone(),
            runs: 1,
            arrays: std::iter::once(grad_input).chain(parameters).collect(),
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        add_kernel(&mut self.first, &other.first);
        add_kernel(&mut self.second, &other.second);
        self.runs += other.runs;
        for (kept, found) in self.arrays.iter_mut().zip(&other.arrays) {
            kept.elements += found.elements;
            kept.differing += found.differing;
            kept.nonfinite_differing += found.nonfinite_differing;
            kept.max_absolute = kept.max_absolute.max(found.max_absolute);
            kept.max_relative = kept.max_relative.max(found.max_relative);
        }
    }
}

impl ArrayDifference {
    fn of<T: LayerElement>(array: &'static str, first: &[T], second: &[T]) -> Self {
        let mut difference = Self {
            array,
            elements: first.len() as u64,
            differing: 0,
            nonfinite_differing: 0,
            max_absolute: 0.0,
            max_relative: 0.0,
        };
        for (a, b) in first.iter().zip(second) {
            difference.differing += u64::from(bytemuck::bytes_of(a) != bytemuck::bytes_of(b));
            let (a, b) = (f64::from(a.to_f32()), f64::from(b.to_f32()));
            difference.nonfinite_differing += u64::from(a.is_finite() != b.is_finite());
            if a.is_finite() && b.is_finite() {
                difference.max_absolute = difference.max_absolute.max((a - b).abs());
                difference.max_relative = difference.max_relative.max(relative(a, b));
            }
        }
        difference
    }
}

/// Adds a kernel to those that were compared, if it is not among them.
fn add_kernel(kernels: &mut String, kernel: &str) {
    if !kernels.split(SEPARATOR).any(|known| known == kernel) {
        kernels.push_str(SEPARATOR);
        kernels.push_str(kernel);
    }
}

/// Between the names of kernels.
const SEPARATOR: &str = ", ";

fn telemetry_differences(a: &TelemetryValues, b: &TelemetryValues) -> Vec<TelemetryDifference> {
    let wide = |counts: &[u32]| counts.iter().map(|&count| f64::from(count)).collect::<Vec<_>>();
    let figure = |figure, a: Vec<f64>, b: Vec<f64>| {
        let pairs = a.iter().zip(&b);
        let differs = |&(a, b): &(&f64, &f64)| a.to_bits() != b.to_bits();
        let finite = |(a, b): (&f64, &f64)| (a.is_finite() && b.is_finite()).then_some((*a, *b));
        TelemetryDifference {
            figure,
            differing: pairs.clone().filter(differs).count() as u64,
            max_relative: pairs.filter_map(finite).map(|(a, b)| relative(a, b)).fold(0.0, f64::max),
        }
    };
    let floats = |values: &[f32]| values.iter().map(|&value| f64::from(value)).collect::<Vec<_>>();
    vec![
        figure("count", wide(&a.count), wide(&b.count)),
        figure("mean", floats(&a.mean), floats(&b.mean)),
        figure("variance", floats(&a.variance), floats(&b.variance)),
        figure("min", floats(&a.min), floats(&b.min)),
        figure("max", floats(&a.max), floats(&b.max)),
        figure("dead_ratio", floats(&a.dead_ratio), floats(&b.dead_ratio)),
        figure("snr", floats(&a.snr), floats(&b.snr)),
        figure("nonfinite", wide(&a.nonfinite), wide(&b.nonfinite)),
    ]
}

fn relative(a: f64, b: f64) -> f64 {
    (a - b).abs() / b.abs().max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_of_bits_of_finiteness_and_of_values() {
        let first = [1.0, 0.0, f32::NAN, 30.0, f32::INFINITY];
        let second = [1.0, -0.0, f32::NAN, 20.0, 0.5];
        let found = ArrayDifference::of("array", &first, &second);
        assert_eq!((found.elements, found.differing, found.nonfinite_differing), (5, 3, 1));
        assert_eq!((found.max_absolute, found.max_relative), (10.0, 0.5));
    }
    #[test]
    fn kernels_of_other_batch_sizes_are_named_too() {
        let comparison = |first: &str| GradientComparison {
            first: first.into(),
            second: "plain_v4".into(),
            runs: 1,
            arrays: vec![],
        };
        let mut kept = comparison("tma_v4");
        for other in ["tma_v4", "whole_v4", "tma_v4", "whole_v4"] {
            kept.merge(&comparison(other));
        }
        assert_eq!((kept.first.as_str(), kept.second.as_str()), ("tma_v4, whole_v4", "plain_v4"));
        assert_eq!(kept.runs, 5);
    }
}

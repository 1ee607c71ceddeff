//! `reduce_*` as cases.

use bytemuck::Pod;
use half::{bf16, f16};
use kasmina_reference::numeric::{Dtype, Tolerance};
use kasmina_reference::reduction::{self as reference, Element as _};
use kasmina_types::{DType, ReduceOp};
use num_traits::AsPrimitive;
use rayon::prelude::*;

use super::data::{self, Draw};
use super::{BenchError, Prepared, timer, within};
use crate::buffer::Buffer;
use crate::device::Device;
use crate::error::Error;
use crate::reduction::{Reduce, ReduceElement, SegmentOffsets, Segments};

/// How the array is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// So many elements, to one value.
    Whole(usize),
    /// Rows of columns.
    Rows(usize, usize),
    /// So many segments of 1 to 256 elements.
    Ragged(usize),
}

impl Cut {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Whole(_) => "whole",
            Self::Rows(..) => "rows",
            Self::Ragged(_) => "ragged",
        }
    }

    /// `[elements]`, or `[segments, elements of each]`, ragged `[segments, elements of all]`.
    pub(super) fn shape(self) -> Vec<usize> {
        match self {
            Self::Whole(elements) => vec![elements],
            Self::Rows(rows, columns) => vec![rows, columns],
            Self::Ragged(segments) => vec![segments, self.elements()],
        }
    }

    /// Of the values, the results, and the offsets where there are some.
    pub(super) fn bytes(self, op: ReduceOp, dtype: DType) -> u64 {
        let result = match (op, dtype) {
            (_, DType::F64) | (ReduceOp::Sum | ReduceOp::Mean | ReduceOp::Variance, DType::I32) => {
                8
            }
            _ => 4,
        };
        let (segments, offsets) = match self {
            Self::Whole(_) => (1, 0),
            Self::Rows(rows, _) => (rows, 0),
            Self::Ragged(segments) => (segments, segments + 1),
        };
        (self.elements() * dtype.size_bytes() + segments * result + offsets * 8) as u64
    }

    fn elements(self) -> usize {
        match self {
            Self::Whole(elements) => elements,
            Self::Rows(rows, columns) => rows * columns,
            Self::Ragged(_) => *self.offsets().last().expect("the first is there") as usize,
        }
    }

    /// Where each segment begins and the last ends.
    fn offsets(self) -> Vec<u64> {
        match self {
            Self::Whole(elements) => vec![0, elements as u64],
            Self::Rows(rows, columns) => (0..=rows).map(|row| (row * columns) as u64).collect(),
            Self::Ragged(segments) => std::iter::once(0)
                .chain((0..segments as u64).scan(0, |end, segment| {
                    *end += 1 + (data::bits(0, segment) >> 56);
                    Some(*end)
                }))
                .collect(),
        }
    }
}

/// Makes the buffers and checks one result.
pub(super) fn prepare(
    device: &Device,
    op: ReduceOp,
    dtype: DType,
    cut: Cut,
    bytes: u64,
) -> Result<Prepared, BenchError> {
    match dtype {
        DType::F32 => of::<f32>(device, op, cut, bytes),
        DType::F16 => of::<f16>(device, op, cut, bytes),
        DType::Bf16 => of::<bf16>(device, op, cut, bytes),
        DType::F64 => of::<f64>(device, op, cut, bytes),
        DType::I32 => of::<i32>(device, op, cut, bytes),
        DType::E4m3 => unreachable!("the cases have the kernels' element types"),
    }
}

fn of<T: ReduceElement + Draw>(
    device: &Device,
    op: ReduceOp,
    cut: Cut,
    bytes: u64,
) -> Result<Prepared, BenchError>
where
    T::Sum: AsPrimitive<f64>,
    T::Extreme: AsPrimitive<f64>,
    T::Moment: AsPrimitive<f64>,
{
    let inputs = Inputs::<T>::new(device, op, cut, bytes)?;
    match op {
        ReduceOp::Sum => inputs.prepare(Reduce::sum_into),
        ReduceOp::Max => inputs.prepare(Reduce::max_into),
        ReduceOp::Min => inputs.prepare(Reduce::min_into),
        ReduceOp::Mean => inputs.prepare(Reduce::mean_into),
        ReduceOp::Variance => inputs.prepare(Reduce::variance_into),
    }
}

/// What a case reduces.
struct Inputs<'a, T: ReduceElement> {
    device: &'a Device,
    op: ReduceOp,
    cut: Cut,
    /// Where each segment begins; what a ragged cut gives to the kernel.
    offsets: SegmentOffsets,
    /// One for each set.
    buffers: Vec<Buffer<T>>,
}

type Operation<T, O> = fn(&Reduce, &Buffer<T>, &Segments<'_>, &mut Buffer<O>) -> Result<(), Error>;

impl<'a, T: ReduceElement + Draw> Inputs<'a, T> {
    fn new(device: &'a Device, op: ReduceOp, cut: Cut, bytes: u64) -> Result<Self, BenchError> {
        let offsets = SegmentOffsets::new(device, &cut.offsets())?;
        let draw = |set| Buffer::from_slice(device, &data::draw::<T>(1 + set, cut.elements()));
        let sets = timer::buffer_sets(device, bytes) as u64;
        let buffers = (0..sets).map(draw).collect::<Result<_, _>>()?;
        Ok(Self { device, op, cut, offsets, buffers })
    }

    fn prepare<O: Pod + AsPrimitive<f64>>(
        self,
        operation: Operation<T, O>,
    ) -> Result<Prepared, BenchError> {
        let reduce = Reduce::new(self.device);
        let mut output = Buffer::<O>::zeroed(self.device, self.offsets.segments())?;
        output.fill_bytes(0xFF)?;
        let Self { cut, buffers, offsets, .. } = &self;
        operation(&reduce, &buffers[0], &segments(*cut, offsets), &mut output)?;
        let got: Vec<f64> = output.to_vec()?.into_iter().map(O::as_).collect();
        let tolerance = self.tolerance();
        let max_rel_error = within("the result", &got, &self.expected()?, tolerance)?;

        let Self { cut, buffers, offsets, .. } = self;
        let sets = buffers.len();
        let call = move |set: usize| {
            operation(&reduce, &buffers[set % sets], &segments(cut, &offsets), &mut output)
        };
        Ok(Prepared { call: Box::new(call), sets, max_rel_error, tolerance: tolerance.limit() })
    }

    /// f16, bf16 and f32 are reduced in f32, i32 exactly where the result is an integer.
    fn tolerance(&self) -> Tolerance {
        let dtype = match (T::DTYPE, self.op) {
            (DType::F64, _) | (DType::I32, ReduceOp::Mean | ReduceOp::Variance) => Dtype::F64,
            (DType::I32, _) => Dtype::I32,
            (DType::F32 | DType::F16 | DType::Bf16 | DType::E4m3, _) => Dtype::F32,
        };
        Tolerance::for_dtype(dtype, self.cut.elements() / self.offsets.segments().max(1))
    }

    fn expected(&self) -> Result<Vec<f64>, BenchError> {
        let values: Vec<T::Reference> =
            self.buffers[0].to_vec()?.into_par_iter().map(T::to_reference).collect();
        let one = |range: &[u64]| {
            let values = &values[range[0] as usize..range[1] as usize];
            let not_empty = "no segment is empty";
            match self.op {
                ReduceOp::Sum => T::Reference::sum_as_f64(reference::sum(values)),
                ReduceOp::Max => reference::max(values).expect(not_empty).as_f64(),
                ReduceOp::Min => reference::min(values).expect(not_empty).as_f64(),
                ReduceOp::Mean => reference::mean(values),
                ReduceOp::Variance => reference::variance(values),
            }
        };
        Ok(self.offsets.as_slice().par_windows(2).map(one).collect())
    }
}

fn segments(cut: Cut, offsets: &SegmentOffsets) -> Segments<'_> {
    match cut {
        Cut::Whole(_) => Segments::Whole,
        Cut::Rows(_, columns) => Segments::Rows(columns),
        Cut::Ragged(_) => Segments::Offsets(offsets),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ragged_segments_have_1_to_256_elements() {
        let offsets = Cut::Ragged(5000).offsets();
        assert_eq!(offsets.len(), 5001);
        let lengths: Vec<_> = offsets.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(lengths.iter().min(), Some(&1));
        assert_eq!(lengths.iter().max(), Some(&256));
        assert_eq!(Cut::Ragged(5000).shape(), [5000, offsets[5000] as usize]);
    }
}

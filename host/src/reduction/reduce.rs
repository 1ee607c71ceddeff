//! Sum, max, min, mean and variance.

use std::sync::{Mutex, PoisonError};

use bytemuck::Pod;
use half::{bf16, f16};
use kasmina_kernels::instances::{self, Team};
use kasmina_reference::reduction as reference;
use kasmina_types::ReduceOp;
use kasmina_types::dtype::Element;
use kasmina_types::reduction::REDUCE_PARTIAL_BYTES;

use super::segments::Segments;
use crate::buffer::Buffer;
use crate::device::Device;
use crate::driver::launchers::KernelDevice;
use crate::driver::launchers::reduce::{self as launcher, Arguments, Cut};
use crate::error::Error;

/// Segments shorter than this, on average, are a warp's; longer ones a block's.
const WARP_SEGMENT_BYTES: usize = 8192;

/// A single segment of this size, among short ones, makes them all blocks'.
const LONGEST_WARP_SEGMENT_BYTES: usize = 1 << 20;

/// Bytes of a part: below this a further block costs more than it brings.
const PART_BYTES: usize = 64 * 1024;

/// An element type, with what its reductions are computed and answered in.
pub trait ReduceElement: Element {
    /// Sums: f32 for f16, bf16 and f32, f64 for f64, i64 for i32.
    type Sum: Pod;
    /// Extremes: f32 for f16, bf16 and f32, f64 for f64, i32 for i32.
    type Extreme: Pod;
    /// Means and variances: f32 for f16, bf16 and f32, f64 for f64 and i32.
    type Moment: Pod;
    #[doc(hidden)]
    type Reference: reference::Element;
    #[doc(hidden)]
    fn to_reference(self) -> Self::Reference;
    #[doc(hidden)]
    fn sum_from(value: <Self::Reference as reference::Element>::Sum) -> Self::Sum;
    #[doc(hidden)]
    fn extreme_from(value: Self::Reference) -> Self::Extreme;
    #[doc(hidden)]
    fn moment_from(value: f64) -> Self::Moment;
}

macro_rules! element {
    ($type:ty as $reference:ty => $sum:ty, $extreme:ty, $moment:ty) => {
        impl ReduceElement for $type {
            type Sum = $sum;
            type Extreme = $extreme;
            type Moment = $moment;
            type Reference = $reference;
            fn to_reference(self) -> $reference {
                self.into()
            }
            fn sum_from(value: <$reference as reference::Element>::Sum) -> $sum {
                value as $sum
            }
            fn extreme_from(value: $reference) -> $extreme {
                value
            }
            fn moment_from(value: f64) -> $moment {
                value as $moment
            }
        }
    };
}

element!(f32 as f32 => f32, f32, f32);
element!(f16 as f32 => f32, f32, f32);
element!(bf16 as f32 => f32, f32, f32);
element!(f64 as f64 => f64, f64, f64);
element!(i32 as i32 => i64, i32, f64);

/// Reduces arrays on one device. Keeps its scratch memory between calls; calls on one object wait for
/// each other on the host only while they are queued.
pub struct Reduce {
    device: Device,
    scratch: Mutex<Scratch>,
}

#[derive(Default)]
struct Scratch {
    partials: Option<Buffer<u8>>,
    arrivals: Option<Buffer<u32>>,
}

impl Reduce {
    /// A reducer for `device`.
    pub fn new(device: &Device) -> Self {
        Self { device: device.clone(), scratch: Mutex::default() }
    }

    /// Σx of each segment; 0 where it is empty.
    ///
    /// # Errors
    /// Segments that do not fit the input, a buffer on another device, memory exhausted.
    pub fn sum<T: ReduceElement>(
        &self,
        input: &Buffer<T>,
        segments: &Segments<'_>,
    ) -> Result<Buffer<T::Sum>, Error> {
        self.new_output(input, segments, |output| self.sum_into(input, segments, output))
    }

    /// The largest of each segment; NaN if one is.
    ///
    /// # Errors
    /// As [`Self::sum`], and an empty segment.
    pub fn max<T: ReduceElement>(
        &self,
        input: &Buffer<T>,
        segments: &Segments<'_>,
    ) -> Result<Buffer<T::Extreme>, Error> {
        self.new_output(input, segments, |output| self.max_into(input, segments, output))
    }

    /// The smallest of each segment; NaN if one is.
    ///
    /// # Errors
    /// As [`Self::max`].
    pub fn min<T: ReduceElement>(
        &self,
        input: &Buffer<T>,
        segments: &Segments<'_>,
    ) -> Result<Buffer<T::Extreme>, Error> {
        self.new_output(input, segments, |output| self.min_into(input, segments, output))
    }

    /// The mean of each segment; NaN where it is empty.
    ///
    /// # Errors
    /// As [`Self::sum`].
    pub fn mean<T: ReduceElement>(
        &self,
        input: &Buffer<T>,
        segments: &Segments<'_>,
    ) -> Result<Buffer<T::Moment>, Error> {
        self.new_output(input, segments, |output| self.mean_into(input, segments, output))
    }

    /// The population variance of each segment, Σ(x − mean)² / n; NaN where it is empty.
    ///
    /// # Errors
    /// As [`Self::sum`].
    pub fn variance<T: ReduceElement>(
        &self,
        input: &Buffer<T>,
        segments: &Segments<'_>,
    ) -> Result<Buffer<T::Moment>, Error> {
        self.new_output(input, segments, |output| self.variance_into(input, segments, output))
    }

    /// [`Self::sum`] into a buffer of one element for each segment.
    ///
    /// # Errors
    /// As [`Self::sum`], and an output of another length.
    pub fn sum_into<T: ReduceElement>(
        &self,
        input: &Buffer<T>,
        segments: &Segments<'_>,
        output: &mut Buffer<T::Sum>,
    ) -> Result<(), Error> {
        self.run(ReduceOp::Sum, input, segments, output, |values| {
            T::sum_from(reference::sum(values))
        })
    }

    /// [`Self::max`] into a buffer of one element for each segment.
    ///
    /// # Errors
    /// As [`Self::max`], and an output of another length.
    pub fn max_into<T: ReduceElement>(
        &self,
        input: &Buffer<T>,
        segments: &Segments<'_>,
        output: &mut Buffer<T::Extreme>,
    ) -> Result<(), Error> {
        refuse_empty("max", input, segments)?;
        self.run(ReduceOp::Max, input, segments, output, |values| {
            T::extreme_from(reference::max(values).expect("no segment is empty"))
        })
    }

    /// [`Self::min`] into a buffer of one element for each segment.
    ///
    /// # Errors
    /// As [`Self::min`], and an output of another length.
    pub fn min_into<T: ReduceElement>(
        &self,
        input: &Buffer<T>,
        segments: &Segments<'_>,
        output: &mut Buffer<T::Extreme>,
    ) -> Result<(), Error> {
        refuse_empty("min", input, segments)?;
        self.run(ReduceOp::Min, input, segments, output, |values| {
            T::extreme_from(reference::min(values).expect("no segment is empty"))
        })
    }

    /// [`Self::mean`] into a buffer of one element for each segment.
    ///
    /// # Errors
    /// As [`Self::mean`], and an output of another length.
    pub fn mean_into<T: ReduceElement>(
        &self,
        input: &Buffer<T>,
        segments: &Segments<'_>,
        output: &mut Buffer<T::Moment>,
    ) -> Result<(), Error> {
        self.run(ReduceOp::Mean, input, segments, output, |values| {
            T::moment_from(reference::mean(values))
        })
    }

    /// [`Self::variance`] into a buffer of one element for each segment.
    ///
    /// # Errors
    /// As [`Self::variance`], and an output of another length.
    pub fn variance_into<T: ReduceElement>(
        &self,
        input: &Buffer<T>,
        segments: &Segments<'_>,
        output: &mut Buffer<T::Moment>,
    ) -> Result<(), Error> {
        self.run(ReduceOp::Variance, input, segments, output, |values| {
            T::moment_from(reference::variance(values))
        })
    }

    fn new_output<T: ReduceElement, O: Pod>(
        &self,
        input: &Buffer<T>,
        segments: &Segments<'_>,
        fill: impl FnOnce(&mut Buffer<O>) -> Result<(), Error>,
    ) -> Result<Buffer<O>, Error> {
        let mut output = Buffer::zeroed(&self.device, segments.count(input.len())?)?;
        fill(&mut output)?;
        Ok(output)
    }

    /// One operation: the kernel where the device runs kernels, else `on_cpu` for each segment.
    fn run<T: ReduceElement, O: Pod>(
        &self,
        op: ReduceOp,
        input: &Buffer<T>,
        segments: &Segments<'_>,
        output: &mut Buffer<O>,
        on_cpu: impl Fn(&[T::Reference]) -> O,
    ) -> Result<(), Error> {
        let count = segments.count(input.len())?;
        input.check_device(op.name(), "input", &self.device)?;
        output.check_device(op.name(), "output", &self.device)?;
        let Some(kernels) = KernelDevice::of(&self.device) else {
            return run_on_cpu(input, segments, output, on_cpu);
        };
        if let Segments::Offsets(offsets) = segments {
            offsets.device.check_device(op.name(), "offsets", &self.device)?;
        }

        let bytes = input.len() * size_of::<T>();
        // Short on average, and none so long that one warp would keep the others waiting.
        let longest = match segments {
            Segments::Offsets(offsets) => offsets.longest * size_of::<T>(),
            _ => bytes / count.max(1),
        };
        let short =
            count > 1 && bytes / count < WARP_SEGMENT_BYTES && longest < LONGEST_WARP_SEGMENT_BYTES;
        let team = if short { Team::Warp } else { Team::Block };
        let kernel = instances::reduce(op, T::DTYPE, team);
        let grid = kernels.resident_blocks(kernel)?;
        let parts = match team {
            Team::Warp => 1,
            // As many as fill the device, but none with too little to do.
            Team::Block => {
                let wanted = (grid as usize).div_ceil(count.max(1));
                let worth = longest.div_ceil(PART_BYTES);
                wanted.min(worth).max(1)
            }
        };
        let mut scratch = self.scratch.lock().unwrap_or_else(PoisonError::into_inner);
        let Scratch { partials, arrivals } = &mut *scratch;
        let places = if parts > 1 { count * parts } else { 0 };
        let partials = grown(&self.device, partials, places * REDUCE_PARTIAL_BYTES)?;
        let arrivals = grown(&self.device, arrivals, if parts > 1 { count } else { 0 })?;
        let cut = match segments {
            Segments::Whole => Cut::Uniform { segments: 1, length: input.len() as u64 },
            Segments::Rows(columns) => {
                Cut::Uniform { segments: count as u32, length: *columns as u64 }
            }
            Segments::Offsets(offsets) => Cut::Offsets(&offsets.device),
        };
        let parts = parts as u32;
        let launched = launcher::launch(
            kernels,
            Arguments { kernel, team, input, cut, output, parts, partials, arrivals, grid },
        );
        if launched.is_err() {
            // A launch that broke off leaves arrivals that are not zero.
            *scratch = Scratch::default();
        }
        launched
    }
}

/// The scratch buffer, made anew, of zeros, where it is too small.
fn grown<'a, T: Pod>(
    device: &Device,
    buffer: &'a mut Option<Buffer<T>>,
    len: usize,
) -> Result<&'a mut Buffer<T>, Error> {
    let fits = buffer.as_ref().is_some_and(|buffer| buffer.len() >= len);
    if !fits {
        device.refuse_capture("reduce")?;
        *buffer = Some(Buffer::zeroed(device, len.next_power_of_two())?);
    }
    Ok(buffer.as_mut().expect("made above"))
}

fn refuse_empty<T: ReduceElement>(
    op: &'static str,
    input: &Buffer<T>,
    segments: &Segments<'_>,
) -> Result<(), Error> {
    segments.count(input.len())?;
    match segments.first_empty(input.len()) {
        Some(segment) => Err(Error::EmptySegment { op, segment }),
        None => Ok(()),
    }
}

fn run_on_cpu<T: ReduceElement, O: Pod>(
    input: &Buffer<T>,
    segments: &Segments<'_>,
    output: &mut Buffer<O>,
    on_cpu: impl Fn(&[T::Reference]) -> O,
) -> Result<(), Error> {
    let values = input.as_host_slice().expect("the CPU's buffers are in the host's memory");
    let values: Vec<T::Reference> = values.iter().map(|&value| value.to_reference()).collect();
    let offsets = segments.ranges(values.len());
    let results: Vec<O> =
        offsets.windows(2).map(|pair| on_cpu(&values[pair[0]..pair[1]])).collect();
    output.copy_from_slice(&results)
}

//! Telemetry of an input alone, by a strategy.

use kasmina_kernels::instances::{self, TelemetryReduceInstance};
use kasmina_reference::kasmina::{self as reference, RowStrategy};
use kasmina_types::ReductionStrategy;
use kasmina_types::telemetry_reduce::TELEMETRY_REDUCE_PARTIAL_WORDS;
use ndarray::ArrayView2;

use super::blend_forward::LayerElement;
use super::geometry;
use super::telemetry::{TelemetryBuffers, TelemetryValues};
use crate::buffer::{Buffer, check_length};
use crate::device::Device;
use crate::driver::launchers::KernelDevice;
use crate::driver::launchers::telemetry_reduce::{self as launcher, Arguments};
use crate::error::Error;

const OP: &str = "telemetry_reduce";

/// Warps of a block, which take rows in turn.
const WARPS: u32 = 8;

/// Rows that one warp averages, at most: what keeps an f32 mean of them exact to some 1e-6.
const ROWS_OF_A_MEAN: u32 = 1024;

/// The telemetry of an input of one shape, element type and strategy, on one device, without a forward
/// pass: what [`ReductionStrategy`] says.
///
/// With [`ReductionStrategy::Hierarchical`] the figures are those of the forward pass, up to rounding. With
/// the others each figure is taken of each row's chunk, and of a seed's rows the mean of each figure, or
/// the largest. Rows without a finite value are left out; where none is left, all but `count` and
/// `nonfinite`, which are of all rows, are NaN.
///
/// Plan and scratch memory are made once; [`Self::run`] allocates nothing on a device that runs kernels.
pub struct TelemetryReduce<T: LayerElement> {
    device: Device,
    batch: usize,
    num_seeds: usize,
    chunk_size: usize,
    strategy: ReductionStrategy,
    plan: Option<Plan>,
    _element: std::marker::PhantomData<T>,
}

struct Plan {
    instance: TelemetryReduceInstance,
    slabs: u32,
    grid: u32,
    partials: Buffer<u32>,
    arrivals: Buffer<u32>,
}

impl<T: LayerElement> TelemetryReduce<T> {
    /// Plans the telemetry of `batch` rows of `num_seeds · chunk_size` columns.
    ///
    /// # Errors
    /// A shape without elements or beyond 32-bit counts, a capture of the device's stream, memory exhausted,
    /// or a failed call.
    pub fn new(
        device: &Device,
        batch: usize,
        num_seeds: usize,
        chunk_size: usize,
        strategy: ReductionStrategy,
    ) -> Result<Self, Error> {
        for (buffer, got) in
            [("batch", batch), ("num_seeds", num_seeds), ("chunk_size", chunk_size)]
        {
            if got == 0 {
                return Err(Error::Length { op: OP, buffer, expected: "at least 1".into(), got });
            }
        }
        for (what, got, limit) in [
            ("num_seeds · chunk_size", num_seeds.saturating_mul(chunk_size), u32::MAX),
            (
                "batch · chunk_size, the values of a seed",
                batch.saturating_mul(chunk_size),
                u32::MAX,
            ),
            // The kernel's row numbers pass the last by a step.
            ("batch", batch, i32::MAX as u32),
        ] {
            let (got, limit) = (got as u64, u64::from(limit));
            if got > limit {
                return Err(Error::TooLarge { op: OP, what, got, limit });
            }
        }
        device.refuse_capture(OP)?;
        let plan = match KernelDevice::of(device) {
            Some(kernels) => {
                let instance = instances::telemetry_reduce(strategy, T::DTYPE)
                    .find(|instance| chunk_size.is_multiple_of(instance.lanes as usize))
                    .expect("every dtype has an instance of one lane");
                let shape = [batch as u32, num_seeds as u32, chunk_size as u32];
                Some(Plan::new(device, kernels, instance, shape)?)
            }
            None => None,
        };
        let (device, _element) = (device.clone(), std::marker::PhantomData);
        Ok(Self { device, batch, num_seeds, chunk_size, strategy, plan, _element })
    }

    /// Computes `telemetry` from `input`, `[batch, num_seeds · chunk_size]` row-major.
    ///
    /// # Errors
    /// A buffer that does not fit the plan, or a failed call.
    pub fn run(
        &mut self,
        input: &Buffer<T>,
        telemetry: &mut TelemetryBuffers,
    ) -> Result<(), Error> {
        check_length(OP, "input", self.batch * self.num_seeds * self.chunk_size, input.len())?;
        input.check_device(OP, "input", &self.device)?;
        telemetry.check(OP, self.num_seeds, &self.device)?;
        let (Some(kernels), Some(plan)) = (KernelDevice::of(&self.device), &mut self.plan) else {
            return self.run_on_cpu(input, telemetry);
        };
        let launched = launcher::launch(
            kernels,
            Arguments {
                instance: plan.instance,
                strategy: self.strategy,
                grid: plan.grid,
                batch: self.batch as u32,
                num_seeds: self.num_seeds as u32,
                chunk_size: self.chunk_size as u32,
                slabs: plan.slabs,
                input,
                telemetry,
                partials: &mut plan.partials,
                arrivals: &mut plan.arrivals,
            },
        );
        if launched.is_err() {
            // A launch that broke off leaves arrivals that are not zero.
            plan.arrivals = Buffer::zeroed(&self.device, plan.arrivals.len())?;
        }
        launched
    }

    fn run_on_cpu(&self, input: &Buffer<T>, telemetry: &mut TelemetryBuffers) -> Result<(), Error> {
        let raw = input.as_host_slice().expect("the CPU's buffers are in the host's memory");
        let x: Vec<f32> = raw.iter().map(|&x| x.to_f32()).collect();
        let shape = (self.batch, self.num_seeds * self.chunk_size);
        let x = ArrayView2::from_shape(shape, &x).expect("the lengths were checked");
        let strategy = match self.strategy {
            ReductionStrategy::Hierarchical => RowStrategy::Hierarchical,
            ReductionStrategy::Mean => RowStrategy::Mean,
            ReductionStrategy::Max => RowStrategy::Max,
        };
        let seen =
            reference::telemetry_by(x, self.num_seeds, strategy).expect("the lengths were checked");
        let narrow = |values: &[f64]| values.iter().map(|&value| value as f32).collect();
        let counts = |values: &[u64]| values.iter().map(|&value| value as u32).collect();
        telemetry.write(&TelemetryValues {
            count: counts(&seen.count),
            mean: narrow(&seen.mean),
            variance: narrow(&seen.variance),
            min: narrow(&seen.min),
            max: narrow(&seen.max),
            dead_ratio: narrow(&seen.dead_ratio),
            snr: narrow(&seen.snr),
            nonfinite: counts(&seen.nonfinite),
        })
    }
}

impl Plan {
    fn new(
        device: &Device,
        kernels: KernelDevice<'_>,
        instance: TelemetryReduceInstance,
        [batch, num_seeds, chunk_size]: [u32; 3],
    ) -> Result<Self, Error> {
        let resident = kernels.resident_blocks(instance.kernel)?;
        let chunk_vectors = chunk_size / instance.lanes;
        let (team_shift, groups) = launcher::teams(num_seeds, chunk_vectors);
        // A warp takes several rows of short chunks together, and one of long ones.
        let together = if chunk_vectors <= 1 << team_shift { instance.vectors } else { 1 };
        let turns = batch.div_ceil(together * WARPS);
        let slabs =
            geometry::slabs(groups, turns, resident).max(batch.div_ceil(ROWS_OF_A_MEAN * WARPS));
        let tiles = u64::from(groups) * u64::from(slabs);
        // The kernel's tile numbers pass the last by a grid.
        let (what, limit) = ("groups · slabs", i32::MAX as u64);
        if tiles > limit {
            return Err(Error::TooLarge { op: OP, what, got: tiles, limit });
        }
        let parts = num_seeds as usize * slabs as usize;
        Ok(Self {
            instance,
            slabs,
            grid: tiles.min(u64::from(resident)) as u32,
            partials: Buffer::zeroed(device, parts * TELEMETRY_REDUCE_PARTIAL_WORDS)?,
            arrivals: Buffer::zeroed(device, groups as usize)?,
        })
    }
}

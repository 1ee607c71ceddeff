//! How a launch of the one-launch kernels is cut among blocks.

use std::fmt;

use kasmina_kernels::instances::{self, Infer, InferInstance};
use kasmina_types::DType;
use kasmina_types::active_inference::BLOCK_SUMS;

use super::{Models, unsupported};
use crate::buffer::Buffer;
use crate::device::Device;
use crate::driver::launchers::KernelDevice;
use crate::error::Error;
use crate::information::InferenceError;

/// What a plan is made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) dtype: DType,
    pub(super) models: usize,
    pub(super) observations: usize,
    pub(super) states: usize,
}

impl Shape {
    /// Refuses models of another shape.
    pub(super) fn check(&self, got: &Self) -> Result<(), Error> {
        if self != got {
            let (expected, got) = (self.to_string(), got.to_string());
            return Err(InferenceError::OtherPlan { expected, got }.into());
        }
        Ok(())
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { dtype, models, observations, states } = self;
        write!(f, "{models} models of {observations} × {states} in {dtype}")
    }
}

/// How a launch is cut, and the scratch for it.
pub(crate) struct Plan {
    pub(super) op: Infer,
    /// What it is cut for.
    pub(super) shape: Shape,
    /// Whether a launch broke off, and left barriers that are not whole.
    pub(super) broken: bool,
    pub(super) instance: InferInstance,
    pub(super) parts: usize,
    pub(super) groups: usize,
    pub(super) partials: Buffer<f64>,
    pub(super) sums: Buffer<f64>,
    pub(super) barriers: Buffer<u32>,
    pub(super) other_mean: Buffer<f64>,
    /// For a launch without a trace.
    pub(super) no_trace: Buffer<f64>,
}

impl Plan {
    /// Cuts the models' work for a device: as many blocks for a model as its rows are worth, as long as all are
    /// resident at once.
    pub(crate) fn new(
        device: &Device,
        kernels: KernelDevice<'_>,
        op: Infer,
        models: &Models,
        bulk_copies: bool,
    ) -> Result<Self, Error> {
        let shape = models.shape();
        let room = |i: &InferInstance| kernels.blocks_with_room(i.kernel, i.dynamic_shared_bytes);
        let (instance, resident) = choose(op, &shape, bulk_copies, room)?;
        let cooperative = kernels.launches_cooperatively();
        let (groups, parts) = cut(&shape, instance.block_rows, resident, cooperative);
        let slots = groups * parts;
        let other = if op == Infer::Step { 0 } else { models.mean.len() };
        Ok(Self {
            op,
            shape,
            broken: false,
            instance,
            parts,
            groups,
            partials: Buffer::zeroed(device, slots * models.stride())?,
            sums: Buffer::zeroed(device, slots * BLOCK_SUMS)?,
            barriers: Buffer::zeroed(device, groups)?,
            other_mean: Buffer::zeroed(device, other)?,
            no_trace: Buffer::zeroed(device, 0)?,
        })
    }

    /// Blocks that share a model.
    pub(crate) fn parts(&self) -> usize {
        self.parts
    }

    /// Makes the barriers ready again, after a launch that broke off.
    pub(super) fn reset(&mut self) -> Result<(), Error> {
        self.barriers.copy_from_slice(&vec![0; self.groups])?;
        self.broken = false;
        Ok(())
    }
}

/// The first instance of which the device holds a block, and how many it holds. Where it holds none the last is taken:
/// the launch says what is missing.
fn choose(
    op: Infer,
    shape: &Shape,
    bulk_copies: bool,
    mut room: impl FnMut(&InferInstance) -> Result<u32, Error>,
) -> Result<(InferInstance, usize), Error> {
    let Shape { dtype, observations, states, .. } = *shape;
    let wide =
        instances::active_inference(op, dtype, usize::MAX).ok_or_else(|| unsupported(dtype))?;
    let narrower = [
        instances::active_inference_small(op, dtype, observations, states),
        instances::active_inference_bulk(op, dtype, states).filter(|_| bulk_copies),
        instances::active_inference(op, dtype, states),
    ];
    for instance in narrower.into_iter().flatten() {
        let blocks = room(&instance)?;
        if blocks > 0 {
            return Ok((instance, blocks as usize));
        }
    }
    let blocks = room(&wide)?.max(1);
    Ok((wide, blocks as usize))
}

/// Groups of blocks, and the blocks of a group: as many for a model as its rows are worth, as long as all are resident
/// at once; one where blocks may not wait for each other.
fn cut(shape: &Shape, block_rows: usize, resident: usize, cooperative: bool) -> (usize, usize) {
    let Shape { models, observations, .. } = *shape;
    let wanted = if cooperative { observations.div_ceil(block_rows) } else { 1 };
    let most = wanted.min((resident / models).max(1));
    // The fewest that have no more rows each than with the most: as quick, and less to add up.
    let parts = observations.div_ceil(observations.div_ceil(most));
    (models.min((resident / parts).max(1)), parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE: Shape = Shape { dtype: DType::F64, models: 1, observations: 4096, states: 2000 };

    /// The kernel that is chosen where blocks with more dynamic shared memory than `most` have no room.
    fn chosen(shape: &Shape, most: u32) -> (&'static str, usize) {
        let room = |i: &InferInstance| Ok(if i.dynamic_shared_bytes <= most { 7 } else { 0 });
        let (instance, blocks) = choose(Infer::Step, shape, true, room).unwrap();
        (instance.kernel.name(), blocks)
    }

    #[test]
    fn the_first_instance_with_room_is_taken() {
        assert_eq!(chosen(&LARGE, u32::MAX), ("belief_step_f64_bulk", 7));
        assert_eq!(chosen(&LARGE, 100_000), ("belief_step_f64_c4096", 7));
        // 64 KiB less the static part: what compute capability 7.5 has.
        assert_eq!(chosen(&LARGE, 60_000), ("belief_step_f64_wide", 7));
        let small = Shape { states: 60, dtype: DType::F32, ..LARGE };
        assert_eq!(chosen(&small, 60_000), ("belief_step_f32_c64", 7));
        let smaller = Shape { observations: 64, ..small };
        assert_eq!(chosen(&smaller, 60_000), ("belief_step_f32_small", 7));
        assert_eq!(chosen(&Shape { states: 5000, ..LARGE }, 60_000), ("belief_step_f64_wide", 7));
    }

    #[test]
    fn no_room_at_all_is_left_to_the_launch_and_errors_come_through() {
        let (instance, blocks) = choose(Infer::Step, &LARGE, true, |_| Ok(0)).unwrap();
        assert_eq!((instance.kernel.name(), blocks), ("belief_step_f64_wide", 1));
        let broken = |_: &InferInstance| Err(Error::OutOfMemory { requested_bytes: 1 });
        assert!(matches!(
            choose(Infer::Step, &LARGE, true, broken),
            Err(Error::OutOfMemory { .. })
        ));
        let half = Shape { dtype: DType::F16, ..LARGE };
        let refused = choose(Infer::Step, &half, true, |_| Ok(1));
        assert!(matches!(refused, Err(Error::Dtype { got: DType::F16, .. })));
    }

    #[test]
    fn blocks_share_a_model_where_they_may_wait_for_each_other() {
        assert_eq!(cut(&LARGE, 4, 132, true), (1, 128));
        assert_eq!(cut(&LARGE, 4, 132, false), (1, 1));
        let batch = Shape { models: 200, ..LARGE };
        assert_eq!(cut(&batch, 4, 132, true), (132, 1));
        assert_eq!(cut(&Shape { models: 33, ..LARGE }, 4, 132, true), (33, 4));
        assert_eq!(cut(&Shape { models: 33, ..LARGE }, 4, 132, false), (33, 1));
        assert_eq!(cut(&Shape { observations: 1, ..LARGE }, 4, 132, true), (1, 1));
    }

    #[test]
    fn other_models_than_the_plans_are_refused() {
        assert!(LARGE.check(&LARGE).is_ok());
        for other in [
            Shape { dtype: DType::F32, ..LARGE },
            Shape { models: 2, ..LARGE },
            Shape { observations: 4095, ..LARGE },
            Shape { states: 1999, ..LARGE },
        ] {
            let why = LARGE.check(&other).unwrap_err().to_string();
            assert!(why.contains(&LARGE.to_string()) && why.contains(&other.to_string()), "{why}");
        }
    }
}

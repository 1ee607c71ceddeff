//! CRC-32 of what only a layer's commands change.

use safetensors::Dtype;

use crate::error::Error;
use crate::kasmina::checkpoint::{crc32_of_tensors, tensors};
use crate::kasmina::files::Tensor;
use crate::kasmina::{LayerState, SeedStates};

/// The CRC-32 of everything but the blueprints' parameters, which an optimiser changes between any two
/// steps; made as [`crc32_of_state`](crate::kasmina::checkpoint::crc32_of_state) is.
pub(crate) fn command_checksum(state: &LayerState) -> Result<u32, Error> {
    let states = SeedStates {
        lifecycle: state.lifecycle.to_vec()?,
        blueprint_id: state.blueprint_id.to_vec()?,
        alpha: state.alpha.to_vec()?,
        blueprint_type: state.blueprint_type.to_vec()?,
        ..SeedStates::default()
    };
    let (graft, offsets) = (state.read_graft()?, state.blueprint_offset.to_vec()?);
    let mut covered = tensors(&states, &graft);
    covered.push(Tensor::of("blueprint_offset", Dtype::U32, &[offsets.len()], &offsets));
    Ok(crc32_of_tensors(&covered))
}

//! `telemetry_reduce` as a case.

use kasmina_reference::kasmina::RowStrategy;
use kasmina_types::{DType, ReductionStrategy};

use super::data;
use super::layer::Checked;
use super::{BenchError, Prepared, timer};
use crate::buffer::Buffer;
use crate::device::Device;
use crate::error::Error;
use crate::kasmina::{TelemetryBuffers, TelemetryReduce};

/// The figures that a seed gets: six and two counts, 4 bytes each.
const FIGURES: usize = 8;

/// Bytes of an f32 input `[batch, seeds, chunk]` and of what is said of it.
pub(super) fn bytes([batch, seeds, chunk]: [usize; 3]) -> u64 {
    let size = DType::F32.size_bytes();
    (seeds * size * (batch * chunk + FIGURES)) as u64
}

/// Makes the f32 input `[batch, seeds, chunk]` and checks one result.
pub(super) fn prepare(
    device: &Device,
    shape: [usize; 3],
    strategy: ReductionStrategy,
) -> Result<Prepared, BenchError> {
    let [batch, seeds, chunk] = shape;
    let elements = batch * seeds * chunk;
    let mut reduce = TelemetryReduce::<f32>::new(device, batch, seeds, chunk, strategy)?;
    let mut telemetry = TelemetryBuffers::new(device, seeds)?;
    let sets = timer::buffer_sets(device, bytes(shape));
    let mut inputs = Vec::new();
    for set in 0..sets as u64 {
        inputs.push(Buffer::from_slice(device, &data::draw::<f32>(1 + set, elements))?);
    }

    telemetry.fill_bytes(0xFF)?;
    reduce.run(&inputs[0], &mut telemetry)?;
    let by = match strategy {
        ReductionStrategy::Hierarchical => RowStrategy::Hierarchical,
        ReductionStrategy::Mean => RowStrategy::Mean,
        ReductionStrategy::Max => RowStrategy::Max,
    };
    let result = Checked { shape, x: inputs[0].to_vec()?, y: Vec::new() };
    let (max_rel_error, tolerance) = result.check_telemetry(&telemetry.read()?, by)?;

    let call =
        move |set: usize| -> Result<(), Error> { reduce.run(&inputs[set % sets], &mut telemetry) };
    Ok(Prepared { call: Box::new(call), sets, max_rel_error, tolerance: tolerance.limit() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_strategy_is_right_on_the_cpu_and_under_the_executor() {
        for device in [Device::Cpu, Device::simt()] {
            for strategy in ReductionStrategy::ALL {
                let prepared = prepare(&device, [9, 5, 12], strategy).expect("a right result");
                assert!(prepared.max_rel_error <= prepared.tolerance, "{strategy}");
            }
        }
    }

    #[test]
    fn the_input_is_read_once() {
        assert_eq!(bytes([2, 3, 5]), 4 * 30 + 4 * 8 * 3);
    }
}

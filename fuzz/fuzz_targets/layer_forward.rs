#![no_main]
//! The bytes of `--state` and `--input`: refused, or the forward pass runs.

use kasmina::kasmina::checkpoint::states_of;
use kasmina::kasmina::files::{Dtype, LayerMatrix, TensorFile};
use kasmina::kasmina::{BlendForward, LayerState, TelemetryBuffers};
use kasmina::{Buffer, Device};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Some((length, bytes)) = bytes.split_first_chunk() else { return };
    let Some((state, input)) = bytes.split_at_checked(u16::from_le_bytes(*length).into()) else {
        return;
    };
    let Ok(state) = TensorFile::from_bytes("fuzzed state", state.to_vec()) else { return };
    let Ok(input) = TensorFile::from_bytes("fuzzed input", input.to_vec()) else { return };
    let Ok(states) = states_of(&state) else { return };
    let Ok(matrix) = LayerMatrix::read(&input, "input", &states) else { return };
    assert!(matrix.read_like(&input, "input", &states).is_ok());
    let device = Device::Cpu;
    let (batch, seeds, chunk) = (matrix.batch(), states.num_seeds(), states.chunk_size);
    if matrix.dtype != Dtype::F32 {
        return;
    }
    let x = Buffer::from_slice(&device, &matrix.elements::<f32>()).expect("it is in memory");
    let mut state = LayerState::new(&device, states).expect("the state was checked");
    let mut pass = BlendForward::<f32>::new(&device, batch, seeds, chunk).expect("the shape fits");
    let mut y = Buffer::zeroed(&device, x.len()).expect("x fits");
    let mut telemetry = TelemetryBuffers::new(&device, seeds).expect("the state fits");
    pass.run(&mut state, &x, &mut y, &mut telemetry).expect("the arguments fit");
});

#![no_main]
//! The bytes of `--state` and `--input`: refused, or the forward pass runs.

mod files;

use kasmina::kasmina::checkpoint::states_of;
use kasmina::kasmina::files::{Dtype, LayerMatrix, TensorFile};
use kasmina::kasmina::{BlendForward, LayerState, TelemetryBuffers};
use kasmina::{Buffer, Device};
use libfuzzer_sys::{fuzz_mutator, fuzz_target};

fuzz_mutator!(|bytes: &mut [u8], size: usize, most: usize, seed: u32| {
    files::mutate(bytes, size, most, seed, 2)
});

fuzz_target!(|bytes: &[u8]| {
    let Some((state, input)) = files::part(bytes) else { return };
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

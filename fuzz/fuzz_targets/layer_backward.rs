#![no_main]
//! The bytes of `--state`, `--input` and `--grad-output`: refused, or the backward pass runs.

mod files;

use half::{bf16, f16};
use kasmina::kasmina::checkpoint::states_of;
use kasmina::kasmina::files::{Dtype, LayerMatrix, TensorFile};
use kasmina::kasmina::{BlendBackward, GradientBuffers, LayerElement, LayerState, SeedStates};
use kasmina::{Buffer, Device};
use libfuzzer_sys::{fuzz_mutator, fuzz_target};

fuzz_mutator!(|bytes: &mut [u8], size: usize, most: usize, seed: u32| {
    files::mutate(bytes, size, most, seed, 3)
});

fuzz_target!(|bytes: &[u8]| {
    let Some((file, bytes)) = files::part(bytes) else { return };
    let Ok(state) = TensorFile::from_bytes("fuzzed state", file.to_vec()) else { return };
    let Some((file, bytes)) = files::part(bytes) else { return };
    let Ok(input) = TensorFile::from_bytes("fuzzed input", file.to_vec()) else { return };
    let Ok(grad_output) = TensorFile::from_bytes("fuzzed grad_output", bytes.to_vec()) else {
        return;
    };
    let Ok(states) = states_of(&state) else { return };
    let Ok(x) = LayerMatrix::read(&input, "input", &states) else { return };
    let Ok(g) = x.read_like(&grad_output, "grad_output", &states) else { return };
    assert_eq!((g.dtype, g.shape), (x.dtype, x.shape));
    match x.dtype {
        Dtype::F32 => backward::<f32>(states, &x, &g),
        Dtype::F16 => backward::<f16>(states, &x, &g),
        Dtype::BF16 => backward::<bf16>(states, &x, &g),
        other => panic!("{other} is no layer's type"),
    }
});

fn backward<T: LayerElement>(states: SeedStates, x: &LayerMatrix<'_>, g: &LayerMatrix<'_>) {
    let device = Device::Cpu;
    let (batch, seeds, chunk) = (x.batch(), states.num_seeds(), states.chunk_size);
    let x = Buffer::from_slice(&device, &x.elements::<T>()).expect("it is in memory");
    let g = Buffer::from_slice(&device, &g.elements::<T>()).expect("it is in memory");
    let state = LayerState::new(&device, states).expect("the state was checked");
    let mut pass = BlendBackward::<T>::new(&device, batch, seeds, chunk).expect("the shape fits");
    let mut grad_input = Buffer::zeroed(&device, x.len()).expect("x fits");
    let mut gradients = GradientBuffers::new(&device, &state).expect("the state fits");
    pass.run(&state, &x, &g, &mut grad_input, &mut gradients).expect("the arguments fit");
}

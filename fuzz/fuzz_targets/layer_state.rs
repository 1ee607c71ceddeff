#![no_main]
//! The bytes of `--state`: refused, or a state that the layer takes.

mod files;

use kasmina::Device;
use kasmina::kasmina::LayerState;
use kasmina::kasmina::checkpoint::states_of;
use kasmina::kasmina::files::TensorFile;
use libfuzzer_sys::{fuzz_mutator, fuzz_target};

fuzz_mutator!(|bytes: &mut [u8], size: usize, most: usize, seed: u32| {
    files::mutate(bytes, size, most, seed, 1)
});

fuzz_target!(|bytes: &[u8]| {
    let Ok(file) = TensorFile::from_bytes("fuzzed", bytes.to_vec()) else { return };
    let Ok(states) = states_of(&file) else { return };
    let layer = LayerState::new(&Device::Cpu, states.clone()).expect("the state was checked");
    assert_eq!(layer.hidden(), states.num_seeds() * states.chunk_size);
    assert_eq!(layer.read().expect("the host's memory can be read"), states);
});

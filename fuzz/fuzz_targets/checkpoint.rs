#![no_main]
//! A checkpoint's bytes: refused, or read and written and read again to the same state.

mod files;

use kasmina::kasmina::checkpoint::Checkpoint;
use libfuzzer_sys::{fuzz_mutator, fuzz_target};

fuzz_mutator!(|bytes: &mut [u8], size: usize, most: usize, seed: u32| {
    files::mutate(bytes, size, most, seed, 1)
});

fuzz_target!(|bytes: &[u8]| {
    let Ok(read) = files::checkpoint(bytes.to_vec()) else { return };
    let written = read.to_bytes().expect("a state that was read can be written");
    let again = Checkpoint::from_bytes("rewritten", written).expect("what was written is read");
    // A CRC, since NaN differs from itself.
    assert_eq!(read.crc32(), again.crc32());
    let (read, again) = (read.metadata, again.metadata);
    assert_eq!((read.step, read.epoch, read.extra), (again.step, again.epoch, again.extra));
});

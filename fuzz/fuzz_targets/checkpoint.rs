#![no_main]
//! A checkpoint's bytes: refused, or read and written and read again to the same state.

use kasmina::kasmina::checkpoint::{Checkpoint, crc32_of_state};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(read) = Checkpoint::from_bytes("fuzzed", bytes.to_vec()) else { return };
    let written = read.to_bytes().expect("a state that was read can be written");
    let again = Checkpoint::from_bytes("rewritten", written).expect("what was written is read");
    // A CRC, since NaN differs from itself.
    let crc = |checkpoint: &Checkpoint| crc32_of_state(&checkpoint.states, &checkpoint.graft);
    assert_eq!(crc(&read), crc(&again));
    assert_eq!(read.metadata.extra, again.metadata.extra);
});

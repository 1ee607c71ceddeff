//! What brings the fuzzer past a checksum and a header, which it does not get past by itself.
#![allow(dead_code, reason = "not every target reads checkpoints")]

use kasmina::kasmina::checkpoint::{Checkpoint, CheckpointError};

/// Reads a checkpoint; where a CRC is wrong, as it would be read with the right one.
pub fn checkpoint(mut bytes: Vec<u8>) -> Result<Checkpoint, CheckpointError> {
    // That of the metadata, that of the tensors, and that of the metadata, in which the second stands.
    for _ in 0..3 {
        let read = Checkpoint::from_bytes("fuzzed", bytes.clone());
        let Err(CheckpointError::Crc { part, got, .. }) = &read else { return read };
        let key: &[u8] = match *part {
            "metadata" => b"\"metadata_crc32\":\"",
            _ => b"\"crc32\":\"",
        };
        let Some(at) = bytes.windows(key.len()).position(|text| text == key) else { return read };
        let Some(digits) = bytes.get_mut(at + key.len()..at + key.len() + 8) else { return read };
        digits.copy_from_slice(format!("{got:08x}").as_bytes());
    }
    Checkpoint::from_bytes("fuzzed", bytes)
}

/// A file behind its length in 2 bytes, and what follows it.
pub fn part(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, bytes) = bytes.split_first_chunk()?;
    bytes.split_at_checked(u16::from_le_bytes(*length).into())
}

/// Changes one of the `files` in the first `size` bytes, each but the last behind its length: its tensors, or, as the
/// fuzzer does by itself, anything.
pub fn mutate(bytes: &mut [u8], size: usize, most: usize, seed: u32, files: usize) -> usize {
    let mut random = Random(seed.into());
    let (mut start, mut ranges) = (0, Vec::new());
    for _ in 1..files {
        let Some((file, _)) = part(&bytes[start..size]) else { break };
        ranges.push(start + 2..start + 2 + file.len());
        start += 2 + file.len();
    }
    ranges.push(start..size);
    let file = ranges.swap_remove(random.below(ranges.len()));
    if random.below(2) == 0 && change_tensors(&mut bytes[file], &mut random) {
        return size;
    }
    libfuzzer_sys::fuzzer_mutate(bytes, size, most)
}

/// Changes the bytes behind the header of a safetensors file; of a header, most changes make no header.
fn change_tensors(file: &mut [u8], random: &mut Random) -> bool {
    let Some((length, rest)) = file.split_first_chunk_mut() else { return false };
    let header = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
    let Some(tensors) = rest.get_mut(header..).filter(|tensors| !tensors.is_empty()) else {
        return false;
    };
    for _ in 0..=random.below(3) {
        let at = random.below(tensors.len());
        match random.below(4) {
            0 => tensors[at] = random.below(256) as u8,
            // Codes, ids and counts are small.
            1 => tensors[at] = random.below(16) as u8,
            2 => tensors[at] = tensors[at].wrapping_add([1, 255][random.below(2)]),
            _ => {
                let numbers = [0.0, -0.0, 1.0, -1.0, f32::MAX, f32::INFINITY, f32::NAN, 1e-40];
                let number = numbers[random.below(numbers.len())].to_le_bytes();
                if let Some(element) = tensors.get_mut(at..at + number.len()) {
                    element.copy_from_slice(&number);
                }
            }
        }
    }
    true
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % bound as u64) as usize
    }
}

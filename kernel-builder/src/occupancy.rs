//! Theoretical occupancy from what an architecture defines. Sizes of a certain GPU, such as its number of
//! multiprocessors, play no part.

use crate::ptxas::EntryUsage;

/// What one multiprocessor holds, by compute capability (the CUDA programming guide's table of technical
/// specifications). Every one has 65536 registers.
struct SmLimits {
    warps: u32,
    blocks: u32,
    shared_bytes: u32,
    /// What the system keeps of shared memory for each block.
    reserved_bytes: u32,
}

const WARP: u32 = 32;
const REGISTERS: u32 = 65_536;
/// Registers are given to a warp in units of this many.
const REGISTER_UNIT: u32 = 256;

fn limits(capability: u32) -> SmLimits {
    let (warps, blocks, shared_kib) = match capability {
        70 => (64, 32, 96),
        75 => (32, 16, 64),
        80 => (64, 32, 164),
        86 => (48, 16, 100),
        89 | 120 => (48, 24, 100),
        _ => (64, 32, 228),
    };
    let reserved_bytes = if capability >= 80 { 1024 } else { 0 };
    SmLimits { warps, blocks, shared_bytes: shared_kib * 1024, reserved_bytes }
}

/// Warps that fit on a multiprocessor at once.
pub struct Occupancy {
    /// Warps that fit.
    pub warps: u32,
    /// Warps that the multiprocessor can hold.
    pub most_warps: u32,
}

impl Occupancy {
    /// The share of the multiprocessor's warps, from 0 to 1.
    pub fn share(&self) -> f64 {
        f64::from(self.warps) / f64::from(self.most_warps)
    }
}

/// The occupancy of a kernel of `block` threads by registers, threads and static shared memory, on a GPU of
/// `capability` (compute capability times ten).
pub fn occupancy(capability: u32, block: u32, usage: &EntryUsage) -> Occupancy {
    let limits = limits(capability);
    let warps = block.div_ceil(WARP).max(1);
    let registers = (usage.registers.max(1) * WARP).next_multiple_of(REGISTER_UNIT) * warps;
    let shared = (usage.shared_bytes + limits.reserved_bytes).max(1);
    let blocks = limits
        .blocks
        .min(limits.warps / warps)
        .min(REGISTERS / registers)
        .min(limits.shared_bytes / shared);
    Occupancy { warps: blocks * warps, most_warps: limits.warps }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_of_a_multiprocessor_binds_in_its_turn() {
        let share = |capability, block, registers, shared_bytes| {
            let usage = EntryUsage {
                registers,
                shared_bytes,
                spill_store_bytes: 0,
                spill_load_bytes: 0,
                stack_bytes: 0,
                barriers: 1,
            };
            occupancy(capability, block, &usage).share()
        };
        assert_eq!(share(90, 256, 32, 0), 1.0);
        // 64 registers: 16384 for a block, four blocks, 32 of 64 warps.
        assert_eq!(share(90, 256, 64, 0), 0.5);
        // 100 KiB and 1 KiB reserved for a block: two of 8 warps in 228 KiB.
        assert_eq!(share(90, 256, 16, 100 * 1024), 0.25);
        assert_eq!(share(80, 32, 16, 0), 0.5);
        assert_eq!(share(86, 1024, 32, 0), 32.0 / 48.0);
    }
}

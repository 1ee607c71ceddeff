//! Theoretical occupancy from what an architecture defines (the CUDA programming guide's table of compute
//! capabilities). Sizes of a certain GPU, such as its SM count, play no part.

use kasmina_kernel_builder::EntryUsage;
use kasmina_kernel_builder::manifest::EntryRecord;

const WARP: u32 = 32;
const REGISTERS_PER_SM: u32 = 65_536;
/// Registers are given to a warp in units of this many.
const REGISTER_UNIT: u32 = 256;
const KIB: u32 = 1024;

struct SmLimits {
    warps: u32,
    blocks: u32,
    shared_bytes: u32,
    /// What the system keeps of shared memory for each block.
    reserved_bytes: u32,
}

fn limits(capability: u32) -> SmLimits {
    let (warps, blocks, shared_kib) = match capability {
        70 => (64, 32, 96),
        75 => (32, 16, 64),
        80 => (64, 32, 164),
        86 => (48, 16, 100),
        89 => (48, 24, 100),
        120 => (48, 24, 100),
        _ => (64, 32, 228),
    };
    let reserved_bytes = if capability >= 80 { KIB } else { 0 };
    SmLimits { warps, blocks, shared_bytes: shared_kib * KIB, reserved_bytes }
}

/// Resident warps of an SM over its limit, from 0 to 1, with static shared memory only.
pub(crate) fn occupancy(capability: u32, entry: &EntryRecord, usage: &EntryUsage) -> f64 {
    let limits = limits(capability);
    let warps = entry.block.div_ceil(WARP).max(1);
    let registers = (usage.registers.max(1) * WARP).next_multiple_of(REGISTER_UNIT) * warps;
    let shared = (usage.shared_bytes + limits.reserved_bytes).max(1);
    let blocks = limits
        .blocks
        .min(limits.warps / warps)
        .min(REGISTERS_PER_SM / registers)
        .min(limits.shared_bytes / shared);
    f64::from(blocks * warps) / f64::from(limits.warps)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(capability: u32, block: u32, registers: u32, shared_bytes: u32) -> f64 {
        let entry = EntryRecord {
            name: "k".into(),
            block,
            min_blocks: 1,
            cluster: None,
            may_spill: false,
            parameter_bytes: 0,
            usage: None,
        };
        let usage = EntryUsage { registers, shared_bytes, ..EntryUsage::default() };
        occupancy(capability, &entry, &usage)
    }

    #[test]
    fn each_limit_binds_in_its_turn() {
        assert_eq!(at(90, 256, 32, 0), 1.0);
        // 64 registers: 16384 a block of 256, four blocks, 32 of 64 warps.
        assert_eq!(at(90, 256, 64, 0), 0.5);
        // 100 KiB a block and 1 KiB reserved: two blocks of 8 warps in 228 KiB.
        assert_eq!(at(90, 256, 16, 100 * KIB), 0.25);
        // One warp a block: 32 blocks.
        assert_eq!(at(80, 32, 16, 0), 0.5);
        assert_eq!(at(86, 1024, 32, 0), 32.0 / 48.0);
    }
}

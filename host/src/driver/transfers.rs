//! How often and how much was copied on a stream.

use std::sync::atomic::{AtomicU64, Ordering};

/// Copies that were queued on a stream. Launches and fills are none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TransferStatistics {
    /// Copies from the host to the GPU.
    pub host_to_device: u64,
    /// Their bytes.
    pub host_to_device_bytes: u64,
    /// Copies from the GPU to the host.
    pub device_to_host: u64,
    /// Their bytes.
    pub device_to_host_bytes: u64,
    /// Copies within the GPU's memory.
    pub on_device: u64,
    /// Their bytes.
    pub on_device_bytes: u64,
}

/// Which way a copy goes.
#[derive(Clone, Copy)]
pub(super) enum Direction {
    HostToDevice,
    DeviceToHost,
    OnDevice,
}

/// The counts of one stream; threads may share it.
#[derive(Default)]
pub(super) struct TransferCounters {
    counts: [AtomicU64; 3],
    bytes: [AtomicU64; 3],
}

impl TransferCounters {
    pub(super) fn add(&self, direction: Direction, bytes: usize) {
        self.counts[direction as usize].fetch_add(1, Ordering::Relaxed);
        self.bytes[direction as usize].fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> TransferStatistics {
        let counts = self.counts.each_ref().map(|count| count.load(Ordering::Relaxed));
        let bytes = self.bytes.each_ref().map(|count| count.load(Ordering::Relaxed));
        TransferStatistics {
            host_to_device: counts[0],
            host_to_device_bytes: bytes[0],
            device_to_host: counts[1],
            device_to_host_bytes: bytes[1],
            on_device: counts[2],
            on_device_bytes: bytes[2],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_direction_has_its_own_count() {
        let counters = TransferCounters::default();
        counters.add(Direction::HostToDevice, 3);
        counters.add(Direction::DeviceToHost, 5);
        counters.add(Direction::DeviceToHost, 7);
        counters.add(Direction::OnDevice, 11);
        let expected = TransferStatistics {
            host_to_device: 1,
            host_to_device_bytes: 3,
            device_to_host: 2,
            device_to_host_bytes: 12,
            on_device: 1,
            on_device_bytes: 11,
        };
        assert_eq!(counters.read(), expected);
    }
}

//! The telemetry of the last passes, in a ring on the device.
//!
//! A pass writes its telemetry straight into the next slot, so the ring costs a step neither a copy nor
//! a launch. The host holds the ring's cursor; values are read back when they are asked for.
//!
//! A graph holds the slot that its capture was given, and a replay is none of the host's passes: each replay
//! writes that slot again, and neither the cursor nor the counts of passes and overruns move.

use crate::device::Device;
use crate::error::Error;
use crate::kasmina::{TelemetryBuffers, TelemetryValues};

pub(crate) struct TelemetryRing {
    slots: Vec<Slot>,
    /// Passes so far; the next goes to slot `passes % capacity`.
    passes: u64,
    overruns: u64,
}

struct Slot {
    buffers: TelemetryBuffers,
    /// The pass whose telemetry it holds.
    pass: Option<u64>,
    unread: bool,
}

/// The telemetry of one pass.
#[derive(Debug, Clone, PartialEq)]
pub struct TelemetryRecord {
    /// The forward pass, from 0.
    pub pass: u64,
    /// What it saw.
    pub values: TelemetryValues,
}

impl TelemetryRing {
    pub(crate) fn new(device: &Device, num_seeds: usize, capacity: usize) -> Result<Self, Error> {
        let slot = |_| {
            let buffers = TelemetryBuffers::new(device, num_seeds)?;
            Ok(Slot { buffers, pass: None, unread: false })
        };
        let slots = (0..capacity).map(slot).collect::<Result<_, Error>>()?;
        Ok(Self { slots, passes: 0, overruns: 0 })
    }

    /// The slot of the next pass, from now on empty.
    pub(crate) fn begin(&mut self) -> &mut TelemetryBuffers {
        let next = self.next();
        let slot = &mut self.slots[next];
        if slot.unread {
            self.overruns += 1;
        }
        (slot.pass, slot.unread) = (None, false);
        &mut slot.buffers
    }

    /// Records that the pass that began has been queued.
    pub(crate) fn commit(&mut self) {
        let next = self.next();
        let slot = &mut self.slots[next];
        (slot.pass, slot.unread) = (Some(self.passes), true);
        self.passes += 1;
    }

    /// The slot of the last pass.
    pub(crate) fn latest(&self) -> Option<&TelemetryBuffers> {
        let last = self.passes.checked_sub(1)?;
        self.slots.iter().find(|slot| slot.pass == Some(last)).map(|slot| &slot.buffers)
    }

    /// Every pass that the ring holds, oldest first, once the work queued is done.
    pub(crate) fn history(&mut self) -> Result<Vec<TelemetryRecord>, Error> {
        let mut records = Vec::with_capacity(self.slots.len());
        for slot in &self.slots {
            if let Some(pass) = slot.pass {
                records.push(TelemetryRecord { pass, values: slot.buffers.read()? });
            }
        }
        for slot in &mut self.slots {
            slot.unread = false;
        }
        records.sort_by_key(|record| record.pass);
        Ok(records)
    }

    /// Slots overwritten before anyone read them.
    pub(crate) fn overruns(&self) -> u64 {
        self.overruns
    }

    pub(crate) fn passes(&self) -> u64 {
        self.passes
    }

    pub(crate) fn capacity(&self) -> usize {
        self.slots.len()
    }

    fn next(&self) -> usize {
        (self.passes % self.slots.len() as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(ring: &mut TelemetryRing, value: f32) {
        ring.begin().mean.copy_from_slice(&[value]).expect("a copy");
        ring.commit();
    }

    fn means(records: &[TelemetryRecord]) -> Vec<(u64, f32)> {
        records.iter().map(|record| (record.pass, record.values.mean[0])).collect()
    }

    #[test]
    fn it_keeps_the_last_passes_and_counts_what_nobody_read() {
        let mut ring = TelemetryRing::new(&Device::Cpu, 1, 3).expect("memory");
        assert!(ring.latest().is_none());
        assert_eq!(ring.history().expect("a read"), []);
        for value in [0.0, 1.0] {
            write(&mut ring, value);
        }
        assert_eq!(means(&ring.history().expect("a read")), [(0, 0.0), (1, 1.0)]);
        for value in [2.0, 3.0, 4.0] {
            write(&mut ring, value);
        }
        // Passes 0 and 1 had been read.
        assert_eq!(ring.overruns(), 0);
        write(&mut ring, 5.0);
        assert_eq!(ring.overruns(), 1);
        let latest = ring.latest().expect("a pass").read().expect("a read");
        assert_eq!(latest.mean, [5.0]);
        assert_eq!(means(&ring.history().expect("a read")), [(3, 3.0), (4, 4.0), (5, 5.0)]);
        assert_eq!((ring.passes(), ring.overruns()), (6, 1));
    }

    /// A pass that was begun and failed has overwritten its slot.
    #[test]
    fn a_failed_pass_leaves_an_empty_slot() {
        let mut ring = TelemetryRing::new(&Device::Cpu, 1, 2).expect("memory");
        for value in [0.0, 1.0] {
            write(&mut ring, value);
        }
        ring.begin();
        assert_eq!(means(&ring.history().expect("a read")), [(1, 1.0)]);
        assert_eq!(ring.overruns(), 1);
        assert!(ring.latest().is_some());
        write(&mut ring, 2.0);
        assert_eq!(means(&ring.history().expect("a read")), [(1, 1.0), (2, 2.0)]);
        assert_eq!(ring.overruns(), 1);
    }
}

//! The telemetry of the last passes, in a ring on the device.
//!
//! A pass writes its telemetry straight into the next slot, so the ring costs a step neither a copy nor
//! a launch. The host holds the ring's cursor; values are read back when they are asked for.
//!
//! A graph goes on writing the slot that its capture was given, whatever the cursor does. So captured passes get a
//! slot of their own outside the ring, and a replay never writes over a pass that the ring holds under its number.
//! When the host says how many replays there were, the last one's telemetry is copied into the ring, on the device.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::device::Device;
use crate::error::Error;
use crate::kasmina::{TelemetryBuffers, TelemetryValues};

pub(crate) struct TelemetryRing {
    slots: Vec<Slot>,
    /// The slot of the next pass.
    next: usize,
    /// Passes so far.
    passes: u64,
    overruns: u64,
    /// Where captured passes write.
    of_graphs: TelemetryBuffers,
    /// Whether the pass that began is being captured, and whether one was.
    capturing: bool,
    captured: bool,
}

struct Slot {
    buffers: TelemetryBuffers,
    /// The pass whose telemetry it holds.
    pass: Option<u64>,
    /// Reading is no change to the layer, so this may change behind a shared reference.
    unread: AtomicBool,
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
            Ok(Slot { buffers, pass: None, unread: AtomicBool::new(false) })
        };
        let slots = (0..capacity).map(slot).collect::<Result<_, Error>>()?;
        Ok(Self {
            slots,
            next: 0,
            passes: 0,
            overruns: 0,
            of_graphs: TelemetryBuffers::new(device, num_seeds)?,
            capturing: false,
            captured: false,
        })
    }

    /// The slot of the next pass, from now on empty; that of all graphs for a pass that is being captured.
    pub(crate) fn begin(&mut self, capturing: bool) -> &mut TelemetryBuffers {
        self.capturing = capturing;
        if capturing {
            return &mut self.of_graphs;
        }
        let slot = &mut self.slots[self.next];
        if std::mem::take(slot.unread.get_mut()) {
            self.overruns += 1;
        }
        slot.pass = None;
        &mut slot.buffers
    }

    /// Records that the pass that began has been queued, or captured.
    pub(crate) fn commit(&mut self) {
        if self.capturing {
            self.captured = true;
            return;
        }
        let slot = &mut self.slots[self.next];
        (slot.pass, *slot.unread.get_mut()) = (Some(self.passes), true);
        self.passes += 1;
        self.next = (self.next + 1) % self.slots.len();
    }

    /// Counts `passes` that graphs made, and keeps what the last of them left. Those before it were overwritten
    /// unread. False where no pass was captured.
    pub(crate) fn replayed(&mut self, passes: u64) -> Result<bool, Error> {
        if !self.captured {
            return Ok(false);
        }
        if let Some(overwritten) = passes.checked_sub(1) {
            self.begin(false);
            self.slots[self.next].buffers.copy_from(&self.of_graphs)?;
            self.overruns += overwritten;
            self.passes += overwritten;
            self.commit();
        }
        Ok(true)
    }

    /// What the last pass saw, once the work queued is done. It counts as read.
    pub(crate) fn latest(&self) -> Result<Option<TelemetryValues>, Error> {
        let Some(last) = self.passes.checked_sub(1) else { return Ok(None) };
        let Some(slot) = self.slots.iter().find(|slot| slot.pass == Some(last)) else {
            return Ok(None);
        };
        let values = slot.buffers.read()?;
        slot.unread.store(false, Ordering::Relaxed);
        Ok(Some(values))
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
            *slot.unread.get_mut() = false;
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

    /// Passes that it holds now.
    pub(crate) fn held(&self) -> usize {
        self.slots.iter().filter(|slot| slot.pass.is_some()).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(ring: &mut TelemetryRing, value: f32) {
        ring.begin(false).mean.copy_from_slice(&[value]).expect("a copy");
        ring.commit();
    }

    fn means(records: &[TelemetryRecord]) -> Vec<(u64, f32)> {
        records.iter().map(|record| (record.pass, record.values.mean[0])).collect()
    }

    #[test]
    fn it_keeps_the_last_passes_and_counts_what_nobody_read() {
        let mut ring = TelemetryRing::new(&Device::Cpu, 1, 3).expect("memory");
        assert!(ring.latest().expect("a read").is_none());
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
        let latest = ring.latest().expect("a read").expect("a pass");
        assert_eq!(latest.mean, [5.0]);
        assert_eq!(means(&ring.history().expect("a read")), [(3, 3.0), (4, 4.0), (5, 5.0)]);
        assert_eq!((ring.passes(), ring.overruns()), (6, 1));
    }

    #[test]
    fn what_was_read_pass_by_pass_is_no_overrun() {
        let mut ring = TelemetryRing::new(&Device::Cpu, 1, 2).expect("memory");
        for value in [0.0, 1.0, 2.0, 3.0, 4.0] {
            write(&mut ring, value);
            assert_eq!(ring.latest().expect("a read").expect("a pass").mean, [value]);
        }
        assert_eq!(ring.overruns(), 0);
        for value in [5.0, 6.0, 7.0] {
            write(&mut ring, value);
        }
        assert_eq!(ring.overruns(), 1, "the fifth pass is overwritten, which was not read");
    }

    /// A pass that was begun and failed has overwritten its slot.
    #[test]
    fn a_failed_pass_leaves_an_empty_slot() {
        let mut ring = TelemetryRing::new(&Device::Cpu, 1, 2).expect("memory");
        for value in [0.0, 1.0] {
            write(&mut ring, value);
        }
        ring.begin(false);
        assert_eq!(means(&ring.history().expect("a read")), [(1, 1.0)]);
        assert_eq!(ring.overruns(), 1);
        assert!(ring.latest().expect("a read").is_some());
        write(&mut ring, 2.0);
        assert_eq!(means(&ring.history().expect("a read")), [(1, 1.0), (2, 2.0)]);
        assert_eq!(ring.overruns(), 1);
    }

    /// A replay writes where its capture did, at any time: never over a pass that has a number of its own.
    #[test]
    fn replays_write_over_no_pass_and_are_counted_when_they_are_told() {
        let mut ring = TelemetryRing::new(&Device::Cpu, 1, 3).expect("memory");
        assert!(!ring.replayed(1).expect("a copy"), "nothing is captured");
        write(&mut ring, 0.0);
        // A graph keeps what it is given at its capture, and writes there at each replay.
        ring.begin(true);
        ring.commit();
        let replay = |ring: &mut TelemetryRing, value: f32| {
            ring.of_graphs.mean.copy_from_slice(&[value]).expect("a copy");
        };
        for value in [1.0, 2.0, 3.0] {
            write(&mut ring, value);
        }
        replay(&mut ring, 100.0);
        assert_eq!(means(&ring.history().expect("a read")), [(1, 1.0), (2, 2.0), (3, 3.0)]);
        replay(&mut ring, 101.0);
        assert!(ring.replayed(2).expect("a copy"));
        replay(&mut ring, 102.0);
        // Passes 4 and 5 were replays, of which the second is kept.
        assert_eq!(means(&ring.history().expect("a read")), [(2, 2.0), (3, 3.0), (5, 101.0)]);
        assert_eq!((ring.passes(), ring.overruns()), (6, 2));
        write(&mut ring, 6.0);
        assert!(ring.replayed(0).expect("nothing to do"));
        assert_eq!(means(&ring.history().expect("a read")), [(3, 3.0), (5, 101.0), (6, 6.0)]);
        assert_eq!(ring.held(), 3);
    }
}

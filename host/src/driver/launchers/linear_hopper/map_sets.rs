//! Tensor maps of a list of matrices in a few buffers, for the addresses that these buffers have had of late.
//!
//! As in `TensorMapCache` the key is where the buffers are, and maps that a captured graph has stay as they are. A set of
//! maps is made at once and copied at once.

use kasmina_types::{In, TensorMapBytes};

use crate::buffer::Buffer;
use crate::device::Device;
use crate::driver::Stream;
use crate::driver::tensor_map_cache::{ALIGN_WORDS, MAP_WORDS};
use crate::error::Error;
use crate::linear::LinearError;

/// Sets that are kept beside those of graphs.
const KEPT: usize = 8;

/// The addresses of A, B and D.
type Addresses = [u64; 3];

/// The words of a tensor map.
pub(super) type Words = [u64; MAP_WORDS];

/// Sets of as many maps each.
pub(super) struct MapSets {
    device: Device,
    maps: usize,
    sets: Vec<Set>,
    clock: u64,
    /// Where maps are copied while the device's own stream is captured.
    beside: Option<Stream>,
}

/// The maps for one place of the buffers.
pub(super) struct Set {
    /// None: it has not been used, or could not be filled.
    addresses: Option<Addresses>,
    memory: Buffer<u64>,
    /// The first word that is aligned.
    first: usize,
    used: u64,
    /// A graph has its address.
    pinned: bool,
}

impl MapSets {
    /// Sets of `maps` maps, of which one has its memory, so that a capture may be the first to want it.
    ///
    /// # Errors
    /// Memory exhausted, or a failed call.
    pub(super) fn new(device: &Device, maps: usize) -> Result<Self, Error> {
        let beside = match device {
            Device::Cuda(gpu) => Some(Stream::new(gpu.device())?),
            Device::Cpu | Device::Simt(_) => None,
        };
        let sets = vec![Set::new(device, maps)?];
        Ok(Self { device: device.clone(), maps, sets, clock: 0, beside })
    }

    /// The maps for these addresses, which `made` makes if they are not there.
    ///
    /// # Errors
    /// What `made` answers, no set for new addresses while the device's stream is captured, memory exhausted, or a failed
    /// call.
    pub(super) fn get(
        &mut self,
        addresses: Addresses,
        made: impl FnOnce() -> Result<Vec<Words>, Error>,
    ) -> Result<&Set, Error> {
        let capturing = matches!(&self.device, Device::Cuda(gpu) if gpu.stream().is_capturing());
        let found = self.sets.iter().position(|set| set.addresses == Some(addresses));
        let number = match found {
            Some(number) => number,
            None => {
                let number = self.place(capturing)?;
                let set = &mut self.sets[number];
                // It may fail half done.
                set.addresses = None;
                let words = made()?;
                assert_eq!(words.len(), self.maps, "the set's room");
                let words = bytemuck::cast_slice::<Words, u64>(&words);
                if set.used == 0 {
                    // Nothing queued reads it: there is nothing to wait for, and a capture goes on.
                    let beside = self.beside.as_ref();
                    set.memory.copy_unused_range_from_slice(set.first, words, beside)?;
                } else {
                    // It waits for launches that read the old ones.
                    set.memory.copy_range_from_slice(set.first, words)?;
                }
                set.addresses = Some(addresses);
                number
            }
        };
        self.clock += 1;
        let set = &mut self.sets[number];
        set.used = self.clock;
        set.pinned |= capturing;
        Ok(set)
    }

    /// The set to fill: one that was not used, or else a new one, or the one used longest ago.
    fn place(&mut self, capturing: bool) -> Result<usize, Error> {
        if let Some(unused) = self.sets.iter().position(|set| set.used == 0) {
            return Ok(unused);
        }
        if capturing {
            return Err(LinearError::GroupCapture.into());
        }
        let free = self.sets.iter().enumerate().filter(|(_, set)| !set.pinned);
        if free.clone().count() >= KEPT
            && let Some((oldest, _)) = free.min_by_key(|(_, set)| set.used)
        {
            return Ok(oldest);
        }
        self.sets.push(Set::new(&self.device, self.maps)?);
        Ok(self.sets.len() - 1)
    }
}

impl Set {
    fn new(device: &Device, maps: usize) -> Result<Self, Error> {
        // Complete on return, unlike a fill: what is copied beside the stream later comes after it.
        let memory = Buffer::from_slice(device, &vec![0_u64; maps * MAP_WORDS + ALIGN_WORDS])?;
        let past = (memory.device_address() / 8) as usize % ALIGN_WORDS;
        let first = (ALIGN_WORDS - past) % ALIGN_WORDS;
        Ok(Self { addresses: None, memory, first, used: 0, pinned: false })
    }

    /// The maps as a kernel reads them.
    pub(super) fn view(&self) -> In<TensorMapBytes> {
        let first = self.memory.device_address() as usize + 8 * self.first;
        let maps = (self.memory.len() - ALIGN_WORDS) / MAP_WORDS;
        In::new(first as *const TensorMapBytes, maps)
    }

    /// Their memory, for a launch.
    pub(super) fn memory(&self) -> &Buffer<u64> {
        &self.memory
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(sets: &mut MapSets, address: u64) -> u64 {
        let set = sets.get([address; 3], || Ok(vec![[address; MAP_WORDS]; 2])).unwrap();
        assert!(set.view().as_ptr().is_aligned() && set.view().len() == 2);
        set.memory.to_vec().unwrap()[set.first + MAP_WORDS]
    }

    #[test]
    fn the_latest_places_are_kept() {
        let mut sets = MapSets::new(&Device::simt(), 2).unwrap();
        for address in 1..=KEPT as u64 {
            assert_eq!(word(&mut sets, address), address);
        }
        sets.get([1; 3], || unreachable!("it is there")).unwrap();
        // In the place of 2, the one that was used longest ago.
        assert_eq!(word(&mut sets, 100), 100);
        assert_eq!(sets.sets.len(), KEPT);
        sets.get([1; 3], || unreachable!("it is there")).unwrap();
        assert_eq!(word(&mut sets, 2), 2);
    }

    /// What graphs have is not made anew, and does not count.
    #[test]
    fn graphs_keep_theirs() {
        let mut sets = MapSets::new(&Device::simt(), 2).unwrap();
        word(&mut sets, 1);
        sets.sets[0].pinned = true;
        for address in 2..20 {
            word(&mut sets, address);
        }
        assert_eq!(sets.sets.len(), KEPT + 1);
        sets.get([1; 3], || unreachable!("it is there")).unwrap();
        // With none to use a capture is refused.
        let refused = sets.place(true).unwrap_err();
        assert!(matches!(refused, Error::Linear(LinearError::GroupCapture)), "{refused}");
    }

    #[test]
    fn a_failure_leaves_no_half_set() {
        let mut sets = MapSets::new(&Device::simt(), 2).unwrap();
        let failed = sets.get([1; 3], || Err(Error::TensorMaps { capacity: 0 }));
        assert!(failed.is_err());
        assert_eq!(word(&mut sets, 1), 1);
    }
}

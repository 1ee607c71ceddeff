//! A cache of tensor maps in device memory, so that a pass over the same buffers makes and copies none.
//!
//! The key is all that a map says: address, shape, strides, box, element type, options. A map says nothing of who owns the
//! memory, so one whose buffer was given back stays true, and serves the next buffer of the same address and shape; the
//! kernel's launcher holds the buffers themselves. The map that was used longest ago makes room for a new one, but never
//! one that a captured graph has in it, for the graph keeps its address. Inside a capture only a place that no map had
//! before takes a new one, which is copied there at once: the graph has the address alone.

use std::collections::HashMap;

use kasmina_types::{SimtTensorMap, TensorMapBytes, TensorMapHandle};

use super::stream::Stream;
use super::tensor_map::{
    Interleave, L2Promotion, MAX_RANK, OutOfBoundsFill, Swizzle, TensorDataType, TensorMap,
    TensorMapSpec,
};
use crate::buffer::{Access, Buffer};
use crate::device::Device;
use crate::error::Error;

/// 64-bit words of a map, and of its alignment.
pub(super) const MAP_WORDS: usize = size_of::<TensorMapBytes>() / 8;
pub(super) const ALIGN_WORDS: usize = align_of::<TensorMapBytes>() / 8;

/// Tensor maps of one device, a bounded number of them. On a GPU they are the driver's descriptors, under the executor
/// [`SimtTensorMap`]s.
pub struct TensorMapCache {
    device: Device,
    memory: Buffer<u64>,
    /// Where maps are copied while the device's own stream is captured.
    beside: Option<Stream>,
    /// The first word that is aligned.
    first: usize,
    slots: Vec<Slot>,
    by_key: HashMap<Key, usize>,
    clock: u64,
    statistics: TensorMapStatistics,
}

/// What a cache has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TensorMapStatistics {
    /// Maps that were there.
    pub hits: u64,
    /// Maps that were made and copied to the device.
    pub misses: u64,
    /// Maps that made room for others.
    pub evictions: u64,
}

#[derive(Clone, Default)]
struct Slot {
    key: Option<Key>,
    used: u64,
    /// A graph has its address.
    pinned: bool,
}

/// A specification that owns its lists.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    data_type: TensorDataType,
    address: u64,
    rank: usize,
    dimensions: [u64; MAX_RANK],
    strides_bytes: [u64; MAX_RANK - 1],
    box_dimensions: [u32; MAX_RANK],
    element_strides: [u32; MAX_RANK],
    swizzle: Swizzle,
    interleave: Interleave,
    l2_promotion: L2Promotion,
    out_of_bounds_fill: OutOfBoundsFill,
}

impl TensorMapCache {
    /// A cache of at most `capacity` maps, one at least.
    ///
    /// # Errors
    /// Memory exhausted, or a failed call.
    pub fn new(device: &Device, capacity: usize) -> Result<Self, Error> {
        let capacity = capacity.max(1);
        let words = capacity * MAP_WORDS + ALIGN_WORDS;
        // Complete on return, unlike a fill: what is copied beside the stream later comes after it.
        let memory = Buffer::from_slice(device, &vec![0; words])?;
        let beside = match device {
            Device::Cuda(gpu) => Some(Stream::new(gpu.device())?),
            Device::Cpu | Device::Simt(_) => None,
        };
        let past = (memory.device_address() / 8) as usize % ALIGN_WORDS;
        Ok(Self {
            device: device.clone(),
            first: (ALIGN_WORDS - past) % ALIGN_WORDS,
            memory,
            beside,
            slots: vec![Slot::default(); capacity],
            by_key: HashMap::new(),
            clock: 0,
            statistics: TensorMapStatistics::default(),
        })
    }

    /// The map of `spec`, made and copied to the device if it is not there yet. The handle holds until [`Self::get`] is
    /// called with as many other specifications as the cache has room for, and inside a graph for as long as the cache
    /// lives.
    ///
    /// # Errors
    /// A rule of the hardware that `spec` breaks, a GPU without tensor maps, or no place: every map is of a graph, or,
    /// while the device's stream is captured, the cache is full. The cache is unchanged.
    pub fn get(&mut self, spec: &TensorMapSpec<'_>) -> Result<TensorMapHandle, Error> {
        spec.check().map_err(super::DriverError::from)?;
        let key = Key::of(spec);
        let capturing = matches!(&self.device, Device::Cuda(gpu) if gpu.stream().is_capturing());
        let slot = match self.by_key.get(&key) {
            Some(&slot) => {
                self.statistics.hits += 1;
                slot
            }
            None => self.insert(key, spec, capturing)?,
        };
        self.clock += 1;
        let entry = &mut self.slots[slot];
        entry.used = self.clock;
        entry.pinned |= capturing;
        let address = self.memory.device_address() as usize + 8 * self.word(slot);
        Ok(TensorMapHandle::new(address as *const TensorMapBytes))
    }

    /// What it has done so far.
    pub fn statistics(&self) -> TensorMapStatistics {
        self.statistics
    }

    /// As [`Buffer::access`].
    pub(crate) fn access(&self) -> Access {
        self.memory.access()
    }

    /// Keeps the maps for what is queued on `stream` next.
    pub(crate) fn acquire(&self, stream: &Stream) -> Result<(), Error> {
        self.memory.acquire(stream)
    }

    /// Orders what happens to the maps next after what is queued on `stream`.
    pub(crate) fn release(&self, stream: &Stream) -> Result<(), Error> {
        self.memory.release(stream)
    }

    fn insert(
        &mut self,
        key: Key,
        spec: &TensorMapSpec<'_>,
        capturing: bool,
    ) -> Result<usize, Error> {
        let free = |slot: &&(usize, &Slot)| !slot.1.pinned && (slot.1.key.is_none() || !capturing);
        let slots = self.slots.iter().enumerate().collect::<Vec<_>>();
        let oldest = slots.iter().filter(free).min_by_key(|(_, slot)| slot.used);
        let Some(&(slot, _)) = oldest else {
            return Err(Error::TensorMaps { capacity: self.slots.len() });
        };
        let words = encoded(&self.device, spec)?;
        let at = self.word(slot);
        if capturing {
            self.memory.copy_unused_range_from_slice(at, &words, self.beside.as_ref())?;
        } else {
            // It waits for launches that read the old one.
            self.memory.copy_range_from_slice(at, &words)?;
        }
        self.statistics.misses += 1;
        if let Some(old) = self.slots[slot].key.replace(key.clone()) {
            self.by_key.remove(&old);
            self.statistics.evictions += 1;
        }
        self.by_key.insert(key, slot);
        Ok(slot)
    }

    fn word(&self, slot: usize) -> usize {
        self.first + slot * MAP_WORDS
    }
}

/// The words of a map as the device's kernels want them.
///
/// # Errors
/// A rule of the hardware that `spec` breaks, or a GPU without tensor maps.
pub(super) fn encoded(
    device: &Device,
    spec: &TensorMapSpec<'_>,
) -> Result<[u64; MAP_WORDS], Error> {
    match device {
        Device::Cuda(gpu) => Ok(TensorMap::encode(gpu.device(), spec)?.words()),
        Device::Cpu | Device::Simt(_) => {
            spec.check().map_err(super::DriverError::from)?;
            Ok(bytemuck::cast(Key::of(spec).for_executor()))
        }
    }
}

impl std::fmt::Debug for TensorMapCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TensorMapCache")
            .field("maps", &self.by_key.len())
            .field("capacity", &self.slots.len())
            .field("statistics", &self.statistics)
            .finish_non_exhaustive()
    }
}

impl Key {
    /// Of a specification that was checked: no list is longer than a rank.
    fn of(spec: &TensorMapSpec<'_>) -> Self {
        fn fixed<T: Copy, const N: usize>(list: &[T], rest: T) -> [T; N] {
            std::array::from_fn(|i| list.get(i).copied().unwrap_or(rest))
        }
        Self {
            data_type: spec.data_type,
            address: spec.address,
            rank: spec.dimensions.len(),
            dimensions: fixed(spec.dimensions, 1),
            strides_bytes: fixed(spec.strides_bytes, 0),
            box_dimensions: fixed(spec.box_dimensions, 1),
            element_strides: fixed(spec.element_strides, 1),
            swizzle: spec.swizzle,
            interleave: spec.interleave,
            l2_promotion: spec.l2_promotion,
            out_of_bounds_fill: spec.out_of_bounds_fill,
        }
    }

    fn for_executor(&self) -> SimtTensorMap {
        SimtTensorMap {
            magic: SimtTensorMap::MAGIC,
            address: self.address,
            dimensions: self.dimensions,
            strides_bytes: self.strides_bytes,
            box_dimensions: self.box_dimensions.map(|n| n as u16),
            element_strides: self.element_strides.map(|n| n as u8),
            element_bytes: self.data_type.bytes() as u8,
            rank: self.rank as u8,
            swizzle: self.swizzle as u8,
            _padding: [0; 22],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(address: u64) -> TensorMapSpec<'static> {
        TensorMapSpec {
            data_type: TensorDataType::F32,
            address,
            dimensions: &[64, 100],
            strides_bytes: &[256],
            box_dimensions: &[32, 8],
            element_strides: &[1, 1],
            swizzle: Swizzle::None,
            interleave: Interleave::None,
            l2_promotion: L2Promotion::Bytes128,
            out_of_bounds_fill: OutOfBoundsFill::Zero,
        }
    }

    /// The map behind a handle, as the executor's kernels see it.
    fn seen(cache: &TensorMapCache, handle: TensorMapHandle) -> SimtTensorMap {
        assert!(handle.as_ptr().is_aligned());
        let at = (handle.as_ptr().addr() - cache.memory.device_address() as usize) / 8;
        let words = cache.memory.to_vec().unwrap();
        let words: [u64; MAP_WORDS] = words[at..at + MAP_WORDS].try_into().unwrap();
        bytemuck::cast(words)
    }

    #[test]
    fn what_is_there_is_not_made_again() {
        let mut cache = TensorMapCache::new(&Device::simt(), 4).unwrap();
        let first = cache.get(&spec(0x1000)).unwrap();
        let second = cache.get(&spec(0x2000)).unwrap();
        for _ in 0..3 {
            assert_eq!(cache.get(&spec(0x1000)).unwrap().as_ptr(), first.as_ptr());
        }
        assert_ne!(first.as_ptr(), second.as_ptr());
        let expected = TensorMapStatistics { hits: 3, misses: 2, evictions: 0 };
        assert_eq!(cache.statistics(), expected);
        let map = seen(&cache, second);
        assert_eq!((map.magic, map.address, map.rank), (SimtTensorMap::MAGIC, 0x2000, 2));
        assert_eq!((map.dimensions[1], map.box_bytes()), (100, 32 * 8 * 4));
    }

    /// Any difference makes another map: the key is the whole specification.
    #[test]
    fn the_box_and_the_shape_belong_to_the_key() {
        let mut cache = TensorMapCache::new(&Device::simt(), 8).unwrap();
        let base = spec(0x1000);
        let others = [
            TensorMapSpec { box_dimensions: &[32, 4], ..base.clone() },
            TensorMapSpec { dimensions: &[64, 99], ..base.clone() },
            TensorMapSpec { strides_bytes: &[512], ..base.clone() },
            TensorMapSpec { data_type: TensorDataType::U32, ..base.clone() },
            base,
        ];
        for other in &others {
            cache.get(other).unwrap();
        }
        assert_eq!(cache.statistics().misses, others.len() as u64);
    }

    #[test]
    fn the_one_used_longest_ago_makes_room() {
        let mut cache = TensorMapCache::new(&Device::simt(), 2).unwrap();
        let kept = cache.get(&spec(0x1000)).unwrap();
        let gone = cache.get(&spec(0x2000)).unwrap();
        cache.get(&spec(0x1000)).unwrap();
        let new = cache.get(&spec(0x3000)).unwrap();
        assert_eq!(new.as_ptr(), gone.as_ptr());
        assert_eq!(seen(&cache, new).address, 0x3000);
        assert_eq!(seen(&cache, kept).address, 0x1000);
        assert_eq!(cache.statistics().evictions, 1);
        // Pinned ones never do.
        cache.slots.iter_mut().for_each(|slot| slot.pinned = true);
        assert!(matches!(cache.get(&spec(0x4000)), Err(Error::TensorMaps { capacity: 2 })));
        assert_eq!(cache.get(&spec(0x3000)).unwrap().as_ptr(), new.as_ptr());
    }

    #[test]
    fn a_rule_that_is_broken_is_named() {
        let mut cache = TensorMapCache::new(&Device::simt(), 2).unwrap();
        let refused = cache.get(&spec(0x1008));
        assert!(matches!(refused, Err(Error::Driver(_))), "{refused:?}");
        assert_eq!(cache.statistics(), TensorMapStatistics::default());
    }
}

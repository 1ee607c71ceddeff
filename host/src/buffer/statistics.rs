//! What a thread does with buffers: how many it makes, how much they hold, what it copies.

use std::cell::Cell;

use super::Buffer;
use crate::error::Error;
use bytemuck::Pod;

/// What the calling thread has done with buffers of any device since it began: the same figures where
/// there is a GPU and where there is none. Bytes are those of the elements; the figures of a GPU's pool
/// are in [`PoolStatistics`](crate::driver::PoolStatistics).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BufferStatistics {
    /// Buffers made.
    pub allocations: u64,
    /// Bytes of live buffers.
    pub in_use_bytes: usize,
    /// The most there were of them since [`BufferStatistics::reset_peak`].
    pub peak_in_use_bytes: usize,
    /// Copies from the host's values into a buffer.
    pub copies_in: u64,
    /// Copies from a buffer to the host's values.
    pub copies_out: u64,
    /// Copies from buffer to buffer.
    pub copies_on_device: u64,
}

thread_local! {
    static LIMIT: Cell<Option<usize>> = const { Cell::new(None) };
    static STATISTICS: Cell<BufferStatistics> = const {
        Cell::new(BufferStatistics {
            allocations: 0,
            in_use_bytes: 0,
            peak_in_use_bytes: 0,
            copies_in: 0,
            copies_out: 0,
            copies_on_device: 0,
        })
    };
}

impl BufferStatistics {
    /// Those of the calling thread.
    pub fn of_this_thread() -> Self {
        STATISTICS.get()
    }

    /// Lets the peak begin anew from what is in use.
    pub fn reset_peak() {
        change(|s| s.peak_in_use_bytes = s.in_use_bytes);
    }

    /// Lets the calling thread's buffers hold at most `most` bytes together from now on, on whatever device
    /// they are, or as much as there is memory for. A buffer past that is refused with
    /// [`Error::OutOfMemory`]; those that are there stay.
    ///
    /// ```
    /// use kasmina::{Buffer, BufferStatistics, Device};
    ///
    /// BufferStatistics::limit_in_use(Some(1024));
    /// assert!(Buffer::<f32>::zeroed(&Device::Cpu, 256).is_ok());
    /// assert!(Buffer::<f32>::zeroed(&Device::Cpu, 257).is_err());
    /// BufferStatistics::limit_in_use(None);
    /// assert!(Buffer::<f32>::zeroed(&Device::Cpu, 257).is_ok());
    /// ```
    pub fn limit_in_use(most: Option<usize>) {
        LIMIT.set(most);
    }

    /// Copies in either direction between host and buffers.
    pub fn transfers(&self) -> u64 {
        self.copies_in + self.copies_out
    }
}

/// Refuses a buffer of `len` elements that would pass the limit.
pub(super) fn check_limit<T: Pod>(len: usize) -> Result<(), Error> {
    let Some(most) = LIMIT.get() else { return Ok(()) };
    let requested_bytes = len.saturating_mul(size_of::<T>());
    if STATISTICS.get().in_use_bytes.saturating_add(requested_bytes) <= most {
        return Ok(());
    }
    Err(Error::OutOfMemory { requested_bytes })
}

/// The bytes of one live buffer.
pub(super) struct Counted(usize);

impl Counted {
    pub(super) fn new<T: Pod>(len: usize) -> Self {
        let bytes = len * size_of::<T>();
        change(|s| {
            s.allocations += 1;
            s.in_use_bytes += bytes;
            s.peak_in_use_bytes = s.peak_in_use_bytes.max(s.in_use_bytes);
        });
        Self(bytes)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        // A buffer may be dropped by another thread than made it.
        change(|s| s.in_use_bytes = s.in_use_bytes.saturating_sub(self.0));
    }
}

pub(super) fn change(how: impl FnOnce(&mut BufferStatistics)) {
    // A buffer in another thread-local may be dropped after this one is gone.
    let _ = STATISTICS.try_with(|cell| {
        let mut statistics = cell.get();
        how(&mut statistics);
        cell.set(statistics);
    });
}

impl<T: Pod> Buffer<T> {
    /// Counts a copy to the host; in tests it fails where that was asked for.
    pub(super) fn count_copy_out(&self) -> Result<(), Error> {
        change(|s| s.copies_out += 1);
        #[cfg(test)]
        failures::next_copy_out(self.byte_len())?;
        Ok(())
    }

    /// Bytes of the elements.
    pub fn byte_len(&self) -> usize {
        self.len() * size_of::<T>()
    }
}

/// Copies to the host that fail, for tests of what is left after one.
#[cfg(test)]
pub(crate) mod failures {
    use std::cell::RefCell;
    use std::ops::Range;

    use crate::error::Error;

    thread_local! {
        static FAILING: RefCell<Range<u64>> = const { RefCell::new(0..0) };
    }

    /// Lets the calling thread's copies of these numbers, from 0, fail as if memory were exhausted.
    pub(crate) fn fail_copies_out(failing: Range<u64>) {
        FAILING.set(failing);
    }

    pub(super) fn next_copy_out(requested_bytes: usize) -> Result<(), Error> {
        FAILING.with_borrow_mut(|failing| {
            let fails = failing.contains(&0);
            *failing = failing.start.saturating_sub(1)..failing.end.saturating_sub(1);
            if fails { Err(Error::OutOfMemory { requested_bytes }) } else { Ok(()) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Device;

    #[test]
    fn buffers_and_copies_are_counted() {
        let before = BufferStatistics::of_this_thread();
        BufferStatistics::reset_peak();
        let mut buffer = Buffer::<f32>::zeroed(&Device::Cpu, 10).expect("memory");
        let other = Buffer::from_slice(&Device::Cpu, &[1.0_f32; 10]).expect("memory");
        buffer.copy_from_buffer(&other).expect("as long");
        buffer.copy_range_from_slice(8, &[2.0, 3.0]).expect("inside");
        assert_eq!(buffer.range_to_vec(7, 3).expect("inside"), [1.0, 2.0, 3.0]);
        let now = BufferStatistics::of_this_thread();
        assert_eq!(now.allocations - before.allocations, 2);
        assert_eq!(now.in_use_bytes - before.in_use_bytes, 80);
        assert_eq!(now.copies_in - before.copies_in, 2);
        assert_eq!(now.copies_out - before.copies_out, 1);
        assert_eq!(now.copies_on_device - before.copies_on_device, 1);
        drop((buffer, other));
        let after = BufferStatistics::of_this_thread();
        assert_eq!(after.in_use_bytes, before.in_use_bytes);
        assert_eq!(after.peak_in_use_bytes - before.in_use_bytes, 80);
    }

    #[test]
    fn ranges_outside_are_refused() {
        let mut buffer = Buffer::<u16>::zeroed(&Device::Cpu, 4).expect("memory");
        for (start, len) in [(0, 5), (4, 1), (usize::MAX, 2)] {
            assert!(buffer.copy_range_from_slice(start, &vec![7; len]).is_err());
            assert!(buffer.range_to_vec(start, len).is_err());
        }
        assert_eq!(buffer.to_vec().expect("memory"), [0; 4]);
    }
}

//! Memory of the host, whose exhaustion is an error: sizes are the caller's.

use bytemuck::Pod;
use rayon::iter::{IndexedParallelIterator, ParallelExtend};

use crate::error::Error;

/// Elements in 16-byte words, which is what aligns them.
pub(super) struct HostMemory<T> {
    pub(super) words: Vec<u128>,
    pub(super) len: usize,
    _element: std::marker::PhantomData<T>,
}

impl<T: Pod> HostMemory<T> {
    /// `len` elements of zero bytes. Pages that nobody writes cost nothing.
    pub(super) fn zeroed(len: usize) -> Result<Self, Error> {
        let bytes = len.checked_mul(size_of::<T>()).ok_or(exhausted::<T>(len))?;
        let words = zeros(bytes.div_ceil(16))?;
        Ok(Self { words, len, _element: std::marker::PhantomData })
    }

    /// No elements.
    pub(super) fn empty() -> Self {
        Self { words: Vec::new(), len: 0, _element: std::marker::PhantomData }
    }

    pub(super) fn as_slice(&self) -> &[T] {
        let bytes: &[u8] = bytemuck::cast_slice(&self.words);
        bytemuck::cast_slice(&bytes[..self.len * size_of::<T>()])
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [T] {
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut self.words);
        bytemuck::cast_slice_mut(&mut bytes[..self.len * size_of::<T>()])
    }
}

/// `len` elements of zero bytes.
pub(crate) fn zeros<T: Pod>(len: usize) -> Result<Vec<T>, Error> {
    bytemuck::allocation::try_zeroed_vec(len).map_err(|()| exhausted::<T>(len))
}

/// `len` times a value.
pub(crate) fn repeated<T: Copy>(len: usize, value: T) -> Result<Vec<T>, Error> {
    let mut values = with_room(len)?;
    values.resize(len, value);
    Ok(values)
}

/// A copy of `values`.
pub(super) fn copy<T: Copy>(values: &[T]) -> Result<Vec<T>, Error> {
    let mut copy = with_room(values.len())?;
    copy.extend_from_slice(values);
    Ok(copy)
}

/// What the iterator yields, in its order.
pub(crate) fn collect<T: Send>(
    values: impl IndexedParallelIterator<Item = T>,
) -> Result<Vec<T>, Error> {
    let mut collected = with_room(values.len())?;
    collected.par_extend(values);
    Ok(collected)
}

/// Refuses work that is about to ask for `bytes` bytes and has no way to say that there are none.
pub(crate) fn check_room(bytes: usize) -> Result<(), Error> {
    // A buffer that nobody could look at would not be made at all.
    with_room::<u8>(bytes).map(|room| drop(std::hint::black_box(room)))
}

fn with_room<T>(len: usize) -> Result<Vec<T>, Error> {
    let mut values = Vec::new();
    values.try_reserve_exact(len).map_err(|_| exhausted::<T>(len))?;
    Ok(values)
}

fn exhausted<T>(len: usize) -> Error {
    Error::OutOfMemory { requested_bytes: len.saturating_mul(size_of::<T>()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Buffer, Device};
    use rayon::iter::{IntoParallelIterator, ParallelIterator};

    /// More than any machine addresses, and more than a count of bytes holds.
    #[test]
    fn what_cannot_be_had_is_an_error() {
        #[track_caller]
        fn refused<T>(made: Result<T, Error>) {
            let Err(why) = made else { panic!("that is more than there is") };
            assert!(matches!(why, Error::OutOfMemory { .. }), "{why}");
            assert!(why.to_string().contains("bytes"), "{why}");
        }
        for len in [1 << 58, usize::MAX / 4, usize::MAX] {
            for device in [Device::Cpu, Device::simt()] {
                refused(Buffer::<f32>::zeroed(&device, len));
            }
            refused(zeros::<f32>(len));
            refused(repeated(len, 1.0_f32));
            refused(check_room(len));
        }
        refused(collect((0..usize::MAX / 8).into_par_iter().map(|i| i as f32)));
    }

    #[test]
    fn what_can_be_had_is_there() {
        assert_eq!(zeros::<f32>(3).expect("room"), [0.0; 3]);
        assert_eq!(repeated(3, 2_u8).expect("room"), [2; 3]);
        check_room(1 << 10).expect("room");
        assert_eq!(copy(&[1, 2]).expect("room"), [1, 2]);
        let squares = (0..4_usize).into_par_iter().map(|i| i * i);
        assert_eq!(collect(squares).expect("room"), [0, 1, 4, 9]);
    }
}

//! How an array is cut into segments.

use crate::buffer::Buffer;
use crate::device::Device;
use crate::error::Error;

/// What to reduce of an array.
#[derive(Debug)]
pub enum Segments<'a> {
    /// All of it, to one value.
    Whole,
    /// Rows of this many elements; the array is a whole number of them.
    Rows(usize),
    /// Segments of any lengths.
    Offsets(&'a SegmentOffsets),
}

/// Where each segment begins and the last ends, on a device, seen to be ascending.
#[derive(Debug)]
pub struct SegmentOffsets {
    pub(crate) device: Buffer<u64>,
    host: Vec<u64>,
    /// Elements of the longest segment.
    pub(crate) longest: usize,
}

impl SegmentOffsets {
    /// Copies the offsets of `offsets.len() − 1` segments to the device.
    ///
    /// # Errors
    /// No offset at all, or one smaller than the one before it; a failed call.
    pub fn new(device: &Device, offsets: &[u64]) -> Result<Self, Error> {
        let Some(&first) = offsets.first() else {
            let (why, expected) = ("there is none", "segments + 1 of them".to_owned());
            return Err(Error::Offsets { why, position: 0, got: 0, expected });
        };
        let mut before = first;
        for (position, &got) in offsets.iter().enumerate() {
            if got < before {
                let (why, expected) =
                    ("an offset is smaller than the one before", format!("≥ {before}"));
                return Err(Error::Offsets { why, position, got, expected });
            }
            before = got;
        }
        if offsets.len() - 1 > u32::MAX as usize {
            let got = offsets.len() as u64 - 1;
            let (op, what, limit) = ("reduce", "segments", u64::from(u32::MAX));
            return Err(Error::TooLarge { op, what, got, limit });
        }
        let longest = offsets.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0) as usize;
        Ok(Self { device: Buffer::from_slice(device, offsets)?, host: offsets.to_vec(), longest })
    }

    /// How many segments there are.
    pub fn segments(&self) -> usize {
        self.host.len() - 1
    }

    /// The offsets.
    pub fn as_slice(&self) -> &[u64] {
        &self.host
    }

    /// Refuses offsets past an array of `len` elements.
    pub(crate) fn check_inside(&self, len: usize) -> Result<(), Error> {
        let position = self.host.len() - 1;
        let got = self.host[position];
        if got as usize <= len {
            return Ok(());
        }
        let expected = format!("at most {len}, the elements of the input");
        Err(Error::Offsets { why: "the last offset is past the input", position, got, expected })
    }
}

impl Segments<'_> {
    /// How many segments an array of `len` elements has.
    ///
    /// # Errors
    /// Rows that do not cut the array evenly, or offsets past its end.
    pub(crate) fn count(&self, len: usize) -> Result<usize, Error> {
        match self {
            Self::Whole => Ok(1),
            Self::Rows(columns) => {
                let rows = len.checked_div(*columns).unwrap_or(0);
                if rows * columns != len || rows > u32::MAX as usize {
                    let expected = format!("a multiple of the row's {columns}");
                    return Err(Error::Length {
                        op: "reduce",
                        buffer: "input",
                        expected,
                        got: len,
                    });
                }
                Ok(rows)
            }
            Self::Offsets(offsets) => {
                offsets.check_inside(len)?;
                Ok(offsets.segments())
            }
        }
    }

    /// The first segment without elements.
    pub(crate) fn first_empty(&self, len: usize) -> Option<usize> {
        match self {
            Self::Whole => (len == 0).then_some(0),
            Self::Rows(_) => None,
            Self::Offsets(offsets) => offsets.host.windows(2).position(|pair| pair[0] == pair[1]),
        }
    }

    /// Element ranges, for a device that has the array in the host's memory.
    pub(crate) fn ranges(&self, len: usize) -> Vec<usize> {
        match self {
            Self::Whole => vec![0, len],
            Self::Rows(0) => vec![0],
            Self::Rows(columns) => (0..=len / columns).map(|row| row * columns).collect(),
            Self::Offsets(offsets) => offsets.host.iter().map(|&offset| offset as usize).collect(),
        }
    }
}

//! Files of the layer. Safetensors files are read whole or refused, with file and tensor named, and written whole or not
//! at all; rows are read from lines of text.

mod error;
mod matrix;
mod rows;
mod write;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytemuck::Pod;
use safetensors::tensor::{Metadata, TensorInfo};
pub use safetensors::{Dtype, SafeTensorError};

pub use error::FileError;
pub use matrix::LayerMatrix;
pub use rows::{RowError, RowReader};
pub use write::{Tensor, encode, write_file};
pub(crate) use write::{UNFINISHED, is_in_place, write_file_with};

/// What safetensors itself takes.
const MOST_HEADER_BYTES: u64 = 100_000_000;

/// Bytes of the word before the header.
const PREFIX: usize = size_of::<u64>();

/// A safetensors file in memory, its header seen to describe exactly the bytes that follow it.
#[derive(Debug, Clone)]
pub struct TensorFile {
    path: PathBuf,
    bytes: Vec<u8>,
    header: Metadata,
    data: usize,
}

impl TensorFile {
    /// Reads a file. Of one that is longer than its header says, an endless one too, no more is read
    /// than shows it.
    ///
    /// # Errors
    /// [`FileError::Read`], [`FileError::Format`] or [`FileError::Truncated`].
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let bytes = read_what_the_header_says(path)
            .map_err(|source| FileError::Read { path: path.to_owned(), source })?;
        Self::from_bytes(path, bytes).map_err(|error| match (error, path.metadata()) {
            // Less may have been read than there is.
            (FileError::Format { path, source, .. }, Ok(found)) if found.is_file() => {
                FileError::Format { path, bytes: found.len(), source }
            }
            (error, _) => error,
        })
    }

    /// Takes a file's bytes; `path` is what errors call it.
    ///
    /// # Errors
    /// [`FileError::Format`] or [`FileError::Truncated`].
    pub fn from_bytes(path: impl Into<PathBuf>, bytes: Vec<u8>) -> Result<Self, FileError> {
        let path = path.into();
        let format = |source| {
            let (path, bytes) = (path.clone(), bytes.len() as u64);
            FileError::Format { path, bytes, source }
        };
        let (length, rest) = bytes
            .split_first_chunk::<PREFIX>()
            .ok_or_else(|| format(SafeTensorError::HeaderTooSmall))?;
        let length = u64::from_le_bytes(*length);
        if length > MOST_HEADER_BYTES {
            return Err(format(SafeTensorError::HeaderTooLarge));
        }
        let header = rest
            .get(..length as usize)
            .ok_or_else(|| format(SafeTensorError::InvalidHeaderLength))?;
        let data = PREFIX + header.len();
        let header: Metadata = serde_json::from_slice(header)
            .map_err(|why| format(SafeTensorError::InvalidHeaderDeserialization(why)))?;
        let found = bytes.len() - data;
        if header.data_len() < found {
            return Err(format(SafeTensorError::MetadataIncompleteBuffer));
        }
        if header.data_len() > found {
            return Err(truncated(path, &header, data, bytes.len()));
        }
        Ok(Self { path, bytes, header, data })
    }

    /// What errors call the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of the tensors, sorted.
    pub fn names(&self) -> Vec<String> {
        let mut names = self.header.offset_keys();
        names.sort_unstable();
        names
    }

    /// The text under a key of the file's metadata.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.header.metadata().as_ref()?.get(key).map(String::as_str)
    }

    /// Every key and text of the file's metadata.
    pub fn metadata_entries(&self) -> impl Iterator<Item = (&str, &str)> {
        let entries = self.header.metadata().iter().flatten();
        entries.map(|(key, text)| (key.as_str(), text.as_str()))
    }

    /// A tensor by its name: type, shape and bytes.
    pub(crate) fn raw(&self, name: &str) -> Option<(&TensorInfo, &[u8])> {
        let info = self.header.info(name)?;
        let (begin, end) = info.data_offsets;
        Some((info, &self.bytes[self.data + begin..self.data + end]))
    }

    /// A tensor that must be there.
    pub(crate) fn tensor(&self, tensor: &'static str) -> Result<(&TensorInfo, &[u8]), FileError> {
        self.raw(tensor).ok_or_else(|| {
            let names = self.names();
            let found = if names.is_empty() {
                "none".to_owned()
            } else {
                format!("`{}`", names.join("`, `"))
            };
            FileError::Missing { path: self.path.clone(), tensor, found }
        })
    }

    /// A tensor's elements and extents.
    pub(crate) fn array<T: Pod, const N: usize>(
        &self,
        tensor: &'static str,
        dtype: Dtype,
        shape: Shape<N>,
    ) -> Result<(Vec<T>, [usize; N]), FileError> {
        let (info, bytes) = self.tensor(tensor)?;
        if info.dtype != dtype {
            return Err(self.wrong_dtype(tensor, &dtype.to_string(), info.dtype));
        }
        Ok((elements(bytes), self.extents(tensor, info, shape)?))
    }

    pub(crate) fn extents<const N: usize>(
        &self,
        tensor: &'static str,
        info: &TensorInfo,
        shape: Shape<N>,
    ) -> Result<[usize; N], FileError> {
        let fits = |extents: &[usize; N]| {
            extents.iter().zip(shape.extents).all(|(&got, extent)| match extent {
                Extent::Exactly(expected) => got == expected,
                Extent::AtLeastOne(_) => got > 0,
                Extent::Any(_) => true,
            })
        };
        <[usize; N]>::try_from(&info.shape[..]).ok().filter(fits).ok_or_else(|| {
            let expected = shape.extents.map(|extent| match extent {
                Extent::Exactly(expected) => expected.to_string(),
                Extent::AtLeastOne(name) => format!("{name} ≥ 1"),
                Extent::Any(name) => name.to_owned(),
            });
            let (path, expected) = (self.path.clone(), expected.join(", "));
            FileError::Shape { path, tensor, expected, got: info.shape.clone(), why: shape.why }
        })
    }

    pub(crate) fn wrong_dtype(
        &self,
        tensor: &'static str,
        expected: &str,
        got: Dtype,
    ) -> FileError {
        FileError::Dtype { path: self.path.clone(), tensor, expected: expected.to_owned(), got }
    }
}

/// What a tensor's shape must be, and where that comes from.
#[derive(Clone, Copy)]
pub(crate) struct Shape<const N: usize> {
    pub(crate) extents: [Extent; N],
    pub(crate) why: &'static str,
}

/// How long a tensor may be along one axis.
#[derive(Clone, Copy)]
pub(crate) enum Extent {
    Exactly(usize),
    AtLeastOne(&'static str),
    Any(&'static str),
}

/// The elements of a tensor, which need not be aligned in its file.
pub(crate) fn elements<T: Pod>(bytes: &[u8]) -> Vec<T> {
    bytes.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned).collect()
}

fn read_what_the_header_says(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let mut bytes = Vec::new();
    file.by_ref().take(PREFIX as u64).read_to_end(&mut bytes)?;
    let Ok(length) = bytes[..].try_into().map(u64::from_le_bytes) else { return Ok(bytes) };
    if length > MOST_HEADER_BYTES {
        return Ok(bytes);
    }
    file.by_ref().take(length).read_to_end(&mut bytes)?;
    if let Ok(header) = serde_json::from_slice::<Metadata>(&bytes[PREFIX..]) {
        let with_one_too_many = (header.data_len() as u64).saturating_add(1);
        file.take(with_one_too_many).read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

/// Names the first tensor that is cut off.
fn truncated(path: PathBuf, header: &Metadata, data: usize, got: usize) -> FileError {
    let end = |info: &TensorInfo| data.saturating_add(info.data_offsets.1);
    let cut = header.tensors().into_iter().map(|(name, info)| (end(info), name));
    let first = cut.filter(|&(end, _)| end > got).min();
    let (expected, tensor) = first.expect("the last tensor ends past the file");
    FileError::Truncated { path, tensor, expected, got }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(data);
        bytes
    }

    #[test]
    fn absurd_sizes_are_refused_without_allocating_them() {
        // Eight tensors whose ends reach the end of 64 bits.
        let eighth = 1_u64 << 61;
        let tensors: Vec<String> = (0..8_u64)
            .map(|i| {
                let (begin, long) = (i * eighth, eighth - u64::from(i == 7));
                let end = begin + long;
                format!(
                    r#""t{i}":{{"dtype":"U8","shape":[{long}],"data_offsets":[{begin},{end}]}}"#
                )
            })
            .collect();
        let many = format!("{{{}}}", tensors.join(","));
        let one = r#"{"t":{"dtype":"U8","shape":[1152921504606846976],"data_offsets":[0,1152921504606846976]}}"#;
        for header in [one, &many] {
            let why = TensorFile::from_bytes("x", file(header, &[1, 2, 3])).expect_err(header);
            let said = matches!(why, FileError::Truncated { .. } | FileError::Format { .. });
            assert!(said, "{why}");
        }
        for length in [u64::MAX, MOST_HEADER_BYTES + 1, MOST_HEADER_BYTES, 1] {
            let bytes = length.to_le_bytes().to_vec();
            assert!(matches!(TensorFile::from_bytes("x", bytes), Err(FileError::Format { .. })));
        }
    }

    #[test]
    fn an_endless_file_ends() {
        for endless in ["/dev/zero", "/dev/urandom"] {
            let Err(why) = TensorFile::read(Path::new(endless)) else {
                panic!("{endless} is read")
            };
            assert!(matches!(why, FileError::Format { .. }), "{why}");
        }
    }

    #[test]
    fn what_is_written_is_read_and_its_bytes_do_not_depend_on_the_run() {
        let values = [1.5_f32, f32::NAN, -0.0];
        let metadata: BTreeMap<String, String> =
            (0..20).map(|i| (format!("key {i}"), format!("text {i}"))).collect();
        let tensors = || {
            [
                Tensor::of("bytes", Dtype::U8, &[3], &[1_u8, 2, 3]),
                Tensor::of("values", Dtype::F32, &[3, 1], &values),
                Tensor::of::<f32>("none", Dtype::F32, &[0, 7], &[]),
            ]
        };
        let bytes = encode(&tensors(), &metadata).unwrap();
        for _ in 0..8 {
            assert_eq!(encode(&tensors(), &metadata).unwrap(), bytes);
        }
        // The library's own reader takes it as well.
        assert_eq!(safetensors::SafeTensors::deserialize(&bytes).unwrap().len(), 3);
        let file = TensorFile::from_bytes("x", bytes).unwrap();
        assert_eq!(file.names(), ["bytes", "none", "values"]);
        assert_eq!(file.metadata("key 7"), Some("text 7"));
        assert_eq!(file.metadata_entries().count(), 20);
        let shape = Shape { extents: [Extent::Exactly(3), Extent::Any("C")], why: "a test" };
        let (got, extents) = file.array::<f32, 2>("values", Dtype::F32, shape).unwrap();
        assert_eq!((got.map_to_bits(), extents), (values.to_vec().map_to_bits(), [3, 1]));
    }

    trait Bits {
        fn map_to_bits(&self) -> Vec<u32>;
    }

    impl Bits for Vec<f32> {
        fn map_to_bits(&self) -> Vec<u32> {
            self.iter().map(|value| value.to_bits()).collect()
        }
    }
}

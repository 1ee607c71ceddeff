//! Writing: tensors into bytes, and bytes into their place.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs::{File, Permissions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use bytemuck::Pod;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensorError};

/// A tensor to be written.
#[derive(Debug, Clone)]
pub struct Tensor<'a> {
    /// Its name in the file.
    pub name: &'a str,
    /// Its element type.
    pub dtype: Dtype,
    /// Its extents.
    pub shape: Vec<usize>,
    /// Its elements, row-major and little-endian.
    pub bytes: Cow<'a, [u8]>,
}

impl<'a> Tensor<'a> {
    /// A tensor of elements in memory.
    pub fn of<T: Pod>(name: &'a str, dtype: Dtype, shape: &[usize], values: &'a [T]) -> Self {
        let bytes = Cow::Borrowed(bytemuck::cast_slice(values));
        Self { name, dtype, shape: shape.to_vec(), bytes }
    }
}

/// The bytes of a safetensors file. The same tensors and metadata give the same bytes.
///
/// # Errors
/// A shape that does not fit its bytes.
pub fn encode(
    tensors: &[Tensor<'_>],
    metadata: &BTreeMap<String, String>,
) -> Result<Vec<u8>, SafeTensorError> {
    let views = tensors
        .iter()
        .map(|t| Ok((t.name, TensorView::new(t.dtype, t.shape.clone(), &t.bytes)?)))
        .collect::<Result<Vec<_>, SafeTensorError>>()?;
    if metadata.is_empty() {
        return safetensors::serialize(views, None);
    }
    let unordered: HashMap<_, _> = metadata.clone().into_iter().collect();
    let mut bytes = safetensors::serialize(views, Some(unordered))?;
    order_header(&mut bytes)?;
    Ok(bytes)
}

/// Puts the header's keys in their order, which a hash map's is not.
fn order_header(bytes: &mut Vec<u8>) -> Result<(), SafeTensorError> {
    const PREFIX: usize = size_of::<u64>();
    let length = bytes.first_chunk().map_or(0, |length| u64::from_le_bytes(*length) as usize);
    let header: BTreeMap<String, serde_json::Value> =
        serde_json::from_slice(&bytes[PREFIX..PREFIX + length])?;
    let mut ordered = serde_json::to_vec(&header)?;
    ordered.resize(ordered.len().next_multiple_of(PREFIX), b' ');
    let prefix = (ordered.len() as u64).to_le_bytes();
    bytes.splice(..PREFIX + length, prefix.into_iter().chain(ordered));
    Ok(())
}

/// What a file is called beside its place, with six characters of chance behind it, until it is whole. A
/// process that is killed leaves it there; a [`CheckpointStore`](crate::kasmina::checkpoint::CheckpointStore)
/// removes what is old.
pub(crate) const UNFINISHED: &str = ".kasmina-unfinished-";

/// Writes a file whole or not at all: beside its place, to the disk, then into it. After a failure,
/// what was there before still is, and nothing else; but where the folder itself does not go to the disk in the end, the
/// new file is in its place, and the error says so. A pipe or a device is written to, not replaced. A
/// symbolic link to a file is replaced by the new file; what it pointed to stays as it is.
///
/// # Errors
/// The system's: no such folder, no permission, no space.
pub fn write_file(path: &Path, contents: &[u8]) -> io::Result<()> {
    write_file_with(path, |file| file.write_all(contents))
}

/// As [`write_file`], of what `write` puts out bit by bit.
///
/// # Errors
/// As [`write_file`], and those of `write`.
pub(crate) fn write_file_with(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    let fill = |file: &mut File| {
        let mut buffered = BufWriter::new(file);
        write(&mut buffered)?;
        buffered.flush()
    };
    if path.metadata().is_ok_and(|found| !found.is_file() && !found.is_dir()) {
        return fill(&mut File::create(path)?);
    }
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    // Before the file takes its place: what cannot be opened is an error while nothing has changed.
    let entries = File::open(folder)?;
    let as_any_new_file = Permissions::from_mode(0o666);
    let mut file = tempfile::Builder::new()
        .prefix(UNFINISHED)
        .permissions(as_any_new_file)
        .tempfile_in(folder)?;
    fill(file.as_file_mut())?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|failed| failed.error)?;
    in_place(entries.sync_all())
}

/// A file that has taken its place, though the folder did not go to the disk.
#[derive(Debug, thiserror::Error)]
#[error(
    "the new file is in its place, but its folder did not go to the disk, so that a loss of power may undo it: {0}"
)]
struct Unsynced(io::Error);

/// Whether a failed [`write_file`] has put the file in its place nonetheless.
pub(crate) fn is_in_place(failed: &io::Error) -> bool {
    failed.get_ref().is_some_and(|why| why.is::<Unsynced>())
}

/// What became of a file that has taken its place, by what the folder's way to the disk brought.
fn in_place(synced: io::Result<()>) -> io::Result<()> {
    match synced {
        // Some file systems have no such call for a folder.
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => {
            Ok(())
        }
        Err(error) => Err(io::Error::new(error.kind(), Unsynced(error))),
        Ok(()) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kasmina::checkpoint::CheckpointError;

    #[test]
    fn a_folder_that_does_not_go_to_the_disk_is_not_a_file_that_was_not_written() {
        let failed = |kind| io::Error::new(kind, "the disk's words");
        assert!(in_place(Ok(())).is_ok());
        assert!(in_place(Err(failed(ErrorKind::Unsupported))).is_ok());
        let written = in_place(Err(failed(ErrorKind::Other))).expect_err("not synced");
        assert!(is_in_place(&written), "{written}");
        let said = CheckpointError::of_write(Path::new("c"), written).to_string();
        for part in ["c: the new file is in its place", "the disk's words"] {
            assert!(said.contains(part), "{said}");
        }
        assert!(!said.contains("unchanged") && !said.contains("cannot write"), "{said}");
        let said = CheckpointError::of_write(Path::new("c"), failed(ErrorKind::Other)).to_string();
        assert_eq!(said, "cannot write c: the disk's words; what was there is unchanged");
    }
}

//! A checkpoint's metadata, as values and as text in the file.

use std::collections::BTreeMap;

use crc32fast::Hasher;

use super::error::CheckpointError;
use crate::kasmina::files::TensorFile;

/// The newest schema that this build reads, and the one that it writes where there is a LINEAR blueprint.
pub const SCHEMA_VERSION: u32 = 2;

/// The schema that it writes where there is none: files differ from schema 2 in what a LINEAR blueprint needs alone.
pub const SCHEMA_WITHOUT_LINEAR: u32 = 1;

const SCHEMA: &str = "schema_version";
const PROJECT: &str = "project_version";
const STEP: &str = "step";
const EPOCH: &str = "epoch";
const CRC: &str = "crc32";
const METADATA_CRC: &str = "metadata_crc32";

/// Every key of the checkpoint's own.
const RESERVED: [&str; 6] = [SCHEMA, PROJECT, STEP, EPOCH, CRC, METADATA_CRC];

/// A file with one of these is a checkpoint, and must have all of [`RESERVED`].
const MARKS: [&str; 3] = [SCHEMA, CRC, METADATA_CRC];

/// When a checkpoint was taken, and by what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckpointMetadata {
    /// The schema of the file; 0 for a plain state file, which has none.
    pub schema_version: u32,
    /// The version of the build that wrote it; empty for a plain state file.
    pub project_version: String,
    /// Steps done.
    pub step: u64,
    /// Epochs done.
    pub epoch: u64,
    /// Whatever else is to stand in the file, under keys that are not the checkpoint's own.
    pub extra: BTreeMap<String, String>,
}

impl CheckpointMetadata {
    pub(super) fn new(step: u64, epoch: u64) -> Self {
        let project_version = env!("CARGO_PKG_VERSION").to_owned();
        let (schema_version, extra) = (SCHEMA_WITHOUT_LINEAR, BTreeMap::new());
        Self { schema_version, project_version, step, epoch, extra }
    }

    /// What is known of a plain state file.
    pub(super) fn none() -> Self {
        Self { schema_version: 0, project_version: String::new(), ..Self::new(0, 0) }
    }

    /// The file's entries.
    pub(super) fn to_entries(
        &self,
        schema: u32,
        crc32: u32,
    ) -> Result<BTreeMap<String, String>, CheckpointError> {
        if let Some(key) = self.extra.keys().find(|key| RESERVED.contains(&key.as_str())) {
            return Err(CheckpointError::ReservedKey { key: key.clone() });
        }
        let mut entries = self.extra.clone();
        for (key, text) in [
            (SCHEMA, schema.to_string()),
            (PROJECT, env!("CARGO_PKG_VERSION").to_owned()),
            (STEP, self.step.to_string()),
            (EPOCH, self.epoch.to_string()),
            (CRC, format!("{crc32:08x}")),
        ] {
            entries.insert(key.to_owned(), text);
        }
        let own = crc32_of_entries(entries.iter().map(|(key, text)| (key.as_str(), text.as_str())));
        entries.insert(METADATA_CRC.to_owned(), format!("{own:08x}"));
        Ok(entries)
    }

    /// The metadata and the CRC of the tensors; none of a file that is no checkpoint.
    pub(super) fn read(file: &TensorFile) -> Result<Option<(Self, u32)>, CheckpointError> {
        if MARKS.iter().all(|key| file.metadata(key).is_none()) {
            return Ok(None);
        }
        let schema_version = schema_version(file)?;
        let expected = number(file, METADATA_CRC, "8 hexadecimal digits", crc_digits)?;
        let mut entries: Vec<_> =
            file.metadata_entries().filter(|&(key, _)| key != METADATA_CRC).collect();
        entries.sort_unstable();
        let got = crc32_of_entries(entries.iter().copied());
        if got != expected {
            let (path, part) = (file.path().to_owned(), "metadata");
            return Err(CheckpointError::Crc { path, part, expected, got });
        }
        let count = |key| number(file, key, "a count", |text| text.parse().ok());
        let extra = entries.into_iter().filter(|(key, _)| !RESERVED.contains(key));
        let metadata = Self {
            schema_version,
            project_version: number(file, PROJECT, "a version", |text| Some(text.to_owned()))?,
            step: count(STEP)?,
            epoch: count(EPOCH)?,
            extra: extra.map(|(key, text)| (key.to_owned(), text.to_owned())).collect(),
        };
        Ok(Some((metadata, number(file, CRC, "8 hexadecimal digits", crc_digits)?)))
    }
}

/// The schema, if this build knows it. It is looked at before anything else, since all else may be
/// different in a newer one.
fn schema_version(file: &TensorFile) -> Result<u32, CheckpointError> {
    let expected = "a whole number from 1";
    let got: u64 = number(file, SCHEMA, expected, |text| text.parse().ok().filter(|&v| v > 0))?;
    match u32::try_from(got) {
        Ok(version) if version <= SCHEMA_VERSION => Ok(version),
        _ => Err(CheckpointError::Newer { path: file.path().to_owned(), got }),
    }
}

/// What stands under a key.
fn number<T>(
    file: &TensorFile,
    key: &'static str,
    expected: &'static str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<T, CheckpointError> {
    let text = file.metadata(key);
    text.and_then(parse).ok_or_else(|| CheckpointError::Metadata {
        path: file.path().to_owned(),
        key,
        expected,
        got: text.map(str::to_owned),
    })
}

fn crc_digits(text: &str) -> Option<u32> {
    (text.len() == 8).then(|| u32::from_str_radix(text, 16).ok()).flatten()
}

/// Of each entry in the order of the keys, key and text, both ended by a zero byte.
fn crc32_of_entries<'a>(entries: impl Iterator<Item = (&'a str, &'a str)>) -> u32 {
    let mut hasher = Hasher::new();
    for text in entries.flat_map(|(key, text)| [key, text]) {
        hasher.update(text.as_bytes());
        hasher.update(&[0]);
    }
    hasher.finalize()
}

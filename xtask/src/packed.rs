//! The artifacts on disk: PTX compressed with gzip, the same bytes for the same text.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use flate2::{Compression, GzBuilder};

use crate::error::XtaskError;
use crate::ptx_folder;

/// Where an artifact lies.
fn path_of(file: &str) -> PathBuf {
    ptx_folder().join(format!("{file}.gz"))
}

/// Writes an artifact's text.
pub(crate) fn write(file: &str, ptx: &str) -> Result<(), XtaskError> {
    let path = path_of(file);
    fs::write(&path, pack(ptx)).map_err(XtaskError::access(path))
}

/// Reads an artifact's text.
pub(crate) fn read(file: &str) -> Result<String, XtaskError> {
    let path = path_of(file);
    unpack(&path).map_err(XtaskError::access(path))
}

/// No file name and no time: the header holds nothing of the moment or the machine.
fn pack(text: &str) -> Vec<u8> {
    let mut encoder = GzBuilder::new().write(Vec::new(), Compression::best());
    encoder.write_all(text.as_bytes()).expect("memory takes what is written");
    encoder.finish().expect("memory takes what is written")
}

fn unpack(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    GzDecoder::new(File::open(path)?).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_comes_back_and_is_packed_alike_each_time() {
        let text = ".visible .entry a()\n".repeat(1000);
        let packed = pack(&text);
        assert!(packed == pack(&text) && packed.len() < text.len() / 20);
        let mut back = String::new();
        GzDecoder::new(packed.as_slice()).read_to_string(&mut back).expect("it was just packed");
        assert_eq!(back, text);
    }
}

//! Pictures as SVG files.

mod heatmap;
mod lines;

use std::path::Path;

use anyhow::anyhow;
use plotters::style::RGBColor;

pub(crate) use heatmap::Heatmap;
pub(crate) use lines::{Chart, Line, lines};

use super::Failure;
use super::output::write_file;

/// A font that every viewer has.
const FONT: &str = "sans-serif";

const BLUE: RGBColor = RGBColor(8, 48, 107);

/// Refuses a path whose folder is not there, before anything is computed.
pub(crate) fn check(path: &Path) -> Result<(), Failure> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() && !folder.is_dir() => {
            let what =
                anyhow!("--svg {}: the folder does not exist; make it first", path.display());
            Err(Failure::usage(what))
        }
        _ => Ok(()),
    }
}

/// Writes a picture.
pub(crate) fn write(path: &Path, svg: &str) -> Result<(), Failure> {
    write_file(path, svg.as_bytes()).map_err(Failure::usage)
}

fn said(error: impl std::fmt::Display) -> Failure {
    anyhow!("cannot draw: {error}").into()
}

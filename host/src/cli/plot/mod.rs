//! Pictures as SVG files.

mod heatmap;
mod lines;
mod steps;

use std::path::Path;

use anyhow::anyhow;
use plotters::style::RGBColor;

pub(crate) use heatmap::Heatmap;
pub(crate) use lines::{Chart, Line, lines};
pub(crate) use steps::{StepChart, Steps, steps};

use super::Failure;
use super::output::write_file;

/// A font that every viewer has.
const FONT: &str = "sans-serif";

const BLUE: RGBColor = RGBColor(8, 48, 107);

/// Writes a picture.
pub(crate) fn write(path: &Path, svg: &str) -> Result<(), Failure> {
    write_file(path, svg.as_bytes()).map_err(Failure::usage)
}

fn said(error: impl std::fmt::Display) -> Failure {
    anyhow!("cannot draw: {error}").into()
}

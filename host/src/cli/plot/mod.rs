//! Pictures as SVG files.

mod heatmap;
mod lines;
mod steps;

use std::path::Path;

use anyhow::anyhow;
use plotters::coord::Shift;
use plotters::prelude::{DrawingArea, IntoDrawingArea, SVGBackend};
use plotters::style::{RGBColor, WHITE};

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

/// A picture of charts, one below the other.
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws each chart with `draw` on an area of `size`, one below the other, as SVG.
fn stacked<C>(
    charts: &[C],
    size: (u32, u32),
    draw: impl Fn(&C, &Area<'_>) -> Result<(), Failure>,
) -> Result<String, Failure> {
    let mut text = String::new();
    {
        let rows = charts.len().max(1);
        let size = (size.0, size.1 * rows as u32);
        let area = SVGBackend::with_string(&mut text, size).into_drawing_area();
        area.fill(&WHITE).map_err(said)?;
        for (chart, part) in charts.iter().zip(area.split_evenly((rows, 1))) {
            draw(chart, &part)?;
        }
        area.present().map_err(said)?;
    }
    Ok(text)
}

fn said(error: impl std::fmt::Display) -> Failure {
    anyhow!("cannot draw: {error}").into()
}

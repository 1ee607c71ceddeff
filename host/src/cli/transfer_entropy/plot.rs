//! Plots of transfer entropies as SVG files.

use std::path::Path;

use anyhow::anyhow;
use ndarray::ArrayView2;
use plotters::prelude::*;

use crate::cli::Failure;
use crate::cli::output::write_file;

/// Pixels of a heatmap's cell.
const CELL: u32 = 48;

/// A font that every viewer has.
const FONT: &str = "sans-serif";

/// Refuses a path whose folder is not there, before anything is computed.
pub(super) fn check(path: &Path) -> Result<(), Failure> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() && !folder.is_dir() => {
            let what =
                anyhow!("--svg {}: the folder does not exist; make it first", path.display());
            Err(Failure::usage(what))
        }
        _ => Ok(()),
    }
}

/// A cell for each ordered pair: sources down, targets across, the darker the more.
pub(super) fn heatmap(
    path: &Path,
    names: &[String],
    te_nats: ArrayView2<'_, f64>,
) -> Result<(), Failure> {
    let count = names.len() as i32;
    let side = (names.len() as u32 * CELL).clamp(320, 4096);
    let most = te_nats.iter().copied().filter(|te| te.is_finite()).fold(0.0, f64::max);
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (side + 160, side + 120)).into_drawing_area();
        area.fill(&WHITE).map_err(said)?;
        let title = format!("Transfer entropy, up to {most:.4} nats");
        let mut chart = ChartBuilder::on(&area)
            .caption(title, (FONT, 18))
            .margin(12)
            .x_label_area_size(56)
            .y_label_area_size(110)
            .build_cartesian_2d((0..count - 1).into_segmented(), (0..count - 1).into_segmented())
            .map_err(said)?;
        let named = |at: &SegmentValue<i32>| match at {
            SegmentValue::CenterOf(i) => names.get(*i as usize).cloned().unwrap_or_default(),
            _ => String::new(),
        };
        // Sources from the top.
        let from_top = |at: &SegmentValue<i32>| match at {
            SegmentValue::CenterOf(i) => {
                names.get((count - 1 - i) as usize).cloned().unwrap_or_default()
            }
            _ => String::new(),
        };
        chart
            .configure_mesh()
            .disable_mesh()
            .x_labels(names.len())
            .y_labels(names.len())
            .x_label_formatter(&named)
            .y_label_formatter(&from_top)
            .x_desc("target")
            .y_desc("source")
            .label_style((FONT, 13))
            .draw()
            .map_err(said)?;
        let cells = te_nats.indexed_iter().map(|((source, target), &te)| {
            let (column, row) = (target as i32, count - 1 - source as i32);
            let corners = [
                (SegmentValue::Exact(column), SegmentValue::Exact(row)),
                (SegmentValue::Exact(column + 1), SegmentValue::Exact(row + 1)),
            ];
            Rectangle::new(corners, shade(te, most).filled())
        });
        chart.draw_series(cells).map_err(said)?;
        area.present().map_err(said)?;
    }
    write_file(path, svg.as_bytes()).map_err(Failure::usage)
}

/// White for nothing or less, dark blue for the most; grey where there is no pair.
fn shade(te: f64, most: f64) -> RGBColor {
    if te.is_nan() {
        return RGBColor(225, 225, 225);
    }
    let share = if most > 0.0 { (te / most).clamp(0.0, 1.0) } else { 0.0 };
    let mix = |from: f64, to: f64| (from + (to - from) * share).round() as u8;
    RGBColor(mix(255.0, 8.0), mix(255.0, 48.0), mix(255.0, 107.0))
}

/// A line through the transfer entropies at each delay.
pub(super) fn line(path: &Path, title: &str, points: &[(f64, f64)]) -> Result<(), Failure> {
    let across = |f: fn(f64, f64) -> f64, of: fn(&(f64, f64)) -> f64, from: f64| {
        points.iter().map(of).fold(from, f)
    };
    let (x0, x1) = (
        across(f64::min, |point| point.0, f64::INFINITY),
        across(f64::max, |point| point.0, f64::NEG_INFINITY),
    );
    let (y0, y1) = (across(f64::min, |point| point.1, 0.0), across(f64::max, |point| point.1, 0.0));
    let room = ((y1 - y0) * 0.05).max(1e-6);
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (720, 420)).into_drawing_area();
        area.fill(&WHITE).map_err(said)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(title, (FONT, 18))
            .margin(12)
            .x_label_area_size(44)
            .y_label_area_size(72)
            .build_cartesian_2d(x0 - 0.5..x1 + 0.5, y0 - room..y1 + room)
            .map_err(said)?;
        chart
            .configure_mesh()
            .x_desc("delay (samples)")
            .x_labels(points.len().min(20))
            .x_label_formatter(&|delay| format!("{delay:.0}"))
            .y_desc("transfer entropy (nats)")
            .label_style((FONT, 13))
            .light_line_style(WHITE)
            .draw()
            .map_err(said)?;
        let blue = RGBColor(8, 48, 107);
        chart.draw_series(LineSeries::new(points.iter().copied(), &blue)).map_err(said)?;
        let dots = points.iter().map(|&point| Circle::new(point, 3, blue.filled()));
        chart.draw_series(dots).map_err(said)?;
        area.present().map_err(said)?;
    }
    write_file(path, svg.as_bytes()).map_err(Failure::usage)
}

fn said(error: impl std::fmt::Display) -> Failure {
    anyhow!("cannot draw: {error}").into()
}

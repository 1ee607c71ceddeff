//! Heatmaps of what each ordered pair has.

use ndarray::ArrayView2;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::{BLUE as MOST, FONT, said};
use crate::cli::Failure;
use crate::cli::output::fixed;

/// Pixels of a cell.
const CELL: u32 = 48;

/// Letters of a name that are shown.
const MOST_LETTERS: usize = 20;

/// Cells in a row that have room for their number.
const MOST_NUMBERED: usize = 40;

/// A cell for each ordered pair: from down, to across, the darker the more.
pub(crate) struct Heatmap<'a> {
    pub(crate) title: &'a str,
    pub(crate) from: &'a str,
    pub(crate) to: &'a str,
    pub(crate) names: &'a [String],
    /// From, to; NaN where there is no pair.
    pub(crate) values: ArrayView2<'a, f64>,
}

impl Heatmap<'_> {
    pub(crate) fn svg(&self) -> Result<String, Failure> {
        let names: Vec<String> = self.names.iter().map(|name| shortened(name)).collect();
        // Of letters of 13 pixels' height.
        let room = names.iter().map(|name| name.chars().count()).max().unwrap_or(0) as u32 * 8 + 36;
        let count = names.len() as i32;
        let side = (names.len() as u32 * CELL).clamp(320, 4096);
        let most = self.values.iter().copied().filter(|v| v.is_finite()).fold(0.0, f64::max);
        let mut svg = String::new();
        let area = SVGBackend::with_string(&mut svg, (side + room + 40, side + room + 60))
            .into_drawing_area();
        area.fill(&WHITE).map_err(said)?;
        let ranks = || (0..count - 1).into_segmented();
        let mut chart = ChartBuilder::on(&area)
            .caption(self.title, (FONT, 18))
            .margin(12)
            .x_label_area_size(room)
            .y_label_area_size(room)
            .build_cartesian_2d(ranks(), ranks())
            .map_err(said)?;
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
            // They are drawn below, downwards from the axis.
            .x_label_formatter(&|_| String::new())
            .y_label_formatter(&from_top)
            .x_desc(self.to)
            .y_desc(self.from)
            .label_style((FONT, 13))
            .draw()
            .map_err(said)?;
        let cells = self.values.indexed_iter().map(|((from, to), &value)| {
            let (column, row) = (to as i32, count - 1 - from as i32);
            let corners = [
                (SegmentValue::Exact(column), SegmentValue::Exact(row)),
                (SegmentValue::Exact(column + 1), SegmentValue::Exact(row + 1)),
            ];
            Rectangle::new(corners, shade(value, most).filled())
        });
        chart.draw_series(cells).map_err(said)?;
        let plot = chart.plotting_area();
        let below = plot.get_pixel_range().1.end + 8;
        let down = (FONT, 13).into_font().transform(FontTransform::Rotate90);
        let down = TextStyle::from(down).pos(Pos::new(HPos::Left, VPos::Center));
        for (column, name) in names.iter().enumerate() {
            let at = (SegmentValue::CenterOf(column as i32), SegmentValue::Exact(0));
            let (across, _) = plot.map_coordinate(&at);
            area.draw(&Text::new(name.as_str(), (across, below), down.clone())).map_err(said)?;
        }
        if names.len() <= MOST_NUMBERED {
            let finite = self.values.indexed_iter().filter(|(_, value)| value.is_finite());
            let numbers = finite.map(|((from, to), &value)| {
                let at = (
                    SegmentValue::CenterOf(to as i32),
                    SegmentValue::CenterOf(count - 1 - from as i32),
                );
                let colour = if value > 0.5 * most { WHITE } else { BLACK };
                let centred = Pos::new(HPos::Center, VPos::Center);
                let style = (FONT, 12).into_font().color(&colour).pos(centred);
                Text::new(fixed(value, 3), at, style)
            });
            chart.draw_series(numbers).map_err(said)?;
        }
        area.present().map_err(said)?;
        drop(chart);
        drop(area);
        Ok(svg)
    }
}

/// A name that is not longer than what is shown.
fn shortened(name: &str) -> String {
    if name.chars().count() <= MOST_LETTERS {
        return name.to_owned();
    }
    name.chars().take(MOST_LETTERS - 1).chain(['…']).collect()
}

/// White for nothing or less, dark blue for the most; grey where there is no pair.
fn shade(value: f64, most: f64) -> RGBColor {
    if value.is_nan() {
        return RGBColor(225, 225, 225);
    }
    let share = if most > 0.0 { (value / most).clamp(0.0, 1.0) } else { 0.0 };
    let mix = |to: u8| (255.0 + (f64::from(to) - 255.0) * share).round() as u8;
    RGBColor(mix(MOST.0), mix(MOST.1), mix(MOST.2))
}

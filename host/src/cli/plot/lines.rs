//! Charts of lines.

use plotters::coord::combinators::IntoLogRange;
use plotters::prelude::*;

use super::{Area, FONT, said, stacked};
use crate::cli::Failure;

/// Points of a line that are drawn at most: more are not seen.
const MOST_POINTS: usize = 1000;

/// Points of a line that are drawn as dots, too, at most.
const MOST_DOTS: usize = 60;

/// What is drawn of a logarithmic axis: the ratio of the ends is a number, too.
const LOG_Y: std::ops::RangeInclusive<f64> = 1e-150..=1e150;

/// The largest size of a value that is drawn: the difference of two is a number, too.
const MOST_Y: f64 = 1e300;

/// Less than this of the values' size is no range: the marks of the axis would be one number.
const LEAST_RANGE: f64 = 1e-6;

const SIZE: (u32, u32) = (800, 320);
const COLOURS: [RGBColor; 3] =
    [RGBColor(31, 119, 180), RGBColor(214, 39, 40), RGBColor(44, 160, 44)];

/// A chart of lines over one x axis.
pub(crate) struct Chart<'a> {
    pub(crate) title: &'a str,
    pub(crate) x_label: &'a str,
    pub(crate) y_label: &'a str,
    /// Whether the y axis is logarithmic: values that are not above 0 are left out, and those beyond 1e±150.
    pub(crate) log_y: bool,
    pub(crate) lines: Vec<Line<'a>>,
}

/// A line; points that are not finite are left out, and those that only a run that diverged has: beyond ±1e300.
pub(crate) struct Line<'a> {
    pub(crate) name: &'a str,
    pub(crate) points: Vec<(f64, f64)>,
}

/// The charts, one below the other, as SVG.
pub(crate) fn lines(charts: &[Chart<'_>]) -> Result<String, Failure> {
    stacked(charts, SIZE, Chart::draw)
}

impl Chart<'_> {
    fn draw(&self, area: &Area<'_>) -> Result<(), Failure> {
        let lines: Vec<Vec<(f64, f64)>> = self.lines.iter().map(|line| self.shown(line)).collect();
        let all = || lines.iter().flatten();
        let range = |value: fn(&(f64, f64)) -> f64| {
            let low = all().map(value).fold(f64::INFINITY, f64::min);
            let high = all().map(value).fold(f64::NEG_INFINITY, f64::max);
            if low <= high { (low, high) } else { (1.0, 2.0) }
        };
        let ((left, right), (low, high)) = (range(|p| p.0), range(|p| p.1));
        let rounding = if self.log_y { 0.0 } else { 1e-9 * (high - low) };
        let whole = all().all(|(x, _)| x.fract() == 0.0);
        let steps = ((right - left) as usize).clamp(1, 10);
        let (left, right) = if right > left { (left, right) } else { (left - 0.5, left + 0.5) };
        let mut builder = ChartBuilder::on(area);
        builder
            .caption(self.title, (FONT, 18))
            .margin(12)
            .x_label_area_size(36)
            .y_label_area_size(80);
        // Two kinds of axis, two types of chart.
        macro_rules! draw_on {
            ($y:expr) => {{
                let mut chart = builder.build_cartesian_2d(left..right, $y).map_err(said)?;
                chart
                    .configure_mesh()
                    .x_desc(self.x_label)
                    .y_desc(self.y_label)
                    .x_labels(if whole { steps + 1 } else { 10 })
                    .x_label_formatter(&|&x| {
                        // Between whole numbers there is nothing.
                        if whole && x.fract() != 0.0 { String::new() } else { number(x, 0.0) }
                    })
                    .y_label_formatter(&|&y| number(y, rounding))
                    .label_style((FONT, 13))
                    // No lines between the labelled ones: they would be most of the file.
                    .max_light_lines(1)
                    .light_line_style(WHITE)
                    .draw()
                    .map_err(said)?;
                for (i, (line, points)) in self.lines.iter().zip(lines).enumerate() {
                    let colour = COLOURS[i % COLOURS.len()];
                    if points.len() <= MOST_DOTS {
                        let dots = points.iter().map(|&p| Circle::new(p, 3, colour.filled()));
                        chart.draw_series(dots).map_err(said)?;
                    }
                    chart
                        .draw_series(LineSeries::new(points, colour.stroke_width(2)))
                        .map_err(said)?
                        .label(line.name)
                        .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour));
                }
                if self.lines.len() > 1 {
                    chart
                        .configure_series_labels()
                        // What falls is not there.
                        .position(SeriesLabelPosition::UpperRight)
                        .background_style(WHITE.mix(0.8))
                        .border_style(BLACK)
                        .draw()
                        .map_err(said)?;
                }
            }};
        }
        if self.log_y {
            let (low, high) = with_a_mark(low / 1.5, high * 1.5);
            draw_on!((low..high).log_scale());
        } else {
            let least = LEAST_RANGE * low.abs().max(high.abs());
            let margin = if high > low { (0.05 * (high - low)).max(least) } else { least.max(0.5) };
            draw_on!(low - margin..high + margin);
        }
        Ok(())
    }

    /// The points of a line that are drawn, its last among them.
    fn shown(&self, line: &Line<'_>) -> Vec<(f64, f64)> {
        let drawn = |y: f64| if self.log_y { LOG_Y.contains(&y) } else { y.abs() <= MOST_Y };
        let fits = |&&(x, y): &&(f64, f64)| x.is_finite() && drawn(y);
        let points: Vec<(f64, f64)> = line.points.iter().filter(fits).copied().collect();
        let every = points.len().div_ceil(MOST_POINTS).max(1);
        let last = points.len().saturating_sub(1);
        points
            .into_iter()
            .enumerate()
            .filter(|&(i, _)| i % every == 0 || i == last)
            .map(|(_, point)| point)
            .collect()
    }
}

/// The ends of a logarithmic axis, moved apart where no power of ten, which are its marks, is between them.
fn with_a_mark(low: f64, high: f64) -> (f64, f64) {
    let below = low.log10().ceil() - 1.0;
    if high.log10() > below + 1.0 {
        return (low, high);
    }
    (10_f64.powf(below) / 1.5, 10_f64.powf(below + 1.0) * 1.5)
}

/// A label of an axis, short; 0 for what is only rounding.
fn number(y: f64, rounding: f64) -> String {
    if y.abs() <= rounding {
        "0".into()
    } else if (1e-3..1e6).contains(&y.abs()) {
        let text = format!("{y:.5}");
        text.trim_end_matches('0').trim_end_matches('.').into()
    } else {
        format!("{y:.1e}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(log_y: bool, points: Vec<(f64, f64)>) -> Chart<'static> {
        let lines = vec![Line { name: "a line", points }];
        Chart { title: "a title", x_label: "steps", y_label: "nats", log_y, lines }
    }

    #[test]
    fn charts_have_title_axes_and_lines() {
        let points: Vec<(f64, f64)> =
            (0..5000).map(|i| (f64::from(i), 1e3 / f64::from(i + 1))).collect();
        let text = lines(&[chart(false, points.clone()), chart(true, points)]).unwrap();
        for part in ["<svg", "a title", "steps", "nats", "<polyline", "</svg>", "\n2000\n"] {
            assert!(text.contains(part), "{part}");
        }
        assert_eq!(text.matches("a title").count(), 2);
        // Thinned out: a point takes about ten characters.
        assert!(text.len() < 60_000, "{}", text.len());
    }

    #[test]
    fn what_cannot_be_shown_is_left_out() {
        for log_y in [false, true] {
            let broken = vec![(0.0, f64::NAN), (1.0, f64::INFINITY), (2.0, 0.0), (3.0, 1.0)];
            lines(&[chart(log_y, broken)]).unwrap();
            lines(&[chart(log_y, Vec::new())]).unwrap();
            lines(&[chart(log_y, vec![(1.0, 7.0)])]).unwrap();
        }
    }

    /// The label of a mark is text between the tags.
    #[test]
    fn one_point_of_a_logarithmic_axis_has_a_mark() {
        for (y, mark) in
            [(2.0, "\n10\n"), (7.0, "\n10\n"), (4e-7, "\n1.0e-6\n"), (1e150, "\n1.0e150\n")]
        {
            let text = lines(&[chart(true, vec![(1.0, y)])]).unwrap();
            assert!(text.contains(mark), "{y}: {text}");
        }
    }

    #[test]
    fn runs_that_diverged_and_lines_that_hardly_move_are_drawn() {
        let next = 1e20_f64.next_up();
        for values in [
            [-1e308, 1e308, 1.0],
            [1e-308, 1.0, 1e308],
            [-1e300, 0.0, 1e300],
            [1e-150, 1.0, 1e150],
            [1e20, next, 1e20],
            [-1e20, -1e20, -1e20],
            [1.0, 1.0 + f64::EPSILON, 1.0],
        ] {
            for log_y in [false, true] {
                let points = values.iter().enumerate().map(|(x, &y)| (x as f64, y)).collect();
                let text = lines(&[chart(log_y, points)]).unwrap();
                assert!(!text.contains("NaN") && !text.contains("inf"), "{values:?}");
            }
        }
    }
}

//! Charts of histograms as step curves over a logarithmic axis.

use plotters::coord::combinators::IntoLogRange;
use plotters::prelude::*;

use super::{Area, FONT, said, stacked};
use crate::cli::Failure;
use crate::latency::LatencyBucket;

const SIZE: (u32, u32) = (900, 420);

/// Colours that can be told apart, also by those who see few of them.
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(90, 60, 150),
    RGBColor(0, 0, 0),
];

/// How much longer the axis is for the legend, as a share of what the curves take.
const LEGEND_SHARE: f64 = 0.5;

/// What is drawn of the logarithmic axis, in its unit.
const LOG_X: std::ops::RangeInclusive<f64> = 1e-6..=1e15;

/// Histograms over one x axis.
pub(crate) struct StepChart<'a> {
    pub(crate) title: &'a str,
    pub(crate) x_label: &'a str,
    pub(crate) y_label: &'a str,
    pub(crate) curves: Vec<Steps<'a>>,
}

/// A histogram.
pub(crate) struct Steps<'a> {
    name: &'a str,
    /// Lower end, upper end and height of buckets, ascending.
    buckets: Vec<(f64, f64, f64)>,
}

impl<'a> Steps<'a> {
    /// How many latencies there were, over microseconds.
    pub(crate) fn counts(name: &'a str, histogram: &[LatencyBucket]) -> Self {
        Self::scaled(name, histogram, 1.0)
    }

    /// What share of the latencies there were, in percent, over microseconds.
    pub(crate) fn shares(name: &'a str, histogram: &[LatencyBucket]) -> Self {
        let all: u64 = histogram.iter().map(|bucket| bucket.count).sum();
        Self::scaled(name, histogram, 100.0 / all.max(1) as f64)
    }

    fn scaled(name: &'a str, histogram: &[LatencyBucket], scale: f64) -> Self {
        let buckets = histogram
            .iter()
            // The axis has no 0.
            .map(|b| (b.from_us.max(*LOG_X.start()), b.to_us, b.count as f64 * scale))
            .filter(|(low, high, _)| low < high && LOG_X.contains(low) && LOG_X.contains(high))
            .collect();
        Self { name, buckets }
    }

    /// The outline: along the tops, down to 0 where a bucket is empty.
    fn outline(&self) -> Vec<(f64, f64)> {
        let mut points: Vec<(f64, f64)> = Vec::new();
        let mut end = f64::NAN;
        for &(low, high, height) in &self.buckets {
            if low > end || end.is_nan() {
                if !end.is_nan() {
                    points.push((end, 0.0));
                }
                points.push((low, 0.0));
            }
            points.extend([(low, height), (high, height)]);
            end = high;
        }
        if !end.is_nan() {
            points.push((end, 0.0));
        }
        points
    }
}

/// The charts, one below the other, as SVG.
pub(crate) fn steps(charts: &[StepChart<'_>]) -> Result<String, Failure> {
    stacked(charts, SIZE, StepChart::draw)
}

impl StepChart<'_> {
    fn draw(&self, area: &Area<'_>) -> Result<(), Failure> {
        let all = || self.curves.iter().flat_map(|curve| &curve.buckets);
        let left = all().map(|bucket| bucket.0).fold(f64::INFINITY, f64::min);
        let right = all().map(|bucket| bucket.1).fold(f64::NEG_INFINITY, f64::max);
        let (left, right) = if left < right { decades(left, right) } else { (1.0, 10.0) };
        // Room for the legend.
        let legend = if self.curves.len() > 1 { (right / left).powf(LEGEND_SHARE) } else { 1.0 };
        let top = all().map(|bucket| bucket.2).fold(0.0, f64::max);
        let top = if top > 0.0 { 1.05 * top } else { 1.0 };
        let mut chart = ChartBuilder::on(area)
            .caption(self.title, (FONT, 18))
            .margin(12)
            // For the half of the last label that is behind the axis.
            .margin_right(40)
            .x_label_area_size(36)
            .y_label_area_size(70)
            .build_cartesian_2d((left..right * legend).log_scale(), 0.0..top)
            .map_err(said)?;
        chart
            .configure_mesh()
            .x_desc(self.x_label)
            .y_desc(self.y_label)
            .x_label_formatter(&|&x| if is_labelled(x) { label(x) } else { String::new() })
            .y_label_formatter(&|&y| label(y))
            .label_style((FONT, 13))
            .max_light_lines(1)
            .light_line_style(WHITE)
            .draw()
            .map_err(said)?;
        for (index, curve) in self.curves.iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            chart
                .draw_series(LineSeries::new(curve.outline(), colour.stroke_width(2)))
                .map_err(said)?
                .label(curve.name)
                .legend(move |(x, y)| {
                    PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2))
                });
        }
        if self.curves.len() > 1 {
            chart
                .configure_series_labels()
                .position(SeriesLabelPosition::UpperRight)
                .background_style(WHITE.mix(0.8))
                .border_style(BLACK)
                .label_font((FONT, 13))
                .draw()
                .map_err(said)?;
        }
        Ok(())
    }
}

/// The powers of ten around a range: a logarithmic axis that has less than one of them has no marks.
fn decades(left: f64, right: f64) -> (f64, f64) {
    let (low, high) = (left.log10().floor(), right.log10().ceil());
    (10_f64.powf(low), 10_f64.powf(high.max(low + 1.0)))
}

/// Whether a mark of the axis is 1, 2 or 5 times a power of ten: more labels would run into each other.
fn is_labelled(x: f64) -> bool {
    let leading = x / 10_f64.powf(x.log10().floor());
    [1.0, 2.0, 5.0, 10.0].iter().any(|digit| (leading - digit).abs() < 1e-6)
}

/// A label of an axis, short.
fn label(value: f64) -> String {
    if value == 0.0 {
        "0".into()
    } else if (1e-3..1e7).contains(&value) {
        let text = format!("{value:.3}");
        text.trim_end_matches('0').trim_end_matches('.').into()
    } else {
        format!("{value:.0e}")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::latency::LatencyHistogram;

    fn histogram(us: impl IntoIterator<Item = u64>) -> Vec<LatencyBucket> {
        LatencyHistogram::of(us.into_iter().map(Duration::from_micros)).records()
    }

    #[test]
    fn an_outline_goes_down_between_buckets_that_do_not_touch() {
        let curve =
            Steps { name: "it", buckets: vec![(1.0, 2.0, 3.0), (2.0, 3.0, 1.0), (5.0, 6.0, 2.0)] };
        let expected = [
            (1.0, 0.0),
            (1.0, 3.0),
            (2.0, 3.0),
            (2.0, 1.0),
            (3.0, 1.0),
            (3.0, 0.0),
            (5.0, 0.0),
            (5.0, 2.0),
            (6.0, 2.0),
            (6.0, 0.0),
        ];
        assert_eq!(curve.outline(), expected);
    }

    #[test]
    fn axes_are_whole_decades_with_few_labels() {
        assert_eq!(decades(14.0, 95.0), (10.0, 100.0));
        assert_eq!(decades(0.5, 20.0), (0.1, 100.0));
        assert_eq!(decades(10.0, 10.0), (10.0, 100.0));
        let labelled: Vec<u32> = (1..=100).filter(|&x| is_labelled(x.into())).collect();
        assert_eq!(labelled, [1, 2, 5, 10, 20, 50, 100]);
    }

    #[test]
    fn charts_have_title_axes_curves_and_legend() {
        let (few, many) = (histogram([5, 5, 6]), histogram(1..2000));
        let curves = vec![Steps::shares("few of them", &few), Steps::shares("many", &many)];
        let shares: f64 = curves[0].buckets.iter().map(|bucket| bucket.2).sum();
        assert!((shares - 100.0).abs() < 1e-9, "{shares}");
        let text =
            steps(&[StepChart { title: "a title", x_label: "µs", y_label: "%", curves }]).unwrap();
        for part in
            ["<svg", "a title", "µs", "few of them", "many", "<polyline", "\n100\n", "</svg>"]
        {
            assert!(text.contains(part), "{part}");
        }
    }

    #[test]
    fn what_cannot_be_shown_is_left_out() {
        for latencies in [histogram([]), histogram([0]), histogram([u64::MAX / 1000])] {
            let curves = vec![Steps::counts("one", &latencies)];
            let chart = StepChart { title: "t", x_label: "x", y_label: "y", curves };
            let text = steps(&[chart]).unwrap();
            assert!(!text.contains("NaN") && !text.contains("inf"));
        }
    }
}

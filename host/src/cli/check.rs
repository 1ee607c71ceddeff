//! `kasmina check`: every kernel on random ragged shapes; and what it shares with the main job.

use std::time::Instant;

use comfy_table::{Attribute, Cell, CellAlignment, Color, Table};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::device::Choice;
use super::output::Json;
use super::{Failure, Status};
use crate::device::Device;
use crate::verify::{self, Check, Row, Source};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Where to run; without a GPU, `auto` is the executor
    #[arg(long, value_enum, default_value_t = Choice::Auto)]
    device: Choice,
    /// Only the rows whose name, such as `reduce_sum f32`, contains PATTERN; may be repeated
    #[arg(long, value_name = "PATTERN")]
    only: Vec<String>,
    /// The seed of shapes and values, to repeat a run [default: another one each time]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Shapes as small as under the executor: for a GPU under compute-sanitizer, which is a thousand times as slow
    #[arg(long)]
    small: bool,
    #[command(flatten)]
    json: Json,
}

/// A pattern that no row has in its name.
#[derive(Debug, thiserror::Error)]
#[error("--only {pattern:?} matches no row; there are: {}", .names.join(", "))]
struct NoSuchRow {
    pattern: String,
    names: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<Status, Failure> {
    let checks = select(verify::checks(), &arguments.only).map_err(Failure::usage)?;
    let seed = arguments.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    let run = Run {
        devices: devices_or_skip(arguments.device, &[Choice::Simt], &checks, &arguments.json)?,
        checks,
        source: if arguments.small { Source::small(seed) } else { Source::random(seed) },
        json: &arguments.json,
    };
    report(&run, &format!("random ragged shapes of --seed {seed}, against the f64 reference"))
}

/// The devices to run on; where there is none, every row is written for programs as skipped, with the
/// reason.
pub(super) fn devices_or_skip(
    choice: Choice,
    without_gpu: &[Choice],
    checks: &[Check],
    json: &Json,
) -> Result<Vec<Device>, Failure> {
    let refused = match choice.devices(without_gpu) {
        Ok(devices) => return Ok(devices),
        Err(refused) => refused,
    };
    let reason = refused.error.to_string();
    let rows = checks.iter().map(|check| check.skipped("cuda", &reason)).collect();
    json.write(&Report { device: "none", rows })?;
    Err(refused)
}

fn select(checks: Vec<Check>, only: &[String]) -> Result<Vec<Check>, NoSuchRow> {
    if only.is_empty() {
        return Ok(checks);
    }
    let plain = |name: &str| name.replace(' ', "_");
    let has = |check: &Check, pattern: &String| plain(&check.name()).contains(&plain(pattern));
    let missing = |pattern: &&String| !checks.iter().any(|check| has(check, pattern));
    if let Some(pattern) = only.iter().find(missing) {
        let names = checks.iter().map(Check::name).collect();
        return Err(NoSuchRow { pattern: pattern.clone(), names });
    }
    let mut selected = checks;
    selected.retain(|check| only.iter().any(|pattern| has(check, pattern)));
    Ok(selected)
}

/// Checks to run and where.
pub(super) struct Run<'a> {
    pub(super) devices: Vec<Device>,
    pub(super) checks: Vec<Check>,
    pub(super) source: Source,
    pub(super) json: &'a Json,
}

/// The result for programs. `device` is the first that ran; each row names its own.
#[derive(Serialize)]
struct Report {
    device: &'static str,
    rows: Vec<Row>,
}

/// Runs the checks, shows a table with one row for each, and writes the result for programs.
pub(super) fn report(run: &Run<'_>, what: &str) -> Result<Status, Failure> {
    let begun = Instant::now();
    let rows = run_checks(run);
    let seconds = begun.elapsed().as_secs_f64();
    let (mut passed, mut failed) = (0, 0);
    for row in &rows {
        passed += usize::from(row.status == verify::Status::Pass);
        failed += usize::from(row.failed());
    }

    run.json.say(table(run, &rows))?;
    for row in &rows {
        match &row.status {
            verify::Status::Fail { reason } | verify::Status::Skipped { reason } => {
                run.json
                    .say(format!("{} {} on {}: {reason}", row.kernel, row.dtype, row.device))?;
            }
            verify::Status::Pass => {}
        }
    }
    let places: Vec<_> =
        run.devices.iter().map(|device| format!("{} ({device})", device.name())).collect();
    let places = places.join(" and ");
    run.json.say(format!("{what}\non {places}"))?;
    run.json.say(format!(
        "{passed} passed, {failed} failed, {} skipped in {seconds:.1} s",
        rows.len() - passed - failed
    ))?;

    let device = run.devices.first().map_or("none", Device::name);
    run.json.write(&Report { device, rows })?;
    Ok(match (passed, failed) {
        (0, 0) => Status::Nothing,
        (_, 0) => Status::Pass,
        _ => Status::Fail,
    })
}

fn run_checks(run: &Run<'_>) -> Vec<Row> {
    // Hidden by indicatif where standard error is no terminal.
    let progress = ProgressBar::new((run.devices.len() * run.checks.len()) as u64);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}") {
        progress.set_style(style);
    }
    let mut rows = Vec::new();
    for device in &run.devices {
        for check in &run.checks {
            progress.set_message(format!("{} on {}", check.name(), device.name()));
            rows.push(check.run(device, &run.source));
            progress.inc(1);
        }
    }
    progress.finish_and_clear();
    rows
}

fn table(run: &Run<'_>, rows: &[Row]) -> Table {
    let header =
        ["kernel", "dtype", "device", "cases", "max error", "tolerance", "time", "GB/s", "verdict"];
    let mut table = run.json.table(header);
    for row in rows {
        let (verdict, colour) = match row.status {
            verify::Status::Pass => ("pass", Color::Green),
            verify::Status::Fail { .. } => ("FAIL", Color::Red),
            verify::Status::Skipped { .. } => ("skipped", Color::Yellow),
        };
        let time = row.timing.map(|timing| duration(timing.seconds));
        let rate = row.timing.map(|timing| rate(timing.gb_per_s()));
        table.add_row(vec![
            Cell::new(&row.kernel),
            Cell::new(row.dtype),
            Cell::new(row.device),
            number(row.cases),
            number(format!("{:.1e}", row.max_rel_error)),
            number(format!("{:.1e}", row.tolerance)),
            number(time.unwrap_or_else(|| "–".to_owned())),
            number(rate.unwrap_or_else(|| "–".to_owned())),
            Cell::new(verdict).fg(colour).add_attribute(Attribute::Bold),
        ]);
    }
    if rows.iter().all(|row| row.timing.is_none()) {
        for column in table.column_iter_mut().skip(6).take(2) {
            column.set_constraint(comfy_table::ColumnConstraint::Hidden);
        }
    }
    table
}

fn number(value: impl std::fmt::Display) -> Cell {
    Cell::new(value).set_alignment(CellAlignment::Right)
}

fn duration(seconds: f64) -> String {
    match seconds * 1e6 {
        us if us < 1e3 => format!("{us:.1} µs"),
        us if us < 1e6 => format!("{:.1} ms", us / 1e3),
        us => format!("{:.2} s", us / 1e6),
    }
}

fn rate(gb_per_s: f64) -> String {
    if gb_per_s < 10.0 { format!("{gb_per_s:.3}") } else { format!("{gb_per_s:.0}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_selects_by_kernel_and_dtype() {
        let names = |pattern: &str| {
            let selected = select(verify::checks(), &[pattern.to_owned()]).unwrap();
            selected.iter().map(Check::name).collect::<Vec<_>>()
        };
        assert_eq!(names("reduce_sum f64"), ["reduce_sum f64"]);
        assert_eq!(names("sum_bf16"), ["reduce_sum bf16"]);
        assert_eq!(names("blend_forward").len(), 9);
        assert_eq!(names("blend_forward_tma f16"), ["blend_forward_tma f16"]);
        assert_eq!(names("reduce").len(), 25 + 9);
        let both = select(verify::checks(), &["reduce_sum f64", "sum_bf16"].map(str::to_owned));
        assert_eq!(both.unwrap().len(), 2);
    }

    #[test]
    fn a_pattern_that_matches_nothing_lists_the_names() {
        let patterns = ["reduce_sum f64", "sums"].map(str::to_owned);
        let refused = select(verify::checks(), &patterns).err().unwrap().to_string();
        assert!(refused.contains("\"sums\"") && refused.contains("reduce_variance i32"));
    }

    #[test]
    fn times_and_rates_have_units_that_suit_them() {
        assert_eq!(duration(7.04e-6), "7.0 µs");
        assert_eq!(duration(0.0123), "12.3 ms");
        assert_eq!(duration(2.0), "2.00 s");
        assert_eq!((rate(3940.4), rate(0.0213)), ("3940".into(), "0.021".into()));
    }
}

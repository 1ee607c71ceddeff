//! `kasmina bench dispatch`.

use std::path::PathBuf;

use crate::bench::dispatch::{self, DispatchDocument, DispatchRow};
use crate::bench::report;
use crate::cli::device::Choice;
use crate::cli::output::{self, Json};
use crate::cli::plot::{self, StepChart, Steps};
use crate::cli::{Failure, Status};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Where to run; without a GPU what can run does
    #[arg(long, value_enum, default_value = "auto")]
    device: Choice,
    /// Fewer samples
    #[arg(long)]
    quick: bool,
    /// SVG file to write: what share of the samples took how long
    #[arg(long, value_name = "FILE")]
    histogram: Option<PathBuf>,
    #[command(flatten)]
    json: Json,
}

pub(super) fn run(arguments: &Arguments) -> Result<Status, Failure> {
    let json = &arguments.json;
    output::check_outputs(&[], json, &[("--histogram", arguments.histogram.as_deref())])?;
    let device = arguments.device.device()?;
    let progress = super::progress();
    let measured = dispatch::run(&device, arguments.quick, |case, index, cases| {
        progress.set_length(cases as u64);
        progress.set_position(index as u64);
        progress.set_message(case.to_owned());
    });
    progress.finish_and_clear();
    let document = measured?;
    if let Some(path) = &arguments.histogram {
        plot::write(path, &drawn(&document)?)?;
    }
    say(json, &document)?;
    json.write(&document)?;
    Ok(Status::Pass)
}

fn say(json: &Json, document: &DispatchDocument) -> Result<(), Failure> {
    let mut table = json.table([
        "case",
        "way",
        "device",
        "operations",
        "launches",
        "µs",
        "p10",
        "p90",
        "p99",
        "min",
        "max",
        "samples",
    ]);
    for row in &document.rows {
        table.add_row(cells(row));
    }
    json.say(report::summary(&document.header))?;
    json.say(table)?;
    json.say("µs of the host's clock from the call until the host knows that it is done; the median, and shares of the samples")?;
    for lacking in &document.not_run {
        json.say(format!("not run: {}, {}: {}", lacking.case, lacking.way, lacking.reason))?;
    }
    Ok(())
}

fn cells(row: &DispatchRow) -> [String; 12] {
    let us = |us: f64| format!("{us:.2}");
    let launches = match row.resident_launches {
        Some(all) => format!("{all} for all samples"),
        None => row.launches.to_string(),
    };
    [
        row.case.clone(),
        row.way.clone(),
        row.device.clone(),
        row.operations.to_string(),
        launches,
        us(row.median_us),
        us(row.p10_us),
        us(row.p90_us),
        us(row.p99_us),
        us(row.min_us),
        us(row.max_us),
        row.samples.to_string(),
    ]
}

/// A chart for each kind of work, a curve for each way.
fn drawn(document: &DispatchDocument) -> Result<String, Failure> {
    let mut titles: Vec<(&str, Vec<&DispatchRow>)> = Vec::new();
    for row in &document.rows {
        // What one item or word costs stands beside a single operation.
        let title = match row.case.as_str() {
            "sequence" => "A sequence of 170 operations, each of which needs the one before it",
            "three domains" => "An operation of each of three domains",
            _ => "A single operation, and what a trip to a resident kernel takes without one",
        };
        match titles.iter_mut().find(|(known, _)| *known == title) {
            Some((_, rows)) => rows.push(row),
            None => titles.push((title, vec![row])),
        }
    }
    let names: Vec<Vec<String>> = titles
        .iter()
        .map(|(_, rows)| {
            rows.iter().map(|row| format!("{}: {}, {}", row.case, row.way, row.device)).collect()
        })
        .collect();
    let charts: Vec<StepChart<'_>> = titles
        .iter()
        .zip(&names)
        .map(|((title, rows), names)| StepChart {
            title,
            x_label: "µs",
            y_label: "% of the samples",
            curves: rows
                .iter()
                .zip(names)
                .map(|(row, name)| Steps::shares(name, &row.histogram))
                .collect(),
        })
        .collect();
    plot::steps(&charts)
}

//! `kasmina te scan`.

use std::path::{Path, PathBuf};

use serde::Serialize;

use super::{Columns, Options, Record as Estimate, refusal};
use crate::cli::output::fixed;
use crate::cli::plot::{self, Chart, Line};
use crate::cli::{Failure, Status};
use crate::information::transfer_entropy::TransferEntropyResult;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    columns: Columns,
    /// The shortest delay
    #[arg(long, value_name = "N", default_value_t = 1)]
    min_delay: usize,
    /// The longest delay
    #[arg(long, value_name = "N", default_value_t = 10)]
    max_delay: usize,
    /// File to draw the line plot into
    #[arg(long, value_name = "FILE", default_value = "te-scan.svg")]
    svg: PathBuf,
    #[command(flatten)]
    options: Options,
}

/// The result for programs.
#[derive(Serialize)]
struct Record<'a> {
    source: &'a str,
    target: &'a str,
    conditions: &'a [String],
    delays: Vec<AtDelay>,
    svg: &'a Path,
}

#[derive(Serialize)]
struct AtDelay {
    delay: usize,
    #[serde(flatten)]
    estimate: Estimate,
}

pub(super) fn run(arguments: &Arguments) -> Result<Status, Failure> {
    let Arguments { columns, min_delay, max_delay, svg, options } = arguments;
    if min_delay > max_delay {
        return Err(Failure::usage(anyhow::anyhow!(
            "--min-delay {min_delay} is above --max-delay {max_delay}; give the shorter one first"
        )));
    }
    options.check_files(Some(svg))?;
    let device = options.device.device()?;
    let table = options.table()?;
    if *max_delay >= table.samples() {
        return Err(Failure::usage(anyhow::anyhow!(
            "--max-delay {max_delay} leaves no point of {} samples; take a shorter one",
            table.samples()
        )));
    }
    let series = columns.of(&table)?;
    let estimate = columns.condition(options.estimate());
    let delays: Vec<usize> = (*min_delay..=*max_delay).collect();
    let working = options.working(&device);
    let found = estimate.scan(&device, series.target, series.source, &series.conditions, &delays);
    working.finish_and_clear();
    let found = found.map_err(|error| refusal(error, |series| columns.called(series)))?;

    let json = &options.json;
    let (source, target) = (columns.source(), columns.target());
    let conditions = &columns.conditions[..];
    let given = if conditions.is_empty() {
        String::new()
    } else {
        format!(" given {}", conditions.join(", "))
    };
    json.say(format!("{source} → {target}{given}, K = {}, on {device}", options.k))?;
    let mut shown = json.table([""; 0]);
    let mut header = vec!["delay", "te (nats)", "points", "ties"];
    if options.surrogates > 0 {
        header.extend(["effective", "p"]);
    }
    shown.set_header(header);
    let mut records = Vec::new();
    for (&delay, found) in delays.iter().zip(&found) {
        let estimate = Estimate::new(found);
        let mut row = vec![
            delay.to_string(),
            fixed(estimate.te_nats, 6),
            estimate.points.to_string(),
            estimate.ties.to_string(),
        ];
        let said = [estimate.effective_te_nats, estimate.p_value];
        row.extend(said.into_iter().flatten().map(|value| fixed(value, 4)));
        shown.add_row(row);
        records.push(AtDelay { delay, estimate });
    }
    json.say(shown)?;
    let share = |found: &&TransferEntropyResult| found.ties as f64 / found.points as f64;
    if let Some(tied) = found.iter().max_by(|a, b| share(a).total_cmp(&share(b))) {
        options.warn_of_ties(tied)?;
    }
    let points: Vec<(f64, f64)> =
        delays.iter().zip(&found).map(|(&delay, found)| (delay as f64, found.te_nats)).collect();
    json.write(&Record { source, target, conditions, delays: records, svg })?;
    let picture = plot::lines(&[Chart {
        title: &format!("Transfer entropy, {source} → {target}{given}"),
        x_label: "delay (samples)",
        y_label: "nats",
        log_y: false,
        lines: vec![Line { name: "estimate", points }],
    }])?;
    plot::write(svg, &picture)?;
    json.say(format!("{}: the plot", svg.display()))?;
    Ok(Status::Pass)
}

//! `kasmina bench`.

mod dispatch;

use std::path::PathBuf;

use crate::bench::record::{Document, Row, shape_name};
use crate::bench::{self, BenchError, Options, peers, report};
use crate::cli::device::Choice;
use crate::cli::output::{self, Json};
use crate::cli::{Failure, Status};

#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Only cases with PATTERN in their name, such as `linear` or `reduce_sum f32`
    #[arg(value_name = "PATTERN")]
    patterns: Vec<String>,
    /// The same as an option; may be repeated
    #[arg(long, value_name = "PATTERN")]
    only: Vec<String>,
    /// Where to run; without a GPU small cases run, by the wall clock
    #[arg(long, value_enum, default_value = "auto")]
    device: Choice,
    /// Smaller arrays and fewer samples
    #[arg(long)]
    quick: bool,
    /// Add what the programs of benches/peers measured on the same GPU (their JSON lines)
    #[arg(long, value_name = "FILE")]
    peers: Option<PathBuf>,
    /// Measure nothing: make the tables of the documents in DIR, and put them into --into
    #[arg(long, value_name = "DIR", requires = "into", conflicts_with_all = ["patterns", "only", "quick", "peers"])]
    report: Option<PathBuf>,
    /// The Markdown file that --report writes its tables into, between their two markers
    #[arg(long, value_name = "FILE", requires = "report")]
    into: Option<PathBuf>,
    #[command(flatten)]
    json: Json,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Time what it costs to reach the device: launches, a CUDA graph, items of a resident kernel
    Dispatch(dispatch::Arguments),
}

pub(crate) fn run(arguments: &Arguments) -> Result<Status, Failure> {
    if let Some(Command::Dispatch(arguments)) = &arguments.command {
        return dispatch::run(arguments);
    }
    if let (Some(folder), Some(text)) = (&arguments.report, &arguments.into) {
        let updated = report::update(folder, text).map_err(Failure::usage)?;
        output::write_file(text, updated.as_bytes()).map_err(Failure::usage)?;
        return Ok(Status::Pass);
    }
    output::check_outputs(&[arguments.peers.as_deref()], &arguments.json, &[])?;
    // Read first: a run takes minutes.
    let peers = arguments.peers.as_deref().map(peers::read).transpose().map_err(Failure::usage)?;
    let device = arguments.device.device()?;
    let only = [&arguments.patterns[..], &arguments.only].concat();
    let options = Options { only, quick: arguments.quick };
    let progress = progress();
    let measured = bench::run(&device, &options, |case, index, cases| {
        progress.set_length(cases as u64);
        progress.set_position(index as u64);
        progress.set_message(case.to_owned());
    });
    progress.finish_and_clear();
    let mut document = measured.map_err(|error| match error {
        error @ BenchError::NoCase { .. } => Failure::usage(error),
        error => error.into(),
    })?;
    if let Some(peers) = peers {
        peers.merge_into(&mut document).map_err(Failure::usage)?;
    }
    show(arguments, &document)?;
    arguments.json.write(&document)?;
    Ok(if document.refused.is_empty() { Status::Pass } else { Status::Fail })
}

fn progress() -> indicatif::ProgressBar {
    let style = indicatif::ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}")
        .expect("the template names known fields");
    indicatif::ProgressBar::new(0).with_style(style)
}

fn show(arguments: &Arguments, document: &Document) -> Result<(), Failure> {
    let mut table = arguments.json.table([
        "kernel",
        "dtype",
        "shape",
        "case",
        "timed",
        "µs",
        "min",
        "max",
        "GB/s",
        "% of copy",
        "% of floor",
        "clock of the SMs, power",
        "peers",
    ]);
    for row in &document.rows {
        table.add_row(cells(row));
    }
    arguments.json.say(report::summary(&document.header))?;
    arguments.json.say(table)?;
    for refused in &document.refused {
        arguments.json.say(format!("not timed: {}: {}", refused.case, refused.reason))?;
    }
    Ok(())
}

fn cells(row: &Row) -> [String; 13] {
    let percent = |value: Option<f64>| value.map_or("–".into(), |value| format!("{value:.1}"));
    [
        row.kernel.clone(),
        row.dtype.clone(),
        shape_name(&row.shape),
        row.variant.clone(),
        format!("{}, {}", row.mode, row.cache),
        format!("{:.2}", row.median_us),
        format!("{:.2}", row.min_us),
        format!("{:.2}", row.max_us),
        report::rate(row.gb_per_s),
        percent(row.percent_of_copy),
        percent(row.percent_of_floor),
        report::clocks(row),
        row.peers.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    ]
}

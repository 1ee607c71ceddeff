//! `kasmina te`: transfer entropy between columns of a CSV file.

mod matrix;
mod scan;

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use super::device::Choice;
use super::output::{Json, check_files, fixed};
use super::{Failure, Status};
use crate::device::Device;
use crate::error::Error;
use crate::information::TransferEntropy;
use crate::information::transfer_entropy::{
    Algorithm, Precision, SeriesTable, SurrogateKind, TransferEntropyResult, Transform,
};

#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pair: Pair,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// All ordered pairs of columns, with a heatmap
    Matrix(matrix::Arguments),
    /// One pair at many delays, with a line plot
    Scan(scan::Arguments),
}

/// From one column to another.
#[derive(clap::Args)]
#[group(skip)]
struct Pair {
    #[command(flatten)]
    columns: Columns,
    /// Samples from the newest value of the source's past to the target's next
    #[arg(long, value_name = "N", default_value_t = 1)]
    delay: usize,
    #[command(flatten)]
    options: Options,
}

/// The columns of a pair.
#[derive(clap::Args)]
#[group(skip)]
struct Columns {
    /// Column whose past may tell something
    #[arg(long, value_name = "COLUMN", required = true)]
    source: Option<String>,
    /// Column that it may tell something of
    #[arg(long, value_name = "COLUMN", required = true)]
    target: Option<String>,
    /// Columns whose last values are given as well, such as `z,w`
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',')]
    conditions: Vec<String>,
}

/// What all estimates have.
#[derive(clap::Args)]
#[group(skip)]
struct Options {
    /// CSV file with a header line and a column for each series
    #[arg(long, value_name = "FILE", required = true)]
    input: Option<PathBuf>,
    /// Neighbours
    #[arg(long, value_name = "K", default_value_t = 4, allow_negative_numbers = true)]
    k: usize,
    /// Values of the target's past
    #[arg(long, value_name = "N", default_value_t = 1)]
    target_history: usize,
    /// Values of the source's past
    #[arg(long, value_name = "N", default_value_t = 1)]
    source_history: usize,
    /// Points up to so many samples before or after a point are no neighbours of it
    #[arg(long, value_name = "N", default_value_t = 0)]
    theiler: usize,
    /// Estimator of Kraskov, Stögbauer and Grassberger
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=2), default_value_t = 1)]
    algorithm: u8,
    /// Surrogates to compare with
    #[arg(long, value_name = "N", default_value_t = 0)]
    surrogates: u32,
    /// How the rows of the source's past are mixed in a surrogate
    #[arg(long, value_enum, default_value_t = Kind::Permute)]
    surrogate_kind: Kind,
    /// Seed of surrogates and noise
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    seed: u64,
    /// What distances are taken in
    #[arg(long, value_enum, default_value_t = Distances::F32)]
    precision: Distances,
    /// What is done to each series first: series with a trend are not for this estimator
    #[arg(long, value_enum, default_value_t = Change::None)]
    transform: Change,
    /// Bring each series to mean 0 and standard deviation 1 first
    #[arg(long)]
    standardize: bool,
    /// Add Gaussian noise of so many standard deviations of each series, such as 1e-8
    #[arg(long, value_name = "AMPLITUDE", allow_negative_numbers = true)]
    noise: Option<f64>,
    /// Where to run; without a GPU, `auto` is the CPU
    #[arg(long, value_enum, default_value_t = Choice::Auto)]
    device: Choice,
    #[command(flatten)]
    json: Json,
}

/// What `--surrogate-kind` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Each row goes anywhere
    Permute,
    /// All rows rotate together
    Rotate,
    /// Blocks of √points rows go anywhere; in a scan, of the fewest points of a delay
    Block,
}

/// What `--precision` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Distances {
    /// Single precision
    F32,
    /// Double precision
    F64,
}

/// What `--transform` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Change {
    /// Nothing
    None,
    /// x_t − x_{t−1}
    Difference,
    /// ln(x_t / x_{t−1}), of values above 0
    Growth,
}

/// The result of a pair for programs; what surrogates say is null without them.
#[derive(Serialize)]
struct Record {
    te_nats: f64,
    points: usize,
    k: usize,
    effective_te_nats: Option<f64>,
    p_value: Option<f64>,
    surrogate_mean: Option<f64>,
    /// Null for one surrogate, too.
    surrogate_std: Option<f64>,
    ties: usize,
    device: &'static str,
}

impl Record {
    fn new(found: &TransferEntropyResult) -> Self {
        let said = found.significance.as_ref();
        Self {
            te_nats: found.te_nats,
            points: found.points,
            k: found.k,
            effective_te_nats: said.map(|said| said.effective_te_nats),
            p_value: said.map(|said| said.p_value),
            surrogate_mean: said.map(|said| said.mean),
            surrogate_std: said.map(|said| said.std).filter(|std| std.is_finite()),
            ties: found.ties,
            device: found.device,
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<Status, Failure> {
    match &arguments.command {
        Some(Command::Matrix(arguments)) => matrix::run(arguments),
        Some(Command::Scan(arguments)) => scan::run(arguments),
        None => run_pair(&arguments.pair),
    }
}

fn run_pair(arguments: &Pair) -> Result<Status, Failure> {
    let Pair { columns, delay, options } = arguments;
    options.check_files(None)?;
    let device = options.device.device()?;
    let table = options.table()?;
    let series = columns.of(&table)?;
    let estimate = columns.condition(options.estimate().delay(*delay));
    let working = options.working(&device);
    let found = estimate.estimate_given(&device, series.target, series.source, &series.conditions);
    working.finish_and_clear();
    let found = found.map_err(|error| refusal(error, |series| columns.called(series)))?;

    let (json, source, target) = (&options.json, columns.source(), columns.target());
    let conditions = &columns.conditions;
    let given = if conditions.is_empty() {
        String::new()
    } else {
        format!(" given {}", conditions.join(", "))
    };
    json.say(format!(
        "{source} → {target}{given}: {} nats, {} points, K = {}, on {device}",
        fixed(found.te_nats, 6),
        found.points,
        found.k
    ))?;
    if let Some(said) = &found.significance {
        let spread = if said.std.is_finite() {
            format!(", standard deviation {:.6}", said.std)
        } else {
            String::new()
        };
        json.say(format!(
            "surrogates: {}; mean {}{spread}; effective {} nats, p = {:.4}",
            options.surrogates,
            fixed(said.mean, 6),
            fixed(said.effective_te_nats, 6),
            said.p_value
        ))?;
    }
    options.warn_of_ties(&found)?;
    json.write(&Record::new(&found))?;
    Ok(Status::Pass)
}

/// Series and options that do not fit are the caller's; all else is a failure. `column` knows the column of a series
/// by what the library calls it.
fn refusal(error: Error, column: impl Fn(&str) -> Option<String>) -> Failure {
    match error {
        Error::TransferEntropy(mut error) => {
            if let Some(series) = error.series_mut()
                && let Some(column) = column(series)
            {
                *series = column;
            }
            Failure::usage(Error::TransferEntropy(error))
        }
        error @ Error::TooLarge { .. } => Failure::usage(error),
        error => error.into(),
    }
}

/// The series of a pair.
struct PairSeries<'a> {
    target: ndarray::ArrayView1<'a, f64>,
    source: ndarray::ArrayView1<'a, f64>,
    conditions: Vec<ndarray::ArrayView1<'a, f64>>,
}

/// What clap requires, but for a subcommand, which has its own.
const REQUIRED: &str = "the command line has it";

/// A column tells itself nothing: whoever names one twice means another.
fn refuse_repeated<'a>(names: impl Iterator<Item = &'a str>) -> Result<(), Failure> {
    let mut seen = Vec::new();
    for name in names {
        if seen.contains(&name) {
            return Err(Failure::usage(anyhow::anyhow!(
                "column `{name}` is named twice, as source and target or as two series; name two columns"
            )));
        }
        seen.push(name);
    }
    Ok(())
}

/// The name with the number that `series` has after `prefix`.
fn numbered(series: &str, prefix: &str, names: &[String]) -> Option<String> {
    let number: usize = series.strip_prefix(prefix)?.trim_start().parse().ok()?;
    names.get(number).cloned()
}

impl Columns {
    fn source(&self) -> &str {
        self.source.as_deref().expect(REQUIRED)
    }

    fn target(&self) -> &str {
        self.target.as_deref().expect(REQUIRED)
    }

    /// The column of a series of the library's.
    fn called(&self, series: &str) -> Option<String> {
        match series {
            "source" => self.source.clone(),
            "target" => self.target.clone(),
            _ => numbered(series, "condition", &self.conditions),
        }
    }

    fn of<'a>(&self, table: &'a SeriesTable) -> Result<PairSeries<'a>, Failure> {
        refuse_repeated([self.target(), self.source()].into_iter())?;
        let column = |name| table.column(name).map_err(Failure::usage);
        let conditions = self.conditions.iter().map(|name| column(name));
        Ok(PairSeries {
            target: column(self.target())?,
            source: column(self.source())?,
            conditions: conditions.collect::<Result<_, _>>()?,
        })
    }

    /// The options with a condition for each column: its last value before the target's next.
    fn condition(&self, options: TransferEntropy) -> TransferEntropy {
        self.conditions.iter().fold(options, |options, _| options.condition(1, 1))
    }
}

impl Options {
    fn input(&self) -> &Path {
        self.input.as_deref().expect(REQUIRED)
    }

    fn check_files(&self, svg: Option<&Path>) -> Result<(), Failure> {
        check_files(self.input(), &self.json, svg)
    }

    fn table(&self) -> Result<SeriesTable, Failure> {
        let transform = match self.transform {
            Change::None => Transform::None,
            Change::Difference => Transform::Difference,
            Change::Growth => Transform::Growth,
        };
        SeriesTable::read(self.input(), transform).map_err(Failure::usage)
    }

    fn estimate(&self) -> TransferEntropy {
        let options = TransferEntropy::new()
            .k(self.k)
            .target_history(self.target_history)
            .source_history(self.source_history)
            .theiler(self.theiler)
            .algorithm(if self.algorithm == 2 { Algorithm::Two } else { Algorithm::One })
            .surrogates(self.surrogates)
            .seed(self.seed)
            .standardize(self.standardize)
            .precision(match self.precision {
                Distances::F32 => Precision::F32,
                Distances::F64 => Precision::F64,
            });
        let options = match self.noise {
            Some(amplitude) => options.noise(amplitude),
            None => options,
        };
        match self.surrogate_kind {
            Kind::Permute => options.surrogate_kind(SurrogateKind::Permute),
            Kind::Rotate => options.surrogate_kind(SurrogateKind::Rotate),
            Kind::Block => options.surrogate_blocks(),
        }
    }

    /// What shows that work goes on; hidden where standard error is no terminal.
    fn working(&self, device: &Device) -> ProgressBar {
        let style = ProgressStyle::with_template("{spinner} {msg} ({elapsed})")
            .unwrap_or_else(|_| ProgressStyle::default_spinner());
        let working = ProgressBar::new_spinner().with_style(style);
        let surrogates = self.surrogates;
        working.set_message(format!("transfer entropy with {surrogates} surrogates on {device}"));
        working.enable_steady_tick(Duration::from_millis(100));
        working
    }

    fn warn_of_ties(&self, found: &TransferEntropyResult) -> Result<(), Failure> {
        if !found.has_many_ties() {
            return Ok(());
        }
        let TransferEntropyResult { ties, points, .. } = found;
        self.json.say(format!(
            "warning: at {ties} of {points} points distances are tied; the estimator is made for continuous values{}",
            self.against_ties()
        ))
    }

    /// What may part tied distances, and was not asked for.
    fn against_ties(&self) -> &'static str {
        match (self.noise, self.precision) {
            (None, _) => "; --noise 1e-8 with --precision f64 parts values that are equal",
            (Some(_), Distances::F32) => "; --precision f64 parts what f32 makes equal",
            (Some(_), Distances::F64) => "",
        }
    }
}

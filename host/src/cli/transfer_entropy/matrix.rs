//! `kasmina te matrix`.

use std::path::{Path, PathBuf};

use ndarray::{Array2, ArrayView2};
use serde::Serialize;

use super::{Options, numbered, refusal, refuse_repeated};
use crate::cli::output::fixed;
use crate::cli::plot::{self, Heatmap};
use crate::cli::{Failure, Status};
use crate::information::transfer_entropy::TransferEntropyMatrix;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Columns to take; otherwise all that hold numbers alone and are neither constant nor a count of the lines
    #[arg(long, value_name = "COLUMNS", value_delimiter = ',')]
    columns: Vec<String>,
    /// Samples from the newest value of the source's past to the target's next
    #[arg(long, value_name = "N", default_value_t = 1)]
    delay: usize,
    /// File to draw the heatmap into
    #[arg(long, value_name = "FILE", default_value = "te-matrix.svg")]
    svg: PathBuf,
    #[command(flatten)]
    options: Options,
}

/// The result for programs: a row for each source, a column for each target, null on the diagonal.
#[derive(Serialize)]
struct Record<'a> {
    series: &'a [String],
    te_nats: Rows,
    effective_te_nats: Option<Rows>,
    p_values: Option<Rows>,
    ties: Vec<Vec<Option<usize>>>,
    points: usize,
    k: usize,
    device: &'static str,
    svg: &'a Path,
}

type Rows = Vec<Vec<Option<f64>>>;

pub(super) fn run(arguments: &Arguments) -> Result<Status, Failure> {
    let Arguments { columns, delay, svg, options } = arguments;
    options.check_files(Some(svg))?;
    let device = options.device.device()?;
    let table = options.table()?;
    let series = table.series();
    let names = table.names().iter().map(String::as_str);
    let others = names.filter(|name| !series.contains(name)).collect::<Vec<_>>().join(", ");
    if columns.is_empty() && !others.is_empty() {
        options.json.say(format!(
            "left out, for they have other than finite numbers, are constant or count the lines: {others}"
        ))?;
    }
    let names: Vec<String> = if columns.is_empty() {
        series.into_iter().map(str::to_owned).collect()
    } else {
        columns.clone()
    };
    refuse_repeated(names.iter().map(String::as_str))?;
    let mut series = Array2::zeros((names.len(), table.samples()));
    for (mut row, name) in series.rows_mut().into_iter().zip(&names) {
        row.assign(&table.column(name).map_err(Failure::usage)?);
    }
    let estimate = options.estimate().delay(*delay);
    let working = options.working(&device);
    let found = estimate.matrix(&device, series.view());
    working.finish_and_clear();
    let found = found.map_err(|error| refusal(error, |series| numbered(series, "row", &names)))?;

    let json = &options.json;
    let table = |values: ArrayView2<'_, f64>| {
        let header: Vec<String> =
            std::iter::once("from \\ to".to_owned()).chain(names.iter().cloned()).collect();
        let mut shown = json.table([""; 0]);
        shown.set_header(header);
        for (name, row) in names.iter().zip(values.rows()) {
            let cells =
                row.iter().map(|te| if te.is_nan() { String::new() } else { fixed(*te, 4) });
            shown.add_row(std::iter::once(name.clone()).chain(cells));
        }
        shown
    };
    json.say(format!(
        "transfer entropy in nats, {} points, K = {}, on {device}",
        found.points, found.k
    ))?;
    json.say(table(found.te_nats.view()))?;
    if let Some(p_values) = &found.p_values {
        json.say("p-values, of each pair by itself: there are as many tests as pairs")?;
        json.say(table(p_values.view()))?;
    }
    let most = found.ties.iter().max().copied().unwrap_or(0);
    if most * 20 > found.points {
        json.say(format!(
            "warning: of a pair, at up to {most} of {} points distances are tied{}",
            found.points,
            options.against_ties()
        ))?;
    }
    json.write(&Record {
        series: &names,
        te_nats: rows(found.te_nats.view()),
        effective_te_nats: found.effective_te_nats.as_ref().map(|values| rows(values.view())),
        p_values: found.p_values.as_ref().map(|values| rows(values.view())),
        ties: ties(&found),
        points: found.points,
        k: found.k,
        device: found.device,
        svg,
    })?;
    let most = found.te_nats.iter().copied().filter(|te| te.is_finite()).fold(0.0, f64::max);
    let picture = Heatmap {
        title: &format!("Transfer entropy, up to {most:.4} nats"),
        from: "source",
        to: "target",
        names: &names,
        values: found.te_nats.view(),
    };
    plot::write(svg, &picture.svg()?)?;
    json.say(format!("{}: the heatmap", svg.display()))?;
    Ok(Status::Pass)
}

fn rows(values: ArrayView2<'_, f64>) -> Rows {
    let finite = |value: &f64| value.is_finite().then_some(*value);
    values.rows().into_iter().map(|row| row.iter().map(finite).collect()).collect()
}

fn ties(found: &TransferEntropyMatrix) -> Vec<Vec<Option<usize>>> {
    let of = |from, (to, &ties): (usize, &usize)| (from != to).then_some(ties);
    let rows = found.ties.rows().into_iter().enumerate();
    rows.map(|(from, row)| row.iter().enumerate().map(|at| of(from, at)).collect()).collect()
}

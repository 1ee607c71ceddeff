//! `cargo xtask doctor`: the tools of a kernel build, found or how to get them.

use comfy_table::Table;
use kasmina_kernel_builder::{Finding, probe};

use crate::error::XtaskError;

/// Prints one row a tool.
pub(crate) fn run() -> Result<(), XtaskError> {
    let mut table = Table::new();
    table.set_header(["tool", "state", "detail"]);
    for one in probe() {
        let (state, detail) = match one.finding {
            Finding::Found(detail) => ("found", detail),
            Finding::Missing(mend) => ("missing", mend),
        };
        table.add_row([one.item.to_owned(), state.to_owned(), detail]);
    }
    println!("{table}");
    Ok(())
}

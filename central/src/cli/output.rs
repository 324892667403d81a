//! What commands print.

use edge_hub::logging;
use edge_hub::terminal::{Output, Table};

/// In columns on a terminal, with tabs for programs.
pub(super) fn print_table(table: &Table) {
    logging::print(&match Output::of_stdout() {
        Output::Plain => table.with_tabs(),
        terminal => table.aligned(terminal),
    });
}

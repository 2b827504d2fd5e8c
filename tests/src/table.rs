//! Plain tables for the terminal.

use comfy_table::{Row, Table, presets};

/// An empty table with a header, without frames.
pub fn new(header: impl Into<Row>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    table
}

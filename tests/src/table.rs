//! Plain tables for the terminal.

use comfy_table::{Table, presets};

/// An empty table with a header, without frames.
pub fn new<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header);
    table
}

//! Standard output: lines, tables, progress.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};

/// How results are shown.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub(crate) struct OutputOptions {
    /// Print one JSON object per line and nothing else on standard output
    #[arg(long)]
    pub(crate) json: bool,
    /// Take and print keys and values as base64, for bytes that are no text
    #[arg(long)]
    pub(crate) base64: bool,
}

/// Writes a line to standard output and flushes it. If nobody reads any more, there is nothing left to do: the process
/// ends, as any filter in a pipe does.
pub(crate) fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.write_all(b"\n"));
    if written.and_then(|()| out.flush()).is_err() {
        std::process::exit(1);
    }
}

/// A table for people: aligned columns, a bold heading on a terminal.
pub(crate) struct Columns {
    table: Table,
}

impl Columns {
    /// A table with these headings. One that begins with `>` is of a column of numbers, aligned to the right.
    pub(crate) fn new(headings: &[&str]) -> Columns {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        let bold = |heading: &&str| Cell::new(heading.trim_start_matches('>')).add_attribute(Attribute::Bold);
        table.set_header(headings.iter().map(bold));
        for (index, heading) in headings.iter().enumerate() {
            if let Some(column) = table.column_mut(index) {
                column.set_padding((0, 2));
                if heading.starts_with('>') {
                    column.set_cell_alignment(CellAlignment::Right);
                }
            }
        }
        Columns { table }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = impl Into<Cell>>) {
        self.table.add_row(cells.into_iter().map(Into::into).collect::<Vec<Cell>>());
    }

    /// The table as text, without blanks at the ends of lines.
    pub(crate) fn text(&self) -> String {
        self.table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
    }
}

/// A cell that is green if all is well and red or yellow if not, on a terminal.
pub(crate) fn judged(text: impl ToString, well: bool) -> Cell {
    let cell = Cell::new(text);
    if well { cell.fg(Color::Green) } else { cell.fg(Color::Red) }
}

/// A bar on standard error, if that is a terminal; otherwise nothing. `length` is in bytes.
pub(crate) fn bytes_bar(length: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(length);
    let template = "{bar:30} {bytes}/{total_bytes}  {msg}  {eta} left";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar
}

/// A bar on standard error that fills with the seconds of a span.
pub(crate) fn time_bar(span: Duration) -> ProgressBar {
    let bar = ProgressBar::new(span.as_secs());
    if let Ok(style) = ProgressStyle::with_template("{bar:20} {pos}/{len} s  {wide_msg}") {
        bar.set_style(style);
    }
    bar
}

/// A small bar within a line of text.
pub(crate) fn gauge(done: u64, all: u64) -> String {
    const WIDTH: u64 = 20;
    let filled = (WIDTH * done.min(all) / all.max(1)) as usize;
    format!("[{}{}]", "#".repeat(filled), ".".repeat(WIDTH as usize - filled))
}

/// A line on standard error that shows that something is going on, if that is a terminal.
pub(crate) fn spinner(message: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner().with_message(message.to_owned());
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_end_where_they_end() {
        let mut columns = Columns::new(&["node", ">slots", "zone"]);
        columns.row(["n1", "9830", "default"]);
        columns.row(["node-2", "7", ""]);
        assert_eq!(columns.text(), "node    slots  zone\nn1       9830  default\nnode-2      7");
    }
}

//! Columns for people: as wide as they need to be, numbers to the right.

use std::io::{self, Write};

/// See the module.
#[derive(Debug)]
pub(crate) struct Table {
    /// Names; those that begin with `>` are numbers.
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(head: &[&str]) -> Self {
        Self { head: head.iter().map(|&h| h.to_owned()).collect(), rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, row: Vec<String>) {
        self.rows.push(row);
    }

    pub(crate) fn print(&self, out: &mut impl Write) -> io::Result<()> {
        let names: Vec<String> = self.head.iter().map(|h| h.trim_start_matches('>').to_owned()).collect();
        let width = |column: usize| {
            let cells = self.rows.iter().chain([&names]).filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..names.len()).map(width).collect();
        for row in [&names].into_iter().chain(&self.rows) {
            let mut line = String::new();
            for ((cell, width), head) in row.iter().zip(&widths).zip(&self.head) {
                let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
                let (left, right) =
                    if head.starts_with('>') { (padding.as_str(), "") } else { ("", padding.as_str()) };
                line.push_str(&format!("{left}{cell}{right}  "));
            }
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns() {
        let mut table = Table::new(&["topic", ">bytes"]);
        table.row(vec!["orders".into(), "5".into()]);
        table.row(vec!["ä".into(), "1,000,000".into()]);
        let mut out = Vec::new();
        table.print(&mut out).unwrap();
        let expected = "topic       bytes\norders          5\nä       1,000,000\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}

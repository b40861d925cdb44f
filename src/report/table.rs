//! Aligned `name: value` lines for people.
//!
//! Values come from a source that may be hostile. Hidden characters are escaped, so that a key cannot control the
//! terminal. Must not know what the lines mean.

use std::fmt;

use crate::display::printable;

/// A list of names and values, aligned when printed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    lines: Vec<(String, String)>,
}

impl Table {
    /// Creates an empty table.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Adds a line; an empty name continues the previous line.
    pub(crate) fn line(&mut self, name: &str, value: impl fmt::Display) {
        self.lines.push((name.into(), printable(&value.to_string())));
    }

    /// Adds a line if there is a value.
    pub(crate) fn maybe(&mut self, name: &str, value: Option<impl fmt::Display>) {
        if let Some(value) = value {
            self.line(name, value);
        }
    }

    /// Adds a line if the count is not 0.
    pub(crate) fn count(&mut self, name: &str, count: u64) {
        if count > 0 {
            self.line(name, count);
        }
    }

    /// The lines with at most `columns` columns. Longer values continue on the next line, and a long single word
    /// follows its name directly. A word is never broken.
    pub(crate) fn wrapped(&self, columns: usize) -> String {
        let width = self.name_width();
        let room = columns.saturating_sub(width + 2);
        let mut text = String::new();
        for (name, value) in &self.lines {
            let mut words = value.split(' ');
            let mut line = words.next().unwrap_or_default().to_string();
            let one_word = line.len() == value.len() && line.chars().count() > room;
            text.push_str(&start(name, if one_word { 0 } else { width }));
            for word in words {
                if !line.trim().is_empty() && line.chars().count() + 1 + word.chars().count() > room {
                    text.push_str(&format!("{}\n{}", std::mem::take(&mut line), start("", width)));
                } else {
                    line.push(' ');
                }
                line.push_str(word);
            }
            text.push_str(&format!("{line}\n"));
        }
        text
    }

    /// The columns of the longest name and its colon.
    fn name_width(&self) -> usize {
        self.lines.iter().map(|(name, _)| name.chars().count() + 1).max().unwrap_or(0)
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.name_width();
        for (name, value) in &self.lines {
            writeln!(f, "{}{value}", start(name, width))?;
        }
        Ok(())
    }
}

fn start(name: &str, width: usize) -> String {
    let name = if name.is_empty() { String::new() } else { format!("{name}:") };
    format!("{name:width$}  ")
}

/// Rows of cells in columns.
pub(crate) fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let of_column = |at: usize| rows.iter().filter_map(move |row| row.get(at)).map(|cell| cell.chars().count());
    let widths: Vec<usize> = (0..columns).map(|at| of_column(at).max().unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_aligned_and_harmless() {
        let mut table = Table::new();
        table.line("kind", "snap-file");
        table.line("v2 index", 12);
        table.line("", "a\x1b[2Jb\nc");
        table.maybe("commit", None::<u64>);
        assert_eq!(table.to_string(), "kind:      snap-file\nv2 index:  12\n           a\\u{1b}[2Jb\\nc\n");
    }

    #[test]
    fn long_values_continue_on_the_next_line() {
        let mut table = Table::new();
        table.line("a", "one two three");
        table.line("bb", "averylongword x");
        table.line("c", "  two spaces");
        assert_eq!(table.wrapped(80), table.to_string());
        let expected = "a:   one\n     two\n     three\nbb:  averylongword\n     x\nc:     two\n     spaces\n";
        assert_eq!(table.wrapped(10), expected);
    }
}

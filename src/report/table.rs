//! Aligned `name: value` lines for people.
//!
//! Values may come from a hostile source. Hidden characters are escaped, so that a key cannot control the terminal. Must not know
//! what the lines mean.

use std::fmt;

use crate::display::printable;

/// A list of names and values, aligned when printed.
#[derive(Debug, Clone, Default)]
pub struct Table {
    lines: Vec<(String, String)>,
}

impl Table {
    /// Creates an empty table.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a line; an empty name continues the line above.
    pub fn line(&mut self, name: &str, value: impl fmt::Display) {
        self.lines.push((name.into(), printable(&value.to_string())));
    }

    /// Adds a line if there is a value.
    pub fn maybe(&mut self, name: &str, value: Option<impl fmt::Display>) {
        if let Some(value) = value {
            self.line(name, value);
        }
    }

    /// Adds a line if the count is not 0.
    pub fn count(&mut self, name: &str, count: u64) {
        if count > 0 {
            self.line(name, count);
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.lines.iter().map(|(name, _)| name.chars().count() + 1).max().unwrap_or(0);
        for (name, value) in &self.lines {
            let name = if name.is_empty() { String::new() } else { format!("{name}:") };
            writeln!(f, "{name:width$}  {value}")?;
        }
        Ok(())
    }
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
}

//! Aligned `name: value` lines for people.
//!
//! Values come from a source that may be hostile: hidden characters are printed escaped, so that a key cannot write to the
//! terminal. Knows nothing of what the lines mean.

use std::fmt;

use crate::count;
pub use crate::count::counted;
pub use crate::display::{printable, short};

/// Lines of a name and a value, aligned when printed.
#[derive(Debug, Clone, Default)]
pub struct Table {
    lines: Vec<(String, String)>,
}

impl Table {
    /// A table without lines.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a line; an empty name continues the line above.
    pub fn line(&mut self, name: &str, value: impl fmt::Display) {
        self.lines.push((name.into(), printable(&value.to_string())));
    }

    /// Adds a line where there is a value.
    pub fn maybe(&mut self, name: &str, value: Option<impl fmt::Display>) {
        if let Some(value) = value {
            self.line(name, value);
        }
    }

    /// Adds a line where there is something to count.
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

/// A size as people read it: `1536 bytes (1.5 KiB)`.
pub fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = "bytes";
    for larger in ["KiB", "MiB", "GiB", "TiB", "PiB"] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    if unit == "bytes" { count::bytes(bytes) } else { format!("{bytes} bytes ({value:.1} {unit})") }
}

/// The first few of a list of names: `a, b and 7 more`.
pub fn first_of(names: &[String]) -> String {
    const SHOWN: usize = 10;
    let shown = names.iter().take(SHOWN).map(|name| short(name)).collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
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

    #[test]
    fn long_lists_are_cut() {
        let names = |n: u32| (0..n).map(|i| i.to_string()).collect::<Vec<_>>();
        assert_eq!(first_of(&names(2)), "0, 1");
        assert_eq!(first_of(&names(13)), "0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 3 more");
    }

    #[test]
    fn sizes_name_their_bytes() {
        assert_eq!((size(1), size(1023)), ("1 byte".into(), "1023 bytes".into()));
        assert_eq!(size(1536), "1536 bytes (1.5 KiB)");
        assert_eq!(size(3 << 30), "3221225472 bytes (3.0 GiB)");
    }
}

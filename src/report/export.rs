//! The result of `export`, as data and as text. It never contains values.

use std::path::PathBuf;

use super::model::Notice;
use crate::count::{counted, size};
use crate::display::printable;
use crate::report::table::Table;

/// The result of an export.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exported {
    /// `v2` or `v3`.
    pub kind: &'static str,
    /// The number of keys.
    pub keys: u64,
    /// The number of v2 directories.
    pub directories: u64,
    /// The exported state, in words.
    pub state: String,
    /// The path of the output; `None` for standard output.
    pub output: Option<PathBuf>,
    /// The size of the output, in bytes.
    pub bytes: u64,
    /// The warnings.
    pub warnings: Vec<Notice>,
    /// The losses: what the output may lack (exit 8).
    pub losses: Vec<Notice>,
}

impl Exported {
    /// Returns the summary for people.
    pub fn text(&self) -> String {
        let mut table = Table::new();
        table.line("exported", format!("{} at {}", counted(self.keys, "key", "keys"), self.state));
        table.count("directories", self.directories);
        table.maybe("output", self.output.as_ref().map(|path| path.display()));
        table.line("size", size(self.bytes));
        let mut text = table.to_string();
        for warning in &self.warnings {
            text.push_str(&format!("warning: {}\n", printable(&warning.message)));
        }
        for loss in &self.losses {
            text.push_str(&format!("possibly incomplete: {}\n", printable(&loss.message)));
        }
        text.push_str(if self.output.is_some() { "done, read back and compared\n" } else { "done\n" });
        text
    }
}

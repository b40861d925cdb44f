//! What `export` has written, as data and as text. Values never stand in it.

use std::path::PathBuf;

use super::model::Notice;
use crate::count::{counted, size};
use crate::display::printable;
use crate::report::table::Table;

/// What was exported.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exported {
    /// `v2` or `v3`.
    pub kind: &'static str,
    /// Keys.
    pub keys: u64,
    /// v2 directories.
    pub directories: u64,
    /// The state that was exported, in words.
    pub state: String,
    /// Where it is; `None` for standard output.
    pub output: Option<PathBuf>,
    /// Bytes of it.
    pub bytes: u64,
    /// What the operator should know.
    pub warnings: Vec<Notice>,
    /// What the cluster perhaps held beyond it (exit 8).
    pub losses: Vec<Notice>,
}

impl Exported {
    /// The closing summary.
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
            text.push_str(&format!("perhaps not all: {}\n", printable(&loss.message)));
        }
        text.push_str(if self.output.is_some() { "done, read back and compared\n" } else { "done\n" });
        text
    }
}

//! The result of an export, as data and as text. It contains no values.

use std::path::PathBuf;

use super::model::Notice;
use super::text::{notices, outcome};
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
    /// The result in one line.
    pub fn result(&self) -> String {
        let name = self.output.as_ref().map_or("standard output".into(), |path| printable(&path.display().to_string()));
        format!("{}: {name}\n", outcome(&self.losses))
    }

    /// The summary: the result, totals, warnings and losses.
    pub fn text(&self) -> String {
        let mut table = Table::new();
        table.line("exported", format!("{} at {}", counted(self.keys, "key", "keys"), self.state));
        table.count("directories", self.directories);
        table.line("size", size(self.bytes));
        if self.output.is_some() {
            table.line("checked", "read back and compared");
        }
        let parts = [self.result(), table.to_string(), notices(&self.warnings, &self.losses)];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("\n")
    }
}

//! The result of an export, as data and as text.
//!
//! The text starts with the result, as that of a conversion does. It contains counts and no names or values of keys.
//! Must not know the formats of an export.

use std::path::PathBuf;

use super::model::Notice;
use super::text::{notices, outcome};
use crate::count::{counted, size};
use crate::display::printable;
pub use crate::export::record::ExportKind;
use crate::report::table::Table;

/// The result of an export.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exported {
    /// The kind.
    pub kind: ExportKind,
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
    /// Returns the result in one line.
    pub(crate) fn result(&self) -> String {
        let name = self.output.as_ref().map_or("standard output".into(), |path| printable(&path.display().to_string()));
        format!("{}: {name}\n", outcome(&self.losses))
    }

    /// Returns the summary: the result, totals, warnings and losses.
    pub(crate) fn text(&self) -> String {
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

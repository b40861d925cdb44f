//! `-w` and `--json`: the form in which a command prints its result.
//!
//! `inspect`, `verify` and `lookup` include these options in their own. Must not know what a result contains.

use clap::ValueEnum;

/// `-w` and `--json`, as typed.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct Form {
    /// Form of the result
    #[arg(short, long, value_enum, value_name = "FORM", default_value_t = WriteOut::Table, help_heading = "Output")]
    write_out: WriteOut,

    /// The same as `-w json`
    #[arg(long, conflicts_with = "write_out", help_heading = "Output")]
    json: bool,
}

impl Form {
    /// Returns whether the form is JSON.
    pub(super) fn is_json(self) -> bool {
        self.json || self.write_out == WriteOut::Json
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum WriteOut {
    /// Aligned lines for people
    Table,
    /// JSON for scripts
    Json,
}

//! In which form a command prints: the options that every printing command has.

use clap::ValueEnum;

/// `-w` and `--json`, as typed.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Form {
    /// The form of the output
    #[arg(short, long, value_enum, value_name = "FORM", default_value_t = WriteOut::Table)]
    write_out: WriteOut,

    /// Short for `-w json`
    #[arg(long, conflicts_with = "write_out")]
    json: bool,
}

impl Form {
    /// Whether JSON is asked for.
    pub fn is_json(self) -> bool {
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

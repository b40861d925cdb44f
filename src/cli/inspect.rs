//! `etcdlift inspect`: its options as typed, and its run.
//!
//! Prints what the library found; must not find anything out by itself.

use std::path::PathBuf;

use clap::ValueEnum;

use super::{print, signals::Signals};
use crate::error::Result;
use crate::options::{InspectOptions, WalDir};
use crate::pipeline;
use crate::report::{file, text};

/// Options of `inspect`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A .snap file, a data directory, its member folder, a backup, or a v3 database or snapshot file
    source: PathBuf,

    /// Where the write-ahead log is when it lives elsewhere; `none` to look at the snapshot alone
    #[arg(long, value_name = "DIR|none")]
    wal_dir: Option<PathBuf>,

    /// List every key
    #[arg(long)]
    keys: bool,

    /// The form of the output
    #[arg(short, long, value_enum, value_name = "FORM", default_value_t = WriteOut::Table)]
    write_out: WriteOut,

    /// Short for `-w json`
    #[arg(long, conflicts_with = "write_out")]
    json: bool,
}

/// The form in which a command prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum WriteOut {
    /// Aligned lines for people
    Table,
    /// JSON for scripts
    Json,
}

/// Looks at a source and prints what is in it.
///
/// # Errors
/// Those of the library, and of writing to standard output.
pub fn run(args: &Args) -> Result<()> {
    let signals = Signals::install()?;
    let options = InspectOptions {
        source: args.source.clone(),
        wal_dir: args.wal_dir.as_deref().map(WalDir::from),
        keys: args.keys,
    };
    let found = pipeline::inspect(&options, &|| signals.check())?;
    if args.json || args.write_out == WriteOut::Json {
        print(&file::to_json(&found)?)
    } else {
        print(text::inspection(&found).as_bytes())
    }
}

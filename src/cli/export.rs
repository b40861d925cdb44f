//! `etcdlift export`: its options as typed, what they resolve to, and its run.
//!
//! Refuses options that exclude each other, calls the library, prints. Must not know how anything is read or written.

use std::path::{Path, PathBuf};

use super::epilog;
use super::exit::{self, usage};
use super::signals::Signals;
use super::source_args::SourceArgs;
use super::stdout::print;
use crate::cli::include_exclude::Choices;
use crate::error::Result;
use crate::options::{ExportFormat, ExportOptions};
use crate::pipeline;

const OUTPUT: &str = "Output";
const SELECTION: &str = "What to export";

/// Options of `export`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = epilog::EXPORT.help())]
pub(super) struct Args {
    /// v2 data, as for `convert`; or a v3 database or snapshot file
    ///
    /// Of v2 data, the export contains every key and every directory, with value, indexes and expiration. Hidden keys
    /// are included, and no key expires. Users and roles are not included. Of a v3 file, it contains every key that is
    /// not deleted, at the current revision.
    #[arg(required = true, value_name = "SOURCE|DB")]
    sources: Vec<PathBuf>,

    #[command(flatten)]
    source: SourceArgs,

    /// File to write, or directory for sled; `-` is standard output, for ndjson
    ///
    /// OUT must not exist. etcdlift reads the export back and compares it before it gets its name. Only its owner may
    /// read it, because it contains values.
    #[arg(short, long, value_name = "OUT", help_heading = OUTPUT)]
    output: PathBuf,

    /// Form of the output
    #[arg(long, value_enum, value_name = "FORM", default_value_t, help_heading = OUTPUT)]
    format: ExportFormat,

    /// Replace OUT if it is a regular file
    #[arg(long, help_heading = OUTPUT)]
    overwrite: bool,

    #[command(flatten, next_help_heading = SELECTION)]
    choices: Choices,
}

/// Exports, prints the summary, and returns the exit status.
///
/// # Errors
/// Options exclude each other; those of the library, and of writing to standard output.
pub(super) fn run(args: &Args, quiet: bool) -> Result<u8> {
    let options = resolve(args)?;
    let signals = Signals::install()?;
    let exported = pipeline::export(&options, &mut |text| print(text), &|| signals.check())?;
    exit::say(&if quiet { exported.result() } else { exported.text() });
    Ok(if exported.losses.is_empty() { 0 } else { exit::PARTIAL })
}

fn resolve(args: &Args) -> Result<ExportOptions> {
    let output = (args.output != Path::new("-")).then(|| args.output.clone());
    if output.is_none() && args.format != ExportFormat::Ndjson {
        return Err(usage("only --format ndjson can go to standard output").hint("name a file with --output"));
    }
    #[cfg(not(feature = "sled"))]
    if args.format == ExportFormat::Sled {
        return Err(pipeline::no_sled());
    }
    let source = &args.source;
    Ok(ExportOptions {
        sources: args.sources.clone(),
        wal_dirs: source.wal_dirs(args.sources.len())?,
        tail: source.tail,
        up_to_index: source.up_to_index,
        source_version: source.source_version,
        in_order_names: source.in_order_names,
        salvage: source.salvage,
        allow_removed: source.allow_removed,
        allow_live: source.allow_live,
        choose: args.choices.0.clone(),
        output,
        format: args.format,
        overwrite: args.overwrite,
    })
}

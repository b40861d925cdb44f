//! The paths that a run writes: compares them with each other, with the source and with existing files, before any
//! work.
//!
//! Must not know what is written.

use std::fs;
use std::path::Path;

use super::directories;
use crate::error::{Error, Reason, Result};
use crate::export::index_map::is_index_map;
use crate::options::{CleanOptions, ConvertOptions, ExportFormat, ExportOptions, WalDir};
use crate::output::naming::{ANOTHER_NAME, Before, NOT_REGULAR};
use crate::output::sink::refuse_existing;
use crate::output::targets::Targets;
use crate::output::{sink, staged_dir};
use crate::report::ledger::is_ledger;
use crate::source::watch::Watch;

/// The name of the report in messages.
const REPORT: &str = "report";

/// What to do about an existing directory that a conversion could replace.
const OVERWRITE: &str = "give --overwrite to replace what etcdlift made, or give another name";

/// What to do about an existing directory that an export never replaces.
const REMOVE: &str = "remove it first, which etcdlift never does, or give another name";

/// Returns the paths that a conversion writes and reads.
pub fn targets(options: &ConvertOptions) -> Targets {
    let mut targets = of_sources(&options.sources, &options.wal_dirs);
    match options.to.is_directory() {
        true => targets.write_directory("output", &options.output),
        false => targets.write("output", &options.output),
    }
    for (what, path) in [("report", &options.report), ("index map", &options.index_map), ("ledger", &options.ledger)] {
        if let Some(path) = path {
            targets.write(what, path);
        }
    }
    if let Some(transformer) = &options.transformer {
        targets.read("transformer", &transformer.program);
    }
    targets
}

fn of_sources(sources: &[std::path::PathBuf], wal_dirs: &[WalDir]) -> Targets {
    let mut targets = Targets::default();
    sources.iter().for_each(|path| targets.source(path));
    for dir in wal_dirs {
        if let WalDir::Dir(dir) = dir {
            targets.source(dir);
        }
    }
    targets
}

/// The existing files that a conversion may replace, as they were when it began.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Places {
    pub(super) output: Before,
    /// The existing directory, if the output is one.
    pub(super) directory: staged_dir::Before,
    pub(super) ledger: Before,
    pub(super) index_map: Before,
}

/// Refuses a conversion that would replace a file that it may not replace. The caller checks and writes the report.
///
/// # Errors
/// [`Reason::SameFile`], [`Reason::IntoSource`], [`Reason::OutputExists`]; [`Reason::OutputFailed`] if a directory does
/// not exist.
pub(super) fn check(options: &ConvertOptions) -> Result<Places> {
    targets(options).check()?;
    // `--skip-existing` compares the output and its sidecar files later, when the source is read.
    let compare = options.skip_existing && fs::symlink_metadata(&options.output).is_ok();
    let mut places = Places::default();
    if options.to.is_directory() {
        if !compare {
            let replaceable = options.overwrite.then_some(directories::replaceable as staged_dir::Replaceable);
            places.directory = staged_dir::refuse_existing(&options.output, replaceable, OVERWRITE)?;
        }
    } else if !compare {
        places.output = refuse_existing(&options.output, options.overwrite)?;
    } else if !fs::metadata(&options.output).is_ok_and(|found| found.is_file()) {
        return Err(Error::new(Reason::OutputExists, NOT_REGULAR).in_file(&options.output).hint(ANOTHER_NAME));
    }
    let overwrite = options.overwrite || compare;
    if let Some(path) = &options.ledger {
        places.ledger = sidecar("ledger", path, overwrite, is_ledger)?;
    }
    if let Some(path) = &options.index_map {
        places.index_map = sidecar("index map", path, overwrite, is_index_map)?;
    }
    Ok(places)
}

/// Checks again that no path leads into the source or to the file of another path: links may have changed since
/// [`check`].
///
/// # Errors
/// [`Reason::SameFile`], [`Reason::IntoSource`].
pub(super) fn check_again(options: &ConvertOptions, watch: &Watch) -> Result<()> {
    let mut targets = targets(options);
    targets.source_files(watch.files());
    targets.check()
}

/// Refuses an export that would replace a file that it may not replace. `opened` are the opened source files, by device
/// and inode. Returns the existing file that the export may replace.
///
/// # Errors
/// As [`check`].
pub(super) fn check_export(options: &ExportOptions, opened: Vec<(u64, u64)>) -> Result<Before> {
    let Some(output) = &options.output else { return Ok(Before::Nothing) };
    let mut targets = of_sources(&options.sources, &options.wal_dirs);
    match options.format {
        ExportFormat::Sled => targets.write_directory("output", output),
        ExportFormat::Ndjson | ExportFormat::Redb => targets.write("output", output),
    }
    targets.source_files(opened);
    targets.check()?;
    match options.format {
        ExportFormat::Sled => staged_dir::refuse_existing(output, None, REMOVE).map(|_| Before::Nothing),
        ExportFormat::Ndjson | ExportFormat::Redb => sink::refuse_existing(output, options.overwrite),
    }
}

/// The places of a copy without v2 content.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct CleanPlaces {
    pub(super) directory: staged_dir::Before,
}

/// Refuses a copy that would replace a file or write into a source. `opened` are the opened source files, by device and inode.
///
/// # Errors
/// As [`check`].
pub(super) fn check_clean(options: &CleanOptions, opened: Vec<(u64, u64)>) -> Result<CleanPlaces> {
    let is_first = opened.is_empty();
    let mut targets = of_clean(options);
    targets.source_files(opened);
    targets.check()?;
    for (what, path) in clean_files(options).into_iter().filter(|_| is_first) {
        refuse_existing_file(what, path)?;
    }
    Ok(CleanPlaces { directory: staged_dir::refuse_existing(&options.output, None, REMOVE)? })
}

/// Refuses a report of a copy that cannot be written: then a run that fails has none.
///
/// # Errors
/// As [`check`].
pub(super) fn check_clean_report(options: &CleanOptions) -> Result<()> {
    let Some(path) = &options.report else { return Ok(()) };
    let targets = of_clean(options);
    targets.check_spelling()?;
    targets.check_named(REPORT)?;
    refuse_existing_file(REPORT, path)
}

fn of_clean(options: &CleanOptions) -> Targets {
    let mut targets = of_sources(&options.sources, &options.wal_dirs);
    targets.write_directory("output", &options.output);
    clean_files(options).into_iter().for_each(|(what, path)| targets.write(what, path));
    targets
}

/// Returns the files that a copy also writes.
fn clean_files(options: &CleanOptions) -> Vec<(&'static str, &Path)> {
    let files = [(REPORT, &options.report), ("list of v2 keys", &options.save_v2), ("ledger", &options.ledger)];
    files.into_iter().filter_map(|(what, path)| Some((what, path.as_deref()?))).collect()
}

/// Refuses a file that exists, or whose directory does not.
fn refuse_existing_file(what: &str, path: &Path) -> Result<()> {
    if fs::symlink_metadata(path).is_ok() {
        let error = Error::new(Reason::OutputExists, format!("the {what} exists"));
        return Err(error.in_file(path).hint(ANOTHER_NAME));
    }
    sink::require_directory(path)
}

/// Refuses to replace a file that is not a sidecar file of the same kind: a mistyped name must not destroy another
/// file.
pub(crate) fn sidecar(what: &str, path: &Path, overwrite: bool, is_one: fn(&Path) -> bool) -> Result<Before> {
    let Ok(found) = fs::symlink_metadata(path) else {
        return sink::require_directory(path).map(|()| Before::Nothing);
    };
    let (message, hint) = if !found.is_file() {
        (NOT_REGULAR.to_string(), ANOTHER_NAME)
    } else if !overwrite {
        (format!("the {what} exists"), "give --overwrite to replace it")
    } else if found.len() > 0 && !is_one(path) {
        (format!("the file is no {what} of etcdlift, and --overwrite replaces nothing else"), ANOTHER_NAME)
    } else {
        return Before::at(path, true);
    };
    Err(Error::new(Reason::OutputExists, message).in_file(path).hint(hint))
}

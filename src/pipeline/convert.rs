//! `convert`: the stages in their order, from the source to a file that lacks its name, and then the names.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use super::prepare::{Prepared, prepare};
use super::write::{Files, How, Written, write};
use super::{Interrupted, Observer, memory, salvage, same_snapshot, sidecars, skip_existing, targets, transformer};
use crate::error::{Error, Reason, Result};
use crate::ids::RaftIndex;
use crate::interrupt::Interrupt;
use crate::options::ConvertOptions;
use crate::output::Digested;
use crate::output::sidecar::Sidecar;
use crate::output::snapshot::hex;
use crate::pipeline::progress::Run;
use crate::pipeline::read::{describe_v3, read_and_hash, wal_dir};
use crate::report::{LeaseLine, OutputFacts, Report, earlier, next_steps};
use crate::source::open::{Found, OpenOptions, Opened, open, open_cluster};
use crate::source::watch::Watch;
use crate::transform::lease::Grant;
use crate::transform::revisions::Ordered;

/// How a conversion ended that has made an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All that the cluster held.
    Complete,
    /// Done and verified, but perhaps not all that the cluster held (exit 8); the report's losses say what.
    Partial,
}

impl Outcome {
    /// The exit status of a run that ends so.
    pub fn exit_code(self) -> u8 {
        match self {
            Outcome::Complete => 0,
            Outcome::Partial => 8,
        }
    }
}

/// Converts a source into an output file, which appears whole and verified, or not at all. The report is filled in as far as
/// the run got, whether it fails or not.
///
/// # Errors
/// Every kind of CLI.md's exit table; nothing is left behind then.
pub fn convert(options: &ConvertOptions, report: &mut Report, interrupted: Interrupted<'_>) -> Result<Outcome> {
    convert_observed(options, report, &(), interrupted)
}

/// [`convert`], which tells what it is at.
///
/// # Errors
/// As [`convert`].
pub fn convert_observed(
    options: &ConvertOptions,
    report: &mut Report,
    observer: &dyn Observer,
    interrupted: Interrupted<'_>,
) -> Result<Outcome> {
    stage(options, report, observer, interrupted)?.commit(None)
}

/// A conversion whose files are whole, checked and on disk under temporary names. Dropped, it leaves nothing.
#[derive(Debug)]
#[must_use = "the files have no names yet"]
pub struct Staged {
    outcome: Outcome,
    /// None where an output was left alone.
    files: Option<Files>,
    options: ConvertOptions,
    watch: Arc<Watch>,
}

impl Staged {
    /// How the conversion ends once the files have their names.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Gives the files their names, the output last: all of them, or none. `report` is a file that is to appear with them.
    ///
    /// # Errors
    /// Something has one of the names by now ([`Reason::OutputExists`]), the source has changed
    /// ([`Reason::ChangedWhileReading`]), a path leads into it by now ([`Reason::IntoSource`]), or the operating system fails
    /// ([`Reason::OutputFailed`]). Then each name is as it was before.
    pub fn commit(self, report: Option<Sidecar>) -> Result<Outcome> {
        if let Some(files) = self.files {
            let check = || {
                self.watch.check()?;
                targets::check_again(&self.options, &self.watch)
            };
            files.name(report, &check)?;
        }
        Ok(self.outcome)
    }
}

/// [`convert_observed`] up to the names: for whoever has more to write before the output appears.
///
/// # Errors
/// As [`convert`].
pub fn stage(
    options: &ConvertOptions,
    report: &mut Report,
    observer: &dyn Observer,
    interrupted: Interrupted<'_>,
) -> Result<Staged> {
    stage_with(options, report, None, observer, interrupted)
}

fn stage_with(
    options: &ConvertOptions,
    report: &mut Report,
    fault: Option<Fault>,
    observer: &dyn Observer,
    interrupted: Interrupted<'_>,
) -> Result<Staged> {
    let watch = Arc::default();
    let staged = on_threads(options, || run(options, report, fault, &watch, &Run { observer, interrupted }));
    let (outcome, files) = watch.settle(staged)?;
    Ok(Staged { outcome, files, options: options.clone(), watch })
}

/// A fault of the writer, to show that it is noticed: not part of the library's interface.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// The row of the `key` bucket that the writer loses.
    pub lost_row: u64,
    /// The books do not look at what the writer has.
    pub unseen_by_books: bool,
}

/// [`convert`] with a fault.
#[doc(hidden)]
pub fn convert_with(
    options: &ConvertOptions,
    report: &mut Report,
    fault: Option<Fault>,
    interrupted: Interrupted<'_>,
) -> Result<Outcome> {
    stage_with(options, report, fault, &(), interrupted)?.commit(None)
}

fn on_threads<T: Send>(options: &ConvertOptions, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(options.jobs.max(1))
        .build()
        .map_err(|e| Error::new(Reason::Internal, format!("cannot start threads: {e}")))?;
    pool.install(work)
}

fn run(
    options: &ConvertOptions,
    report: &mut Report,
    fault: Option<Fault>,
    watch: &Arc<Watch>,
    run: &Run<'_>,
) -> Result<(Outcome, Option<Files>)> {
    let Run { observer, interrupted } = *run;
    let places = targets::check(options)?;
    let started = Instant::now();
    observer.stage("opening", None);
    let opened = open_v2(options, watch, interrupted)?;
    targets::check_again(options, watch)?;
    let within = |e: Error| e.in_file(opened.path());
    same_snapshot::check(&opened, options, interrupted)?;
    memory::before_reading(options, &opened, interrupted).map_err(within)?;
    report.stage("open", started.elapsed());

    let started = Instant::now();
    let (table, files) = read_and_hash(&opened, observer, interrupted)?;
    let changes_limit = memory::after_reading(options, &opened, &table, interrupted).map_err(within)?;
    report.source_files = files;
    report.transformed = options.transformer.as_ref().map(transformer::identify);
    report.stage("read", started.elapsed());
    if options.skip_existing
        && let Some(earlier) = earlier::find(report, &|| interrupted())?
    {
        let files = skip_existing::check(options, &opened, &table, changes_limit, &earlier, places, run)?;
        *report = earlier;
        report.next_steps = next_steps::steps(report);
        opened.check_bytes(Interrupt::new(interrupted))?;
        return Ok((outcome(report), files));
    }

    observer.stage("replaying and planning", None);
    let prepared = prepare(&opened, &table, options, changes_limit, report, interrupted)?;
    let beside = |file: Option<&[u8]>, digested: &Digested, report: &mut Report| {
        sidecars::make(options, places, &prepared, file, digested, report, interrupted)
    };
    let (mut content, mut expected) = (prepared.content()?, prepared.pair_count());
    if let Some(fault) = fault {
        content.lose(fault.lost_row);
        expected -= u64::from(fault.unseen_by_books);
    }
    targets::check_again(options, watch)?;
    let extent_bytes = memory::before_writing(options, &opened, &table, &content).map_err(within)?;
    let how = How { extent_bytes, before: places.output, observer, interrupted };
    let written = write(&content, expected, options, report, &beside, &how)?;
    let started = Instant::now();
    opened.check_bytes(Interrupt::new(interrupted))?;
    report.stage("check source", started.elapsed());
    report.output = Some(output_facts(options, &prepared, &written));
    report.next_steps = next_steps::steps(report);
    Ok((outcome(report), Some(written.files)))
}

fn outcome(report: &Report) -> Outcome {
    if report.losses.is_empty() { Outcome::Complete } else { Outcome::Partial }
}

/// Opens the sources of a conversion.
///
/// # Errors
/// What [`open`] and [`open_cluster`] return; a source without v2 data.
pub(super) fn open_v2(
    options: &ConvertOptions,
    watch: &Arc<Watch>,
    interrupted: Interrupted<'_>,
) -> Result<Box<Opened>> {
    let (salvage, allow_live) = (options.salvage, options.allow_live);
    let open_options = OpenOptions {
        up_to: options.up_to_index.map(RaftIndex),
        salvage,
        allow_live,
        watch: Arc::clone(watch),
        interrupt: Interrupt::new(interrupted),
        ..OpenOptions::default()
    };
    let wal_dirs: Vec<_> = (0..options.sources.len()).map(|at| wal_dir(options.wal_dirs.get(at))).collect();
    let sources: Vec<_> = options.sources.iter().map(PathBuf::as_path).zip(&wal_dirs).collect();
    let [(source, wal_dir)] = sources.as_slice() else {
        let mut opened = open_cluster(&sources, &open_options).map(Box::new)?;
        salvage::weigh(&mut opened, options, interrupted)?;
        return Ok(opened);
    };
    match open(source, wal_dir, &open_options)? {
        Found::V2(mut opened) => {
            salvage::weigh(&mut opened, options, interrupted)?;
            Ok(opened)
        }
        Found::V3File(map) => {
            let message = "found a v3 database: v2 keys are in .snap and WAL files; give the data directory";
            Err(Error::new(Reason::UnsupportedFormat, message).in_file(map.path()))
        }
        Found::V3Only(map) => {
            let found = describe_v3(&map, interrupted)
                .map_or_else(|_| "that cannot be read".into(), |found| format!("with {found}"));
            let message = format!(
                "nothing to convert: no .snap file and no WAL, only a v3 database {found} (if the WAL lives elsewhere, give \
                 --wal-dir DIR)"
            );
            Err(Error::new(Reason::NothingToConvert, message).in_file(source))
        }
    }
}

fn output_facts(options: &ConvertOptions, prepared: &Prepared<'_>, written: &Written) -> OutputFacts {
    let revision = u64::try_from(prepared.ordered.current.0).unwrap_or(0);
    OutputFacts {
        bytes: written.digested.bytes,
        sha256: hex(&written.digested.sha256),
        db_bytes: written.digested.db_bytes,
        db_sha256: hex(&written.digested.db_sha256),
        v2_index: prepared.v2_index().0,
        revision,
        compact_revision: u64::try_from(prepared.compacted().0).unwrap_or(0),
        hash_kv: written.hash_kv,
        status_hash: written.status_hash,
        pairs: prepared.pair_count(),
        leases: prepared.lease_count(),
        lease_list: lease_list(&prepared.ordered),
        auth_enabled: prepared.auth_enabled(),
        verified: options.verify && !options.dry_run,
    }
}

fn lease_list(ordered: &Ordered) -> Vec<LeaseLine> {
    let line = |grant: &Grant| LeaseLine { id: grant.id.0, ttl: grant.seconds, keys: 0 };
    let mut lines: Vec<LeaseLine> = ordered.leases.iter().map(line).collect();
    for row in &ordered.rows {
        let place = (row.lease.0 as usize).checked_sub(1);
        if let Some(line) = place.and_then(|place| lines.get_mut(place)) {
            line.keys += 1;
        }
    }
    lines
}

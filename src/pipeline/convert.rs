//! `convert`: the stages in their order, from the source to complete temporary files, and then the names of the files.
//!
//! Must not know how a stage works, or the terminal.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use super::backend::describe_v3;
use super::clock::Begun;
use super::context::{Activity, Context, Observer};
use super::directories::Destination;
use super::number::Numbered;
use super::read::{self, Hashing, Source, SourceFiles};
use super::write::{Files, How, Written, write};
use super::{
    Interrupted, directories, memory, salvage, same_snapshot, sidecars, skip_existing, stages, targets, transformer,
};
use crate::error::{Error, Reason, Result};
use crate::ids::RaftIndex;
use crate::interrupt::{Bytes, Interrupt};
use crate::options::ConvertOptions;
use crate::output::sidecar::Sidecar;
use crate::output::snapshot::hex;
use crate::report::{LeaseLine, OutputFacts, Report, StageName, earlier, next_steps};
use crate::source::open::{Found, OpenOptions, Opened, open, open_cluster};
use crate::source::watch::Watch;
use crate::transform::lease::Grant;
use crate::transform::revisions::Ordered;

/// The outcome of a conversion that made an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The output has everything that the cluster held.
    Complete,
    /// The output is verified but possibly incomplete (exit 8); the losses of the report say why.
    Partial,
}

impl Outcome {
    /// Returns the exit status of a run with this outcome.
    pub fn exit_code(self) -> u8 {
        match self {
            Outcome::Complete => 0,
            Outcome::Partial => 8,
        }
    }
}

/// Converts a source into an output file, which appears whole and verified, or not at all. A failed run also fills in
/// the report, up to the failure.
///
/// # Errors
/// Every [`Reason`] of a conversion. Then no file of the run remains.
pub fn convert(options: &ConvertOptions, report: &mut Report, interrupted: Interrupted<'_>) -> Result<Outcome> {
    convert_observed(options, report, &(), interrupted)
}

/// Converts like [`convert`], and shows the stages to an observer.
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

/// A conversion whose files are whole, checked and on disk under temporary names. Dropping it removes the files.
#[derive(Debug)]
#[must_use = "the files have no names yet"]
pub struct Staged {
    outcome: Outcome,
    /// `None` if `--skip-existing` left an output alone.
    files: Option<Files>,
    options: ConvertOptions,
    watch: Arc<Watch>,
}

impl Staged {
    /// Returns the outcome that the conversion has once the files have their names.
    pub fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Gives the files their names, the output last: all of them, or none. `report` is one more file that appears with
    /// them.
    ///
    /// # Errors
    /// [`Reason::OutputExists`] if another file has taken one of the names; [`Reason::ChangedWhileReading`] if the
    /// source has changed; [`Reason::IntoSource`] if a path now leads into the source; [`Reason::OutputFailed`] if the
    /// operating system fails. Then each name is as it was before.
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

/// Converts like [`convert_observed`], but leaves the files without their names, so that a caller can write more first.
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
    let progress = |bytes| match bytes {
        Bytes::Expected(bytes) => observer.expect(bytes),
        Bytes::Done(bytes) => observer.advance(bytes),
    };
    let context = Context::new(options, report, observer, Interrupt::new(interrupted).counted(&progress))?;
    let staged = on_threads(options, || make(&context, report, fault, &watch));
    if !report.skipped {
        report.stages = context.times();
    }
    let (outcome, files) = watch.settle(staged)?;
    Ok(Staged { outcome, files, options: options.clone(), watch })
}

/// A fault of the writer, for tests that a fault is detected. Not part of the library's interface.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// The row of the `key` bucket that the writer loses.
    pub lost_row: u64,
    /// The check of the totals does not see the fault.
    pub unseen_by_totals: bool,
}

/// Converts like [`convert`], with a fault.
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

/// Makes the files of a conversion, under temporary names.
fn make(
    context: &Context<'_>,
    report: &mut Report,
    fault: Option<Fault>,
    watch: &Arc<Watch>,
) -> Result<(Outcome, Option<Files>)> {
    let options = context.options;
    directories::check(options)?;
    let places = targets::check(options)?;
    let started = Begun::now();
    context.observer.stage(Activity::Opening);
    let opened = open_v2(context, watch)?;
    targets::check_again(options, watch)?;
    let within = |e: Error| e.in_file(opened.path());
    same_snapshot::check(&opened, context)?;
    memory::before_reading(context, &opened).map_err(within)?;
    context.took(StageName::Open, started);

    let files = SourceFiles::of(&opened, context.interrupt);
    thread::scope(|scope| {
        let mut hashing = files.start_hashing(scope);
        let made = make_of(context, report, fault, &opened, places, watch, &mut hashing);
        if report.source_files.is_empty() {
            // An interruption takes precedence over every other error.
            report.source_files = hashing.files()?;
        }
        made
    })
}

/// Makes the files of a conversion of an open source, while its files are hashed.
fn make_of(
    context: &Context<'_>,
    report: &mut Report,
    fault: Option<Fault>,
    opened: &Opened,
    places: targets::Places,
    watch: &Arc<Watch>,
    hashing: &mut Hashing<'_, '_>,
) -> Result<(Outcome, Option<Files>)> {
    let options = context.options;
    let within = |e: Error| e.in_file(opened.path());
    let started = Begun::now();
    context.observer.stage(Activity::Reading);
    let table = read::read(opened, context.interrupt)?;
    let changes_limit = memory::after_reading(context, opened, &table).map_err(within)?;
    let source = Source { opened, table: &table, changes_limit };
    report.transformed = options.transformer.as_ref().map(transformer::identify);
    if options.skip_existing {
        report.source_files = hashing.files()?;
    }
    context.took(StageName::Read, started);
    if options.skip_existing
        && let Some(earlier) = earlier::find(report, context.interrupt)?
    {
        let files = skip_existing::check(context, source, &earlier, places)?;
        *report = earlier;
        report.next_steps = next_steps::steps(report);
        opened.check_bytes(context.interrupt)?;
        return Ok((outcome(report), files));
    }

    let numbered = stages::run(context, source, report)?;
    let refused = directories::refuse_losses(options, &report.losses);
    // With several sources, the loss names the one that it is about.
    refused.map_err(|e| if opened.members.len() > 1 { e } else { within(e) })?;
    let (mut content, mut expected) = (numbered.content()?, numbered.pair_count());
    if let Some(fault) = fault {
        content.lose(fault.lost_row);
        expected -= u64::from(fault.unseen_by_totals);
    }
    targets::check_again(options, watch)?;
    let extent_bytes = memory::before_writing(options, opened, &table, &content).map_err(within)?;
    let destination = Destination::prepare(context, places.directory, numbered.members.as_ref())?;
    let (path, copies) = (destination.database(options), destination.copies());
    let written = write(context, &content, How { path, copies, extent_bytes, before: places.output, expected })?;
    let made = sidecars::make(context, places, &numbered, written.bytes(), &written.digested, options.verify)?;
    report.add(made.notices);
    context.interrupt.ask()?;
    context.observer.stage(Activity::CheckingSource);
    let started = Begun::now();
    report.source_files = hashing.files()?;
    opened.check_bytes(context.interrupt)?;
    context.took(StageName::CheckSource, started);
    context.observer.stage(Activity::Finishing);
    report.output = Some(output_facts(options, &numbered, &written));
    let (output, directories) = destination.finish(context, written, &report.source_files)?;
    if let Some(facts) = &mut report.output {
        (facts.cluster_id, facts.members, facts.files) =
            (directories.cluster_id, directories.members, directories.files);
    }
    report.next_steps = next_steps::steps(report);
    Ok((outcome(report), Some(Files::new(output, made.files))))
}

fn outcome(report: &Report) -> Outcome {
    if report.losses.is_empty() { Outcome::Complete } else { Outcome::Partial }
}

/// Opens the sources of a conversion.
///
/// # Errors
/// Those of [`open`], [`open_cluster`] and the salvage; a source without v2 data.
pub(super) fn open_v2(context: &Context<'_>, watch: &Arc<Watch>) -> Result<Box<Opened>> {
    let options = context.options;
    let (salvage, allow_live) = (options.salvage, options.allow_live);
    let open_options = OpenOptions {
        up_to: options.up_to_index.map(RaftIndex),
        salvage,
        allow_live,
        watch: Arc::clone(watch),
        interrupt: context.interrupt,
        ..OpenOptions::default()
    };
    let wal_dirs = (0..).map(|at| options.wal_dirs.get(at));
    let sources: Vec<_> = options.sources.iter().map(PathBuf::as_path).zip(wal_dirs).collect();
    let [(source, wal_dir)] = sources.as_slice() else {
        let mut opened = open_cluster(&sources, &open_options).map(Box::new)?;
        salvage::compare_starts(&mut opened, context)?;
        return Ok(opened);
    };
    match open(source, *wal_dir, &open_options)? {
        Found::V2(mut opened) => {
            salvage::compare_starts(&mut opened, context)?;
            Ok(opened)
        }
        Found::V3File(map) => {
            let error = Error::new(Reason::UnsupportedFormat, "found a v3 database, which has no v2 keys");
            Err(error.in_file(map.path()).hint("name the data directory: v2 keys are in .snap and WAL files"))
        }
        Found::V3Only(map) => {
            let found = describe_v3(&map, context.interrupt)
                .map_or_else(|_| "that cannot be read".into(), |found| format!("with {found}"));
            let message = format!("nothing to convert: no .snap file and no WAL, only a v3 database {found}");
            let error = Error::new(Reason::NothingToConvert, message).in_file(source);
            Err(error.hint("if the WAL is in another directory, name it with --wal-dir"))
        }
    }
}

fn output_facts(options: &ConvertOptions, numbered: &Numbered<'_>, written: &Written) -> OutputFacts {
    let revision = u64::try_from(numbered.ordered.current.0).unwrap_or(0);
    OutputFacts {
        bytes: written.digested.bytes,
        sha256: hex(&written.digested.sha256),
        db_bytes: written.digested.db_bytes,
        db_sha256: hex(&written.digested.db_sha256),
        v2_index: numbered.v2_index().0,
        revision,
        compact_revision: u64::try_from(numbered.compacted().0).unwrap_or(0),
        hash_kv: written.hash_kv,
        status_hash: written.status_hash,
        pairs: numbered.pair_count(),
        leases: numbered.lease_count(),
        lease_list: lease_list(&numbered.ordered),
        // The directories are described when they are complete.
        cluster_id: None,
        members: Vec::new(),
        files: Vec::new(),
        auth_enabled: numbered.auth_enabled(),
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

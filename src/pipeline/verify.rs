//! `verify`: whether a v3 file is intact, whether it matches a report, and whether it has the content of a source.
//!
//! Each check adds differences to one list. Only a check that cannot run is an error. The check against a source runs
//! the stages of a conversion again (`stages`) and writes nothing. Must not know how the result is printed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::context::Context;
use super::convert::open_v2;
use super::directories::boot;
use super::inspect::v3_facts;
use super::read::{Source, read_and_hash, source_file};
use super::{Interrupted, same_snapshot, stages, transformer};
use crate::display::{first_of, short};
use crate::error::{Error, Kind, Reason, Result};
use crate::ids::ByteOffset;
use crate::interrupt::Interrupt;
use crate::notice::Code;
use crate::options::{AsOf, ConvertOptions, To, VerifyOptions};
use crate::report::inspection::{Sha256Check, V3Facts};
use crate::report::verification::Check;
use crate::report::{Notice, OutputFacts, Report, SourceFile, Verification, earlier};
use crate::source::live_copy::{self, Access, Files};
use crate::source::map::Map;
use crate::source::open::Opened;
use crate::source::recognise;
use crate::source::watch::Watch;
use crate::verify::{self};
use crate::{display, named_file};

/// Verifies a v3 database or snapshot file.
///
/// # Errors
/// The file or the report cannot be read; the source cannot be opened or converted; an interruption.
pub fn verify(options: &VerifyOptions, interrupted: Interrupted<'_>) -> Result<Verification> {
    let interrupt = Interrupt::new(interrupted);
    let watch = Arc::default();
    let databases = boot::databases(&options.file)?;
    let Some((first, others)) = databases.split_first() else {
        return Err(Error::new(Reason::Internal, "no database to verify"));
    };
    let map = Files::new(Access::AtRest, &watch).open_db(first, interrupt);
    let map = if options.file.is_dir() { incomplete(map, first)? } else { map? };
    let verified = verify_map(&map, options, interrupt).and_then(|mut found| {
        if options.file.is_dir() {
            verify_directories(&mut found, first, others, &watch, interrupt)?;
        }
        map.check_bytes(interrupt).map(|()| found)
    });
    watch.settle(verified)
}

/// Verifies what surrounds the databases in directories of members, and the databases other than the first.
fn verify_directories(
    found: &mut Verification,
    first: &Path,
    others: &[PathBuf],
    watch: &Arc<Watch>,
    interrupt: Interrupt<'_>,
) -> Result<()> {
    let Some(root) = boot::root_of(first) else { return Ok(()) };
    let facts = found.facts.clone();
    found.members.push(boot::check(root, &facts, &mut found.differences, interrupt)?);
    for database in others {
        let map = incomplete(Files::new(Access::AtRest, watch).open_db(database, interrupt), database)?;
        let (facts, findings) = readable(v3_facts(&map, interrupt), &map)?;
        found.differences.extend(findings.into_iter().map(|notice| notice.message));
        if let Some(root) = boot::root_of(database) {
            found.members.push(boot::check(root, &facts, &mut found.differences, interrupt)?);
        }
        map.check_bytes(interrupt)?;
    }
    boot::compare(&found.members, &mut found.differences);
    found.members_not_given = boot::not_given(&found.members, &facts.members);
    // The directory of one member is often checked alone, on its own machine.
    if root != Path::new(&found.path) && !found.members_not_given.is_empty() {
        let message = format!(
            "{}: {} of {} members missing ({}); a member that starts with other v3 data stays different",
            found.path,
            found.members_not_given.len(),
            facts.members.len(),
            first_of(&found.members_not_given)
        );
        found.warnings.push(Notice::new(Code::OtherMembers, message));
    }
    found.checked.push(Check::Boot);
    Ok(())
}

/// Turns an unreadable database into a failed verification of its directory.
fn incomplete<T>(opened: Result<T>, database: &Path) -> Result<T> {
    opened.map_err(|e| match e.reason() {
        Reason::Unreadable => Error::new(Reason::VerifyFailed, e.message()).in_file(database),
        _ => e,
    })
}

/// Turns an error of reading into one of verification: a file that cannot be read to its end is no damaged source.
fn readable<T>(read: Result<T>, map: &Map) -> Result<T> {
    read.map_err(|e| match e.kind() {
        Kind::Damaged => {
            Error::new(Reason::VerifyFailed, e.message()).at(e.offset().unwrap_or(ByteOffset(0))).in_file(map.path())
        }
        _ => e,
    })
}

fn verify_map(map: &Map, options: &VerifyOptions, interrupt: Interrupt<'_>) -> Result<Verification> {
    if let Some(found) = recognise::foreign(map.bytes()) {
        return Err(found.refuse(map.path(), "a v3 database or snapshot file"));
    }
    interrupt.ask()?;
    let (facts, findings) = readable(v3_facts(map, interrupt), map)?;
    let sha256 = source_file(map, interrupt)?.sha256;
    let mut found = Verification {
        path: options.file.display().to_string(),
        differences: findings.into_iter().map(|notice| notice.message).collect(),
        checked: vec![Check::Structure, Check::Store],
        sha256,
        facts,
        ..Verification::default()
    };
    match found.facts.sha256 {
        Sha256Check::None => {}
        Sha256Check::Good | Sha256Check::Mismatch => found.checked.push(Check::Sha256),
    }
    let report = options.report.as_deref().map(|path| read_report(path, interrupt)).transpose()?;
    if let Some(output) = report.as_ref().and_then(|report| report.output.as_ref()) {
        compare_report(&mut found, output);
        compare_files(&mut found, output, &options.file, interrupt)?;
        found.checked.push(Check::Report);
    }
    if !options.sources.is_empty() {
        compare_source(&mut found, map, options, report.as_ref(), interrupt)?;
        found.checked.push(Check::Source);
    }
    Ok(found)
}

fn read_report(path: &std::path::Path, interrupt: Interrupt<'_>) -> Result<Report> {
    let text = named_file::read(path, Reason::ReportUnusable, "read the report", interrupt)?;
    let report: Report = serde_json::from_slice(&text).map_err(|e| {
        let message = format!("expected the report of a conversion by this version, {}", display::json_fault(&e));
        Error::new(Reason::ReportUnusable, message).in_file(path)
    })?;
    if report.output.is_none() {
        let message = "the report is of a run without an output";
        return Err(Error::new(Reason::ReportUnusable, message).in_file(path));
    }
    Ok(report)
}

/// Compares the numbers of the file with those of the report.
fn compare_report(found: &mut Verification, output: &OutputFacts) {
    let V3Facts { bytes, db_bytes, revision, compact_revision, pairs, leases, hash_kv, status_hash, .. } = found.facts;
    let numbers = [
        ("size", output.bytes, bytes),
        ("size of the database", output.db_bytes, db_bytes),
        ("revision", output.revision, revision),
        ("compact revision", output.compact_revision, compact_revision.unwrap_or(0)),
        ("number of pairs", output.pairs, pairs),
        ("number of leases", output.leases, leases),
        ("HashKV", output.hash_kv.into(), hash_kv.into()),
        ("status hash", output.status_hash.into(), status_hash.into()),
    ];
    let path = &found.path;
    for (name, expected, found_) in numbers {
        if expected != found_ {
            found.differences.push(format!("{path}: the report has the {name} {expected}, the file {found_}"));
        }
    }
    if output.sha256 != found.sha256 {
        let message = format!("{path}: the report has the sha256 {}, the file {}", output.sha256, found.sha256);
        found.differences.push(message);
    }
}

/// Compares the files of a directory with those of the report.
fn compare_files(found: &mut Verification, output: &OutputFacts, path: &Path, interrupt: Interrupt<'_>) -> Result<()> {
    if output.files.is_empty() {
        return Ok(());
    }
    for (file, bytes, sha256) in output.files_at(path) {
        let same = match live_copy::map(&file).and_then(|map| source_file(&map, interrupt)) {
            Ok(now) => (now.bytes, now.sha256) == (bytes, sha256),
            Err(e) if matches!(e.kind(), Kind::Interrupted(_)) => return Err(e),
            Err(_) => false,
        };
        if !same {
            let file = file.display();
            found.differences.push(format!("{file}: the file is not the one that the report describes"));
        }
    }
    let extra = earlier::extra_file(path, output);
    if let Some(file) = extra.map_err(|e| Error::io(Reason::Unreadable, path, "list its files", e))? {
        let file = file.display();
        found.differences.push(format!("{file}: the report does not describe this file"));
    }
    Ok(())
}

/// Compares the file with the result of a conversion of the source.
fn compare_source(
    found: &mut Verification,
    map: &Map,
    options: &VerifyOptions,
    report: Option<&Report>,
    interrupt: Interrupt<'_>,
) -> Result<()> {
    let convert = conversion(found, options, report)?;
    found.differences.extend(other_program(&convert, report));
    let watch = Arc::default();
    let mut scratch = Report::new(&convert);
    let context = Context::new(&convert, &scratch, &(), interrupt)?;
    let compared = open_v2(&context, &watch).and_then(|opened| {
        compare_opened(found, map, &opened, &context, report, &mut scratch)?;
        opened.check_bytes(interrupt)
    });
    watch.settle(compared)
}

fn compare_opened(
    found: &mut Verification,
    map: &Map,
    opened: &Opened,
    context: &Context<'_>,
    report: Option<&Report>,
    scratch: &mut Report,
) -> Result<()> {
    let interrupt = context.interrupt;
    same_snapshot::check(opened, context)?;
    let (table, files) = read_and_hash(opened, interrupt)?;
    let other = report.and_then(|report| other_source(report, &files));
    let named = |e: Error| other.iter().fold(e, |e, other| e.context(other));
    let source = Source { opened, table: &table, changes_limit: None };
    let numbered = stages::run(context, source, scratch).map_err(named)?;
    if report.is_none() && scratch.contents.ttl.keys > 0 {
        let message = "the source has keys with a TTL, and the instant of the conversion is unknown";
        let error = Error::new(Reason::ReportUnusable, message).in_file(opened.path());
        return Err(error.hint("give the --report of the conversion, which contains the instant"));
    }
    let content = numbered.content()?;
    let differences = match verify::compare(map.bytes(), &content, interrupt) {
        Err(e) if e.reason() == Reason::VerifyFailed => {
            let listing = verify::list(map.bytes(), &content, interrupt)?;
            found.differing_keys = listing.keys;
            // Not every difference is in a live key: the order of pairs or an earlier change can differ.
            let lines = if listing.lines.is_empty() { vec![e.message().to_string()] } else { listing.lines };
            lines.into_iter().map(|line| format!("{}: {line}", found.path)).collect()
        }
        Err(e) => return Err(e),
        Ok(()) => Vec::new(),
    };
    match other {
        // Other files of the same cluster may have the same content.
        Some(message) if differences.is_empty() => {
            found.warnings.push(Notice::new(Code::OtherSource, message));
        }
        Some(message) => found.differences.insert(0, message),
        None => {}
    }
    found.differences.extend(differences);
    Ok(())
}

/// Describes how the files differ from the source files in the report; `None` if they are the same.
fn other_source(report: &Report, files: &[SourceFile]) -> Option<String> {
    let of = |files: &[SourceFile]| -> Vec<(u64, String)> {
        files.iter().map(|file| (file.bytes, file.sha256.clone())).collect()
    };
    let (expected, found) = (of(&report.source_files), of(files));
    let differing = files.iter().find(|file| !expected.contains(&(file.bytes, file.sha256.clone())));
    let missing = report.source_files.iter().find(|file| !found.contains(&(file.bytes, file.sha256.clone())));
    let example = match (differing, missing) {
        (None, None) => return None,
        (Some(file), _) => format!("{} has the sha256 {}, which no file of the report has", file.path, file.sha256),
        (None, Some(file)) => {
            format!("no file of this source has the sha256 {} that {} has in the report", file.sha256, file.path)
        }
    };
    Some(format!("this is not the source of the report: {example}"))
}

/// Describes a transformer that differs from the one that made the file, if both are known.
fn other_program(convert: &ConvertOptions, report: Option<&Report>) -> Option<String> {
    let transformer = convert.transformer.as_ref()?;
    let made_by = report?.transformed.as_ref()?.program_sha256.as_ref()?;
    let given = transformer::identify(transformer).program_sha256?;
    let path = transformer.program.display();
    (given != *made_by)
        .then(|| format!("{path}: the report has the sha256 {made_by} for the transformer, the file {given}"))
}

/// Returns the options of the conversion that made the file.
fn conversion(found: &Verification, options: &VerifyOptions, report: Option<&Report>) -> Result<ConvertOptions> {
    let mut convert = match report {
        Some(report) => {
            let as_of = report.as_of.parse().map_or(report.options.as_of, AsOf::At);
            ConvertOptions { as_of, ..report.options.clone() }
        }
        None => ConvertOptions::new("", ""),
    };
    if report.is_none() && options.file.is_dir() {
        let error = Error::new(Reason::ReportUnusable, "the cluster that the directories were made for is unknown");
        return Err(error.in_file(&options.file).hint("give the --report of the conversion, which names it"));
    }
    if report.is_none() && found.facts.sha256 == Sha256Check::None {
        convert.to = To::Backend;
    }
    // A refusal by `--strict` would prevent the comparison.
    convert.strict = false;
    convert.sources.clone_from(&options.sources);
    convert.wal_dirs.clone_from(&options.wal_dirs);
    let unusable = |message: String| {
        let error = Error::new(Reason::ReportUnusable, message);
        options.report.iter().fold(error, |error, path| error.in_file(path))
    };
    match (&mut convert.transformer, &options.transformer) {
        (None, None) => {}
        (Some(transformer), Some(program)) => transformer.program.clone_from(program),
        (None, Some(_)) => return Err(unusable("--transformer is given, but the report names no transformer".into())),
        (Some(transformer), None) => {
            let program = short(&transformer.program.display().to_string());
            let error = unusable(format!("the conversion ran the transformer {program}, and it must run again"));
            return Err(error.hint("name the program with --transformer"));
        }
    }
    Ok(convert)
}

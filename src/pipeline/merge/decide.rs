//! The decision on v3 data that the source already has (docs/cli.md, `--existing`; docs/merge.md).
//!
//! v3 data is refused, left out, preserved alone, or preserved with the v2 keys added. Preserved data stays byte for
//! byte: every revision, lease, user and compaction mark. etcdlift does not apply v3 entries of the log, so a merge is
//! refused if the backend lacks committed data. Must not know pages.

use crate::bolt::Db;
use crate::count::counted;
use crate::display::{first_of, lossy};
use crate::error::{Error, Reason, Result};
use crate::ids::RaftIndex;
use crate::interrupt::Interrupt;
use crate::notice::Code;
use crate::options::{ConvertOptions, Existing};
use crate::pipeline::backend::Backend;
use crate::pipeline::context::Context;
use crate::pipeline::diagnostics::{MergeFindings, PlanFindings};
use crate::pipeline::merge::agreement;
use crate::pipeline::merge::preserved::Preserved;
use crate::pipeline::merge::unapplied::{self, UnappliedEntry};
use crate::pipeline::replay::Replayed;
use crate::report::Notice;
use crate::report::facts::{Contents, ExistingFacts};
use crate::source::dir::Layout;
use crate::source::open::Opened;
use crate::transform::policy::NAMESPACE;
use crate::v2store::replay::Recovered;
use crate::v2store::tree::Tree;
use crate::verify::{self, V3Summary};

/// Applies `--existing` to the v3 data of the source. Returns the preserved v3 data; `None` without v3 data, so that
/// the conversion continues as for any other source.
///
/// # Errors
/// By the policy: [`Reason::V3Present`], [`Reason::V3Missing`], [`Reason::V3Unapplied`], [`Reason::V3Differs`], [`Reason::IndexNotReached`],
/// [`Reason::Gap`]; [`Reason::Damaged`] for a damaged backend; an interruption.
pub(in crate::pipeline) fn decide<'m>(
    context: &Context<'_>,
    replayed: &Replayed<'m>,
    found: &mut PlanFindings,
) -> Result<Option<Preserved<'m>>> {
    let Replayed { opened, backend, recovered, .. } = replayed;
    let unapplied = unapplied::above(opened, backend, recovered, context.interrupt)?;
    let content = &backend.content;
    match context.options.existing {
        Existing::Fail => refuse(opened, backend, &unapplied).map(|()| None),
        Existing::DropV3 => {
            note_dropped(backend, &unapplied, &mut found.merge);
            found.merge.note_v2v3(content, "which is left out with all v3 data");
            Ok(None)
        }
        Existing::Merge => {
            let preserved = merge(context, replayed, &unapplied, &mut found.merge)?;
            found.merge.note_v2v3(content, STAYS);
            Ok(preserved)
        }
        Existing::KeepV3 => {
            let preserved = merge(context, replayed, &unapplied, &mut found.merge)?;
            let Some(preserved) = preserved else { return Err(missing(opened, backend)) };
            leave_v2_out(&found.contents, &mut found.merge);
            found.merge.note_v2v3(content, STAYS);
            Ok(Some(preserved))
        }
    }
}

/// What becomes of v2 trees inside preserved v3 data.
const STAYS: &str = "which stays unchanged: its keys have their v3 names";

/// The maximum number of names that the report lists.
const LISTED: usize = 100;

/// Reports keys that an earlier `etcdctl migrate` may have copied and that v2 has deleted since. Only if v2 and v3
/// share keys is an earlier migration likely.
pub(in crate::pipeline) fn note_only_in_v3(preserved: &Preserved<'_>, tree: &mut Tree<'_>, found: &mut MergeFindings) {
    let index = tree.current_index.0;
    let mut in_v2 = |key: &[u8]| {
        let path = [NAMESPACE, key].concat();
        key.starts_with(b"/") && tree.lookup(&path).is_ok_and(|node| !tree.is_dir(node))
    };
    let (mut both, mut only, mut migrated) = (0u64, 0u64, Vec::new());
    for (key, live) in preserved.live_keys() {
        if in_v2(key) {
            both += 1;
            continue;
        }
        only += 1;
        // It writes each key once, under its own name, with the indexes of v2 (docs/formats.md 12.1).
        let created = live.create.0.cast_unsigned();
        if key.starts_with(b"/") && live.version == 1 && created <= index {
            migrated.push(key);
        }
    }
    if both == 0 || migrated.is_empty() {
        return;
    }
    migrated.sort_unstable();
    let count = migrated.len() as u64;
    let names: Vec<String> = migrated.iter().take(LISTED).map(|key| lossy(key)).collect();
    let (first, more) = (first_of(&names), count.saturating_sub(LISTED as u64));
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    let message = format!(
        "only in v3: {}, {count} of them in the form of an earlier `etcdctl migrate`, so v2 may have deleted them since: \
         {first}{more}",
        counted(only, "key", "keys")
    );
    found.notices.warnings.push(Notice::new(Code::OnlyInV3, message).hint("--existing drop-v3 leaves all v3 data out"));
    let existing = found.existing.get_or_insert_default();
    (existing.only_in_v3, existing.left_by_migrate) = (only, names);
}

fn missing(opened: &Opened, backend: &Backend<'_>) -> Error {
    let message = match backend.map {
        Some(_) => "the v3 backend of the source has no key, lease, user or role, and --existing keep-v3 leaves v2 out",
        None => "the source has no v3 backend (snap/db), and --existing keep-v3 leaves v2 out",
    };
    let path = backend.map.map_or(opened.path(), |map| map.path());
    Error::new(Reason::V3Missing, message).in_file(path)
}

/// Reports that v2 is left out. Then other losses of v2 data do not count.
fn leave_v2_out(contents: &Contents, found: &mut MergeFindings) {
    found.v2_left_out = true;
    let Contents { keys, users, roles, .. } = contents;
    let counts = [
        (*keys, "v2 key", "v2 keys"),
        (users.len() as u64, "v2 user", "v2 users"),
        (roles.len() as u64, "v2 role", "v2 roles"),
    ];
    let left_out: Vec<String> =
        counts.iter().filter(|(count, ..)| *count > 0).map(|(count, one, many)| counted(*count, one, many)).collect();
    if !left_out.is_empty() {
        let message = format!("v2 data of the source is left out by --existing keep-v3: {}", left_out.join(", "));
        found.notices.warn(Code::V2LeftOut, message);
    }
}

fn refuse(opened: &Opened, backend: &Backend<'_>, unapplied: &[UnappliedEntry<'_>]) -> Result<()> {
    let Some(found) = describe(backend, unapplied) else { return Ok(()) };
    if opened.start_member().is_some_and(|member| member.layout == Some(Layout::Log)) {
        let message = format!("the log also has v3 data ({found}), and a log does not contain the v3 database");
        let error = Error::new(Reason::V3Present, message).in_file(opened.path());
        return Err(error.hint("name the data directory, or leave the v3 data out with --existing drop-v3"));
    }
    let error = Error::new(Reason::V3Present, format!("the source also holds v3 data ({found})"));
    Err(error.in_file(opened.path()).hint(
        "give --existing merge to add the v2 keys to the v3 data, --existing drop-v3 to leave the v3 data out, or --existing \
         keep-v3 to leave v2 out",
    ))
}

/// Returns whether a conversion of the source needs another `--existing` than its default.
///
/// # Errors
/// As [`unapplied::above`].
pub(in crate::pipeline) fn has_v3_data(
    opened: &Opened,
    backend: &Backend<'_>,
    recovered: &Recovered<'_>,
    interrupt: Interrupt<'_>,
) -> Result<bool> {
    let unapplied = unapplied::above(opened, backend, recovered, interrupt)?;
    Ok(describe(backend, &unapplied).is_some())
}

/// Describes the v3 data of the source; `None` if it has none.
fn describe(backend: &Backend<'_>, unapplied: &[UnappliedEntry<'_>]) -> Option<String> {
    let in_log = unapplied.iter().filter(|(_, request)| request.adds()).count() as u64;
    let in_log = (in_log > 0).then(|| format!("{} in its log", counted(in_log, "v3 write", "v3 writes")));
    let in_backend = backend.describe().map(|what| format!("{what} in its v3 backend"));
    match (in_backend, in_log) {
        (Some(a), Some(b)) => Some(format!("{a} and {b}")),
        (a, b) => a.or(b),
    }
}

fn note_dropped(backend: &Backend<'_>, unapplied: &[UnappliedEntry<'_>], found: &mut MergeFindings) {
    let Some(what) = describe(backend, unapplied) else { return };
    found.notices.warn(Code::V3Dropped, format!("v3 data of the source is left out by --existing drop-v3: {what}"));
    let content = &backend.content;
    found.existing = Some(ExistingFacts {
        path: path_of(backend),
        consistent_index: backend.consistent_index.map(|index| index.0),
        changes: content.changes,
        keys: content.keys,
        leases: content.leases,
        users: content.users,
        roles: content.roles,
        unapplied: unapplied::lines(unapplied),
        ..ExistingFacts::default()
    });
}

fn path_of(backend: &Backend<'_>) -> String {
    backend.map.map_or(String::new(), |map| map.path().display().to_string())
}

fn merge<'m>(
    context: &Context<'_>,
    replayed: &Replayed<'m>,
    unapplied: &[UnappliedEntry<'m>],
    found: &mut MergeFindings,
) -> Result<Option<Preserved<'m>>> {
    let Replayed { opened, backend, recovered, .. } = replayed;
    let (options, interrupt) = (context.options, context.interrupt);
    let mut preserved = Preserved::default();
    let mut summary = V3Summary::default();
    if let Some(map) = backend.map {
        let failed = |e: crate::bolt::Damage| e.into_error(Reason::Damaged).context("v3 backend").in_file(map.path());
        let db = Db::open(map.bytes()).map_err(failed)?;
        let carried = verify::carried(&db.watched(interrupt));
        interrupt.ask()?;
        summary = carried.map_err(failed)?;
        refuse_unsound(&summary).map_err(|e| e.in_file(map.path()))?;
        preserved = Preserved::read(&db, summary.revision, interrupt).map_err(|e| e.in_file(map.path()))?;
        found.notices.warnings.extend(agreement::check(opened, (backend, &db, &summary), interrupt)?);
    }
    let unapplied: Vec<UnappliedEntry<'_>> = unapplied::not_shown(unapplied, &preserved);
    if !unapplied.is_empty() {
        let facts = found.existing.get_or_insert_default();
        (facts.path, facts.unapplied) = (path_of(backend), unapplied::lines(&unapplied));
        return Err(unapplied::refuse(opened, backend, &unapplied, ("committed", "convert")));
    }
    if preserved.is_empty() {
        return Ok(None);
    }
    refuse_other_states(opened, backend, recovered, options)?;
    found.existing = Some(ExistingFacts {
        path: path_of(backend),
        preserved: true,
        consistent_index: backend.consistent_index.map(|index| index.0),
        revision: summary.revision.0.cast_unsigned(),
        compact_revision: summary.compacted.map(|revision| revision.0.cast_unsigned()),
        changes: summary.pairs,
        keys: summary.keys,
        leases: summary.leases,
        users: summary.users,
        roles: summary.roles,
        ..ExistingFacts::default()
    });
    note_tail(opened, recovered, found, interrupt)?;
    preserved.leave_out_of(options.to);
    Ok(Some(preserved))
}

fn refuse_unsound(summary: &V3Summary) -> Result<()> {
    let Some(finding) = summary.findings.first() else { return Ok(()) };
    let message =
        format!("etcd does not write a v3 backend like this one, so its data cannot be preserved: {}", finding.message);
    Err(Error::new(Reason::Damaged, message).at(finding.offset))
}

/// Refuses v2 and v3 data of different instants: a backend after the v2 state, or one separated from it by a gap in the
/// log.
fn refuse_other_states(
    opened: &Opened,
    backend: &Backend<'_>,
    recovered: &Recovered<'_>,
    options: &ConvertOptions,
) -> Result<()> {
    let applied = backend.consistent_index.unwrap_or(RaftIndex(0));
    let state = recovered.replay.applied;
    let start = opened.start.index();
    let refusal = if applied > state && opened.wal().is_some() {
        let message = format!("the v3 backend is at raft index {applied}, the v2 keys are at {state}");
        let needed = match options.existing {
            Existing::KeepV3 => "the backend has no earlier state",
            _ => "a merge needs both at one index",
        };
        Some((Reason::IndexNotReached, format!("{message}: {needed}"), Some(format!("stop at {applied} or later"))))
    } else if applied < start && opened.wal().is_none_or(|wal| !wal.continues(applied)) {
        let message = format!(
            "the v3 backend is at raft index {applied}, the snapshot at {start}, and the log between them is missing: it may \
             have v3 writes"
        );
        Some((Reason::Gap, message, None))
    } else {
        None
    };
    match (refusal, backend.map) {
        (Some((reason, message, hint)), Some(map)) => {
            let error = Error::new(reason, message).in_file(map.path());
            Err(hint.into_iter().fold(error, |error, hint| error.hint(hint)))
        }
        _ => Ok(()),
    }
}

/// Reports a loss for v3 writes in the log whose commit nothing proves: neither the v2 state nor the backend has them.
fn note_tail(
    opened: &Opened,
    recovered: &Recovered<'_>,
    found: &mut MergeFindings,
    interrupt: Interrupt<'_>,
) -> Result<()> {
    let left_out = unapplied::left_out(opened, recovered.replay.applied, interrupt)?;
    if left_out.is_empty() {
        return Ok(());
    }
    let count = counted(left_out.len() as u64, "v3 write", "v3 writes");
    let message = format!(
        "{count} in the log after raft index {} left out, because nothing proves a commit",
        recovered.replay.applied
    );
    found.existing.get_or_insert_default().unapplied = unapplied::lines(&left_out);
    found.notices.lose(Code::V3TailLeftOut, message);
    Ok(())
}

//! v3 data that the source already holds (CLI.md, `--existing`): refused, left out by name, or preserved as they are, alone or under
//! the keys that come from v2.
//!
//! What is preserved is preserved byte for byte: every revision, lease, user and compaction mark. A merge is refused where the backend
//! does not hold all that the cluster had committed, for what stands in the log alone is not applied here.

use crate::bolt::Db;
use crate::count::counted;
use crate::display::first_of;
use crate::display::lossy;
use crate::error::{Error, Reason, Result};
use crate::ids::RaftIndex;
use crate::interrupt::Interrupt;
use crate::notice::Code;
use crate::options::{ConvertOptions, Existing};
use crate::pipeline::merge::preserved::Preserved;
use crate::pipeline::merge::unapplied::{self, Unapplied};
use crate::pipeline::read::{Backend, v2v3_words};
use crate::report::Report;
use crate::report::facts::{Contents, ExistingFacts, V2v3};
use crate::source::dir::Layout;
use crate::source::open::Opened;
use crate::transform::policy::NAMESPACE;
use crate::v2store::replay::Recovered;
use crate::v2store::tree::Tree;
use crate::verify::{self, V2v3Tree, V3Content, V3Summary};

/// Decides what becomes of v3 data in the source, and notes it in the report. Where there is nothing to keep there is nothing
/// to merge with, and the conversion goes on as for any other source.
///
/// # Errors
/// [`Reason::V3Present`], [`Reason::V3Missing`], [`Reason::V3Unapplied`] and [`Reason::Gap`] as the policy has it; a backend that is
/// not sound.
pub(in crate::pipeline) fn decide<'m>(
    opened: &'m Opened,
    backend: &Backend<'m>,
    recovered: &Recovered<'m>,
    options: &ConvertOptions,
    report: &mut Report,
    interrupt: Interrupt<'_>,
) -> Result<Option<Preserved<'m>>> {
    let entries = unapplied::above(opened, backend, recovered, interrupt)?;
    match options.existing {
        Existing::Fail => refuse(opened, backend, &entries).map(|()| None),
        Existing::DropV3 => {
            note_dropped(backend, &entries, report);
            note_v2v3(&backend.content, report, "which is left out with all v3 data");
            Ok(None)
        }
        Existing::Merge => {
            let preserved = merge(opened, backend, recovered, &entries, options, report, interrupt)?;
            note_v2v3(&backend.content, report, STAYS);
            Ok(preserved)
        }
        Existing::KeepV3 => {
            let preserved = merge(opened, backend, recovered, &entries, options, report, interrupt)?;
            let Some(preserved) = preserved else { return Err(missing(opened, backend)) };
            leave_v2_out(report);
            note_v2v3(&backend.content, report, STAYS);
            Ok(Some(preserved))
        }
    }
}

/// What becomes of v2 trees inside v3 where v3 data are preserved.
const STAYS: &str = "which stays as it is: its keys keep their v3 names";

/// Names v2 trees that a server stored in v3.
pub(in crate::pipeline) fn note_v2v3(content: &V3Content, report: &mut Report, becomes: &str) {
    for tree in &content.v2v3 {
        report.warn(Code::V2v3Tree, format!("v3 holds {}, {becomes}", v2v3_words(tree)));
    }
    if let Some(existing) = report.existing.as_mut() {
        let facts = |tree: &V2v3Tree| V2v3 { prefix: lossy(&tree.prefix), keys: tree.keys };
        existing.v2v3 = content.v2v3.iter().map(facts).collect();
    }
}

/// Names that the report lists.
const LISTED: usize = 100;

/// Keys that an earlier `etcdctl migrate` may have left behind, and v2 has deleted since. Only keys that both have are a sign
/// that there was one.
pub(in crate::pipeline) fn note_only_in_v3(preserved: &Preserved<'_>, tree: &mut Tree<'_>, report: &mut Report) {
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
        // It writes each key once, under its own name, with the indexes of v2 (FORMATS 12.1).
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
        "only in v3: {}, {count} of them as an earlier `etcdctl migrate` writes keys, which v2 may have deleted since: \
         {first}{more}; --existing drop-v3 starts without any v3 data",
        counted(only, "key", "keys")
    );
    report.warn(Code::OnlyInV3, message);
    let existing = report.existing.get_or_insert_default();
    (existing.only_in_v3, existing.left_by_migrate) = (only, names);
}

fn missing(opened: &Opened, backend: &Backend<'_>) -> Error {
    let message = match backend.map {
        Some(_) => {
            "the v3 backend of the source holds no key, lease, user or role, and --existing keep-v3 leaves v2 out"
        }
        None => "the source has no v3 backend (snap/db), and --existing keep-v3 leaves v2 out",
    };
    let path = backend.map.map_or(opened.path(), |map| map.path());
    Error::new(Reason::V3Missing, message).in_file(path)
}

/// Losses of v2 alone.
const V2_LOSSES: [Code; 2] = [Code::TailLeftOut, Code::BackupRenumbered];

/// Says that v2 is left out; what is lost of it besides is no loss then.
fn leave_v2_out(report: &mut Report) {
    report.losses.retain(|loss| !V2_LOSSES.iter().any(|code| code.word() == loss.code));
    let Contents { keys, users, roles, .. } = &report.contents;
    let counts = [
        (*keys, "v2 key", "v2 keys"),
        (users.len() as u64, "v2 user", "v2 users"),
        (roles.len() as u64, "v2 role", "v2 roles"),
    ];
    let left_out: Vec<String> =
        counts.iter().filter(|(count, ..)| *count > 0).map(|(count, one, many)| counted(*count, one, many)).collect();
    if !left_out.is_empty() {
        let message =
            format!("v2 data of the source is left out, as --existing keep-v3 has it: {}", left_out.join(", "));
        report.warn(Code::V2LeftOut, message);
    }
}

/// A backend that cannot be read may hold v3 data. The v2 keys do not need it.
///
/// # Errors
/// [`Reason::V3Unreadable`], unless v3 data are to be left out.
pub(in crate::pipeline) fn refuse_unusable(
    backend: &Backend<'_>,
    options: &ConvertOptions,
    report: &mut Report,
) -> Result<()> {
    match &backend.unusable {
        None => Ok(()),
        Some(_) if options.existing == Existing::DropV3 => {
            backend.note_unusable(report);
            Ok(())
        }
        Some(error) => {
            let hint = match error.hint_text() {
                Some(hint) => format!("{hint}, or convert the v2 keys without it: --existing drop-v3"),
                None => "convert the v2 keys without it: --existing drop-v3".to_string(),
            };
            let refusal = Error::new(Reason::V3Unreadable, error.message()).hint(hint);
            let refusal = error.file().into_iter().fold(refusal, |refusal, file| refusal.in_file(file));
            Err(error.offset().into_iter().fold(refusal, Error::at))
        }
    }
}

fn refuse(opened: &Opened, backend: &Backend<'_>, entries: &[Unapplied<'_>]) -> Result<()> {
    let Some(found) = describe(backend, entries) else { return Ok(()) };
    if opened.start_member().is_some_and(|member| member.layout == Some(Layout::Log)) {
        let message = format!(
            "the log has v3 data too ({found}), whose database is not in it: give the data directory, or --existing drop-v3 to start \
             without them"
        );
        return Err(Error::new(Reason::V3Present, message).in_file(opened.path()));
    }
    let message = format!(
        "the source holds v3 data too ({found}): give --existing merge to keep them and add the v2 keys, --existing drop-v3 to \
         start without them, or --existing keep-v3 to leave v2 out"
    );
    Err(Error::new(Reason::V3Present, message).in_file(opened.path()))
}

/// What of v3 data there is, in words; `None` where there is none.
fn describe(backend: &Backend<'_>, entries: &[Unapplied<'_>]) -> Option<String> {
    let in_log = entries.iter().filter(|(_, request)| request.adds()).count() as u64;
    let in_log = (in_log > 0).then(|| format!("{} in its log", counted(in_log, "v3 write", "v3 writes")));
    let in_backend = backend.describe().map(|what| format!("{what} in its v3 backend"));
    match (in_backend, in_log) {
        (Some(a), Some(b)) => Some(format!("{a} and {b}")),
        (a, b) => a.or(b),
    }
}

fn note_dropped(backend: &Backend<'_>, entries: &[Unapplied<'_>], report: &mut Report) {
    let Some(found) = describe(backend, entries) else { return };
    report.warn(Code::V3Dropped, format!("v3 data of the source are left out, as --existing drop-v3 has it: {found}"));
    let content = &backend.content;
    report.existing = Some(ExistingFacts {
        path: path_of(backend),
        consistent_index: backend.consistent_index.map(|index| index.0),
        changes: content.changes,
        keys: content.keys,
        leases: content.leases,
        users: content.users,
        roles: content.roles,
        late_writes: unapplied::lines(entries),
        ..ExistingFacts::default()
    });
}

fn path_of(backend: &Backend<'_>) -> String {
    backend.map.map_or(String::new(), |map| map.path().display().to_string())
}

fn merge<'m>(
    opened: &'m Opened,
    backend: &Backend<'m>,
    recovered: &Recovered<'m>,
    entries: &[Unapplied<'m>],
    options: &ConvertOptions,
    report: &mut Report,
    interrupt: Interrupt<'_>,
) -> Result<Option<Preserved<'m>>> {
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
    }
    let entries: Vec<Unapplied<'_>> = unapplied::not_shown(entries, &preserved);
    if !entries.is_empty() {
        let facts = report.existing.get_or_insert_default();
        (facts.path, facts.late_writes) = (path_of(backend), unapplied::lines(&entries));
        return Err(unapplied::refuse(opened, backend, &entries));
    }
    if preserved.is_empty() {
        return Ok(None);
    }
    refuse_other_states(opened, backend, recovered, options)?;
    report.existing = Some(ExistingFacts {
        path: path_of(backend),
        kept: true,
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
    note_tail(opened, recovered, report, interrupt)?;
    preserved.leave_out_of(options.to);
    Ok(Some(preserved))
}

fn refuse_unsound(summary: &V3Summary) -> Result<()> {
    let Some(finding) = summary.findings.first() else { return Ok(()) };
    let message =
        format!("the v3 backend is not as etcd writes it, and what is in it cannot be carried on: {}", finding.message);
    Err(Error::new(Reason::Damaged, message).at(finding.offset))
}

/// v2 and v3 of one instant, or none: a backend that is ahead of the v2 state, or behind a hole in the log.
fn refuse_other_states(
    opened: &Opened,
    backend: &Backend<'_>,
    recovered: &Recovered<'_>,
    options: &ConvertOptions,
) -> Result<()> {
    let applied = backend.consistent_index.unwrap_or(RaftIndex(0));
    let state = recovered.replay.applied;
    let start = opened.start.index();
    let reason_and_message = if applied > state && opened.wal().is_some() {
        let message = format!("the v3 backend stands at raft index {applied} and the v2 keys at {state}");
        let needed = match options.existing {
            Existing::KeepV3 => "it holds no earlier state",
            _ => "a merge needs both at once",
        };
        Some((Reason::IndexNotReached, format!("{message}: {needed}, so stop at {applied} or later")))
    } else if applied < start && opened.wal().is_none_or(|wal| !wal.continues(applied)) {
        let message = format!("the v3 backend stands at raft index {applied}, the snapshot at {start}");
        Some((Reason::Gap, format!("{message}, and the log between them, which may have v3 writes, is not here")))
    } else {
        None
    };
    match (reason_and_message, backend.map) {
        (Some((reason, message)), Some(map)) => Err(Error::new(reason, message).in_file(map.path())),
        _ => Ok(()),
    }
}

/// v3 writes that are not known to be committed are in neither: as with those of v2, the operator has to know.
fn note_tail(opened: &Opened, recovered: &Recovered<'_>, report: &mut Report, interrupt: Interrupt<'_>) -> Result<()> {
    let left_out = unapplied::left_out(opened, recovered.replay.applied, interrupt)?;
    if left_out.is_empty() {
        return Ok(());
    }
    let count = counted(left_out.len() as u64, "v3 write", "v3 writes");
    let message = format!(
        "{count} in the log above raft index {} left out, because nothing here proves a commit",
        recovered.replay.applied
    );
    report.existing.get_or_insert_default().late_writes = unapplied::lines(&left_out);
    report.lose(Code::V3TailLeftOut, message);
    Ok(())
}

//! `check`: would an etcd version start on a data directory, and which v2 data would it lose (docs/formats.md 11.2)?
//!
//! Each source is judged by itself, as the server of that member does when it starts. `snapshots` reads the `.snap` files,
//! `requests` the log, and `versions` reads the versions. Nothing is replayed. Must not know the other members.

mod requests;
mod snapshots;
mod versions;

use std::path::Path;

use requests::Rules;

use super::backend::Backend;
use super::completeness::end_missing;
use super::inspect::open_options;
use super::{Interrupted, backend};
use crate::count::counted;
use crate::error::{Error, Kind, Reason, Result};
use crate::ids::RaftIndex;
use crate::interrupt::Interrupt;
use crate::notice::Code;
use crate::options::{CheckOptions, UpgradeTarget, WalDir};
use crate::report::upgrade_check::{CheckedSource, UpgradeCheck, V2Request};
use crate::report::{Notice, next_steps};
use crate::source::live_copy::Access;
use crate::source::map::Map;
use crate::source::member::Member;
use crate::source::open::{Found, OpenOptions, Opened, open};
use crate::source::wal::Wal;

/// The hint for a source without v3 data.
pub(super) const CONVERT: &str = "`etcdlift convert` makes a v3 database of v2 data";

/// Checks data directories before an upgrade.
///
/// # Errors
/// No source can be judged: the error of the first; an interruption; a file changed while it was read.
pub fn check(options: &CheckOptions, interrupted: Interrupted<'_>) -> Result<UpgradeCheck> {
    let wal_dirs = options.wal_dirs.len();
    if options.sources.is_empty() || (wal_dirs > 0 && wal_dirs != options.sources.len()) {
        let message = "expected at least 1 source, and as many log directories as sources or none";
        return Err(Error::new(Reason::Usage, message));
    }
    let open_options = open_options(options.allow_live, Interrupt::new(interrupted));
    open_options.watch.settle(check_sources(options, &open_options))
}

fn check_sources(options: &CheckOptions, open_options: &OpenOptions<'_>) -> Result<UpgradeCheck> {
    let mut result = UpgradeCheck { target_version: options.target, ..UpgradeCheck::default() };
    let mut first_error = None;
    for (at, path) in options.sources.iter().enumerate() {
        let source = Source { path, wal_dir: options.wal_dirs.get(at), target: options.target };
        let mut checked = match source.check(open_options).map_err(advised) {
            Ok(checked) => checked,
            Err(error) if is_of_source(&error) => {
                let (exit_status, text) = (error.kind().exit_code(), Some(error.to_string()));
                first_error.get_or_insert(error);
                CheckedSource { exit_status, error: text, ..CheckedSource::default() }
            }
            Err(error) => return Err(error),
        };
        checked.path = path.display().to_string();
        result.sources.push(checked);
    }
    match first_error {
        Some(error) if result.sources.iter().all(|source| source.error.is_some()) => Err(error),
        _ => {
            result.judge();
            Ok(result)
        }
    }
}

/// Returns whether an error concerns one source, so that the others can still be judged.
fn is_of_source(error: &Error) -> bool {
    matches!(error.kind(), Kind::Damaged | Kind::Refused) && error.reason() != Reason::ChangedWhileReading
}

/// Replaces a hint that names what only a conversion can do.
fn advised(error: Error) -> Error {
    let hint = match error.reason() {
        Reason::Locked => "stop that etcd, check a copy, or use --allow-live",
        Reason::WalMissing => "give --wal-dir DIR",
        Reason::Damaged | Reason::Gap => "take another copy while etcd is stopped",
        _ => return error,
    };
    let advised = Error::new(error.reason(), error.message()).hint(hint);
    let advised = error.file().into_iter().fold(advised, Error::in_file);
    error.offset().into_iter().fold(advised, Error::at)
}

/// Opens the data directory of a member with its log.
///
/// # Errors
/// It is something else, or cannot be read.
pub(super) fn open_member(path: &Path, wal_dir: Option<&WalDir>, options: &OpenOptions<'_>) -> Result<Box<Opened>> {
    let options = OpenOptions { recorded_snapshots: true, ..options.clone() };
    match open(path, wal_dir, &options).map_err(with_log)? {
        Found::V2(opened) if opened.start_member().is_some_and(|member| member.layout.is_some()) => Ok(opened),
        _ => Err(not_a_member(path)),
    }
}

/// Returns the v3 backend of a member, and its file.
///
/// # Errors
/// [`Reason::V3Missing`]; an interruption.
pub(super) fn v3_backend<'m>(
    path: &Path,
    opened: &'m Opened,
    interrupt: Interrupt<'_>,
) -> Result<(Backend<'m>, &'m Map)> {
    let backend = backend::newest(opened, interrupt)?;
    match backend.map.filter(|map| !map.bytes().is_empty()) {
        Some(map) => Ok((backend, map)),
        None => {
            let has_v3 = opened.wal().map_or(Ok(false), |wal| requests::has_v3(wal, interrupt))?;
            let (message, hint) = match has_v3 {
                true => (
                    "found no v3 backend (member/snap/db), but v3 requests in the log",
                    "copy the whole data directory",
                ),
                false => ("found no v3 backend (member/snap/db): the data directory has v2 data only", CONVERT),
            };
            Err(Error::new(Reason::V3Missing, message).hint(hint).in_file(path))
        }
    }
}

/// Returns the number of v3 writes in the log after the raft index of a backend without v3 data; 0 for other backends.
///
/// # Errors
/// An interruption.
pub(super) fn unapplied_v3(wal: &Wal, backend: &Backend<'_>, interrupt: Interrupt<'_>) -> Result<u64> {
    if !backend.content.is_empty() || backend.content.changes > 0 {
        return Ok(0);
    }
    requests::v3_writes_after(wal, backend.consistent_index.unwrap_or_default(), interrupt)
}

/// Says that a backend lacks v3 writes of the log.
pub(super) fn unapplied_words(writes: u64, backend: &Backend<'_>) -> String {
    let applied = backend.consistent_index.unwrap_or_default();
    let writes = counted(writes, "v3 write in the log is", "v3 writes in the log are");
    format!("{writes} not applied to the v3 backend (which is at raft index {applied})")
}

/// Names a snapshot that etcd does not read, and the backend that a leader sent with it.
fn ignored(snapshot: &Path) -> Notice {
    let message =
        format!("{}: the log has no committed record of this snapshot, so etcd ignores it", snapshot.display());
    Notice::new(Code::SnapshotPassedOver, message)
}

/// Judges an opened source, as [`check`] does.
///
/// # Errors
/// Those of [`check`] for one source.
pub(super) fn judge(
    path: &Path,
    wal_dir: Option<&WalDir>,
    opened: &Opened,
    target: UpgradeTarget,
    options: &OpenOptions<'_>,
) -> Result<CheckedSource> {
    Source { path, wal_dir, target }.judge(opened, options)
}

/// Returns the v2 requests after a raft index that a version does not accept. `map` is the v3 backend at that index.
///
/// # Errors
/// An entry or the backend is damaged; an interruption.
pub(super) fn blockers_after(
    wal: &Wal,
    map: &Map,
    index: RaftIndex,
    target: UpgradeTarget,
    interrupt: Interrupt<'_>,
) -> Result<Vec<V2Request>> {
    let committed = wal.hard_state().unwrap_or_default().commit.max(index);
    let members = requests::members(map, interrupt)?;
    let rules = Rules { target, snapshot: index, replay_after: index, committed, applied: index, members };
    Ok(requests::read(wal, rules, interrupt)?.blockers)
}

/// Refuses a member of a later version than the one that will start on a copy, which replays what follows the backend.
///
/// # Errors
/// [`Reason::CannotContinue`]; the source is damaged; an interruption.
pub(super) fn require_version(
    path: &Path,
    opened: &Opened,
    target: UpgradeTarget,
    options: &OpenOptions<'_>,
) -> Result<()> {
    let (backend, map) = v3_backend(path, opened, options.interrupt)?;
    // A backend that cannot be used has another error.
    let Some(wal) = opened.wal().filter(|_| backend.unusable.is_none()) else { return Ok(()) };
    let applied = backend.consistent_index.unwrap_or_default();
    versions::require((map, wal), applied, target, options.interrupt).map_err(|e| e.in_file(path))
}

/// Refuses what no etcd starts on.
fn not_a_member(path: &Path) -> Error {
    let message = "expected the data directory of a member with its log, found something else";
    Error::new(Reason::UnsupportedFormat, message).in_file(path)
}

/// A source as the operator named it.
struct Source<'o> {
    path: &'o Path,
    wal_dir: Option<&'o WalDir>,
    target: UpgradeTarget,
}

impl Source<'_> {
    fn check(&self, options: &OpenOptions<'_>) -> Result<CheckedSource> {
        let opened = open_member(self.path, self.wal_dir, options)?;
        self.judge(&opened, options)
    }

    fn judge(&self, opened: &Opened, options: &OpenOptions<'_>) -> Result<CheckedSource> {
        let (Some(member), Some(wal)) = (opened.start_member(), opened.wal()) else {
            return Err(not_a_member(self.path));
        };
        let (backend, map) = v3_backend(self.path, opened, options.interrupt)?;
        let members = requests::members(map, options.interrupt)?;
        let mut checked = self.describe(opened, member, wal, &backend);
        let snapshots = snapshots::read(member, wal, options.interrupt)?;
        let snapshot = snapshots.counting.as_ref().map_or(RaftIndex(0), |counting| RaftIndex(counting.raft_index));
        let applied = backend.consistent_index.unwrap_or_default();
        let replay_after = match self.target {
            UpgradeTarget::V3_6 => snapshot,
            UpgradeTarget::V3_7 => last_record(wal),
        };
        self.check_log(wal, replay_after)?;
        checked.warnings.extend(snapshots.unrecorded.iter().map(|path| ignored(path)));
        let unapplied = unapplied_v3(wal, &backend, options.interrupt)?;
        checked.warnings.extend((unapplied > 0).then(|| {
            let message = unapplied_words(unapplied, &backend);
            Notice::new(Code::V3Unapplied, message)
                .hint("start etcd 3.5 on the source once and stop it cleanly before `convert`")
        }));
        let committed = RaftIndex(checked.commit).max(applied);
        let rules = Rules { target: self.target, snapshot, replay_after, committed, applied, members };
        let requests = requests::read(wal, rules, options.interrupt)?;
        checked.replay_after = replay_after.0;
        checked.snapshot = snapshots.counting;
        let nodes = snapshots.nodes;
        match self.target {
            UpgradeTarget::V3_6 => {
                checked.blockers.nodes = nodes.blockers;
                checked.leftovers.nodes = nodes.unseen;
                checked.refused_before_3_6_3 = nodes.empty_auth;
            }
            // 3.7 never reads a `.snap` file.
            UpgradeTarget::V3_7 => checked.leftovers.nodes = [nodes.blockers, nodes.unseen].concat(),
        }
        checked.blockers.later_version = versions::later((map, wal), replay_after, self.target, options.interrupt)?;
        checked.blockers.entries = requests.blockers;
        checked.membership_requests = requests.membership;
        checked.leftovers.requests = requests.others;
        checked.leftovers.snapshots = snapshots.unread;
        checked.losses = losses(member, wal, snapshot, &backend);
        checked.judge();
        checked.next_steps = self.next_steps(&checked, member, unapplied > 0);
        opened.check_bytes(options.interrupt)?;
        Ok(checked)
    }

    fn describe(&self, opened: &Opened, member: &Member, wal: &Wal, backend: &Backend<'_>) -> CheckedSource {
        let mut checked = CheckedSource {
            member_id: member.id().map(|id| id.to_string()),
            cluster_id: wal.metadata().map(|metadata| metadata.cluster_id.to_string()),
            last_entry: wal.last().map(|(_, index)| index.0),
            commit: wal.hard_state().unwrap_or_default().commit.0,
            consistent_index: backend.consistent_index.map(|index| index.0),
            has_v3_data: backend.describe().is_some(),
            ..CheckedSource::default()
        };
        let broken = member.unread_segments.iter().filter(|segment| member.is_renamed(segment));
        checked.leftovers.broken_segments = broken.map(|segment| segment.path.display().to_string()).collect();
        if opened.is_live() {
            let message = "an etcd is running on the source: what it writes from now on is not checked";
            checked.warnings.push(Notice::new(Code::Live, message));
        }
        checked
    }

    /// Checks that the log is undamaged, as etcd does, and that it has every entry that the version replays.
    fn check_log(&self, wal: &Wal, replay_after: RaftIndex) -> Result<()> {
        if let Some(hole) = wal.holes().first() {
            let error = Error::new(Reason::Damaged, hole.error.message());
            let error = hole.error.file().into_iter().fold(error, Error::in_file);
            return Err(hole.error.offset().into_iter().fold(error, Error::at));
        }
        if wal.continues(replay_after) {
            return Ok(());
        }
        let message = format!("expected raft entry {} and all after it in the log", replay_after.0.saturating_add(1));
        Err(Error::new(Reason::Gap, message).in_file(self.path))
    }

    fn next_steps(&self, checked: &CheckedSource, member: &Member, is_unapplied: bool) -> Vec<String> {
        // Neither a conversion nor a copy helps with a later version.
        let is_later = checked.blockers.later_version.is_some();
        if is_later || (!checked.verdict.is_blocked() && !checked.loses_data()) {
            return Vec::new();
        }
        let source = next_steps::quoted(self.path);
        let wal_dir = match self.wal_dir {
            Some(WalDir::Dir(path)) => format!(" --wal-dir {}", next_steps::quoted(path)),
            _ => String::new(),
        };
        let live = if member.access() == Access::Live { " --allow-live" } else { "" };
        let convert = format!("etcdlift convert {source} -o snapshot.db{wal_dir}{live}");
        let target = match self.target {
            UpgradeTarget::V3_6 => String::new(),
            later => format!(" --target-version {later}"),
        };
        let clean = format!("etcdlift clean {source} -o clean.etcd{wal_dir}{target}");
        match (checked.has_v3_data, checked.consistent_index) {
            (true, _) => vec![format!("{convert} --existing merge"), clean],
            // A merge needs a backend with all v3 writes, and `clean` one that is at a raft index.
            (false, Some(_)) if is_unapplied => vec![clean],
            (false, None) if is_unapplied => Vec::new(),
            (false, _) => vec![convert],
        }
    }
}

/// Gives the error of a missing log the only hint that helps here.
fn with_log(error: Error) -> Error {
    if error.reason() != Reason::WalMissing {
        return error;
    }
    let missing = Error::new(Reason::WalMissing, error.message()).hint("give --wal-dir DIR");
    error.file().into_iter().fold(missing, Error::in_file)
}

/// Returns the raft index of the last snapshot record at or below the commit index.
fn last_record(wal: &Wal) -> RaftIndex {
    let commit = wal.hard_state().unwrap_or_default().commit;
    wal.snapshots().iter().rfind(|record| record.index <= commit).map_or(RaftIndex(0), |record| record.index)
}

/// Returns why the source is possibly incomplete, so that the answer is uncertain.
fn losses(member: &Member, wal: &Wal, snapshot: RaftIndex, backend: &Backend<'_>) -> Vec<Notice> {
    let mut losses = end_missing(member, wal);
    let last = wal.last().map_or(RaftIndex(0), |(_, index)| index);
    let mut lose = |message: String| losses.push(Notice::new(Code::CutCopy, message));
    match backend.consistent_index {
        Some(index) if index > last => {
            lose(format!(
                "the v3 backend is at raft index {index}, and the log ends at {last}: part of it may be missing"
            ));
        }
        Some(index) if index < snapshot => {
            lose(format!(
                "the v3 backend is at raft index {index}, before the snapshot at {snapshot}: etcd refuses it"
            ));
        }
        _ => {}
    }
    losses
}

//! One source of `clean`: whether it can be copied without v2 content, and what is removed from it.
//!
//! `check` decides which entries and nodes are v2 content. Must not know the other members, or where the copy is
//! written.

use std::path::{Path, PathBuf};

use super::changes::first_ignored;
use super::identity::{self, Identity};
use crate::data_dir::Restart;
use crate::error::{Error, Reason, Result};
use crate::ids::{ClusterId, MemberId, RaftIndex, Term};
use crate::interrupt::Interrupt;
use crate::notice::Code;
use crate::options::{UpgradeTarget, WalDir};
use crate::pipeline::backend::Backend;
use crate::pipeline::check;
use crate::report::Notice;
use crate::report::upgrade_check::{CheckedSource, V2Node, V2Request};
use crate::source::entries::End;
use crate::source::map::Map;
use crate::source::open::{OpenOptions, Opened};
use crate::source::raft::{Entry, EntryKind, HardState};
use crate::source::wal::Wal;

const ANOTHER_COPY: &str = "take another copy while etcd is stopped, or copy another member";

/// The hint for a source whose log has what the v3 backend lacks.
const START_3_5: &str = "start etcd 3.5 on the source once, stop it cleanly, and clean again";

/// What a member continues with.
pub(super) struct Plan {
    pub(super) path: PathBuf,
    pub(super) id: MemberId,
    pub(super) cluster: ClusterId,
    /// The raft index and term of the last entry in the v3 backend.
    pub(super) index: RaftIndex,
    pub(super) term: Term,
    pub(super) state: HardState,
    pub(super) identity: Identity,
    /// The v3 backend.
    pub(super) db: PathBuf,
    /// Entries after the index that are replaced, by index.
    pub(super) replaced: Vec<V2Request>,
    /// Nodes that the snapshot of the source has.
    pub(super) nodes: Vec<V2Node>,
    pub(super) warnings: Vec<Notice>,
}

/// Replaces the hint of an error by the one that helps here.
pub(super) fn advised(error: Error) -> Error {
    let hint = match error.reason() {
        Reason::Locked => "stop that etcd, or copy its directory while it is stopped",
        Reason::WalMissing => "give --wal-dir DIR",
        Reason::Damaged | Reason::Gap | Reason::CommitBeyondLog => ANOTHER_COPY,
        _ => return error,
    };
    let advised = Error::new(error.reason(), error.message()).hint(hint);
    let advised = error.file().into_iter().fold(advised, Error::in_file);
    error.offset().into_iter().fold(advised, Error::at)
}

/// Reads a source.
///
/// # Errors
/// The member cannot continue without its v2 content; the source is damaged; an interruption.
pub(super) fn plan(
    (path, wal_dir): (&Path, Option<&WalDir>),
    opened: &Opened,
    target: UpgradeTarget,
    options: &OpenOptions<'_>,
) -> Result<Plan> {
    let interrupt = options.interrupt;
    let (backend, map) = check::v3_backend(path, opened, interrupt)?;
    if let Some(error) = backend.unusable {
        return Err(error);
    }
    refuse_without_v3(opened, &backend, interrupt).map_err(|e| e.in_file(path))?;
    let judged = check::judge(path, wal_dir, opened, UpgradeTarget::V3_6, options)?;
    refuse_losses(&judged).map_err(|e| e.in_file(path))?;
    let (Some(wal), Some(metadata)) = (opened.wal(), opened.wal().and_then(Wal::metadata)) else {
        return Err(Error::new(Reason::WalMissing, "the log does not name its member").in_file(path));
    };
    let Some(index) = backend.consistent_index else {
        let message = "the v3 backend does not contain the raft index of its last entry";
        return Err(Error::new(Reason::CannotContinue, message).in_file(map.path()));
    };
    let state = reach(wal, index).map_err(|e| e.in_file(path))?;
    let identity = identity::read((path, wal_dir), (&backend, map), index, options)?;
    if let Some(change) = first_ignored(wal, (index, state.commit), identity.memberships(), interrupt)? {
        let message = format!(
            "etcd 3.6 would ignore the configuration change of raft entry {change}: the v3 backend has its members, and is at raft \
             index {index}"
        );
        return Err(Error::new(Reason::CannotContinue, message).hint(START_3_5).in_file(path));
    }
    let Some(term) = term(wal, index, identity.term) else {
        let message = format!("the log does not contain raft entry {index}, the last one in the v3 backend");
        return Err(Error::new(Reason::Gap, message).in_file(path));
    };
    let mut plan = Plan {
        path: path.to_path_buf(),
        id: metadata.node_id,
        cluster: metadata.cluster_id,
        index,
        term,
        state,
        identity,
        db: map.path().to_path_buf(),
        replaced: replaced(wal, map, index, target, interrupt)?,
        nodes: [judged.blockers.nodes, judged.leftovers.nodes, judged.refused_before_3_6_3].concat(),
        warnings: Vec::new(),
    };
    plan.warn(wal);
    plan.warnings.extend(judged.warnings.into_iter().filter(|warning| warning.code == Code::SnapshotPassedOver));
    opened.check_bytes(interrupt)?;
    Ok(plan)
}

/// Refuses a source without v3 data, and one whose v3 data is all in the log while nothing says where the backend is.
fn refuse_without_v3(opened: &Opened, backend: &Backend<'_>, interrupt: Interrupt<'_>) -> Result<()> {
    if !backend.content.is_empty() || backend.content.changes > 0 {
        return Ok(());
    }
    match opened.wal().map_or(Ok(0), |wal| check::unapplied_v3(wal, backend, interrupt))? {
        0 => {
            let message = "the v3 backend is empty: the data directory has v2 data only";
            Err(Error::new(Reason::V3Missing, message).hint(check::CONVERT))
        }
        writes if backend.consistent_index.is_none() => {
            Err(Error::new(Reason::V3Unapplied, check::unapplied_words(writes, backend)).hint(START_3_5))
        }
        _ => Ok(()),
    }
}

/// Refuses a copy that may lack entries: the member would come back without what it has confirmed to the others.
fn refuse_losses(judged: &CheckedSource) -> Result<()> {
    match judged.losses.first() {
        // The backend is at an index that the log does not reach: that is damage.
        Some(_) if judged.consistent_index > judged.last_entry => {
            let (applied, last) = (judged.consistent_index.unwrap_or(0), judged.last_entry.unwrap_or(0));
            let message = format!("the v3 backend is at raft index {applied}, and the log ends at {last}");
            Err(Error::new(Reason::Gap, message))
        }
        Some(loss) => {
            let message = format!("the copy of a member is incomplete: {}", loss.message);
            Err(Error::new(Reason::CannotContinue, message).hint(ANOTHER_COPY))
        }
        None => Ok(()),
    }
}

/// Returns the hard state to continue with: the log must have every entry from the index of the backend on.
fn reach(wal: &Wal, index: RaftIndex) -> Result<HardState> {
    let last = wal.last().map_or(RaftIndex(0), |(_, last)| last);
    if index > last || !wal.continues(index) {
        let message = format!("the v3 backend is at raft index {index}, and the log does not continue from there");
        return Err(Error::new(Reason::Gap, message));
    }
    let mut state = wal.hard_state().unwrap_or_default();
    if state.commit > last {
        let message = format!("the commit index is {}, and the log ends at {last}", state.commit);
        return Err(Error::new(Reason::CommitBeyondLog, message));
    }
    // A server that was killed may have applied more than its last hard state commits.
    state.commit = state.commit.max(index);
    Ok(state)
}

/// Returns the term of the entry with this index.
fn term(wal: &Wal, index: RaftIndex, in_backend: Option<Term>) -> Option<Term> {
    let in_log = wal.at(index).map(|entry| entry.term);
    let record = || wal.snapshots().iter().rfind(|record| record.index == index).map(|record| record.term);
    in_log.or(in_backend).or_else(record)
}

/// Returns the requests that the target, or 3.6, does not accept.
fn replaced(
    wal: &Wal,
    map: &Map,
    index: RaftIndex,
    target: UpgradeTarget,
    interrupt: Interrupt<'_>,
) -> Result<Vec<V2Request>> {
    let mut found = check::blockers_after(wal, map, index, UpgradeTarget::V3_6, interrupt)?;
    if target != UpgradeTarget::V3_6 {
        found.extend(check::blockers_after(wal, map, index, target, interrupt)?);
        found.sort_by_key(|request| request.raft_index);
        found.dedup_by_key(|request| request.raft_index);
    }
    Ok(found)
}

impl Plan {
    /// Returns the member and its snapshot.
    pub(super) fn restart(&self) -> Restart<'_> {
        Restart {
            member: self.id,
            cluster: self.cluster,
            index: self.index,
            term: self.term,
            conf_state: &self.identity.conf_state,
            members: &self.identity.members,
            removed: &self.identity.removed,
            version: self.identity.version.as_deref(),
        }
    }

    /// Returns the entries after the snapshot, as the copy has them.
    pub(super) fn entries<'w>(&'w self, wal: &'w Wal) -> impl Iterator<Item = Result<Entry<'w>>> {
        let after = wal.history().into_iter().filter(|entry| entry.index > self.index);
        after.map(move |reference| {
            let entry = wal.entry(reference)?;
            Ok(if self.replaces(&entry) { Entry { data: &[], ..entry } } else { entry })
        })
    }

    fn replaces(&self, entry: &Entry<'_>) -> bool {
        let by_index = |request: &V2Request| request.raft_index.cmp(&entry.index.0);
        entry.kind == EntryKind::Normal && self.replaced.binary_search_by(by_index).is_ok()
    }

    /// Returns the name of the member; empty if it is unknown.
    pub(super) fn name(&self) -> &str {
        self.identity.members.iter().find(|member| member.id == self.id).map_or("", |member| &member.name)
    }

    /// Returns whether the member is not in its cluster any more.
    pub(super) fn is_removed(&self) -> bool {
        !self.identity.members.iter().any(|member| member.id == self.id)
    }

    fn warn(&mut self, wal: &Wal) {
        let path = self.path.display();
        let mut notices = Vec::new();
        let mut warn = |code, message: String, hint: &str| notices.push(Notice::new(code, message).hint(hint));
        if self.is_removed() {
            let message = format!("{path}: member {} was removed from its cluster, so no etcd starts on it", self.id);
            warn(Code::RemovedMember, message, "leave its directory out");
        } else if self.identity.differs {
            let message = format!("{path}: the v3 backend does not list the members of the raft configuration");
            warn(Code::MembersDiffer, message, "start etcd 3.5 on the copy before a later version");
        }
        if let End::Torn { .. } = wal.end() {
            let message = format!("{path}: the last record of the log is torn, and left out as etcd does");
            notices.push(Notice::new(Code::TornTail, message));
        }
        self.warnings = notices;
    }
}

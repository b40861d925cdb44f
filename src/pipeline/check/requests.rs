//! The v2 requests in the log of a member: those that stop a version, and those that it never reads (docs/formats.md 5.4, 11.2).
//!
//! Applies nothing. Must not know snapshots.

use std::collections::BTreeSet;

use serde::Deserialize;

use crate::bolt::Db;
use crate::display::lossy;
use crate::error::{Reason, Result};
use crate::ids::{MemberId, RaftIndex};
use crate::interrupt::Interrupt;
use crate::options::UpgradeTarget;
use crate::pipeline::backend;
use crate::report::upgrade_check::{RequestCounts, RequestReason, V2Request};
use crate::source::map::Map;
use crate::source::raft::{
    EntryKind, Method, Proposal, Request, is_internal_request, parse_conf_change, parse_proposal,
};
use crate::source::wal::Wal;
use crate::v2store::apply::is_attributes_path;
use crate::v2store::membership::parse_id;

/// The requests of a log.
#[derive(Default)]
pub(super) struct Requests {
    /// Those that stop the version.
    pub(super) blockers: Vec<V2Request>,
    /// Those that the version accepts.
    pub(super) membership: u64,
    /// The rest.
    pub(super) others: Option<RequestCounts>,
}

/// What decides about a request.
pub(super) struct Rules {
    pub(super) target: UpgradeTarget,
    /// The raft index of the snapshot that counts.
    pub(super) snapshot: RaftIndex,
    /// The version reads the entries after this raft index.
    pub(super) replay_after: RaftIndex,
    /// Entries up to this raft index are known to be committed.
    pub(super) committed: RaftIndex,
    /// Entries up to this raft index are applied to the v3 backend.
    pub(super) applied: RaftIndex,
    /// The members that the cluster has or had.
    pub(super) members: BTreeSet<MemberId>,
}

/// Reads all requests of a log.
///
/// # Errors
/// [`Reason::Damaged`] if an entry is no request; an interruption.
pub(super) fn read(wal: &Wal, mut rules: Rules, interrupt: Interrupt<'_>) -> Result<Requests> {
    let mut found = Requests::default();
    for (number, reference) in wal.history().into_iter().enumerate() {
        interrupt.ask_at(number)?;
        let entry = wal.entry(reference)?;
        let is_read = entry.index > rules.replay_after;
        let in_file = |error: crate::error::Error| error.in_file(wal.segment_path(reference));
        match entry.kind {
            EntryKind::Normal => {}
            EntryKind::ConfChange => {
                let change = parse_conf_change(entry.data, entry.data_offset).map_err(in_file)?;
                // The backend has those of earlier changes.
                if is_read {
                    rules.members.insert(change.node_id);
                }
                continue;
            }
            EntryKind::ConfChangeV2 => continue,
        }
        let request = match parse_proposal(entry.data, entry.data_offset) {
            Ok(Proposal::V2(request)) => request,
            Ok(_) => continue,
            // The version never sees it.
            Err(_) if !is_read => continue,
            Err(error) => return Err(in_file(error)),
        };
        let is_wrapped = is_internal_request(entry.data);
        match rules.judge(&request, is_wrapped, entry.index) {
            Some(Err(reason)) if is_read => found.blockers.push(V2Request {
                raft_index: entry.index.0,
                term: entry.term.0,
                committed: entry.index <= rules.committed,
                method: request.method.word().to_string(),
                path: lossy(request.path),
                reason,
            }),
            Some(Ok(())) if is_read => found.membership += 1,
            _ if is_of_cluster(&request) => {}
            _ => {
                let is_lost = !is_read && entry.index > rules.snapshot && request.is_write();
                count(found.others.get_or_insert_default(), &request, entry.index, is_lost);
            }
        }
    }
    Ok(found)
}

/// Returns whether a log has v3 requests of clients. An entry that cannot be parsed is none.
///
/// # Errors
/// An interruption.
pub(super) fn has_v3(wal: &Wal, interrupt: Interrupt<'_>) -> Result<bool> {
    for (number, reference) in wal.entries().iter().enumerate() {
        interrupt.ask_at(number)?;
        let entry = wal.entry(reference)?;
        if entry.kind == EntryKind::Normal
            && matches!(parse_proposal(entry.data, entry.data_offset), Ok(Proposal::V3(_)))
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Returns the number of v3 requests after a raft index that may add data. An entry that cannot be parsed is none.
///
/// # Errors
/// An interruption.
pub(super) fn v3_writes_after(wal: &Wal, index: RaftIndex, interrupt: Interrupt<'_>) -> Result<u64> {
    let mut found = 0;
    for (number, reference) in wal.history().into_iter().filter(|entry| entry.index > index).enumerate() {
        interrupt.ask_at(number)?;
        let entry = wal.entry(reference)?;
        let is_normal = entry.kind == EntryKind::Normal;
        let proposal = is_normal.then(|| parse_proposal(entry.data, entry.data_offset));
        found += u64::from(matches!(proposal, Some(Ok(Proposal::V3(request))) if request.adds()));
    }
    Ok(found)
}

/// Returns whether a request writes the part of the store that the cluster itself uses.
fn is_of_cluster(request: &Request<'_>) -> bool {
    request.method == Method::Put && request.path.starts_with(b"/0/")
}

fn count(counts: &mut RequestCounts, request: &Request<'_>, index: RaftIndex, is_lost: bool) {
    if counts.count == 0 {
        counts.first_index = index.0;
    }
    counts.last_index = index.0;
    counts.count += 1;
    counts.lost_writes += u64::from(is_lost);
    *counts.by_method.entry(request.method.word()).or_default() += 1;
}

impl Rules {
    /// Returns whether the version accepts a request when it replays it; `None` if it ignores the request.
    fn judge(&self, request: &Request<'_>, is_wrapped: bool, index: RaftIndex) -> Option<Result<(), RequestReason>> {
        match self.target {
            UpgradeTarget::V3_6 => Some(self.accepts(request)),
            // The field `v2` is reserved. What remains is an entry that asks for nothing.
            UpgradeTarget::V3_7 if is_wrapped && index <= self.applied => None,
            UpgradeTarget::V3_7 if is_wrapped => Some(Err(RequestReason::Unapplied)),
            // Path, value and compared value have the field numbers of v3 requests. Empty ones parse as such requests without
            // content, and the first one is a read, which a replay skips.
            UpgradeTarget::V3_7 => {
                let is_empty = [request.path, request.val, request.prev_value].iter().all(|field| field.is_empty());
                (!is_empty).then_some(Err(RequestReason::Unparsable))
            }
        }
    }

    /// Returns whether etcd 3.6 can turn a request into a v3 request of the cluster.
    fn accepts(&self, request: &Request<'_>) -> Result<(), RequestReason> {
        if request.method != Method::Put {
            return Err(RequestReason::Method);
        }
        if !is_attributes_path(request.path) {
            return if request.path == b"/0/version" { Ok(()) } else { Err(RequestReason::Path) };
        }
        // etcd finds the pattern anywhere in the path, but takes the ID from the component before the last.
        let id = request.path.rsplit(|byte| *byte == b'/').nth(1).and_then(parse_id).ok_or(RequestReason::MemberId)?;
        if serde_json::from_slice::<Option<Attributes>>(request.val).is_err() {
            return Err(RequestReason::Attributes);
        }
        if self.members.contains(&id) { Ok(()) } else { Err(RequestReason::UnknownMember) }
    }
}

/// What etcd reads of the attributes of a member.
#[derive(Deserialize)]
#[allow(dead_code)]
struct Attributes {
    name: Option<String>,
    #[serde(rename = "clientURLs")]
    client_urls: Option<Vec<String>>,
}

/// Returns the members in a v3 backend, removed ones too.
///
/// # Errors
/// [`Reason::V3Unreadable`].
pub(super) fn members(map: &Map, interrupt: Interrupt<'_>) -> Result<BTreeSet<MemberId>> {
    let db = Db::open(map.bytes()).map(|db| db.watched(interrupt));
    let read = db.and_then(|db| backend::listed(&db));
    interrupt.ask()?;
    let members = read.map_err(|damage| damage.into_error(Reason::V3Unreadable).in_file(map.path()))?;
    Ok(members.into_iter().collect())
}

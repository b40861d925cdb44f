//! v3 data that the source already holds (CLI.md, `--existing`): refused, left out by name, or kept as they are under the keys
//! that come from v2.
//!
//! What is kept is kept byte for byte: every revision, lease, user and compaction mark. A merge is refused where the backend
//! does not hold all that the cluster had committed, for what stands in the log alone is not applied here.

use std::collections::{BTreeMap, HashSet};

use hashbrown::HashMap;

use super::facts;
use super::load::Backend;
use crate::bolt::Db;
use crate::error::{Error, Reason, Result};
use crate::ids::{LeaseId, RaftIndex, Revision};
use crate::mvcc::{AuthState, Content, KeyValue, Lease, Meta, Pair, RevisionKey, Stored, schema};
use crate::options::{ConvertOptions, Existing, OnConflict, To};
use crate::report::Report;
use crate::report::facts::{ExistingFacts, LateWrite};
use crate::report::table::{counted, first_of, short};
use crate::source::open::Opened;
use crate::source::raft::{EntryKind, Proposal, parse_proposal};
use crate::source::v3_request::V3Request;
use crate::source::wal::Wal;
use crate::transform::auth::Auth;
use crate::transform::conflicts::Living;
use crate::v2store::recover::Recovered;
use crate::verify;

/// The v3 data that are kept.
#[derive(Debug)]
pub(super) struct Kept<'m> {
    /// Every change in the `key` bucket, in order.
    pub(super) pairs: Vec<Stored<'m>>,
    /// The revision that the store stands at.
    pub(super) current: Revision,
    /// Its leases, and those that a key names without there being one.
    pub(super) leases_in_use: HashSet<LeaseId>,
    /// Compaction marks: begun, ended.
    pub(super) compacted: (Option<Revision>, Option<Revision>),
    living: HashMap<&'m [u8], Living>,
    buckets: BTreeMap<&'static [u8], Vec<Pair>>,
}

/// Decides what becomes of v3 data in the source, and notes it in the report. Where there is nothing to keep there is nothing
/// to merge with, and the conversion goes on as for any other source.
///
/// # Errors
/// [`Reason::V3Present`], [`Reason::V3Late`] and [`Reason::Gap`] as the policy has it; a backend that is not sound.
pub(super) fn decide<'m>(
    opened: &'m Opened,
    backend: &Backend<'m>,
    recovered: &Recovered<'m>,
    options: &ConvertOptions,
    report: &mut Report,
) -> Result<Option<Kept<'m>>> {
    let late = late_writes(opened, backend, recovered)?;
    match options.existing {
        Existing::Fail => refuse(opened, backend, &late).map(|()| None),
        Existing::DropV3 => {
            note_dropped(backend, &late, report);
            Ok(None)
        }
        Existing::Merge => merge(opened, backend, recovered, &late, options, report),
    }
}

/// A v3 write of the log that the backend does not hold.
type Late<'m> = (RaftIndex, V3Request<'m>);

/// Committed v3 writes above the backend's consistent index.
fn late_writes<'m>(opened: &'m Opened, backend: &Backend<'m>, recovered: &Recovered<'m>) -> Result<Vec<Late<'m>>> {
    let applied = backend.consistent_index.unwrap_or(RaftIndex(0));
    let start = opened.choice.index();
    // What the replay did not see because it began behind it.
    let before = |index: RaftIndex| index > applied && index <= start;
    let wal = opened.wal().filter(|_| start > applied);
    let mut late = wal.map(|wal| v3_writes(wal, &before)).transpose()?.unwrap_or_default();
    late.extend(recovered.replay.v3_writes.iter().filter(|(index, _)| *index > applied).copied());
    Ok(late)
}

/// The v3 writes of a log at these indexes.
fn v3_writes<'m>(wal: &'m Wal, wanted: &dyn Fn(RaftIndex) -> bool) -> Result<Vec<Late<'m>>> {
    let mut found = Vec::new();
    for reference in wal.entries().iter().filter(|entry| wanted(entry.index) && entry.kind == EntryKind::Normal) {
        let entry = wal.entry(reference)?;
        if let Ok(Proposal::V3(request)) = parse_proposal(entry.data, entry.data_offset)
            && request.writes()
        {
            found.push((entry.index, request));
        }
    }
    Ok(found)
}

fn refuse(opened: &Opened, backend: &Backend<'_>, late: &[Late<'_>]) -> Result<()> {
    let Some(found) = describe(backend, late) else { return Ok(()) };
    let message = format!(
        "the source holds v3 data too ({found}): give --existing merge to keep them and add the v2 keys, or --existing drop-v3 to \
         start without them"
    );
    Err(Error::new(Reason::V3Present, message).in_file(opened.path()))
}

/// What of v3 data there is, in words; `None` where there is none.
fn describe(backend: &Backend<'_>, late: &[Late<'_>]) -> Option<String> {
    let in_log = late.iter().filter(|(_, request)| request.adds()).count() as u64;
    let in_log = (in_log > 0).then(|| format!("{} in its log", counted(in_log, "v3 write", "v3 writes")));
    let in_backend = backend.describe().map(|what| format!("{what} in its v3 backend"));
    match (in_backend, in_log) {
        (Some(a), Some(b)) => Some(format!("{a} and {b}")),
        (a, b) => a.or(b),
    }
}

fn note_dropped(backend: &Backend<'_>, late: &[Late<'_>], report: &mut Report) {
    let Some(found) = describe(backend, late) else { return };
    report.warn("v3-dropped", format!("v3 data of the source are left out, as --existing drop-v3 has it: {found}"));
    let content = &backend.content;
    report.existing = Some(ExistingFacts {
        path: path_of(backend),
        consistent_index: backend.consistent_index.map(|index| index.0),
        changes: content.changes,
        keys: content.keys,
        leases: content.leases,
        users: content.users,
        roles: content.roles,
        late_writes: lines(late),
        ..ExistingFacts::default()
    });
}

fn path_of(backend: &Backend<'_>) -> String {
    backend.map.map_or(String::new(), |map| map.path().display().to_string())
}

fn lines(late: &[Late<'_>]) -> Vec<LateWrite> {
    let line = |(index, request): &Late<'_>| {
        let parts = request.parts();
        let line = |part: crate::source::v3_request::V3Write<'_>| LateWrite {
            raft_index: index.0,
            action: part.action.to_string(),
            name: (!part.name.is_empty()).then(|| facts::text(part.name)),
            lease: (part.lease != 0).then_some(part.lease),
        };
        parts.into_iter().map(line).collect::<Vec<_>>()
    };
    late.iter().flat_map(line).collect()
}

fn merge<'m>(
    opened: &'m Opened,
    backend: &Backend<'m>,
    recovered: &Recovered<'m>,
    late: &[Late<'m>],
    options: &ConvertOptions,
    report: &mut Report,
) -> Result<Option<Kept<'m>>> {
    if !late.is_empty() {
        let facts = report.existing.get_or_insert_default();
        (facts.path, facts.late_writes) = (path_of(backend), lines(late));
        return Err(refuse_late(opened, backend, &facts.late_writes));
    }
    let Some(map) = backend.map else { return Ok(None) };
    let failed = |e: crate::bolt::Damage| e.into_error(Reason::Damaged).context("v3 backend").in_file(map.path());
    let db = Db::open(map.bytes()).map_err(failed)?;
    let summary = verify::carried(&db).map_err(failed)?;
    let empty = summary.pairs == 0 && summary.compacted.is_none() && backend.content.is_empty();
    if empty {
        return Ok(None);
    }
    if let Some(finding) = summary.findings.first() {
        let message = format!(
            "the v3 backend is not as etcd writes it, and what is in it cannot be carried on: {}",
            finding.message
        );
        return Err(Error::new(Reason::Damaged, message).at(finding.offset).in_file(map.path()));
    }
    refuse_other_states(opened, backend, recovered)?;
    note_tail(opened, recovered, report)?;
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
    let mut kept = Kept {
        pairs: Vec::new(),
        current: summary.revision,
        leases_in_use: HashSet::new(),
        compacted: (None, None),
        living: HashMap::new(),
        buckets: BTreeMap::new(),
    };
    kept.read(&db, options.to).map_err(|e| e.in_file(map.path()))?;
    Ok(Some(kept))
}

/// How many late writes the message names; the report has all.
const NAMED: usize = 20;

fn refuse_late(opened: &Opened, backend: &Backend<'_>, late: &[LateWrite]) -> Error {
    let name = |write: &LateWrite| {
        let of = write.name.as_ref().map(|name| format!(" {}", short(name))).unwrap_or_default();
        let lease = write.lease.map(|id| format!(" {id:x}")).unwrap_or_default();
        format!("{}{of}{lease} (raft index {})", write.action, write.raft_index)
    };
    let named: Vec<String> = late.iter().take(NAMED).map(name).collect();
    let more = late.len().saturating_sub(NAMED);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    let applied = backend.consistent_index.unwrap_or(RaftIndex(0));
    let message = format!(
        "{} committed in the log above raft index {applied}, where the v3 backend stands, and not in it: {}{more}; start that etcd \
         once and stop it cleanly, then convert again",
        counted(late.len() as u64, "v3 write is", "v3 writes are"),
        named.join(", ")
    );
    Error::new(Reason::V3Late, message).in_file(opened.path())
}

/// v2 and v3 of one instant, or none: a backend that is ahead of the v2 state, or behind a hole in the log.
fn refuse_other_states(opened: &Opened, backend: &Backend<'_>, recovered: &Recovered<'_>) -> Result<()> {
    let applied = backend.consistent_index.unwrap_or(RaftIndex(0));
    let state = recovered.replay.applied;
    let start = opened.choice.index();
    let reason_and_message = if applied > state && opened.wal().is_some() {
        let message = format!("the v3 backend stands at raft index {applied} and the v2 keys at {state}");
        Some((Reason::IndexNotReached, format!("{message}: a merge needs both at once, so stop at {applied} or later")))
    } else if applied < start && opened.wal().is_none_or(|wal| wal.after(applied).is_none()) {
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
fn note_tail(opened: &Opened, recovered: &Recovered<'_>, report: &mut Report) -> Result<()> {
    let above = |index: RaftIndex| index > recovered.replay.applied;
    let mut left_out = BTreeMap::new();
    for wal in opened.members.iter().filter_map(|member| member.wal.as_ref()) {
        left_out.extend(v3_writes(wal, &above)?);
    }
    if left_out.is_empty() {
        return Ok(());
    }
    let left_out: Vec<Late<'_>> = left_out.into_iter().collect();
    let count = counted(left_out.len() as u64, "v3 write", "v3 writes");
    let message = format!(
        "{count} in the log above raft index {} left out, because nothing here proves a commit",
        recovered.replay.applied
    );
    report.existing.get_or_insert_default().late_writes = lines(&left_out);
    report.lose("v3-tail-left-out", message);
    Ok(())
}

impl<'m> Kept<'m> {
    fn read(&mut self, db: &Db<'m>, to: To) -> Result<()> {
        let damaged = |e: crate::bolt::Damage| e.into_error(Reason::Damaged);
        for bucket in &db.root() {
            let bucket = bucket.map_err(damaged)?;
            let Some(name) = schema::BUCKETS.into_iter().find(|name| *name == bucket.key) else {
                let name = bucket.key.escape_ascii();
                let message =
                    format!("the v3 backend has a bucket {name}, which no etcd up to 3.7 knows: it cannot be kept");
                return Err(Error::new(Reason::UnsupportedFormat, message).at(bucket.offset));
            };
            let tree = db.open_bucket(&bucket).map_err(damaged)?;
            let mut pairs = Vec::new();
            for pair in &tree {
                let pair = pair.map_err(damaged)?;
                if name == schema::KEY {
                    self.change(Stored { key: pair.key, value: pair.value }, pair.value_offset())?;
                } else {
                    pairs.push((pair.key.to_vec(), pair.value.to_vec()));
                }
            }
            self.buckets.insert(name, pairs);
        }
        let leases = self.buckets.get(schema::LEASE).into_iter().flatten();
        self.leases_in_use.extend(leases.filter_map(|(key, _)| Lease::decode_key(key)));
        let mark = |key: &[u8]| {
            let pair = self.buckets.get(schema::META)?.iter().find(|(found, _)| found == key)?;
            RevisionKey::decode(&pair.1).map(|key| key.main)
        };
        self.compacted = (mark(schema::SCHEDULED_COMPACT), mark(schema::FINISHED_COMPACT));
        if to == To::Snapshot {
            // Restoring a snapshot makes a cluster of its own (FORMATS 9.7, 10.5).
            for bucket in [schema::ALARM, schema::CLUSTER, schema::MEMBERS, schema::MEMBERS_REMOVED] {
                self.buckets.remove(bucket);
            }
        }
        let ours = Meta::KEYS;
        let meta = self.buckets.entry(schema::META).or_default();
        meta.retain(|(key, _)| to == To::Backend && !ours.contains(&key.as_slice()));
        Ok(())
    }

    fn change(&mut self, stored: Stored<'m>, offset: u64) -> Result<()> {
        let kv = KeyValue::decode(stored.value, offset)?;
        if RevisionKey::decode(stored.key).is_none_or(|key| key.tombstone) {
            self.living.remove(kv.key);
        } else {
            if kv.lease.0 != 0 {
                self.leases_in_use.insert(kv.lease);
            }
            let living = Living { create: kv.create_revision, version: kv.version };
            self.living.insert(kv.key, living);
        }
        self.pairs.push(stored);
        Ok(())
    }

    /// The key of that name, if v3 has one.
    pub(super) fn living(&self, key: &[u8]) -> Option<Living> {
        self.living.get(key).copied()
    }

    /// Joins the users and roles of v2 to those that are there.
    ///
    /// # Errors
    /// [`Reason::Conflict`] for names that both have, as the policy has it; [`Reason::AuthInvalid`] if nobody could administer
    /// what comes out.
    pub(super) fn join_auth(&mut self, auth: &Auth, on_conflict: OnConflict, report: &mut Report) -> Result<()> {
        let mut take = |name: &'static [u8]| self.buckets.remove(name).unwrap_or_default();
        let had =
            AuthState { flags: take(schema::AUTH), users: take(schema::AUTH_USERS), roles: take(schema::AUTH_ROLES) };
        let was_on = had.is_enabled();
        let v2_is_there = !auth.users.is_empty() || !auth.roles.is_empty();
        if v2_is_there && (was_on || !had.users.is_empty() || !had.roles.is_empty()) {
            let message = "users and roles of v2 and v3 have one key space now: roles with wide permissions reach keys of the other \
                           side, so check them";
            report.warn("auth-merged", message);
        }
        if auth.enabled && !was_on {
            let message = "authentication was off in v3 and is on in v2: v3 clients have to log in from now on";
            report.warn("auth-turned-on", message);
        }
        if was_on && report.contents.auth_enabled != Some(true) {
            let message =
                "authentication was on in v3 and off in v2: clients of the v2 keys have to log in from now on";
            report.warn("auth-turned-on", message);
        }
        let (joined, both) = had.join(AuthState::of(auth)?, on_conflict == OnConflict::TakeV2)?;
        if !both.is_empty() {
            let names: Vec<String> = both.iter().map(|(what, name)| format!("{what} {}", facts::text(name))).collect();
            let first = first_of(&names);
            report.existing.get_or_insert_default().auth_conflicts = names;
            let what = match on_conflict {
                OnConflict::Fail => {
                    let message = format!(
                        "v2 and v3 both have, and not alike: {first}; give --on-conflict keep-v3 or take-v2, or --auth ignore"
                    );
                    return Err(Error::new(Reason::Conflict, message));
                }
                OnConflict::KeepV3 => "kept as v3 has them",
                OnConflict::TakeV2 => "taken from v2",
            };
            report.warn("auth-conflict", format!("users and roles that both have are {what}: {first}"));
        }
        if joined.is_enabled() && !joined.has_administrator() {
            let message = "authentication is on, and there is no user root with a password and the role root, without whom nobody \
                           could administer v3: give another --on-conflict, or --auth ignore";
            return Err(Error::new(Reason::AuthInvalid, message));
        }
        self.buckets.insert(schema::AUTH, joined.flags);
        self.buckets.insert(schema::AUTH_USERS, joined.users);
        self.buckets.insert(schema::AUTH_ROLES, joined.roles);
        Ok(())
    }

    /// Adds all that is kept to what comes from v2.
    pub(super) fn add_to<'t>(&'t self, content: &mut Content<'t, 'm>) {
        content.keep(&self.pairs);
        for (bucket, pairs) in &self.buckets {
            content.add(bucket, pairs);
        }
    }

    /// Leases that are kept.
    pub(super) fn lease_count(&self) -> u64 {
        self.buckets.get(schema::LEASE).map_or(0, Vec::len) as u64
    }
}

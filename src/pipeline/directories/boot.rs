//! Whether etcd boots from the directories of members: log, snapshot, database and membership must agree (docs/formats.md 11).
//!
//! Used by `verify` and `inspect`. Must not know which run made a directory, or the v2 keys.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use super::files::list;
use super::layout::DB;
use crate::bolt::Db;
use crate::data_dir::Member;
use crate::error::{Error, Kind, Reason, Result};
use crate::ids::RaftIndex;
use crate::interrupt::Interrupt;
use crate::mvcc::schema;
use crate::report;
use crate::report::inspection::V3Facts;
use crate::report::verification::MemberState;
use crate::source::entries::End;
use crate::source::open::{Found, OpenOptions, open};
use crate::source::wal::Wal;

/// Returns the databases at a path: the file itself; or that of a data directory; or those of the data directories in it, in the
/// order of their names. Every directory in it counts as that of a member.
///
/// # Errors
/// [`Reason::NotEtcd`] if it is no data directory and has none; [`Reason::VerifyFailed`] if a data directory has no database; the
/// operating system fails.
pub(in crate::pipeline) fn databases(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut found = vec![path.to_path_buf()];
    if !has_member(path) {
        found = list(path).map_err(|e| Error::io(Reason::Unreadable, path, "list its files", e))?;
        found.retain(|dir| dir.is_dir());
        found.sort();
    }
    let databases: Vec<PathBuf> = found.iter().map(|dir| dir.join(DB)).collect();
    match databases.iter().find(|db| is_missing(db)) {
        None if !databases.is_empty() => Ok(databases),
        Some(db) if found.iter().any(|dir| has_member(dir)) => {
            let message = "the database of a member is missing, so etcd would start it with empty v3 data";
            Err(Error::new(Reason::VerifyFailed, message).in_file(db))
        }
        _ => {
            let message =
                format!("expected a v3 file, a data directory with {DB}, or a directory with data directories");
            Err(Error::new(Reason::NotEtcd, message).in_file(path))
        }
    }
}

fn has_member(dir: &Path) -> bool {
    dir.join("member").is_dir()
}

fn is_missing(db: &Path) -> bool {
    fs::metadata(db).is_err_and(|e| matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory))
}

/// Returns the data directory of a database.
pub(in crate::pipeline) fn root_of(database: &Path) -> Option<&Path> {
    database.ancestors().nth(Path::new(DB).components().count())
}

/// Reads the members and the cluster version in the buckets of a database, as etcd 3.6 and 3.7 see them.
///
/// # Errors
/// [`Reason::Damaged`].
pub(in crate::pipeline) fn membership(db: &Db<'_>) -> Result<(Vec<report::Member>, Option<String>)> {
    let damaged = |e: crate::bolt::Damage| e.into_error(Reason::Damaged);
    let mut members = Vec::new();
    if let Some(bucket) = db.bucket(schema::MEMBERS).map_err(damaged)? {
        for pair in bucket.iter() {
            let pair = pair.map_err(damaged)?;
            let member = Member::parse(pair.value).ok_or_else(|| {
                let message = "expected a member as JSON in the bucket `members`, found something else";
                Error::new(Reason::Damaged, message).at(pair.value_offset())
            })?;
            members.push(report::Member {
                id: member.id.to_string(),
                name: member.name,
                peer_urls: member.peer_urls,
                client_urls: member.client_urls,
                is_learner: member.is_learner,
            });
        }
    }
    let version = match db.bucket(schema::CLUSTER).map_err(damaged)? {
        Some(bucket) => bucket.get(schema::CLUSTER_VERSION).map_err(damaged)?,
        None => None,
    };
    Ok((members, version.map(|pair| String::from_utf8_lossy(pair.value).into_owned())))
}

/// Checks the directory of a member around its database. Adds what would keep an etcd from starting to `differences`.
///
/// # Errors
/// The directory cannot be read; a running etcd has locked it; an interruption.
pub(in crate::pipeline) fn check(
    root: &Path,
    facts: &V3Facts,
    differences: &mut Vec<String>,
    interrupt: Interrupt<'_>,
) -> Result<MemberState> {
    let mut state = MemberState {
        directory: root.display().to_string(),
        consistent_index: facts.consistent_index,
        hash_kv: facts.hash_kv,
        replicated_hash: facts.replicated_hash,
        revision: facts.revision,
        ..MemberState::default()
    };
    let mut wrong = |what: String| differences.push(format!("{}: {what}", root.display()));
    let opened = match open(root, None, &OpenOptions { interrupt, ..OpenOptions::default() }) {
        Ok(Found::V2(opened)) => opened,
        Ok(Found::V3File(_) | Found::V3Only(_)) => {
            wrong("the log is missing, so etcd would start it as a new member".into());
            return Ok(state);
        }
        Err(e) if e.reason() == Reason::WalMissing => {
            wrong("the log is missing, so etcd would start it as a new member".into());
            return Ok(state);
        }
        // A directory that is incomplete, or cannot be read to its end, is a failed verification, not a source that is refused.
        Err(e) if matches!(e.reason(), Reason::SourceEmpty | Reason::SourceMissing) => {
            differences.push(e.to_string());
            return Ok(state);
        }
        Err(e) if matches!(e.kind(), Kind::Damaged | Kind::Empty) => {
            differences.push(e.to_string());
            return Ok(state);
        }
        Err(e) => return Err(e),
    };
    let Some(wal) = opened.wal() else {
        wrong("the directory has no log".into());
        return Ok(state);
    };
    // The damage is not yet an error: with the logs of other members, a conversion may not need what it affects.
    let damage = wal.holes().first().map(|hole| &hole.error).or(match wal.end() {
        End::Damaged(error) => Some(error),
        End::Clean | End::Torn { .. } => None,
    });
    if let Some(error) = damage {
        wrong(format!("the log is damaged: {error}"));
    }
    for passed in opened.start.passed_over.iter().filter(|passed| passed.damaged) {
        wrong(format!("the snapshot {} is damaged: {}", passed.path.display(), passed.why));
    }
    let snapshot = opened.start.snapshot.as_ref().map(|snapshot| snapshot.index);
    state.snapshot_index = snapshot.map(|index| index.0);
    state.commit = wal.commit().0;
    state.member_id = wal.metadata().map(|metadata| metadata.node_id.to_string());
    state.cluster_id = wal.metadata().map(|metadata| metadata.cluster_id.to_string());
    let applied = RaftIndex(facts.consistent_index.unwrap_or(0));
    if let Some(snapshot) = snapshot.filter(|snapshot| *snapshot > applied) {
        wrong(format!(
            "the snapshot is at raft index {snapshot}, and the database at {applied}: etcd would stop there"
        ));
    }
    // A server that was killed may have applied more than its last hard state commits, but never more than the log has.
    let last = wal.range().map_or(wal.commit(), |(_, last)| last.max(wal.commit()));
    if applied > last {
        wrong(format!(
            "the database is at raft index {applied}, and the log ends at {last}: etcd would skip later writes"
        ));
    }
    if applied == RaftIndex(0) && wal.commit() > RaftIndex(0) {
        wrong(
            "the database has no consistent index: etcd would start with empty v3 data, or apply entries again".into(),
        );
    }
    let listed = facts.members.iter().map(|member| member.id.as_str());
    let own = state.member_id.clone().unwrap_or_default();
    if !facts.members.is_empty() && !listed.clone().any(|id| id == own) {
        wrong(format!("member {own} is not in the bucket `members`"));
    }
    compare_voters(&opened.start.snapshot, wal, facts, &mut wrong);
    Ok(state)
}

/// Compares the raft configuration of the snapshot with the bucket `members`, if both are of the same raft index: 3.7 takes its
/// configuration from the bucket.
fn compare_voters(
    snapshot: &Option<crate::source::snap::Snapshot>,
    wal: &Wal,
    facts: &V3Facts,
    wrong: &mut impl FnMut(String),
) {
    let Some(snapshot) = snapshot else { return };
    if facts.consistent_index != Some(snapshot.index.0) || wal.commit() != snapshot.index {
        return;
    }
    let sorted = |mut ids: Vec<String>| {
        ids.sort();
        ids
    };
    let of = |learners: bool| {
        let members = facts.members.iter().filter(|member| member.is_learner == learners);
        sorted(members.map(|member| member.id.clone()).collect())
    };
    let state = &snapshot.conf_state;
    for (what, ids, found) in [("voters", &state.voters, of(false)), ("learners", &state.learners, of(true))] {
        let expected = sorted(ids.iter().map(ToString::to_string).collect());
        if expected != found {
            let (expected, found) = (expected.join(", "), found.join(", "));
            wrong(format!("the snapshot has the {what} {expected}, and the bucket `members` has {found}"));
        }
    }
}

/// Returns the members in the bucket `members` that are not among these: the name of each, or its ID.
pub(in crate::pipeline) fn not_given(members: &[MemberState], listed: &[report::Member]) -> Vec<String> {
    let is_given = |id: &String| members.iter().any(|member| member.member_id.as_ref() == Some(id));
    let missing = listed.iter().filter(|member| !is_given(&member.id));
    missing.map(|member| if member.name.is_empty() { member.id.clone() } else { member.name.clone() }).collect()
}

/// Compares the members of one cluster with each other: the same cluster, and the same content at the same raft index.
pub(in crate::pipeline) fn compare(members: &[MemberState], differences: &mut Vec<String>) {
    let Some(first) = members.first() else { return };
    let text = |value: &Option<String>| value.clone().unwrap_or("unknown".into());
    let mut by_id: BTreeMap<&Option<String>, &MemberState> = BTreeMap::new();
    let mut by_index: BTreeMap<Option<u64>, &MemberState> = BTreeMap::new();
    for other in members {
        let mut wrong = |what: &str, one: &MemberState, expected: &str, found: &str| {
            let (one, two) = (&one.directory, &other.directory);
            differences.push(format!("{two}: has the {what} {found}, and {one} has {expected}"));
        };
        if first.cluster_id != other.cluster_id {
            wrong("cluster ID", first, &text(&first.cluster_id), &text(&other.cluster_id));
        }
        if let Some(twin) = by_id.insert(&other.member_id, other) {
            wrong("member ID", twin, "the same", &text(&other.member_id));
        }
        // Members that a server has run on can be at other indexes than the first.
        let same_index = *by_index.entry(other.consistent_index).or_insert(other);
        if same_index.directory != other.directory {
            let one = same_index;
            for (what, expected, found) in [
                ("revision", one.revision, other.revision),
                ("HashKV", one.hash_kv.into(), other.hash_kv.into()),
                ("hash of users, roles, leases and alarms", one.replicated_hash.into(), other.replicated_hash.into()),
            ] {
                if expected != found {
                    wrong(what, one, &expected.to_string(), &found.to_string());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(directory: &str, id: &str, index: u64, hash_kv: u32) -> MemberState {
        let (directory, member_id) = (directory.to_string(), Some(id.to_string()));
        MemberState { directory, member_id, consistent_index: Some(index), hash_kv, ..MemberState::default() }
    }

    #[test]
    fn any_two_members_are_compared() {
        let differences = |members: &[MemberState]| {
            let mut found = Vec::new();
            compare(members, &mut found);
            found
        };
        let first = state("a", "1", 12, 7);
        assert!(differences(&[first.clone(), state("b", "2", 3, 5), state("c", "3", 3, 5)]).is_empty());
        let found = differences(&[first.clone(), state("b", "2", 3, 5), state("c", "3", 3, 6)]);
        assert_eq!(found, ["c: has the HashKV 6, and b has 5"]);
        let found = differences(&[first, state("b", "2", 3, 5), state("c", "2", 4, 5)]);
        assert_eq!(found, ["c: has the member ID 2, and b has the same"]);
    }
}

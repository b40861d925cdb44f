//! v3 entries in the log after the consistent index of the v3 backend.
//!
//! etcdlift does not apply them, so a merge must refuse to lose them. But a backend may contain more than its
//! consistent index says: etcd up to 3.4 stores the index only with changes of keys, users and roles. A lease, a
//! compaction, or a request that changed nothing does not store it. An entry whose effect the backend shows is no loss. Must not know
//! the v2 tree or the plan.

use std::collections::{BTreeMap, HashMap};

use crate::count::counted;
use crate::display::{lossy, short};
use crate::error::{Error, Reason, Result};
use crate::ids::RaftIndex;
use crate::interrupt::Interrupt;
use crate::mvcc::schema;
use crate::pipeline::backend::Backend;
use crate::pipeline::merge::preserved::Preserved;
use crate::report::facts::UnappliedWrite;
use crate::source::internal_request::{V3Action, V3Request, V3Write};
use crate::source::open::Opened;
use crate::source::raft::{EntryKind, Proposal, parse_proposal};
use crate::source::wal::Wal;
use crate::v2store::replay::Recovered;

/// A v3 write in the log that the backend may lack, with its raft index.
pub(in crate::pipeline) type UnappliedEntry<'m> = (RaftIndex, V3Request<'m>);

/// Finds committed v3 writes after the backend's consistent index.
pub(in crate::pipeline) fn above<'m>(
    opened: &'m Opened,
    backend: &Backend<'m>,
    recovered: &Recovered<'m>,
    interrupt: Interrupt<'_>,
) -> Result<Vec<UnappliedEntry<'m>>> {
    let applied = backend.consistent_index.unwrap_or(RaftIndex(0));
    let start = opened.start.index();
    // The replay began after these entries, so it did not see them.
    let before = |index: RaftIndex| index > applied && index <= start;
    let wal = opened.wal().filter(|_| start > applied);
    let mut unapplied = wal.map(|wal| writes(wal, &before, interrupt)).transpose()?.unwrap_or_default();
    unapplied.extend(recovered.replay.v3_writes.iter().filter(|(index, _)| *index > applied).copied());
    Ok(unapplied)
}

/// Finds v3 writes in all logs whose commit nothing proves.
pub(in crate::pipeline) fn left_out<'m>(
    opened: &'m Opened,
    applied: RaftIndex,
    interrupt: Interrupt<'_>,
) -> Result<Vec<UnappliedEntry<'m>>> {
    let mut found = BTreeMap::new();
    for wal in opened.members.iter().filter_map(|member| member.wal.as_ref()) {
        found.extend(writes(wal, &|index| index > applied, interrupt)?);
    }
    Ok(found.into_iter().collect())
}

/// Finds the v3 writes of a log at the wanted indexes.
fn writes<'m>(
    wal: &'m Wal,
    wanted: &dyn Fn(RaftIndex) -> bool,
    interrupt: Interrupt<'_>,
) -> Result<Vec<UnappliedEntry<'m>>> {
    let mut found = Vec::new();
    for reference in wal.entries().iter().filter(|entry| wanted(entry.index) && entry.kind == EntryKind::Normal) {
        interrupt.ask()?;
        let entry = wal.entry(reference)?;
        if let Ok(Proposal::V3(request)) = parse_proposal(entry.data, entry.data_offset)
            && request.writes()
        {
            found.push((entry.index, request));
        }
    }
    Ok(found)
}

/// Returns the writes whose effect the store does not show.
pub(in crate::pipeline) fn not_shown<'m>(
    unapplied: &[UnappliedEntry<'m>],
    preserved: &Preserved<'_>,
) -> Vec<UnappliedEntry<'m>> {
    let parts: Vec<Vec<V3Write<'_>>> = unapplied.iter().map(|(_, request)| request.parts()).collect();
    let [leases, users, roles] =
        [schema::LEASE, schema::AUTH_USERS, schema::AUTH_ROLES].map(|bucket| preserved.names(bucket));
    let has_lease = |id: i64| leases.contains(&id.to_be_bytes()[..]);
    let mut revoked: HashMap<i64, usize> = HashMap::new();
    for (at, part) in parts.iter().enumerate().flat_map(|(at, parts)| parts.iter().map(move |part| (at, part))) {
        if part.action == V3Action::RevokeLease {
            revoked.insert(part.number, at);
        }
    }
    let shown = |at: usize, part: &V3Write<'_>| match part.action {
        // A put would have changed the consistent index, so no put counts as applied.
        V3Action::Delete => !preserved.any_in(part.name, part.end),
        V3Action::GrantLease => {
            has_lease(part.number) || revoked.get(&part.number).is_some_and(|revoked| *revoked > at)
        }
        V3Action::RevokeLease => !has_lease(part.number),
        V3Action::Compact => {
            part.number > preserved.current.0 || preserved.compacted.0.is_some_and(|revision| part.number <= revision.0)
        }
        V3Action::EnableAuth => preserved.auth_is_on(),
        V3Action::DisableAuth => !preserved.auth_is_on(),
        V3Action::AddUser => users.contains(part.name),
        V3Action::DeleteUser => !users.contains(part.name),
        V3Action::AddRole => roles.contains(part.name),
        V3Action::DeleteRole => !roles.contains(part.name),
        _ => false,
    };
    let lost = |(at, parts): (usize, &Vec<V3Write<'_>>)| !parts.iter().all(|part| shown(at, part));
    let lost = parts.iter().enumerate().map(lost);
    unapplied.iter().zip(lost).filter(|(_, lost)| *lost).map(|(unapplied, _)| *unapplied).collect()
}

/// Converts the writes for the report, one item for each key.
pub(in crate::pipeline) fn lines(unapplied: &[UnappliedEntry<'_>]) -> Vec<UnappliedWrite> {
    let lines = |(index, request): &UnappliedEntry<'_>| {
        let raft_index = index.0;
        let line = |part: V3Write<'_>| UnappliedWrite {
            raft_index,
            action: part.action,
            name: (!part.name.is_empty()).then(|| lossy(part.name)),
            number: (part.number != 0).then_some(part.number),
        };
        request.parts().into_iter().map(line).collect::<Vec<_>>()
    };
    unapplied.iter().flat_map(lines).collect()
}

/// The maximum number of writes that a message names. The report has all.
const NAMED: usize = 20;

/// Returns the refusal of a run that would lose or not see these writes. `state` is what they are, and `run` names the run.
pub(in crate::pipeline) fn refuse(
    opened: &Opened,
    backend: &Backend<'_>,
    unapplied: &[UnappliedEntry<'_>],
    (state, run): (&str, &str),
) -> Error {
    let lines = lines(unapplied);
    let name = |write: &UnappliedWrite| {
        let of = write.name.as_ref().map(|name| format!(" {}", short(name))).unwrap_or_default();
        let number = match write.number {
            Some(id) if write.action.is_of_lease() => format!(" {id:x}"),
            Some(number) => format!(" {number}"),
            None => String::new(),
        };
        format!("{}{of}{number} (raft index {})", write.action, write.raft_index)
    };
    let named: Vec<String> = lines.iter().take(NAMED).map(name).collect();
    let more = lines.len().saturating_sub(NAMED);
    let more = if more == 0 { String::new() } else { format!(" and {more} more") };
    let applied = backend.consistent_index.unwrap_or(RaftIndex(0));
    // Only a change of a key makes every etcd release store its consistent index.
    let puts = lines.iter().any(|write| write.action == V3Action::Put);
    let action = if puts { "stop it cleanly" } else { "put and delete a v3 key, stop it cleanly" };
    let message = format!(
        "{} {state} but not applied to the v3 backend (which is at raft index {applied}): {}{more}",
        counted(unapplied.len() as u64, "v3 write is", "v3 writes are"),
        named.join(", ")
    );
    let hint = format!("start that etcd once and {action}, then {run} again");
    Error::new(Reason::V3Unapplied, message).in_file(opened.path()).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bolt::{self, Bucket, Db, OwnedRows};
    use crate::ids::{LeaseId, Revision};
    use crate::mvcc::{KeyValue, Lease, RevisionKey};

    /// Returns a store at revision 5, compacted at 3: the key `/a`, the lease 7, the user `bob`, authentication on.
    fn image() -> Vec<u8> {
        let revision = Revision(5);
        let kv = KeyValue {
            key: b"/a",
            create_revision: revision,
            mod_revision: revision,
            version: 1,
            ..KeyValue::default()
        };
        let mut value = vec![0; kv.encoded_len()];
        kv.encode(&mut value).unwrap();
        let lease = Lease { id: LeaseId(7), ttl: 60, remaining_ttl: 0 };
        let pair = |key: &[u8], value: &[u8]| OwnedRows::new(vec![(key.to_vec(), value.to_vec())]);
        let rows = [
            (schema::AUTH, pair(schema::AUTH_ENABLED, &[1])),
            (schema::AUTH_USERS, pair(b"bob", b"\x0a\x03bob")),
            (schema::KEY, pair(&RevisionKey::put(revision, 0).to_bytes(), &value)),
            (schema::LEASE, pair(&lease.key(), &lease.encode().unwrap())),
            (schema::META, pair(schema::SCHEDULED_COMPACT, &RevisionKey::put(Revision(3), 0).to_bytes())),
        ];
        let buckets: Vec<Bucket<'_>> = rows.iter().map(|(name, rows)| Bucket { name, rows }).collect();
        bolt::image(&buckets).unwrap()
    }

    /// Returns the requests whose effect the store does not show.
    fn lost(requests: &[(u32, &[u8])]) -> Vec<bool> {
        let image = image();
        let preserved = Preserved::read(&Db::open(&image).unwrap(), Revision(5), Interrupt::default()).unwrap();
        let unapplied: Vec<UnappliedEntry<'_>> = (1..)
            .map(RaftIndex)
            .zip(requests.iter().map(|(field, message)| V3Request { field: *field, message }))
            .collect();
        let lost = not_shown(&unapplied, &preserved);
        unapplied.iter().map(|unapplied| lost.contains(unapplied)).collect()
    }

    #[test]
    fn writes_in_the_backend_are_not_unapplied() {
        for (field, message, is_lost) in [
            (4, &b"\x0a\x02/a"[..], true),
            (5, b"\x0a\x02/b", false),
            (5, b"\x0a\x02/a", true),
            (5, b"\x0a\x01/\x12\x010", true),
            (5, b"\x0a\x02/b\x12\x01\0", false),
            (6, b"", false),
            (6, b"\x12\x06\x1a\x04\x0a\x02/b", false),
            (6, b"\x12\x06\x12\x04\x0a\x02/b", true),
            (7, b"\x08\x03", false),
            (7, b"\x08\x04", true),
            (7, b"\x08\x06", false),
            (8, b"\x08\x3c\x10\x07", false),
            (8, b"\x08\x3c\x10\x08", true),
            (9, b"\x08\x07", true),
            (9, b"\x08\x08", false),
            (1000, b"", false),
            (1011, b"", true),
            (1100, b"\x0a\x03bob", false),
            (1100, b"\x0a\x03eve", true),
            (1101, b"\x0a\x03bob", true),
            (1101, b"\x0a\x03eve", false),
            (1200, b"\x0a\x03bob", true),
            (1103, b"\x0a\x03bob", true),
        ] {
            assert_eq!(lost(&[(field, message)]), [is_lost], "{field} {}", message.escape_ascii());
        }
    }

    #[test]
    fn a_lease_that_came_and_went_is_not_missed() {
        let (grant, revoke) = ((8, &b"\x08\x3c\x10\x09"[..]), (9, &b"\x08\x09"[..]));
        assert_eq!(lost(&[grant, revoke]), [false, false]);
        assert_eq!(lost(&[revoke, grant]), [false, true]);
    }
}

//! The files of a member that starts again after a snapshot without v2 content: same identity, same membership, a fresh log.
//!
//! Must not know which entries follow, or where the membership was read.

use serde_json::{Map, Value, json};

use super::segment::restarted;
use super::snap::{file, node};
use super::{Member, json as to_json};
use crate::error::Result;
use crate::ids::{ClusterId, MemberId, RaftIndex, Term};
use crate::proto::etcd;
use crate::source::raft::{Entry, HardState};
use crate::source::snap::ConfState;

/// A member, and the snapshot after which it starts.
#[derive(Debug, Clone, Copy)]
pub struct Restart<'a> {
    /// The ID of the member.
    pub member: MemberId,
    /// The ID of its cluster.
    pub cluster: ClusterId,
    /// The raft index of the snapshot: that of the last entry in the v3 backend.
    pub index: RaftIndex,
    /// The term of that entry.
    pub term: Term,
    /// The raft configuration at that entry.
    pub conf_state: &'a ConfState,
    /// The members of the cluster.
    pub members: &'a [Member],
    /// The IDs of removed members.
    pub removed: &'a [MemberId],
    /// The cluster version.
    pub version: Option<&'a str>,
}

impl Restart<'_> {
    /// Returns the records of the log: the snapshot, the entries after it, the hard state. Zeros up to
    /// [`PREALLOCATED`](super::PREALLOCATED) follow them in the file.
    ///
    /// # Errors
    /// [`Reason::Internal`](crate::error::Reason::Internal).
    pub fn segment(&self, entries: &[Entry<'_>], state: HardState) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.write_segment(entries.iter().map(|entry| Ok(*entry)), state, &mut |piece| {
            bytes.extend_from_slice(piece);
            Ok(())
        })?;
        Ok(bytes)
    }

    /// Passes the records of the log on like [`Restart::segment`], piece by piece.
    ///
    /// # Errors
    /// [`Reason::Internal`](crate::error::Reason::Internal); those of the entries and of `out`.
    pub fn write_segment<'e>(
        &self,
        entries: impl Iterator<Item = Result<Entry<'e>>>,
        state: HardState,
        out: &mut dyn FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        restarted(self, entries, state, out)
    }

    /// Returns the name of the `.snap` file.
    pub fn snap_name(&self) -> String {
        format!("{:016x}-{:016x}.snap", self.term.0, self.index.0)
    }

    /// Returns the bytes of the `.snap` file. Its v2 store has the membership, and an empty directory for keys.
    ///
    /// # Errors
    /// [`Reason::Internal`](crate::error::Reason::Internal).
    pub fn snap_file(&self) -> Result<Vec<u8>> {
        file(self.store()?, self.conf_state(), self.index, self.term)
    }

    /// Returns the raft configuration as a message.
    pub(super) fn conf_state(&self) -> etcd::ConfState {
        let ids = |ids: &[MemberId]| ids.iter().map(|id| id.0).collect();
        let (voters, learners) = (ids(&self.conf_state.voters), ids(&self.conf_state.learners));
        etcd::ConfState { voters, learners, auto_leave: Some(false), ..Default::default() }
    }

    /// Returns the v2 store as JSON. Each node takes one index.
    fn store(&self) -> Result<Vec<u8>> {
        let mut index = 0;
        let mut next = || {
            index += 1;
            index
        };
        let mut members = Map::new();
        for member in self.members {
            let path = format!("/0/members/{}", member.id);
            let raft = match member.is_learner {
                true => json!({ "peerURLs": member.peer_urls, "isLearner": true }),
                false => json!({ "peerURLs": member.peer_urls }),
            };
            let mut attributes = Map::new();
            if !member.name.is_empty() {
                attributes.insert("name".into(), member.name.clone().into());
            }
            if !member.client_urls.is_empty() {
                attributes.insert("clientURLs".into(), member.client_urls.clone().into());
            }
            let at = next();
            let mut files = Map::new();
            let raft = node(&format!("{path}/raftAttributes"), at, &raft.to_string(), Value::Null);
            files.insert("raftAttributes".into(), raft);
            if !attributes.is_empty() {
                let value = Value::Object(attributes).to_string();
                files.insert("attributes".into(), node(&format!("{path}/attributes"), next(), &value, Value::Null));
            }
            members.insert(member.id.to_string(), node(&path, at, "", Value::Object(files)));
        }
        let mut zero = Map::new();
        zero.insert("members".into(), node("/0/members", 1, "", Value::Object(members)));
        if !self.removed.is_empty() {
            let mut removed = Map::new();
            for id in self.removed {
                let file = node(&format!("/0/removed_members/{id}"), next(), "", Value::Null);
                removed.insert(id.to_string(), file);
            }
            zero.insert("removed_members".into(), node("/0/removed_members", 1, "", Value::Object(removed)));
        }
        if let Some(version) = self.version {
            zero.insert("version".into(), node("/0/version", next(), version, Value::Null));
        }
        let zero = node("/0", 0, "", Value::Object(zero));
        let root = node("/", 0, "", json!({ "0": zero, "1": node("/1", 0, "", json!({})) }));
        to_json(&json!({ "Root": root, "CurrentIndex": index, "CurrentVersion": 2 }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::dir::SegmentName;
    use crate::source::raft::EntryKind;
    use crate::source::wal::Wal;
    use crate::v2store::json;

    #[test]
    fn the_files_read_as_they_were_written() {
        let mut members = vec![Member::new("a", &["http://a:1".into()], false, "t")];
        members.push(Member::new("", &["http://b:1".into()], true, "t"));
        let conf_state = ConfState { voters: vec![members[0].id], learners: vec![members[1].id] };
        let restart = Restart {
            member: members[0].id,
            cluster: ClusterId(9),
            index: RaftIndex(40),
            term: Term(3),
            conf_state: &conf_state,
            members: &members,
            removed: &[MemberId(5)],
            version: Some("3.5.0"),
        };
        let snap = crate::source::snap::parse(&restart.snap_file().unwrap()).unwrap();
        assert_eq!((snap.index, snap.term, &snap.conf_state), (RaftIndex(40), Term(3), &conf_state));
        assert_eq!(restart.snap_name(), "0000000000000003-0000000000000028.snap");
        let store = restart.store().unwrap();
        let table = json::read(&store).unwrap();
        let mut paths: Vec<String> = (1..table.len() as u32)
            .map(|id| table.node(crate::v2store::table::NodeId(id)))
            .filter(|node| !node.is_dir())
            .map(|node| String::from_utf8(table.path(&node).into_owned()).unwrap())
            .collect();
        paths.sort();
        let (one, two) = (members[0].id, members[1].id);
        let mut expected = vec![
            format!("/0/members/{one}/attributes"),
            format!("/0/members/{one}/raftAttributes"),
            format!("/0/members/{two}/raftAttributes"),
            "/0/removed_members/5".into(),
            "/0/version".into(),
        ];
        expected.sort();
        assert_eq!(paths, expected);
        let entry = |index: u64, data: &'static [u8]| Entry {
            kind: EntryKind::Normal,
            term: Term(3),
            index: RaftIndex(index),
            data,
            data_offset: crate::ids::ByteOffset(0),
        };
        let state = HardState { term: Term(4), vote: MemberId(7), commit: RaftIndex(41) };
        let segment = restart.segment(&[entry(41, b""), entry(42, b"x")], state).unwrap();
        let name = SegmentName { seq: 0, index: RaftIndex(0), path: "0.wal".into() };
        let wal = Wal::of_bytes(vec![(name, segment)]).unwrap();
        assert_eq!((wal.hard_state(), wal.last()), (Some(state), Some((Term(3), RaftIndex(42)))));
        let record = wal.snapshots().last().unwrap();
        assert_eq!((record.index, record.term, record.configured), (RaftIndex(40), Term(3), true));
        assert!(wal.continues(RaftIndex(40)));
        let metadata = wal.metadata().unwrap();
        assert_eq!((metadata.node_id, metadata.cluster_id), (one, ClusterId(9)));
    }
}

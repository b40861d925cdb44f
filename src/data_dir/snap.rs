//! The `.snap` file of a new cluster: a v2 store that contains the members and nothing else (docs/formats.md 2, 3, 10.5).
//!
//! etcd 3.4 and 3.5 read the members from it, 3.6 checks that it has no keys, 3.7 ignores it. Must not know the other files of the
//! directory.

use protobuf::MessageField;
use serde_json::{Map, Value, json};

use super::segment::conf_state;
use super::{Cluster, FIRST_TERM, encode, json as to_json};
use crate::error::Result;
use crate::ids::{RaftIndex, Term};
use crate::proto::etcd;

/// The expiry of a node without a TTL.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// Returns the name of the file.
pub fn snap_name(cluster: &Cluster) -> String {
    format!("{:016x}-{:016x}.snap", FIRST_TERM.0, cluster.last_index().0)
}

/// Returns the bytes of the file.
///
/// # Errors
/// [`Reason::Internal`](crate::error::Reason::Internal).
pub fn snap_file(cluster: &Cluster) -> Result<Vec<u8>> {
    file(store(cluster)?, conf_state(cluster), cluster.last_index(), FIRST_TERM)
}

/// Returns the file around a v2 store as JSON.
pub(super) fn file(store: Vec<u8>, conf_state: etcd::ConfState, index: RaftIndex, term: Term) -> Result<Vec<u8>> {
    let metadata = etcd::SnapshotMetadata {
        conf_state: MessageField::some(conf_state),
        index: Some(index.0),
        term: Some(term.0),
        ..Default::default()
    };
    let snapshot =
        etcd::RaftSnapshot { data: Some(store), metadata: MessageField::some(metadata), ..Default::default() };
    let data = encode(&snapshot)?;
    let container = etcd::SnapContainer { crc: Some(crc32c::crc32c(&data)), data: Some(data), ..Default::default() };
    encode(&container)
}

/// Returns the v2 store as JSON. Each member took one index when it was added.
fn store(cluster: &Cluster) -> Result<Vec<u8>> {
    let mut members = Map::new();
    for (member, index) in cluster.members().iter().zip(1u64..) {
        let path = format!("/0/members/{}", member.id);
        let attributes = match member.is_learner {
            true => json!({ "peerURLs": member.peer_urls, "isLearner": true }),
            false => json!({ "peerURLs": member.peer_urls }),
        };
        let file = node(&format!("{path}/raftAttributes"), index, &attributes.to_string(), Value::Null);
        members.insert(member.id.to_string(), node(&path, index, "", json!({ "raftAttributes": file })));
    }
    let zero = node("/0", 0, "", json!({ "members": node("/0/members", 1, "", Value::Object(members)) }));
    let root = node("/", 0, "", json!({ "0": zero, "1": node("/1", 0, "", json!({})) }));
    to_json(&json!({ "Root": root, "CurrentIndex": cluster.last_index().0, "CurrentVersion": 2 }))
}

pub(super) fn node(path: &str, index: u64, value: &str, children: Value) -> Value {
    json!({
        "Path": path, "CreatedIndex": index, "ModifiedIndex": index, "ExpireTime": NEVER, "Value": value, "Children": children,
    })
}

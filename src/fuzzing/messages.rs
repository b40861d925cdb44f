//! The messages inside records, compared with the generated protobuf code if both can read them.
//!
//! The hand-written parsers of `source/raft` read any bytes without a panic. What they accept, they read as `proto`
//! does. Must not know frames, checksums or segments.

use protobuf::Message;

use crate::ids::ByteOffset;
use crate::proto::etcd;
use crate::source::raft::{
    Method, Proposal, Request, parse_conf_change, parse_entry, parse_hard_state, parse_metadata, parse_proposal,
    parse_snap_record,
};

/// Reads any bytes as each of the messages.
pub fn entry(data: &[u8]) {
    if let Ok(entry) = parse_entry(data, ByteOffset(5)) {
        let oracle = etcd::Entry::parse_from_bytes(data).unwrap();
        assert_eq!((entry.term.0, entry.index.0, entry.data), (oracle.term(), oracle.index(), oracle.data()));
        assert_eq!(entry.kind as u64, oracle.type_());
        let start = entry.data_offset.0 as usize - 5;
        assert!(entry.data.is_empty() || data[start..].starts_with(entry.data), "the offset is that of the data");
        let _ = (parse_proposal(entry.data, ByteOffset(0)), parse_conf_change(entry.data, ByteOffset(0)));
    }
    if let Ok(state) = parse_hard_state(data, ByteOffset(0)) {
        let oracle = etcd::HardState::parse_from_bytes(data).unwrap();
        assert_eq!((state.term.0, state.vote.0, state.commit.0), (oracle.term(), oracle.vote(), oracle.commit()));
    }
    if let Ok(metadata) = parse_metadata(data, ByteOffset(0)) {
        let oracle = etcd::Metadata::parse_from_bytes(data).unwrap();
        assert_eq!((metadata.node_id.0, metadata.cluster_id.0), (oracle.node_id(), oracle.cluster_id()));
    }
    if let (Ok(record), Ok(oracle)) =
        (parse_snap_record(data, ByteOffset(0)), etcd::WalSnapshot::parse_from_bytes(data))
    {
        assert_eq!((record.index.0, record.term.0), (oracle.index(), oracle.term()));
    }
    if let (Ok(change), Ok(oracle)) = (parse_conf_change(data, ByteOffset(0)), etcd::ConfChange::parse_from_bytes(data))
    {
        assert_eq!((change.node_id.0, change.context), (oracle.node_id(), oracle.context()));
        assert_eq!(change.kind as u64, oracle.type_());
    }
    if let (Ok(Proposal::V2(request)), Ok(oracle)) =
        (parse_proposal(data, ByteOffset(0)), etcd::Request::parse_from_bytes(data))
        && request.method != Method::Unknown
        && request.method == Method::of(oracle.method())
    {
        same_request(&request, &oracle);
    }
}

fn same_request(request: &Request<'_>, oracle: &etcd::Request) {
    let expected = Request {
        method: Method::of(oracle.method()),
        path: oracle.path(),
        val: oracle.val(),
        // The generated code reads the low 32 bits of a boolean, Go reads all 64; etcd writes 0 and 1.
        dir: request.dir,
        prev_value: oracle.prev_value(),
        prev_index: oracle.prev_index(),
        prev_exist: oracle.prev_exist.and(request.prev_exist),
        expiration: oracle.expiration(),
        recursive: request.recursive,
        sorted: request.sorted,
        time: oracle.time(),
        refresh: request.refresh,
    };
    assert_eq!(*request, expected);
    assert!(!oracle.dir() || request.dir);
    assert!(!oracle.recursive() || request.recursive);
    assert!(!oracle.refresh() || request.refresh == Some(true));
    assert_eq!(request.prev_exist.is_some(), oracle.prev_exist.is_some());
}

//! `data_dir::Restart`: real directories with v2 and v3 data, rewritten by hand with a snapshot and a log without v2 content.
//! Real servers start on them and hold the same v3 data.

use std::fs::{self, File};
use std::path::Path;

use etcdlift::internals::bolt::Db;
use etcdlift::internals::data_dir::{Member, PREALLOCATED, Restart, SEGMENT_NAME};
use etcdlift::internals::ids::{MemberId, RaftIndex, Term};
use etcdlift::internals::mvcc::schema;
use etcdlift::internals::source::open::{Found, OpenOptions, open};
use etcdlift::internals::source::raft::{Entry, EntryKind, Proposal, parse_proposal};
use etcdlift::internals::source::snap::ConfState;

use crate::common::etcdctl::Etcdctl;
use crate::common::peers::{self, Version};
use crate::common::run::{etcdlift, read_json};
use crate::common::server::{Boot, Server};
use crate::common::{corpus, scratch};
use crate::test_name;

/// Writes a copy of a data directory without v2 content.
fn rewrite(source: &Path, to: &Path) {
    let Found::V2(opened) = open(source, None, &OpenOptions::default()).unwrap() else { panic!("{source:?}") };
    let wal = opened.wal().unwrap();
    let bytes = fs::read(source.join("member/snap/db")).unwrap();
    let db = Db::open(&bytes).unwrap();
    let bucket = |name: &[u8]| db.bucket(name).unwrap().unwrap();
    let meta = |key: &[u8]| {
        let pair = bucket(schema::META).get(key).unwrap().unwrap();
        u64::from_be_bytes(pair.value.try_into().unwrap())
    };
    let members: Vec<Member> =
        bucket(schema::MEMBERS).iter().map(|pair| Member::parse(pair.unwrap().value).unwrap()).collect();
    let id = |key: &[u8]| MemberId(u64::from_str_radix(std::str::from_utf8(key).unwrap(), 16).unwrap());
    let removed: Vec<MemberId> = bucket(schema::MEMBERS_REMOVED).iter().map(|pair| id(pair.unwrap().key)).collect();
    let version = bucket(schema::CLUSTER).get(schema::CLUSTER_VERSION).unwrap().unwrap();
    let metadata = wal.metadata().unwrap();
    let (index, term) = (RaftIndex(meta(schema::CONSISTENT_INDEX)), Term(meta(schema::TERM)));
    let restart = Restart {
        member: metadata.node_id,
        cluster: metadata.cluster_id,
        index,
        term,
        conf_state: &ConfState { voters: members.iter().map(|member| member.id).collect(), learners: Vec::new() },
        members: &members,
        removed: &removed,
        version: Some(std::str::from_utf8(version.value).unwrap()),
    };
    let history = wal.history();
    let rest = history.iter().filter(|entry| entry.index > index).map(|entry| wal.entry(entry).unwrap());
    let rest: Vec<Entry<'_>> = rest.map(without_v2).collect();
    let mut state = wal.hard_state().unwrap();
    state.commit = state.commit.max(index);
    let (snap, log) = (to.join("member/snap"), to.join("member/wal"));
    fs::create_dir_all(&snap).unwrap();
    fs::create_dir_all(&log).unwrap();
    fs::write(snap.join("db"), &bytes).unwrap();
    fs::write(snap.join(restart.snap_name()), restart.snap_file().unwrap()).unwrap();
    let segment = log.join(SEGMENT_NAME);
    fs::write(&segment, restart.segment(&rest, state).unwrap()).unwrap();
    File::options().write(true).open(segment).unwrap().set_len(PREALLOCATED).unwrap();
}

fn without_v2(entry: Entry<'_>) -> Entry<'_> {
    let is_v2 = entry.kind == EntryKind::Normal
        && matches!(parse_proposal(entry.data, entry.data_offset).unwrap(), Proposal::V2(_));
    if is_v2 { Entry { data: &[], ..entry } } else { entry }
}

#[test]
fn servers_start_on_a_fresh_log_with_the_same_v3_data() {
    let Some(peers) = peers::require(test_name!()) else { return };
    for (name, member) in [
        ("v3.5.16-m2", "m0.etcd"),
        ("v3.5.16-m3b", "m0.etcd"),
        ("v3.5.16-m4", "m0.etcd"),
        ("v3.5.16-m6b", "m0.etcd"),
        ("v3.5.16-m7", "m0.etcd"),
        ("v3.5.16-m13", "m0.etcd"),
        ("v3.5.16-m9", "m1.etcd"),
    ] {
        let Some(dir) = corpus::mixed(test_name!(), name) else { return };
        let truth = read_json(&dir.join("truth.json"));
        let temp = scratch::temp();
        let clean = temp.path().join("clean.etcd");
        rewrite(&dir.join(member), &clean);
        for version in ["3.6", "3.7"] {
            etcdlift(["check", clean.to_str().unwrap(), "--target-version", version]).success();
        }
        for version in [Version::V3_5, Version::V3_6] {
            let data_dir = temp.path().join(version.to_string());
            scratch::copy_tree(&clean, &data_dir);
            let force_new_cluster = name.ends_with("-m9");
            let boot = Boot { force_new_cluster, ..Boot::new(&peers, version, &data_dir) };
            let server = Server::start(&boot);
            let hash = Etcdctl::new(&peers, &server).hash_kv();
            assert_eq!(truth["v3"]["hashkv"][0]["HashKV"]["hash"].as_u64(), Some(hash), "{name} on {version}");
            server.stop();
            if version == Version::V3_6 {
                Server::start(&Boot { force_new_cluster: false, ..Boot::new(&peers, Version::V3_7, &data_dir) }).stop();
            }
        }
        fs::remove_dir_all(dir).unwrap();
    }
}

//! Small data directories with one kind of v2 content in one place each, and what etcd 3.6 and 3.7 make of them.
//!
//! The v3 backend is that of `fixtures/upgrade-check`, whose one member is at raft index 42. The snapshot that counts is at 40.
//! A test compares each case with etcdlift, another one with real servers.

use std::fs;
use std::path::Path;

use super::protobuf::{put_bytes, put_number};
use super::scratch::write_sparse;
use super::v2files::{self, Log, NORMAL, Request};
use super::v2store::{Node, joined, store_of};

/// The member of the fixture.
pub const MEMBER: u64 = 0xbdae_9bbc_11dd_390d;
const CLUSTER: u64 = 0xc1;
const TERM: u64 = 2;
/// Raft indexes: the snapshot that counts, an older one, a newer one without a record.
const COUNTING: u64 = 40;
const OLDER: u64 = 20;
const NEWER: u64 = 44;
/// The entries after the snapshot. The backend is at 42.
const LAST: u64 = 46;

/// A data directory in words.
#[derive(Clone, Debug, Default)]
pub struct Case {
    pub name: String,
    /// Children of the root of the store, apart from `/0`, in the snapshot that counts.
    counting: String,
    older: String,
    newer: String,
    broken: String,
    /// Entries by raft index; the others are empty.
    entries: Vec<(u64, Vec<u8>)>,
    /// The last committed entry; 0 for all.
    commit: u64,
    pub expect: [Expected; 2],
}

/// What a version makes of a case.
#[derive(Clone, Copy, Debug, Default)]
pub struct Expected {
    pub verdict: &'static str,
    pub status: i32,
    /// Blockers in the snapshot, blockers in the log, nodes that would be lost.
    pub counts: [usize; 3],
}

const fn expected(verdict: &'static str, status: i32, counts: [usize; 3]) -> Expected {
    Expected { verdict, status, counts }
}

const CLEAN: Expected = expected("clean", 0, [0; 3]);

fn file(path: &str) -> String {
    Node::file(path, 7, "v").child()
}

fn dir(path: &str, children: &str) -> String {
    Node::dir(path, 7, children).child()
}

impl Case {
    /// No v2 content, and one entry after the raft index of the backend.
    pub fn with_entry(name: &str, data: Vec<u8>) -> Case {
        Case { name: name.into(), entries: vec![(LAST - 1, data)], ..cases().swap_remove(0) }
    }

    /// Whether the content is in a file that no version reads.
    pub fn is_history(&self) -> bool {
        [&self.older, &self.newer, &self.broken].into_iter().any(|content| !content.is_empty())
    }
}

/// Content of the store by name, with the nodes in it that stop 3.6 and those that 3.6 does not see.
fn contents() -> Vec<(&'static str, String, usize, usize)> {
    let keys = |children: &str| dir("/1", children);
    let auth = |users: &str, roles: &str| {
        let frame = [file("/2/enabled"), dir("/2/users", users), dir("/2/roles", roles)];
        joined([dir("/1", ""), dir("/2", &joined(frame))])
    };
    vec![
        ("nothing", keys(""), 0, 0),
        ("a key", keys(&file("/1/a")), 1, 0),
        ("keys in directories", keys(&dir("/1/d", &joined([file("/1/d/a"), dir("/1/d/e", &file("/1/d/e/b"))]))), 2, 0),
        ("an empty directory", keys(&dir("/1/d", "")), 1, 0),
        ("a hidden key", keys(&file("/1/_a")), 0, 1),
        ("a hidden empty directory", keys(&dir("/1/_d", "")), 0, 1),
        ("keys in a hidden directory", keys(&dir("/1/_d", &joined([file("/1/_d/a"), file("/1/_d/b")]))), 0, 2),
        ("a directory with a hidden key", keys(&dir("/1/d", &file("/1/d/_a"))), 1, 1),
        ("a user", auth(&file("/2/users/ann"), ""), 1, 0),
        ("a role", auth("", &file("/2/roles/readers")), 1, 0),
        ("a hidden role", auth("", &file("/2/roles/_r")), 0, 1),
        ("no user and no role", auth("", ""), 0, 0),
        ("an empty /2", joined([keys(""), dir("/2", "")]), 0, 0),
        ("a hidden key in /2", joined([keys(""), dir("/2", &file("/2/_a"))]), 0, 1),
        ("a key in another namespace", joined([keys(""), dir("/3", &file("/3/a"))]), 1, 0),
        ("an empty namespace", joined([keys(""), dir("/3", "")]), 0, 1),
        ("a hidden namespace", joined([keys(""), dir("/_3", &file("/_3/a"))]), 0, 1),
        ("a key in the root", joined([keys(""), file("/a")]), 0, 1),
        ("no /1", String::new(), 0, 0),
    ]
}

/// Requests by name, whether 3.6 accepts them, and whether 3.7 does.
fn requests() -> Vec<(&'static str, Vec<u8>, bool, bool)> {
    let member = format!("/0/members/{MEMBER:x}/attributes");
    let attributes = br#"{"name":"demo","clientURLs":["http://127.0.0.1:23791"]}"#;
    let put = |path: &str, value: &[u8]| Request::new("PUT", path).value(value).bytes();
    let wrapped = |request: &[u8]| {
        let mut data = Vec::new();
        put_number(&mut data, 1, 9);
        put_bytes(&mut data, 2, request);
        data
    };
    vec![
        ("PUT", put("/1/a", b"v"), false, false),
        ("PUT of a hidden key", put("/1/_a", b"v"), false, false),
        ("POST", Request::new("POST", "/1/q").value(b"v").bytes(), false, false),
        ("DELETE", Request::new("DELETE", "/1/a").bytes(), false, false),
        ("QGET", Request::new("QGET", "/1/a").bytes(), false, false),
        ("QGET without a path", Request::new("QGET", "").bytes(), false, true),
        ("SYNC", Request::new("SYNC", "").bytes(), false, true),
        ("no method", Request::new("", "").bytes(), false, true),
        ("attributes", put(&member, attributes), true, false),
        ("cluster version", put("/0/version", b"3.5.0"), true, false),
        ("attributes without JSON", put(&member, b"v"), false, false),
        ("attributes of an unknown member", put("/0/members/ab/attributes", attributes), false, false),
        ("a key like attributes", put("/1/0/members/ab/attributes", b"v"), false, false),
        ("a key below attributes", put(&format!("{member}/x"), attributes), false, false),
        ("DELETE of attributes", Request::new("DELETE", &member).bytes(), false, false),
        ("a PUT in an internal request", wrapped(&put("/1/a", b"v")), false, true),
        ("attributes in an internal request", wrapped(&put(&member, attributes)), true, true),
    ]
}

/// All cases.
pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (what, content, blockers, unseen) in contents() {
        let case = |place: &str| Case { name: format!("{what} in {place}"), ..Case::default() };
        let v3_6 = match (blockers, unseen) {
            (0, 0) => CLEAN,
            (0, _) => expected("clean", 8, [0, 0, unseen]),
            _ => expected("snapshot", 7, [blockers, 0, unseen]),
        };
        let all = blockers + unseen;
        let v3_7 = if all == 0 { CLEAN } else { expected("clean", 8, [0, 0, all]) };
        cases.push(Case { counting: content.clone(), expect: [v3_6, v3_7], ..case("the snapshot") });
        // In any other file, content stops nothing and is history.
        let history = [CLEAN, CLEAN];
        cases.push(Case { older: content.clone(), expect: history, ..case("an older snapshot") });
        cases.push(Case { newer: content.clone(), expect: history, ..case("a snapshot without a record") });
        cases.push(Case { broken: content, expect: history, ..case("a .broken file") });
    }
    for (what, data, v3_6, v3_7) in requests() {
        let case = |at: u64, place: &str| {
            let entries = vec![(at, data.clone())];
            Case { name: format!("{what} {place}"), entries, ..Case::default() }
        };
        let of = |is_accepted: bool| if is_accepted { CLEAN } else { expected("wal", 7, [0, 1, 0]) };
        let expect = [of(v3_6), of(v3_7)];
        cases.push(Case { expect, ..case(COUNTING + 1, "after the snapshot") });
        // 3.7 cannot apply an entry that asks for nothing.
        let is_applied = !what.contains("internal");
        let expect = [of(v3_6), of(v3_7 && is_applied)];
        cases.push(Case { expect, ..case(LAST - 1, "not applied") });
        cases.push(Case { expect, commit: LAST - 2, ..case(LAST - 1, "above the commit index") });
    }
    cases
}

/// An internal request with this field, which `fill` writes.
pub fn internal(field: u64, fill: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let (mut data, mut message) = (Vec::new(), Vec::new());
    fill(&mut message);
    put_number(&mut data, 1, 9);
    put_bytes(&mut data, field, &message);
    data
}

/// A version in a data directory, and the minor version that it needs.
#[derive(Clone, Copy, Debug)]
pub struct Versioned {
    pub in_backend: Option<&'static str>,
    pub in_log: Option<&'static str>,
    /// Whether 3.6 and 3.7 start.
    pub starts: [bool; 2],
}

pub const VERSIONED: [Versioned; 8] = [
    Versioned { in_backend: Some("3.7.0"), in_log: None, starts: [false, true] },
    Versioned { in_backend: Some("3.8.0"), in_log: None, starts: [false, false] },
    Versioned { in_backend: Some("3.6.0"), in_log: None, starts: [true, true] },
    // No server writes a cluster version with a patch version.
    Versioned { in_backend: Some("3.6.9"), in_log: None, starts: [false, true] },
    Versioned { in_backend: Some("3.6.0"), in_log: Some("3.7.0"), starts: [false, true] },
    Versioned { in_backend: Some("3.7.0"), in_log: Some("3.8.0"), starts: [false, false] },
    Versioned { in_backend: None, in_log: Some("3.6.0"), starts: [true, true] },
    Versioned { in_backend: Some("3.7.0"), in_log: Some("3.6.0"), starts: [false, true] },
];

/// Writes a data directory without v2 content that has these cluster versions.
pub fn write_versioned(data_dir: &Path, versioned: &Versioned) {
    let data = versioned.in_log.map(|version| internal(1300, |out| put_bytes(out, 1, version.as_bytes())));
    write(data_dir, &Case::with_entry("a version", data.unwrap_or_default()));
    let (name, old) = (b"clusterVersion", b"3.5.0");
    let Some(version) = versioned.in_backend else { return };
    super::scratch::edit(&data_dir.join("member/snap/db"), |bytes| {
        let pair = [&name[..], old].concat();
        let places: Vec<usize> = (0..bytes.len() - pair.len()).filter(|at| bytes[*at..].starts_with(&pair)).collect();
        assert!(!places.is_empty(), "the backend has no cluster version");
        places.iter().for_each(|at| bytes[at + name.len()..][..old.len()].copy_from_slice(version.as_bytes()));
    });
}

/// Writes the data directory of a case.
pub fn write(data_dir: &Path, case: &Case) {
    let snap = |index: u64, content: &str| {
        let children = joined([dir("/0", ""), content.to_string()].into_iter().filter(|children| !children.is_empty()));
        // A server writes into this ring.
        let events = vec!["null"; 1000].join(",");
        let queue = format!(r#"{{"Events":[{events}],"Size":0,"Front":0,"Back":0,"Capacity":1000}}"#);
        let history = format!(r#"{{"Queue":{queue},"StartIndex":0,"LastIndex":0}}"#);
        let store = store_of(9, &children, &history);
        v2files::write_snapshot(data_dir, store.into_bytes(), index, TERM, MEMBER, 9).path
    };
    if !case.broken.is_empty() {
        let path = snap(NEWER + 1, &case.broken);
        fs::rename(&path, path.with_extension("snap.broken")).unwrap();
    }
    if !case.older.is_empty() {
        snap(OLDER, &case.older);
    }
    if !case.newer.is_empty() {
        snap(NEWER, &case.newer);
    }
    snap(COUNTING, &case.counting);
    let entry = |index: u64| {
        let data = case.entries.iter().find(|(at, _)| *at == index).map(|(_, data)| data.clone());
        (NORMAL, TERM, data.unwrap_or_default())
    };
    let log = Log {
        node_id: MEMBER,
        cluster_id: CLUSTER,
        start: (COUNTING, TERM),
        entries: (COUNTING + 1..=LAST).map(entry).collect(),
        commit: if case.commit == 0 { LAST } else { case.commit },
        padded: true,
    };
    v2files::write_log(data_dir, &log);
    let db = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/upgrade-check/input/default.etcd/member/snap/db");
    write_sparse(&mut fs::File::open(db).unwrap(), &data_dir.join("member/snap/db")).unwrap();
}
